"""A room as a spectator sees it: its players, their channels, objects and state. Nothing can be said in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from random import Random
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

import trio

from psyne_mesh.errors import ClosedError, InvalidConfig, OnlyWatching, ProtocolError
from psyne_mesh.game.replicas import Replicas
from psyne_mesh.game.schema import Shared
from psyne_mesh.game.shared import SharedObjects
from psyne_mesh.game.state import Changed
from psyne_mesh.game.state_wire import decode_untrusted
from psyne_mesh.game.timers import TIMER
from psyne_mesh.game.watching import viewer as seen_events
from psyne_mesh.game.watching.copies import Copies
from psyne_mesh.game.watching.viewer import ViewerEvent
from psyne_mesh.game.watching.wire import Facts
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.request import RoomEntry
from psyne_mesh.names import plain
from psyne_mesh.room import events as room_events
from psyne_mesh.room.channel import INBOX_MAX, Channel, SendReport, To, is_channel_name
from psyne_mesh.room.codec import Payload, codec_for
from psyne_mesh.room.companion import Seen
from psyne_mesh.room.delivery import RELIABLE_ORDERED, DeliveryMode
from psyne_mesh.room.hub import EventHub
from psyne_mesh.room.listening import Listening
from psyne_mesh.room.losses import Losses
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.plain import decode_plain_untrusted
from psyne_mesh.room.room import CHANNELS_MAX, NORMAL_PRIORITY
from psyne_mesh.room.sharing import room_event
from psyne_mesh.room.silent import Silent
from psyne_mesh.room.spectating import Spectating
from psyne_mesh.room.state_views import OneKind, SeenState
from psyne_mesh.room.states import STATE, check_values_untrusted
from psyne_mesh.room.undeclared import Undeclared
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.manifest import shown_code

S = TypeVar("S", bound=Shared)
M = TypeVar("M")

ONLY_WATCHING = "a spectator says nothing in a room; who plays in it joins without spectate=True"


@uninterrupted
class WatchedPlayer(Peer):
    """A player as a spectator knows it: there is no link to it, and it does not know of us."""

    __slots__ = ("facts",)

    def __init__(self, membership: Membership, peer_id: PeerId, facts: Facts, state: Mapping[str, Any]) -> None:
        super().__init__(membership, peer_id, facts.name, _profile(facts), facts.stay, state)
        self.facts = facts
        self.connected = True

    @property
    def seat(self) -> int | None:
        """The number of the player's seat, or None while it has none."""
        return None if self.facts.seat < 0 else self.facts.seat


class WatchedChannel(Channel[M]):
    """What players say to everybody on that channel, up to a second later; of unreliable messages a part."""

    async def send(self, message: M, to: To = None) -> NoReturn:
        """Raises `OnlyWatching`."""
        raise OnlyWatching(ONLY_WATCHING)

    async def send_payload(self, payload: Payload, to: To) -> NoReturn:
        raise OnlyWatching(ONLY_WATCHING)

    def send_nowait(self, message: M, to: To = None) -> NoReturn:
        """Raises `OnlyWatching`."""
        raise OnlyWatching(ONLY_WATCHING)

    def send_payload_nowait(self, payload: Payload, to: To) -> SendReport:
        raise OnlyWatching(ONLY_WATCHING)


