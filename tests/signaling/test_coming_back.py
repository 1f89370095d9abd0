"""Coming back to a server: how soon, to which of several, when it is busy; and by whose clock."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from psyne_mesh.errors import InvalidUri, SignalingBusy, SignalingUnreachable
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.backplane import MemoryBackplane
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.doors import DoorLimits
from psyne_mesh.signaling.events import Lost, PeerJoined, Restored
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.server import open_server

from .worlds import QUICK, Network, open_network, player

A_LONG_OUTAGE_S = 120.0


async def outage(network: Network, number: int, *, needed: bool) -> tuple[float, int]:
    """How long after the server's return a client is back, and how often it tried."""
    async with network.connect(number) as client:
        network.is_up = False
        network.cut()
        assert isinstance(await client.next_event(), Lost)
        dials, ends_at = network.dials, trio.current_time() + A_LONG_OUTAGE_S
        while trio.current_time() < ends_at:
            if needed:
                client.doubt()
            await trio.sleep(0.05)
        network.is_up = True
        tries, began = network.dials - dials, trio.current_time()
        if needed:
            client.doubt()
        assert isinstance(await client.next_event(), Restored)
        return trio.current_time() - began, tries


async def test_who_is_needed_is_back_within_a_second_and_nobody_else_hurries(autojump_clock: MockClock) -> None:
    async with open_network() as network:
        needed = [await outage(network, number, needed=True) for number in range(1, 6)]
        idle = [await outage(network, number, needed=False) for number in range(6, 11)]
    assert max(back_s for back_s, _ in needed) <= 1.1
    assert len({round(back_s, 3) for back_s, _ in needed}) > 1, "not in step"
    assert max(tries for _, tries in needed) < 2.5 * A_LONG_OUTAGE_S
    assert max(tries for _, tries in idle) < A_LONG_OUTAGE_S / 5


async def test_a_busy_server_is_asked_again_when_it_says(autojump_clock: MockClock) -> None:
    config = ServerConfig(doors=DoorLimits(hellos_per_address_burst=2, hellos_per_address_per_s=0.25))
    async with open_network(config) as network, network.connect(1), network.connect(2) as b:
        began = trio.current_time()
        async with network.connect(3):
            assert trio.current_time() - began > 3, "a handshake for each address in four seconds"
        assert network.server.stats.turned_away >= 2
        dials = network.dials
        network.cut()
        assert isinstance(await b.next_event(), Lost)
        assert isinstance(await b.next_event(), Restored)
        assert network.dials - dials < 40, "three clients that came back"


async def test_one_that_stays_busy_is_an_error_that_says_so(autojump_clock: MockClock) -> None:
    async with open_network(ServerConfig(doors=DoorLimits(clients_max=1))) as network, network.connect(1):
        began = trio.current_time()
        with pytest.raises(SignalingBusy, match=r"busy.*come back in 1 s") as caught:
            async with network.connect(2):
                pass
        assert caught.value.retry_after_s == 1
        assert 7 < trio.current_time() - began <= 10


@pytest.mark.parametrize(
    "told", [b"", b"Retry-After: soon\r\n", b"Retry-After: -1\r\n", b"Retry-After: 99999999999\r\n"]
)
async def test_a_refusal_without_a_time_is_just_a_refusal(told: bytes, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:

        async def dial() -> trio.abc.Stream:
            ours, theirs = memory_stream_pair()

            async def refuse() -> None:
                await theirs.receive_some()
                await theirs.send_all(b"HTTP/1.1 503 Busy\r\n" + told + b"Content-Length: 0\r\n\r\n")

            nursery.start_soon(refuse)
            return ours

        with pytest.raises(SignalingUnreachable, match="503") as caught:
            async with connect_signaling("ws://server", player(1), rng=random.Random(1), dial=dial):
                pass
        assert not isinstance(caught.value, SignalingBusy)


async def test_many_come_back_at_once_and_all_get_in(autojump_clock: MockClock) -> None:
    """Scaled down: 100 clients of a server that takes 10 handshakes in a second, 20 at once."""
    config = ServerConfig(
        doors=DoorLimits(
            waiting_max=20, waiting_per_address_max=20, hellos_per_s=10, hellos_per_address_per_s=1e6,
            hellos_per_address_burst=1e6, turned_away_max=1_000,
        )
    )  # fmt: skip
    back: list[float] = []
    async with open_network(config) as network, trio.open_nursery() as nursery:
        network.is_up = False

        async def come(number: int) -> None:
            rng = random.Random(number)
            failures = 0
            while True:
                try:
                    async with connect_signaling("ws://server", player(number), rng=rng, dial=network.dial):
                        back.append(trio.current_time() - began)
                        await trio.sleep_forever()
                except SignalingUnreachable:
                    failures += 1
                    await trio.sleep(rng.uniform(0.5, 1) * min(15, 0.25 * 2**failures))

        for number in range(100):
            nursery.start_soon(come, number)
        await trio.sleep(5)
        began, network.is_up = trio.current_time(), True
        await trio.sleep(60)
        assert len(back) == network.server.stats.clients == 100
        assert network.server.stats.turned_away > 50
        assert max(back) < 40
        nursery.cancel_scope.cancel()


async def test_the_next_of_several_servers_is_tried() -> None:
    backplane = MemoryBackplane()
    async with open_server(port=0, backplane=backplane) as one, open_server(port=0, backplane=backplane) as two:
        async with connect_signaling(["ws://127.0.0.1:9", one.url, two.url], player(1), config=QUICK) as a:
            assert a.url == one.url
            await a.join(JoinRequest("r", max_players=7))
            async with connect_signaling(two.url, player(2), config=QUICK) as b:
                await b.join(JoinRequest("r"))
                assert isinstance(await a.next_event(), PeerJoined)
                one.kill()
                with trio.fail_after(20):
                    while not isinstance(restored := await a.next_event(), Restored):
                        pass
                    while (room := (await a.list_rooms()).rooms[0]).players < 2:
                        await trio.sleep(0.05)
                assert a.url == two.url
                assert (restored.rooms[0].room, room.max_players) == ("//r", 7)
    with pytest.raises(InvalidUri):
        async with connect_signaling([], player(1)):
            pass


async def test_the_servers_clock_is_kept_on_the_monotonic_one(autojump_clock: MockClock) -> None:
    async with open_network() as network:
        network.server.wall_ms = lambda: 4_000_000_000_000
        async with network.connect(1) as a:
            told = a.time_ms()
            assert told is not None
            assert told == 4_000_000_000_000
            await trio.sleep(60)
            network.is_up = False
            network.cut()
            await trio.sleep(60)
            assert not a.is_connected
            assert a.time_ms() == 4_000_000_120_000
            network.is_up = True
            network.server.wall_ms = lambda: 5_000_000_000_000
            while not a.is_connected:
                await trio.sleep(0.5)
            assert a.time_ms() in range(5_000_000_000_000, 5_000_000_001_000)
            assert a.signals_per_s == ServerConfig().messages_per_s


def test_a_welcome_of_before_tells_less() -> None:
    old = '{"v":1,"type":"welcome","ref":0,"peer_id":"%s","keepalive_s":10}' % ("a" * 32)
    welcome = m.decode_server_untrusted(old)
    assert isinstance(welcome, m.Welcome)
    assert (welcome.time_ms, welcome.messages_per_s, welcome.burst) == (None, None, None)
