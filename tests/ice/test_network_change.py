"""This machine moves to another network: who notices, how soon, and what becomes of what was there."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.streams import forget_unsent, has_lost_its_address, open_tcp
from psyne_mesh.webrtc.ice import interfaces as watching
from psyne_mesh.webrtc.ice import open_gateway
from psyne_mesh.webrtc.ice.interfaces import (
    POLL_S,
    SETTLE_S,
    lasting_addresses,
    list_interfaces,
    watch_addresses,
    ways_out,
)

WIFI, MOBILE = ("wlan0", "192.0.2.10"), ("wwan0", "198.51.100.7")


class Machine:
    """Its addresses, and what the watch said about them."""

    def __init__(self) -> None:
        self.interfaces = [("lo", "127.0.0.1"), WIFI]
        self.way_out = WIFI[1]
        self.told: list[tuple[float, bool]] = []

    def addresses(self) -> frozenset[str]:
        return lasting_addresses(self.interfaces, WebRTCConfig())

    def ways(self) -> frozenset[str]:
        return frozenset([self.way_out])

    def changed(self, gone: bool) -> None:
        self.told.append((trio.current_time(), gone))


@asynccontextmanager
async def watched(news: socket.socket | None) -> AsyncIterator[Machine]:
    machine = Machine()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: watch_addresses(machine.addresses, machine.changed, news=lambda: news, ways=machine.ways)
        )
        await trio.sleep(0.01)
        yield machine
        nursery.cancel_scope.cancel()


async def test_without_news_the_addresses_are_compared_now_and_then(autojump_clock: MockClock) -> None:
    async with watched(None) as machine:
        await trio.sleep(10 * POLL_S)
        assert machine.told == []
        for present, gone in (([WIFI, MOBILE], False), ([MOBILE], True), ([], True), ([WIFI], False)):
            machine.interfaces = present
            since = trio.current_time()
            await trio.sleep(2 * POLL_S)
            ((at, said),) = machine.told
            assert (at - since <= POLL_S, said) == (True, gone)
            machine.told.clear()


async def test_a_tunnel_that_takes_the_route_is_as_good_as_a_move(autojump_clock: MockClock) -> None:
    """The old address stays, and nothing leads out from it any more; nor from the tunnel's, when that goes again."""
    async with watched(None) as machine:
        tunnel = ("tun0", "10.8.0.2")
        machine.interfaces.append(tunnel)
        await trio.sleep(2 * POLL_S)  # an address comes before its route
        machine.way_out = tunnel[1]
        await trio.sleep(2 * POLL_S)
        machine.way_out = WIFI[1]
        await trio.sleep(2 * POLL_S)
        assert [gone for _, gone in machine.told] == [False, True, True]


def test_the_way_out_is_an_address_of_this_machine() -> None:
    assert ways_out() <= {address for _, address in list_interfaces()}


async def test_news_are_looked_into_at_once_and_only_then() -> None:
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    async with watched(ours) as machine:
        kernels.send(b"about something else")
        await trio.sleep(2 * SETTLE_S)
        assert machine.told == []
        machine.interfaces = [MOBILE]
        for _ in range(5):  # an address goes, another comes, routes follow
            kernels.send(b"news")
        with trio.fail_after(30):
            while not machine.told:
                await trio.sleep(0.01)
        await trio.sleep(2 * SETTLE_S)
        assert [gone for _, gone in machine.told] == [True]
    assert ours.fileno() == -1  # nothing is left open
    kernels.close()


def test_containers_and_loopback_come_and_go_without_consequence() -> None:
    machine = Machine()
    before = machine.addresses()
    machine.interfaces += [("docker0", "172.17.0.1"), ("veth12", "10.1.1.1"), ("lo", "::1"), ("wlan0", "fe80::1")]
    assert machine.addresses() == before == {WIFI[1]}


async def test_an_endpoint_offers_what_is_there_now(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    monkeypatch.setattr(watching, "_open_kernel_news", lambda: None)
    machine = Machine()
    config = WebRTCConfig(use_ipv6=False, include_loopback=False)
    async with open_gateway(config, interfaces=lambda: machine.interfaces) as gateway:
        told: list[bool] = []
        gateway.on_network_change.append(told.append)
        assert [found.address[0] for found, _ in gateway.found] == [WIFI[1]]
        await trio.sleep(POLL_S / 2)
        machine.interfaces = [MOBILE]
        await trio.sleep(2 * POLL_S)
        assert told == [True]
        assert [found.address[0] for found, _ in gateway.found] == [MOBILE[1]]
        with trio.fail_after(30):
            while not gateway.gathered:
                await trio.sleep(0.1)


async def test_a_stream_knows_when_its_address_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()[:2]) as stream:
        assert not has_lost_its_address(stream)
        monkeypatch.setattr(stream.socket, "getsockname", lambda: ("192.0.2.77", 1))  # nobody here has that
        assert has_lost_its_address(stream)
    other_end, _ = trio.testing.memory_stream_pair()
    assert not has_lost_its_address(other_end)
    forget_unsent(other_end)


async def test_a_stream_knows_when_another_address_leads_to_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()[:2]) as stream:
        monkeypatch.setattr(
            stream.socket, "getsockname", lambda: ("127.0.0.2", 1)
        )  # of this machine, and not the route's
        assert has_lost_its_address(stream) == (sys.platform == "linux")  # elsewhere it has no such address at all


@pytest.mark.skipif(sys.platform == "win32", reason="NO SMALL SEGMENTS: Windows has no TCP_MAXSEG")
async def test_segments_are_so_small_that_every_path_carries_them() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    host, port = listener.socket.getsockname()[:2]
    async with listener, await open_tcp(host, port) as stream, await listener.accept() as other_end:
        for end in (stream, other_end):
            assert 0 < end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 536
        await stream.send_all(b"x" * 10_000)
        assert await other_end.receive_some(1) == b"x"


async def test_the_next_address_of_a_name_is_tried_beside_a_silent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    full = trio.socket.socket()
    await full.bind(("127.0.0.1", 0))  # it does not listen: refused

    async def found(host: str, port: int, type: int) -> list[Any]:
        return [(socket.AF_INET, type, 0, "", one) for one in (full.getsockname(), ("127.0.0.1", port))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", found)
    with full:
        async with listener, await open_tcp("game.example", port) as stream:
            assert stream.socket.getpeername() == ("127.0.0.1", port)
        with pytest.raises(OSError, match=r"no address of 'game.example'"):
            await open_tcp("game.example", port)


async def test_a_forgotten_stream_ends_with_a_reset() -> None:
    """The kernel repeats nothing after the close: what it held is gone with the connection."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        stream = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        async with await listener.accept() as other_end:
            forget_unsent(stream)
            await trio.aclose_forcefully(stream)
            with pytest.raises(trio.BrokenResourceError):
                await other_end.receive_some(1)
    forget_unsent(stream)  # closed: nothing happens


async def test_where_the_news_end_the_addresses_are_compared_instead() -> None:
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    async with watched(ours) as machine:
        kernels.close()
        machine.interfaces = [MOBILE]
        with trio.fail_after(30):
            while not machine.told:
                await trio.sleep(0.01)
        assert ours.fileno() == -1
        machine.interfaces = [WIFI]
        with trio.fail_after(30):
            while len(machine.told) < 2:
                await trio.sleep(0.01)
