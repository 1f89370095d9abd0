"""What befalls hosts: `host-kill`, `host-cut`, `host-flap`, `host-two-deaths`, with the room's state and its objects at stake.

Real rooms on a virtual network with 2 % of loss. The host counts in the room's state and in an object of the room, twenty
times a second, as long as it is the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
import trio

from psyne_mesh.errors import ClosedError, NotHost
from psyne_mesh.game.host import LEASE_S
from psyne_mesh.game.schema import Shared
from psyne_mesh.room.events import HostChanged
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world
from tests.room.test_host_and_clock import agree_on_a_host, everybody

NAMES = ["ada", "bob", "cid", "dan", "eve"]
TICK_S = 0.05
LOST_MAX = 5
"""Counts of a quarter of a second."""


class Clock(Shared):
    count: int = 0


class Story:
    """Five players, of whom the host counts; what each saw, by term."""

    def __init__(self, world: World, rooms: list[Room]) -> None:
        self.world = world
        self.rooms = dict(zip(NAMES, rooms, strict=True))
        self.counted = 0
        self.seen: dict[str, list[tuple[int, int]]] = {name: [] for name in NAMES}
        self.hosts: dict[str, list[HostChanged]] = {name: [] for name in NAMES}
        self.dead: set[str] = set()
        self.cut_off: set[str] = set()  # a host counts on until its lease ends, and then takes what the others have
        for name, room in self.rooms.items():
            room.on(HostChanged, self.hosts[name].append)
            room.all(Clock)
            room.on_state_changed(lambda owner, key, value, name=name: self._see(name, value))

    def _see(self, name: str, value: object) -> None:
        assert isinstance(value, int)
        self.seen[name].append((self.rooms[name].term, value))

    async def count(self) -> None:
        """Every player who believes to be the host counts on from what it has."""
        clocks: dict[str, Clock] = {}
        while True:
            for name, room in self.rooms.items():
                if name in self.dead or not room.is_host:
                    continue
                try:
                    value = room.state.get("count", 0) + 1
                    room.state["count"] = value
                    self.counted = max(self.counted, value)
                    mine = [clock for clock in room.all(Clock) if clock.is_mine]
                    if not mine and not list(room.all(Clock)):
                        clocks[name] = room.share(Clock(), owner=room.host)
                    for clock in mine:
                        clock.count = value
                except (NotHost, ClosedError):
                    continue
            await trio.sleep(TICK_S)

    def kill(self, name: str) -> None:
        self.dead.add(name)
        self.world.crash(name)

    def alive(self) -> list[Room]:
        return [room for name, room in self.rooms.items() if name not in self.dead]

    def name_of(self, room: Room) -> str:
        return next(name for name, each in self.rooms.items() if each is room)

    async def agree(self, among: Iterable[Room] | None = None, within_s: float = 3.0) -> Room:
        """The host, whom all of these name, and who is one of them and acts."""
        rooms = self.alive() if among is None else list(among)
        with trio.fail_after(within_s):
            while True:
                host = await agree_on_a_host(rooms)
                if host in rooms and host.is_host:
                    return host
                await trio.sleep(0.02)

    async def check(self) -> None:
        """All who live hold the same, nothing went back by more than a quarter of a second, and no term has two hosts."""
        await trio.sleep(1)
        counts = [room.state["count"] for room in self.alive()]
        assert max(counts) - min(counts) <= LOST_MAX  # of one moment, on its way over paths that lose
        objects = [[clock.count for clock in room.all(Clock)] for room in self.alive()]
        assert all(len(each) == 1 for each in objects)
        assert max(counts) - min(each[0] for each in objects) <= LOST_MAX
        hosts: dict[int, set[object]] = {}
        for name, told in self.hosts.items():
            terms = [event.term for event in told]
            assert terms == sorted(terms), name
            for event in told:
                if event.host is not None:
                    hosts.setdefault(event.term, set()).add(event.host.id)
        assert all(len(each) == 1 for each in hosts.values()), hosts
        for name, seen in self.seen.items():
            assert [term for term, _ in seen] == sorted(term for term, _ in seen), name
            falls = [before - after for (_, before), (_, after) in pairwise(seen)]
            assert max(falls, default=0) <= (LEASE_S / TICK_S if name in self.cut_off else LOST_MAX), name


async def kill(story: Story) -> None:
    host = await story.agree()
    before = story.counted
    story.kill(story.name_of(host))
    second = await story.agree()
    assert second is not host
    assert second.state["count"] >= before - LOST_MAX


async def two_deaths(story: Story) -> None:
    host = await story.agree()
    others = sorted((room for room in story.alive() if room is not host), key=lambda room: room.seats.index(room.me))
    before = story.counted
    story.kill(story.name_of(host))
    story.kill(story.name_of(others[0]))  # who would have followed
    second = await story.agree(within_s=4.5)
    assert second.state["count"] >= before - LOST_MAX


async def cut(story: Story) -> None:
    host = await story.agree()
    name = story.name_of(host)
    other = next(each for each in NAMES if each != name)
    few, many = {name, other}, set(NAMES) - {name, other}
    story.cut_off |= few
    with story.world.net.partition(few, many, signaling=False):
        await trio.sleep(6)
        second = await story.agree([story.rooms[each] for each in many])
        assert not host.is_host
        assert all(story.rooms[each].host is None for each in few)
        with pytest.raises(NotHost):
            host.state["count"] = -1
        await trio.sleep(2)
    again = await story.agree(within_s=20)
    assert again is second or again.term > second.term


async def flap(story: Story) -> None:
    for _ in range(5):
        name = story.name_of(await story.agree(within_s=20))
        story.cut_off.add(name)
        with story.world.net.partition({name}, set(NAMES) - {name}, signaling=False):
            await trio.sleep(2.2)
        await trio.sleep(2.2)
    await story.agree(within_s=20)


STORIES = {"host-kill": kill, "host-two-deaths": two_deaths, "host-cut": cut, "host-flap": flap}


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("seed", [1, *[pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8)]])
async def test_what_befalls_hosts_leaves_one_state(
    name: str, seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(seed=seed, quality=Quality(latency_s=0.03, jitter_s=0.01, loss=0.02)) as world:
        rooms = await everybody(world, *NAMES)
        story = Story(world, rooms)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(story.count)
            await story.agree(within_s=10)
            await trio.sleep(4)  # all have their seats, and are in the roster
            await STORIES[name](story)
            await story.check()
            nursery.cancel_scope.cancel()
