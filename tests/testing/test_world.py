"""The kit that users test their games with: rooms on a virtual network, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import InvalidConfig, SignalingUnreachable
from psyne_mesh.room import events
from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, World, open_world


class Note(Message):
    number: int


async def everybody(world: World, *names: str, **options: object) -> list[Room]:
    rooms = [await world.join("lobby", name, **options) for name in names]  # type: ignore[arg-type]
    for room in rooms:
        await room.wait_connected(len(names) - 1)
    return rooms


async def first(room: Room, kind: type) -> object:
    """The next event of that kind; in virtual time a wait in vain would never end."""
    with trio.fail_after(60):
        async for event in room.events():
            if isinstance(event, kind):
                return event
    raise AssertionError


async def test_a_room_meets_and_talks_over_a_lossy_path(autojump_clock: MockClock) -> None:
    async with open_world(
        seed=1, quality=Quality(latency_s=0.03, jitter_s=0.01, loss=0.1, duplicate=0.05, reorder=0.1)
    ) as world:
        ada, bob, _ = await everybody(world, "ada", "bob", "cid")
        for number in range(200):
            await ada.channel("notes", Note).send(Note(number))
        assert [(await bob.channel("notes", Note).receive())[1].number for _ in range(200)] == list(range(200))


async def test_a_partition_is_suspected_and_heals_without_a_human(autojump_clock: MockClock) -> None:
    async with open_world(seed=2) as world:
        names = ["a1", "a2", "a3", "b1", "b2", "b3", "b4"]
        rooms = await everybody(world, *names)
        left, right = names[:3], names[3:]
        world.hub.kill()  # else signaling would be the bridge: that is the next test
        with world.net.partition(left, right):
            seen = await first(rooms[0], events.PartitionSuspected)
            assert isinstance(seen, events.PartitionSuspected)
            assert len(seen.lost) == 4
            assert not seen.majority
            await trio.sleep(45)
            assert len(rooms[0].connected) == 2
            assert len(rooms[3].connected) == 3
        with trio.fail_after(60):  # no server, no human
            for room in rooms:
                await room.wait_connected(6)
        await rooms[0].channel("notes", Note).send(Note(1))
        for room in rooms[1:]:
            assert (await room.channel("notes", Note).receive())[1] == Note(1)


async def test_signaling_bridges_a_partition_that_leaves_it_alone(autojump_clock: MockClock) -> None:
    async with open_world(seed=8) as world:
        ada, bob, cid, dan = await everybody(world, "ada", "bob", "cid", "dan")
        with world.net.partition(["ada", "bob"], ["cid", "dan"]):
            await trio.sleep(20)
            with trio.fail_after(30):
                for room in (ada, bob, cid, dan):
                    await room.wait_connected(3)
            await ada.channel("notes", Note).send(Note(1))
            assert (await dan.channel("notes", Note).receive())[1] == Note(1)
            path = ada.peers[dan.me].path
            assert path is not None
            assert path.kind in ("signaling", "peer")


async def test_a_way_over_signaling_takes_the_latency_of_the_network(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await everybody(world, "ada", "bob")
        for slowness_s in (0.0, 0.05):
            world.hosts["bob"].slowness_s = slowness_s
            with world.net.partition(["ada"], ["bob"]):
                await trio.sleep(60)  # until the smoothed round trip is the path's
                peer = ada.peers[bob.me]
                assert peer.path is not None
                assert peer.path.kind == "signaling"
                assert peer.rtt_ms is not None
                assert peer.rtt_ms == pytest.approx(
                    40 + 2000 * slowness_s, abs=2
                )  # up and down, there and back, 10 ms each
            await trio.sleep(15)


async def test_a_machine_that_stands_still_exchanges_nothing_with_signaling_either(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob, _ = await everybody(world, "ada", "bob", "cid")
        with world.hosts["ada"].pause():
            await trio.sleep(10)
            await ada.channel("notes", Note).send(Note(1))
            with trio.move_on_after(10):
                raise AssertionError(await bob.channel("notes", Note).receive())
            assert ada.me not in bob.peers
        with trio.fail_after(5):
            assert (await bob.channel("notes", Note).receive())[1] == Note(1)
            await bob.wait_connected(2)


@pytest.mark.parametrize("lasts_s", [20.0, 60.0])
async def test_a_side_can_be_cut_from_signaling_while_the_other_keeps_it(
    autojump_clock: MockClock, lasts_s: float
) -> None:
    async with open_world(seed=1) as world:
        left, right = ["ada", "bob"], ["cid", "dan"]
        ada, bob, cid, dan = await everybody(world, *left, *right)
        told: list[tuple[str, type]] = []
        for name, room in zip([*left, *right], (ada, bob, cid, dan), strict=True):
            for kind in (events.SignalingDown, events.SignalingUp):
                room.on(kind, lambda event, name=name: told.append((name, type(event))))
        with world.net.partition(left, right, signaling=left):
            began = trio.current_time()
            while dan.me in ada.peers or cid.me in bob.peers:
                await trio.sleep(0.1)
            assert trio.current_time() - began < 10
            await trio.sleep(lasts_s)
            assert dan.me not in ada.peers
            in_hub = {
                member for member in (ada.me, bob.me, cid.me, dan.me) if world.hub.registry.is_member(member, "//lobby")
            }
            assert in_hub == ({ada.me, bob.me} if lasts_s > 30 else {ada.me, bob.me, cid.me, dan.me})
            fred = await world.join("lobby", "fred")
            await fred.wait_connected(2)
        with trio.fail_after(60):
            for room in (ada, bob, cid, dan, fred):
                await room.wait_connected(4)
            while dict(told) != dict.fromkeys(right, events.SignalingUp):  # may come after the links, which need none
                await trio.sleep(0.1)
        assert {name for name, _ in told} == set(right)  # the others' connection stood all the time


async def test_a_crash_is_known_within_three_seconds(autojump_clock: MockClock) -> None:
    async with open_world(seed=3) as world:
        ada, bob, cid = await everybody(world, "ada", "bob", "cid")
        left: list[tuple[str, str, float]] = []
        for room in (ada, bob):
            room.on_peer_left(lambda peer, reason: left.append((peer.id, reason, trio.current_time())))
        began = trio.current_time()
        world.crash("cid")
        await trio.sleep(10)
        assert [(who, why) for who, why, _ in left] == [(cid.me, "timeout")] * 2
        assert max(when for _, _, when in left) - began <= 3.0  # virtual time: the same on every machine


async def test_who_crashed_comes_back_on_a_new_machine(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ghost, bob = await everybody(world, "ada", "bob")
        old = world.hosts["ada"]
        world.crash("ada")
        await trio.sleep(5)
        ada = await world.join("lobby", "ada", nat="port")
        with trio.fail_after(30):
            for room in (ada, bob):
                await room.wait_connected(1)
            await ada.channel("notes", Note).send(Note(1))
            assert (await bob.channel("notes", Note).receive())[1] == Note(1)
        path = bob.peers[ada.me].path
        assert path is not None
        assert path.remote[0] == world.hosts["ada"].public != old.public
        await trio.sleep(60)  # what is left of the old one does not take the new one's place at the hub
        assert bob.connected
        assert not ghost.connected
        assert world.hub.registry.is_member(ada.me, "//lobby")


async def test_who_does_not_reach_signaling_cannot_join(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        await world.join("lobby", "ada")
        async with world.joining("lobby", "bob"):
            pass
        with world.net.cut_signaling("bob"), pytest.raises(SignalingUnreachable, match="'bob'"):
            await world.join("lobby", "bob")
        began = trio.current_time()
        await world.join("lobby", "bob")
        assert trio.current_time() - began < 1


async def test_a_short_silence_is_suspected_and_taken_back(autojump_clock: MockClock) -> None:
    async with open_world(seed=4) as world:
        ada, bob, _ = await everybody(world, "ada", "bob", "cid")
        with world.hosts["bob"].pause():
            await first(ada, events.PeerSuspected)
        await first(ada, events.PeerResumed)
        await bob.channel("notes", Note).send(Note(1))
        assert (await ada.channel("notes", Note).receive())[1] == Note(1)


@pytest.mark.parametrize(
    ("one", "other"), [("full-cone", "symmetric"), ("port", "port"), ("address", "port"), ("none", "symmetric")]
)
async def test_nats_that_can_be_crossed_are_crossed(autojump_clock: MockClock, one: str, other: str) -> None:
    async with open_world(seed=5) as world:
        ada = await world.join("lobby", "ada", nat=one)  # type: ignore[arg-type]
        bob = await world.join("lobby", "bob", nat=other)  # type: ignore[arg-type]
        with trio.fail_after(30):
            await ada.wait_connected(1)
            await bob.wait_connected(1)
        while (path := ada.peers[bob.me].path) is None or path.kind in ("peer", "signaling"):
            await trio.sleep(0.1)


async def test_two_symmetric_nats_are_bridged_by_a_common_peer(autojump_clock: MockClock) -> None:
    async with open_world(seed=6) as world:
        ada = await world.join("lobby", "ada", nat="symmetric")
        bob = await world.join("lobby", "bob", nat="none")
        cid = await world.join("lobby", "cid", nat="symmetric")
        with trio.fail_after(30):
            for room in (ada, bob, cid):
                await room.wait_connected(2)
        await ada.channel("notes", Note).send(Note(1), to=cid.me)
        assert (await cid.channel("notes", Note).receive())[1] == Note(1)
        path = ada.peers[cid.me].path
        assert path is not None
        assert path.kind == "peer"


async def test_a_forgetful_nat_costs_seconds_and_nothing_else(autojump_clock: MockClock) -> None:
    async with open_world(seed=7) as world:
        ada = await world.join("lobby", "ada", nat="port")
        bob = await world.join("lobby", "bob", nat="port")
        await ada.wait_connected(1)
        await bob.wait_connected(1)
        received: list[int] = []

        async def read() -> None:
            async for _, note in bob.channel("notes", Note):
                received.append(note.number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            world.hosts["ada"].rebind()
            began = trio.current_time()
            for number in range(100):
                await ada.channel("notes", Note).send(Note(number))
                await trio.sleep(0.1)
            while len(received) < 100:
                await trio.sleep(0.1)
            assert trio.current_time() - began < 20
            nursery.cancel_scope.cancel()
        assert received == list(range(100))


async def test_bad_names_are_refused(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        with pytest.raises(InvalidConfig, match="'ada': join it first; hosts: none yet"):
            world.net.set_quality("ada", "bob", Quality())
        world.net.host("bob")
        with pytest.raises(InvalidConfig):
            world.net.host("bob")
        with pytest.raises(InvalidConfig), world.net.cut(("bob", "nobody")):
            pass
        await world.join("lobby", "ada")
        for wrong in (
            lambda: world.crash("bpb"),
            lambda: world.net.partition(["ada"], ["bpb"]).__enter__(),
            lambda: world.net.partition(["ada"], ["bob"], signaling=["bpb"]).__enter__(),
            lambda: world.net.cut_signaling("bpb").__enter__(),
        ):
            with pytest.raises(InvalidConfig, match="'bpb': join it first; hosts: ada, bob"):
                wrong()


async def test_a_machine_has_one_nat_of_a_known_kind(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        with pytest.raises(InvalidConfig, match=r"'symetric': must be one of none, full-cone, .*symmetric"):
            await world.join("lobby", "ada", nat="symetric")  # type: ignore[arg-type]
        async with world.joining("lobby", "ada", nat="port"):
            pass
        with pytest.raises(InvalidConfig, match="'port' already"):
            await world.join("lobby", "ada", nat="symmetric")
        await world.join("lobby", "ada")
        assert world.hosts["ada"].nat == "port"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"loss": 30}, "loss = 30: .*30 %"),
        ({"reorder": -0.1}, "probability"),
        ({"latency_s": -1}, "seconds"),
        ({"latency_s": float("nan")}, "seconds"),
        ({"jitter_s": "20ms"}, "seconds"),
        ({"bytes_per_s": 0}, "bytes a second"),
    ],
)
def test_qualities_out_of_their_units_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        Quality(**wrong)


@pytest.mark.parametrize("wrong", [5, 0, 0.3, "lossy", {"loss": 0.3}, Quality])
async def test_only_a_quality_is_one(wrong: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"such as Quality\(loss=0.3\)"):
        async with open_world(quality=wrong):
            pass
    async with open_world(quality=Quality(loss=0.1)) as world:
        world.net.host("ada")
        world.net.host("bob")
        with pytest.raises(InvalidConfig, match="must be a Quality"):
            world.net.quality = wrong
        with pytest.raises(InvalidConfig, match="must be a Quality"):
            world.net.set_quality("ada", "bob", wrong)
        assert world.net.quality == Quality(loss=0.1)


async def test_pauses_of_one_machine_overlap(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await everybody(world, "ada", "bob")
        received: list[float] = []

        async def pause(at_s: float, lasts_s: float) -> None:
            await trio.sleep(at_s)
            with world.hosts["ada"].pause():
                await trio.sleep(lasts_s)

        async def read() -> None:
            async for _ in bob.channel("notes", Note):
                received.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            nursery.start_soon(read)
            nursery.start_soon(pause, 0, 2)
            nursery.start_soon(pause, 1, 2)
            await trio.sleep(0.5)
            await ada.channel("notes", Note).send(Note(1))
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
        assert len(received) == 1
        assert received[0] - began >= 3


YEARS_S = 20 * 365 * 86_400.0


async def test_wall_clocks_may_be_off_by_years(autojump_clock: MockClock) -> None:
    """All go by the clock of the signaling server, and by their monotonic ones from then on."""
    async with open_world(seed=1) as world:
        ada = await world.join("lobby", "ada", clock_skew_s=YEARS_S)
        bob = await world.join("lobby", "bob", clock_skew_s=-YEARS_S)
        cid = await world.join("lobby", "cid")
        with trio.fail_after(10):
            for room in (ada, bob, cid):
                await room.wait_connected(2)


async def test_where_no_server_tells_the_time_the_clock_is_named(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        world.hub.wall_ms = None
        ada = await world.join("lobby", "ada", clock_skew_s=280)
        bob = await world.join("lobby", "bob", clock_skew_s=-280)
        with trio.fail_after(10):
            await bob.wait_connected(1)
        told: list[str] = []
        began = trio.current_time()
        cid = await world.join("lobby", "cid", clock_skew_s=3600)
        cid.on(events.PeerUnreachable, lambda event: told.append(str(event.error)))
        while not told:
            await trio.sleep(0.1)
        assert trio.current_time() - began < 5
        assert "its clock is 3320 s behind ours" in told[0] or "its clock is 3880 s behind ours" in told[0]
        assert not cid.connected
        assert len(ada.connected) == 1
