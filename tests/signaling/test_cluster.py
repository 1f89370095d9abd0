"""Several servers as one, pure: on a wire in a list. `test_cluster_servers.py` has real ones."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import cluster_messages as c
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.cluster import SILENCE_S, ClusterSwitchboard, Dismissal
from psyne_mesh.signaling.registry import RegistryLimits
from psyne_mesh.signaling.switchboard import Switchboard

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
        self.deaf: set[str] = set()  # nothing reaches these, though they are heard
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self.servers[name] = ClusterSwitchboard(name, Switchboard(RegistryLimits()))
        self.servers[name].start(self.now)
        self.run()

    def connect(self, peer: PeerId, server: str) -> None:
        self.homes[peer] = server
        self.told.setdefault(peer, [])
        self.servers[server].arrive(peer, self.now)
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
                if to in (None, name) and not self.cut & {sender, name} and name not in self.deaf:
                    server.receive_wire(payload, self.now)


def join(room: str = "r", **fields: object) -> m.Join:
    return m.Join(**{"ref": 1, "name": room, **fields})  # type: ignore[arg-type]


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


def test_a_join_whose_keeper_died_ends_with_it() -> None:
    world = World("xyz")
    room = room_kept_by(world, "z")
    world.connect(A, "x")
    world.connect(B, "x")
    (refusal,) = world.say(B, join(room, create="never"))
    assert isinstance(refusal, m.Error)
    world.kill("z")
    assert world.say(A, join(room)) == []
    world.pass_time(SILENCE_S + 1)
    assert set(world.sent_away) == {(A, False)}, "B has its answer"


def test_who_gave_a_join_up_is_not_sent_away_for_it() -> None:
    world = World("xyz")
    room = room_kept_by(world, "z")
    world.connect(A, "x")
    world.say(A, join(room_kept_by(world, "x"), ref=1))
    world.servers["x"].receive(A, join(room, ref=2), world.now)
    world.servers["x"].take_wire()  # lost on the backplane
    world.pass_time(10)
    world.say(A, m.Leave(ref=3, room=f"//{room}"))
    world.pass_time(600)
    world.servers["z"].stop()
    world.run()
    assert not world.sent_away


def test_a_join_that_crosses_a_new_keeper_is_made_again() -> None:
    """The old keeper answers it when everybody else already goes to the new one: nobody would be in that room."""
    after = World("xyz").servers["y"]
    world = World("xy")
    room = next(
        name for name in map(str, range(1000))
        if world.servers["y"].keeper_of(f"//{name}") == "x" and after.keeper_of(f"//{name}") == "z"
    )  # fmt: skip
    world.connect(A, "y")
    world.servers["y"].receive(A, join(room), world.now)
    world.add("z")
    assert (A, False) in world.sent_away
    answer = world.told[A][-1]
    assert isinstance(answer, m.JoinedRoom)

    world.sent_away.clear()
    world.connect(A, "y")
    late = c.Deliver(sender="x", peers=[A], frame=m.encode(answer))
    world.servers["y"].receive_wire(c.encode(late), world.now)
    world.run()
    assert world.sent_away == [(A, False)], "however it came to pass"


def test_only_so_many_joins_of_a_client_are_watched_over() -> None:
    world = World("xy")
    world.connect(A, "x")
    room = room_kept_by(world, "y")
    for ref in range(1_000):
        world.servers["x"].receive(A, join(room, ref=ref), world.now)
    assert len(world.servers["x"]._joining[A]) < 100
    world.run()
    assert not world.servers["x"]._joining[A]


class HeldBack:
    """Two servers whose clocks began at other moments, and a wire that holds back what "y" says until it is let go."""

    def __init__(self) -> None:
        self.now = 0.0
        self.y_slept_s = 0
        self.x, self.y = (ClusterSwitchboard(name, Switchboard(RegistryLimits())) for name in "xy")
        self.held: list[bytes] = []
        self.room = room_kept_by(World("xy"), "x")
        self.x.start(self.now)
        self.y.start(self.clock_of(self.y))
        self.pass_time(5)

    def clock_of(self, server: ClusterSwitchboard) -> float:
        return self.now + (0 if server is self.x else 1e6 - self.y_slept_s)

    def pass_time(self, seconds: int, *, is_held: bool = False) -> None:
        for _ in range(seconds):
            self.now += 1
            for server in (self.x, self.y):
                server.tick(self.clock_of(server))
            self.held += [payload for _, payload in self.y.take_wire()]
            if not is_held:
                self.let_go()

    def let_go(self) -> None:
        while self.held or (self.x._wire or self.y._wire):
            for payload in [*self.held, *(payload for _, payload in self.y.take_wire())]:
                self.x.receive_wire(payload, self.clock_of(self.x))
            self.held.clear()
            for _, payload in self.x.take_wire():
                self.y.receive_wire(payload, self.clock_of(self.y))


def test_old_news_of_an_arrival_sends_nobody_away() -> None:
    """The player was at y for a moment, then came to x and stays; meanwhile the backplane hung."""
    cluster = HeldBack()
    cluster.y.arrive(A, cluster.clock_of(cluster.y))
    cluster.y.receive(A, join(cluster.room), cluster.clock_of(cluster.y))
    cluster.pass_time(1, is_held=True)
    cluster.y.depart(A, "lost", cluster.clock_of(cluster.y))
    cluster.x.arrive(A, cluster.clock_of(cluster.x))
    cluster.x.receive(A, join(cluster.room), cluster.clock_of(cluster.x))
    cluster.pass_time(6, is_held=True)
    cluster.let_go()
    assert Dismissal(A, superseded=True) not in cluster.x.take_dismissals()
    assert cluster.x._switchboard.registry.is_member(A, f"//{cluster.room}"), "nor out of its rooms"


@pytest.mark.parametrize("departs_unheard", [False, True])
def test_the_newest_connection_wins_however_late_the_news(departs_unheard: bool) -> None:
    """y does not know that the connection there is dead, or that there is a newer one."""
    cluster = HeldBack()
    cluster.y.arrive(A, cluster.clock_of(cluster.y))
    cluster.pass_time(1, is_held=True)
    cluster.x.arrive(A, cluster.clock_of(cluster.x))
    if departs_unheard:
        cluster.x.take_wire()
    cluster.pass_time(2, is_held=True)
    cluster.let_go()
    assert cluster.x.take_dismissals() == []
    assert set(cluster.y.take_dismissals()) == {Dismissal(A, superseded=True)}


def test_a_server_whose_clock_stood_still_is_soon_believed_again() -> None:
    """Its machine slept: what it says happened now would seem older than the sleep."""
    cluster = HeldBack()
    cluster.pass_time(30, is_held=True)
    cluster.held.clear()
    cluster.y_slept_s = 30
    cluster.x.arrive(A, cluster.clock_of(cluster.x))
    cluster.pass_time(10)
    cluster.x.take_dismissals()
    cluster.y.arrive(A, cluster.clock_of(cluster.y))
    cluster.pass_time(1)
    assert cluster.x.take_dismissals() == [Dismissal(A, superseded=True)]


def test_servers_that_do_not_tell_their_clocks_are_believed() -> None:
    world = World("x")
    world.connect(A, "x")
    for news in (c.Alive(sender="old"), c.Arrived(sender="old", peer=A)):
        world.servers["x"].receive_wire(c.encode(news), world.now)
    world.run()
    assert world.sent_away == [(A, True)]


def test_what_is_known_of_clocks_is_bounded() -> None:
    server = ClusterSwitchboard("x", Switchboard(RegistryLimits()))
    for number in range(3_000):
        server.receive_wire(c.encode(c.Alive(sender=str(number), clock_s=1.0)), float(number))
        server.receive_wire(c.encode(c.Alive(sender="y", clock_s=1.0)), float(number))
    assert len(server._clocks._behind) <= 1_000
    assert len(server._clocks._behind["y"]) <= 60


def test_a_server_that_stops_is_gone_at_once() -> None:
    world = World("xy")
    world.servers["y"].stop()
    world.run()
    assert world.servers["x"].servers == ["x"]


def test_late_words_of_a_server_that_stopped_do_not_bring_it_back() -> None:
    world = World("xy")
    world.servers["y"].stop()
    world.servers["y"].depart(A, "lost", world.now)
    world.servers["y"].tick(world.now)
    world.run()
    assert world.servers["x"].servers == ["x"]
    for number in range(1_000):
        world.servers["x"].receive_wire(c.encode(c.Stopping(sender=str(number))), world.now)
    assert len(world.servers["x"]._stopped) <= 100


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
        assert not server._joining
        assert not server._seated
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


def test_a_keeper_that_hears_nobody_is_passed_by() -> None:
    """Its heartbeats come, and nothing reaches it: a join is not left with it for longer than a few seconds."""
    world = World("xyz")
    world.pass_time(10)
    room = room_kept_by(world, "z")
    world.connect(A, "x")
    world.connect(B, "y")
    world.deaf.add("z")
    world.say(A, join(room))
    assert world.told[A] == []
    world.pass_time(7)
    assert (A, False) in world.sent_away, "it may come back at once, and then somebody else keeps the room"
    assert [world.servers[name].servers for name in "xyz"] == [["x", "y"], ["x", "y"], ["z"]]
    world.say(A, join(room))
    world.say(B, join(room))
    assert [type(said) for said in world.told[A]] == [m.JoinedRoom, m.MemberJoined]
    world.deaf.clear()
    world.pass_time(3)
    assert world.servers["z"].servers == world.servers["x"].servers == ["x", "y", "z"]


def test_what_is_lost_between_servers_is_counted_where_it_is_missed() -> None:
    world = World("xy")
    world.pass_time(5)
    world.connect(A, "x")
    room = room_kept_by(world, "y")
    world.say(A, join(room))
    assert world.servers["y"].lost == 0
    world.cut.add("x")
    for _ in range(10):
        world.say(A, m.Signal(to=A, room=f"//{room}", envelope="e"))
    world.cut.clear()
    world.say(A, m.Signal(to=A, room=f"//{room}", envelope="e"))
    assert world.servers["y"].lost == 10


def test_several_messages_are_one_payload() -> None:
    said: list[c.AnyClusterMessage] = [c.Stopping(sender="a", number=1), c.Alive(sender="a", number=2, hears=["b"])]
    assert c.decode_untrusted(c.bundle([c.encode(message) for message in said])) == said
    assert c.decode_untrusted(c.bundle([c.encode(said[0])])) == said[:1]


@given(st.binary(max_size=200))
def test_garbage_on_the_wire_is_counted_and_dropped(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        c.decode_untrusted(payload)
    server = World("x").servers["x"]
    server.receive_wire(payload, 0)
    server.receive_wire(c.encode(c.Forward(sender="y", peer=str(A), frame="nonsense")), 0)
    server.receive_wire(c.encode(c.Deliver(sender="y", peers=[str(A)], frame='{"v":2,"type":"x"}')), 0)
    server.receive_wire(bytes(c._MAX_BYTES + c.BUNDLE_BYTES_MAX + 1), 0)
    assert server.garbage == 4
    assert server.take_outputs() == []
