"""One spoofed plaintext record, of any kind and at any moment, does not end a handshake under way.

Who spoofs knows the addresses and ports of the two, sees nothing of what they say, and gets one datagram in before each of
theirs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from psyne_mesh.webrtc.dtls import DtlsSession
from psyne_mesh.webrtc.dtls.handshake13 import groups, signing
from psyne_mesh.webrtc.dtls.handshake13.messages import ClientHello, ServerHello
from psyne_mesh.webrtc.dtls.handshake13.reassembly import encode_fragment
from psyne_mesh.webrtc.dtls.handshake13.wire import HELLO_RETRY_RANDOM
from psyne_mesh.webrtc.dtls.record13 import plaintext_record
from tests.dtls.pair import Pair
from tests.dtls.pair13 import CLASSIC, Pair13, talk

X_SHARE = groups.X25519Exchange(groups.KeyMaker().x25519).share
CLIENT_HELLO = ClientHello(
    random=b"r" * 32, suites=(0x1301,), versions=(0xFEFC,), groups=(groups.X25519,), shares=((groups.X25519, X_SHARE),),
    signature_algorithms=signing.ALGORITHMS, srtp_profiles=(1,),
).encode()  # fmt: skip
OLD_CLIENT_HELLO = b"\xfe\xfd" + b"r" * 32 + b"\0\0" + b"\0\2\xc0\x2b" + b"\1\0"
SERVER_HELLO = ServerHello(b"s" * 32, 0x1301, groups.X25519, X_SHARE).encode()
OLD_SERVER_HELLO = b"\xfe\xfd" + b"s" * 32 + b"\0" + b"\xc0\x2b" + b"\0"
RETRY = ServerHello(HELLO_RETRY_RANDOM, 0x1301, groups.SECP256R1).encode()


def handshake(kind: int, body: bytes, sequence: int) -> bytes:
    return plaintext_record(22, 2**40 + sequence, encode_fragment(kind, len(body), sequence, 0, body))


KINDS: dict[str, Callable[[int], bytes]] = {
    "change_cipher_spec": lambda n: plaintext_record(20, 2**40, b"\1"),
    "change_cipher_spec of no known kind": lambda n: plaintext_record(20, 2**40, b"\2"),
    "fatal alert": lambda n: plaintext_record(21, 2**40, b"\2\x28"),
    "close_notify": lambda n: plaintext_record(21, 2**40, b"\1\0"),
    "application data": lambda n: plaintext_record(23, 2**40, b"data"),
    "ack": lambda n: plaintext_record(26, 2**40, b"\0\x10" + bytes(15) + bytes((n,))),
    "empty ack": lambda n: plaintext_record(26, 2**40, b"\0\0"),
    "unknown type": lambda n: plaintext_record(99, 2**40, b"what"),
    "hello request": lambda n: handshake(0, b"", n),
    "client_hello": lambda n: handshake(1, CLIENT_HELLO, n),
    "client_hello of 1.2": lambda n: handshake(1, OLD_CLIENT_HELLO, n),
    "server_hello": lambda n: handshake(2, SERVER_HELLO, n),
    "server_hello of 1.2": lambda n: handshake(2, OLD_SERVER_HELLO, n),
    "hello_retry_request": lambda n: handshake(2, RETRY, n),
    "hello_verify_request": lambda n: handshake(3, b"\xfe\xfd\4cook", n),
    "new_session_ticket": lambda n: handshake(4, bytes(20), n),
    "encrypted_extensions": lambda n: handshake(8, b"\0\0", n),
    "certificate": lambda n: handshake(11, b"\0\0\0", n),
    "server_key_exchange": lambda n: handshake(12, b"\3\0\x17\x41" + bytes(140), n),
    "certificate_request": lambda n: handshake(13, b"\1\1\0\2\4\3\0\0", n),
    "server_hello_done": lambda n: handshake(14, b"", n),
    "certificate_verify": lambda n: handshake(15, b"\4\3\0\2xx", n),
    "client_key_exchange": lambda n: handshake(16, b"\x20" + bytes(32), n),
    "finished": lambda n: handshake(20, bytes(12), n),
    "garbage of a handshake": lambda n: plaintext_record(22, 2**40, b"\1\0\0\x40garbage"),
    "part of a hello": lambda n: plaintext_record(22, 2**40, encode_fragment(1 + n % 2, 200, 0, 7, b"part")),
    "part of a long hello": lambda n: plaintext_record(22, 2**40, encode_fragment(1 + n % 2, 8_000, 0, 7, b"part")),
}


def before(moment: int, spoofed: bytes) -> Callable[[str, bytes], list[tuple[float, bytes]]]:
    """Gets `spoofed` in just before the datagram with this number, to the same side."""
    count = iter(range(1_000))

    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        if next(count) == moment:
            return [(-0.005, spoofed), (0.0, datagram)]
        return [(0.0, datagram)]

    return wire


def check_1_3(kind: str, allowed: tuple[int, ...], moments: int, sequences: int) -> None:
    for moment in range(moments):
        for sequence in range(sequences):
            talk(Pair13(before(moment, KINDS[kind](sequence)), allowed_groups=allowed).connect(limit=2.0))


@pytest.mark.parametrize("kind", KINDS)
def test_one_spoofed_record_ends_no_handshake_of_1_3(kind: str) -> None:
    check_1_3(kind, CLASSIC, 4, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_spoofed_record_ends_no_handshake_with_ml_kem(kind: str) -> None:
    check_1_3(kind, groups.GROUPS, 6, 4)


class PairOfBoth(Pair):
    """A server that takes 1.3 and 1.2, before anything was said about the peer."""

    make = staticmethod(DtlsSession)


@pytest.mark.parametrize("kind", KINDS)
def test_nor_one_whose_server_takes_both_versions(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "GROUPS", CLASSIC)
    for moment in range(4):
        for sequence in range(2):
            pair = PairOfBoth(before(moment, KINDS[kind](sequence))).connect(limit=2.0)
            talk(pair)
            assert pair.server.stats.version == "DTLSv1.3"


@pytest.mark.parametrize("kind", KINDS)
def test_nor_one_of_1_2(kind: str) -> None:
    for moment in range(4):
        for sequence in range(4):
            pair = Pair(before(moment, KINDS[kind](sequence))).connect(limit=5.0)
            talk(pair)


def test_forged_hellos_in_numbers_cost_a_bounded_amount_of_work() -> None:
    """Each different one costs a signature; after 32 no new one is answered."""
    pair = Pair13()
    pair.server.start(0.0)
    for number in range(100):
        forged = handshake(1, CLIENT_HELLO.replace(b"r" * 32, bytes([number]) * 32), 0)
        pair.server.receive(forged, 0.0)
    assert len(pair.server._candidates) == 4
    assert pair.server._hellos is not None
    assert pair.server._hellos._n_hellos == 32


def test_a_complaint_that_nothing_contradicts_is_believed_after_a_while() -> None:
    for spoofed in (KINDS["fatal alert"](0), KINDS["server_hello of 1.2"](0)):
        pair = Pair13()
        pair.client.start(0.0)
        pair.client.datagrams_to_send(0.0)
        pair.client.receive(spoofed, 0.1)
        assert pair.client.state == "handshaking"
        while pair.client.state == "handshaking":
            now = pair.client.next_timeout()
            pair.client.handle_timeout(now)
        assert now == pytest.approx(3.1)
        assert pair.client.state == "failed"
