"""Which plaintext handshake messages OpenSSL gets to see in DTLS 1.2: those that the peer has signed for.

OpenSSL ends a handshake over the first message that does not fit, and until the Finished anybody can write one. But each
side's flight has a signature over what matters in it (RFC 5246 sections 7.4.3 and 7.4.8). So a flight is held until one of its
readings bears that signature. One that bears none for a second is passed on after all: then the peer itself is at fault, and
OpenSSL says in what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.dtls.handshake13.messages import Message
from psyne_mesh.webrtc.dtls.handshake13.reassembly import Fragment, Reassembly, encode_fragment, plaintext_reassembly
from psyne_mesh.webrtc.dtls.handshake13.wire import RANDOM_BYTES, Reader

CLIENT_HELLO, SERVER_HELLO, HELLO_VERIFY_REQUEST, CERTIFICATE = 1, 2, 3, 11
SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE = 12, 13, 14
CERTIFICATE_VERIFY, CLIENT_KEY_EXCHANGE = 15, 16
DOUBT_S = 1.0  # several repetitions of an honest flight fall into it
COOKIE_DOUBT_S = 0.1  # a server that asks for a cookie sends nothing else; one that does not has answered by then
_NO_CERTIFICATES = bytes(3)  # RFC 5246 section 7.4.6: an empty list
READINGS_MAX = 3  # of one message; the oldest gives way

_HASHES: dict[int, hashes.HashAlgorithm] = {4: hashes.SHA256(), 5: hashes.SHA384(), 6: hashes.SHA512()}


class Gate12:
    """The peer's messages of one handshake by their places, each in up to three readings.

    1. `add(fragment)` for each plaintext fragment; it gives the message that this made whole, also one that was there before.
    2. `signed_flight(...)` after that; `newest_flight()` when `deadline` has come.

    base: message_seq of the peer's hello; 1 after a HelloVerifyRequest.
    """

    __slots__ = ("_collecting", "_is_client", "_readings", "base", "deadline", "is_fed")

    def __init__(self, *, is_client: bool) -> None:
        self._is_client = is_client
        self._collecting: dict[int, Reassembly] = {}
        self._readings: dict[int, list[Message]] = {}
        self.base = 0
        self.deadline: float | None = None
        self.is_fed = False  # OpenSSL has the flight

    def add(self, fragment: Fragment) -> Message | None:
        place = fragment.sequence
        if fragment.kind not in self._kinds_at(place - self.base):
            return None
        reassembly = self._collecting.setdefault(place, plaintext_reassembly(place))
        reassembly.add(fragment)
        message = reassembly.take()
        if message is None:
            return None
        del self._collecting[place]
        readings = self._readings.setdefault(place, [])
        if message not in readings:
            readings.insert(0, message)
            del readings[READINGS_MAX:]
        return message

    def cookie_request(self) -> Message | None:
        """A server that wants to see its cookie first, and has said nothing else."""
        readings = self._readings.get(self.base, [])
        return next((message for message in readings if message.kind == HELLO_VERIFY_REQUEST), None)

    def signed_flight(
        self, is_signed: Callable[[list[Message]], bool], matches: Callable[[bytes], bool], now: float
    ) -> list[Message] | None:
        """The reading of the flight that its sender has signed; rather one whose certificate was signalled."""
        found = None
        whole = False
        for flight in self._flights():
            whole = True
            if is_signed(flight):
                if matches(certificate_of(flight) or b""):
                    return flight
                found = found or flight
        if found is None and self.deadline is None and (whole or self._is_bare):
            self.deadline = now + DOUBT_S
        return found

    def newest_flight(self) -> list[Message] | None:
        return next(self._flights(), None) or next(self._flights(bare=self._is_bare), None)

    @property
    def _is_bare(self) -> bool:
        """There may be a flight of a server that asks for no certificate, or of a client that shows none. No signature tells
        that from one whose rest is still on its way."""
        if not self._is_client:
            return any(message.body == _NO_CERTIFICATES for message in self._readings.get(1, ()))
        return any(message.kind == SERVER_HELLO_DONE for message in self._readings.get(self.base + 3, ()))

    def _kinds_at(self, place: int) -> tuple[int, ...]:
        """RFC 6347 section 4.2.2: both sides show certificates, nothing is resumed, no tickets are given."""
        if self._is_client:
            places: tuple[tuple[int, ...], ...] = (
                (SERVER_HELLO, HELLO_VERIFY_REQUEST), (CERTIFICATE,), (SERVER_KEY_EXCHANGE,),
                (CERTIFICATE_REQUEST, SERVER_HELLO_DONE), (SERVER_HELLO_DONE,),
            )  # fmt: skip
        else:
            places = ((CLIENT_HELLO,), (CERTIFICATE,), (CLIENT_KEY_EXCHANGE,), (CERTIFICATE_VERIFY,))
        return places[place] if 0 <= place < len(places) else ()

    def _flights(self, *, bare: bool = False) -> Iterator[list[Message]]:
        """Every reading of the whole flight, the newest first."""
        first, last = (self.base, self.base + 4) if self._is_client else (1, 3)
        places = [self._readings.get(place, []) for place in range(first, last + 1)]
        if self._is_client:
            places[0] = [message for message in places[0] if message.kind == SERVER_HELLO]
            wanted = SERVER_HELLO_DONE if bare else CERTIFICATE_REQUEST
            places[3] = [message for message in places[3] if message.kind == wanted]
            if bare:
                del places[4]
        elif bare:
            del places[2]
        for reading in product(*places):
            yield list(reading)


def certificate_of(flight: list[Message]) -> bytes | None:
    """The end's certificate, DER."""
    for message in flight:
        if message.kind == CERTIFICATE:
            try:
                return Reader(Reader(message.body).vector(3)).vector(3)
            except ProtocolError:
                return None
    return None


