"""One other player of a room, as plain facts that are always up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from psyne_mesh.frozen import Frozen
from psyne_mesh.identity import PeerId
from psyne_mesh.names import plain

if TYPE_CHECKING:
    from psyne_mesh.mesh.membership import Membership
    from psyne_mesh.mesh.profile import Profile
    from psyne_mesh.room.state_views import WrittenState
    from psyne_mesh.webrtc.ice import Path
    from psyne_mesh.webrtc.stats import PeerStats


_NOTHING: Mapping[str, Any] = {}


class Me(PeerId):
    """Our own id, and the door to our state: `room.me.state["ready"] = True`; the others read it in `peer.state`."""

    state: WrittenState


class Peer:
    """Another player. Two `Peer` objects are equal when they are the same player."""

    __slots__ = (
        "_joined_at",
        "_membership",
        "_ways",
        "away",
        "connected",
        "dial_failed",
        "id",
        "name",
        "profile",
        "state",
        "suspected",
        "was_linked",
    )  # fmt: skip

    def __init__(
        self, membership: Membership, peer_id: PeerId, name: str, profile: Profile, joined_at: int = 0,
        state: Mapping[str, Any] = _NOTHING, ways: Callable[[PeerId], tuple[float, float] | None] = lambda peer: None,
    ) -> None:  # fmt: skip
        self._membership = membership
        self._joined_at = joined_at
        self._ways = ways
        self.id = peer_id
        # The display name that the player chose: only a name, never a proof. `id` is the proof.
        self.name = plain(name) or peer_id.short
        self.profile = profile
        # What the player tells of itself (`room.me.state` there), always up to date.
        self.state = state
        self.connected = False
        self.dial_failed = False
        # Channels were open once in this stay, so they can be again.
        self.was_linked = False
        self.suspected = False
        # Why the player is away though it is here: what it said (`room.pause`), or "stands still". None: it is not.
        self.away: str | None = None

    @property
    def relayed(self) -> bool:
        """No link, but others carry what we send: the room is a partial mesh, or this pair cannot connect. False while we
        are linked to nobody who could, and after the room has ended."""
        if self.connected or self._membership.closed:
            return False
        return self._membership.is_partial or (self.dial_failed and self._membership.has_links)

    @property
    def stay(self) -> int:
        """Since when it is in the room, in milliseconds, as it says itself; another one is another stay."""
        return self._joined_at

    def has_stayed(self, earlier: Peer | None) -> bool:
        """It is the same stay in the room, though it was taken for gone in between."""
        return earlier is not None and earlier._joined_at == self._joined_at

    @property
    def path(self) -> Path | None:
        """How packets travel to this player, or None while there is no link."""
        return self._membership.path(self.id)

    @property
    def rtt_ms(self) -> float | None:
        """The smoothed round trip in milliseconds, or None before it was measured."""
        rtt = self._membership.rtt(self.id)
        return None if rtt is None else rtt * 1000

    @property
    def seat(self) -> int | None:
        """The number of the player's seat, or None while it has none. A player who crashed finds it again within 45 s."""
        seats = self._membership.node.seats
        return seats.index(self.id) if self.id in seats else None

    @property
    def latency_ms(self) -> float | None:
        """How long what the player sends is on its way to us, one way, in milliseconds: by the room's clock, so to within
        `room.time_error()`. None until somebody in the room asks for its time."""
        ways = self._ways(self.id)
        return None if ways is None else ways[0] * 1000

    @property
    def skew_ms(self) -> float | None:
        """By how much the way from the player to us takes longer than the way back, in milliseconds: 0 for most, and tens where
        one direction queues or goes round about. As `latency_ms` it needs the room's clock, and three players or more: of two
        alone no clock can tell."""
        ways = self._ways(self.id)
        return None if ways is None else (ways[0] - ways[1]) * 1000

    @property
    def waiting_bytes(self) -> int:
        """What was sent to this player and has not left yet, on all channels: if it grows, the player does not read a
        reliable channel, or its network is too slow. At 12 MiB its link is dropped ("overflow")."""
        return self._membership.waiting(self.id)

    @property
    def stats(self) -> PeerStats | None:
        return self._membership.link_stats(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peer) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        state = (
            "suspected" if self.suspected else "away" if self.away else "connected" if self.connected else "discovered"
        )
        return f"<Peer {self.name!r} {self.id.short} {state}>"


class Player(Frozen):
    """Ourselves, as far as we are shown like the others: `room.player`."""

    id: PeerId
    name: str


OURSELVES: Final = Player(PeerId(), "")
"""The owner of what is shared unless the call names another."""
