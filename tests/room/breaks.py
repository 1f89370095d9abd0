"""Two players who count for each other, on a chosen rung of the ladder, and what breaks between them. In virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import attrs
import trio

from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world
from psyne_mesh.testing.network import NatKind

Rung = Literal["direct", "peer", "signaling"]
Break = Literal["silence", "silence, server dead", "one way", "rebinding", "move", "carrier lost"]
NATS: tuple[NatKind, ...] = get_args(NatKind)
INTERVAL_S = 0.2
AFTERWARDS_S = 8.0  # of play, after the way is back
PATIENCE_S = 30.0


class Note(Message):
    number: int
    sent_at: float


class Position(Message):
    sent_at: float


@attrs.define
class Heard:
    """One direction. sent: reliable messages so far. numbers: those that came; at: when. oldest_s: of positions that came."""

    sent: int = 0
    numbers: list[int] = attrs.Factory(list)
    at: list[float] = attrs.Factory(list)
    oldest_s: float = 0.0

    def healed_s(self, back_at: float) -> float:
        """Until the first reliable message after the way was back."""
        return min((at - back_at for at in self.at if at > back_at), default=math.inf)


@attrs.define
class Story:
    """What became of it. back_at: when the way was back for the last time. rungs: of ada and of bob before the first break."""

    rungs: tuple[str, str] = ("", "")
    back_at: float = 0.0
    heard: tuple[Heard, Heard] = attrs.Factory(lambda: (Heard(), Heard()))

    @property
    def healed_s(self) -> float:
        return max(one.healed_s(self.back_at) for one in self.heard)

    def check(self, *, healed_within_s: float = 3.0, oldest_s: float = 1.0) -> None:
        """oldest_s: of a position that may still come."""
        for one in self.heard:
            assert one.numbers == list(range(one.sent)), f"of {one.sent}: {_gaps(one.numbers)} and order"
            assert one.oldest_s <= oldest_s
        assert self.healed_s <= healed_within_s, [round(one.healed_s(self.back_at), 2) for one in self.heard]


def _gaps(numbers: Sequence[int]) -> str:
    missing = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
    return f"{len(set(numbers))} came, {len(missing)} are missing in between ({missing[:3]} ...)"


@attrs.frozen
class Act:
    """A break after so much play, and how long it lasts."""

    after_s: float
    kind: Break
    lasts_s: float = 0.0


async def play(
    seed: int, acts: Sequence[Act], nats: tuple[NatKind, NatKind], *, carrier: bool, quality: Quality | None = None,
    bulk_bytes: int = 0,
) -> Story:  # fmt: skip
    """carrier: a third player whom both reach directly. bulk_bytes: reliable ones in each interval, each way, beside."""
    story = Story()
    async with open_world(seed=seed, quality=quality) as world, trio.open_nursery() as nursery:
        ada, bob = [await world.join("lobby", name, nat=nat) for name, nat in zip(("ada", "bob"), nats)]
        if carrier:
            await world.join("lobby", "carol")
        for room in (ada, bob):
            await room.wait_connected(1 + carrier)
        over = trio.Event()
        for one, other, heard in ((ada, bob, story.heard[0]), (bob, ada, story.heard[1])):
            nursery.start_soon(_speak, one, heard, over, bulk_bytes)
            nursery.start_soon(_read, other, one, heard)
            nursery.start_soon(_read_positions, other, one, heard)
        for number, act in enumerate(acts):
            await trio.sleep(act.after_s)
            if number == 0:
                story.rungs = _rung(ada, bob), _rung(bob, ada)
            with _broken(world, ada, act.kind, carrier=carrier):
                await trio.sleep(act.lasts_s)
            story.back_at = trio.current_time()
        await trio.sleep(AFTERWARDS_S)
        over.set()
        with trio.move_on_after(PATIENCE_S):
            while any(len(heard.numbers) < heard.sent for heard in story.heard):
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    return story


def _rung(room: Room, other: Room) -> str:
    path = room.peers[other.me].path if other.me in room.peers else None
    return "none" if path is None else "direct" if path.kind not in ("peer", "signaling") else path.kind


async def _speak(room: Room, heard: Heard, over: trio.Event, bulk_bytes: int) -> None:
    notes, bulk = room.channel("notes", Note), room.channel("bulk")
    positions = room.channel("positions", Position, mode="unreliable")
    while not over.is_set():
        now = trio.current_time()
        notes.send_nowait(Note(heard.sent, now))
        heard.sent += 1
        positions.send_nowait(Position(now))
        if bulk_bytes:
            bulk.send_nowait(bytes(bulk_bytes))
        await trio.sleep(INTERVAL_S)


async def _read(room: Room, author: Room, heard: Heard) -> None:
    async for sender, note in room.channel("notes", Note):
        if sender.id == author.me:
            heard.numbers.append(note.number)
            heard.at.append(trio.current_time())


async def _read_positions(room: Room, author: Room, heard: Heard) -> None:
    async for sender, position in room.channel("positions", Position, mode="unreliable"):
        if sender.id == author.me:
            heard.oldest_s = max(heard.oldest_s, trio.current_time() - position.sent_at)


@contextmanager
def _broken(world: World, ada: Room, kind: Break, *, carrier: bool) -> Iterator[None]:
    block: AbstractContextManager[None] = nullcontext()
    third = [["carol"]] if carrier else []
    if kind == "silence":
        block = world.net.partition(["ada"], ["bob"], *third, signaling=False)
    elif kind == "silence, server dead":
        block = world.net.partition(["ada"], ["bob"], *third, signaling=False)
        world.hub.kill()
    elif kind == "one way":
        block = world.net.cut(("ada", "bob"))
    elif kind == "carrier lost" and carrier:
        block = world.net.partition(["carol"], ["ada"])
    elif kind in ("rebinding", "move"):
        world.hosts["ada"].rebind()
        if kind == "move":
            ada._core.endpoint.gateway._network_changed(True)
    with block:
        yield
