"""Peers that hold the keys and lie: what each lie in a handshake of DTLS 1.3 leads to (RFC 8446 sections 4 and 6.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from psyne_mesh.errors import FingerprintMismatch, ProtocolError
from psyne_mesh.webrtc.dtls import Certificate, Failed
from psyne_mesh.webrtc.dtls.handshake13 import client, core, groups, server
from psyne_mesh.webrtc.dtls.handshake13.messages import ClientHello, ServerHello
from psyne_mesh.webrtc.dtls.handshake13.reassembly import encode_fragment
from psyne_mesh.webrtc.dtls.handshake13.wire import HELLO_RETRY_RANDOM, Alert, Extension, MessageType, extension, vector
from psyne_mesh.webrtc.dtls.record13 import plaintext_record
from psyne_mesh.webrtc.dtls.session13 import Session13
from tests.dtls.pair import SERVER
from tests.dtls.pair13 import Pair13

Lie = Callable[[bytes], bytes]
EE, CR, CERT = MessageType.ENCRYPTED_EXTENSIONS, MessageType.CERTIFICATE_REQUEST, MessageType.CERTIFICATE
CV, FIN = MessageType.CERTIFICATE_VERIFY, MessageType.FINISHED
ALGORITHMS = extension(Extension.SIGNATURE_ALGORITHMS, b"\0\2\4\3")


def flipped(body: bytes, at: int = -1) -> bytes:
    changed = bytearray(body)
    changed[at] ^= 1
    return bytes(changed)


class Liar(core.Handshake):
    """Says other things than it should, and signs and hashes what it said."""

    lies: ClassVar[dict[int, Lie]] = {}
    kinds: ClassVar[dict[int, int]] = {}
    __slots__ = ()

    def say(self, kind: Any, body: bytes, keys: Any) -> Any:
        return super().say(self.kinds.get(kind, kind), self.lies.get(kind, lambda same: same)(body), keys)  # type: ignore[arg-type]


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> type[Liar]:
    monkeypatch.setattr(Liar, "lies", {})
    monkeypatch.setattr(Liar, "kinds", {})
    return Liar


def outcome(pair: Pair13, victim: str) -> Any:
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(20.0)
    assert pair.packets == {"client": [], "server": []}
    failed = [event for event in pair.events[victim] if isinstance(event, Failed)]
    assert len(failed) == 1, pair.events
    assert pair.side(victim).state == "failed"
    return failed[0].error


# Under the keys of the handshake, a lie ends it at once, and the alert says why.
LIES: dict[str, tuple[str, int, Lie, Alert]] = {
    "encrypted extensions with a key share": (
        "server",
        EE,
        lambda b: vector(2, extension(Extension.KEY_SHARE, b"")),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "encrypted extensions with the version": (
        "server",
        EE,
        lambda b: vector(2, extension(Extension.SUPPORTED_VERSIONS, b"\xfe\xfc")),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "encrypted extensions that nobody asked for": (
        "server",
        EE,
        lambda b: vector(2, b"\0\x10\0\0"),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "encrypted extensions twice the same": (
        "server",
        EE,
        lambda b: vector(2, 2 * extension(Extension.USE_SRTP, b"")),
        Alert.ILLEGAL_PARAMETER,
    ),
    "encrypted extensions cut off": ("server", EE, lambda b: b"\0\5\0", Alert.DECODE_ERROR),
    "encrypted extensions with a rest": ("server", EE, lambda b: b + b"x", Alert.DECODE_ERROR),
    "encrypted extensions of nothing": ("server", EE, lambda b: b"", Alert.DECODE_ERROR),
    "a certificate request without algorithms": ("server", CR, lambda b: b"\0\0\0", Alert.MISSING_EXTENSION),
    "a certificate request with algorithms that nobody has": (
        "server",
        CR,
        lambda b: b"\0" + vector(2, extension(Extension.SIGNATURE_ALGORITHMS, b"\0\2\xfe\xfe")),
        Alert.HANDSHAKE_FAILURE,
    ),
    "a certificate request with an empty list": (
        "server",
        CR,
        lambda b: b"\0" + vector(2, extension(Extension.SIGNATURE_ALGORITHMS, b"\0\0")),
        Alert.DECODE_ERROR,
    ),
    "a certificate request with half an algorithm": (
        "server",
        CR,
        lambda b: b"\0" + vector(2, extension(Extension.SIGNATURE_ALGORITHMS, b"\0\1\4")),
        Alert.DECODE_ERROR,
    ),
    "a certificate request cut off": ("server", CR, lambda b: b[:-1], Alert.DECODE_ERROR),
    "a certificate request with a rest": ("server", CR, lambda b: b + b"x", Alert.DECODE_ERROR),
    "a server's certificate with a context": ("server", CERT, lambda b: b"\1x" + b[1:], Alert.ILLEGAL_PARAMETER),
    "a client's certificate with another context": ("client", CERT, lambda b: b"\1x" + b[1:], Alert.ILLEGAL_PARAMETER),
    "no certificate of the server": ("server", CERT, lambda b: b"\0\0\0\0", Alert.CERTIFICATE_REQUIRED),
    "no certificate of the client": ("client", CERT, lambda b: b"\0\0\0\0", Alert.CERTIFICATE_REQUIRED),
    "an empty certificate": ("client", CERT, lambda b: b"\0" + vector(3, b"\0\0\0\0\0"), Alert.DECODE_ERROR),
    "a certificate cut off": ("client", CERT, lambda b: b[:-5], Alert.DECODE_ERROR),
    "a certificate with a rest": ("server", CERT, lambda b: b + b"x", Alert.DECODE_ERROR),
    "a certificate that was not signalled": ("client", CERT, lambda b: flipped(b, 100), Alert.BAD_CERTIFICATE),
    "the certificate of the other side": (
        "client",
        CERT,
        lambda b: core.CertificateMessage(b"", SERVER.der).encode(),
        Alert.BAD_CERTIFICATE,
    ),
    "a signature with a bit flipped": ("client", CV, flipped, Alert.DECRYPT_ERROR),
    "a server's signature with a bit flipped": ("server", CV, flipped, Alert.DECRYPT_ERROR),
    "a signature that is empty": ("client", CV, lambda b: b"\4\3\0\0", Alert.DECRYPT_ERROR),
    "a signature under a name that was not offered": ("client", CV, lambda b: b"\2\3" + b[2:], Alert.ILLEGAL_PARAMETER),
    "a signature under the name of another curve": ("client", CV, lambda b: b"\5\3" + b[2:], Alert.ILLEGAL_PARAMETER),
    "a signature under the name of RSA": ("client", CV, lambda b: b"\x08\4" + b[2:], Alert.ILLEGAL_PARAMETER),
    "a signature under the old name of RSA": ("client", CV, lambda b: b"\4\1" + b[2:], Alert.ILLEGAL_PARAMETER),
    "a signature cut off": ("server", CV, lambda b: b[:-1], Alert.DECODE_ERROR),
    "a signature with a rest": ("server", CV, lambda b: b + b"x", Alert.DECODE_ERROR),
    "a Finished with a bit flipped": ("client", FIN, flipped, Alert.DECRYPT_ERROR),
    "a server's Finished with a bit flipped": ("server", FIN, flipped, Alert.DECRYPT_ERROR),
    "a Finished that is too short": ("client", FIN, lambda b: b[:-1], Alert.DECRYPT_ERROR),
    "a Finished that is too long": ("server", FIN, lambda b: b + b"x", Alert.DECRYPT_ERROR),
    "a Finished of nothing": ("server", FIN, lambda b: b"", Alert.DECRYPT_ERROR),
    "a Finished of zeros": ("client", FIN, lambda b: bytes(32), Alert.DECRYPT_ERROR),
}


@pytest.mark.python_only
@pytest.mark.parametrize("name", LIES)
def test_a_lie_under_keys(name: str, liar: type[Liar], monkeypatch: pytest.MonkeyPatch) -> None:
    who, kind, lie, alert = LIES[name]
    monkeypatch.setattr(client if who == "client" else server, "Handshake", liar)
    liar.lies[kind] = lie
    pair = Pair13()
    victim = "server" if who == "client" else "client"
    told: list[Alert | None] = []
    end = Session13._end

    def noting(session: Session13, state: Any, event: Any, said: Alert | None) -> None:
        if session is pair.side(victim):
            told.append(said)
        end(session, state, event, said)

    monkeypatch.setattr(Session13, "_end", noting)
    error = outcome(pair, victim)
    assert told == [alert]
    assert isinstance(error, FingerprintMismatch if alert is Alert.BAD_CERTIFICATE else ProtocolError)


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (CERT, CV), (CV, CERT), (FIN, CERT), (CV, FIN), (FIN, MessageType.KEY_UPDATE), (CERT, MessageType.NEW_SESSION_TICKET),
        (FIN, MessageType.CLIENT_HELLO), (CERT, MessageType.SERVER_HELLO), (CERT, 99), (CV, 0),
    ],
)  # fmt: skip
def test_a_message_out_of_turn(
    who: str, said: int, instead: int, liar: type[Liar], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client if who == "client" else server, "Handshake", liar)
    liar.kinds[said] = instead
    assert "out of turn" in str(outcome(Pair13(), "server" if who == "client" else "client"))


@pytest.mark.parametrize(("said", "instead"), [(EE, CR), (CR, CERT), (CR, EE), (EE, FIN)])
def test_a_server_that_leaves_something_out(
    said: int, instead: int, liar: type[Liar], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that asks for no certificate cannot know whom it speaks to."""
    monkeypatch.setattr(server, "Handshake", liar)
    liar.kinds[said] = instead
    assert "out of turn" in str(outcome(Pair13(), "client"))


