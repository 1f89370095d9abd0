"""Tunnels: datagrams of a pair that has no path of its own, carried by a common peer or, last of all, by signaling.

On a link a carried datagram is a frame under a tag of its own:
`TUNNEL_TAG | to: 16 | from: 16 | datagram`. What is inside is DTLS between the two ends with a MAC of theirs behind it
(`webrtc/ladder.py`): a carrier can drop it, and no more.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket, forget_oldest
from psyne_mesh.mesh.link import Link, LinkState
from psyne_mesh.mesh.signaling_rung import Lateness
from psyne_mesh.webrtc.ice import Path

TUNNEL_TAG = bytes(8)
SIGNAL_PREFIX = "tunnel."  # no sealed envelope begins like this: its alphabet has no such first part
_STAMP_CHARS_MAX = 12
_ID_BYTES = 16
_HEAD_BYTES = len(TUNNEL_TAG) + 2 * _ID_BYTES

# A tunnel carries what fits any path; path MTU discovery finds that out. 1,191 bytes of SCTP, 37 of DTLS, 8 of MAC come first.
DATAGRAM_BYTES_MAX = 1_400
# Until the peer was heard, so many common peers are tried at once: which of them has a link to it is not known.
TRIED_AT_ONCE = 3
# Then it is the turn of others.
TURN_S = 1.0
# A carrier that has been silent for so long is no longer trusted to carry.
CARRIER_LIFE_S = 3.0
# Signaling is asked only after common peers had so long to show that they carry.
SIGNALING_AFTER_S = 0.3
# What we carry for others: 2 Mbit/s all told, with a second's burst. More is dropped: our own game comes first.
CARRIED_BYTES_PER_S = 256_000.0
# Of that one neighbour gets at most so much, for so many neighbours; further ones begin with a share anew.
CARRIED_SHARE = 0.5
CARRIED_FOR_MAX = 64
# Before that both rungs of a young link may be in use: what is still in the tunnel then says nothing of the path.
SETTLED_S = 3.0
# The same after a break: it left before its sender could know that the path answers again. A second for the tunnel, which may
# be the longer way, and two round trips; else two ends far apart send each other into the tunnel for ever.
REVIVED_S, REVIVED_ROUND_TRIPS = 1.0, 2.0


class PeerTunnel:
    """The `Tunnel` of one link. It finds out by listening who carries: whoever brought something last."""

    def __init__(
        self,
        peer: PeerId,
        me: PeerId,
        *,
        now: Callable[[], float],
        links: Callable[[], Iterable[Link]],
        signal: Callable[[PeerId, Sequence[bytes]], None],
        signals_per_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._peer = peer
        self._head = TUNNEL_TAG + peer.raw + me.raw
        self._now = now
        self._links = links
        self._signal = signal
        self._signals_per_s = signals_per_s
        self._carrier: PeerId | None = None  # None: nobody known, or signaling
        self._hint: PeerId | None = None  # it brought something that nothing proves to be of the peer
        self._heard_at: float | None = None
        self._began_at: float | None = None
        self._lateness = Lateness()

    @property
    def path(self) -> Path:
        if self._carrier is None:
            return Path(kind="signaling", local=("", 0), remote=("", 0), rate=self._signals_per_s())
        return Path(kind="peer", local=("", 0), remote=("", 0))

    def is_late(self, age_s: float) -> bool:
        """The stream to the server stands still with the network, and gives what it held when that is back: a signal of such
        an age by the server's clock. With `signaling_rung.LATE_S` before that it is a second old at most, or dropped."""
        return self._lateness.is_late(age_s, self._now())

    def heard(self, carrier: PeerId | None, *, proven: bool) -> None:
        """Something came through `carrier`, None for signaling. A peer that carries is preferred.

        proven: it was of the peer itself. Before the two have keys nothing is, and whoever pretends to carry must not
        keep the others from it: it is only the first to be tried.
        """
        now = self._now()
        if not proven:
            self._hint = carrier
            return
        if carrier is not None or not self._fresh(now):
            self._carrier = carrier
        if carrier == self._carrier:
            self._heard_at = now

    def send(self, datagrams: Sequence[bytes]) -> None:
        now = self._now()
        self._began_at = now if self._began_at is None else self._began_at
        fitting = [datagram for datagram in datagrams if len(datagram) <= DATAGRAM_BYTES_MAX]
        carriers = [link for link in self._links() if link.state is LinkState.OPEN and link.is_direct]
        if self._fresh(now):
            carriers = [link for link in carriers if link.peer_id == self._carrier]
        elif len(carriers) > TRIED_AT_ONCE:
            turn = int((now - self._began_at) / TURN_S) * TRIED_AT_ONCE % len(carriers)
            carriers = carriers[turn:] + carriers[:turn]
            carriers.sort(key=lambda link: link.peer_id != self._hint)
        for link in carriers[:TRIED_AT_ONCE]:
            for datagram in fitting:
                link.send_frame(self._head + datagram, reliable=False)
        by_signaling = self._carrier is None and (not carriers or now - self._began_at >= SIGNALING_AFTER_S)
        if fitting and (by_signaling or not carriers):
            self._signal(self._peer, fitting)

    def _fresh(self, now: float) -> bool:
        return self._carrier is not None and self._heard_at is not None and now - self._heard_at < CARRIER_LIFE_S


