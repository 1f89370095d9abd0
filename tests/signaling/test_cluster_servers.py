"""Servers on real sockets as one, joined by memory and by Redis; and how one of them leaves."""

from __future__ import annotations

import gc
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from psyne_mesh.errors import RoomFull, WouldBlock
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import cluster_messages as c
from psyne_mesh.signaling.backplane import Backplane, BackplaneDown, MemoryBackplane
from psyne_mesh.signaling.client import SignalingClient, connect_signaling
from psyne_mesh.signaling.cluster import ClusterSwitchboard
from psyne_mesh.signaling.cluster_member import ClusterMember
from psyne_mesh.signaling.events import Lost, PeerJoined, PeerLeft, Restored, SignalingEvent, SignalReceived
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.registry import RegistryLimits
from psyne_mesh.signaling.server import SignalingServer, open_server
from psyne_mesh.signaling.switchboard import Switchboard

from .worlds import QUICK, Gate, open_network, player

A, B = (PeerId(digit * 32) for digit in "ab")


@asynccontextmanager
async def cluster(backplane: Backplane, size: int = 3) -> AsyncIterator[list[SignalingServer]]:
    async with trio.open_nursery() as nursery:
        servers: list[SignalingServer] = []

        async def run(task_status: trio.TaskStatus[SignalingServer]) -> None:
            async with open_server(port=0, backplane=backplane) as server:
                task_status.started(server)
                await trio.sleep_forever()

        for _ in range(size):
            servers.append(await nursery.start(run))
        yield servers
        nursery.cancel_scope.cancel()


async def until(client: SignalingClient, kind: type[SignalingEvent]) -> SignalingEvent:
    with trio.fail_after(10):
        while not isinstance(event := await client.next_event(), kind):
            pass
    return event


async def play_across(servers: list[SignalingServer]) -> None:
    """Three players on three servers: meet, signal, fill the room, lose a server, meet again."""
    urls = [server.url for server in servers]
    async with (
        connect_signaling(urls[0], player(1), config=QUICK) as a,
        connect_signaling(urls[1], player(2), config=QUICK) as b,
        connect_signaling(urls[2], player(3), config=QUICK) as outsider,
    ):
        await a.join(JoinRequest("r", max_players=2, metadata={"map": "dust"}))
        joined = await b.join(JoinRequest("r"))
        assert [peer.peer_id for peer in joined.peers] == [a.peer_id]
        assert joined.info.metadata == {"map": "dust"}
        assert isinstance(await until(a, PeerJoined), PeerJoined)
        b.send_signal(a.peer_id, "//r", "offer")
        assert await until(a, SignalReceived) == SignalReceived(b.peer_id, "//r", "offer")
        with pytest.raises(RoomFull):
            await outsider.join(JoinRequest("r"))
        assert [info.players for info in (await outsider.list_rooms()).rooms] == [2]
        await b.leave("//r", record="bye")
        assert await until(a, PeerLeft) == PeerLeft("//r", b.peer_id, "left", "bye")


async def test_servers_joined_by_memory() -> None:
    async with cluster(MemoryBackplane()) as servers:
        assert [server.stats.servers for server in servers] == [3, 3, 3]
        await play_across(servers)
        assert all(server.stats.internal_errors == 0 for server in servers)


async def test_a_server_of_the_cluster_stops_and_its_rooms_go_on_elsewhere() -> None:
    async with (
        cluster(MemoryBackplane()) as servers,
        connect_signaling(servers[0].url, player(1), config=QUICK) as a,
        connect_signaling(servers[1].url, player(2), config=QUICK) as b,
    ):
        cluster_of_first = servers[0]._cluster
        assert cluster_of_first is not None
        last = servers[2]._cluster
        assert last is not None
        room = next(name for name in map(str, range(1000)) if cluster_of_first.keeper_of(f"//{name}") == last.me)
        await a.join(JoinRequest(room, max_players=7))
        await b.join(JoinRequest(room))
        await servers[2].stop()
        for client in (a, b):
            assert isinstance(await until(client, Lost), Lost)
            restored = await until(client, Restored)
            assert isinstance(restored, Restored)
            assert restored.rooms[0].info.max_players == 7
        a.send_signal(b.peer_id, f"//{room}", "still here?")
        assert await until(b, SignalReceived) == SignalReceived(a.peer_id, f"//{room}", "still here?")


async def test_an_ordered_stop_is_told_though_a_guest_does_not_answer(autojump_clock: MockClock) -> None:
    backplane, gate = MemoryBackplane(), Gate()
    async with (
        open_server(port=0, backplane=backplane) as one,
        open_server(port=0, backplane=backplane, config=ServerConfig(public_names=frozenset({"server"}))) as two,
        open_network() as network,
    ):
        network.server = two
        async with network.connect_slowly(1, gate) as mute:
            await mute.join(JoinRequest("r"))
            assert one.stats.servers == 2
            gate.shut()
            network.is_up = False
            await two.stop()
            await wait_all_tasks_blocked()
            assert one.stats.servers == 1


class SlowLink:
    """A backplane that takes its time over each payload."""

    def __init__(self) -> None:
        self.said: list[c.AnyClusterMessage] = []

    async def publish(self, to: str | None, payload: bytes) -> None:
        await trio.sleep(0.01)
        self.said += c.decode_untrusted(payload)

    async def receive(self) -> bytes:
        await trio.sleep_forever()
        raise AssertionError


