"""What goes on behind the door of a room: the mesh tells it here what happens, down to each message.

`Room` is what a user sees. All that the mesh, another door or the room's own task need of it is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import trio

from psyne_mesh.errors import ClocksDiffer, ClosedError, ProtocolError, RemoteError
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.gossip.records import Record
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore
from psyne_mesh.mesh.membership import Membership, Reading
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.request import RoomEntry
from psyne_mesh.names import plain
from psyne_mesh.room import events as room_events
from psyne_mesh.room.announced import Announced
from psyne_mesh.room.away import Away
from psyne_mesh.room.carried import carried_untrusted, lost_untrusted, lost_word
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.codec import Payload
from psyne_mesh.room.hub import EventHub
from psyne_mesh.room.losses import Losses
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.silent import Silent
from psyne_mesh.room.undeclared import UNKNOWN_LIFE_S, Undeclared
from psyne_mesh.room.waiting import Waiting

if TYPE_CHECKING:
    from psyne_mesh.room.parts import Parts

# An unreliable message that was under way through others for longer is worth nothing any more.
CARRIED_LIFE_S = 1.0
_EVICTIONS = {"superseded": "the same identity entered it elsewhere", "kicked": "its members expelled us"}


@uninterrupted
class Inside:
    """1. Give it `parts`, then enter the room with it as the `RoomSink`. 2. The room's one task is in `run()`."""

    parts: Parts

    def __init__(self, entry: RoomEntry, core: MeshCore) -> None:
        request = entry.request
        self.name = request.name
        self.region = request.region
        self.max_players = request.max_players
        self.skill_range = request.skill_range
        self._core = core
        self.membership: Membership | None = None
        self.players: dict[PeerId, Peer] = {}
        self.peers = MappingProxyType(self.players)
        self.silent = Silent(entry.gossip.seat_hold_s, self._forget_silent)
        self.channels: dict[str, Channel[Any]] = {}
        self._undeclared = Undeclared()
        self._announced = Announced()
        self.waiting = Waiting()
        self._away = Away()
        self._refused: dict[str, str] = {}  # what the TURN servers of the configuration, few as they are, said last
        self.hub = EventHub(self._present)
        self.losses = Losses(self.hub.publish, self._tell_dropped, self._tell_author)
        self.changed = trio.lowlevel.ParkingLot()
        self.end = "was left"  # why the room is over, in words that follow its name, once it is
        self.ended = False

    def joined(self) -> Membership:
        if self.membership is None or self.membership.closed:
            raise self.over()
        return self.membership

    def over(self) -> ClosedError:
        return ClosedError(f"room {self.name!r} {self.end}")

    async def run(self) -> None:
        """Calls the callbacks. Owned by the mesh that the room was joined on."""
        async with trio.open_nursery() as nursery:
            self.parts.start(nursery)
            nursery.start_soon(self.losses.run)
            await self.hub.run()
            nursery.cancel_scope.cancel()

    def read_through(self, reading: Reading) -> None:
        """For a door on another thread: `peer.stats` is put together over here."""
        self.joined().reading = reading

    def declared(self, channel: Channel[Any]) -> None:
        """We have opened this channel: what came for it meanwhile is delivered."""
        self.channels[channel.name] = channel
        for peer_id, protocol in self._announced.of_channel(channel.name):
            if (peer := self.players.get(peer_id)) is not None:
                channel.compare_types(peer, protocol)
        for peer_id, payload in self._undeclared.take(channel.name, channel.mode, trio.current_time(), self.players):
            channel.deliver(self.players[peer_id], payload)
        self._count_early_losses(channel)

    # ---------------------------------------------------------------------------------- RoomSink, called by the mesh

    def on_admitted(self, membership: Membership) -> None:
        self.membership = membership
        info = membership.info  # as its creator said
        self.name, self.region, self.skill_range = info.name, info.region, info.skill_range
        self.max_players = membership.max_players
        self.parts.states.admitted(membership.node.own_record.joined_at)
        self.parts.audience.admitted(membership)

    def on_leaving(self) -> None:
        """What was said last is waited for, as far as it is on its way by now."""
        self.parts.states.tell_now()

    def on_goodbye(self) -> None:
        self.parts.states.tell_now()
        self.parts.hosting.resign()
        self.parts.audience.tell_goodbye()

    def on_ended(self) -> None:
        """However it ended: by `leave`, with the mesh, or because we lost our place."""
        self.ended = True
        for channel in self.channels.values():
            channel.close(f"the room {self.end}")
        for peer in self.players.values():
            peer.connected = False
        self.parts.asking.end(self.over())
        self.parts.file_traffic.end(self.over())
        self.hub.close()
        self.changed.unpark_all()

    def on_gossip(self, event: gossip_events.Event) -> None:
        match event:
            case gossip_events.PeerDiscovered(record=record):
                self._discovered(record)
            case gossip_events.PeerRenamed(record=record):
                self._renamed(record)
            case gossip_events.PeerLeft(peer=peer_id, reason=reason):
                self._left(peer_id, reason)
            case gossip_events.TwoFaced(peer=peer_id):
                self.hub.publish(room_events.TwoFaced(peer_id))
            case gossip_events.LetGo(record=record):  # both sides are told the same story
                self._left(record.peer, "timeout")
                self._discovered(record)
            case gossip_events.PeerSuspected(peer=peer_id):
                self._suspected(peer_id, True)
            case gossip_events.PeerResumed(peer=peer_id):
                self._suspected(peer_id, False)
            case gossip_events.PartitionSuspected(lost=lost, remaining=remaining, majority=majority):
                self.hub.publish(room_events.PartitionSuspected(lost, remaining, majority))
            case gossip_events.PartitionHealed(returned=returned):
                self.hub.publish(room_events.PartitionHealed(returned))
            case gossip_events.Evicted(reason=reason):
                self._evicted(reason)
            case gossip_events.BroadcastReceived(origin=origin, payload=payload, age_s=age_s):
                self._on_carried(origin, payload, age_s)
            case gossip_events.BroadcastsSkipped(origin=origin, count=count):
                if peer := self._player_of(origin):
                    self.losses.never_came(peer, count)
            case gossip_events.SignalReceived(origin=origin, blob=blob):
                with suppress(ProtocolError):
                    opened = self.joined().open_carried_untrusted(origin, blob)
                    if (never_came := lost_untrusted(opened)) is None:
                        self._on_carried(origin, opened)
                    elif peer := self._player_of(origin):
                        self.losses.never_arrived(peer, min(never_came, self.joined().broadcasts_sent))

    def on_link_open(self, peer_id: PeerId) -> None:
        peer = self.players.get(peer_id)
        if peer is not None and not peer.connected:
            self._connected(peer)
        elif peer is not None:  # a link that took the place of another: what waits since the other was given up
            self.waiting.send(peer_id, self.channels)

    def on_link_failed(self, peer_id: PeerId, error: RemoteError) -> None:
        if peer := self.players.get(peer_id):
            peer.dial_failed = True
            self.waiting.send(peer_id, self.channels)  # others may carry it
            self.hub.publish(room_events.PeerUnreachable(peer, error))
            self.changed.unpark_all()
        elif isinstance(error, ClocksDiffer) and self.membership and (record := self.membership.node.hinted(peer_id)):
            self.hub.publish(room_events.PeerUnreachable(self._peer_of(record), error))  # nobody would ever see it else

    def on_link_gone(self, peer_id: PeerId) -> None:
        if peer := self.players.get(peer_id):
            peer.connected = False
            self.changed.unpark_all()

    def on_peer_still(self, peer_id: PeerId, still: bool) -> None:
        self._away.note_still(peer_id, still)
        self._show_away(peer_id)

    def on_pause(self, peer_id: PeerId, reason: str | None) -> None:
        if peer_id in self.players:
            self._away.note_pause(peer_id, reason)
            self._show_away(peer_id)

    def _show_away(self, peer_id: PeerId) -> None:
        peer, reason = self.players.get(peer_id), self._away.reason(peer_id)
        if peer is not None and reason != peer.away:
            peer.away = reason
            self.hub.publish(room_events.PeerBack(peer) if reason is None else room_events.PeerAway(peer, reason))

    def on_types(self, peer_id: PeerId, name: str, protocol: str) -> None:
        self._announced.put(peer_id, name, protocol)
        channel, peer = self.channels.get(name), self.players.get(peer_id)
        if channel is not None and peer is not None:
            channel.compare_types(peer, protocol)

    def on_message(self, peer_id: PeerId, name: str, data: Payload) -> None:
        channel, peer = self.channels.get(name), self.players.get(peer_id)
        if channel is not None and peer is not None:
            channel.deliver(peer, data)
        else:
            self._deliver(peer_id, name, data, carried=False)

    def _deliver(self, peer_id: PeerId, name: str, data: Payload, *, carried: bool) -> None:
        peer, channel = self.players.get(peer_id), self.channels.get(name)
        if peer is not None and channel is not None:
            channel.deliver(peer, data, carried=carried)
        elif channel is not None and peer_id in self.silent:
            channel.keep(peer_id, data, carried=carried)  # what it sends comes before gossip has it back
        elif peer is not None or peer_id in self.silent or self.joined().is_linked(peer_id):
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
            note = self.losses.undelivered if ours else self.losses.lost
            for name in losses.keys() & self.channels.keys():  # of others nobody here knows, whatever the player says
                note(peer, name, losses[name])

    def on_tampering(self, carrier: str, peer_id: PeerId, reason: str) -> None:
        self.hub.publish(room_events.TamperingDetected(carrier, peer_id, reason))

    def on_server_refused(self, server: str, reason: str) -> None:
        self._refused[server] = reason
        self.hub.publish(room_events.ServerRefused(server, reason))

    def on_signaling(self, down: str | None) -> None:
        self.hub.publish(room_events.SignalingUp() if down is None else room_events.SignalingDown(down))

    # -------------------------------------------------------------------------------------------------------- helpers

    def _peer_of(self, record: Record) -> Peer:
        assert self.membership is not None
        return Peer(
            self.membership, record.peer, record.name, _profile(record), record.joined_at,
            self.parts.states.state_of(record.peer), self.parts.timekeeper.one_way,
        )  # fmt: skip

    def _discovered(self, record: Record) -> None:
        peer_id = record.peer
        assert self.membership is not None
        earlier = self.silent.take(peer_id)
        peer = self.players[peer_id] = self._peer_of(record)
        self.hub.publish(room_events.PeerDiscovered(peer))
        self.parts.states.peer_joined(peer_id)
        if self.membership.is_linked(peer_id):
            self._connected(peer)
        for name, protocol in self._announced.of_player(peer_id).items():
            if name in self.channels:
                self.channels[name].compare_types(peer, protocol)
        has_stayed = peer.has_stayed(earlier)
        peer.was_linked |= has_stayed and earlier is not None and earlier.was_linked
        for channel in self.channels.values():
            channel.give_kept(peer_id, peer if has_stayed else None)
        self._deliver_early(peer, math.inf if has_stayed else UNKNOWN_LIFE_S)
        self.changed.unpark_all()  # in a partial mesh others reach it already

    def _renamed(self, record: Record) -> None:
        if peer := self.players.get(record.peer):
            peer.name, peer.profile = plain(record.name) or record.peer.short, _profile(record)
            self.hub.publish(room_events.PeerChanged(peer))

    def _deliver_early(self, peer: Peer, life_s: float) -> None:
        now = trio.current_time()
        for name, payload, came in self._undeclared.take_of(peer.id, now, life_s):
            channel = self.channels.get(name)
            if channel is None:
                self._undeclared.put(peer.id, name, payload, came)
            elif channel.mode.reliable or now - came <= CARRIED_LIFE_S:
                channel.deliver(peer, payload)
        for channel in self.channels.values():
            self._count_early_losses(channel)

    def _count_early_losses(self, channel: Channel[Any]) -> None:
        for peer_id, lost in self._undeclared.take_dropped(channel.name).items():
            if channel.mode.reliable:  # of another it was too old by now in any case
                channel.dropped(self._player_of(peer_id), lost)

    def _connected(self, peer: Peer) -> None:
        peer.connected, peer.dial_failed, peer.was_linked = True, False, True
        for peer_id in self.waiting.peers():  # to this one, and through it to others
            self.waiting.send(peer_id, self.channels)
        self.hub.publish(room_events.PeerConnected(peer))
        self.parts.file_traffic.peer_joined(peer.id)
        self.changed.unpark_all()

    def _suspected(self, peer_id: PeerId, suspected: bool) -> None:
        if peer := self.players.get(peer_id):
            peer.suspected = suspected
            self.hub.publish(room_events.PeerSuspected(peer) if suspected else room_events.PeerResumed(peer))

    def _forget_silent(self, peer_id: PeerId) -> None:
        for channel in self.channels.values():
            channel.give_kept(peer_id, None)

    def _player_of(self, peer_id: PeerId) -> Peer | None:
        """A player who is here, or was not long ago."""
        return self.players.get(peer_id) or self.silent.get(peer_id)

    def _tell_dropped(self, peer: Peer, channel: str, count: int) -> None:
        if self.membership is not None and not self.membership.closed:
            self.membership.tell_dropped(peer.id, {channel: count})

    def _tell_author(self, author: PeerId, count: int) -> None:
        if self.membership is not None and not self.membership.closed:
            self.membership.send_signal(author, lost_word(count))

    def _left(self, peer_id: PeerId, reason: str) -> None:
        if peer := self.players.pop(peer_id, None):
            peer.connected = False
            self._away.forget(peer_id)
            self._announced.forget(peer_id)
            for name, _ in self.waiting.take(peer_id):
                self.channels[name].waited_in_vain(peer)
            if reason == "timeout":
                self.silent.add(peer, trio.current_time())
            self.parts.states.peer_left(peer_id)
            self.parts.asking.peer_left(peer_id)
            self.parts.file_traffic.peer_left(peer_id, is_for_good=reason != "timeout")
            if reason == "left":
                self.parts.hosting.peer_left(peer_id)
            self.hub.publish(room_events.PeerLeft(peer, reason))
            self.changed.unpark_all()

    def barred(self) -> None:
        """Members have barred us."""
        self._evicted("kicked")

    def _evicted(self, reason: gossip_events.EvictionReason) -> None:
        membership = self.joined()
        self.hub.publish(room_events.Evicted(reason))
        if reason != "capacity":
            self.end = f"has ended for us: {_EVICTIONS[reason]}"
            self._core.stays.evicted(membership)

    def _present(self) -> list[room_events.RoomEvent]:
        if self.ended:
            return []
        facts: list[room_events.RoomEvent] = []
        for peer in self.players.values():
            facts.append(room_events.PeerDiscovered(peer))
            if peer.connected:
                facts.append(room_events.PeerConnected(peer))
            if peer.suspected:
                facts.append(room_events.PeerSuspected(peer))
            if peer.away is not None:
                facts.append(room_events.PeerAway(peer, peer.away))
        facts += self.parts.sharing.present()
        facts += self.parts.states.present()
        return facts + [room_events.ServerRefused(server, reason) for server, reason in self._refused.items()]


def _profile(record: Record) -> Profile:
    try:
        return Profile.parse_untrusted(record.metadata)
    except ProtocolError:
        return Profile()  # a profile we cannot read is no reason to shut a player out
