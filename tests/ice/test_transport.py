"""Two peers find a path: real sockets on loopback, and a network in memory where something has to go wrong."""

from __future__ import annotations

import gc
import random
import socket
import struct
import threading
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from aioice import stun
from trio.testing import MockClock

from psyne_mesh.config import TurnServer, WebRTCConfig
from psyne_mesh.errors import ClosedError, ConnectFailed, LocalError
from psyne_mesh.webrtc.ice import (
    Disconnected,
    Failed,
    GatheringComplete,
    IceGateway,
    IceParameters,
    PathSelected,
    open_gateway,
)
from psyne_mesh.webrtc.ice.binding import _sealed, binding_answer
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.stun_guard import SUCCESS
from tests.ice.fake_net import FakeNet
from tests.ice.helpers import LOOPBACK, Side, introduce, open_pair, selected

A, B = ("192.0.2.1", 1001), ("192.0.2.2", 1002)
OUTSIDE_A = ("198.51.100.1", 2001)
DATA = b"\x17 data"
IN_MEMORY = WebRTCConfig(connection_timeout_s=15.0)


def address_of(gateway: IceGateway) -> Address:
    return gateway.port.bases[0].address


async def exchange(a: Side, b: Side) -> None:
    for one, other in ((a, b), (b, a)):
        before = len(other.received)
        one.transport.send([DATA, DATA])
        await other.until(lambda other=other, before=before: other.received[before:] == [DATA, DATA])  # type: ignore[misc]


# --------------------------------------------------------------------------------------------------------- real sockets


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_two_peers_connect_and_exchange_data(host: str) -> None:
    async with open_pair(attrs.evolve(LOOPBACK, bind_host=host)) as (a, b):
        await exchange(a, b)
        path = a.transport.path
        assert path is not None
        assert (path.kind, path.protocol, path.relay_protocol) == ("host", "udp", None)
        assert b.transport.path is not None
        assert (path.local, path.remote) == (b.transport.path.remote, b.transport.path.local)
        await a.until(lambda: a.transport.path and a.transport.path.rtt_s)
        stats = a.transport.stats()
        assert (stats.datagrams_sent, stats.bytes_sent) == (2, 2 * len(DATA))
        assert (stats.datagrams_received, stats.bytes_received) == (2, 2 * len(DATA))
        assert [pair.selected for pair in stats.pairs] == [True]
        assert stats.pairs[0].state == "succeeded"


async def test_all_interfaces_and_both_families_are_offered_and_connect() -> None:
    async with open_pair(WebRTCConfig()) as (a, b):
        await exchange(a, b)
        texts = [text.split() for text in a.candidates]
        assert any(words[4] == "127.0.0.1" for words in texts)
        priorities = [int(words[3]) for words in texts]
        assert len(set(priorities)) == len(priorities)
        assert priorities == sorted(priorities, reverse=True)
        lowest = {words[4] for words in texts if int(words[3]) == min(priorities)}
        assert lowest <= {"127.0.0.1", "::1"}
        assert len({words[5] for words in texts}) <= 2


async def test_events_come_in_order() -> None:
    async with open_pair() as (a, _):
        kinds = [type(event).__name__ for event in a.events]
        assert kinds == ["LocalCandidate", "GatheringComplete", "PathSelected"]


async def test_a_full_mesh_of_sixteen_needs_sixteen_sockets() -> None:
    nodes = 16
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(open_gateway(LOOPBACK)) for _ in range(nodes)]
        async with trio.open_nursery() as nursery:
            links = []
            for i in range(nodes):
                for j in range(i):
                    a, b = Side(gateways[i], controlling=True), Side(gateways[j], controlling=False)
                    await nursery.start(a.transport.run)
                    await nursery.start(b.transport.run)
                    introduce(a, b)
                    links.append((a, b))
            for a, b in links:
                await selected(a, b)
            for number, (a, b) in enumerate(links):
                a.transport.send([b"\x17" + bytes([number])])
                b.transport.send([b"\x18" + bytes([number])])
            for number, (a, b) in enumerate(links):
                await a.until(lambda a=a: a.received)  # type: ignore[misc]
                await b.until(lambda b=b: b.received)  # type: ignore[misc]
                assert a.received == [b"\x18" + bytes([number])]
                assert b.received == [b"\x17" + bytes([number])]
            for a, b in links:
                a.transport.close()
                b.transport.close()
        for gateway in gateways:
            assert gateway.port.table_sizes() == {
                "listeners": 0,
                "expected": 0,
                "deadlines": 0,
                "claims": 0,
                "routes": 0,
            }
            assert not gateway.faults


def hostile_packets(gateway: IceGateway, ufrag: str) -> list[bytes]:
    """Everything a stranger who knows the port can send, and the ufrag too."""
    short = struct.pack("!HHH2x", 0x0024, 2, 1)
    packets = [struct.pack("!HHI12s", 1, len(short), 0x2112A442, b"x" * 12) + short]
    for username in (f"{ufrag}:evil", "nobody:evil", ":", "\0" * 100, ufrag):
        for attributes in ({"PRIORITY": 1, "ICE-CONTROLLING": 2**64 - 1}, {}, {"USE-CANDIDATE": None}):
            message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
            message.attributes = {"USERNAME": username, **attributes}
            message.add_message_integrity(b"guess")
            packets.append(bytes(message))
            message = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, attributes={"XOR-MAPPED-ADDRESS": A})
            packets.append(bytes(message))
    dice = random.Random(3)
    packets += [dice.randbytes(dice.randrange(0, 300)) for _ in range(10_000)]
    packets += [b"\0\1" + dice.randbytes(2) + b"\x21\x12\xa4\x42" + dice.randbytes(40) for _ in range(500)]
    return packets


