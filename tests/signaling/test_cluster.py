"""Several servers as one: first pure, on a wire in a list; then servers on real sockets, joined by memory and by Redis."""

from __future__ import annotations

import gc
import random
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError, RoomFull
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import cluster_messages as c
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.backplane import Backplane, BackplaneDown, MemoryBackplane
from psyne_mesh.signaling.client import SignalingClient, connect_signaling
from psyne_mesh.signaling.cluster import SILENCE_S, ClusterSwitchboard
from psyne_mesh.signaling.events import Lost, PeerJoined, PeerLeft, Restored, SignalingEvent, SignalReceived
from psyne_mesh.signaling.registry import RegistryLimits
from psyne_mesh.signaling.server import SignalingServer, open_server
from psyne_mesh.signaling.switchboard import Switchboard

from .worlds import QUICK, player

A, B, C = (PeerId(digit * 32) for digit in "abc")


class World:
    """Servers by name, a wire that carries in order, and what each client was told."""

    def __init__(self, names: str = "xyz") -> None:
        self.now = 0.0
        self.servers: dict[str, ClusterSwitchboard] = {}
        self.homes: dict[PeerId, str] = {}
        self.told: dict[PeerId, list[m.Message]] = {}
        self.sent_away: list[tuple[PeerId, bool]] = []
        self.cut: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self.servers[name] = ClusterSwitchboard(name, Switchboard(RegistryLimits()))
        self.servers[name].start()
        self.run()

    def connect(self, peer: PeerId, server: str) -> None:
        self.homes[peer] = server
        self.told.setdefault(peer, [])
        self.servers[server].arrive(peer)
        self.run()

    def say(self, peer: PeerId, message: m.ClientMessage) -> list[m.Message]:
        """What the peer is told until the wire is quiet."""
        before = len(self.told[peer])
        self.servers[self.homes[peer]].receive(peer, message, self.now)
        self.run()
        return self.told[peer][before:]

    def leave_server(self, peer: PeerId, reason: str = "lost") -> None:
        self.servers[self.homes.pop(peer)].depart(peer, reason, self.now)
        self.run()

    def kill(self, name: str) -> None:
        del self.servers[name]
        self.homes = {peer: home for peer, home in self.homes.items() if home != name}

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            for server in self.servers.values():
                server.tick(self.now)
            self.run()

    def run(self) -> None:
        wire: list[tuple[str, str | None, bytes]] = []
        while True:
            for name, server in self.servers.items():
                wire += [(name, to, payload) for to, payload in server.take_wire()]
                for delivery in server.take_outputs():
                    for peer in delivery.peers:
                        if self.homes.get(peer) == name:
                            self.told[peer].append(delivery.message)
                for dismissal in server.take_dismissals():
                    self.sent_away.append((dismissal.peer, dismissal.superseded))
            if not wire:
                return
            sender, to, payload = wire.pop(0)
            for name, server in self.servers.items():
                if to in (None, name) and not self.cut & {sender, name}:
                    server.receive_wire(payload, self.now)


def join(room: str = "r", **fields: object) -> m.Join:
    return m.Join(**{"ref": 1, "room": room, **fields})  # type: ignore[arg-type]


def room_kept_by(world: World, name: str) -> str:
    server = next(iter(world.servers.values()))
    return next(room for room in map(str, range(1000)) if server.keeper_of(f"//{room}") == name)


def test_everybody_knows_everybody_and_agrees_who_keeps_what() -> None:
    world = World("wxyz")
    keepers = set()
    for server in world.servers.values():
        assert server.servers == ["w", "x", "y", "z"]
    for number in range(100):
        agreed = {server.keeper_of(f"//{number}") for server in world.servers.values()}
        assert len(agreed) == 1
        keepers |= agreed
    assert keepers == set("wxyz")


@pytest.mark.parametrize("keeper", "xyz")
def test_players_of_different_servers_meet(keeper: str) -> None:
    world = World("xyz")
    room = room_kept_by(world, keeper)
    world.connect(A, "x")
    world.connect(B, "y")
    (joined,) = world.say(A, join(room, record="ra"))
    assert isinstance(joined, m.JoinedRoom)
    (joined,) = world.say(B, join(room, record="rb"))
    assert isinstance(joined, m.JoinedRoom)
    assert [(p.peer_id, p.record) for p in joined.peers] == [(A, "ra")]
    assert isinstance(world.told[A][-1], m.MemberJoined)
    assert world.say(A, m.Signal(to=B, room=f"//{room}", envelope="offer")) == []
    assert world.told[B][-1] == m.SignalFrom(sender=A, room=f"//{room}", envelope="offer")
    (left,) = world.say(B, m.Leave(ref=2, room=f"//{room}"))
    assert left == m.LeftRoom(ref=2, room=f"//{room}")
    assert world.told[A][-1] == m.MemberLeft(room=f"//{room}", peer_id=B, reason="left")


