"""Two peers on real sockets of this machine: they connect, strangers shout, and nothing is left behind."""

from __future__ import annotations

import gc
import random
import socket
import struct
import threading
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
import trio
from aioice import stun

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import ClosedError
from psyne_mesh.webrtc.ice import (
    IceGateway,
    PathSelected,
    open_gateway,
)
from psyne_mesh.webrtc.ice.events import Address
from tests.ice.helpers import (
    DATA,
    LOOPBACK,
    A,
    Side,
    exchange,
    introduce,
    open_pair,
    selected,
)


def address_of(gateway: IceGateway) -> Address:
    return gateway.port.bases[0].address


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
    assert threading.active_count() <= before_threads


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
