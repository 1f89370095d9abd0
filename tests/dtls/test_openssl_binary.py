"""Against `openssl s_server` and `s_client`: another build, another version, real sockets and the real clock."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from psyne_mesh.webrtc.dtls import Closed, HandshakeCompleted
from psyne_mesh.webrtc.dtls.records import CHANGE_CIPHER_SPEC, split_untrusted
from psyne_mesh.webrtc.dtls.session12 import Session12
from tests.dtls.pair import CLIENT, SERVER

OPENSSL = shutil.which("openssl")
DEADLINE = 20.0
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(OPENSSL is None, reason="NO OPENSSL BINARY: sessions were not tried against another build"),
]


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "server.pem"
    key = SERVER.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key + SERVER.certificate.public_bytes(Encoding.PEM))
    return str(path)


@contextmanager
def openssl(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    assert OPENSSL is not None
    process = subprocess.Popen(
        [OPENSSL, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Driver:
    """One session on one real socket."""

    def __init__(self, session: Session12, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.session, self.sock, self.process = session, sock, process
        self.packets: list[bytes] = []
        self.sent: list[bytes] = []
        self.n_to_lose = {"in": 0, "out": 0}  # so many datagrams that begin with a ChangeCipherSpec get lost
        self.output = b""
        self.end = time.monotonic() + DEADLINE

    def step(self) -> None:
        assert time.monotonic() < self.end, f"{self.session.state}, {self.session.stats}, openssl said {self.output!r}"
        self.flush()
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.sock, self.process.stdout], [], [], 0.02)
        now = time.monotonic()
        if self.process.stdout in ready:
            self.output += self.process.stdout.read(65536) or b""
        if self.sock in ready:
            try:
                datagram, address = self.sock.recvfrom(65536)
            except ConnectionRefusedError:  # the server is not up yet: the flight's timer will ask again
                return
            if not self.session._is_client:
                self.sock.connect(address)
            if self.loses("in", datagram):
                return
            self.packets += self.session.receive(datagram, now)
        self.session.handle_timeout(now)
        self.flush()

    def flush(self) -> None:
        for datagram in self.session.datagrams_to_send(time.monotonic()):
            self.sent.append(datagram)
            if self.loses("out", datagram):
                continue
            try:
                self.sock.send(datagram)
            except ConnectionRefusedError:
                continue

    def loses(self, way: str, datagram: bytes) -> bool:
        if datagram[0] != CHANGE_CIPHER_SPEC or not self.n_to_lose[way]:
            return False
        self.n_to_lose[way] -= 1
        return True

    def talk(self) -> None:
        while self.session.state != "established":
            self.step()
        assert self.session.take_events() == [HandshakeCompleted("ECDHE-ECDSA-AES128-GCM-SHA256", "DTLSv1.2", "x25519")]
        assert self.process.stdin is not None
        self.process.stdin.write(b"from openssl\n")
        for datagram in self.session.send([b"to openssl\n", b"x" * 1000 + b"end of it\n"]):
            self.sock.send(datagram)
        while b"to openssl\n" not in self.output or b"end of it" not in self.output or not self.packets:
            self.step()
        assert self.packets == [b"from openssl\n"]


def loopback_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def free_port() -> int:
    with loopback_socket() as sock:
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("mtu", [300, 1200])
def test_s_server(pem: str, fast: bool, mtu: int) -> None:
    """The server first asks for a cookie (HelloVerifyRequest), which makes another flight."""
    session = Session12(CLIENT, is_client=True, remote_fingerprints=[SERVER.fingerprint], fast_records=fast, mtu=mtu)
    port = free_port()
    arguments = f"-dtls1_2 -4 -accept 127.0.0.1:{port} -cert {pem} -key {pem} -Verify 1 -timeout".split()
    with openssl("s_server", *arguments) as process, loopback_socket() as sock:
        sock.connect(("127.0.0.1", port))
        driver = Driver(session, sock, process)
        session.start(time.monotonic())
        driver.talk()
        assert any(record.message_seq == 1 for record in split_untrusted(b"".join(driver.sent))[0])  # the second hello
        session.close(time.monotonic())
        driver.flush()
        while b"DONE" not in driver.output:  # it has understood the goodbye
            driver.step()


@pytest.mark.parametrize("fast", [False, True])
def test_s_client(pem: str, fast: bool) -> None:
    session = Session12(SERVER, is_client=False, remote_fingerprints=[SERVER.fingerprint], fast_records=fast)
    with loopback_socket() as sock:
        arguments = ["-dtls1_2", "-connect", f"127.0.0.1:{sock.getsockname()[1]}", "-cert", pem, "-key", pem]
        with openssl("s_client", *arguments, "-timeout") as process:
            driver = Driver(session, sock, process)
            driver.talk()
            assert process.stdin is not None
            process.stdin.write(b"Q\n")  # quit
            while session.state == "established":
                driver.step()
            assert session.take_events() == [Closed(by_peer=True)]


@pytest.mark.parametrize("fast", [False, True])
def test_s_server_whose_last_flight_is_lost(pem: str, fast: bool) -> None:
    """A peer with replay protection answers a Finished only under a number that it has not seen, so it takes OpenSSL's
    repetition after a second; and the records that follow go on after that one."""
    session = Session12(CLIENT, is_client=True, remote_fingerprints=[SERVER.fingerprint], fast_records=fast)
    port = free_port()
    arguments = f"-dtls1_2 -4 -accept 127.0.0.1:{port} -cert {pem} -key {pem} -Verify 1 -timeout".split()
    with openssl("s_server", *arguments) as process, loopback_socket() as sock:
        sock.connect(("127.0.0.1", port))
        driver = Driver(session, sock, process)
        driver.n_to_lose["in"] = 1
        session.start(time.monotonic())
        driver.talk()
        finished = {
            r.sequence for d in driver.sent for r in split_untrusted(d)[0] if (r.content_type, r.epoch) == (22, 1)
        }
        assert max(finished) >= 1
        [record] = split_untrusted(session.send([b"x"])[0])[0]
        assert record.sequence == max(finished) + 3  # two packets are between them


@pytest.mark.parametrize("fast", [False, True])
def test_s_client_that_never_got_the_last_flight(pem: str, fast: bool) -> None:
    session = Session12(SERVER, is_client=False, remote_fingerprints=[SERVER.fingerprint], fast_records=fast)
    with loopback_socket() as sock:
        arguments = ["-dtls1_2", "-connect", f"127.0.0.1:{sock.getsockname()[1]}", "-cert", pem, "-key", pem]
        with openssl("s_client", *arguments, "-timeout") as process:
            driver = Driver(session, sock, process)
            driver.n_to_lose["out"] = 1
            while driver.session.stats.flights_retransmitted == 0 or session.state != "established":
                driver.step()
            driver.talk()
