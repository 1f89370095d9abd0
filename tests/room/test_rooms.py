"""Rooms from the outside: what a game developer sees, over real ICE, DTLS and SCTP on loopback."""

from __future__ import annotations

import threading

import pytest
import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import (
    ClosedError,
    ConnectFailed,
    InvalidConfig,
    MessageTooLarge,
    PeerGone,
    RoomError,
    RoomExists,
    RoomFull,
    RoomMismatch,
    RoomNotFound,
    UnserialisableMessage,
    WouldBlock,
)
from psyne_mesh.identity import Identity
from psyne_mesh.room import events
from psyne_mesh.room.messages import Action, CombatAction, Message, PlayerPosition
from tests.room.players import LOOPBACK, connected, first, open_party


class Note(Message):
    number: int
    text: str = ""


async def test_players_discover_connect_and_talk() -> None:
    async with open_party() as party:
        ada, bob, cid = [await party.join(name=name) for name in ("ada", "bob", "cid")]
        await connected(ada, bob, cid)
        assert sorted(peer.name for peer in ada.peers.values()) == ["bob", "cid"]
        channels = [room.channel("combat", CombatAction) for room in (ada, bob, cid)]
        report = await channels[0].send(CombatAction(1, 0, Action.ATTACK, target=bob.me, damage=10))
        assert report.sent == 2
        assert not report.skipped
        for channel in channels[1:]:
            sender, action = await channel.receive()
            assert sender.id == ada.me
            assert action.damage == 10
        peer = bob.peers[ada.me]
        assert peer.path is not None
        assert peer.path.kind == "host"


async def test_subscribers_are_many_and_late_ones_hear_who_is_there() -> None:
    async with open_party() as party:
        ada, bob = await party.join(name="ada"), await party.join(name="bob")
        await connected(ada, bob)
        heard: list[tuple[str, str]] = []
        done = trio.Event()

        @ada.on_peer_discovered
        def one(peer: object) -> None:
            heard.append(("one", getattr(peer, "name", "")))

        @ada.on_peer_connected
        async def two(peer: object) -> None:
            heard.append(("two", getattr(peer, "name", "")))
            done.set()

        await done.wait()
        assert heard == [("one", "bob"), ("two", "bob")]
        cid = await party.join(name="cid")
        await connected(ada, bob, cid)
        late = ada.events()
        assert [type(await anext(late)).__name__ for _ in range(4)] == ["PeerDiscovered", "PeerConnected"] * 2


async def test_a_player_who_leaves_is_gone_at_once_and_once() -> None:
    async with open_party() as party:
        ada, bob = await party.join(name="ada"), await party.join(name="bob")
        left: list[tuple[str, str]] = []
        ada.on_peer_left(lambda peer, reason: left.append((peer.name, reason)))
        async with party.joining(name="cid") as cid:
            await connected(ada, bob, cid)
        with trio.fail_after(5):  # far below any suspicion timeout times its patience
            gone = await first(ada, events.PeerLeft) if not left else None
        await connected(ada, bob)
        await trio.testing.wait_all_tasks_blocked()
        assert left == [("cid", "left")]
        assert gone is None or gone.reason == "left"
        channel, other = ada.channel("x", Note), bob.channel("x", Note)
        await channel.send(Note(1))
        assert (await other.receive())[1] == Note(1)


async def test_rooms_that_cannot_be_entered_say_why_and_leave_nothing() -> None:
    async with open_party() as party:
        await party.join(name="ada", max_players=2, skill_range=(1000, 1200))
        with pytest.raises(RoomMismatch, match="create_room"):
            await party.join(skill_range=(1300, 1400), create=False)
        with pytest.raises(RoomExists):
            await party.join(create=True)
        await party.join(name="bob", skill_range=(1100, 1300))
        with pytest.raises(RoomFull, match="create_room"):
            await party.join(name="cid", create=False)
        with pytest.raises(RoomNotFound):
            await party.join("nowhere", create=False)
        bad: list[dict[str, object]] = [
            {"max_players": 1},
            {"region": "a/b"},
            {"skill_range": (2, 1)},
            {"skill_range": 5},
            {"skill_range": (1, "b")},
            {"skill_range": (10**400, 10**401)},
            {"metadata": {"k": "v" * 600}},
            {"metadata": {"k": "\ud800"}},
            {"metadata": [1]},
            {"room_metadata": [1]},
            {"room_metadata": {"k": "\ud800"}},
            {"name": "\ud800"},
            {"name": 5},
        ]
        for options in bad:
            with pytest.raises(InvalidConfig):
                await party.join("other", **options)
        with pytest.raises(InvalidConfig):
            await party.join("")


