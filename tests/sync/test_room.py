"""Rooms without Trio: what a game's loop sees."""

from __future__ import annotations

import re
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import psyne_mesh
from psyne_mesh import Identity, sync
from psyne_mesh.errors import (
    ClosedError,
    DeadlineExceeded,
    InvalidConfig,
    MessageTooLarge,
    SignalingUnreachable,
    UnserialisableMessage,
    WouldBlock,
)
from psyne_mesh.room.events import (
    Evicted,
    MessageRefused,
    PeerConnected,
    PeerDiscovered,
    PeerLeft,
    SharedAppeared,
    SharedGone,
)
from psyne_mesh.sync.thread import SwitchInterval
from tests.sync.conftest import Join
from tests.sync.frames import meet, until


class Ship(sync.Shared):
    x: float = sync.smooth(0.0)
    hp: int = 100


class Shot(sync.Message):
    x: float
    y: float = 0.0


def test_the_listing_of_the_docs_between_two_players(join: Join) -> None:
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        shots, hits = ada.channel("shots", Shot), bob.channel("shots", Shot)
        me = ada.share(Ship())
        got: list[tuple[str, Shot]] = []

        def frame() -> None:
            got.extend((sender.name, shot) for sender, shot in hits)

        shots.send(Shot(1.0, 2.0))
        shots.send(Shot(3.0), to=bob.me)
        until(lambda: len(got) == 2, ada, bob, each_frame=frame)
        assert got == [("ada", Shot(1.0, 2.0)), ("ada", Shot(3.0))]
        until(lambda: [ship.owner.name for ship in bob.all(Ship)] == ["ada"], ada, bob)
        (seen,) = bob.all(Ship)
        me.x, me.hp = 7.0, 50
        until(lambda: (seen.x, seen.hp) == (7.0, 50), ada, bob)
        assert list(ada.all(Ship)) == [me]
        ada.unshare(me)
        until(lambda: not list(bob.all(Ship)), ada, bob)
        assert shots.stats.sent == 2
        assert hits.stats.received == 2


def test_events_come_in_order_and_late_handlers_are_told_the_present(join: Join) -> None:
    with join("ada") as ada:
        told: list[Any] = []
        ada.on_peer_left(lambda peer, reason: told.append((peer.name, reason)))
        feed = ada.events()
        with join("bob") as bob:
            bob.share(Ship())
            list(ada.all(Ship))
            events = until(lambda: list(ada.all(Ship)) and ada.connected, ada, bob, each_frame=lambda: None)
            ours = [event for event in events if getattr(event, "peer", None) and event.peer.id == bob.me]
            assert [type(event) for event in ours] == [PeerDiscovered, PeerConnected]
            late: list[Any] = []
            ada.on_peer_connected(late.append)
            ada.on(SharedAppeared, lambda event: late.append(event.shared.owner))
            assert late == []  # on the game's thread, inside poll
            ada.poll()
            assert [peer.name for peer in late] == ["bob", "bob"]
            assert ada.peers[bob.me] in ada.connected
        until(lambda: told, ada)
        assert told == [("bob", "left")]
        kinds = [type(event) for event in feed]
        assert kinds[:2] == [PeerDiscovered, PeerConnected]
        assert PeerLeft in kinds
        assert SharedGone in kinds
        assert list(feed) == []


def test_an_error_in_a_handler_leaves_poll_and_the_rest_comes_next(join: Join) -> None:
    with join("ada") as ada, join("bob") as bob:
        calls: list[str] = []

        @ada.on_peer_discovered
        def fails(peer: Any) -> None:
            calls.append("fails")
            raise ZeroDivisionError

        ada.on_peer_discovered(lambda peer: calls.append("works"))
        with pytest.raises(ZeroDivisionError):
            until(lambda: False, ada, bob)
        assert calls == ["fails"]
        ada.poll()
        assert calls == ["fails", "works"]


def test_poll_raises_what_ended_the_room_after_its_last_event(join: Join) -> None:
    me = Identity.generate()
    with join("ada", identity=me) as ada, join("ada", identity=me):
        events = until(lambda: ada._ended, each_frame=lambda: None)
        events += ada.poll()
        assert [type(event) for event in events if isinstance(event, Evicted)] == [Evicted]
        for call in (
            ada.poll,
            lambda: ada.all(Ship),
            lambda: ada.share(Ship()),
            lambda: ada.channel("x"),
            ada.topology,
        ):
            with pytest.raises(ClosedError, match="the same identity entered it elsewhere"):
                call()


def test_leave_ends_the_room_and_leaving_the_block_after_it_is_no_error(join: Join) -> None:
    with join("ada") as ada:
        words = ada.channel("words")
        ada.leave()
        until(lambda: ada._ended)
        with pytest.raises(ClosedError, match="was left"):
            while True:
                ada.poll()
        with pytest.raises(ClosedError):
            words.send("too late")
        with pytest.raises(ClosedError):
            words.receive(timeout=5)
        assert list(words) == []


