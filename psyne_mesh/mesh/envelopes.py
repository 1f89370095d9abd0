"""Sealed envelopes: what links say to each other before they stand, by way of a signaling server or of other members."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress

import trio

from psyne_mesh.errors import LocalError, ProtocolError, SignalingError, WouldBlock
from psyne_mesh.frozen import Frozen
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.limits import TokenBucket, forget_oldest
from psyne_mesh.mesh.alarms import Alarms, Carrier
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.mesh.sealed import ENVELOPE
from psyne_mesh.signaling.envelope import Envelope, Kind, ReplayGuard, Untimely, open_untrusted, seal, tampering_in
from psyne_mesh.signaling.transport import SignalingTransport

# A server that does not know a peer is not asked again for so long; what it refuses then is younger than that.
REFUSED_S = 5.0
REPEATED_S = 15.0  # as long as a dial takes
# Envelopes of one peer that may have to be sent again, and peers: an offer with its candidates, to those dialled at once.
POSTED_MAX = 16
REMEMBERED_MAX = 64

# Answers to what comes at the wrong time: a whole room may have a wrong clock, and old offers can be played again.
UNTIMELY_BURST = 16.0
UNTIMELY_PER_S = 1.0


class Tampering(Frozen):
    """What came was not sealed by whom it names."""

    reason: str


class Envelopes:
    """1. `post(...)` seals one and sends it; `post_tunnelled(...)` sends datagrams of a tunnel, which need no seal;
    `refused(...)` when the server would not have one, `link_opened(...)` when a link stands, `repeat(...)` for a peer that
    has not heard us. 2. `open_untrusted(...)` for each that comes: the envelope, once;
    `Tampering`; `Untimely`, for which there is `answer_untimely(...)`; or None for what is of no use.
    """

    def __init__(
        self, identity: Identity, signaling: SignalingTransport, server: str, rooms: Mapping[str, Membership],
        rooms_of: Callable[[PeerId], list[str]], wall_ms: Callable[[], int],
        carry: Callable[[str, PeerId, str], bool] = lambda room, peer, envelope: False,
    ) -> None:  # fmt: skip
        """carry: over another room that both are in, where that is the better way, or none at all."""
        self._identity = identity
        self._signaling = signaling
        self._server = server
        self._rooms = rooms
        self._rooms_of = rooms_of
        self._wall_ms = wall_ms
        self._carry = carry
        self._replays = ReplayGuard()
        # Through signaling, and when; heard last is last
        self._posted: OrderedDict[tuple[str, PeerId], deque[tuple[float, str]]] = OrderedDict()
        self._refused_at: OrderedDict[tuple[str, PeerId], float] = OrderedDict()
        # For the mesh, while we have no link in the room: a newcomer hears of the refusal first. The oldest gives way.
        self._stranded: deque[tuple[float, str, PeerId, str]] = deque(maxlen=POSTED_MAX * REMEMBERED_MAX)
        self._alarms = Alarms()
        self._untimely = TokenBucket(burst=UNTIMELY_BURST, per_second=UNTIMELY_PER_S, now=trio.current_time())

    def post(self, peer: PeerId, kind: Kind, session: str, sequence: int, body: str) -> None:
        """Through signaling while it stands and knows the peer, else over the mesh."""
        for room in self._rooms_of(peer):
            sealed = seal(self._identity, kind=kind, recipient=peer, room=room, session=session, sequence=sequence, body=body,
                          now_ms=self._wall_ms())  # fmt: skip
            now = trio.current_time()
            self._remember(room, peer, sealed, now)
            if now - self._refused_at.get((room, peer), -math.inf) > REFUSED_S:
                try:
                    self._signaling.send_signal(peer, room, sealed)
                except (SignalingError, WouldBlock):
                    pass
                else:
                    return
            self._send_over_mesh(room, peer, sealed)
            return

    def refused(self, room: str | None, peer: PeerId | None) -> None:
        """The server did not pass on what we said to the peer: it has lost it, or never had it. What is still of use goes
        over the mesh, and so does what follows, for a while."""
        if room is None or room not in self._rooms or peer is None:
            return
        now = trio.current_time()
        self._refused_at[room, peer] = now
        forget_oldest(self._refused_at, REMEMBERED_MAX)
        self._send_again(room, peer, now - REFUSED_S)

    def repeat(self, peer: PeerId) -> None:
        """It dials us and does not know that we dial it: what we said to it has not arrived. Over the mesh a newcomer's words
        can overtake its record, and nobody believes a stranger there."""
        for room in self._rooms_of(peer):
            self._send_again(room, peer, trio.current_time() - REPEATED_S)

    def _send_again(self, room: str, peer: PeerId, since: float) -> None:
        for at, sealed in self._posted.get((room, peer), ()):
            if at >= since:
                self._send_over_mesh(room, peer, sealed)

    def _remember(self, room: str, peer: PeerId, sealed: str, now: float) -> None:
        recent = self._posted.pop((room, peer), None) or deque(maxlen=POSTED_MAX)
        recent.append((now, sealed))
        self._posted[room, peer] = recent
        forget_oldest(self._posted, REMEMBERED_MAX)

    def link_opened(self, peer: PeerId) -> None:
        """The peer has heard us, and can carry now what found nobody before."""
        now = trio.current_time()
        for room in self._rooms:
            self._posted.pop((room, peer), None)
        waiting, self._stranded = self._stranded, deque(maxlen=self._stranded.maxlen)
        for at, room, peer, sealed in waiting:
            if room in self._rooms and now - at <= REFUSED_S:
                self._send_over_mesh(room, peer, sealed)

    def _send_over_mesh(self, room: str, peer: PeerId, sealed: str) -> None:
        membership = self._rooms[room]
        if self._carry(room, peer, sealed):
            return
        if membership.has_links:
            membership.send_signal(peer, ENVELOPE + sealed.encode())
        else:
            self._stranded.append((trio.current_time(), room, peer, sealed))

    @property
    def signals_per_s(self) -> float:
        return self._signaling.signals_per_s

    def told_ms(self) -> int | None:
        """The server's time, if it tells it."""
        return self._signaling.time_ms()

    def post_tunnelled(self, peer: PeerId, text: str) -> bool:
        """The last rung: datagrams inside signaling messages. False when there is none; then they are lost."""
        for room in self._rooms_of(peer):
            with suppress(SignalingError, LocalError):
                self._signaling.send_signal(peer, room, text)
                return True
        self._signaling.doubt()  # there is no other way to this peer: the server must not be asked at leisure
        return False

    def answer_untimely(self, untimely: Untimely) -> None:
        """Tell its sender why it hears nothing: it waits for an answer to an offer, and our clocks do not agree. What we say
        looks untimely to it, too, and says by how much."""
        envelope = untimely.envelope
        if envelope.kind == "offer" and self._untimely.allow(trio.current_time()):
            self.post(envelope.sender, "bye", envelope.session, 0, "clock")

    def open_untrusted(
        self, membership: Membership, claimed: PeerId, text: str, carrier: Carrier
    ) -> Envelope | Untimely | Tampering | None:
        """`carrier`: the member that handed it over, None for signaling. The room is told of tampering, within limits."""
        now_ms = self._wall_ms()
        try:
            envelope = open_untrusted(
                text, recipient=self._identity.peer_id, expected_sender=claimed, room=membership.room, now_ms=now_ms
            )
        except Untimely as error:
            return error
        except ProtocolError as error:
            if (tampering := tampering_in(error)) is None:
                return None
            who = f"signaling server {self._server}" if carrier is None else f"member {carrier.short}"
            reason = f"{who} passed on what {claimed.short} did not seal: {tampering}"
            self._alarm(membership, carrier, claimed, reason)
            return Tampering(reason)
        if not self._replays.accept(envelope, now_ms):
            return None
        if (
            carrier is None
        ):  # the server knows it again; a restarted player has no link over which our answer could come
            self._refused_at.pop((membership.room, claimed), None)
        return envelope

    def _alarm(self, membership: Membership, carrier: Carrier, claimed: PeerId, reason: str) -> None:
        left_out = self._alarms.sound(membership.room, carrier, trio.current_time())
        if left_out is not None:
            reason += f" (and {left_out} more like it before)" if left_out else ""
            membership.sink.on_tampering(self._server if carrier is None else carrier, claimed, reason)