async def test_regions_keep_players_apart() -> None:
    async with open_party() as party:
        west, east = await party.join(region="us-west"), await party.join(region="us-east")
        another = await party.join(region="us-west")
        await connected(west, another)
        assert not east.peers


async def test_play_goes_on_without_signaling_and_newcomers_come_when_it_is_back() -> None:
    async with open_party() as party:
        ada, bob = await party.join(name="ada"), await party.join(name="bob")
        await connected(ada, bob)
        party.hub.kill()
        await first(ada, events.SignalingDown)
        assert (await ada.channel("x", Note).send(Note(1))).sent == 1
        assert (await bob.channel("x", Note).receive())[1] == Note(1)
        party.hub.revive()
        cid = await party.join(name="cid")
        await connected(ada, bob, cid)


async def test_a_tampering_signaling_server_is_detected_and_named() -> None:
    async with open_party() as party:

        def swap_fingerprint(sender: str, to: str, room: str, envelope: str) -> str:
            payload, _, rest = envelope.partition(".")
            return f"{payload[:-8]}AAAAAAAA.{rest}"

        party.hub.intercept = swap_fingerprint
        impatient = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False, connection_timeout_s=0.5)
        ada, bob = await party.join(name="ada", config=impatient), await party.join(name="bob", config=impatient)
        event = await _any_tampering(ada, bob)
        assert "MemorySignaling" in event.server
        assert "signature" in event.reason
        assert not ada.connected
        party.hub.intercept = None
        await connected(ada, bob)


async def _any_tampering(*rooms):  # type: ignore[no-untyped-def]
    found: list[events.TamperingDetected] = []

    async with trio.open_nursery() as nursery:

        async def watch(room: object) -> None:
            found.append(await first(room, events.TamperingDetected))  # type: ignore[arg-type]
            nursery.cancel_scope.cancel()

        for room in rooms:
            nursery.start_soon(watch, room)
    return found[0]


async def test_a_peer_that_never_answers_is_reported_with_its_phase() -> None:
    async with open_party() as party:
        impatient = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False, connection_timeout_s=0.3)
        party.hub.intercept = lambda sender, to, room, envelope: None
        ada = await party.join(name="ada", config=impatient)
        await party.join(name="mute", config=impatient)
        event = await first(ada, events.PeerUnreachable)
        assert isinstance(event.error, ConnectFailed)
        assert event.error.phase == "signaling"
        assert event.peer.name == "mute"


