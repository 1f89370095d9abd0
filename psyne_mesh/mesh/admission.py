"""Being in a signaling server's list of a room: joining, staying fresh in it, hearing of others, and leaving."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from contextlib import suppress

import attrs
import msgspec
import trio

from psyne_mesh.errors import InvalidConfig, LocalError, ManifestRefused, RemoteError, RoomMismatch, SignalingLost
from psyne_mesh.frozen import Frozen
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.freshness import Calendar
from psyne_mesh.gossip.node import Node
from psyne_mesh.gossip.records import Verify
from psyne_mesh.identity import Identity, PeerId, verify_untrusted
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.halls import Halls
from psyne_mesh.mesh.link_driver import LinkDriver
from psyne_mesh.mesh.membership import CARRIED_S, Membership
from psyne_mesh.mesh.placement import check_entered
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.records import goodbye_of, record_of
from psyne_mesh.mesh.request import RoomEntry
from psyne_mesh.signaling import events
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.locks import member_proof, verify_of_members
from psyne_mesh.signaling.requests import request_into
from psyne_mesh.signaling.transport import SignalingTransport

_GOODBYE_S = 1.0  # so long may the server take to hear that we leave; it notices by itself
# What a player said last travels over the mesh, perhaps by many hops; its goodbye through signaling would overtake that. Once
# its link has ended, or is silent, no more comes; and a goodbye after the verdict of gossip, a second later, would be none.
_GOODBYE_LOOKS, _GOODBYE_LOOK_S = 40, 0.05
# What comes of a room before whoever enters it has heard that it is in: an answer and the next news share a packet, and tasks
# have no order. Half a minute's news of a room of 16; more is left out, and gossip makes up for it.
EARLY_MAX = 64
LOOK_OUT_S = 15.0, 30.0  # between two looks at who is listed: a guess; two members of a room do so


class Admitted(Frozen):
    """What signaling let us into. `records` are those of the members that it named."""

    info: events.RoomInfo
    digest: bytes
    node: Node
    gossip: GossipConfig
    records: list[str]


@uninterrupted
class Admission:
    """1. `join(...)` makes the node of a room and enters it; 2. `run(...)` hears what signaling says, and `look_out()`
    enters again now and then; 3. `leave(...)`. `rooms` hear of what changes between, the driver of signals.
    """

    def __init__(
        self, identity: Identity, signaling: SignalingTransport, halls: Halls, rooms: Mapping[str, Membership],
        rng: random.Random, wall_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._identity = identity
        self._signaling = signaling
        self._halls = halls
        self._rooms = rooms
        self._rng = rng
        self._wall_ms = wall_ms
        self._goodbyes: set[tuple[str, PeerId]] = set()  # that signaling has told, and that we do not believe yet
        self.given_up = False  # signaling has, for good: another process has our identity
        self._requests: dict[str, JoinRequest] = {}
        self._early: dict[str, list[Callable[[], None]]] = {}
        self._shut_out: set[str] = (
            set()
        )  # rooms that the server would not let us enter, or has not heard of; they were told

    async def join(self, entry: RoomEntry) -> Admitted:
        """`entry` is placed; `entered(...)` follows. Errors as the transport's, and `RoomMismatch`, `ManifestRefused`."""
        room = entry.request.key
        self._early[room] = []
        try:
            return await self._join(entry)
        except BaseException:
            del self._early[room]
            raise

    def entered(self, membership: Membership) -> None:
        """It is among `rooms`: what came of it meanwhile is heard now."""
        if membership.room in self._shut_out:
            membership.sink.on_signaling("the server is away; members of another room let us into this one")
        for act in self._early.pop(membership.room):
            act()

    def is_entering(self, room: str) -> bool:
        return room in self._early

    def hold(self, room: str, act: Callable[[], None]) -> None:
        """For `entered`, if we are about to be in that room."""
        if (early := self._early.get(room)) is not None and len(early) < EARLY_MAX:
            early.append(act)

    async def _join(self, entry: RoomEntry) -> Admitted:
        room, gossip = entry.request.key, entry.gossip
        digest = hashlib.sha256(b"psyne-room" + room.encode()).digest()
        epoch, now, profile = self._wall_ms(), trio.current_time(), entry.profile
        calendar = Calendar(epoch / 1000 - now, told=self._signaling.time_ms() is not None)
        verify: Verify = verify_untrusted
        if entry.secret:
            profile = msgspec.structs.replace(profile, proof=member_proof(entry.secret, room, self._identity.peer_id))
            verify = verify_of_members(entry.secret, room, lambda metadata: Profile.parse_untrusted(metadata).proof)

        def node_with(gossip: GossipConfig) -> Node:
            return Node(gossip, self._identity, digest[:16], rng=random.Random(self._rng.random()), verify=verify, epoch=epoch,
                        name=entry.player_name, metadata=profile.encode(), calendar=calendar, now=now)  # fmt: skip

        node, goodbye = node_with(gossip), goodbye_of(node_with(gossip), trio.current_time())
        request = attrs.evolve(entry.request, record=record_of(node))
        joined = await self._signaling.join(request, goodbye=goodbye)
        try:
            check_entered(joined.info, entry)
        except ManifestRefused:
            await self._back_out(room, goodbye)
            raise
        if gossip.max_players != joined.info.max_players:  # its creator's number holds: all must count the same seats
            try:
                gossip = attrs.evolve(gossip, max_players=joined.info.max_players)
            except InvalidConfig as error:
                await self._back_out(room, goodbye)
                raise RoomMismatch(
                    f"the room is for {joined.info.max_players} players: more than we can count"
                ) from error
            node = node_with(gossip)
        self._requests[room] = request_into(joined.info, request)
        if not self._signaling.is_connected:
            self._shut_out.add(room)  # of the server's list, until that is back
        return Admitted(joined.info, digest, node, gossip, [peer.record for peer in joined.peers])

    async def _back_out(self, room: str, goodbye: str) -> None:
        with trio.move_on_after(_GOODBYE_S, shield=True), suppress(RemoteError, LocalError):
            await self._signaling.leave(room, record=goodbye)

    async def run(self, driver: LinkDriver, nursery: trio.Nursery) -> None:
        """Drains signaling. What it begins ends with `nursery`."""
        async for event in self._signaling.events:
            self.hear(event, driver, nursery)

    def hear(self, event: events.SignalingEvent, driver: LinkDriver, nursery: trio.Nursery) -> None:
        """Of the server, or of who stands in for it."""
        if (
            isinstance(event, events.SignalReceived | events.PeerJoined | events.PeerLeft)
            and event.room not in self._rooms
        ):
            self.hold(event.room, lambda: self.hear(event, driver, nursery))
            return
        match event:
            case events.SignalReceived(sender=sender, room=room, envelope=envelope):
                if membership := self._rooms.get(room):
                    driver.deliver(membership, sender, envelope, None)
            case events.PeerJoined(room=room, peer=peer):
                if membership := self._rooms.get(room):
                    membership.learn([peer.record])
            case events.SignalRefused(to=to, room=refused_in):
                driver.refused(refused_in, to)
            case events.Lost(cause=cause, retrying=retrying):
                for membership in self._rooms.values():
                    membership.sink.on_signaling(str(cause))
                self.given_up = not retrying
                driver.turn()
            case events.Restored(rooms=rooms, refused=refused):
                driver.note_signaling()
                for room in self._shut_out & self._rooms.keys():  # of some the server has not heard yet
                    nursery.start_soon(self._enter_again, self._rooms[room])
                for joined in rooms:
                    if membership := self._rooms.get(joined.room):
                        self._restored(membership, joined)
                for room, error in refused:
                    if membership := self._rooms.get(room):
                        self._refused(membership, error)
            case events.PeerLeft(room=room, peer_id=peer, record=record):
                if membership := self._rooms.get(room):
                    self._on_goodbye(membership, peer, record, nursery)

    def carried(self, driver: LinkDriver, room: str, origin: PeerId, record: str, envelope: str) -> None:
        """Over a hall, whose member `origin` has signed it; it may be a newcomer of whom no member of the room has told us."""
        if (membership := self._rooms.get(room)) is None:
            self.hold(room, lambda: self.carried(driver, room, origin, record, envelope))
            return
        self._halls.met(room, origin)
        membership.learn([record])
        driver.deliver(membership, origin, envelope, origin)

    def _on_goodbye(self, membership: Membership, peer: PeerId, record: str, nursery: trio.Nursery) -> None:
        """A record is the player's own word, perhaps said to nobody else: it had no link yet. Without one it is the server's
        view only: the link and gossip know better (a lost server kills no player)."""
        said = (membership.room, peer)
        if record and said not in self._goodbyes and membership.knows(peer):
            self._goodbyes.add(said)
            nursery.start_soon(self._learn_goodbye, membership, peer, record)

    async def _learn_goodbye(self, membership: Membership, peer: PeerId, record: str) -> None:
        for _ in range(_GOODBYE_LOOKS):
            if not membership.is_heard(peer):
                break
            await trio.sleep(_GOODBYE_LOOK_S)
        if membership.is_partial:
            await trio.sleep(CARRIED_S)
        self._goodbyes.discard((membership.room, peer))
        membership.learn([record])

    async def look_out(self) -> None:
        """The two members that gossip chose enter the room at signaling again now and then: their records there stay
        fresh for newcomers, and the lists that they get lead a component that a partition cut off back to the others.
        Whom the server did not let in again tries, too."""
        while True:
            await trio.sleep(self._rng.uniform(*LOOK_OUT_S))
            for membership in list(self._rooms.values()):
                due = membership.room in self._shut_out or membership.node.is_lookout()
                if due and self._signaling.is_connected:
                    await self._enter_again(membership)

    async def _enter_again(self, membership: Membership) -> None:
        try:
            request = attrs.evolve(self._requests[membership.room], record=record_of(membership.node))
            joined = await self._signaling.join(request)
        except SignalingLost:
            return  # a `Lost` tells it to every room
        except (RemoteError, LocalError) as error:  # the links stand; the next look tries again
            if not membership.closed and membership.room not in self._shut_out:
                self._refused(membership, error)
            return
        if membership.closed or not self._signaling.is_connected:
            return
        if membership.room in self._shut_out:
            self._restored(membership, joined)
        else:
            membership.learn([peer.record for peer in joined.peers])

    def _restored(self, membership: Membership, joined: events.Joined) -> None:
        self._shut_out.discard(membership.room)
        membership.sink.on_signaling(None)
        membership.learn([peer.record for peer in joined.peers])

    def _refused(self, membership: Membership, error: Exception) -> None:
        self._shut_out.add(membership.room)
        membership.sink.on_signaling(f"the server does not let us into the room again: {error}")

    def forget(self, room: str) -> None:
        """The room has ended for us."""
        del self._requests[room]
        self._halls.forget(room)
        self._shut_out.discard(room)

    async def leave(self, membership: Membership) -> None:
        """Our last word, as far as the server listens."""
        try:
            with trio.move_on_after(_GOODBYE_S):
                await self._signaling.leave(membership.room, record=record_of(membership.node))
        except SignalingLost:
            return  # it will notice by itself
        except (RemoteError, LocalError) as error:  # what the server says to a goodbye keeps nobody here
            membership.sink.on_signaling(f"our goodbye was refused: {error}")
