"""Questions and answers through whole rooms."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import (
    ClosedError,
    DeadlineExceeded,
    InvalidConfig,
    MessageTooLarge,
    PeerGone,
    ProtocolError,
    RequestRefused,
    WouldBlock,
)
from psyne_mesh.game import requests
from psyne_mesh.game.requests import UNANSWERED_MAX, Answer, Asked, Ended, Question, Refusal, Requests
from psyne_mesh.identity import PeerId
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.room import inside
from psyne_mesh.testing import open_world
from tests.room.test_host_and_clock import agree_on_a_host, everybody


class TakeItem(Message):
    number: int


class Taken(Message):
    number: int
    by: str


class Strange(Message):
    text: str = ""


async def test_who_is_asked_answers_refuses_or_is_late(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob, cid = await everybody(world, "ada", "bob", "cid")

        @bob.respond(TakeItem)
        async def take(peer: Peer, item: TakeItem) -> Taken:
            if item.number == 13:
                raise RequestRefused("not this one")
            if item.number == 99:
                await trio.sleep(60)
            return Taken(item.number, peer.name)

        cid.respond(TakeItem)(lambda peer, item: Taken(-item.number, peer.name))
        assert await ada.request(bob.me, TakeItem(3)) == Taken(3, "ada")
        assert await cid.request(cid.peers[bob.me], TakeItem(4)) == Taken(4, "cid")
        assert await bob.request(bob.player, TakeItem(5)) == Taken(5, "bob")
        with pytest.raises(RequestRefused, match="not this one"):
            await ada.request(bob.me, TakeItem(13))
        with pytest.raises(RequestRefused, match="nobody there answers Strange"):
            await ada.request(bob.me, Strange())
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded):
            await ada.request(bob.me, TakeItem(99), timeout=0.5)
        assert trio.current_time() - began == pytest.approx(0.5, abs=0.05)
        assert await ada.request_each(TakeItem(1)) == {bob.me: Taken(1, "ada"), cid.me: Taken(-1, "ada")}
        each = await ada.request_each(TakeItem(13), [bob.me, cid.me])
        assert isinstance(each[bob.me], RequestRefused)
        assert each[cid.me] == Taken(-13, "ada")
        with pytest.raises(InvalidConfig):
            await ada.request("bob", TakeItem(1))  # type: ignore[arg-type]
        with pytest.raises(InvalidConfig):
            await ada.request(bob.me, TakeItem(1), timeout=0)
        with pytest.raises(InvalidConfig, match="already"):
            bob.respond(TakeItem)(take)
        with pytest.raises(MessageTooLarge):
            await ada.request(bob.me, Strange("x" * 15_000))
        with pytest.raises(PeerGone):
            await ada.request(PeerId("0" * 32), TakeItem(1))
        with trio.move_on_after(0.1):
            await ada.request(bob.me, TakeItem(99))
        assert not inside(ada).parts.asking._done


async def test_who_leaves_answers_nobody_and_asks_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await everybody(world, "ada", "bob")
        ends: list[type] = []

        async def ask() -> None:
            with pytest.raises((PeerGone, ClosedError)) as told:
                await ada.request(bob.me, TakeItem(1), timeout=30)
            ends.append(told.type)

        @bob.respond(TakeItem)
        async def never(peer: Peer, item: TakeItem) -> Taken:
            await trio.sleep_forever()
            raise AssertionError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            await bob.leave()
        assert ends == [PeerGone]
        cid = await world.join("arena", "cid")
        await cid.wait_connected(1)
        cid.respond(TakeItem)(never)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: _asks(ada.request(cid.me, TakeItem(1), timeout=30), ends))
            await trio.sleep(1)
            await ada.leave()
        assert ends[1] is ClosedError


async def _asks(question: object, ends: list[type]) -> None:
    with pytest.raises(ClosedError) as told:
        await question  # type: ignore[misc]
    ends.append(told.type)


async def test_the_host_is_asked_whoever_it_is(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=4) as world:
        rooms = await everybody(world, "ada", "bob")
        for room in rooms:
            room.respond(TakeItem)(lambda peer, item, room=room: Taken(item.number, room.player.name))
        host = await agree_on_a_host(rooms)
        for room in rooms:
            assert room.host is not None
            assert await room.request(room.host, TakeItem(1)) == Taken(1, host.player.name)


def test_an_answer_counts_once_and_from_who_was_asked() -> None:
    ada, bob, eve = (PeerId(f"{number:032x}") for number in range(3))
    machine = Requests()
    number = machine.ask(bob, b"?", 5.0)
    machine.receive(eve, Answer(number, b"forged"))
    machine.receive(bob, Answer(number + 1, b"to another"))
    assert machine.take_events() == []
    machine.receive(bob, Answer(number, b"!"))
    machine.receive(bob, Refusal(number, "no"))
    (end,) = machine.take_events()
    assert isinstance(end, Ended)
    assert (end.number, end.payload) == (number, b"!")
    late = machine.ask(bob, b"?", 5.0)
    machine.handle_timeout(5.0)
    machine.receive(bob, Answer(late, b"!"))
    assert [event.reason for event in machine.take_events() if isinstance(event, Ended)] == ["deadline"]
    machine.take_outputs()
    for each in range(UNANSWERED_MAX + 10):
        machine.receive(ada, Question(each, b""))
        machine.receive(ada, Question(each, b""))  # twice
    asked = [event for event in machine.take_events() if isinstance(event, Asked)]
    assert len(asked) == UNANSWERED_MAX
    assert all(isinstance(word, Refusal) for _, word in machine.take_outputs())
    for event in asked:
        machine.answer(event.peer, event.number, b"x")
        machine.answer(event.peer, event.number, b"y")
    assert len(machine.take_outputs()) == UNANSWERED_MAX
    machine.receive(ada, Question(1, b""))
    machine.peer_left(ada)
    machine.answer(ada, 1, b"z")
    assert machine.take_outputs() == []


async def test_too_many_questions_are_refused_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await everybody(world, "ada", "bob")
        bob.respond(TakeItem)(lambda peer, item: Taken(item.number, ""))
        for number in range(requests.PENDING_MAX):
            inside(ada).parts.asking.begin(bob.me, TakeItem(number), 30, lambda outcome: None)
        with pytest.raises(WouldBlock):
            await ada.request(bob.me, TakeItem(1))
        await trio.sleep(2)
        assert await ada.request(bob.me, TakeItem(1)) == Taken(1, "")


@given(st.binary(max_size=200))
def test_nothing_but_a_protocol_error_leaves_the_parser(data: bytes) -> None:
    with suppress(ProtocolError):
        requests.decode_untrusted(data)
    with pytest.raises(ProtocolError):
        requests.decode_untrusted("text")
