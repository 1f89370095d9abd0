"""Losses, silences and back-off in virtual time: a real server and real clients over memory streams."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from psyne_mesh.errors import SignalingError, SignalingLost, SignalingUnreachable, WouldBlock
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.doors import DoorLimits
from psyne_mesh.signaling.events import Lost, PeerInfo, PeerJoined, PeerLeft, Restored, SignalReceived
from psyne_mesh.signaling.guest import Guest
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.link import SignalingConfig
from psyne_mesh.signaling.registry import RegistryLimits
from psyne_mesh.signaling.server import SignalingServer

from .worlds import Gate, open_network, player


async def test_a_broken_connection_comes_back_with_all_rooms(autojump_clock: MockClock) -> None:
    async with open_network() as network, network.connect(1) as a:
        await a.join(JoinRequest("one", app_id="chess", record="old"))
        await a.join(JoinRequest("two", create="only"))
        a.set_record("chess//one", "new")
        network.cut()
        lost = await a.next_event()
        assert isinstance(lost, Lost)
        assert lost.retrying
        assert not a.is_connected
        with pytest.raises(SignalingLost):
            await a.join(JoinRequest("three"))
        restored = await a.next_event()
        assert isinstance(restored, Restored)
        assert [joined.room for joined in restored.rooms] == ["chess//one", "//two"]
        assert a.is_connected
        assert a.reconnects == 1
        async with network.connect(2) as b:
            assert (await b.join(JoinRequest("one", app_id="chess"))).peers[0].record == "new"


async def test_back_off_doubles_up_to_its_bound_and_is_shaken(autojump_clock: MockClock) -> None:
    config = SignalingConfig(backoff_first_s=1.0, backoff_max_s=8.0)
    async with open_network() as network, network.connect(1, config) as a:
        network.is_up = False
        network.cut()
        assert isinstance(await a.next_event(), Lost)
        times: list[float] = []
        dials = network.dials
        while len(times) < 7:
            await trio.sleep(0.005)
            if network.dials > dials:
                dials = network.dials
                times.append(trio.current_time())
        waits = [later - earlier for earlier, later in pairwise(times)]
        for wait, ceiling in zip(waits, [2, 4, 8, 8, 8, 8], strict=True):
            assert ceiling / 2 - 0.01 <= wait <= ceiling + 0.01
        assert len({round(wait, 2) for wait in waits[2:]}) > 1, "clients must not come back in step"
        network.is_up = True
        assert isinstance(await a.next_event(), Restored), "and only one Lost, however many attempts failed"


async def test_a_server_that_falls_silent_is_noticed(autojump_clock: MockClock) -> None:
    async with open_network(ServerConfig(keepalive_s=10)) as network, network.connect(1) as a:
        await trio.sleep(300)
        assert a.is_connected, "pings keep a quiet connection"
        end = network.client_ends[0]
        silent, _ = memory_stream_pair()
        end.receive_stream = silent.receive_stream
        began = trio.current_time()
        lost = await a.next_event()
        assert isinstance(lost, Lost)
        assert "said nothing" in str(lost.cause)
        assert trio.current_time() - began < 60
        assert isinstance(await a.next_event(), Restored)


@pytest.mark.parametrize("moved", [False, True])
async def test_a_doubted_connection_gets_a_second_and_one_of_another_network_none(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    monkeypatch.setattr("psyne_mesh.signaling.websocket.has_lost_its_address", lambda stream: moved)
    forgotten: list[trio.abc.Stream] = []
    monkeypatch.setattr("psyne_mesh.signaling.websocket.forget_unsent", forgotten.append)
    async with open_network() as network, network.connect(1) as a:
        await a.join(JoinRequest("r"))
        end = network.client_ends[0]
        silent, _ = memory_stream_pair()
        end.receive_stream = silent.receive_stream
        if not moved:
            a.doubt()
            await trio.sleep(5)
            assert a.is_connected, "it answered, for the last time"
        began = trio.current_time()
        a.doubt()
        assert isinstance(await a.next_event(), Lost)
        assert trio.current_time() - began == pytest.approx(0.0 if moved else SignalingConfig().doubt_s, abs=0.01)
        assert forgotten == [end], "what it held must not arrive later"
        assert isinstance(await a.next_event(), Restored)


async def test_a_client_that_falls_silent_is_dropped_and_others_are_told(autojump_clock: MockClock) -> None:
    async with open_network(ServerConfig(keepalive_s=10)) as network, network.connect(1) as a:
        await a.join(JoinRequest("r"))
        async with network.connect(2) as b:
            await b.join(JoinRequest("r"))
            assert isinstance(await a.next_event(), PeerJoined)
            black_hole, _ = memory_stream_pair()
            end = network.client_ends[1]
            end.send_stream = black_hole.send_stream
            network.is_up = False
            began = trio.current_time()
            assert await a.next_event() == PeerLeft("//r", b.peer_id, "timeout")
            assert 20 < trio.current_time() - began < 40
            assert network.server.stats.ends == {"timeout": 1}


async def test_the_first_connection_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async def mute() -> trio.abc.Stream:
        return memory_stream_pair()[0]

    async def never() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    for dial in (mute, never):
        with pytest.raises(SignalingUnreachable, match="no answer in time"):
            async with connect_signaling("ws://server", player(1), dial=dial):
                pass


async def test_guests_who_prove_themselves_late_are_counted(autojump_clock: MockClock) -> None:
    """All of them came in before any of them had said hello."""
    gate = Gate()
    gate.shut()
    async with open_network(ServerConfig(doors=DoorLimits(clients_max=3))) as network, trio.open_nursery() as nursery:
        outcomes: list[str] = []

        async def visit(number: int) -> None:
            try:
                async with network.connect_slowly(number, gate):
                    outcomes.append("in")
                    await trio.sleep_forever()
            except SignalingError as error:
                outcomes.append(str(error).rpartition(": ")[2])

        for number in range(1, 9):
            nursery.start_soon(visit, number)
        await trio.sleep(1)
        gate.open()
        await trio.sleep(1)
        assert sorted(outcomes) == ["in"] * 3 + ["this server has as many guests as it can serve"] * 5
        assert network.server.stats.clients == 3
        assert network.server.stats.ends == {"full": 5}
        nursery.cancel_scope.cancel()


async def test_who_is_seated_may_come_again_to_a_full_server(autojump_clock: MockClock) -> None:
    gate = Gate()
    gate.shut()
    async with open_network(ServerConfig(doors=DoorLimits(clients_max=1))) as network, trio.open_nursery() as nursery:

        async def come_again() -> None:
            async with network.connect_slowly(1, gate):
                await trio.sleep_forever()

        nursery.start_soon(come_again)
        await trio.sleep(1)
        async with network.connect(1):
            gate.open()
            await trio.sleep(1)
            assert network.server.stats.ends == {"superseded": 1}
            assert network.server.stats.clients == 1
        nursery.cancel_scope.cancel()


async def test_a_mute_guest_is_closed(autojump_clock: MockClock) -> None:
    async with open_network(ServerConfig(hello_timeout_s=10)) as network:
        stream = await network.dial()
        assert await stream.receive_some() == b""
        assert trio.current_time() == pytest.approx(10, abs=0.5)


async def test_slowloris_is_closed(autojump_clock: MockClock) -> None:
    async with open_network(ServerConfig(hello_timeout_s=10)) as network:
        stream = await network.dial()
        try:
            for letter in b"GET / HTTP/1.1\r\nX-Patience: " + b"x" * 1000:
                await stream.send_all(bytes([letter]))
                await trio.sleep(1)
        except trio.BrokenResourceError:
            pass
        assert trio.current_time() == pytest.approx(10, abs=1.5)


async def test_a_websocket_without_hello_is_closed(autojump_clock: MockClock) -> None:
    async with open_network(ServerConfig(hello_timeout_s=10)) as network:
        stream = await network.dial()
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        received = b""
        while data := await stream.receive_some():
            received += data
        assert b"101 Switching Protocols" in received
        assert b"challenge" in received
        assert trio.current_time() < 13


async def test_a_fast_client_is_read_slowly_and_loses_nothing(autojump_clock: MockClock) -> None:
    config = ServerConfig(messages_per_s=10, burst=20)
    async with open_network(config) as network, network.connect(1) as a, network.connect(2) as b:
        await a.join(JoinRequest("r"))
        await b.join(JoinRequest("r"))
        began = trio.current_time()
        for number in range(200):
            a.send_signal(b.peer_id, "//r", str(number))
        received = [await b.next_event() for _ in range(200)]
        assert received == [SignalReceived(a.peer_id, "//r", str(number)) for number in range(200)]
        assert trio.current_time() - began == pytest.approx(18, abs=2)


async def test_who_floods_a_slow_reader_costs_it_neither_its_place_nor_the_words_of_others(
    autojump_clock: MockClock,
) -> None:
    gate = Gate()
    async with (
        open_network(ServerConfig(messages_per_s=1e6)) as network,
        network.connect_slowly(1, gate) as victim,
        network.connect(2) as mallory,
        network.connect(3) as friend,
    ):
        for client in (victim, friend, mallory):
            await client.join(JoinRequest("r"))
        gate.shut()
        for _ in range(400):
            mallory.send_signal(victim.peer_id, "//r", "x" * m.MAX_ENVELOPE_CHARS)
        await trio.sleep(1)
        friend.send_signal(victim.peer_id, "//r", "hello")
        await friend.leave("//r")
        gate.open()
        await trio.sleep(1)
        assert network.server.stats.ends == {}
        assert network.server.stats.signals_dropped > 300
        heard = [await victim.next_event()]
        while heard[-1] != PeerLeft("//r", friend.peer_id, "left"):
            heard.append(await victim.next_event())
        assert SignalReceived(friend.peer_id, "//r", "hello") in heard
        mallory.send_signal(victim.peer_id, "//r", "once more")
        assert await victim.next_event() == SignalReceived(mallory.peer_id, "//r", "once more"), (
            "its share is free again"
        )


async def test_who_does_not_read_the_news_misses_some_and_stays(autojump_clock: MockClock) -> None:
    """What others do drops nobody; gossip tells what was missed."""
    gate = Gate()
    async with (
        open_network(ServerConfig(outbound_messages_max=50)) as network,
        network.connect_slowly(1, gate) as slow,
        network.connect(2) as restless,
    ):
        await slow.join(JoinRequest("r"))
        gate.shut()
        for _ in range(60):
            await restless.join(JoinRequest("r"))
            await restless.leave("//r")
        assert network.server.stats.ends == {}
        assert network.server.stats.news_dropped > 50
        gate.open()
        assert await slow.next_event() == PeerJoined("//r", PeerInfo(restless.peer_id, "", 1))
        assert [room.players for room in (await slow.list_rooms()).rooms] == [1]


async def test_the_queue_to_the_server_is_bounded(autojump_clock: MockClock) -> None:
    config = SignalingConfig(outbound_max=10)
    async with open_network() as network, network.connect(1, config) as a:
        await a.join(JoinRequest("r"))
        sent = 0
        try:
            while sent < 100:
                a.send_signal(a.peer_id, "//r", "x")
                sent += 1
        except WouldBlock:
            pass
        assert sent in (10, 11), "one more when the sender was waiting for something to do"
        for _ in range(sent):
            assert isinstance(await a.next_event(), SignalReceived)


async def test_a_mesh_that_does_not_drain_gets_a_fresh_start(autojump_clock: MockClock) -> None:
    config = SignalingConfig(inbox_max=5)
    async with open_network() as network, network.connect(1, config) as a:
        await a.join(JoinRequest("r"))
        for _ in range(6):
            a.send_signal(a.peer_id, "//r", "x")
        await trio.sleep(5)
        lost = await a.next_event()
        assert isinstance(lost, Lost)
        assert "were waiting" in str(lost.cause)
        restored = await a.next_event()
        assert isinstance(restored, Restored)
        assert [joined.room for joined in restored.rooms] == ["//r"]


async def test_a_question_without_an_answer_ends(autojump_clock: MockClock) -> None:
    """The server goes on sending pongs, but it forgets to answer."""
    async with open_network() as network, network.connect(1) as a:
        network.server._switchboard._join = lambda *_: None  # type: ignore[method-assign]
        with pytest.raises(SignalingError, match="no answer within"):
            await a.join(JoinRequest("r"))
        assert a.is_connected


async def test_a_cancelled_join_is_taken_back(autojump_clock: MockClock) -> None:
    async with open_network() as network, network.connect(1) as a, network.connect(2) as b:
        await b.join(JoinRequest("r"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.join(JoinRequest("r", record="hello"), goodbye="farewell")
        await trio.sleep(1)
        assert network.server.stats.joins == 2
        assert network.server.stats.members == 1
        assert isinstance(await b.next_event(), PeerJoined)
        assert await b.next_event() == PeerLeft("//r", a.peer_id, "left", "farewell")
        network.cut()
        assert isinstance(await a.next_event(), Lost)
        restored = await a.next_event()
        assert restored == Restored((), ())


async def test_a_room_whose_answer_comes_too_late_is_left(autojump_clock: MockClock) -> None:
    """Who has told its mesh that the room would not have it back must not stand in the room's list."""
    async with open_network() as network, network.connect(1) as a, network.connect(2) as b:
        await a.join(JoinRequest("r"))
        await b.join(JoinRequest("r"))
        late: list[tuple[Guest, m.ClientMessage]] = []
        receive = network.server._receive_message

        def receive_late(guest: Guest, message: m.ClientMessage) -> None:
            if isinstance(message, m.Join | m.Leave):
                late.append((guest, message))
            else:
                receive(guest, message)

        network.server._receive_message = receive_late  # type: ignore[method-assign]
        end = network.client_ends[0]
        end.send_stream.close()
        end.receive_stream.close()
        while not isinstance(restored := await a.next_event(), Restored):
            pass
        assert [key for key, _ in restored.refused] == ["//r"]
        await trio.sleep(1)
        for guest, message in late:
            receive(guest, message)
        await trio.sleep(1)
        assert a.is_connected
        assert network.server.stats.members == 1, "b alone"


