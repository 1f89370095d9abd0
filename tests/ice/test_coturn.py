"""The TURN server that most people run: coturn, when it is installed."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from psyne_mesh.config import StunServer, TurnServer
from psyne_mesh.webrtc.ice import GatheringComplete, PathSelected, gather, open_gateway
from tests.ice.helpers import LIMIT_S, LOOPBACK, Side, exchange, introduce, selected
from tests.ice.test_servers import kinds

TURNSERVER = shutil.which("turnserver")
pytestmark = pytest.mark.lab
USER, CREDENTIAL = "player", "secret"


@pytest.fixture(autouse=True)
def coturn_is_installed() -> None:
    if TURNSERVER is None:
        pytest.skip("coturn is not installed, so NOTHING HERE WAS TESTED (Debian: apt-get install coturn)")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@attrs.define
class Coturn:
    port: int
    tls_port: int
    process: subprocess.Popen[bytes]

    def entry(self, transport: str) -> TurnServer:
        port = self.tls_port if transport == "tls" else self.port
        return TurnServer("127.0.0.1", port, username=USER, credential=CREDENTIAL, transport=transport)  # type: ignore[arg-type]


@asynccontextmanager
async def coturn(folder: Path, authority: trustme.CA) -> AsyncGenerator[Coturn, None]:
    certificate = authority.issue_cert("127.0.0.1")
    (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    port, tls_port = free_port(), free_port()
    arguments = [
        *("-n", "--no-cli", "--lt-cred-mech", "--fingerprint", "--allow-loopback-peers", "--no-dtls"),
        *(
            "--listening-ip",
            "127.0.0.1",
            "--relay-ip",
            "127.0.0.1",
            "--realm",
            "test",
            "--user",
            f"{USER}:{CREDENTIAL}",
        ),
        *("--listening-port", str(port), "--tls-listening-port", str(tls_port)),
        *("--cert", str(folder / "cert.pem"), "--pkey", str(folder / "key.pem")),
        *(
            "--log-file",
            str(folder / "log"),
            "--simple-log",
            "--pidfile",
            str(folder / "pid"),
            "--db",
            str(folder / "db"),
        ),
    ]
    process = _start(arguments)
    try:
        for one in (port, tls_port):
            await _listening(one)
        yield Coturn(port, tls_port, process)
    finally:
        process.kill()
        process.wait()


def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
    assert TURNSERVER is not None
    return subprocess.Popen([TURNSERVER, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def _listening(port: int) -> None:
    with trio.fail_after(LIMIT_S):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.01)
            else:
                await stream.aclose()
                return


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_peers_meet_over_coturn(transport: str, tmp_path: Path, authority: trustme.CA) -> None:
    def trusting() -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    async with coturn(tmp_path, authority) as server:
        config = attrs.evolve(LOOPBACK, turn_servers=(server.entry(transport),), relay_only=True)
        async with (
            open_gateway(config, tls=trusting) as left,
            open_gateway(config, tls=trusting) as right,
            trio.open_nursery() as nursery,
        ):
            a, b = Side(left, controlling=True), Side(right, controlling=False)
            for side in (a, b):
                await nursery.start(side.transport.run)
                await side.event(GatheringComplete)
                assert kinds(side) == ["relay"], side.transport._gateway.problems
            introduce(a, b)
            await selected(a, b)
            await exchange(a, b)
            flight = [bytes([20 + number]) * 1191 for number in range(20)]
            b.transport.send(flight)
            await a.until(lambda: len(a.received) >= 22)
            assert a.received[2:] == flight
            relay = left.found[-1][1]
            await left.run_in_loop(relay.refresh)  # type: ignore[attr-defined]
            await exchange(a, b)
            a.transport.close()
            b.transport.close()


async def test_coturn_answers_as_a_stun_server(tmp_path: Path, authority: trustme.CA) -> None:
    async with coturn(tmp_path, authority) as server:
        config = attrs.evolve(LOOPBACK, stun_servers=(StunServer("127.0.0.1", server.port),))
        async with open_gateway(config) as gateway, trio.open_nursery() as nursery:
            side = Side(gateway, controlling=True)
            await nursery.start(side.transport.run)
            await side.event(GatheringComplete)
            assert not gateway.problems
            side.transport.close()


async def test_the_death_of_coturn_is_noticed_and_a_direct_path_found(
    tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(gather, "ANSWER_S", 0.05)
    async with coturn(tmp_path, authority) as server:
        config = attrs.evolve(LOOPBACK, turn_servers=(server.entry("udp"),))
        async with open_gateway(config) as left, open_gateway(LOOPBACK) as right, trio.open_nursery() as nursery:
            a, b = Side(left, controlling=True), Side(right, controlling=False)
            for side in (a, b):
                await nursery.start(side.transport.run)
                await side.event(GatheringComplete)
            relayed = [text for text in a.candidates if " typ relay " in text]
            assert len(relayed) == 1
            # Only the relay at first: the direct candidates come later.
            b.transport.add_remote_candidate(relayed[0])
            b.transport.set_remote(a.transport.local)
            a.transport.set_remote(b.transport.local)
            for text in b.candidates:
                a.transport.add_remote_candidate(text)
            await selected(a, b)
            server.process.kill()
            await a.until(lambda: len(left.found) == 1)
            assert [found.kind for found, _ in left.found] == ["host"]
            await a.until(lambda: a.transport.path and a.transport.path.kind == "host")
            await b.event(PathSelected)
            a.transport.close()
            b.transport.close()