def test_a_dead_network_thread_is_never_hidden(join: Join) -> None:
    class Boom(Exception):
        pass

    def fall() -> None:
        raise Boom

    with pytest.raises(Boom), join("ada") as ada:
        ada._outbox.run(fall)
        until(lambda: False, ada)
    with pytest.raises(Boom), join("ada") as ada:  # a game that does not poll any more is told by the block
        ada._outbox.run(fall)
        until(lambda: not ada._thread.is_running)


def test_messages_go_to_a_callback_inside_poll(join: Join) -> None:
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        words, heard = ada.channel("words"), bob.channel("words")
        got: list[Any] = []
        words.send("one")
        until(lambda: len(heard), bob)

        @heard.on_message
        def hear(peer: Any, word: Any) -> None:
            got.append((threading.get_ident(), peer.name, word))

        words.send("two")
        assert got == []
        until(lambda: len(got) == 2, bob)
        assert got == [(threading.get_ident(), "ada", "one"), (threading.get_ident(), "ada", "two")]
        for wrong in (
            lambda: heard.receive(timeout=1),
            heard.receive_nowait,
            lambda: heard.on_message(hear),
            lambda: list(heard),
        ):
            with pytest.raises(InvalidConfig, match="callback"):
                wrong()


def test_a_refused_message_is_told_once(join: Join) -> None:
    class Other(sync.Message, tag="Shot"):
        x: str

    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        shots, wrong = ada.channel("shots", Shot), bob.channel("shots", Other)
        told: list[MessageRefused] = []
        ada.on(MessageRefused, told.append)
        for _ in range(3):
            wrong.send(Other("no number"))
        until(lambda: shots.stats.refused == 3, ada, bob, each_frame=lambda: list(shots))
        ada.poll()
        assert [(event.peer.name, event.channel) for event in told] == [("bob", "shots")]


def test_waiting_calls_have_a_deadline(join: Join) -> None:
    with join("ada") as ada:
        with pytest.raises(DeadlineExceeded):
            ada.wait_connected(1, timeout=0.05)
        with pytest.raises(DeadlineExceeded):
            ada.channel("words").receive(timeout=0.01)
        with pytest.raises(WouldBlock):
            ada.channel("words").receive_nowait()
        with pytest.raises(InvalidConfig):
            ada.wait_connected(99)
        assert [room.players for room in ada.rooms()].count(1) == 1
        ada.wait_connected()
        with join("bob") as bob:
            ada.wait_connected(1)
            bob.wait_connected(1)
            peer = ada.peers[bob.me]
        ada.wait_left(peer)


def test_what_cannot_be_sent_is_refused_where_it_is_sent(join: Join) -> None:
    with join("ada") as ada:
        shots = ada.channel("shots", Shot)
        for wrong, error in (("text", UnserialisableMessage), (Shot(float("nan")), UnserialisableMessage)):
            with pytest.raises(error):
                shots.send(wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidConfig, match="to ="):
            shots.send(Shot(1.0), to="bob")  # type: ignore[arg-type]
        with pytest.raises(MessageTooLarge):
            ada.channel("bytes").send(bytes(10**6))
        assert ada.channel("shots", Shot) is shots
        with pytest.raises(InvalidConfig, match="exists with types"):
            ada.channel("shots", Ship)  # type: ignore[type-var]
        ada.share(Ship()).hp = "dead"  # type: ignore[assignment]
        with pytest.raises(UnserialisableMessage, match=r"Ship\.hp"):
            until(lambda: False, ada)


def test_beginners_mistakes_say_what_to_write(join: Join, url: str) -> None:
    forgotten = join("ada")
    with pytest.raises(InvalidConfig, match=r"write `with sync\.join_game_room\(\.\.\.\) as net:`, then net\.poll"):
        forgotten.poll()  # type: ignore[attr-defined]
    with join("ada") as ada:
        with pytest.raises(InvalidConfig, match="write `def`, without async"):

            @ada.on_peer_connected
            async def never(peer: Any) -> None: ...

        with pytest.raises(InvalidConfig, match="no function"):
            ada.on_peer_connected(3)  # type: ignore[type-var]
        with pytest.raises(InvalidConfig, match="must be an event class"):
            ada.on("PeerLeft", print)  # type: ignore[arg-type]
        ada.poll()
        errors: list[Exception] = []

        def elsewhere() -> None:
            try:
                ada.poll()
            except InvalidConfig as error:
                errors.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert "two threads" in str(errors[0])
    with pytest.raises(InvalidConfig, match="entered before"):
        block = join("ada")
        with block:
            pass
        with block:
            pass