async def test_a_room_left_during_the_loss_is_not_entered_again(autojump_clock: MockClock) -> None:
    async with open_network() as network, network.connect(1) as a:
        await a.join(JoinRequest("r"))
        network.cut()
        assert isinstance(await a.next_event(), Lost)
        await a.leave("//r")
        assert await a.next_event() == Restored((), ())
        assert network.server.stats.members == 0


async def test_the_seat_is_kept_for_who_comes_back(autojump_clock: MockClock) -> None:
    config = ServerConfig(registry=RegistryLimits(seat_hold_s=10))
    slow = SignalingConfig(backoff_first_s=30, backoff_max_s=30)
    async with open_network(config) as network, network.connect(1) as a, network.connect(2, slow) as b:
        await a.join(JoinRequest("duel", max_players=2))
        await b.join(JoinRequest("duel"))
        network.cut()
        assert isinstance(await a.next_event(), PeerJoined)
        events = [await a.next_event() for _ in range(2)]
        assert [type(event) for event in events] == [Lost, Restored]
        await trio.sleep(11)
        async with network.connect(3) as c:
            await c.join(JoinRequest("duel"))
            assert isinstance(await b.next_event(), Lost)
            restored = await b.next_event()
            assert isinstance(restored, Restored)
            assert restored.rooms == ()
            assert "has its 2 players" in str(restored.refused[0][1])


