"""The mesh core: one endpoint, one signaling transport, one table of links that all rooms share.

Tasks, all in one nursery: one for each link, one that drains signaling, one timer for the gossip nodes.
"""

from __future__ import annotations

import hashlib
import math
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import (
    InvalidConfig,
    LocalError,
    ProtocolError,
    RemoteError,
    RoomExists,
    RoomMismatch,
    SignalingError,
    SignalingLost,
    WouldBlock,
)
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.node import Node
from psyne_mesh.identity import Identity, PeerId, verify_untrusted
from psyne_mesh.mesh.alarms import Alarms, Carrier
from psyne_mesh.mesh.dial_limits import DialLimits, has_room_for
from psyne_mesh.mesh.link import MESSAGE_MIN_BYTES, Link, LinkState
from psyne_mesh.mesh.lives import Lives
from psyne_mesh.mesh.membership import CHANNEL_NAME_BYTES_MAX, TAG_BYTES, Membership, RoomSink
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.records import goodbye_of, record_of, records_untrusted
from psyne_mesh.mesh.request import RoomRequest
from psyne_mesh.mesh.sealed import ENVELOPE, Seals
from psyne_mesh.mesh.tunnels import SIGNAL_PREFIX, TUNNEL_TAG, PeerTunnel, Tunnels, signal_untrusted
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.signaling import events as signaling_events
from psyne_mesh.signaling.envelope import Envelope, Kind, ReplayGuard, open_untrusted, seal, tampering_in
from psyne_mesh.signaling.transport import SignalingTransport
from psyne_mesh.webrtc.endpoint import Endpoint, open_endpoint
from psyne_mesh.webrtc.ice import SocketFactory

# Links to peers that fell silent are kept so long, and so many: a partition may last for a while.
ASLEEP_S = 1800.0
ASLEEP_MAX = 64

# So long may what was sent reliably take to be acknowledged before we say goodbye: time for two losses in a row.
_LAST_WORDS_S = 1.0
_GOODBYE_S = 1.0  # so long may the server take to hear that we leave; it notices by itself

# So often links are looked at that carry nothing though nobody misses the peer: a path that is cut one way only.
LOOK_S = 1.0

# A link outlives the last room of its two players for so long: a guess, some round trips of signaling and of joining.
LINGER_S = 2.0

# What a player said last travels over the mesh, perhaps by many hops; its goodbye through signaling would overtake that.
_GOODBYE_LATE_S = 2.0

# Rejoining signaling as a beacon: 15 to 30 s after jitter, as the gossip layer's beacon_interval_s says.
BEACON_S = 20.0


@asynccontextmanager
async def open_core(
    identity: Identity,
    signaling: SignalingTransport,
    config: WebRTCConfig,
    *,
    server: str,
    rng: random.Random,
    sockets: SocketFactory | None = None,
    wall_ms: Callable[[], int] | None = None,
) -> AsyncIterator[MeshCore]:
    """A mesh core that lives as long as the block; leaving it closes every link and leaves nothing behind. Raises
    `InvalidConfig` when the configuration takes smaller messages than a room needs."""
    if config.max_message_size < MESSAGE_MIN_BYTES:
        raise InvalidConfig(f"max_message_size = {config.max_message_size}: a room needs {MESSAGE_MIN_BYTES} at least")
    with unwrapped():
        async with open_endpoint(config, sockets=sockets) as endpoint, trio.open_nursery() as nursery:
            core = MeshCore(
                identity, signaling, endpoint, config, nursery, server=server, rng=rng, wall_ms=wall_ms or _wall_ms
            )
            nursery.start_soon(core.drain_signaling)
            nursery.start_soon(core.run_timer)
            nursery.start_soon(core.run_beacon)
            try:
                yield core
            finally:
                with trio.CancelScope(shield=True):
                    await core.close()
                nursery.cancel_scope.cancel()