async def test_bad_messages_are_refused_and_nothing_else_is_lost() -> None:
    async with open_party() as party:
        ada, bob = await party.join(name="ada"), await party.join(name="bob")
        await connected(ada, bob)
        notes, raw = ada.channel("notes", Note), ada.channel("raw")
        with pytest.raises(UnserialisableMessage):
            await notes.send({"number": 1})  # type: ignore[arg-type]
        with pytest.raises(MessageTooLarge):
            await raw.send(bytes(300_000))
        with pytest.raises(PeerGone):
            await raw.send(b"x", to=Identity.generate().peer_id)
        for name in ("", "\ud800", "x" * 129, 5):
            with pytest.raises(InvalidConfig):
                ada.channel(name)  # type: ignore[call-overload]
        with pytest.raises(InvalidConfig):
            ada.channel("many", inbox_max="a")  # type: ignore[call-overload]
        for text in ("\ud800", "ok \udfff"):
            with pytest.raises(UnserialisableMessage):
                await raw.send(text)
            with pytest.raises(UnserialisableMessage):
                await notes.send(Note(1, text))
        for to in ("abc", ["abc"], [None], 5):
            with pytest.raises(InvalidConfig, match=r"room\.peers"):
                await raw.send("x", to=to)  # type: ignore[arg-type]
        with pytest.raises(WouldBlock):
            raw.receive_nowait()
        # a peer who sends nonsense on a typed channel: refused, counted, and the next message still comes
        await bob.channel("notes").send(b"\xc1 nonsense")
        await bob.channel("notes").send(b"\x93\xa4Note\x07\xa0")
        assert (await notes.receive())[1] == Note(7)
        assert notes.stats.refused == 1
        for size in (0, 1, 1200, 65_536, 262_144):
            await raw.send(bytes(size))
            assert (await bob.channel("raw").receive())[1] == bytes(size)
        await raw.send("text \N{SNOWMAN}")
        assert (await bob.channel("raw").receive())[1] == "text \N{SNOWMAN}"


async def test_messages_that_come_before_the_channel_is_declared_wait_for_it() -> None:
    async with open_party() as party:
        ada, bob = await party.join(name="ada"), await party.join(name="bob")
        await connected(ada, bob)
        for number in range(10):
            await ada.channel("late", Note).send(Note(number))
        await ada.channel("other", Note).send(Note(99))
        assert (await bob.channel("other", Note).receive())[1] == Note(99)
        assert [(await bob.channel("late", Note).receive())[1].number for _ in range(10)] == list(range(10))


async def test_a_full_inbox_drops_the_oldest_position_and_keeps_every_reliable_message() -> None:
    async with open_party() as party:
        ada, bob = await party.join(name="ada"), await party.join(name="bob")
        await connected(ada, bob)
        theirs = bob.channel("position", PlayerPosition, mode="unreliable", inbox_max=8)
        end = bob.channel("end", Note)
        for number in range(1, 41):
            ada.channel("position", PlayerPosition, mode="unreliable").send_nowait(PlayerPosition(number, 0))
            await ada.channel("end", Note).send(Note(number))
            await end.receive()
        numbers = [theirs.receive_nowait()[1].sequence for _ in range(8)]
        assert numbers == sorted(numbers)
        assert numbers[-1] == 40
        assert theirs.stats.dropped == 32


async def test_a_reader_that_stops_holds_its_sender_back_and_loses_nothing() -> None:
    async with open_party() as party:
        small = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False, receive_window_bytes=131_072)
        ada, bob = await party.join(name="ada"), await party.join(name="bob", config=small)
        await connected(ada, bob)
        sent = 0
        bulk, theirs = ada.channel("bulk"), bob.channel("bulk")
        with trio.move_on_after(1) as scope:
            while True:
                await bulk.send(sent.to_bytes(4, "big") + bytes(60_000))
                sent += 1
        assert scope.cancelled_caught, "the sender was held back"
        for number in range(sent):
            _, data = await theirs.receive()
            assert int.from_bytes(data[:4], "big") == number


async def test_a_crashing_callback_ends_the_room_with_its_error() -> None:
    async with open_party() as party:
        await party.join(name="ada")
        with pytest.raises(ZeroDivisionError):
            async with party.joining(name="bob") as bob:

                @bob.on_peer_discovered
                def crash(peer: object) -> None:
                    raise ZeroDivisionError

                await trio.sleep_forever()


async def test_leaving_ends_iterators_and_refuses_further_use() -> None:
    async with open_party() as party, party.joining(name="ada") as ada:
        channel = ada.channel("x")
        async with trio.open_nursery() as nursery:
            ended: list[str] = []

            async def read() -> None:
                async for _ in channel:
                    pass
                ended.append("channel")

            async def watch() -> None:
                async for _ in ada.events():
                    pass
                ended.append("events")

            nursery.start_soon(read)
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            await ada.leave()
        assert sorted(ended) == ["channel", "events"]
        for use in (lambda: channel.send_nowait(b"x"), lambda: ada.channel("y"), channel.receive_nowait):
            with pytest.raises(ClosedError):
                use()