class Tunnels:
    """What comes to us through others, and what we carry for our neighbours. Give it every frame that begins with
    `TUNNEL_TAG`, and the datagrams of every signal that begins with `SIGNAL_PREFIX`."""

    def __init__(self, me: PeerId, links: Mapping[PeerId, Link], now: Callable[[], float]) -> None:
        self._me = me
        self._links = links
        self._now = now
        self._budget = CarrierBudget(now())

    def receive(self, carrier: Link, frame: bytes) -> None:
        try:
            to, sender, datagram = frame_untrusted(frame)
        except ProtocolError:
            return
        if to == self._me:
            self.deliver(sender, [datagram], carrier.peer_id)
        elif sender == carrier.peer_id:  # we carry for neighbours only, and in their own name only
            onward = self._links.get(to)
            if onward is not None and onward.is_direct and self._budget.take(sender, len(frame), self._now()):
                onward.send_frame(frame, reliable=False)

    def deliver(
        self, sender: PeerId, datagrams: list[bytes], carrier: PeerId | None, age_s: float | None = None
    ) -> None:
        """`carrier`: None for signaling, which may tell the age."""
        link = self._links.get(sender)
        if link is None or not isinstance(link.tunnel, PeerTunnel):
            return
        late = age_s is not None and link.tunnel.is_late(age_s)
        before = link.last_heard
        link.deliver_tunnelled(datagrams, late=late)
        proven = link.last_heard != before
        link.tunnel.heard(carrier, proven=proven)
        if proven and link.is_direct and self._is_settled(link):
            link.suspect()  # it goes a longer way, so it does not hear us on the path, though we may hear it there

    def _is_settled(self, link: Link) -> bool:
        now = self._now()
        revived_s = REVIVED_S + REVIVED_ROUND_TRIPS * (link.rtt or 0.0)
        return now - link.born > SETTLED_S and now - link.path_proven_at > revived_s


class CarrierBudget:
    """Token buckets over everything we carry for others, and over the share of each: `take` before a datagram is carried."""

    def __init__(self, now: float, bytes_per_s: float = CARRIED_BYTES_PER_S) -> None:
        self._share = bytes_per_s * CARRIED_SHARE
        self._all = TokenBucket(burst=bytes_per_s, per_second=bytes_per_s, now=now)
        self._of: OrderedDict[PeerId, TokenBucket] = OrderedDict()
        self.carried = 0
        self.dropped = 0

    def take(self, sender: PeerId, size: int, now: float) -> bool:
        own = self._of.pop(sender, None) or TokenBucket(burst=self._share, per_second=self._share, now=now)
        self._of[sender] = own
        forget_oldest(self._of, CARRIED_FOR_MAX)
        allowed = self._all.left(now) >= size and own.allow(now, size)
        if allowed:
            self._all.charge(size, now)
        self.carried += allowed
        self.dropped += not allowed
        return allowed


def frame_untrusted(frame: bytes) -> tuple[PeerId, PeerId, bytes]:
    """(to, from, datagram) of a tunnel frame, or `ProtocolError`."""
    if not _HEAD_BYTES < len(frame) <= _HEAD_BYTES + DATAGRAM_BYTES_MAX or not frame.startswith(TUNNEL_TAG):
        raise ProtocolError("not a tunnel frame")
    at = len(TUNNEL_TAG)
    to = PeerId.from_raw_untrusted(frame[at : at + _ID_BYTES])
    sender = PeerId.from_raw_untrusted(frame[at + _ID_BYTES : _HEAD_BYTES])
    return to, sender, frame[_HEAD_BYTES:]


def signal_untrusted(text: str) -> tuple[list[bytes], int | None]:
    """The datagrams inside a tunnel signal, and when they left by the server's clock, in ms, if their sender knew it; or
    `ProtocolError`."""
    stamp, dot, body = text.removeprefix(SIGNAL_PREFIX).rpartition(".")
    try:
        sent_ms = int(stamp[: _STAMP_CHARS_MAX + 1], 16) if dot else None
        data = b64decode(body, validate=True)
    except (Base64Error, ValueError) as error:
        raise ProtocolError("not a tunnel signal") from error
    datagrams, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        datagram = data[at + 2 : at + 2 + size]
        if not 0 < size == len(datagram) <= DATAGRAM_BYTES_MAX:
            raise ProtocolError("a datagram in a tunnel signal is cut short, empty or too long")
        datagrams.append(datagram)
        at += 2 + size
    if len(stamp) > _STAMP_CHARS_MAX:
        raise ProtocolError("a tunnel signal of a time that never comes")
    return datagrams, sent_ms


def signal_of(datagrams: Sequence[bytes], sent_ms: int | None = None) -> str:
    """The text that `signal_untrusted` reads: `tunnel.`, the time in hexadecimal and a dot if it is known, base64."""
    stamp = "" if sent_ms is None else f"{sent_ms:x}."
    return SIGNAL_PREFIX + stamp + b64encode(b"".join(map(_sized, datagrams))).decode()


def _sized(datagram: bytes) -> bytes:
    return len(datagram).to_bytes(2, "big") + datagram