async def test_the_goodbye_of_a_server_is_its_last_word(autojump_clock: MockClock) -> None:
    switchboard, link = ClusterSwitchboard("x", Switchboard(RegistryLimits())), SlowLink()
    member = ClusterMember(switchboard, link, lambda: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(member.run)
        for _ in range(20):
            switchboard.depart(A, "lost", 0)
        member.flush()
        nursery.start_soon(member.leave)
        await wait_all_tasks_blocked()
        switchboard.depart(B, "lost", 0)  # a guest that was slow to go
        member.flush()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [type(message) for message in link.said[-21:]] == [c.Departed] * 20 + [c.Stopping]
    assert member.dropped == 0


async def test_a_backplane_that_hangs_does_not_hold_up_the_end(autojump_clock: MockClock) -> None:
    class HungLink(SlowLink):
        async def publish(self, to: str | None, payload: bytes) -> None:
            await trio.sleep_forever()

    member = ClusterMember(ClusterSwitchboard("x", Switchboard(RegistryLimits())), HungLink(), lambda: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(member.run)
        with trio.fail_after(10):
            await member.leave()
        nursery.cancel_scope.cancel()


async def test_an_identity_that_moves_to_another_server_supersedes_itself() -> None:
    async with (
        cluster(MemoryBackplane(), 2) as servers,
        connect_signaling(servers[0].url, player(1), config=QUICK) as old,
        connect_signaling(servers[1].url, player(1), config=QUICK) as new,
    ):
        lost = await until(old, Lost)
        assert isinstance(lost, Lost)
        assert not lost.retrying
        assert (await new.join(JoinRequest("r"))).created


# coredis leaves the channels of a connection that broke to the garbage collector, which complains.
calm = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")


@pytest.fixture
def swept() -> Iterator[None]:
    yield
    gc.collect()


needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


class Redis:
    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._directory = directory
        self.url = f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]
        self._process = await trio.to_thread.run_sync(
            partial(subprocess.Popen, command, cwd=self._directory, stdout=subprocess.DEVNULL)
        )
        with trio.fail_after(10):
            while True:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", self.port)
                except OSError:
                    await trio.sleep(0.02)
                else:
                    await stream.aclose()
                    return

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.mark.slow
@needs_redis
@calm
async def test_servers_joined_by_redis_through_its_restart(tmp_path: Path, swept: None) -> None:
    from psyne_mesh.signaling.redis_backplane import RedisBackplane

    redis = Redis(tmp_path)
    await redis.start()
    try:
        async with cluster(RedisBackplane(redis.url)) as servers:
            assert [server.stats.servers for server in servers] == [3, 3, 3]
            await play_across(servers)
            redis.stop()
            with trio.fail_after(120):
                while any(server.stats.servers > 1 for server in servers):
                    await trio.sleep(0.1)
                async with connect_signaling(servers[0].url, player(9), config=QUICK) as alone:
                    assert (await alone.join(JoinRequest("alone"))).created, "a server without the others still serves"
                await redis.start()
                while any(server.stats.servers < 3 for server in servers):
                    await trio.sleep(0.1)
            await play_across(servers)
            assert all(server.stats.internal_errors == 0 for server in servers)
    finally:
        redis.stop()


@needs_redis
@calm
async def test_two_clusters_in_one_redis_do_not_meet(tmp_path: Path, swept: None) -> None:
    from psyne_mesh.signaling.redis_backplane import RedisBackplane

    redis = Redis(tmp_path)
    await redis.start()
    try:
        one, two = RedisBackplane(redis.url, prefix="one"), RedisBackplane(redis.url, prefix="two")
        async with cluster(one, 2) as ones, cluster(two, 1) as twos:
            assert [server.stats.servers for server in [*ones, *twos]] == [2, 2, 1]
    finally:
        redis.stop()


@calm
async def test_no_redis_is_named_without_the_password(swept: None) -> None:
    from psyne_mesh.signaling.redis_backplane import RedisBackplane

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(BackplaneDown, match=f"no Redis at redis://127.0.0.1:{port}") as caught:
        async with open_server(port=0, backplane=RedisBackplane(f"redis://user:secret@127.0.0.1:{port}")):
            pass
    assert "secret" not in str(caught.value)


async def test_a_killed_server_of_a_cluster_ends_at_once(autojump_clock: MockClock) -> None:
    async with open_server(port=0, backplane=MemoryBackplane()) as server:
        await trio.sleep(1)
        server.kill()
        began = trio.current_time()
    assert trio.current_time() == began


async def test_who_is_superseded_is_told_so_while_much_is_sent_to_it() -> None:
    """A send that was cancelled before its first byte is no half of a frame: a goodbye can follow."""
    async with open_server(port=0) as server, trio.open_nursery() as nursery:

        async def flood(number: int) -> None:
            async with connect_signaling(server.url, player(number)) as mate:
                await mate.join(JoinRequest("r"))
                while True:
                    with suppress(WouldBlock):  # a busy server reads more slowly; so much is sent as it takes
                        for _ in range(10):
                            mate.send_signal(player(1).peer_id, "//r", "x" * 300)
                    await trio.sleep(0.1)

        for number in range(10, 20):
            nursery.start_soon(flood, number)
        for _ in range(10):
            async with connect_signaling(server.url, player(1)) as old:
                await old.join(JoinRequest("r"))
                await trio.sleep(0.1)
                async with connect_signaling(server.url, player(1)):
                    lost = await until(old, Lost)
                    assert isinstance(lost, Lost)
                    assert not lost.retrying, lost.cause
        nursery.cancel_scope.cancel()
