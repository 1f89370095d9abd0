"""Two rooms beside one that may be watched: its gallery, where spectators pass on what they hear, and its gates, where two of
them meet the players. A companion is in a room as gossip knows it, and has none of the parts of a game."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Literal

import attrs

from psyne_mesh.errors import ClosedError, ManifestRefused, ProtocolError, RemoteError
from psyne_mesh.game.watching import wire
from psyne_mesh.game.watching.gate import GATES
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.request import RoomEntry
from psyne_mesh.room.carried import carried, carried_untrusted
from psyne_mesh.room.delivery import RELIABLE_ORDERED
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.manifest import Manifest

FEED = "feed"
GATE = {"as": "gate"}
"""What a gate tells of itself among the players."""
LOW_PRIORITY = 128  # RFC 8831 section 6.4: "below normal"; what players say to each other goes first
GATES_CONFIG = GossipConfig(full_mesh_max=24, ping_interval_s=4.0, suspect_after_s=6.0, sync_interval_s=60.0)
"""Players watch each other in the room that they play in; here a dead gate is found by the other one: upkeep may be rare."""

Hear = Callable[[PeerId, wire.FeedWord], None]


def companion_entry(
    kind: Literal["gallery", "gates"], info: RoomInfo, secret: bytes, player_name: str, profile: Profile
) -> RoomEntry:
    """The companion of that room. Its name follows from the manifest, so no list leads to it; who knows the manifest of a
    locked room does not know `secret`, without which members do not take it for one of them."""
    said = f"psyne-{kind}\0{info.room}\0{info.manifest.signature}".encode()
    n_seats = max(2, info.manifest.spectators) if kind == "gallery" else info.max_players + GATES
    gossip = attrs.evolve(GATES_CONFIG if kind == "gates" else GossipConfig(), max_players=n_seats)
    request = JoinRequest(
        f"{kind}-{hashlib.sha256(said).hexdigest()[:32]}", app_id=info.app_id, max_players=n_seats,
        manifest=Manifest(app_version=info.manifest.app_version, visible=False),
    )  # fmt: skip
    return RoomEntry(request, player_name, profile, gossip, secret=secret)


@uninterrupted
class Companion:
    """1. `enter(entry)`. 2. What was given as hear is called for each word that came, and changed when members or links have.
    3. `tell(member, word)` over a link, `signal(member, word)` through others, `broadcast(word)`. 4. `leave()`.
    """

    def __init__(self, core: MeshCore, hear: Hear, changed: Callable[[], None]) -> None:
        self._core = core
        self._hear = hear
        self._changed = changed
        self._membership: Membership | None = None
        self.refused = 0

    async def enter(self, entry: RoomEntry) -> None:
        """Errors as of `Stays.enter`; `ManifestRefused` if somebody made the companion with other limits."""
        membership = await self._core.stays.enter(entry, self)
        if membership.info.max_players != entry.request.max_players:
            self._core.stays.evicted(membership)
            raise ManifestRefused(f"the {entry.request.name.partition('-')[0]} of the room was made with another size")

    @property
    def is_in(self) -> bool:
        return self._membership is not None and not self._membership.closed

    @property
    def membership(self) -> Membership:
        if self._membership is None or self._membership.closed:
            raise ClosedError("we are not in the companion of the room")
        return self._membership

    def members(self) -> list[PeerId]:
        """The others who are not silent."""
        node = self.membership.node
        return [peer for peer in node.members if peer != self._core.me and not node.is_suspected(peer)]

    def linked(self) -> list[PeerId]:
        return [peer for peer in self.members() if self.membership.is_linked(peer)]

    def is_gate(self, member: PeerId) -> bool:
        record = self.membership.node.record(member)
        try:
            return record is not None and Profile.parse_untrusted(record.metadata).metadata == GATE
        except ProtocolError:
            return False

    def key_of(self, member: PeerId) -> bytes:
        record = self.membership.node.record(member)
        return b"" if record is None else record.public_key

    def tell(self, member: PeerId, word: wire.FeedWord) -> None:
        membership = self.membership
        config = RELIABLE_ORDERED.data_channel(membership.label(FEED), LOW_PRIORITY)
        membership.send(member, config, wire.encode(word), reliable=True, parts=False)

    def signal(self, member: PeerId, word: wire.FeedWord) -> None:
        self.membership.send_signal(member, carried(FEED, wire.encode(word)))

    def broadcast(self, word: wire.FeedWord) -> None:
        self.membership.broadcast(wire.encode(word))

    async def leave(self) -> None:
        if self.is_in:
            await self._core.stays.leave(self.membership)

    # ---------------------------------------------------------------------------------- RoomSink, called by the mesh

    def on_admitted(self, membership: Membership) -> None:
        self._membership = membership

    def on_leaving(self) -> None: ...
    def on_goodbye(self) -> None: ...
    def on_ended(self) -> None:
        self._changed()

    def on_gossip(self, event: gossip_events.Event) -> None:
        match event:
            case gossip_events.BroadcastReceived(origin=origin, payload=payload):
                self._heard(origin, payload)
            case gossip_events.SignalReceived(origin=origin, blob=blob):
                try:
                    opened = carried_untrusted(self.membership.open_carried_untrusted(origin, blob))[1]
                except ProtocolError:
                    self.refused += 1
                else:
                    self._heard(origin, opened)
            case gossip_events.Evicted():
                self._core.stays.evicted(self.membership)
            case gossip_events.PeerDiscovered() | gossip_events.PeerLeft() | gossip_events.PeerSuspected():
                self._changed()
            case gossip_events.SeatsChanged() | gossip_events.PeerResumed():
                self._changed()

    def on_link_open(self, peer: PeerId) -> None:
        self._changed()

    def on_link_failed(self, peer: PeerId, error: RemoteError) -> None: ...
    def on_link_gone(self, peer: PeerId) -> None:
        self._changed()

    def on_peer_still(self, peer: PeerId, still: bool) -> None: ...
    def on_pause(self, peer: PeerId, reason: str | None) -> None: ...
    def on_types(self, peer: PeerId, channel: str, protocol: str) -> None: ...
    def on_message(self, peer: PeerId, channel: str, data: bytes | str) -> None:
        if channel == FEED and self.is_in and peer in self.membership.node.members:
            self._heard(peer, data)

    def on_lost(self, peer: PeerId, losses: Mapping[str, int], *, ours: bool) -> None: ...
    def on_tampering(self, carrier: str, peer: PeerId, reason: str) -> None: ...
    def on_signaling(self, down: str | None) -> None: ...
    def on_server_refused(self, server: str, reason: str) -> None: ...

    def _heard(self, peer: PeerId, data: bytes | str) -> None:
        try:
            self._hear(peer, wire.decode_untrusted(data))
        except ProtocolError:
            self.refused += 1


@attrs.frozen
class Seen:
    """A room that may be watched, as its creator signed it, and what its members prove to know."""

    info: RoomInfo
    secret: bytes = attrs.field(default=b"", repr=False)

    @property
    def domain(self) -> bytes:
        """What players sign batches of this room under."""
        return hashlib.sha256(b"psyne-feed" + self.info.room.encode() + self.info.manifest.signature.encode()).digest()