def test_refusals_and_pongs_find_their_way() -> None:
    world = World("xyz")
    for keeper in "xyz":
        world.connect(A, "x")
        room = room_kept_by(world, keeper)
        (refusal,) = world.say(A, join(room, ref=7, create="never"))
        assert isinstance(refusal, m.Error)
        assert (refusal.code, refusal.ref) == ("room_not_found", 7)
    assert world.say(A, m.Ping(ref=3)) == [m.Pong(ref=3)]


def test_lists_are_gathered_from_all() -> None:
    world = World("xyz")
    world.connect(A, "x")
    rooms = [room_kept_by(world, keeper) for keeper in "xyz"]
    for room in rooms:
        world.say(A, join(room))
    (listing,) = world.say(A, m.ListRooms(ref=9))
    assert isinstance(listing, m.RoomList)
    assert listing.ref == 9
    assert {info.name for info in listing.rooms} == set(rooms)
    (listing,) = world.say(A, m.ListRooms(ref=9, limit=2))
    assert isinstance(listing, m.RoomList)
    assert (len(listing.rooms), listing.truncated) == (2, True)


def test_a_list_does_not_wait_for_the_dead() -> None:
    world = World("xyz")
    world.connect(A, "x")
    world.kill("z")
    assert world.say(A, m.ListRooms(ref=9)) == []
    world.pass_time(2)
    assert isinstance(world.told[A][-1], m.RoomList)


def test_a_connection_that_ends_is_a_departure_everywhere() -> None:
    world = World("xyz")
    for peer, home in ((A, "x"), (B, "y")):
        world.connect(peer, home)
        for keeper in "xyz":
            world.say(peer, join(room_kept_by(world, keeper)))
    world.leave_server(B)
    departures = [message for message in world.told[A] if isinstance(message, m.MemberLeft)]
    assert len(departures) == 3
    assert {departure.reason for departure in departures} == {"lost"}


def test_the_newest_connection_wins_across_servers() -> None:
    world = World("xyz")
    room = room_kept_by(world, "z")
    world.connect(A, "x")
    world.connect(B, "x")
    world.say(A, join(room))
    world.say(B, join(room))
    world.connect(B, "y")
    assert world.sent_away == [(B, True)]
    world.say(B, join(room))
    world.servers["x"].depart(B, "superseded", world.now)
    world.run()
    news = [message for message in world.told[A] if isinstance(message, m.MemberLeft | m.MemberJoined)]
    assert [type(message) for message in news] == [m.MemberJoined, m.MemberLeft, m.MemberJoined]
    assert isinstance(news[1], m.MemberLeft)
    assert news[1].reason == "superseded"
    world.say(A, m.Signal(to=B, room=f"//{room}", envelope="hello"))
    assert world.told[B][-1] == m.SignalFrom(sender=A, room=f"//{room}", envelope="hello")


def test_the_rooms_of_a_dead_server_move_and_its_players_are_gone() -> None:
    world = World("xyz")
    room_z, room_x = room_kept_by(world, "z"), room_kept_by(world, "x")
    world.connect(A, "x")
    world.connect(B, "z")
    for peer in (A, B):
        world.say(peer, join(room_z))
        world.say(peer, join(room_x))
    world.kill("z")
    world.pass_time(SILENCE_S + 1)
    assert world.told[A][-1] == m.MemberLeft(room=f"//{room_x}", peer_id=B, reason="lost")
    assert (A, False) in world.sent_away, "its room has a new keeper"
    assert all(server.servers == ["x", "y"] for server in world.servers.values())


def test_a_server_that_stops_is_gone_at_once() -> None:
    world = World("xy")
    world.servers["y"].stop()
    world.run()
    assert world.servers["x"].servers == ["x"]


def test_when_a_server_comes_only_its_rooms_move() -> None:
    world = World("x")
    peers = [PeerId(f"{number:032x}") for number in range(60)]
    for number, peer in enumerate(peers):
        world.connect(peer, "x")
        world.say(peer, join(str(number)))
    world.add("y")
    moved = {peer for peer, _ in world.sent_away}
    expected = {peer for n, peer in enumerate(peers) if world.servers["x"].keeper_of(f"//{n}") == "y"}
    assert moved == expected
    assert 10 < len(moved) < 50


