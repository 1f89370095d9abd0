"""A player whose only way is the signaling server, in a game of five at 20 Hz: positions come in time, some are left out."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.signaling_rung import LATE_S, SIGNAL_BYTES_MAX, WAITING_BYTES_MAX, Lateness, SignalingRung
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.testing import open_network
from tests.signaling.worlds import open_network as open_server_network

PEERS = [PeerId(f"{number:032x}") for number in range(8)]
HZ, SECONDS = 20, 4
SLOW = ServerConfig(messages_per_s=100)  # half of what servers read, and positions still leave one by one


def test_signals_leave_at_the_rate_and_each_peer_has_its_turn() -> None:
    rung, now, sent = SignalingRung(0.0), 0.0, Counter[PeerId]()
    rung.set_rate(100, 0.0)
    for step in range(1_000):
        now = step / 100
        for peer in PEERS:
            rung.add(peer, [step.to_bytes(4, "big") * 20], now)
        for peer, bundle in rung.take(now):
            sent[peer] += 1
            assert now - int.from_bytes(bundle[0][:4], "big") / 100 <= LATE_S + 0.01
            assert bundle[-1][:4] == step.to_bytes(4, "big"), "what came meanwhile rides along"
    assert 80 * 10 * 0.7 <= sum(sent.values()) <= 80 * 10 + 10, "longer ones cost more"
    assert max(sent.values()) - min(sent.values()) <= 2
    assert rung.rate_of(now) == 80 / 8


def test_bulk_gives_way_and_then_the_oldest() -> None:
    rung = SignalingRung(0.0)
    rung.set_rate(1, 0.0)
    rung.take(0.0)
    small, large = [bytes([n]) * 100 for n in range(100)], [b"x" * 1_200] * 100
    for position, bulk in zip(small, large, strict=True):
        rung.add(PEERS[0], [position, bulk], 0.0)
    [(_, bundle)] = rung.take(0.1)
    assert sum(map(len, bundle)) <= SIGNAL_BYTES_MAX < WAITING_BYTES_MAX
    assert [d for d in bundle if len(d) == 100] == small[: sum(len(d) == 100 for d in bundle)]
    assert rung.dropped > 50


def test_what_is_late_is_left_out() -> None:
    rung = SignalingRung(0.0)
    rung.set_rate(10, 0.0)
    for _ in range(100):
        rung.add(PEERS[0], [b"old"], 0.0)
        rung.add(PEERS[1], [b"old"], 0.0)
        rung.take(0.0)
    rung.add(PEERS[0], [b"new"], 10.0)
    assert dict(rung.take(10.0))[PEERS[0]][-1] == b"new"
    assert rung.next_timeout() == float("inf")


def test_where_nobody_counts_nothing_waits() -> None:
    rung = SignalingRung(0.0)
    rung.add(PEERS[0], [b"a"], 0.0)
    assert rung.take(0.0) == [(PEERS[0], [b"a"])]
    assert rung.rate_of(0.0) is None


@pytest.mark.parametrize("off_s", [0.0, 3.0, -3.0])
def test_what_the_stream_held_is_late_and_two_clocks_are_not(off_s: float) -> None:
    lateness = Lateness()
    verdicts = [lateness.is_late(off_s + 0.1, number * 0.05) for number in range(200)]
    assert not any(verdicts[100:])
    assert not off_s or not any(lateness.is_late(off_s + age_s, 10.0) for age_s in (0.1, 0.5))
    assert lateness.is_late(off_s + 1.0, 10.0)


def test_what_was_held_at_the_begin_is_late() -> None:
    lateness = Lateness()
    assert [lateness.is_late(age_s, 5.0) for age_s in (2.3, 1.5, 0.9, 0.7, 0.0)] == [True, True, True, False, False]


async def test_a_game_of_five_with_one_who_has_no_other_way(autojump_clock: MockClock) -> None:
    """The real client and server over virtual streams; nobody's datagrams reach eve, or come from her."""
    names = ["ada", "bob", "cid", "dan", "eve"]
    ages: dict[str, list[float]] = {name: [] for name in names}
    async with open_network(3) as net, open_server_network(SLOW) as server, AsyncExitStack() as stack:
        rooms: list[Room] = []
        hosts = {name: net.host(name) for name in names}
        stack.enter_context(net.partition(names[:4], ["eve"]))
        for number, name in enumerate(names):
            identity = Identity.from_seed(bytes([number + 1]) * 32)
            rng = random.Random(number)
            client = await stack.enter_async_context(
                connect_signaling("ws://server", identity, rng=rng, dial=server.dial)
            )
            rooms.append(
                await stack.enter_async_context(
                    join_game_room(
                        "lobby", signaling=client, identity=identity, player_name=name, rng=rng,
                        config=hosts[name].config, sockets=hosts[name].sockets,
                    )
                )
            )  # fmt: skip
        with trio.fail_after(30):
            for room in rooms:
                await room.wait_connected(4)
        eve = rooms[-1]
        async with trio.open_nursery() as nursery:

            async def play(room: Room, began: float) -> None:
                channel = room.channel("positions", mode="unreliable")
                for tick in range(HZ * SECONDS):
                    await trio.sleep_until(began + tick / HZ)
                    channel.send_nowait(f"{trio.current_time():.4f}" + "." * 60)

            async def watch(room: Room, name: str) -> None:
                async for peer, text in room.channel("positions", mode="unreliable"):
                    if eve.me in (room.me, peer.id):
                        ages[name].append(trio.current_time() - float(str(text).rstrip(".")))

            for room, name in zip(rooms, names, strict=True):
                nursery.start_soon(watch, room, name)
            await trio.sleep(1)
            for number, room in enumerate(rooms):
                nursery.start_soon(play, room, trio.current_time() + number * 0.007)
            await trio.sleep(SECONDS + 2)
            path = next(peer.path for peer in eve.connected if peer.path is not None)
            nursery.cancel_scope.cancel()
    sent = HZ * SECONDS
    for name, seen in ages.items():
        expected = 4 * sent if name == "eve" else sent
        assert len(seen) >= 0.95 * expected, (name, len(seen), expected)
        assert sorted(seen)[int(0.99 * len(seen))] <= 0.3
        assert max(seen) <= 1.0
    assert path.kind == "signaling"
    assert path.rate is not None
    assert path.rate >= HZ
