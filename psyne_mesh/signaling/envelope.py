"""Sealed offers, answers, candidates and goodbyes: what travels through signaling that nobody has to trust.

On the wire an envelope is `payload.public_key.signature`, each part base64url without padding; the payload is JSON, and
the signature is over its exact bytes, so nothing has to be brought into a canonical form. The alphabet needs no escapes
inside JSON, and a browser makes the same with three calls.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from typing import Annotated, Literal

import msgspec

from psyne_mesh.errors import InvalidConfig, MessageTooLarge, ProtocolError, TamperedSignaling
from psyne_mesh.frozen import Frozen
from psyne_mesh.identity import Identity, PeerId, verify_untrusted

SIGNAL_DOMAIN = b"psyne-signal"
ENVELOPE_VERSION: Literal[1] = 1

MAX_BODY_CHARS = 32_768  # an offer of one data section with 60 candidates is 8 KiB
MAX_TEXT_CHARS = 49_152  # sealed: a third more, and 150 characters

# Peers' clocks are wrong by minutes now and then, and an envelope refused for that is a player who cannot join. So the
# lifetime only bounds how long a `ReplayGuard` has to remember; it is the guard that refuses repeats. Both together are ten
# minutes: no older word is believed anywhere.
LIFETIME_MS = 30_000
LIFETIME_MAX_MS = 30_000
CLOCK_SKEW_MS = 600_000 - LIFETIME_MAX_MS

Kind = Literal["offer", "answer", "candidate", "restart", "bye"]


class Envelope(Frozen, kw_only=True):
    """What one peer says to another about one connection between them.

    session: names the connection attempt; whoever offers chooses it at random, all envelopes about it carry it.
    sequence: 0, 1, 2... for this sender in this session. expires_at_ms: the sender's wall clock, Unix milliseconds.
    body: SDP for "offer" and "answer"; a candidate line, or "" for the end of candidates; empty for "restart" (the
        answerer asks the offerer for a new path); a reason for "bye".
    """

    kind: Kind
    sender: PeerId
    public_key: bytes
    recipient: PeerId
    room: str
    session: str
    sequence: int
    expires_at_ms: int
    body: str


class EnvelopeRefused(ProtocolError):
    """An envelope that must not be believed. `tampered`: it cannot have come like this from the peer whom it names."""

    def __init__(self, reason: str, *, tampered: bool) -> None:
        super().__init__(reason)
        self.tampered = tampered


class Untimely(EnvelopeRefused):
    """Too old, or from too far in the future: played again, or one of the two clocks is wrong. `envelope` is of its sender
    and meant for us; `ahead_ms`: so much the sender's clock is before ours, or behind if negative, had it just been sent."""

    def __init__(self, envelope: Envelope, ahead_ms: int) -> None:
        super().__init__(f"its sender's clock and ours differ by {abs(ahead_ms) / 1000:.0f} s", tampered=False)
        self.envelope = envelope
        self.ahead_ms = ahead_ms


def seal(
    identity: Identity,
    *,
    kind: Kind,
    recipient: PeerId,
    room: str,
    session: str,
    sequence: int,
    now_ms: int,
    body: str = "",
    lifetime_ms: int = LIFETIME_MS,
) -> str:
    """The signed text to hand to `send_signal`. `InvalidConfig` for a field out of its bounds, `MessageTooLarge`."""
    if not 0 < lifetime_ms <= LIFETIME_MAX_MS:
        raise InvalidConfig(f"lifetime_ms = {lifetime_ms}: must lie in [1, {LIFETIME_MAX_MS}]")
    try:
        payload = msgspec.json.encode(
            _Payload(
                kind=kind,
                sender=str(identity.peer_id),
                recipient=str(recipient),
                room=room,
                session=session,
                sequence=sequence,
                expires_at_ms=now_ms + lifetime_ms,
                body=body,
            )
        )
        _payload.decode(payload)  # one set of bounds: that of the reader
    except (ValueError, TypeError) as error:
        raise InvalidConfig(f"an envelope with a field out of bounds: {error}") from error
    parts = (payload, identity.public_key, identity.sign(SIGNAL_DOMAIN, payload))
    text = ".".join(_to_base64url(part) for part in parts)
    if len(text) > MAX_TEXT_CHARS:
        raise MessageTooLarge(len(text), MAX_TEXT_CHARS)
    return text


def open_untrusted(
    text: str, *, recipient: PeerId, now_ms: int, expected_sender: PeerId | None = None, room: str | None = None
) -> Envelope:
    """The envelope, proved to be from its sender and meant for us.

    Raises `EnvelopeRefused`, a `ProtocolError`; of it `Untimely`. `expected_sender` is the peer whom the transport named;
    `room` the room in which it came. Repeats are not noticed here: ask a `ReplayGuard` next.
    """
    payload, public_key, signature = _split(text)
    try:
        sender = verify_untrusted(public_key, SIGNAL_DOMAIN, payload, signature)
    except ProtocolError as error:
        raise EnvelopeRefused("the signature of the envelope is not valid", tampered=True) from error
    try:
        said = _payload.decode(payload)
    except (ValueError, RecursionError) as error:
        # The signer wrote this himself: nonsense, but not tampering.
        raise EnvelopeRefused(
            f"not an envelope of version {ENVELOPE_VERSION}: {error}"[:200], tampered=False
        ) from error
    if said.sender != sender:
        raise EnvelopeRefused(f"signed by {sender.short}, but it names {said.sender[:8]}", tampered=True)
    if expected_sender is not None and sender != expected_sender:
        raise EnvelopeRefused(f"signed by {sender.short}, handed over as {expected_sender.short}", tampered=True)
    if said.recipient != recipient:
        raise EnvelopeRefused(f"meant for {said.recipient[:8]}, delivered to {recipient.short}", tampered=True)
    if room is not None and said.room != room:
        raise EnvelopeRefused(f"meant for room {said.room!r}, delivered in {room!r}", tampered=True)
    envelope = Envelope(
        kind=said.kind,
        sender=sender,
        public_key=public_key,
        recipient=recipient,
        room=said.room,
        session=said.session,
        sequence=said.sequence,
        expires_at_ms=said.expires_at_ms,
        body=said.body,
    )
    too_late = now_ms > said.expires_at_ms + CLOCK_SKEW_MS
    if too_late or said.expires_at_ms > now_ms + LIFETIME_MAX_MS + CLOCK_SKEW_MS:
        raise Untimely(envelope, said.expires_at_ms - LIFETIME_MS - now_ms)
    return envelope


