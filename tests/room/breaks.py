"""Two players who count for each other, on a chosen rung of the ladder, and what breaks between them. In virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import attrs
import trio

from psyne_mesh.events import MessagesLost, MessagesUndelivered
from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world
from psyne_mesh.testing.network import NatKind

Rung = Literal["direct", "peer", "signaling"]
Break = Literal[
    "silence",
    "silence, server dead",
    "all silent",
    "one way",
    "rebinding",
    "move",
    "carrier lost",
    "small MTU",
    "server dead",
]
NATS: tuple[NatKind, ...] = get_args(NatKind)
INTERVAL_S = 0.2
BULK_INTERVAL_S = 0.05
IP_UDP_BYTES = 28
AFTERWARDS_S = 8.0  # of play, after the way is back
PATIENCE_S = 30.0


class Note(Message):
    number: int
    sent_at: float


class Position(Message):
    sent_at: float


@attrs.define
class Heard:
    """One direction. sent: reliable messages so far; refused: of whom a report said that they do not go. numbers: those that
    came; at: when. oldest_s: of positions that came. lost, undelivered: what the receiver and the sender were told."""

    sent: int = 0
    refused: int = 0
    lost: int = 0
    undelivered: int = 0
    bulk_sent: int = 0
    bulk: list[int] = attrs.Factory(list)
    numbers: list[int] = attrs.Factory(list)
    at: list[float] = attrs.Factory(list)
    oldest_s: float = 0.0

    @property
    def untold(self) -> int:
        """Messages that neither came nor were told; less than none: some were told and came."""
        return self.sent - len(self.numbers) - self.lost + self.bulk_sent - len(self.bulk)

    def first_at(self, number: int) -> float:
        """When the first of the reliable messages from this number on came."""
        return next((at for one, at in zip(self.numbers, self.at) if one >= number), math.inf)


@attrs.frozen
class Healing:
    """After one break. back_at: when the way was back; next_at: when it broke again. numbers: the first reliable messages that
    were sent after it had broken, of ada and of bob."""

    back_at: float
    next_at: float
    numbers: tuple[int, int]


@attrs.define
class Story:
    """What became of it. rungs: of ada and of bob before the first break."""

    rungs: tuple[str, str] = ("", "")
    healings: list[Healing] = attrs.Factory(list)
    heard: tuple[Heard, Heard] = attrs.Factory(lambda: (Heard(), Heard()))

    @property
    def healed_s(self) -> list[float]:
        """Of each break, and of the slower direction: until reliable messages came that were sent after it had begun, or until
        the next break came first."""
        return [
            max(
                min(heard.first_at(number), one.next_at) - one.back_at for heard, number in zip(self.heard, one.numbers)
            )
            for one in self.healings
        ]

    def check(self, *, healed_within_s: float = 3.0, oldest_s: float = 1.0, complete: bool = True) -> None:
        """oldest_s: of a position that may still come. complete: nothing may be lost at all, told or not."""
        for one in self.heard:
            for numbers in (one.numbers, one.bulk):
                assert numbers == sorted(set(numbers)), f"order: {_gaps(numbers)}"
            if complete:
                assert one.numbers == list(range(one.sent)), f"of {one.sent}: {_gaps(one.numbers)}"
                assert one.bulk == list(range(one.bulk_sent)), f"of {one.bulk_sent} of bulk: {_gaps(one.bulk)}"
            assert one.untold == 0, f"{one.untold} untold, {one.lost} lost, {one.undelivered} undelivered"
            assert one.undelivered + one.refused >= one.lost, f"{one.lost} lost, {one.undelivered} undelivered"
            assert one.oldest_s <= oldest_s
        healed = [round(max(0.0, healed_s), 2) for healed_s in self.healed_s]
        assert max(healed) <= healed_within_s, f"healed after {healed} s"


def _gaps(numbers: Sequence[int]) -> str:
    missing = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
    return f"{len(set(numbers))} came, {len(missing)} are missing in between ({missing[:3]} ...)"


@attrs.frozen
class Act:
    """A break after so much play, and how long it lasts. mtu: bytes of the packets that a path with a small one carries."""

    after_s: float
    kind: Break
    lasts_s: float = 0.0
    mtu: int = 1100


async def play(
    seed: int, acts: Sequence[Act], nats: tuple[NatKind, NatKind], *, carrier: bool, quality: Quality | None = None,
    bulk_bytes: int = 0,
) -> Story:  # fmt: skip
    """carrier: a third player whom both reach directly. bulk_bytes: of a message that is sent beside, each way, 20 times a
    second as far as `send` lets it."""
    story = Story()
    async with open_world(seed=seed, quality=quality) as world, trio.open_nursery() as nursery:
        ada, bob = [await world.join("lobby", name, nat=nat) for name, nat in zip(("ada", "bob"), nats)]
        if carrier:
            await world.join("lobby", "carol")
        for room in (ada, bob):
            await room.wait_connected(1 + carrier)
        over = trio.Event()
        for one, other, heard in ((ada, bob, story.heard[0]), (bob, ada, story.heard[1])):
            _listen(one, other, heard)
            nursery.start_soon(_speak, one, other, heard, over)
            nursery.start_soon(_read, other, one, heard)
            nursery.start_soon(_read_positions, other, one, heard)
            if bulk_bytes:
                nursery.start_soon(_send_bulk, one, other, heard, over, bulk_bytes)
                nursery.start_soon(_read_bulk, other, one, heard)
        for number, act in enumerate(acts):
            await trio.sleep(act.after_s)
            if number == 0:
                story.rungs = _rung(ada, bob), _rung(bob, ada)
            numbers = story.heard[0].sent, story.heard[1].sent
            with _broken(world, ada, act, carrier=carrier):
                await trio.sleep(act.lasts_s)
            back_at = trio.current_time()
            next_at = back_at + acts[number + 1].after_s if number + 1 < len(acts) else math.inf
            story.healings.append(Healing(back_at, next_at, numbers))
        await trio.sleep(AFTERWARDS_S)
        over.set()
        with trio.move_on_after(PATIENCE_S) as patience:  # with what comes no more; bulk on a slow rung may take longer
            came = 0
            while any(heard.untold > 0 or heard.undelivered + heard.refused < heard.lost for heard in story.heard):
                before, came = came, sum(len(heard.numbers) + len(heard.bulk) for heard in story.heard)
                if came > before:
                    patience.deadline = trio.current_time() + PATIENCE_S
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    return story


def _rung(room: Room, other: Room) -> str:
    path = room.peers[other.me].path if other.me in room.peers else None
    return "none" if path is None else "direct" if path.kind not in ("peer", "signaling") else path.kind


def _listen(one: Room, other: Room, heard: Heard) -> None:
    def on_lost(event: MessagesLost) -> None:
        if event.peer.id == one.me:
            heard.lost += event.count

    def on_undelivered(event: MessagesUndelivered) -> None:
        if event.peer.id == other.me:
            heard.undelivered += event.count

    other.on(MessagesLost, on_lost)
    one.on(MessagesUndelivered, on_undelivered)


async def _speak(room: Room, other: Room, heard: Heard, over: trio.Event) -> None:
    notes, positions = room.channel("notes", Note), room.channel("positions", Position, mode="unreliable")
    while not over.is_set():
        now = trio.current_time()
        heard.refused += other.me in notes.send_nowait(Note(heard.sent, now)).skipped
        heard.sent += 1
        positions.send_nowait(Position(now))
        await trio.sleep(INTERVAL_S)


async def _send_bulk(room: Room, other: Room, heard: Heard, over: trio.Event, size: int) -> None:
    bulk = room.channel("bulk")
    while not over.is_set():
        with trio.move_on_after(1.0):  # not at the end of the play
            report = await bulk.send(heard.bulk_sent.to_bytes(4, "big") + bytes(size))
            heard.refused += other.me in report.skipped
            heard.bulk_sent += 1
        await trio.sleep(BULK_INTERVAL_S)


async def _read(room: Room, author: Room, heard: Heard) -> None:
    async for sender, note in room.channel("notes", Note):
        if sender.id == author.me:
            heard.numbers.append(note.number)
            heard.at.append(trio.current_time())


async def _read_bulk(room: Room, author: Room, heard: Heard) -> None:
    async for sender, message in room.channel("bulk"):
        if sender.id == author.me:
            heard.bulk.append(int.from_bytes(message[:4], "big"))


async def _read_positions(room: Room, author: Room, heard: Heard) -> None:
    async for sender, position in room.channel("positions", Position, mode="unreliable"):
        if sender.id == author.me:
            heard.oldest_s = max(heard.oldest_s, trio.current_time() - position.sent_at)


@contextmanager
def _broken(world: World, ada: Room, act: Act, *, carrier: bool) -> Iterator[None]:
    kind = act.kind
    block: AbstractContextManager[None] = nullcontext()
    third = [["carol"]] if carrier else []
    if kind in ("silence", "silence, server dead"):
        block = world.net.partition(["ada"], ["bob"], *third, signaling=False)
    elif kind == "all silent":
        block = world.net.partition(["ada"], ["bob"], *third)
    elif kind == "one way":
        block = world.net.cut(("ada", "bob"))
    elif kind == "carrier lost" and carrier:
        block = world.net.partition(["carol"], ["ada"])
    elif kind == "small MTU":
        block = _small_mtu(world, act.mtu)
    elif kind in ("rebinding", "move"):
        world.hosts["ada"].rebind()
        if kind == "move":
            ada._core.endpoint.gateway._network_changed(True)
    if "server dead" in kind:
        world.hub.kill()
    with block:
        yield
    if kind == "server dead":
        world.hub.revive()


@contextmanager
def _small_mtu(world: World, mtu: int) -> Iterator[None]:
    """Ada's access comes to carry packets of so many bytes, and no ICMP."""
    before = world.net.quality
    others = [name for name in world.hosts if name != "ada"]
    for name in others:
        world.net.set_quality("ada", name, attrs.evolve(before, datagram_bytes_max=mtu - IP_UDP_BYTES))
    try:
        yield
    finally:
        for name in others:
            world.net.set_quality("ada", name, before)