async def test_ten_thousand_hostile_datagrams_disturb_nobody() -> None:
    async with open_pair() as (a, b):
        gateway = b.transport._gateway
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.setblocking(False)
            for number, packet in enumerate(hostile_packets(gateway, b.transport.local.ufrag)):
                stranger.sendto(packet, address_of(gateway))
                if number % 100 == 0:
                    await exchange(a, b)
            with pytest.raises(BlockingIOError):
                stranger.recv(2000)  # and not one answer
        await exchange(a, b)
        assert not gateway.faults
        assert len(b.all(PathSelected)) == 1
        assert set(b.received) == {DATA}


async def test_closing_leaves_no_socket_no_task_and_no_thread() -> None:
    async def once() -> None:
        async with open_pair() as (a, b):
            await exchange(a, b)

    await once()
    gc.collect()
    before_sockets, before_threads = _open_sockets(), threading.active_count()
    before_tasks = trio.lowlevel.current_statistics().tasks_living
    for _ in range(3):
        await once()
    gc.collect()
    assert trio.lowlevel.current_statistics().tasks_living == before_tasks
    assert _open_sockets() == before_sockets
    assert threading.active_count() == before_threads


def _open_sockets() -> int:
    found = 0
    for one in gc.get_objects():
        if isinstance(one, socket.socket) and one.fileno() != -1:
            found += 1
    return found


async def test_cancelling_run_is_as_good_as_closing() -> None:
    async with open_gateway(LOOPBACK) as gateway:
        side = Side(gateway, controlling=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(side.transport.run)
            nursery.cancel_scope.cancel()
        assert gateway.port.table_sizes() == {"listeners": 0, "expected": 0, "deadlines": 0, "claims": 0, "routes": 0}
        with pytest.raises(ClosedError):
            await side.transport.restart()


async def test_a_gateway_that_closes_first_takes_its_transports_along() -> None:
    async with trio.open_nursery() as nursery:
        async with open_gateway(LOOPBACK) as gateway:
            side = Side(gateway, controlling=True)
            await nursery.start(side.transport.run)
        side.transport.close()


async def test_sending_before_a_path_is_known_is_a_drop() -> None:
    async with open_pair(connect=False) as (a, _):
        a.transport.send([DATA, DATA])
        assert a.transport.stats().datagrams_dropped == 2


@pytest.mark.parametrize("from_event", [True, False])
async def test_a_fault_above_ends_that_peer_and_no_other(from_event: bool) -> None:
    class Bug(Exception):
        pass

    async with open_gateway(LOOPBACK) as left, open_gateway(LOOPBACK) as right, trio.open_nursery() as nursery:
        good, other = Side(left, controlling=True), Side(right, controlling=False)
        await nursery.start(good.transport.run)
        await nursery.start(other.transport.run)
        introduce(good, other)
        await selected(good, other)
        with pytest.raises(ExceptionGroup) as raised:
            async with trio.open_nursery() as doomed:
                bad, peer = Side(left, controlling=True), Side(right, controlling=False)
                await doomed.start(bad.transport.run)
                await doomed.start(peer.transport.run)

                def fail(*_: Any) -> None:
                    raise Bug

                if from_event:
                    bad._on_event = fail  # type: ignore[method-assign]
                    bad.transport._on_event = fail
                bad.transport._deliver = fail
                introduce(bad, peer)
                await selected(peer)
                peer.transport.send([DATA])
                await trio.sleep_forever()
        assert [type(error) for error in raised.value.exceptions] == [Bug]
        await exchange(good, other)
        nursery.cancel_scope.cancel()


# ----------------------------------------------------------------------------------------------------- network in memory


@pytest.fixture
def net() -> FakeNet:
    return FakeNet()


class World:
    """Gateways and sides on a network in memory, in virtual time."""

    def __init__(self, net: FakeNet, nursery: trio.Nursery) -> None:
        self.net = net
        self._nursery = nursery

    async def gateway(self, *addresses: Address, config: WebRTCConfig = IN_MEMORY) -> IceGateway:
        async def hold(task_status: trio.TaskStatus[IceGateway]) -> None:
            async with open_gateway(config, sockets=self.net.factory(*addresses)) as gateway:
                task_status.started(gateway)
                await trio.sleep_forever()

        gateway: IceGateway = await self._nursery.start(hold)
        return gateway

    async def side(self, *addresses: Address, controlling: bool, config: WebRTCConfig = IN_MEMORY) -> Side:
        side = Side(await self.gateway(*addresses, config=config), controlling=controlling)
        await self._nursery.start(side.transport.run)
        return side


@pytest.fixture
async def world(net: FakeNet, autojump_clock: MockClock) -> AsyncGenerator[World, None]:
    async with trio.open_nursery() as nursery:
        yield World(net, nursery)
        nursery.cancel_scope.cancel()


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
    assert raised.value.candidates == ("192.0.2.1:1001 to 192.0.2.2:1002 (in-progress)",)
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
    with pytest.raises(LocalError, match="restart"):
        a.transport.set_remote(IceParameters("else", "x" * 22))


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