async def test_inside_trio_the_other_door_is_named(url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"async with psyne_mesh\.join_game_room"):
        sync.join_game_room("x", signaling=url).__enter__()
    with pytest.raises(InvalidConfig, match="without async"):
        async with sync.join_game_room("x", signaling=url):  # type: ignore[attr-defined]
            pass


def test_a_room_that_cannot_be_entered_leaves_nothing(join: Join) -> None:
    before, interval = threading.active_count(), sys.getswitchinterval()
    with pytest.raises(SignalingUnreachable), join("ada", signaling="ws://127.0.0.1:1"):
        pass
    with pytest.raises(InvalidConfig), join("ada", max_players=1):
        pass
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nowhere = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeadlineExceeded), join("ada", signaling=nowhere, timeout=0.1):
            pass
    assert threading.active_count() <= before
    assert sys.getswitchinterval() == interval


@pytest.mark.slow
def test_the_next_host_goes_on_with_the_hosts_objects(join: Join) -> None:
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        until(lambda: ada.host is not None and bob.host is not None, ada, bob)
        first, second = (ada, bob) if ada.is_host else (bob, ada)
        with pytest.raises(InvalidConfig, match="only the host"):
            second.share(Ship(), owner=second.host)
        first.share(Ship(hp=7), owner=first.host)
        until(lambda: [ship.hp for ship in second.all(Ship)] == [7], ada, bob)
        (ship,) = second.all(Ship)
        assert ship.owner.id == first.me
        first.leave()
        until(lambda: ship.is_mine, second)
        told: list[SharedAppeared] = []
        second.on(SharedAppeared, told.append)
        second.poll()
        assert not told
        ship.hp = 8
        with join("cid") as cid:
            until(
                lambda: [(ship.hp, ship.owner.name) for ship in cid.all(Ship)] == [(8, second.player.name)], second, cid
            )


def test_the_switch_interval_is_narrowed_for_the_blocks_and_restored() -> None:
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(0.004)
        interval = SwitchInterval()
        interval.narrow()
        interval.narrow()
        assert sys.getswitchinterval() == pytest.approx(0.0005)
        interval.widen()
        assert sys.getswitchinterval() == pytest.approx(0.0005)
        interval.widen()
        assert sys.getswitchinterval() == pytest.approx(0.004)
        interval.narrow()
        sys.setswitchinterval(0.002)  # the game's own choice stays
        interval.widen()
        assert sys.getswitchinterval() == pytest.approx(0.002)
    finally:
        sys.setswitchinterval(before)


def test_several_rooms_on_one_thread(url: str) -> None:
    with sync.open_mesh(url, player_name="ada") as mesh, sync.open_mesh(url, player_name="bob") as other:
        one, two = mesh.join_game_room("one"), mesh.join_game_room("two")
        three = other.join_game_room("two")
        meet(two, three)
        assert one.me == two.me == mesh.me
        assert not one.peers
        one.leave()
        words = three.channel("words")
        two.channel("words").send("hello")
        assert words.receive(timeout=30)[1] == "hello"


def test_the_two_doors_have_the_same_names() -> None:
    """Everything that a Trio room can do, this one can: the docs' table has both."""
    inner_channel = {"asked_again", "deliver", "close", "deliver_into", "release", "encode", "decode_untrusted",
                     "checked_to", "send_waiting", "waited_in_vain", "keep", "give_kept",
                     "send_payload", "send_payload_nowait", "dropped", "tell_skipped", "compare_types"}  # fmt: skip

    def names(kind: type[Any]) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(psyne_mesh.Room) == names(sync.Room) - {"poll", "me", "player"}  # the two are attributes there
    assert names(psyne_mesh.Channel) - inner_channel <= names(sync.Channel)
    page = (Path(__file__).resolve().parents[2] / "docs" / "game-loops.md").read_text(encoding="utf-8")
    told = {
        name for row in re.findall(r"^\|.*\|$", page, re.M) for name in re.findall(r"(?:room|net|channel)\.(\w+)", row)
    }
    assert names(sync.Room) | names(sync.Channel) <= told | {"attach", "send_reliably", "call"}


def test_the_listing_on_the_page_runs(url: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "game-loops.md").read_text(encoding="utf-8")
    (listing,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, Any] = {"__name__": "pasted"}
    exec(listing.replace('"arena"', f'"arena", signaling={url!r}'), names)  # noqa: S102 - our own page

    class Game:
        running, right, left, fired, frames = True, 1, 0, True, 0
        drawn: list[Any] = []
        clock = property(lambda self: self)

        def draw(self, *drawn: Any) -> None:
            self.drawn.append(drawn)

        def tick(self, hz: int) -> None:
            self.frames += 1
            self.running = self.frames < 3

        def tell(self, event: Any) -> None: ...

        def hit(self, sender: Any, shot: Any) -> None: ...

    game = Game()
    names["play"](game)
    assert [x for x, _, _ in game.drawn] == [1.0, 2.0, 3.0]
