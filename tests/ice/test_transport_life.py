"""A path that was found is kept: silence, consent, restarts, and other paths, in virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from aioice import stun
from trio.testing import MockClock

from psyne_mesh.webrtc.ice import (
    Disconnected,
    Failed,
    GatheringComplete,
    IceParameters,
    PathSelected,
)
from psyne_mesh.webrtc.ice.binding import _sealed, binding_answer
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.stun_guard import SUCCESS
from tests.ice.helpers import (
    DATA,
    OUTSIDE_A,
    A,
    B,
    Side,
    World,
    exchange,
    introduce,
    selected,
)


async def test_silence_disconnects_and_life_reconnects(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await trio.sleep(20)
    world.net.filter = lambda data, source, destination: None
    await a.until(lambda: a.all(Disconnected))
    await b.until(lambda: b.all(Disconnected))
    world.net.filter = lambda data, source, destination: source
    await a.event(PathSelected, 2)
    await b.event(PathSelected, 2)
    await exchange(a, b)


async def test_an_idle_pair_does_not_wake_the_loop_of_aioice(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await trio.sleep(5)
    calls: list[object] = []
    for side in (a, b):
        side.transport._port._call_soon = lambda *call: calls.append(call)
    before = a.transport.stats().consent_checks_answered
    world.net.log.clear()
    await trio.sleep(100)
    stats = a.transport.stats()
    assert stats.consent_checks_sent - stats.consent_checks_answered <= 1
    assert 16 <= stats.consent_checks_answered - before <= 25
    assert calls == []
    assert {data[0] for data, _, _ in world.net.log} == {0, 1}  # checks and answers, and nothing else
    assert a.transport._port.table_sizes()["expected"] <= 1


async def test_only_an_authentic_answer_from_the_peers_address_counts(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await trio.sleep(5)
    world.net.filter = lambda data, source, destination: None if source == B else source  # its answers are lost
    world.net.log.clear()
    await a.until(lambda: any(source == A and data[:2] == b"\0\1" for data, source, _ in world.net.log))
    await trio.sleep(0.1)
    check = [data for data, source, _ in world.net.log if source == A and data[:2] == b"\0\1"][-1]
    password = b.transport.local.password.encode()
    answered = a.transport.stats().consent_checks_answered
    inbox = world.net.sockets[A]
    refusal = stun.Message(stun.Method.BINDING, stun.Class.ERROR, check[8:20], {"ERROR-CODE": (487, "Role Conflict")})
    refusal.add_message_integrity(b"not the password")
    for data, source in (
        (binding_answer(check[8:20], A, b"not the password"), B),
        (binding_answer(check[8:20], A, password)[:-8], B),  # cut, and the length in its header is wrong
        (_sealed(SUCCESS | 0x003, check[8:20], b"", password), B),  # authentic, to a question that nobody asked
        (binding_answer(b"x" * 12, A, password), B),
        (binding_answer(check[8:20], A, password), ("192.0.2.77", 7)),
        (check, B),
        (bytes(refusal), B),
    ):
        inbox.arrive(data, source)
        await trio.testing.wait_all_tasks_blocked()
        assert a.transport.stats().consent_checks_answered == answered
    inbox.arrive(binding_answer(check[8:20], A, password), B)
    inbox.arrive(binding_answer(check[8:20], A, password), B)  # twice: the network may do that
    await trio.testing.wait_all_tasks_blocked()
    assert a.transport.stats().consent_checks_answered == answered + 1
    assert a.transport.stats().pairs[0].rtt_s == pytest.approx(0.1, abs=0.02)


async def test_checks_that_are_never_answered_are_forgotten(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    world.net.filter = lambda data, source, destination: None
    for _ in range(60):
        await trio.sleep(2)
        assert len(a.transport._pings._sent) <= 20  # type: ignore[union-attr]


async def test_the_checks_of_many_peers_go_in_one_wake(autojump_clock: MockClock, world: World) -> None:
    hub = await world.gateway(A)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            mine = Side(hub, controlling=True)
            await nursery.start(mine.transport.run)
            theirs = await world.side(("192.0.2.9", 5000 + number), controlling=False)
            introduce(mine, theirs)
            await selected(mine, theirs)
            await trio.sleep(0.7)
        await trio.sleep(120)  # they find together as their random intervals let them meet
        wakes: dict[float, int] = {}
        world.net.filter = lambda data, source, destination: (
            source,
            source == A and data[0] == 0 and wakes.__setitem__(now := trio.current_time(), wakes.get(now, 0) + 1),
        )[0]
        await trio.sleep(60)
        assert len(wakes) <= 16
        assert all(count == 8 for count in list(wakes.values())[1:-1])
        nursery.cancel_scope.cancel()


async def test_consent_expires_after_thirty_seconds_and_a_restart_revives(
    autojump_clock: MockClock, world: World
) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await trio.sleep(20)
    world.net.filter = lambda data, source, destination: None
    began = trio.current_time()
    with trio.fail_after(60):
        while not (a.all(Failed) and b.all(Failed)):
            await trio.sleep(1)
    assert 24 <= trio.current_time() - began <= 32
    a.transport.send([DATA])
    assert a.transport.stats().datagrams_dropped == 1
    world.net.filter = lambda data, source, destination: source
    await restart(a, b)
    await a.event(PathSelected, 2)
    await b.event(PathSelected, 2)
    await exchange(a, b)


async def test_data_from_above_keeps_a_path_whose_checks_are_lost(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await trio.sleep(3)
    world.net.filter = lambda data, source, destination: None if data[0] < 4 else source
    for _ in range(240):
        a.transport.send([DATA])
        b.transport.send([DATA])
        await trio.sleep(0.25)
        a.transport.note_alive()
        b.transport.note_alive()
    assert not a.all(Disconnected)
    assert not b.all(Failed)


async def restart(a: Side, b: Side) -> None:
    for side in (a, b):
        side.trickle = None
        side.events = [event for event in side.events if not isinstance(event, GatheringComplete)]
    already = len(a.candidates), len(b.candidates)
    await a.transport.restart()
    await b.transport.restart()
    for one, other, skip in ((a, b, already[0]), (b, a, already[1])):
        for text in one.candidates[skip:]:
            other.transport.add_remote_candidate(text)
        other.transport.set_remote(one.transport.local)


async def test_a_restart_loses_no_datagram(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    old = a.transport.local
    sent = 0
    async with trio.open_nursery() as nursery:

        async def stream() -> None:
            nonlocal sent
            while True:
                a.transport.send([DATA])
                b.transport.send([DATA])
                sent += 1
                await trio.sleep(0.001)

        nursery.start_soon(stream)
        await trio.sleep(0.02)
        await restart(a, b)
        await a.event(PathSelected, 2)
        await b.event(PathSelected, 2)
        await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert len(a.received) == len(b.received) == sent
    assert a.transport.local != old
    assert a.transport.stats().generation == 1
    assert len(a.all(GatheringComplete)) == 1
    assert a.transport._port.table_sizes()["listeners"] == 1


async def test_a_restart_that_fails_leaves_the_old_path(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await a.transport.restart()
    a.transport.set_remote(IceParameters("nobody", "x" * 22))
    await trio.sleep(20)
    assert not a.all(Failed)
    await exchange(a, b)
    await restart(a, b)
    await b.event(PathSelected, 2)
    await exchange(a, b)


async def test_many_restarts_leave_nothing_behind(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    for number in range(5):
        await restart(a, b)
        await a.event(PathSelected, number + 2)
        await b.event(PathSelected, number + 2)
    await trio.testing.wait_all_tasks_blocked()
    assert a.transport._port.table_sizes()["listeners"] == 1
    assert len(a.transport._retired) == 0


async def test_a_path_that_dies_is_replaced_by_another_that_lives(autojump_clock: MockClock, world: World) -> None:
    sixes = [("2001:db8::1", 1001), ("2001:db8::2", 1002)]
    a = await world.side(sixes[0], A, controlling=True)
    b = await world.side(sixes[1], B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await trio.sleep(10)
    assert a.transport.path is not None
    assert ":" in a.transport.path.remote[0]
    world.net.filter = lambda data, source, destination: None if ":" in source[0] else source
    with trio.fail_after(20):
        while not (a.transport.path.remote == B and b.transport.path and b.transport.path.remote == A):
            await trio.sleep(0.1)
    await exchange(a, b)


async def test_a_hint_from_above_finds_another_path_within_two_seconds(autojump_clock: MockClock, world: World) -> None:
    sixes = [("2001:db8::1", 1001), ("2001:db8::2", 1002)]
    a = await world.side(sixes[0], A, controlling=True)
    b = await world.side(sixes[1], B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await trio.sleep(7)
    world.net.filter = lambda data, source, destination: None if ":" in source[0] else source
    began = trio.current_time()
    a.transport.check_path()
    b.transport.check_path()
    await a.event(PathSelected, 2)
    await b.event(PathSelected, 2)
    assert trio.current_time() - began < 2.0
    await exchange(a, b)


async def test_a_nat_that_forgets_is_survived_by_checks_alone(autojump_clock: MockClock, world: World) -> None:
    """The mapping of `a` moves to another port, and the other side accepts whoever knows the password."""
    outside = OUTSIDE_A
    world.net.filter = lambda data, source, destination: (
        outside if source == A else None if destination in (A, dead) else source
    )
    dead: Address | None = None
    world.net.translate[OUTSIDE_A] = A
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await trio.sleep(7)
    dead, outside = OUTSIDE_A, ("198.51.100.1", 2999)
    world.net.translate[outside] = A
    began = trio.current_time()
    b.transport.check_path()
    a.transport.check_path()
    await b.until(lambda: b.transport.path and b.transport.path.remote == outside)
    assert trio.current_time() - began < 3.0
    await exchange(a, b)
