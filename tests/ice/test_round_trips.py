"""How far the servers of regions are: on a virtual network, and over real sockets."""

from __future__ import annotations

import pytest
import trio
from aioice import stun
from trio.testing import MockClock

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.identity import Identity
from psyne_mesh.room.options import lobby_entry
from psyne_mesh.signaling import ServerConfig, open_server
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.testing import Quality, open_world
from psyne_mesh.testing.network import STUN_ADDRESS, STUN_OTHER_ADDRESS
from psyne_mesh.testing.world import open_network
from psyne_mesh.webrtc.ice.round_trips import PATIENCE_S, round_trips_ms

HERE = f"{STUN_ADDRESS[0]}:{STUN_ADDRESS[1]}"
THERE = f"{STUN_OTHER_ADDRESS[0]}:{STUN_OTHER_ADDRESS[1]}"
NOBODY = "203.0.113.99:3478"


async def test_regions_are_measured_at_once_and_the_silent_are_left_out(autojump_clock: MockClock) -> None:
    async with open_network(seed=1, quality=Quality(latency_s=0.04)) as net:
        host = net.host("ada")
        began = trio.current_time()
        measured = await round_trips_ms({"eu": HERE, "us": THERE, "mars": NOBODY}, host.config, host.sockets)
        assert trio.current_time() - began == pytest.approx(PATIENCE_S)
        assert measured == pytest.approx({"eu": 40, "us": 40}, abs=1)
        began = trio.current_time()
        assert await round_trips_ms({"eu": HERE}, host.config, host.sockets) == pytest.approx({"eu": 40}, abs=1)
        assert trio.current_time() - began <= 0.2, "nobody is waited for who has answered"
        assert await round_trips_ms({"eu": "not:a:server:at:all"}, host.config, host.sockets) == {}


async def test_a_server_that_is_too_far_counts_as_unknown(autojump_clock: MockClock) -> None:
    async with open_network(seed=1, quality=Quality(latency_s=2 * PATIENCE_S)) as net:
        host = net.host("ada")
        assert await round_trips_ms({"eu": HERE}, host.config, host.sockets) == {}


async def test_a_stun_server_of_the_kernels_sockets_is_measured() -> None:
    """Real datagrams; an answer from elsewhere, and garbage, count for nothing."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as server:
        await server.bind(("127.0.0.1", 0))

        async def answer() -> None:
            while True:
                data, source = await server.recvfrom(2048)
                request = stun.parse_message(data)
                await server.sendto(b"garbage", source)
                reply = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=request.transaction_id)
                reply.attributes["XOR-MAPPED-ADDRESS"] = source
                await server.sendto(bytes(reply), source)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            host, port = server.getsockname()
            config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
            measured = await round_trips_ms({"here": f"{host}:{port}", "gone": "127.0.0.1:9"}, config)
            nursery.cancel_scope.cancel()
    assert measured.keys() == {"here"}
    assert 0 < measured["here"] < 1000 * PATIENCE_S


async def test_a_player_comes_into_the_nearest_region(autojump_clock: MockClock) -> None:
    """Rooms of two regions: the fuller one is of a region of which nobody knows how far it is."""
    async with open_world(seed=1, quality=Quality(latency_s=0.04)) as world:
        world.hub.regions = {"eu": HERE, "mars": NOBODY}
        for number in range(3):
            await world.join("arena", f"m{number}", region="mars")
        eu = await world.join("arena", "e0", region="eu")
        lost = await world.join("arena", "ada", region="us")
        assert lost.code == eu.code
        told = await world.join("arena", "bob", region="us", region_rtt_ms={"mars": 10.0})
        assert told.region == "mars", "a game that says how far regions are is believed"


async def test_a_server_tells_its_regions() -> None:
    config = ServerConfig(regions={"eu": "stun.eu.example:3478"})
    async with open_server(port=0, config=config) as server, connect_signaling(server.url, Identity.generate()) as one:
        assert dict(one.regions) == {"eu": "stun.eu.example:3478"}
    with pytest.raises(InvalidConfig):
        ServerConfig(regions={"eu": "stun:a:b:c"})
    with pytest.raises(InvalidConfig):
        ServerConfig(regions={str(number): "stun.example" for number in range(33)})
    assert lobby_entry("arena").which is not None