def tampering_in(error: ProtocolError) -> TamperedSignaling | None:
    """The `TamperedSignaling` to report for an error of `open_untrusted`, or None when it is plain garbage or old."""
    if isinstance(error, EnvelopeRefused) and error.tampered:
        return TamperedSignaling(str(error))
    return None


class ReplayGuard:
    """Which envelopes have been seen: per (sender, session) a window of sequence numbers, as in RFC 4303 section 3.4.3.

    1. `accept(envelope, now_ms)` for each envelope that `open_untrusted` let through; use it only if True.

    A window is forgotten when its newest envelope can no longer pass `open_untrusted`. Limits: sessions of one sender;
    at the limit the session that expires first gives way, and from then on this sender's unknown sessions that expire
    no later than it are refused: a flood hurts only the flooder. Senders: the one heard of longest ago gives way; of
    that peer an old envelope could be played again. What it costs is bounded by who listens: an offer older than what was
    said about the link that stands is refused, so it is one failed dial at most.
    """

    WINDOW = 64  # a session has about ten candidates; they may overtake each other in the mesh

    def __init__(self, *, senders_max: int = 1_024, sessions_per_sender_max: int = 32) -> None:
        self._senders_max = senders_max
        self._sessions_max = sessions_per_sender_max
        self._senders: OrderedDict[PeerId, _Sender] = OrderedDict()  # the one heard of longest ago first
        self.replays = 0

    def accept(self, envelope: Envelope, now_ms: int) -> bool:
        sender = self._senders.setdefault(envelope.sender, _Sender())
        self._senders.move_to_end(envelope.sender)
        if len(self._senders) > self._senders_max:
            self._senders.popitem(last=False)
        fresh = sender.accept(envelope, now_ms, self._sessions_max)
        self.replays += not fresh
        return fresh


class _Sender:
    __slots__ = ("floor_ms", "windows")

    def __init__(self) -> None:
        self.windows: dict[str, _Window] = {}
        self.floor_ms = 0  # unknown sessions that expire no later may be old ones that gave way

    def accept(self, envelope: Envelope, now_ms: int, sessions_max: int) -> bool:
        window = self.windows.get(envelope.session)
        if window is None:
            if envelope.expires_at_ms <= self.floor_ms:
                return False
            self._make_room(now_ms, sessions_max)
            window = self.windows[envelope.session] = _Window()
        window.expires_at_ms = max(window.expires_at_ms, envelope.expires_at_ms)
        return window.accept(envelope.sequence)

    def _make_room(self, now_ms: int, sessions_max: int) -> None:
        for session in [s for s, w in self.windows.items() if w.expires_at_ms + CLOCK_SKEW_MS < now_ms]:
            del self.windows[session]
        while len(self.windows) >= sessions_max:
            first = min(self.windows, key=lambda session: self.windows[session].expires_at_ms)
            self.floor_ms = max(self.floor_ms, self.windows.pop(first).expires_at_ms)


class _Window:
    __slots__ = ("expires_at_ms", "highest", "seen")

    def __init__(self) -> None:
        self.highest = -1
        self.seen = 0  # bit i: `highest - i` was seen
        self.expires_at_ms = 0

    def accept(self, sequence: int) -> bool:
        ahead = sequence - self.highest
        if ahead > 0:
            self.seen = ((self.seen << min(ahead, ReplayGuard.WINDOW)) | 1) & ((1 << ReplayGuard.WINDOW) - 1)
            self.highest = sequence
            return True
        bit = 1 << -ahead
        if -ahead >= ReplayGuard.WINDOW or self.seen & bit:
            return False
        self.seen |= bit
        return True


_Peer = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]


class _Payload(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    sender: _Peer
    recipient: _Peer
    room: Annotated[str, msgspec.Meta(max_length=258)]
    session: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    expires_at_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    body: Annotated[str, msgspec.Meta(max_length=MAX_BODY_CHARS)]
    v: Literal[1] = ENVELOPE_VERSION


_payload = msgspec.json.Decoder(_Payload)


def _split(text: str) -> tuple[bytes, bytes, bytes]:
    """Not three parts of base64url is damage on the way as well: nobody could have signed it."""
    if len(text) > MAX_TEXT_CHARS:
        raise EnvelopeRefused(f"an envelope of {len(text)} characters is over {MAX_TEXT_CHARS}", tampered=False)
    parts = text.split(".")
    if len(parts) != 3:
        raise EnvelopeRefused("an envelope has three parts", tampered=True)
    try:
        payload, public_key, signature = (_from_base64url(part) for part in parts)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeRefused("the parts of an envelope are base64url", tampered=True) from error
    return payload, public_key, signature


def _to_base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes:
    """Exactly one text for given bytes: no padding, no stray bits, no foreign characters."""
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _to_base64url(raw) != text:
        raise ValueError("not the canonical base64url")
    return raw