class MeshCore:
    """Made by `open_core`. Rooms enter with `join`; everything else happens by itself."""

    def __init__(
        self,
        identity: Identity,
        signaling: SignalingTransport,
        endpoint: Endpoint,
        config: WebRTCConfig,
        nursery: trio.Nursery,
        *,
        server: str,
        rng: random.Random,
        wall_ms: Callable[[], int],
    ) -> None:
        self.identity = identity
        self.me = identity.peer_id
        self.server = server
        self.config = config
        self.endpoint = endpoint
        self._signaling = signaling
        self._nursery = nursery
        self._rng = rng
        self._wall_ms = wall_ms
        self._links: dict[PeerId, Link] = {}
        self._rooms: dict[str, Membership] = {}
        self._entering: set[str] = set()  # rooms that signaling has not answered for yet
        self._by_tag: dict[bytes, Membership] = {}
        self._requests: dict[str, dict[str, Any]] = {}
        self._shut_out: set[str] = set()  # rooms that the server would not let us enter again; they were told
        self._timer = trio.CancelScope()
        self._look_at = -math.inf
        self._link_ended = trio.lowlevel.ParkingLot()
        self._replays = ReplayGuard()
        self._tunnels = Tunnels(self.me, self._links, self.now)
        self._dials = DialLimits()
        self._lives = Lives()
        self._alarms = Alarms()
        self._goodbyes: set[tuple[str, PeerId]] = set()  # that signaling has told, and that we do not believe yet
        self.offers_refused = 0  # of peers or sessions that have no claim to a link, over the mesh other envelopes, too
        self._closing = False
        self._superseded = False  # signaling has given up for good: another process has our identity
        endpoint.gateway.on_network_change.append(self._network_changed)
        endpoint.gateway.on_refused.append(self._server_refused)

    # -------------------------------------------------------------------------------------------------------- rooms

    async def join(
        self, request: RoomRequest, name: str, profile: Profile, gossip: GossipConfig, sink: RoomSink
    ) -> Membership:
        """Enter a room: signaling says who is there, gossip takes it from there. Typed errors as the transport's."""
        room = signaling_events.room_key(request.name, app_id=request.app_id, region=request.region)
        if room in self._rooms or room in self._entering:
            raise RoomExists(f"this mesh is already in room {request.name!r}")
        digest = hashlib.sha256(b"psyne-room" + room.encode()).digest()
        epoch = self._wall_ms()

        def node_with(gossip: GossipConfig) -> Node:
            return Node(gossip, self.identity, digest[:16], rng=random.Random(self._rng.random()), verify=verify_untrusted,
                        epoch=epoch, name=name, metadata=profile.encode())  # fmt: skip

        node, goodbye = node_with(gossip), goodbye_of(node_with(gossip), self.now())
        wanted: dict[str, Any] = {
            "name": request.name, "app_id": request.app_id, "region": request.region, "max_players": request.max_players,
            "skill_range": request.skill_range, "metadata": request.metadata,
        }  # fmt: skip
        self._entering.add(room)
        try:
            joined = await self._signaling.join(
                **wanted, create=request.create, record=record_of(node), goodbye=goodbye
            )
        finally:
            self._entering.discard(room)
        if gossip.max_players != joined.info.max_players:  # its creator's number holds: all must count the same seats
            try:
                gossip = attrs.evolve(gossip, max_players=joined.info.max_players)
            except InvalidConfig as error:
                with trio.move_on_after(_GOODBYE_S, shield=True), suppress(RemoteError, LocalError):
                    await self._signaling.leave(room, record=goodbye)
                raise RoomMismatch(
                    f"the room is for {joined.info.max_players} players: more than we can count"
                ) from error
            node = node_with(gossip)
        self._requests[room] = wanted
        seals = Seals(self.identity, digest[:TAG_BYTES], node.own_record.joined_at)
        membership = Membership(room, digest[:TAG_BYTES], node, gossip, self, sink, self.config.max_message_size, seals)
        self._rooms[room] = self._by_tag[membership.tag] = membership
        sink.on_admitted(membership)
        for server, reason in self.endpoint.gateway.refused.items():
            sink.on_server_refused(server, reason)
        membership.tell(lambda node, now: node.start(now))
        self._learn(membership, [peer.record for peer in joined.peers])
        return membership

    async def leave(self, membership: Membership) -> None:
        """Say goodbye to the members and to signaling, behind what was sent reliably so far as far as they answer quickly;
        links that no other room wants are closed after a while. Cancelled while it flushes, the room goes on; after that it
        has ended."""
        if membership.closed:
            return
        await self._flush([membership])
        if not membership.closed:
            self._say_goodbye(membership)
            try:
                await self._leave_signaling(membership)
            finally:
                membership.sink.on_ended()

    def evicted(self, membership: Membership) -> None:
        """The same as `leave` for a room that has lost us, and for who cannot wait."""
        self._say_goodbye(membership)
        membership.sink.on_ended()
        self._nursery.start_soon(self._leave_signaling, membership)

    def _say_goodbye(self, membership: Membership) -> None:
        membership.tell(lambda node, now: node.leave(now))
        self._forget(membership)

    async def _flush(self, memberships: Collection[Membership]) -> None:
        """A goodbye travels before what waits in front of a link, and nobody listens to who has left."""
        members = {peer for membership in memberships for peer in membership.node.members}
        carried_s = max((membership.last_words_s for membership in memberships), default=0)
        with trio.move_on_after(_LAST_WORDS_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, max(0, carried_s))
                for link in list(self._links.values()):
                    if link.peer_id in members:
                        nursery.start_soon(link.drain)

    def _end_if_stranded(self) -> None:
        """Members hang up on our older life as soon as they hear the newer one, often before we do. Without a link and
        with signaling gone for good nobody can ever come again."""
        if self._is_stranded:
            for membership in list(self._rooms.values()):
                membership.sink.on_gossip(gossip_events.Evicted("superseded"))

    @property
    def _is_stranded(self) -> bool:
        return self._superseded and not any(link.state is LinkState.OPEN for link in self._links.values())

    def _forget(self, membership: Membership) -> None:
        membership.end()
        del self._rooms[membership.room], self._by_tag[membership.tag], self._requests[membership.room]
        self._shut_out.discard(membership.room)
        for peer in list(self._links):
            self.unwant(peer, membership.room, "left")

    async def _leave_signaling(self, membership: Membership) -> None:
        try:
            with trio.move_on_after(_GOODBYE_S):
                await self._signaling.leave(membership.room, record=record_of(membership.node))
        except SignalingLost:
            return  # it will notice by itself
        except (RemoteError, LocalError) as error:  # what the server says to a goodbye keeps nobody here
            membership.sink.on_signaling(f"our goodbye was refused: {error}")

    async def close(self) -> None:
        self._closing = True
        leaving = list(self._rooms.values())
        await self._flush(leaving)
        leaving = [membership for membership in leaving if not membership.closed]
        for membership in leaving:
            self._say_goodbye(membership)
        async with trio.open_nursery() as nursery:  # together: a server that does not answer must not hold us for each
            for membership in leaving:
                nursery.start_soon(self._leave_signaling, membership)
        for membership in leaving:
            membership.sink.on_ended()
        for link in list(self._links.values()):
            link.close("left")
        with trio.move_on_after(2):  # each link flushes its goodbye; a peer that does not answer must not hold us
            while self._links:
                await self._link_ended.park()

    # ------------------------------------------------------------------------------------------- LinkTable, for rooms

    def now(self) -> float:
        return trio.current_time()

    def link(self, peer: PeerId) -> Link | None:
        return self._links.get(peer)

    def dial(self, peer: PeerId) -> None:
        if peer not in self._links and not self._closing and not self._is_stranded:
            self._start_link(peer, secrets.token_hex(8), offerer=True)

    def unwant(self, peer: PeerId, room: str, reason: str) -> None:
        """A room has no use for the link any more. It closes when no other room's node knows the peer."""
        link = self._links.get(peer)
        others = [m for m in self._rooms.values() if m.room != room and m.node.record(peer) is not None]
        outlived = reason == "superseded" and self._lives.has_outlived(peer, room, self.now())
        if link is None or (others and not outlived):  # what an older life left behind serves no room
            return
        # In a small room a busy path that is cut looks impaired before its peer seems gone; in a large one others stand in.
        membership = self._rooms.get(room)  # None: it has just ended
        silent = reason == "timeout" or (reason == "impaired" and membership is not None and not membership.is_large)
        if silent and link.state is LinkState.OPEN:
            link.sleep(self.now())
            self._wake_limit()
        elif reason == "left" and link.state is LinkState.OPEN and not self._closing:
            if not link.lingers:
                link.lingers = True
                self._nursery.start_soon(self._linger, link)
        else:
            link.close(reason)

    async def _linger(self, link: Link) -> None:
        """Players go from a lobby to a game together: who meets the other in the next room soon keeps the link."""
        await trio.sleep(LINGER_S)
        link.lingers = False
        if self._links.get(link.peer_id) is link and not self._knows(link.peer_id):
            link.close("left")

    def _wake_limit(self) -> None:
        """Sleeping links cost a check every few seconds; the one that sleeps longest goes first."""
        asleep = [link for link in self._links.values() if link.asleep_since is not None]
        asleep.sort(key=lambda link: link.asleep_since or 0.0)
        for link in asleep[: max(0, len(asleep) - ASLEEP_MAX)]:
            link.close("timeout")
        for link in asleep:
            if self.now() - (link.asleep_since or 0.0) > ASLEEP_S:
                link.close("timeout")

    def suspect(self, peer: PeerId) -> None:
        """A room's gossip misses the peer: perhaps it is only the path that has gone."""
        if (link := self._links.get(peer)) is not None:
            link.suspect()
            self._signaling.doubt()  # the way to the server may have gone with it, and the search for a path needs it

    def _network_changed(self, gone: bool) -> None:
        """This machine has other addresses: nobody needs to fall silent before new paths are sought."""
        self._signaling.doubt()
        for link in list(self._links.values()):
            link.network_changed(gone)

    def rearm(self) -> None:
        """The nodes' next deadline may have changed; the timer task sleeps on this scope."""
        deadlines = (membership.node.next_timeout() for membership in self._rooms.values())
        self._timer.deadline = min((due for due in deadlines if due is not None), default=math.inf)

    # ----------------------------------------------------------------------------------------- LinkOwner, for links

    def on_link_open(self, link: Link) -> None:
        link.hold(sum(membership.unread(link.peer_id) for membership in self._rooms.values()))
        for membership in self._rooms_with(link.peer_id):
            membership.link_open(link)

    def on_frame(self, link: Link, data: bytes) -> None:
        if data.startswith(TUNNEL_TAG):
            self._tunnels.receive(link, data)
            return
        membership = self._by_tag.get(data[:TAG_BYTES])
        if membership is not None:
            membership.tell(lambda node, now: node.receive(link.peer_id, data[TAG_BYTES:], now))

    def on_channel_message(self, link: Link, label: str, data: bytes | str) -> None:
        tag, _, name = label.partition("/")
        try:
            membership = self._by_tag.get(bytes.fromhex(tag))
        except ValueError:
            return  # not a channel of a room: nobody here reads it
        if membership is not None and 1 <= len(name.encode()) <= CHANNEL_NAME_BYTES_MAX:
            membership.sink.on_message(link.peer_id, name, data)

    def on_link_revived(self, link: Link) -> None:
        """A peer that was taken for gone answers again, over the link that we kept."""
        for membership in self._rooms_with(link.peer_id):
            membership.link_open(link)

    def on_drained(self, link: Link) -> None:
        for membership in self._rooms.values():
            membership.drained()

    def on_link_gone(self, link: Link, reason: str, error: RemoteError | None) -> None:
        if self._links.get(link.peer_id) is not link:
            return  # superseded: its successor speaks for the peer
        del self._links[link.peer_id]
        self._link_ended.unpark_all()
        for membership in self._rooms_with(link.peer_id):
            membership.link_gone(link.peer_id, reason, error, was_open=link.was_open or link.replaces_open)
        self._end_if_stranded()

    def _server_refused(self, server: str, reason: str) -> None:
        for membership in self._rooms.values():
            membership.sink.on_server_refused(server, reason)

    def _rooms_with(self, peer: PeerId) -> list[Membership]:
        """A link that a peer opened may come before its record: with a single room there is no doubt."""
        rooms = list(self._rooms.values())
        return rooms if len(rooms) == 1 else [m for m in rooms if m.node.record(peer) is not None] or rooms

    # ------------------------------------------------------------------------------------------------------ tunnels

    def _signal_tunnel(self, peer: PeerId, text: str) -> bool:
        """The last rung: datagrams inside signaling messages. False when there is none; then they are lost."""
        for membership in self._rooms_with(peer):
            with suppress(SignalingError, LocalError):
                self._signaling.send_signal(peer, membership.room, text)
                return True
        return False

    # ---------------------------------------------------------------------------------------------------- signaling

    def _start_link(self, peer: PeerId, session: str, *, offerer: bool) -> Link:
        tunnel = PeerTunnel(
            peer, self.me, now=self.now, signal=self._signal_tunnel,
            links=lambda: [link for link in self._links.values() if link.peer_id != peer],
        )  # fmt: skip
        link = Link(
            peer, session, offerer=offerer, endpoint=self.endpoint, owner=self, tunnel=tunnel, born=self.now(),
            post=lambda kind, sequence, body: self._post(peer, kind, session, sequence, body),
        )  # fmt: skip
        self._links[peer] = link
        self._nursery.start_soon(link.run, name=f"link to {peer.short}")
        return link

    def _post(self, peer: PeerId, kind: Kind, session: str, sequence: int, body: str) -> None:
        """Seal and send, through signaling while it stands, else over the mesh."""
        for membership in self._rooms_with(peer):
            sealed = seal(self.identity, kind=kind, recipient=peer, room=membership.room, session=session,
                          sequence=sequence, body=body, now_ms=self._wall_ms())  # fmt: skip
            try:
                self._signaling.send_signal(peer, membership.room, sealed)
            except (SignalingError, WouldBlock):
                membership.send_signal(peer, ENVELOPE + sealed.encode())
            return

    async def drain_signaling(self) -> None:
        async for event in self._signaling.events:
            match event:
                case signaling_events.SignalReceived(sender=sender, room=room, envelope=envelope):
                    self._on_envelope(room, sender, envelope, None)
                case signaling_events.PeerJoined(room=room, peer=peer):
                    if membership := self._rooms.get(room):
                        self._learn(membership, [peer.record])
                case signaling_events.SignalRefused():
                    pass  # the peer is gone or came over the mesh only; the dial's own deadline says so
                case signaling_events.Lost(cause=cause, retrying=retrying):
                    for membership in self._rooms.values():
                        membership.sink.on_signaling(str(cause))
                    self._superseded = not retrying
                    self._end_if_stranded()
                case signaling_events.Restored(rooms=rooms, refused=refused):
                    for link in self._links.values():
                        link.note_signaling()
                    for joined in rooms:
                        if membership := self._rooms.get(joined.room):
                            self._shut_out.discard(joined.room)
                            membership.sink.on_signaling(None)
                            self._learn(membership, [peer.record for peer in joined.peers])
                    for room, error in refused:
                        if membership := self._rooms.get(room):
                            self._tell_shut_out(membership, error)
                case signaling_events.PeerLeft(room=room, peer_id=peer, record=record):
                    if membership := self._rooms.get(room):
                        self._on_goodbye(membership, peer, record)

    def _on_goodbye(self, membership: Membership, peer: PeerId, record: str) -> None:
        """A record is the player's own word, perhaps said to nobody else: it had no link yet. Without one it is the server's
        view only: the link and gossip know better (a lost server kills no player)."""
        said = (membership.room, peer)
        if record and said not in self._goodbyes and membership.node.record(peer) is not None:
            self._goodbyes.add(said)
            self._nursery.start_soon(self._learn_goodbye, membership, peer, record)

    def on_mesh_signal(self, membership: Membership, origin: PeerId, blob: bytes, carrier: PeerId) -> None:
        """An envelope that came over the mesh instead. Any neighbour can make up origins and keys for them, so they count
        only where we would know them; a newcomer's record travels ahead of its offers."""
        if membership.node.knows_all and membership.node.record(origin) is None and origin not in self._links:
            self.offers_refused += 1
            return
        self._on_envelope(membership.room, origin, blob.decode("utf-8", "replace"), carrier)

    async def _learn_goodbye(self, membership: Membership, peer: PeerId, record: str) -> None:
        await trio.sleep(_GOODBYE_LATE_S)
        self._goodbyes.discard((membership.room, peer))
        self._learn(membership, [record])

    def _learn(self, membership: Membership, encoded: Iterable[str]) -> None:
        records = records_untrusted(encoded)
        membership.tell(lambda node, now: node.learn(records, now))

    def _on_envelope(self, room: str, claimed: PeerId, text: str, carrier: Carrier) -> None:
        membership = self._rooms.get(room)
        if membership is None or claimed == self.me:
            return
        if text.startswith(SIGNAL_PREFIX):
            with suppress(ProtocolError):
                self._tunnels.deliver(claimed, signal_untrusted(text), None)
            return
        now_ms = self._wall_ms()
        try:
            envelope = open_untrusted(text, recipient=self.me, expected_sender=claimed, room=room, now_ms=now_ms)
        except ProtocolError as error:
            if (tampering := tampering_in(error)) is not None:
                who = f"signaling server {self.server}" if carrier is None else f"member {carrier.short}"
                reason = f"{who} passed on what {claimed.short} did not seal: {tampering}"
                if carrier is None and (link := self._links.get(claimed)):
                    link.tampering = reason
                self._alarm(membership, carrier, claimed, reason)
            return
        if self._replays.accept(envelope, now_ms):
            self._route(envelope)

    def _alarm(self, membership: Membership, carrier: Carrier, claimed: PeerId, reason: str) -> None:
        left_out = self._alarms.sound(membership.room, carrier, self.now())
        if left_out is not None:
            reason += f" (and {left_out} more like it before)" if left_out else ""
            membership.sink.on_tampering(self.server if carrier is None else carrier, claimed, reason)

    def _route(self, envelope: Envelope) -> None:
        link = self._links.get(envelope.sender)
        if link is not None and link.session == envelope.session:
            link.hear(envelope)
        elif envelope.kind == "offer" and not self._closing:
            self._on_offer(link, envelope)

    def _on_offer(self, link: Link | None, envelope: Envelope) -> None:
        if link is not None and link.asleep_since is None and envelope.expires_at_ms < link.newest_heard_ms:
            # Held back on the way: its sender has said something newer about the link that stands. Clocks may be set
            # back, so who restarts after that waits here until its dead link has fallen silent.
            self.offers_refused += 1
            return
        peer = envelope.sender
        has_room = link is not None or has_room_for(peer, self._links.values(), self._knows)
        if not has_room or not self._dials.allow(peer, self.now()):
            self.offers_refused += 1
            return
        if link is not None and link.state is LinkState.DIALING and link.offerer and self.me > envelope.sender:
            return  # glare: both offered, and the higher id's offer stands (perfect negotiation's impolite peer)
        successor = self._start_link(envelope.sender, envelope.session, offerer=False)
        if link is not None:
            successor.replaces_open = link.was_open or link.replaces_open
            link.close("superseded")
        successor.hear(envelope)

    def _knows(self, peer: PeerId) -> bool:
        return any(membership.node.record(peer) is not None for membership in self._rooms.values())

    async def run_beacon(self) -> None:
        """The two members that gossip chose enter the room at signaling again now and then: their records there stay
        fresh for newcomers, and the lists that they get lead a component that a partition cut off back to the others.
        Whom the server did not let in again tries, too."""
        while True:
            await trio.sleep(BEACON_S * self._rng.uniform(0.75, 1.5))
            self._wake_limit()
            for membership in list(self._rooms.values()):
                wanted = membership.room in self._shut_out or membership.node.beacon(self.now()) is not None
                if wanted and self._signaling.is_connected:
                    await self._enter_again(membership)

    async def _enter_again(self, membership: Membership) -> None:
        try:
            joined = await self._signaling.join(**self._requests[membership.room], record=record_of(membership.node))
        except SignalingLost:
            return  # a `Lost` tells it to every room
        except (RemoteError, LocalError) as error:  # the links stand; the next beacon tries again
            if not membership.closed and membership.room not in self._shut_out:
                self._tell_shut_out(membership, error)
            return
        if membership.closed:
            return
        if membership.room in self._shut_out:
            self._shut_out.discard(membership.room)
            membership.sink.on_signaling(None)
        self._learn(membership, [peer.record for peer in joined.peers])

    def _tell_shut_out(self, membership: Membership, error: Exception) -> None:
        self._shut_out.add(membership.room)
        membership.sink.on_signaling(f"the server does not let us into the room again: {error}")

    # -------------------------------------------------------------------------------------------------------- timer

    async def run_timer(self) -> None:
        """One sleeper for all nodes. How late it wakes is the local health that Lifeguard asks for."""
        while True:
            with trio.CancelScope(deadline=self._timer.deadline) as self._timer:
                self.rearm()
                await trio.sleep_forever()
            now = self.now()
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                for membership in self._rooms.values():
                    for peer in membership.impaired():  # others may reach it, so that nobody calls it silent
                        if (link := self._links.get(peer)) is not None:
                            link.suspect()
            for membership in list(self._rooms.values()):
                due = membership.node.next_timeout()
                if due is not None and due <= now:
                    membership.node.note_loop_lag(now - due, now)
                    membership.tell(lambda node, now: node.handle_timeout(now))


def _wall_ms() -> int:
    """The wall clock, to let envelopes expire and to number the lives of one key; it may be wrong by minutes."""
    return time.time_ns() // 1_000_000