@uninterrupted
class WatchedRoom(Listening):
    """Made by `join_game_room(..., spectate=True)` and `join_room(code, spectate=True)`. `peers` are the players; `channel`,
    `all`, `state` and `events` are as in a `Room`. Everything comes up to a second later than to players.

    Of what players say, what goes to everybody is seen here, reliable messages all and in order; files, requests and what is
    said to some is not.
    """

    _DOOR = "room"

    def __init__(self, core: MeshCore, entry: RoomEntry, info: RoomInfo, secret: bytes, rng: Random) -> None:
        self._core = core
        self._entry = entry
        self.info = info
        self.name, self.region, self.max_players = info.name, info.region, info.max_players
        self.me = core.me
        self._spectating = Spectating(core, Seen(info, secret), self._happened)
        self._peers: dict[PeerId, WatchedPlayer] = {}
        self._channels: dict[str, WatchedChannel[Any]] = {}
        self._undeclared = Undeclared()
        self._copies = Copies()
        self.state = SeenState(OneKind(STATE, lambda: self._copies.room.values))
        self._objects = SharedObjects(rng)
        self._replicas = Replicas(lambda player, term: (term, player) == self._spectating.viewer.host)
        self._hub = EventHub(self._present)
        self._losses = Losses(self._hub.publish, lambda peer, channel, count: None, lambda author, count: None)
        self._silent = Silent(0.0)
        self._changed = trio.lowlevel.ParkingLot()
        self._ended = False

    # ------------------------------------------------------------------------------------------------------- what is seen

    @property
    def peers(self) -> Mapping[PeerId, WatchedPlayer]:
        """The players, by id."""
        return MappingProxyType(self._peers)

    @property
    def code(self) -> str:
        return shown_code(self.info.code)

    @property
    def host(self) -> WatchedPlayer | None:
        """As most players say."""
        host = self._spectating.viewer.host[1]
        return None if host is None else self._peers.get(host)

    @property
    def term(self) -> int:
        return self._spectating.viewer.host[0]

    @property
    def spectators(self) -> int:
        """How many watch, we too."""
        return len(self._joined().node.members)

    @property
    def is_gate(self) -> bool:
        """We are one of the two who fetch for all what players say; it costs upload."""
        return self._spectating.is_gate

    async def wait_players(self, players: int = 1) -> None:
        """Until so many players are seen. `ClosedError` when the room is left meanwhile."""
        await trio.lowlevel.checkpoint()
        while len(self._peers) < players:
            self._joined()
            await self._changed.park()

    def channel(
        self, name: str, /, *kinds: type[Message], mode: DeliveryMode | str | None = None, inbox_max: int | None = None
    ) -> WatchedChannel[Any]:
        """What players say on the channel of that name. Arguments as of `Room.channel`; of an unreliable channel the oldest of
        `inbox_max` messages gives way while nobody reads."""
        membership = self._joined()
        if not is_channel_name(name):
            raise InvalidConfig(f"{name!r} is no name of a channel")
        wanted = None if mode is None else DeliveryMode.parse(mode)
        if (known := self._channels.get(name)) is not None:
            known.asked_again(kinds, wanted, None, inbox_max)
            return known
        mode = wanted or RELIABLE_ORDERED
        if len(self._channels) >= CHANNELS_MAX:
            raise InvalidConfig(f"a room has at most {CHANNELS_MAX} channels")
        if inbox_max is not None and (not isinstance(inbox_max, int) or inbox_max < 1):
            raise InvalidConfig(f"inbox_max = {inbox_max!r}: must be a number of messages, at least 1")
        channel = self._channels[name] = WatchedChannel(
            membership, self._peers, self._silent, self._losses, name, codec_for(kinds), mode, NORMAL_PRIORITY,
            INBOX_MAX if inbox_max is None else inbox_max, self._hub.fail, self._hub.publish,
        )  # fmt: skip
        for peer_id, payload in self._undeclared.take(name, mode, trio.current_time(), self._peers):
            channel.deliver(self._peers[peer_id], payload)
        return channel

    def all(self, kind: type[S]) -> Iterable[S]:
        """All objects of that class that players share, their smooth fields as they are to be seen now."""
        self._joined()
        self._replicas.know(kind)
        self._replicas.sample(trio.current_time())
        self._tell_replicas()
        return self._replicas.all(kind)

    async def leave(self) -> None:
        """Nobody in the room notices. Channels and iterators end, and calls raise `ClosedError`."""
        self._joined()
        await self._spectating.leave()
        self._end()

    def __repr__(self) -> str:
        return f"<WatchedRoom {self.name!r} {len(self._peers)} players>"

    # --------------------------------------------------------------------------------------------------- by the mesh

    async def enter(self) -> None:
        await self._spectating.enter(self._entry.player_name, self._entry.profile)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._losses.run)
            nursery.start_soon(self._watch)
            await self._hub.run()
            nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        await self._spectating.run()
        self._end()

    # ------------------------------------------------------------------------------------------------------- what happens

    def _happened(self, events: list[ViewerEvent]) -> None:
        for event in events:
            match event:
                case seen_events.PlayerTold(player=player, facts=facts):
                    self._told(self._peers[player], facts)
                case seen_events.PlayerSeen(player=player, facts=facts):
                    self._saw(player, facts)
                case seen_events.PlayerGone(player=player, reason=reason):
                    self._lost(player, reason)
                case seen_events.MessageSaid():
                    self._said(event)
                case seen_events.WordsSaid():
                    self._took(event)
                case seen_events.MessagesMissed(player=player, count=count):
                    self._losses.lost(self._peers[player], None, count)
                case seen_events.HostTold(term=term, host=host):
                    self._hub.publish(room_events.HostChanged(term, None if host is None else self._peers.get(host)))
                    if host is not None:
                        self._spectating.want_whole(host)
        self._changed.unpark_all()

    def _saw(self, player: PeerId, facts: Facts) -> None:
        self._objects.peer_joined(player, trio.current_time())
        self._copies.joined(player)
        state = SeenState(lambda: self._copies.of(player))
        peer = self._peers[player] = WatchedPlayer(self._joined(), player, facts, state)
        self._hub.publish(room_events.PeerDiscovered(peer))
        self._hub.publish(room_events.PeerConnected(peer))

    def _told(self, peer: WatchedPlayer, facts: Facts) -> None:
        before, peer.facts = peer.facts, facts
        if (facts.name, facts.metadata) != (before.name, before.metadata):
            peer.name, peer.profile = plain(facts.name) or peer.id.short, _profile(facts)
            self._hub.publish(room_events.PeerChanged(peer))

    def _lost(self, player: PeerId, reason: str) -> None:
        peer = self._peers[player]
        peer.connected = False
        self._objects.peer_left(player)
        self._apply_objects(peer)
        self._copies.left(player)
        del self._peers[player]
        self._hub.publish(room_events.PeerLeft(peer, reason))

    def _said(self, event: seen_events.MessageSaid) -> None:
        try:
            payload: Payload = event.data.decode() if event.is_text else event.data
        except UnicodeDecodeError:
            return
        peer, channel = self._peers[event.player], self._channels.get(event.channel)
        if channel is not None:
            channel.deliver(peer, payload, carried=True)
        elif event.is_reliable:
            self._undeclared.put(event.player, event.channel, payload, trio.current_time())

    def _took(self, event: seen_events.WordsSaid) -> None:
        now, peer = trio.current_time(), self._peers[event.player]
        follows = True
        for data in event.objects:
            with suppress(ProtocolError):
                self._objects.receive(event.player, data, now)
        for data in event.states:
            with suppress(ProtocolError):
                word = decode_untrusted(data)
                check_values_untrusted(word)
                follows &= self._copies.take(event.player, word, self._spectating.viewer.host[1])
        if not follows:
            self._spectating.want_whole(event.player)
        self._objects.handle_timeout(now)
        self._apply_objects(peer)
        for change in self._copies.take_events():
            self._tell_state(change)

    def _apply_objects(self, peer: Peer) -> None:
        for event in self._objects.take_events():
            self._replicas.apply(event, peer if event.owner == peer.id else self._peers.get(event.owner, peer))
        self._tell_replicas()

    def _tell_replicas(self) -> None:
        for event in self._replicas.take_events():
            self._hub.publish(room_event(event))

    def _tell_state(self, change: Changed) -> None:
        value = (
            None if change.value is None else decode_plain_untrusted(change.value) if change.key[0] != TIMER else None
        )
        owner = None if change.owner is None else self._peers.get(change.owner)
        if change.owner is not None:
            self._hub.publish(room_events.StateChanged(owner, change.key, value))
        elif change.key[0] == STATE:
            self._hub.publish(room_events.StateChanged(None, change.key[1:], value))

    # ------------------------------------------------------------------------------------------------------------ helpers

    def _present(self) -> list[room_events.RoomEvent]:
        facts: list[room_events.RoomEvent] = []
        if self._ended:
            return facts
        for peer in self._peers.values():
            facts += [room_events.PeerDiscovered(peer), room_events.PeerConnected(peer)]
        for peer in self._peers.values():
            facts += [room_events.StateChanged(peer, key, value) for key, value in peer.state.items()]
        facts += [room_events.StateChanged(None, key, value) for key, value in self.state.items()]
        return facts + [room_events.SharedAppeared(shared) for shared in self._replicas.all(Shared)]

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            for channel in self._channels.values():
                channel.close("the room was left")
            self._hub.close()
            self._changed.unpark_all()

    def _joined(self) -> Membership:
        if self._ended or not self._spectating.gallery.is_in:
            raise ClosedError(f"room {self.name!r} was left")
        return self._spectating.gallery.membership


def _profile(facts: Facts) -> Profile:
    try:
        return Profile.parse_untrusted(facts.metadata)
    except ProtocolError:
        return Profile()