def server_has_signed(flight: list[Message], client_hello: bytes) -> bool:
    """RFC 5246 section 7.4.3, RFC 8422 section 5.4: the randoms of both hellos and the share. Of what else is in the flight the
    Finished tells."""
    try:
        hello, _, exchange = flight[:3]
        client_random, server_random = (body[2 : 2 + RANDOM_BYTES] for body in (client_hello, hello.body))
        reader = Reader(exchange.body)
        reader.take(3)
        share = reader.vector(1)
        parameters = exchange.body[: 4 + len(share)]
        algorithm, signature = reader.number(2), reader.vector(2)
        reader.end()
    except ProtocolError:
        return False
    return _is_signed(certificate_of(flight), client_random + server_random + parameters, algorithm, signature)


def client_has_signed(flight: list[Message], transcript: bytes) -> bool:
    """RFC 5246 section 7.4.8: every message before the CertificateVerify. `transcript` goes up to the server's last."""
    try:
        reader = Reader(flight[-1].body)
        algorithm, signature = reader.number(2), reader.vector(2)
        reader.end()
    except ProtocolError:
        return False
    signed = transcript + b"".join(whole(message, place) for place, message in enumerate(flight[:-1], 1))
    return _is_signed(certificate_of(flight), signed, algorithm, signature)


def whole(message: Message, place: int) -> bytes:
    """As it goes into the transcript of DTLS 1.2 (RFC 6347 section 4.2.6): in one fragment."""
    return encode_fragment(message.kind, len(message.body), place, 0, message.body)


def _is_signed(der: bytes | None, content: bytes, algorithm: int, signature: bytes) -> bool:
    try:
        key = x509.load_der_x509_certificate(der or b"").public_key()
        if isinstance(key, rsa.RSAPublicKey):
            if algorithm in (0x0804, 0x0805, 0x0806):
                used = _HASHES[algorithm & 0xFF]
                key.verify(signature, content, padding.PSS(padding.MGF1(used), padding.PSS.DIGEST_LENGTH), used)
                return True
            if algorithm & 0xFF == 1:
                key.verify(signature, content, padding.PKCS1v15(), _HASHES[algorithm >> 8])
                return True
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm & 0xFF == 3:
            key.verify(signature, content, ec.ECDSA(_HASHES[algorithm >> 8]))
            return True
    except (ValueError, TypeError, KeyError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion):
        return False
    return False