async def test_two_rooms_share_one_link_for_each_pair() -> None:
    async with open_party() as party:
        left, right = await party.mesh("left"), await party.mesh("right")
        chat = [await mesh.join_game_room("chat") for mesh in (left, right)]
        game = [await mesh.join_game_room("game") for mesh in (left, right)]
        await connected(*chat)
        await connected(*game)
        assert chat[0].peers[right.me].path == game[0].peers[right.me].path
        assert len(left._core.driver.links) == 1
        await chat[0].channel("x", Note).send(Note(1))
        await game[0].channel("x", Note).send(Note(2))
        assert (await game[1].channel("x", Note).receive())[1] == Note(2)
        assert (await chat[1].channel("x", Note).receive())[1] == Note(1)
        await chat[0].channel("unread").send(b"x")
        await chat[1].channel("unread")._inbox.wait()
        await chat[0].leave()
        await first(chat[1], events.PeerLeft) if chat[1].peers else None
        assert (await game[0].channel("x", Note).send(Note(3))).sent == 1
        assert (await game[1].channel("x", Note).receive())[1] == Note(3)
        unread, link = chat[1].channel("unread"), right._core.link(left.me)
        assert link._connection._link._unread > 0
        await chat[1].leave()  # what it holds no longer narrows the link of the other room
        assert link._connection._link._unread == 0
        assert unread.receive_nowait()[1] == b"x"
        assert link._connection._link._unread == 0


async def test_a_mesh_enters_a_room_once_at_a_time() -> None:
    async with open_party() as party:
        await party.join("full", max_players=2)
        full = await party.join("full")
        mesh = await party.mesh("ada")
        entered, refused = [], []

        async def enter(room: str) -> None:
            try:
                entered.append(await mesh.join_game_room(room, create=False if room == "full" else None))
            except RoomError as error:
                refused.append(type(error))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(enter, "lobby")
        assert refused == [RoomExists]
        await enter("lobby")
        assert refused == [RoomExists, RoomExists]
        await entered.pop().leave()
        await enter("lobby")
        await entered.pop().leave()
        await enter("full")
        assert refused[2:] == [RoomFull]
        await full.leave()
        await enter("full")
        assert [room.name for room in entered] == ["full"], "who was refused may try again"


async def test_leaving_the_block_leaves_no_task_socket_or_thread() -> None:
    def sockets() -> int:
        import gc
        import socket

        gc.collect()
        return sum(1 for thing in gc.get_objects() if isinstance(thing, socket.socket) and thing.fileno() != -1)

    root = trio.lowlevel.current_root_task()
    assert root is not None

    def tasks() -> int:
        def count(task: trio.lowlevel.Task) -> int:
            return 1 + sum(count(child) for nursery in task.child_nurseries for child in nursery.child_tasks)

        return count(root)

    async with open_party() as party:
        async with party.joining(name="warm-up"):
            pass
        before, threads = (tasks(), sockets()), threading.active_count()
        for _ in range(3):
            async with party.joining(name="ada") as ada, party.joining(name="bob") as bob:
                await connected(ada, bob)
        await trio.testing.wait_all_tasks_blocked()
        assert (tasks(), sockets()) == before
        assert threading.active_count() <= threads


async def test_an_error_in_the_block_comes_out_bare() -> None:
    async with open_party() as party:
        with pytest.raises(KeyError):
            async with party.joining(config=LOOPBACK):
                raise KeyError("mine")


async def test_a_crashing_message_callback_ends_the_room_with_its_error() -> None:
    async with open_party() as party:
        ada = await party.join(name="ada")
        with pytest.raises(ZeroDivisionError):
            async with party.joining(name="bob") as bob:
                bob.channel("notes").on_message(lambda sender, note: 1 / 0)
                await connected(ada, bob)
                ada.channel("notes").send_nowait(b"x")
                await trio.sleep_forever()
