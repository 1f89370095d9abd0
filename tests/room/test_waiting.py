"""Rooms that forgive: what is sent before a link stands waits for it, and whoever was called gone is heard when it is back."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import ClosedError, PeerGone
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.identity import Identity
from psyne_mesh.room import events
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.room import Room, inside
from psyne_mesh.room.waiting import BYTES_MAX, BYTES_OF_ALL_MAX, MESSAGES_MAX, Waiting
from psyne_mesh.testing import open_world


class Hello(Message):
    text: str


def names(room: Room) -> list[str]:
    return sorted(peer.name for peer in room.peers.values())


def test_what_waits_is_bounded_for_each_player_and_for_all() -> None:
    peers = [Identity.generate().peer_id for _ in range(6)]
    waiting = Waiting()
    assert sum(waiting.put(peers[0], "chat", b"") for _ in range(2 * MESSAGES_MAX)) == MESSAGES_MAX
    assert [waiting.put(peer, "chat", bytes(BYTES_MAX)) for peer in peers[1:]] == [True] * (
        BYTES_OF_ALL_MAX // BYTES_MAX
    ) + [False]
    assert not waiting.put(peers[2], "chat", b"x")
    assert waiting.take(peers[1]) == [("chat", bytes(BYTES_MAX))]
    assert not waiting.is_waiting(peers[1])
    assert waiting.put(peers[5], "chat", "x")
    assert waiting.take(peers[5]) == [("chat", "x")]


async def test_a_reliable_message_sent_right_after_joining_waits_for_the_links(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        old = await world.join("lobby", "old")
        heard = old.channel("hello", Hello)
        new = await world.join("lobby", "new")
        said = new.channel("hello", Hello)
        peer = new.peers[old.me]
        assert not peer.connected
        first, second = await said.send(Hello("everybody")), await said.send(Hello("you"), to=peer)
        assert (first.sent, first.waiting, second.waiting, said.stats.sent) == (1, (old.me,), (old.me,), 2)
        await new.wait_connected(1)
        await said.send(Hello("after"))
        assert [(await heard.receive())[1].text for _ in range(3)] == ["everybody", "you", "after"]


async def test_what_waits_goes_over_the_link_that_took_the_place_of_another(autojump_clock: MockClock) -> None:
    """One side has lost its link and dials again, as a browser's that was ended under it; the other had not noticed."""
    async with open_world(seed=1) as world:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        await ada.wait_connected(1)
        got, sent = list[str](), 0
        heard = bob.channel("hello", Hello).on_message(lambda peer, message: got.append(message.text))
        assert heard is not None
        cut = ExitStack()
        for tick in range(300):
            if tick == 60:  # it says nothing
                cut.enter_context(world.net.cut(("bob", "ada")))
                link = bob._joined()._owner.link(ada.me)
                assert link is not None
                link.close("left")
            if tick == 90:
                cut.close()
            ada.channel("hello", Hello).send_nowait(Hello(str(sent)))
            sent += 1
            await trio.sleep(1 / 30)
        await trio.sleep(5)
        assert got[-1] == str(sent - 1)
        numbers = [int(text) for text in got]
        assert numbers == sorted(numbers)
        assert len(numbers) > 250


async def test_what_is_sent_when_a_player_is_discovered_arrives(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        old = await world.join("lobby", "old")
        said = old.channel("hello", Hello)

        @old.on_peer_discovered
        async def welcome(peer: Peer) -> None:
            await said.send(Hello("welcome"), to=peer)

        new = await world.join("lobby", "new")
        with trio.fail_after(5):
            _, message = await new.channel("hello", Hello).receive()
        assert message == Hello("welcome")


async def test_an_unreliable_message_does_not_wait(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        old = await world.join("lobby", "old")
        new = await world.join("lobby", "new")
        positions = new.channel("positions", mode="unreliable")
        assert (await positions.send(b"here")).waiting == ()
        with pytest.raises(PeerGone):
            await positions.send(b"here", to=old.me)


async def test_what_waited_for_a_player_who_leaves_is_counted(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        old = await world.join("lobby", "old")
        async with world.joining("lobby", "new") as new:
            said = old.channel("hello", Hello)
            while new.me not in old.peers:
                await trio.sleep(0.001)
            assert (await said.send(Hello("welcome"))).waiting == (new.me,)
            with world.net.partition(["old"], ["new"], signaling=True):
                await new.leave()
                await trio.sleep(10)
                assert names(old) == []
        assert (said.stats.sent, said.stats.skipped) == (0, 1)


async def test_after_an_eviction_every_call_names_the_reason(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada = await world.join("lobby", "ada")
        channel = ada.channel("hello", Hello)
        inside(ada).on_gossip(gossip_events.Evicted("superseded"))
        await trio.testing.wait_all_tasks_blocked()
        for call in (
            channel.receive_nowait,
            lambda: channel.send_nowait(Hello("x")),
            ada.topology,
            lambda: ada.channel("more"),
            lambda: ada.on_peer_left(lambda peer, reason: None),
        ):
            with pytest.raises(ClosedError, match="the same identity entered it elsewhere"):
                call()
        for ask in (channel.receive, lambda: channel.send(Hello("x")), ada.wait_connected, ada.leave):
            with pytest.raises(ClosedError, match="the same identity entered it elsewhere"):
                await ask()


async def test_a_message_of_another_version_is_an_event_once(autojump_clock: MockClock) -> None:
    class Old(Message, tag="Position"):
        x: float

    class New(Message, tag="Position"):
        x: float
        y: float

    async with open_world(seed=1) as world:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        told: list[events.MessageRefused] = []
        bob.on(events.MessageRefused, told.append)
        await ada.wait_connected(1)
        theirs = bob.channel("positions", New)
        for x in range(3):
            await ada.channel("positions", Old).send(Old(float(x)))
        with trio.move_on_after(1):
            await theirs.receive()
        assert [(event.peer.id, event.channel) for event in told] == [(ada.me, "positions")]
        assert "y" in told[0].reason
        assert theirs.stats.refused == 3


async def test_nobody_who_has_left_is_heard_before_it_is_discovered_again(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        await ada.wait_connected(1)
        strays: list[bytes] = []
        got: list[int] = []

        async def read() -> None:
            async for peer, number in ada.channel("numbers"):
                got.append(int(number))
                if peer.id not in ada.peers:
                    strays.append(number)

        async def speak() -> None:
            for number in range(600):
                await bob.channel("numbers").send(str(number))
                await trio.sleep(0.03)

        nursery.start_soon(read)
        nursery.start_soon(speak)
        await trio.sleep(1)
        with world.net.named("bob").pause():
            await trio.sleep(5)
            assert names(ada) == []
        with trio.fail_after(2):
            while not ada.connected:
                await trio.sleep(0.01)
        await trio.sleep(15)
        assert strays == []
        assert got == list(range(600))
        nursery.cancel_scope.cancel()