async def test_many_clients_survive_a_flapping_network(autojump_clock: MockClock) -> None:
    """Ten players, twenty cuts at random moments; in the end everybody sees everybody."""
    rng = random.Random(7)
    async with open_network() as network, trio.open_nursery() as nursery:
        views: dict[str, set[str]] = {}

        async def live(number: int) -> None:
            async with network.connect(number) as client:
                joined = await client.join(JoinRequest("r"))
                view = views[client.peer_id] = {peer.peer_id for peer in joined.peers}
                async for event in client.events:
                    match event:
                        case PeerJoined(peer=peer):
                            view.add(peer.peer_id)
                        case PeerLeft(peer_id=peer_id):
                            view.discard(peer_id)
                        case Restored(rooms=rooms):
                            view.clear()
                            view.update(peer.peer_id for peer in rooms[0].peers)

        for number in range(1, 11):
            nursery.start_soon(live, number)
        for _ in range(20):
            await trio.sleep(rng.uniform(0, 2))
            network.is_up = rng.random() < 0.7
            network.cut()
        network.is_up = True
        await trio.sleep(60)
        players = set(views)
        assert len(players) == 10
        assert all(view == players - {me} for me, view in views.items())
        nursery.cancel_scope.cancel()


async def test_stopping_says_goodbye_and_ends_within_the_grace(autojump_clock: MockClock) -> None:
    async with open_network() as network, network.connect(1) as a:
        network.is_up = False
        await network.server.stop()
        lost = await a.next_event()
        assert isinstance(lost, Lost)
        assert "shutting down" in str(lost.cause)
        assert trio.current_time() < 3


def test_a_server_that_was_never_run_has_stats() -> None:
    async def main() -> None:
        assert SignalingServer(ServerConfig()).stats.clients == 0

    trio.run(main)
