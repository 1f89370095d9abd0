"""The mesh core: one endpoint, one signaling transport, one table of links that all rooms share. Its tasks, and no more.

Tasks, all in one nursery: one for each link, one that drains signaling, one timer, one that keeps rooms fresh at signaling.
What becomes of a link is decided in `link_table.py`, who is in a room in its gossip node.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial

import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.admission import Admission
from psyne_mesh.mesh.envelopes import Envelopes
from psyne_mesh.mesh.halls import Halls
from psyne_mesh.mesh.heartbeat import Heartbeat, beating
from psyne_mesh.mesh.link import MESSAGE_MIN_BYTES, Link
from psyne_mesh.mesh.link_driver import LinkDriver
from psyne_mesh.mesh.link_table import LinkTable
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.mesh.placement import Placement
from psyne_mesh.mesh.stand_in import StandIn
from psyne_mesh.mesh.stays import Stays
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.signaling.events import RoomListing
from psyne_mesh.signaling.joining import RoomQuery
from psyne_mesh.signaling.transport import SignalingTransport
from psyne_mesh.webrtc.endpoint import Endpoint, open_endpoint
from psyne_mesh.webrtc.ice import SocketFactory
from psyne_mesh.webrtc.loop_lag import LAGGING_S

# So often links are looked at that carry nothing though nobody misses the peer: a path that is cut one way only.
LOOK_S = 1.0


@asynccontextmanager
@uninterrupted
async def open_core(
    identity: Identity, signaling: SignalingTransport, config: WebRTCConfig, *, server: str, rng: random.Random,
    sockets: SocketFactory | None = None, wall_ms: Callable[[], int] | None = None,
) -> AsyncIterator[MeshCore]:  # fmt: skip
    """A mesh core for as long as the block. `InvalidConfig` if the configuration takes smaller messages than a room needs."""
    if config.max_message_size < MESSAGE_MIN_BYTES:
        raise InvalidConfig(f"max_message_size = {config.max_message_size}: a room needs {MESSAGE_MIN_BYTES} at least")

    async def measure(regions: Mapping[str, str]) -> Mapping[str, float]:
        from psyne_mesh.webrtc.ice.round_trips import round_trips_ms  # few servers name regions

        return await round_trips_ms(regions, config, sockets)

    with unwrapped():
        async with open_endpoint(config, sockets=sockets) as endpoint, trio.open_nursery() as nursery:
            clock = _shared_clock(signaling, wall_ms or _wall_ms)
            core = MeshCore(
                identity, signaling, endpoint, config, nursery, server=server, rng=rng, wall_ms=clock, measure=measure
            )  # fmt: skip
            tasks = (
                core.run_timer,
                core.halls.run,
                core.admission.look_out,
                partial(core.admission.run, core.driver, nursery),
            )
            for task in tasks:
                nursery.start_soon(task)
            try:
                # A virtual network belongs to the loop's own thread.
                with beating(core.driver.heartbeat) if sockets is None else nullcontext() as core.heartbeat:
                    yield core
            finally:
                with trio.CancelScope(shield=True):
                    await core.close()
                nursery.cancel_scope.cancel()


@uninterrupted
class MeshCore:
    """Made by `open_core`. Rooms enter and leave by `stays`; everything else happens by itself."""

    def __init__(
        self, identity: Identity, signaling: SignalingTransport, endpoint: Endpoint, config: WebRTCConfig,
        nursery: trio.Nursery, *, server: str, rng: random.Random, wall_ms: Callable[[], int],
        measure: Callable[[Mapping[str, str]], Awaitable[Mapping[str, float]]],
    ) -> None:  # fmt: skip
        self.identity = identity
        self.me = identity.peer_id
        self.server = server
        self.endpoint = endpoint
        self.config = config
        self.table = LinkTable(self.me, lambda: secrets.token_hex(8), endpoint.lag_s)
        self._rooms: dict[str, Membership] = {}
        self.halls = Halls(self.me, self._rooms, rng, wall_ms)  # rooms that stand in for the server while it is away
        self.signaling = StandIn(signaling, self.halls)
        self._by_tag: dict[bytes, Membership] = {}
        self.wall_ms = wall_ms
        self.admission = Admission(identity, self.signaling, self.halls, self._rooms, rng, wall_ms)
        envelopes = Envelopes(
            identity, self.signaling, server, self._rooms, self.table.rooms_of, wall_ms, self.halls.carry
        )
        self.driver = LinkDriver(
            self.me, self.table, endpoint, envelopes, self._rooms, self._by_tag, nursery, self._on_turned
        )
        self.halls.on_carried = partial(self.admission.carried, self.driver)
        self.halls.on_news = lambda event: self.admission.hear(event, self.driver, nursery)
        self.stays = Stays(
            identity, Placement(identity, self.signaling, rng), self.admission, self.table, self.driver, self._rooms,
            self._by_tag, self, nursery, message_bytes_max=config.max_message_size, refused=endpoint.gateway.refused,
            wall_ms=wall_ms, measure=measure,
        )  # fmt: skip
        self._clock = trio.lowlevel.current_clock()
        self.heartbeat: Heartbeat | None = None
        self._timer = trio.CancelScope()
        self._look_at = -math.inf
        endpoint.gateway.on_network_change.append(self._network_changed)
        endpoint.gateway.on_refused.append(self._server_refused)

    # -------------------------------------------------------------------------------------------------------- rooms

    async def list_rooms(self, query: RoomQuery) -> RoomListing:
        """As the transport's: `SignalingLost`, `SignalingError`."""
        return await self.signaling.list_rooms(query)

    async def close(self) -> None:
        self.table.close()
        await self.stays.close()
        await self.driver.close()

    # ------------------------------------------------------------------------------------- MembershipOwner, for rooms

    def now(self) -> float:
        """Trio's time, on any thread: a door on another one asks how a player is reached."""
        return self._clock.current_time()

    def link(self, peer: PeerId) -> Link | None:
        return self.driver.links.get(peer)

    def ending(self, peer: PeerId) -> list[Link]:
        return self.driver.ending(peer)

    def dial(self, room: str, peer: PeerId) -> None:
        if not self._is_stranded:
            self.table.dial(room, peer, self.now())
            self.driver.turn()

    def unwant(self, room: str, peer: PeerId, reason: str) -> None:
        self.table.unwant(room, peer, reason, self.now())
        self.driver.turn()

    def suspect(self, peer: PeerId) -> None:
        """A room's gossip misses the peer: perhaps it is only the path that has gone. Not while one of the two loops is known
        to be behind: a search for another path would only add to its work."""
        if (link := self.link(peer)) is not None and not self._is_behind(link):
            link.suspect()
            self.signaling.doubt()  # the way to the server may have gone with it, and the search for a path needs it

    def _is_behind(self, link: Link) -> bool:
        now = self.now()
        return max(self.endpoint.loop_lag.seconds(now), link.told_delay_s(now)) > LAGGING_S

    def on_mesh_envelope(self, room: str, origin: PeerId, envelope: str, carrier: PeerId) -> None:
        if (membership := self._rooms.get(room)) is not None:
            self.driver.deliver(membership, origin, envelope, carrier)

    def on_hall_word(self, room: str, origin: PeerId, word: bytes) -> None:
        self.halls.on_word(room, origin, word)

    def rearm(self) -> None:
        """What is due next may have changed; the timer task sleeps on this scope."""
        deadlines = [membership.node.next_round() for membership in self._rooms.values()]
        soonest = min([self.table.next_timeout(), *(due for due in deadlines if due is not None)])
        if soonest != self._timer.deadline:  # mostly it is what it was, and Trio does not ask
            self._timer.deadline = soonest

    # --------------------------------------------------------------------------------------------------- what happens

    def _on_turned(self) -> None:
        """Members hang up on our earlier run, often before we hear of the newer one. Then nobody can ever come again."""
        if self.table.next_timeout() < self._timer.deadline:
            self.rearm()
        while self._is_stranded and self._rooms:
            next(iter(self._rooms.values())).sink.on_gossip(gossip_events.Evicted("superseded"))

    @property
    def _is_stranded(self) -> bool:
        return self.admission.given_up and not self.table.has_open

    def _network_changed(self, gone: bool) -> None:
        """This machine has other addresses: nobody needs to fall silent before new paths are sought."""
        self.signaling.doubt()
        self.driver.network_changed(gone)

    def _server_refused(self, server: str, reason: str) -> None:
        for membership in self._rooms.values():
            membership.sink.on_server_refused(server, reason)

    async def run_timer(self) -> None:
        """One sleeper for all nodes and the table. How late it wakes is the local health that Lifeguard asks for."""
        while True:
            with trio.CancelScope(deadline=self._timer.deadline) as self._timer:
                self.rearm()
                await trio.sleep_forever()
            now, armed = self.now(), self._timer.deadline
            if self.heartbeat is not None:
                self.heartbeat.turned()
            if now >= self._look_at:
                self._look_at = now + LOOK_S
                for membership in self._rooms.values():
                    membership.tell_overdue()
                    for peer in membership.impaired():  # others may reach it, so that nobody calls it silent
                        if (link := self.link(peer)) is not None and not self._is_behind(link):
                            link.suspect()
            if (table_due := self.table.next_timeout()) <= now:
                if table_due > -math.inf:
                    self.endpoint.note_lag(now - table_due, now)
                self.table.handle_timeout(now)
                self.driver.turn()
            for membership in list(self._rooms.values()):
                due = membership.node.next_timeout()
                if due is not None and due <= now:
                    late_s = now - max(due, armed)
                    self.endpoint.note_lag(late_s, now)
                    membership.node.note_loop_lag(late_s, now)
                    membership.tell(lambda node, now: node.handle_timeout(now))


def _shared_clock(signaling: SignalingTransport, own_ms: Callable[[], int]) -> Callable[[], int]:
    """The server's, as all members hear it; ours may be wrong by years, and counts where no server tells the time."""
    return lambda: own_ms() if (told_ms := signaling.time_ms()) is None else told_ms


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
