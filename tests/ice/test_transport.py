"""Two peers find a path on a network in memory, where something has to go wrong."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from psyne_mesh.config import TurnServer, WebRTCConfig
from psyne_mesh.errors import ConnectFailed, LocalError
from psyne_mesh.webrtc.ice import (
    Failed,
    IceParameters,
    PathSelected,
    open_gateway,
)
from psyne_mesh.webrtc.ice.events import Address
from tests.ice.fake_net import FakeNet
from tests.ice.helpers import (
    IN_MEMORY,
    OUTSIDE_A,
    A,
    B,
    Side,
    World,
    exchange,
    introduce,
    selected,
)


async def test_in_memory_peers_connect(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await exchange(a, b)


@pytest.mark.parametrize("role", [True, False])
async def test_a_role_conflict_is_settled(autojump_clock: MockClock, world: World, role: bool) -> None:
    """RFC 8445 section 7.3.1.1: both sides believe to have the same role."""
    a, b = await world.side(A, controlling=role), await world.side(B, controlling=role)
    introduce(a, b)
    await selected(a, b)
    await exchange(a, b)
    assert a.transport.stats().controlling != b.transport.stats().controlling


async def test_a_peer_behind_a_nat_is_found_as_peer_reflexive(autojump_clock: MockClock, world: World) -> None:
    """The candidates of `a` are useless outside; its checks carry the address that works."""
    world.net.filter = lambda data, source, destination: (
        OUTSIDE_A if source == A else None if destination == A else source
    )
    world.net.translate[OUTSIDE_A] = A
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    await exchange(a, b)
    assert b.transport.path is not None
    assert (b.transport.path.kind, b.transport.path.remote) == ("prflx", OUTSIDE_A)
    assert a.transport.path is not None
    assert (a.transport.path.local, a.transport.path.local_kind) == (OUTSIDE_A, "prflx")


async def test_early_checks_and_early_dtls_are_kept(autojump_clock: MockClock, world: World) -> None:
    """`b` knows nothing of `a` yet: no answer from signaling. Its checks are answered, its ClientHello is kept."""
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    for text in b.candidates:
        a.transport.add_remote_candidate(text)
    a.transport.set_remote(b.transport.local)
    await selected(a)
    hello = [b"\x16" + bytes([number]) for number in range(20)]
    a.transport.send(hello)
    await trio.testing.wait_all_tasks_blocked()
    assert b.received == []
    b.transport.set_remote(a.transport.local)
    await selected(b)
    await b.until(lambda: b.received)
    assert b.received == hello[:16]
    assert b.transport.stats().early_dropped == 4
    position = [type(event).__name__ for event in b.events].index("PathSelected")
    assert position == len(b.events) - 1


async def test_lost_checks_cost_tenths_of_a_second(autojump_clock: MockClock, world: World) -> None:
    lost = 0

    def lose_first(data: bytes, source: Address, destination: Address) -> Address | None:
        nonlocal lost
        if lost < 4:
            lost += 1
            return None
        return source

    world.net.filter = lose_first
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    began = trio.current_time()
    introduce(a, b)
    await selected(a, b)
    assert trio.current_time() - began < 0.5


async def test_a_check_that_comes_in_sends_ours_again_at_once(autojump_clock: MockClock, world: World) -> None:
    """Hole punching at no latency: each side's first check opens its own hole and dies at the other's."""
    holes: set[tuple[Address, Address]] = set()

    def nats(data: bytes, source: Address, destination: Address) -> Address | None:
        holes.add((source, destination))
        return source if (destination, source) in holes else None

    world.net.filter = nats
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    began = trio.current_time()
    introduce(a, b)
    await selected(a, b)
    assert trio.current_time() - began < 0.15


async def test_a_peer_that_comes_late_is_found_soon(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    world.net.filter = lambda data, source, destination: None
    introduce(a, b)
    await trio.sleep(10)
    world.net.filter = lambda data, source, destination: source
    began = trio.current_time()
    await selected(a, b)
    assert trio.current_time() - began < 2.0


async def test_no_path_ends_by_the_deadline_and_says_what_was_tried(autojump_clock: MockClock, world: World) -> None:
    world.net.filter = lambda data, source, destination: None
    config = attrs.evolve(IN_MEMORY, connection_timeout_s=3.0)
    gateway = await world.gateway(A, config=config)
    a = Side(gateway, controlling=True)
    b = await world.side(B, controlling=False)
    introduce(a, b)
    a.trickle = None
    began = trio.current_time()
    with pytest.raises(ConnectFailed) as raised:
        await a.transport.run()
    assert 3.0 <= trio.current_time() - began < 4.0
    assert raised.value.phase == "ice"
    (tried,) = raised.value.candidates
    # The only check is given up at the same moment as the transport: which of them comes first is Trio's choice.
    assert tried in [f"192.0.2.1:1001 to 192.0.2.2:1002 ({state})" for state in ("in-progress", "failed")]
    assert "TURN" in raised.value.advice
    assert [event.error for event in a.all(Failed)] == [raised.value]


async def test_without_any_candidate_it_fails_at_once(autojump_clock: MockClock, world: World) -> None:
    gateway = await world.gateway(config=IN_MEMORY)
    with pytest.raises(ConnectFailed) as raised:
        await Side(gateway, controlling=True).transport.run()
    assert raised.value.phase == "ice-gathering"


async def test_relay_only_shows_and_uses_no_address_of_ours(autojump_clock: MockClock, world: World) -> None:
    config = WebRTCConfig(
        relay_only=True, turn_servers=(TurnServer("203.0.113.1"),), connection_timeout_s=2.0, ice_gathering_timeout_s=60
    )
    gateway = await world.gateway(A, config=config)
    a, b = Side(gateway, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    with pytest.raises(ConnectFailed):
        await a.transport.run()
    assert a.candidates == []
    assert not [entry for entry in world.net.log if entry[1] == A and entry[2] == B]
    assert not [entry for entry in world.net.log if entry[2] == A and entry[1] != B]


async def test_candidates_that_cannot_be_used_are_counted(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    wrong = [
        "nonsense",
        "candidate:1 1 udp 1 224.0.0.1 5000 typ host",
        "candidate:1 2 udp 1 192.0.2.2 5000 typ host",
        "candidate:1 1 tcp 1 192.0.2.2 9 typ host tcptype active",
        "candidate:1 1 udp 1 192.0.2.2 5000 typ host ufrag other",
    ]
    for text in wrong:
        a.transport.add_remote_candidate(text)
    introduce(a, b)
    await selected(a, b)
    a.transport.add_remote_candidate(wrong[0])
    await trio.testing.wait_all_tasks_blocked()
    assert a.transport.stats().remote_candidates_refused == len(wrong) + 1


async def test_a_flood_of_candidates_is_bounded(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    for number in range(1000):
        a.transport.add_remote_candidate(f"candidate:1 1 udp 1 198.51.100.7 {number + 1} typ host")
        await trio.testing.wait_all_tasks_blocked()
    assert len(a.transport.stats().pairs) <= 64
    await exchange(a, b)


async def test_other_credentials_need_a_restart(autojump_clock: MockClock, world: World) -> None:
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    introduce(a, b)
    a.transport.set_remote(b.transport.local)
    await selected(a, b)
    with pytest.raises(LocalError, match="restart"):
        a.transport.set_remote(IceParameters("else", "x" * 22))


async def test_credentials_that_led_nowhere_are_replaced(autojump_clock: MockClock, world: World) -> None:
    """The late answer to an earlier restart came first, and then the right one."""
    a, b = await world.side(A, controlling=True), await world.side(B, controlling=False)
    a.transport.set_remote(IceParameters("else", "x" * 22))
    for text in b.candidates:
        a.transport.add_remote_candidate(text)
    await trio.sleep(2)
    introduce(a, b)
    await selected(a, b)
    await exchange(a, b)


async def test_who_does_not_give_up_waits_for_a_restart(autojump_clock: MockClock, net: FakeNet) -> None:
    """There is another way for the datagrams: no path by the deadline is news, and not the end."""
    async with (
        open_gateway(IN_MEMORY, sockets=net.factory(A)) as left,
        open_gateway(IN_MEMORY, sockets=net.factory(B)) as right,
        trio.open_nursery() as nursery,
    ):
        a, b = (Side(gateway, controlling=gateway is left, gives_up=False) for gateway in (left, right))
        for side in (a, b):
            await nursery.start(side.transport.run)
        net.filter = lambda data, source, destination: None
        introduce(a, b)
        await trio.sleep(60)
        assert len(a.all(Failed)) == len(b.all(Failed)) == 1
        net.filter = lambda data, source, destination: source
        for side in (a, b):
            await side.transport.restart()
        introduce(a, b)
        await selected(a, b)
        await exchange(a, b)
        a.transport.close()
        b.transport.close()


async def test_the_better_pair_wins_on_both_sides(autojump_clock: MockClock, world: World) -> None:
    """The first answer comes over the worse pair; when the better one answers, both sides move to it."""
    better = ("2001:db8::2", 1002)
    away = True

    def late(data: bytes, source: Address, destination: Address) -> Address | None:
        return None if away and ":" in source[0] else source

    world.net.filter = late
    a = await world.side(("2001:db8::1", 1001), A, controlling=True)
    b = await world.side(better, B, controlling=False)
    introduce(a, b)
    await selected(a, b)
    assert a.transport.path is not None
    assert a.transport.path.remote == B
    away = False
    await a.until(lambda: a.transport.path and a.transport.path.remote == better)
    await b.until(lambda: b.transport.path and ":" in b.transport.path.remote[0])
    await exchange(a, b)
    assert [event.path.remote for event in a.all(PathSelected)] == [B, better]


async def test_both_sides_settle_on_one_pair_however_checks_are_lost(autojump_clock: MockClock, world: World) -> None:
    dice = random.Random(5)
    for number in range(20):
        sixes = [(f"2001:db8::{number}:{side}", 1000) for side in (1, 2)]
        fours = [(f"192.0.2.{100 + number * 2 + side}", 1000) for side in (0, 1)]
        world.net.filter = lambda data, source, destination: None if dice.random() < 0.4 else source
        a = await world.side(sixes[0], fours[0], controlling=True)
        b = await world.side(sixes[1], fours[1], controlling=False)
        introduce(a, b)
        await selected(a, b)
        world.net.filter = lambda data, source, destination: source
        await trio.sleep(8)
        assert a.transport.path is not None
        assert b.transport.path is not None
        assert (a.transport.path.local, a.transport.path.remote) == (b.transport.path.remote, b.transport.path.local)
        a.transport.close()
        b.transport.close()
