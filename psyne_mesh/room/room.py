"""A room: the players in it, what happens to them, and the channels between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from types import MappingProxyType
from typing import Any, TypeVar, cast, overload

import trio

from psyne_mesh.errors import ClocksDiffer, ClosedError, InvalidConfig, ProtocolError, RemoteError
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.gossip.records import Record
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore
from psyne_mesh.mesh.membership import CHANNEL_NAME_BYTES_MAX, Membership, Reading
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.request import RoomEntry
from psyne_mesh.names import plain
from psyne_mesh.room import events as room_events
from psyne_mesh.room.announced import Announced
from psyne_mesh.room.away import Away
from psyne_mesh.room.carried import carried_untrusted, lost_untrusted, lost_word
from psyne_mesh.room.channel import INBOX_MAX, Channel, is_channel_name
from psyne_mesh.room.codec import Payload, codec_for
from psyne_mesh.room.delivery import RELIABLE_ORDERED, DeliveryMode
from psyne_mesh.room.gaming import GameRoom
from psyne_mesh.room.hub import EventHub
from psyne_mesh.room.listening import Listening
from psyne_mesh.room.losses import Losses
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Me, Peer, Player
from psyne_mesh.room.silent import Silent
from psyne_mesh.room.topology import MeshMode, RoomTopology, TopologyLink
from psyne_mesh.room.undeclared import UNKNOWN_LIFE_S, Undeclared
from psyne_mesh.room.waiting import Waiting
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.joining import RoomQuery
from psyne_mesh.signaling.manifest import shown_code

M = TypeVar("M", bound=Message)
C = TypeVar("C", bound=Callable[..., Any])

CHANNELS_MAX = 256
INVITE_LIFETIME_S = 3600.0  # an evening's first hour: who comes later asks again; a guess
# An unreliable message that was under way through others for longer is worth nothing any more.
CARRIED_LIFE_S = 1.0
NORMAL_PRIORITY = 256  # RFC 8831 section 6.4
_EVICTIONS = {"superseded": "the same identity entered it elsewhere", "kicked": "its members expelled us"}


@uninterrupted
class Room(Listening, GameRoom):
    """Made by `join_game_room`. Everything about other players arrives as events; messages arrive in channels.

    Events reach any number of subscribers, in order, each fact once. A subscriber that comes late is first told of the
    players already there.
    """

    def __init__(self, entry: RoomEntry, core: MeshCore, rng: Random) -> None:
        request = entry.request
        self.name = request.name
        self.region = request.region
        self.max_players = request.max_players
        self.skill_range = request.skill_range
        self.me = Me(core.me)
        # Ourselves, as the owner of what we share.
        self.player = Player(core.me, plain(entry.player_name) or core.me.short)
        self._membership: Membership | None = None
        self._peers: dict[PeerId, Peer] = {}
        self._silent = Silent(entry.gossip.seat_hold_s, self._forget_silent)
        self._channels: dict[str, Channel[Any]] = {}
        self._undeclared = Undeclared()
        self._announced = Announced()
        self._waiting = Waiting()
        self._away = Away()
        self._refused: dict[str, str] = {}  # what the TURN servers of the configuration, few as they are, said last
        self._hub = EventHub(self._present)
        self._losses = Losses(self._hub.publish, self._tell_dropped, self._tell_author)
        super().__init__(core, self._hub.publish, rng, entry.gossip.seat_hold_s)
        self._changed = trio.lowlevel.ParkingLot()
        self._end = "was left"
        self._ended = False

    # -------------------------------------------------------------------------------------------------------- players

    @property
    def peers(self) -> Mapping[PeerId, Peer]:
        """The other players, by id, in the order in which they were discovered. Always up to date; once the room has ended,
        those who were here last."""
        return MappingProxyType(self._peers)

    @property
    def connected(self) -> list[Peer]:
        """The players to whom channels are open; nobody once the room has ended."""
        return [peer for peer in self._peers.values() if peer.connected]

    async def wait_connected(self, players: int | None = None) -> None:
        """Wait until so many other players can be reached; without a number, until all who are known can be. Reached is who
        is connected, or gets what we send through others (`peer.relayed`): in rooms above 16 that is most of them.

        There is no timeout argument: put it into `trio.fail_after`. Raises `ClosedError` when the room is left meanwhile, and
        `InvalidConfig` for more players than the room has seats for beside ours.
        """
        if players is not None and (not isinstance(players, int) or not 0 <= players < self.max_players):
            others = f"other players, of whom this room seats {self.max_players - 1}"
            raise InvalidConfig(f"wait_connected({players!r}): must be a number of {others}")
        await trio.lowlevel.checkpoint()
        while True:
            if self._membership is None or self._membership.closed:
                raise ClosedError(f"room {self.name!r} {self._end}")
            reached = sum(peer.connected or peer.relayed for peer in self._peers.values())
            if reached >= (len(self._peers) if players is None else players):
                return
            await self._changed.park()

    async def wait_left(self, peer: Peer) -> None:
        """Until the player has left; who comes back is another `Peer`. Raises `ClosedError` when our own room ends first."""
        if not isinstance(peer, Peer):
            raise InvalidConfig(f"wait_left({peer!r}): must be a Peer")
        await trio.lowlevel.checkpoint()
        while self._peers.get(peer.id) is peer:
            if self._ended:
                raise ClosedError(f"room {self.name!r} {self._end}")
            await self._changed.park()

    def read_through(self, reading: Reading) -> None:
        """For a door on another thread: `peer.stats` is put together over here."""
        self._joined().reading = reading

    @property
    def end(self) -> str:
        """Why the room is over, in words that follow its name, once it is."""
        return self._end

    def topology(self) -> RoomTopology:
        """What this player sees of the mesh: its own links with their round trips and paths, and who else is there."""
        seen = self._joined().topology()
        links = tuple(
            TopologyLink(view.peer, None if view.srtt is None else view.srtt * 1000, self._joined().path(view.peer))
            for view in seen.links
        )
        return RoomTopology(self.me, cast(MeshMode, seen.mode), (self.me, *self._peers), links)

    async def rooms(self) -> tuple[RoomInfo, ...]:
        """The rooms of the same `app_id` that our signaling server knows, up to a hundred; while it is out of reach those that
        the others here know. `SignalingLost` where nobody else is here, and `ClosedError` once the room was left."""
        self._joined()
        return (await self._core.list_rooms(RoomQuery(app_id=self.info.app_id))).rooms

    @property
    def info(self) -> RoomInfo:
        """The room as its creator signed it: policy, version, metadata. `players` are those who were here when we came."""
        assert self._membership is not None
        return self._membership.info

    @property
    def code(self) -> str:
        """By which friends enter this very instance: `join_room("K7QM-3FHT")`."""
        return shown_code(self.info.code)

    def invite(self, lifetime_s: float = INVITE_LIFETIME_S) -> str:
        """Of a room with `policy="invite"` that we made: a text for a friend, who enters with `join_room(text)` until it
        ends. `InvalidConfig` for other rooms."""
        return self._core.stays.invite(self._joined(), lifetime_s)

    # ------------------------------------------------------------------------------------------------------- channels

    @overload
    def channel(
        self, name: str, kind: type[M], /, *, mode: DeliveryMode | str | None = ..., priority: int | None = ...,
        inbox_max: int | None = ...,
    ) -> Channel[M]: ...  # fmt: skip
    @overload
    def channel(
        self, name: str, /, *kinds: type[Message], mode: DeliveryMode | str | None = ..., priority: int | None = ...,
        inbox_max: int | None = ...,
    ) -> Channel[Any]: ...  # fmt: skip
    def channel(
        self, name: str, /, *kinds: type[Message], mode: DeliveryMode | str | None = None, priority: int | None = None,
        inbox_max: int | None = None,
    ) -> Channel[Any]:  # fmt: skip
        """The broadcast channel of that name; the same object when asked again. What is asked for then must be what it is, and
        what is left out is as it is.

        kinds: the message types it carries; with none it carries `bytes` and `str`.
        mode: how our own messages travel (see `DeliveryMode`), "reliable" if left out; each sender chooses for itself.
        priority: the weight of our messages against other channels of the same link (RFC 8831 section 6.4; 256 is normal).
        inbox_max: messages that wait here to be read before the oldest is dropped (unreliable modes only).
        """
        membership = self._joined()
        if not is_channel_name(name):
            raise InvalidConfig(f"a channel name has 1 to {CHANNEL_NAME_BYTES_MAX} bytes of UTF-8, not {name!r}")
        wanted = None if mode is None else DeliveryMode.parse(mode)
        if (channel := self._channels.get(name)) is not None:
            return channel.asked_again(kinds, wanted, priority, inbox_max)
        inbox_max = INBOX_MAX if inbox_max is None else inbox_max
        if len(self._channels) >= CHANNELS_MAX:
            raise InvalidConfig(f"a room has at most {CHANNELS_MAX} channels")
        if not isinstance(inbox_max, int) or inbox_max < 1:
            raise InvalidConfig(f"inbox_max = {inbox_max!r}: must be a number of messages, at least 1")
        mode, priority = wanted or RELIABLE_ORDERED, NORMAL_PRIORITY if priority is None else priority
        codec = codec_for(kinds)
        channel = Channel(
            membership, self._peers, self._silent, self._losses, name, codec, mode, priority, inbox_max,
            self._hub.fail, self._hub.publish, self._waiting, self.fairness.referee(name, codec, mode),
            self.audience.overhear if self.audience.is_open else None,
        )  # fmt: skip
        self._channels[name] = channel
        for peer_id, protocol in self._announced.of_channel(name):
            if (peer := self._peers.get(peer_id)) is not None:
                channel.compare_types(peer, protocol)
        for peer_id, payload in self._undeclared.take(name, channel.mode, trio.current_time(), self._peers):
            channel.deliver(self._peers[peer_id], payload)
        self._count_early_losses(channel)
        return channel

    async def run(self) -> None:
        """The room's one task: calls the callbacks. Owned by the mesh that the room was joined on."""
        async with trio.open_nursery() as nursery:
            self._start_parts(nursery)
            nursery.start_soon(self._losses.run)
            await self._hub.run()
            nursery.cancel_scope.cancel()

    async def leave(self) -> None:
        """Say goodbye, behind what was sent reliably so far; the others see it at once. Then channels and iterators end, and
        calls raise `ClosedError`. Leaving the block does the same. Cancelled before the goodbye, the room goes on."""
        self._joined()
        await self._core.stays.leave(self._joined())

    def __repr__(self) -> str:
        return f"<Room {self.name!r} {len(self.connected)} of {len(self._peers)} others connected>"

    # ---------------------------------------------------------------------------------- RoomSink, called by the mesh

    def on_admitted(self, membership: Membership) -> None:
        self._membership = membership
        info = membership.info  # as its creator said
        self.name, self.region, self.skill_range = info.name, info.region, info.skill_range
        self.max_players = membership.max_players
        self.states.admitted(membership.node.own_record.joined_at)
        self.audience.admitted(membership)

    def on_leaving(self) -> None:
        """What was said last is waited for, as far as it is on its way by now."""
        self.states.tell_now()

    def on_goodbye(self) -> None:
        self.states.tell_now()
        self._hosting.resign()
        self.audience.tell_goodbye()

    def on_ended(self) -> None:
        """However it ended: by `leave`, with the mesh, or because we lost our place."""
        self._ended = True
        for channel in self._channels.values():
            channel.close(f"the room {self._end}")
        for peer in self._peers.values():
            peer.connected = False
        self.asking.end()
        self.file_traffic.end()
        self._hub.close()
        self._changed.unpark_all()

    def on_gossip(self, event: gossip_events.Event) -> None:
        match event:
            case gossip_events.PeerDiscovered(record=record):
                self._discovered(record)
            case gossip_events.PeerRenamed(record=record):
                self._renamed(record)
            case gossip_events.PeerLeft(peer=peer_id, reason=reason):
                self._left(peer_id, reason)
            case gossip_events.TwoFaced(peer=peer_id):
                self._hub.publish(room_events.TwoFaced(peer_id))
            case gossip_events.LetGo(record=record):  # both sides are told the same story
                self._left(record.peer, "timeout")
                self._discovered(record)
            case gossip_events.PeerSuspected(peer=peer_id):
                self._suspected(peer_id, True)
            case gossip_events.PeerResumed(peer=peer_id):
                self._suspected(peer_id, False)
            case gossip_events.PartitionSuspected(lost=lost, remaining=remaining, majority=majority):
                self._hub.publish(room_events.PartitionSuspected(lost, remaining, majority))
            case gossip_events.PartitionHealed(returned=returned):
                self._hub.publish(room_events.PartitionHealed(returned))
            case gossip_events.Evicted(reason=reason):
                self._evicted(reason)
            case gossip_events.BroadcastReceived(origin=origin, payload=payload, age_s=age_s):
                self._on_carried(origin, payload, age_s)
            case gossip_events.BroadcastsSkipped(origin=origin, count=count):
                if peer := self._player_of(origin):
                    self._losses.never_came(peer, count)
            case gossip_events.SignalReceived(origin=origin, blob=blob):
                with suppress(ProtocolError):
                    opened = self._joined().open_carried_untrusted(origin, blob)
                    if (never_came := lost_untrusted(opened)) is None:
                        self._on_carried(origin, opened)
                    elif peer := self._player_of(origin):
                        self._losses.never_arrived(peer, min(never_came, self._joined().broadcasts_sent))

    def on_link_open(self, peer_id: PeerId) -> None:
        peer = self._peers.get(peer_id)
        if peer is not None and not peer.connected:
            self._connected(peer)
        elif peer is not None:  # a link that took the place of another: what waits since the other was given up
            self._waiting.send(peer_id, self._channels)

    def on_link_failed(self, peer_id: PeerId, error: RemoteError) -> None:
        if peer := self._peers.get(peer_id):
            peer.dial_failed = True
            self._waiting.send(peer_id, self._channels)  # others may carry it
            self._hub.publish(room_events.PeerUnreachable(peer, error))
            self._changed.unpark_all()
        elif isinstance(error, ClocksDiffer) and self._membership and (record := self._membership.node.hinted(peer_id)):
            self._hub.publish(
                room_events.PeerUnreachable(self._peer_of(record), error)
            )  # nobody would ever see it else

    def on_link_gone(self, peer_id: PeerId) -> None:
        if peer := self._peers.get(peer_id):
            peer.connected = False
            self._changed.unpark_all()

    def on_peer_still(self, peer_id: PeerId, still: bool) -> None:
        self._away.note_still(peer_id, still)
        self._show_away(peer_id)

    def on_pause(self, peer_id: PeerId, reason: str | None) -> None:
        if peer_id in self._peers:
            self._away.note_pause(peer_id, reason)
            self._show_away(peer_id)

    def _show_away(self, peer_id: PeerId) -> None:
        peer, reason = self._peers.get(peer_id), self._away.reason(peer_id)
        if peer is not None and reason != peer.away:
            peer.away = reason
            self._hub.publish(room_events.PeerBack(peer) if reason is None else room_events.PeerAway(peer, reason))

    def on_types(self, peer_id: PeerId, name: str, protocol: str) -> None:
        self._announced.put(peer_id, name, protocol)
        channel, peer = self._channels.get(name), self._peers.get(peer_id)
        if channel is not None and peer is not None:
            channel.compare_types(peer, protocol)

    def on_message(self, peer_id: PeerId, name: str, data: Payload) -> None:
        channel, peer = self._channels.get(name), self._peers.get(peer_id)
        if channel is not None and peer is not None:
            channel.deliver(peer, data)
        else:
            self._deliver(peer_id, name, data, carried=False)

    def _deliver(self, peer_id: PeerId, name: str, data: Payload, *, carried: bool) -> None:
        peer, channel = self._peers.get(peer_id), self._channels.get(name)
        if peer is not None and channel is not None:
            channel.deliver(peer, data, carried=carried)
        elif channel is not None and peer_id in self._silent:
            channel.keep(peer_id, data, carried=carried)  # what it sends comes before gossip has it back
        elif peer is not None or peer_id in self._silent or self._joined().is_linked(peer_id):
            # A channel may not be declared yet, and a link of another room may be quicker than a record.
            self._undeclared.put(peer_id, name, data, trio.current_time())

    def _on_carried(self, origin: PeerId, blob: bytes, age_s: float = 0.0) -> None:
        """A channel message that came over other members, who repair what was lost on the way, and after a break all of it.
        What is not one is dropped: its author is no friend."""
        with suppress(ProtocolError):
            name, data, reliable = carried_untrusted(blob)
            if reliable or age_s <= CARRIED_LIFE_S:
                self._deliver(origin, name, data, carried=True)

    def on_lost(self, peer_id: PeerId, losses: Mapping[str, int], *, ours: bool) -> None:
        if peer := self._player_of(peer_id):
            note = self._losses.undelivered if ours else self._losses.lost
            for name in losses.keys() & self._channels.keys():  # of others nobody here knows, whatever the player says
                note(peer, name, losses[name])

    def on_tampering(self, carrier: str, peer_id: PeerId, reason: str) -> None:
        self._hub.publish(room_events.TamperingDetected(carrier, peer_id, reason))

    def on_server_refused(self, server: str, reason: str) -> None:
        self._refused[server] = reason
        self._hub.publish(room_events.ServerRefused(server, reason))

    def on_signaling(self, down: str | None) -> None:
        self._hub.publish(room_events.SignalingUp() if down is None else room_events.SignalingDown(down))

    # -------------------------------------------------------------------------------------------------------- helpers

    def _peer_of(self, record: Record) -> Peer:
        assert self._membership is not None
        return Peer(
            self._membership, record.peer, record.name, _profile(record), record.joined_at,
            self.states.state_of(record.peer), self._timekeeper.one_way,
        )  # fmt: skip

    def _discovered(self, record: Record) -> None:
        peer_id = record.peer
        assert self._membership is not None
        earlier = self._silent.take(peer_id)
        peer = self._peers[peer_id] = self._peer_of(record)
        self._hub.publish(room_events.PeerDiscovered(peer))
        self.states.peer_joined(peer_id)
        if self._membership.is_linked(peer_id):
            self._connected(peer)
        for name, protocol in self._announced.of_player(peer_id).items():
            if name in self._channels:
                self._channels[name].compare_types(peer, protocol)
        has_stayed = peer.has_stayed(earlier)
        peer.was_linked |= has_stayed and earlier is not None and earlier.was_linked
        for channel in self._channels.values():
            channel.give_kept(peer_id, peer if has_stayed else None)
        self._deliver_early(peer, math.inf if has_stayed else UNKNOWN_LIFE_S)
        self._changed.unpark_all()  # in a partial mesh others reach it already

    def _renamed(self, record: Record) -> None:
        if peer := self._peers.get(record.peer):
            peer.name, peer.profile = plain(record.name) or record.peer.short, _profile(record)
            self._hub.publish(room_events.PeerChanged(peer))

    def _deliver_early(self, peer: Peer, life_s: float) -> None:
        now = trio.current_time()
        for name, payload, came in self._undeclared.take_of(peer.id, now, life_s):
            channel = self._channels.get(name)
            if channel is None:
                self._undeclared.put(peer.id, name, payload, came)
            elif channel.mode.reliable or now - came <= CARRIED_LIFE_S:
                channel.deliver(peer, payload)
        for channel in self._channels.values():
            self._count_early_losses(channel)

    def _count_early_losses(self, channel: Channel[Any]) -> None:
        for peer_id, lost in self._undeclared.take_dropped(channel.name).items():
            if channel.mode.reliable:  # of another it was too old by now in any case
                channel.dropped(self._player_of(peer_id), lost)

    def _connected(self, peer: Peer) -> None:
        peer.connected, peer.dial_failed, peer.was_linked = True, False, True
        for peer_id in self._waiting.peers():  # to this one, and through it to others
            self._waiting.send(peer_id, self._channels)
        self._hub.publish(room_events.PeerConnected(peer))
        self.file_traffic.peer_joined(peer.id)
        self._changed.unpark_all()

    def _suspected(self, peer_id: PeerId, suspected: bool) -> None:
        if peer := self._peers.get(peer_id):
            peer.suspected = suspected
            self._hub.publish(room_events.PeerSuspected(peer) if suspected else room_events.PeerResumed(peer))

    def _forget_silent(self, peer_id: PeerId) -> None:
        for channel in self._channels.values():
            channel.give_kept(peer_id, None)

    def _player_of(self, peer_id: PeerId) -> Peer | None:
        """A player who is here, or was not long ago."""
        return self._peers.get(peer_id) or self._silent.get(peer_id)

    def _tell_dropped(self, peer: Peer, channel: str, count: int) -> None:
        if self._membership is not None and not self._membership.closed:
            self._membership.tell_dropped(peer.id, {channel: count})

    def _tell_author(self, author: PeerId, count: int) -> None:
        if self._membership is not None and not self._membership.closed:
            self._membership.send_signal(author, lost_word(count))

    def _left(self, peer_id: PeerId, reason: str) -> None:
        if peer := self._peers.pop(peer_id, None):
            peer.connected = False
            self._away.forget(peer_id)
            self._announced.forget(peer_id)
            for name, _ in self._waiting.take(peer_id):
                self._channels[name].waited_in_vain(peer)
            if reason == "timeout":
                self._silent.add(peer, trio.current_time())
            self.states.peer_left(peer_id)
            self.asking.peer_left(peer_id)
            self.file_traffic.peer_left(peer_id, is_for_good=reason != "timeout")
            if reason == "left":
                self._hosting.peer_left(peer_id)
            self._hub.publish(room_events.PeerLeft(peer, reason))
            self._changed.unpark_all()

    def _barred(self) -> None:
        self._evicted("kicked")

    def _evicted(self, reason: gossip_events.EvictionReason) -> None:
        membership = self._joined()
        self._hub.publish(room_events.Evicted(reason))
        if reason != "capacity":
            self._end = f"has ended for us: {_EVICTIONS[reason]}"
            self._core.stays.evicted(membership)

    def _present(self) -> list[room_events.RoomEvent]:
        if self._ended:
            return []
        facts: list[room_events.RoomEvent] = []
        for peer in self._peers.values():
            facts.append(room_events.PeerDiscovered(peer))
            if peer.connected:
                facts.append(room_events.PeerConnected(peer))
            if peer.suspected:
                facts.append(room_events.PeerSuspected(peer))
            if peer.away is not None:
                facts.append(room_events.PeerAway(peer, peer.away))
        facts += self._sharing.present()
        facts += self.states.present()
        return facts + [room_events.ServerRefused(server, reason) for server, reason in self._refused.items()]

    def _joined(self) -> Membership:
        if self._membership is None or self._membership.closed:
            raise ClosedError(f"room {self.name!r} {self._end}")
        return self._membership


def _profile(record: Record) -> Profile:
    try:
        return Profile.parse_untrusted(record.metadata)
    except ProtocolError:
        return Profile()  # a profile we cannot read is no reason to shut a player out
