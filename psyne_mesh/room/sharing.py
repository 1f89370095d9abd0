"""Shared objects in a room: the pure core on an unreliable channel, and the objects as a Trio game holds them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import trio

from psyne_mesh.errors import ClosedError, InvalidConfig, MessageTooLarge, PeerGone, ProtocolError
from psyne_mesh.game.absences import ABSENT_MAX
from psyne_mesh.game.interpolation import Playback
from psyne_mesh.game.replicas import Appeared, ReplicaEvent, Replicas, Restored, Vanished
from psyne_mesh.game.rewind import Past
from psyne_mesh.game.schema import Schema, Shared, Wire
from psyne_mesh.game.shared import SharedEvent, SharedObjects, note_all_came, ours, tell_anew
from psyne_mesh.game.shared_records import OBJECTS_MAX, Kept, offer_untrusted
from psyne_mesh.game.watching.feed import INTERVAL_S as SPECTATORS_S
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.room.events import (
    HostChanged,
    PeerConnected,
    PeerDiscovered,
    PeerLeft,
    RoomEvent,
    SharedAppeared,
    SharedGone,
    SharedKept,
    SharedRefused,
)
from psyne_mesh.room.hosting import Hosting
from psyne_mesh.room.peer import OURSELVES, Peer, Player

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

S = TypeVar("S", bound=Shared)

CHANNEL = "psyne.shared"
# Whom others carry our messages to, they carry 32 a second for each neighbour: shared objects leave most of that to the game.
RELAYED_INTERVAL_S = 0.25
KEPT_CHANNEL = "psyne.kept"
CRASHED = ("timeout", "superseded")
"""Why a player has left who did not mean to."""
OFFERS_S = 0.5
"""What is kept of an object of ours counts so long after the first word of it, as most say by then."""
OFFERED_S = 60.0
"""And only so long after we came: until then a link can be made to everybody who kept something."""

SPECTATORS = PeerId("0" * 32)
"""All of them as one receiver, to whom everything goes a reliable way."""

Changes = Iterable[tuple[int, list[tuple[int, Wire]]]]
Deliver = Callable[[SharedEvent, Peer | Player], None]


@uninterrupted
class SharedTraffic:
    """The core of one room and its channel. Made when the room is, and idle until `start`.

    1. The room's task is in `run()`. 2. `start(deliver)` once: `deliver` is called with an event and its peer where messages
    are read; and `take_over` with the term when we become the host.
    3. `add`, `update` and `remove` say what our objects are; they leave at once if a send is due.
    """

    def __init__(self, room: Room, hosting: Hosting, rng: random.Random, hold_s: float) -> None:
        """hold_s: so long the objects of a crashed player wait for it."""
        self._room = room
        self._hold_s = hold_s
        self._hosting = hosting
        self._take_over: Callable[[int], None] | None = None
        self._core = SharedObjects(rng)
        self._rng = rng
        self._for_spectators: SharedObjects | None = None  # the same at their pace, while somebody watches
        self._deliver: Deliver | None = None
        self._started = trio.Event()
        self._wake = trio.Event()
        self._peers: dict[PeerId, Peer] = {}
        self._absent: dict[PeerId, Peer] = {}
        self._offers: dict[int, dict[PeerId, bytes]] = {}  # by object of ours, who says that it was what
        self._restored: set[int] = set()
        self._offered = trio.Event()
        self._relayed_next: dict[PeerId, float] = {}
        # Messages that were none, of those whom the room holds for players.
        self.refused = 0

    @property
    def interval_s(self) -> float:
        return self._core.interval_s

    def start(self, deliver: Deliver, take_over: Callable[[int], None] | None = None) -> None:
        if self._deliver is None:
            self._channel = self._room.channel(CHANNEL, mode="unreliable")
            self._kept = self._room.channel(KEPT_CHANNEL, mode="reliable")
            self._deliver, self._take_over = deliver, take_over
            self._started.set()

    def term_for(self, owner: Peer | Player | None) -> int:
        """The term of what is shared for that owner: 0 for our own. `InvalidConfig` unless it is ours, or we are the host."""
        if owner is OURSELVES:
            return 0
        if owner is None:
            raise InvalidConfig("share(..., owner=None): there is no host yet; wait for HostChanged")
        if owner != self._room.player or not self._room.is_host:
            raise InvalidConfig(
                f"share(..., owner={owner.name!r}): only the host shares what the host owns, while `is_host` holds; "
                f"the others find it with all()"
            )
        return self._room.term

    def accepts(self, peer: PeerId, term: int) -> bool:
        """Whether what this player decided as the host of `term` counts."""
        return self._hosting.accepts(peer, term)

    def add(self, number: int, schema: Schema, values: list[Wire], term: int) -> None:
        self._core.add(number, schema, values, term)
        if self._for_spectators is not None:
            self._for_spectators.add(number, schema, list(values), term)
        self._wake.set()

    def release(self, number: int) -> None:
        for core in self._cores():
            core.release(number)

    def remove(self, number: int) -> None:
        for core in self._cores():
            core.remove(number)
        self._wake.set()

    def _cores(self) -> list[SharedObjects]:
        return [self._core] if self._for_spectators is None else [self._core, self._for_spectators]

    def for_spectators(self, now: float, *, is_whole: bool) -> list[bytes]:
        """What of our objects has changed since the last call; is_whole: all of them."""
        core = self._for_spectators
        if core is None:
            core = self._for_spectators = SharedObjects(self._rng, 1 / SPECTATORS_S)
            core.peer_joined(SPECTATORS, now)
            for one in ours(self._core):
                core.add(*one)
        if is_whole:
            tell_anew(core, SPECTATORS, now)
        said = [data for _, data in core.datagrams_to_send(now)]
        note_all_came(core, SPECTATORS, now)
        return said

    def forget_spectators(self) -> None:
        self._for_spectators = None

    def update(self, changes: Changes, now: float) -> None:
        cores = self._cores()
        for number, fields in changes:
            for core in cores:
                core.update(number, fields, now)
        self._send(now)
        self._wake.set()

    async def run(self) -> None:
        await self._started.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_players)
            nursery.start_soon(self._read)
            nursery.start_soon(self._read_offers, trio.current_time() + OFFERED_S)
            nursery.start_soon(self._restore_when_due)
            nursery.start_soon(self._send_when_due)

    async def _follow_players(self) -> None:
        async for event in self._room.events():
            match event:
                case PeerDiscovered(peer=peer):
                    self._peers[peer.id] = peer
                    self._core.peer_joined(peer.id, trio.current_time())
                case PeerConnected(peer=peer) if self._peers.get(peer.id) is peer:
                    self._offer(peer)
                case PeerLeft(peer=peer, reason=reason) if self._peers.get(peer.id) is peer:
                    until = trio.current_time() + self._hold_s if reason in CRASHED else -math.inf
                    self._core.peer_left(peer.id, until)
                    self._hand_up(peer)
                    del self._peers[peer.id]
                    self._absent[peer.id] = peer
                    while len(self._absent) > ABSENT_MAX:
                        del self._absent[next(iter(self._absent))]
                    self._relayed_next.pop(peer.id, None)
                case HostChanged(term=term, host=host) if host == self._room.player and self._take_over is not None:
                    self._take_over(term)
                case _:
                    continue
            self._wake.set()

    async def _read(self) -> None:
        async for sender, data in self._channel:
            peer = self._peers.get(sender.id)
            if peer is None:
                continue
            try:
                if not isinstance(data, bytes):
                    raise ProtocolError("text came as shared objects")
                self._core.receive(peer.id, data, trio.current_time())
            except ProtocolError:
                self.refused += 1
                continue
            self._hand_up(peer)
            self._wake.set()

    def _offer(self, peer: Peer) -> None:
        """Back after a crash, in another process: it gets what it had."""
        earlier = self._absent.pop(peer.id, None)
        if earlier is None or peer.has_stayed(earlier):
            return
        for offer in self._core.offers_to(peer.id):
            with suppress(PeerGone, MessageTooLarge, ClosedError):
                self._kept.send_nowait(offer, to=peer)

    async def _read_offers(self, until: float) -> None:
        async for sender, data in self._kept:
            if trio.current_time() < until:
                self._note_offer(sender.id, data)
            else:
                self.refused += 1

    async def _restore_when_due(self) -> None:
        while True:
            await self._offered.wait()
            self._offered = trio.Event()
            await trio.sleep(OFFERS_S)
            self._restore()

    def _note_offer(self, sender: PeerId, data: bytes | str) -> None:
        try:
            if not isinstance(data, bytes):
                raise ProtocolError("text came as a shared object of ours")
            number = offer_untrusted(self._room.me, data).number
        except ProtocolError:
            self.refused += 1
            return
        if number in self._restored or (number not in self._offers and len(self._offers) >= OBJECTS_MAX):
            return
        self._offers.setdefault(number, {})[sender] = data
        self._offered.set()

    def _restore(self) -> None:
        """As most say, of several the first: what the last moment brought may have come to some only."""
        for number, offers in sorted(self._offers.items()):
            said = list(offers.values())
            event = offer_untrusted(self._room.me, max(said, key=said.count))
            self._restored.add(number)
            self._deliver_own(event)
        self._offers.clear()

    def _deliver_own(self, event: Kept) -> None:
        assert self._deliver is not None
        self._deliver(event, self._room.player)

    def _hand_up(self, peer: Peer) -> None:
        assert self._deliver is not None
        for event in self._core.take_events():
            self._deliver(event, peer if event.owner == peer.id else self._peers.get(event.owner, peer))

    async def _send_when_due(self) -> None:
        while True:
            self._wake = trio.Event()
            self._send(trio.current_time())
            with trio.move_on_at(self._core.next_timeout()):
                await self._wake.wait()

    def _send(self, now: float) -> None:
        self._core.handle_timeout(now)
        for event in self._core.take_events():
            peer = self._peers.get(event.owner) or self._absent.get(event.owner)
            if peer is not None and self._deliver is not None:
                self._deliver(event, peer)
        for peer_id, data in self._core.datagrams_to_send(now):
            peer = self._peers[peer_id]
            if not peer.connected:
                if now < self._relayed_next.get(peer_id, now):
                    continue
                self._relayed_next[peer_id] = now + RELAYED_INTERVAL_S
            # It counts as lost, and is sent again as it is then; or the room is just ending.
            with suppress(PeerGone, MessageTooLarge, ClosedError):
                self._channel.send_nowait(data, to=peer_id)


@uninterrupted
class Sharing:
    """What `room.share` and `room.all` do: the objects live on Trio's thread, and are read for changes at each send."""

    def __init__(self, room: Room, traffic: SharedTraffic, publish: Callable[[RoomEvent], None]) -> None:
        self._room = room
        self._traffic = traffic
        self._publish = publish
        self._replicas = Replicas(traffic.accepts)
        self._sharing = trio.Event()

    def share(self, shared: S, owner: Peer | Player | None) -> S:
        new = self._replicas.share(shared, self._room.player, self._traffic.term_for(owner))
        self._traffic.start(self._apply, self._take_over)
        self._traffic.add(*new)
        self._sharing.set()
        return shared

    def unshare(self, shared: Shared) -> None:
        self._traffic.remove(self._replicas.unshare(shared))

    def all(self, kind: type[S]) -> Iterator[S]:
        self._replicas.know(kind)
        self._traffic.start(self._apply, self._take_over)
        self._replicas.sample(trio.current_time())
        self._tell()
        return self._replicas.all(kind)

    def pasts(self, kind: type[S]) -> Iterator[Past[S]]:
        self._replicas.sample(trio.current_time())
        return self._replicas.pasts(kind)

    def playback(self, owner: PeerId) -> Playback | None:
        return self._replicas.playback(owner)

    def present(self) -> list[RoomEvent]:
        return [SharedAppeared(shared) for shared in self._replicas.all(Shared) if not shared.is_mine]

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._traffic.run)
            await self._sharing.wait()
            while True:
                now = trio.current_time()
                self._traffic.update(self._replicas.changes(), now)
                self._replicas.record(now)
                await trio.sleep_until(now + self._traffic.interval_s)

    def _take_over(self, term: int) -> None:
        for taken in self._replicas.take_over(term, self._room.player):
            self._traffic.add(*taken)
            self._sharing.set()

    def _apply(self, event: SharedEvent, peer: Peer | Player) -> None:
        self._replicas.apply(event, peer)
        if self._room.peers.get(peer.id) is not peer:
            self._replicas.forget(peer.id)
        self._tell()

    def _tell(self) -> None:
        for number in self._replicas.take_released():
            self._traffic.release(number)
        for event in self._replicas.take_events():
            self._publish(room_event(event))


def room_event(event: ReplicaEvent) -> RoomEvent:
    """As the room tells it."""
    match event:
        case Appeared(shared=shared):
            return SharedAppeared(shared)
        case Vanished(shared=shared):
            return SharedGone(shared)
        case Restored(shared=shared):
            return SharedKept(shared)
        case _:
            return SharedRefused(event.player, event.kind, event.reason)
