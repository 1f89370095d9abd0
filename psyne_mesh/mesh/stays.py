"""Our stays in rooms: entering as signaling admits us, saying goodbye, leaving."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

import attrs
import trio

from psyne_mesh.errors import InvalidConfig, RoomError, RoomExists
from psyne_mesh.identity import Identity
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.admission import Admission
from psyne_mesh.mesh.link_driver import LinkDriver
from psyne_mesh.mesh.link_table import LinkTable
from psyne_mesh.mesh.membership import TAG_BYTES, Membership, MembershipOwner, RoomSink
from psyne_mesh.mesh.placement import Placement
from psyne_mesh.mesh.request import Anywhere, RoomEntry
from psyne_mesh.mesh.sealed import Seals
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.locks import INVITE_LIFETIME_MAX_S, Invite
from psyne_mesh.signaling.manifest import shown_code

# So long may what was sent reliably take to be acknowledged before we say goodbye: time for two losses in a row.
_LAST_WORDS_S = 1.0


@uninterrupted
class Stays:
    """1. `enter(entry, sink)` each room. 2. `leave(membership)`, or `evicted(membership)` where nobody can wait.
    3. `close()` leaves what is left.

    rooms, by_tag: the memberships that there are, which it keeps for the whole mesh. refused: servers that want nothing of us,
    and why. measure: round trips in ms, by region, to STUN servers.
    """

    def __init__(
        self, identity: Identity, placement: Placement, admission: Admission, table: LinkTable, driver: LinkDriver,
        rooms: dict[str, Membership], by_tag: dict[bytes, Membership], owner: MembershipOwner, nursery: trio.Nursery,
        *, message_bytes_max: int, refused: Mapping[str, str], wall_ms: Callable[[], int],
        measure: Callable[[Mapping[str, str]], Awaitable[Mapping[str, float]]],
    ) -> None:  # fmt: skip
        self._identity = identity
        self._placement = placement
        self._admission = admission
        self._table = table
        self._driver = driver
        self._rooms, self._by_tag = rooms, by_tag
        self._owner = owner
        self._nursery = nursery
        self._message_bytes_max = message_bytes_max
        self._refused = refused
        self._wall_ms = wall_ms
        self._measure = measure
        self._rtt_ms: Mapping[str, float] | None = None

    async def enter(self, entry: RoomEntry, sink: RoomSink) -> Membership:
        """Enter the room that is meant; where several will do, the next one when one ends before we are in. Typed errors as
        the transport's, and those of `Placement`."""
        tried: list[str] = []
        entry = await self._with_measured(entry)
        while True:
            placed = await self._placement.place(entry, tried)
            try:
                return await self._enter(placed, sink)
            except RoomError as error:
                if not self._placement.another(entry, placed.request.key, error, tried):
                    raise

    async def _with_measured(self, entry: RoomEntry) -> RoomEntry:
        """How far we are from the regions of which the server told, unless the game says; measured once for the mesh."""
        which = entry.which
        if not isinstance(which, Anywhere) or which.rtt_ms or not (regions := self._placement.regions()):
            return entry
        if self._rtt_ms is None:
            self._rtt_ms = await self._measure(regions)
        return attrs.evolve(entry, which=attrs.evolve(which, rtt_ms=self._rtt_ms))

    async def found(self, entry: RoomEntry, tried: Collection[str]) -> tuple[RoomInfo, bytes]:
        """For who only watches; see `Placement.found`."""
        return await self._placement.found(entry, tried)

    async def _enter(self, entry: RoomEntry, sink: RoomSink) -> Membership:
        """Signaling says who is there, gossip takes it from there."""
        room = entry.request.key
        if room in self._rooms or self._admission.is_entering(room):
            raise RoomExists(f"this mesh is already in room {entry.request.name!r}")
        admitted = await self._admission.join(entry)
        tag, node = admitted.digest[:TAG_BYTES], admitted.node
        seals = Seals(self._identity, tag, node.own_record.joined_at)
        membership = Membership(
            admitted.info, tag, node, admitted.gossip, self._owner, sink, self._message_bytes_max, seals, entry.secret
        )
        self._rooms[room] = self._by_tag[membership.tag] = membership
        membership.note_running(self._driver.running)
        self._table.enter(room, membership)
        sink.on_admitted(membership)
        for server, reason in self._refused.items():
            sink.on_server_refused(server, reason)
        membership.tell(lambda node, now: node.start(now))
        membership.learn(admitted.records)
        self._admission.entered(membership)
        return membership

    def invite(self, membership: Membership, lifetime_s: float) -> str:
        """Text that lets a friend into a room for the invited, which we made. `InvalidConfig` for other rooms."""
        info = membership.info
        if info.policy != "invite":
            raise InvalidConfig(
                f"room {info.name!r} is {info.policy}: friends enter it by its code, {shown_code(info.code)}"
            )
        if info.manifest.creator_id != self._identity.peer_id:
            raise InvalidConfig(f"only who made room {info.name!r} can invite: its signature lets friends in")
        if not 0 < lifetime_s <= INVITE_LIFETIME_MAX_S:
            raise InvalidConfig(f"lifetime_s = {lifetime_s!r}: must lie in (0, {INVITE_LIFETIME_MAX_S:g}]")
        expires_ms = self._wall_ms() + int(lifetime_s * 1000)
        return str(Invite.make(info.code, membership.secret, expires_ms, self._identity))

    async def leave(self, membership: Membership) -> None:
        """Say goodbye to the members and to signaling, behind what was sent reliably so far as far as they answer quickly;
        links that no other room wants are closed after a while. Cancelled while it flushes, the room goes on; after that it
        has ended."""
        if membership.closed:
            return
        membership.sink.on_leaving()
        await self._flush([membership])
        if not membership.closed:
            self._say_goodbye(membership)
            try:
                await self._admission.leave(membership)
            finally:
                membership.sink.on_ended()

    def evicted(self, membership: Membership) -> None:
        """The same as `leave` for a room that has lost us, and for who cannot wait."""
        self._say_goodbye(membership)
        membership.sink.on_ended()
        self._nursery.start_soon(self._admission.leave, membership)

    def _say_goodbye(self, membership: Membership) -> None:
        membership.sink.on_goodbye()
        membership.tell(lambda node, now: node.leave(now))
        membership.end()
        del self._rooms[membership.room], self._by_tag[membership.tag]
        self._admission.forget(membership.room)
        self._table.depart(membership.room, self._owner.now())
        self._driver.turn()

    async def _flush(self, memberships: Collection[Membership]) -> None:
        """A goodbye travels before what waits in front of a link, and nobody listens to who has left."""
        with trio.move_on_after(_LAST_WORDS_S):
            await self._driver.drain({peer for membership in memberships for peer in membership.node.members})
            await trio.sleep(max((max(0, membership.last_words_s) for membership in memberships), default=0))

    async def close(self) -> None:
        leaving = list(self._rooms.values())
        for membership in leaving:
            membership.sink.on_leaving()
        await self._flush(leaving)
        leaving = [membership for membership in leaving if not membership.closed]
        for membership in list(leaving):
            if membership.closed:  # another room has taken it along
                leaving.remove(membership)
            else:
                self._say_goodbye(membership)
        async with trio.open_nursery() as nursery:  # together: a server that does not answer must not hold us for each
            for membership in leaving:
                nursery.start_soon(self._admission.leave, membership)
        for membership in leaving:
            membership.sink.on_ended()