def test_servers_cut_apart_go_on_alone_and_find_each_other_again() -> None:
    world = World("xy")
    world.cut = {"y"}
    world.pass_time(SILENCE_S + 1)
    assert [server.servers for server in world.servers.values()] == [["x"], ["y"]]
    world.connect(A, "x")
    world.connect(B, "y")
    assert isinstance(world.say(A, join())[0], m.JoinedRoom)
    assert isinstance(world.say(B, join())[0], m.JoinedRoom)
    world.cut = set()
    world.pass_time(1)
    keeper = world.servers["x"].keeper_of("//r")
    assert [peer for peer, _ in world.sent_away] == [B if keeper == "x" else A], "who was in the wrong place"


def test_nothing_is_remembered_of_players_who_are_gone() -> None:
    world = World("xyz")
    for number in range(50):
        peer = PeerId(f"{number:032x}")
        world.connect(peer, "xyz"[number % 3])
        world.say(peer, join(str(number)))
        world.say(peer, join("nowhere", create="never"))
        world.leave_server(peer)
    for server in world.servers.values():
        assert not server._homes
        assert not server._kept_by
        assert not server._gathers


@given(st.integers(0, 2**32))
def test_a_cluster_behaves_as_one_server(seed: int) -> None:
    """The same random story told to three servers and to one: every player hears the same in the same order."""
    rng = random.Random(seed)
    world, alone = World("xyz"), Switchboard(RegistryLimits())
    peers = [PeerId(f"{number:032x}") for number in range(5)]
    heard: dict[PeerId, list[m.Message]] = {peer: [] for peer in peers}
    for peer in peers:
        world.connect(peer, rng.choice("xyz"))
    for _ in range(40):
        peer, room = rng.choice(peers), f"//{rng.randrange(3)}"
        choices: list[m.ClientMessage] = [
            join(room[2:], max_players=3, create=rng.choice(["or", "only", "never"])),
            m.Leave(ref=1, room=room),
            m.Signal(to=rng.choice(peers), room=room, envelope="e"),
        ]
        message = rng.choice(choices)
        world.say(peer, message)
        alone.receive(peer, message, world.now)
        for delivery in alone.take_outputs():
            for listener in delivery.peers:
                heard[listener].append(delivery.message)
    assert world.told == heard


@given(st.binary(max_size=200))
def test_garbage_on_the_wire_is_counted_and_dropped(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        c.decode_untrusted(payload)
    server = World("x").servers["x"]
    server.receive_wire(payload, 0)
    server.receive_wire(c.encode(c.Forward(sender="y", peer=str(A), frame="nonsense")), 0)
    server.receive_wire(c.encode(c.Deliver(sender="y", peers=[str(A)], frame='{"v":2,"type":"x"}')), 0)
    server.receive_wire(bytes(c._MAX_BYTES + 1), 0)
    assert server.garbage == 4
    assert server.take_outputs() == []


# --------------------------------------------------------------------------------------------------------- with sockets


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
        await a.join("r", max_players=2, metadata={"map": "dust"})
        joined = await b.join("r")
        assert [peer.peer_id for peer in joined.peers] == [a.peer_id]
        assert joined.info.metadata == {"map": "dust"}
        assert isinstance(await until(a, PeerJoined), PeerJoined)
        b.send_signal(a.peer_id, "//r", "offer")
        assert await until(a, SignalReceived) == SignalReceived(b.peer_id, "//r", "offer")
        with pytest.raises(RoomFull):
            await outsider.join("r")
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
        await a.join(room, max_players=7)
        await b.join(room)
        await servers[2].stop()
        for client in (a, b):
            assert isinstance(await until(client, Lost), Lost)
            restored = await until(client, Restored)
            assert isinstance(restored, Restored)
            assert restored.rooms[0].info.max_players == 7
        a.send_signal(b.peer_id, f"//{room}", "still here?")
        assert await until(b, SignalReceived) == SignalReceived(a.peer_id, f"//{room}", "still here?")


async def test_an_identity_that_moves_to_another_server_supersedes_itself() -> None:
    async with (
        cluster(MemoryBackplane(), 2) as servers,
        connect_signaling(servers[0].url, player(1), config=QUICK) as old,
        connect_signaling(servers[1].url, player(1), config=QUICK) as new,
    ):
        lost = await until(old, Lost)
        assert isinstance(lost, Lost)
        assert not lost.retrying
        assert (await new.join("r")).created


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
                    assert (await alone.join("alone")).created, "a server without the others still serves"
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