# In plaintext a lie may be anybody's: it is believed when nothing better comes for three seconds.
def with_one_more_extension(hello: ServerHello) -> bytes:
    body = hello.encode()
    return body[:38] + vector(2, body[40:] + b"\0\x0d\0\0")


X_SHARE = groups.X25519Exchange(groups.KeyMaker().x25519).share
HELLOS: dict[str, Callable[[ServerHello], bytes]] = {
    "another version": lambda h: h.encode().replace(b"\0\x2b\0\2\xfe\xfc", b"\0\x2b\0\2\xfe\xfd"),
    "no version": lambda h: h.encode().replace(b"\0\x2b\0\2\xfe\xfc", b"\0\x99\0\2\xfe\xfc"),
    "a suite that was not offered": lambda h: h._replace(suite=0x1304).encode(),
    "a suite of 1.2": lambda h: h._replace(suite=0xC02B).encode(),
    "a group that was not offered": lambda h: h._replace(group=0x001E).encode(),
    "a group for which there is no share": lambda h: h._replace(group=groups.SECP256R1, share=b"\4" + bytes(64)).encode(),
    "a share that is too short": lambda h: h._replace(share=h.share[:-1]).encode(),
    "a share that is too long": lambda h: h._replace(share=h.share + b"x").encode(),
    "a share of zeros": lambda h: h._replace(group=groups.X25519, share=bytes(32)).encode(),
    "no share": lambda h: h._replace(share=b"").encode(),
    "a session id": lambda h: h.encode().replace(h.random + b"\0", h.random + b"\1x"),
    "a compression": lambda h: h.encode().replace(b"\x13\1\0", b"\x13\1\1"),
    "a legacy version of 1.3": lambda h: b"\xfe\xfc" + h.encode()[2:],
    "an extension that nobody asked for": with_one_more_extension,
    "a rest": lambda h: h.encode() + b"x",
    "its end cut off": lambda h: h.encode()[:-1],
    "nothing": lambda h: b"",
    "a retry for a group that it has": lambda h: ServerHello(HELLO_RETRY_RANDOM, h.suite, groups.X25519).encode(),
    "a retry for a group that was not offered": lambda h: ServerHello(HELLO_RETRY_RANDOM, h.suite, 0x001E).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", HELLOS)
def test_a_servers_hello_with(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hello(ServerHello):
        __slots__ = ()

        def encode(self) -> bytes:
            return HELLOS[name](ServerHello(*self))

    monkeypatch.setattr(server, "ServerHello", Hello)
    error = outcome(Pair13(), "client")
    assert isinstance(error, ProtocolError)


CLIENT_HELLOS: dict[str, Callable[[ClientHello], bytes]] = {
    "no common suite": lambda h: h._replace(suites=(0x1304, 0xC02B)).encode(),
    "no common group": lambda h: h._replace(groups=(0x001E,), shares=()).encode(),
    "a share of a group that it does not name": lambda h: h._replace(groups=(groups.SECP256R1,)).encode(),
    "two shares of one group": lambda h: h._replace(shares=(*h.shares, h.shares[-1])).encode(),
    "a share that is too short": lambda h: h._replace(shares=((groups.X25519, b"x"),)).encode(),
    "a share of zeros": lambda h: h._replace(shares=((groups.X25519, bytes(32)),)).encode(),
    "ML-KEM's part out of range": lambda h: h._replace(shares=((groups.X25519_MLKEM768, b"\xff" * 1216),)).encode(),
    "a point that is not on the curve": lambda h: h._replace(shares=((groups.SECP256R1, b"\4" + b"\1" * 64),)).encode(),
    "a compressed point": lambda h: h._replace(shares=((groups.SECP256R1, b"\2" + b"\1" * 32),)).encode(),
    "no algorithms": lambda h: h.encode().replace(b"\0\x0d\0\x0e\0\x0c", b"\0\x99\0\x0e\0\x0c"),
    "algorithms that we have not": lambda h: h._replace(signature_algorithms=(0x0807,)).encode(),
    "a legacy cookie": lambda h: h.encode().replace(h.random + b"\0\0", h.random + b"\0\1x"),
    "a compression": lambda h: h.encode().replace(b"\x13\3\1\0", b"\x13\3\1\1"),
    "its end cut off": lambda h: h.encode()[:-1],
    "a rest": lambda h: h.encode() + b"x",
    "an extension twice": lambda h: with_extension(h.encode(), extension(Extension.USE_SRTP, b"\0\2\0\1\0")),
    "an empty list of suites": lambda h: h.encode().replace(b"\0\6\x13\1\x13\2\x13\3", b"\0\0"),
}  # fmt: skip


def with_extension(body: bytes, more: bytes) -> bytes:
    at = body.index(b"\0\x2b\0")  # the first extension
    return body[: at - 2] + vector(2, body[at:] + more)


@pytest.mark.parametrize("name", CLIENT_HELLOS)
def test_a_clients_hello_with(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hello(ClientHello):
        __slots__ = ()

        def encode(self) -> bytes:
            return CLIENT_HELLOS[name](ClientHello(*self))

    monkeypatch.setattr(client, "ClientHello", Hello)
    error = outcome(Pair13(), "server")
    assert isinstance(error, ProtocolError)


def test_extensions_that_are_not_known_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """GREASE among them (RFC 8701)."""

    class Hello(ClientHello):
        __slots__ = ()

        def encode(self) -> bytes:
            return with_extension(ClientHello(*self).encode(), b"\x0a\x0a\0\1x" + b"\0\x10\0\0" + b"\0\x1c\0\2\x40\0")

    monkeypatch.setattr(client, "ClientHello", Hello)
    Pair13().connect()


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1(), None], ids=["P-256", "P-384", "P-521", "RSA"]
)
@pytest.mark.parametrize("who", ["client", "server"])
def test_keys_of_every_kind(who: str, curve: ec.EllipticCurve | None) -> None:
    key = rsa.generate_private_key(65537, 2048) if curve is None else ec.generate_private_key(curve)
    certificate = Certificate.generate(key)
    other = "server" if who == "client" else "client"
    Pair13(**{who: {"certificate": certificate}, other: {"remote_fingerprints": [certificate.fingerprint]}}).connect()


def test_a_curve_that_has_no_algorithm_is_told_to_the_peer() -> None:
    certificate = Certificate.generate(ec.generate_private_key(ec.SECP256K1()))
    pair = Pair13(server={"certificate": certificate}, client={"remote_fingerprints": [certificate.fingerprint]})
    assert "no signature" in str(outcome(pair, "server"))


def test_a_retry_after_a_retry_is_refused() -> None:
    session = Pair13().client
    session.start(0.0)
    for sequence, suite in enumerate((0x1301, 0x1302)):
        body = ServerHello(HELLO_RETRY_RANDOM, suite, groups.SECP256R1).encode()
        session.receive(plaintext_record(22, sequence, encode_fragment(2, len(body), sequence, 0, body)), 0.0)
    while session.state == "handshaking":
        session.handle_timeout(session.next_timeout())
    [event] = session.take_events()
    assert "second HelloRetryRequest" in str(event.error)


def test_a_suite_that_changes_after_the_retry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hello(ServerHello):
        __slots__ = ()

        def encode(self) -> bytes:
            return ServerHello(*self)._replace(**({} if self.is_retry else {"suite": 0x1303})).encode()

    monkeypatch.setattr(server, "ServerHello", Hello)
    pair = Pair13(server={"allowed_groups": (groups.SECP256R1,)})
    assert "changed the suite" in str(outcome(pair, "client"))


def test_a_second_hello_that_changes_more_than_its_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hello(ClientHello):
        __slots__ = ()

        def _replace(self, **changes: Any) -> Any:
            return ClientHello(*self)._replace(**changes, suites=(0x1301,))

    monkeypatch.setattr(client, "ClientHello", Hello)
    pair = Pair13(server={"allowed_groups": (groups.SECP256R1,)})
    assert "second hello" in str(outcome(pair, "server"))


@pytest.mark.parametrize("share", [groups.X25519, groups.SECP256R1, groups.X25519_MLKEM768])
def test_each_group_in_the_first_hello(share: int) -> None:
    pair = Pair13(allowed_groups=(share,)).connect()
    assert pair.client.group == pair.server.group == share


def test_a_group_without_a_share_is_asked_for_and_takes_a_round_trip_more() -> None:
    pair = Pair13(server={"allowed_groups": (groups.SECP256R1,)}).connect()
    assert pair.client.group == groups.SECP256R1
    assert pair.client.stats.handshake_s == pytest.approx(0.04)


def test_a_cookie_in_a_retry_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    hellos: list[ClientHello] = []
    read = server.read_client_hello_untrusted

    def noting(body: bytes) -> ClientHello:
        hellos.append(read(body))
        return hellos[-1]

    class Hello(ServerHello):
        __slots__ = ()

        def encode(self) -> bytes:
            body = ServerHello(*self).encode()
            if not self.is_retry:
                return body
            return body[:38] + vector(2, body[40:] + extension(Extension.COOKIE, vector(2, b"crumbs")))

    monkeypatch.setattr(server, "ServerHello", Hello)
    monkeypatch.setattr(server, "read_client_hello_untrusted", noting)
    Pair13(server={"allowed_groups": (groups.SECP256R1,)}).connect()
    assert [hello.cookie for hello in hellos] == [b"", b"crumbs"]
