"""Members who lie, forge and flood: each harms nobody but its own link."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import EventBacklog, ProtocolError, WouldBlock
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.core import DIALS_IN_A_ROW
from psyne_mesh.mesh.link import ASKED_RESTARTS
from psyne_mesh.mesh.sealed import SEAL_BYTES, WINDOW, Seals
from psyne_mesh.room.carried import carried
from psyne_mesh.room.delivery import RELIABLE_ORDERED, UNRELIABLE_UNORDERED
from psyne_mesh.room.events import SignalingUp
from psyne_mesh.room.hub import EventHub
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.room import Room
from psyne_mesh.room.undeclared import BYTES_MAX, LIFE_S, MESSAGES_MAX, Undeclared
from psyne_mesh.signaling.envelope import Kind, open_untrusted, seal
from psyne_mesh.testing import World, open_world

TAG = b"the-room"


def membership(room: Room):  # type: ignore[no-untyped-def]
    assert room._membership is not None
    return room._membership


async def two(world: World) -> tuple[Room, Room]:
    ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
    await ada.wait_connected(1)
    await bob.wait_connected(1)
    return ada, bob


async def test_a_carried_message_is_of_whom_it_says(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        channel = ada.channel("notes")
        message = carried("notes", b"hello")
        mallory = Seals(Identity.generate(), membership(ada).tag)
        theirs = membership(bob)
        honest = theirs._seals.seal(ada.me, theirs.node.own_record.epoch, message)
        forged = mallory.seal(ada.me, theirs.node.own_record.epoch, message)
        for blob in (message, forged, honest[:-1] + b"x", honest, honest):
            ada.on_gossip(gossip_events.SignalReceived(bob.me, blob))
        ada.on_gossip(gossip_events.SignalReceived(Identity.generate().peer_id, honest))
        peer, payload = channel.receive_nowait()
        assert (peer.id, payload) == (bob.me, b"hello")
        with pytest.raises(WouldBlock):
            channel.receive_nowait()


async def test_a_seal_holds_for_one_recipient_room_and_stay(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        record = membership(ada).node.record(bob.me)
        identity = world_identity(bob)
        sender, receiver = Seals(identity, TAG), Seals(Identity.generate(), TAG)
        me = receiver._identity.peer_id
        blobs = [sender.seal(me, record.epoch, b"%d" % number) for number in range(WINDOW + 2)]
        assert all(len(blob) > SEAL_BYTES for blob in blobs)
        refused = [
            sender.seal(bob.me, record.epoch, b"to another"),
            sender.seal(me, record.epoch + 1, b"of another stay"),
            Seals(identity, b"elsewhere").seal(me, record.epoch, b"in another room"),
            blobs[0][: SEAL_BYTES - 1],
            b"",
        ]
        for blob in refused:
            with pytest.raises(ProtocolError):
                receiver.open_untrusted(record, blob)
        for number in (1, 0, 3, 2, WINDOW + 1):  # they may overtake each other
            assert receiver.open_untrusted(record, blobs[number]) == b"%d" % number
            with pytest.raises(ProtocolError, match="repeated"):
                receiver.open_untrusted(record, blobs[number])
        with pytest.raises(ProtocolError, match="repeated"):
            receiver.open_untrusted(record, blobs[0])


def world_identity(room: Room) -> Identity:
    return room._core.identity


def envelope(sender: Identity, to: PeerId, room: str, session: str, sequence: int, kind: Kind, body: str = "") -> str:
    return seal(sender, kind=kind, recipient=to, room=room, session=session, sequence=sequence, body=body,
                now_ms=time.time_ns() // 1_000_000)  # fmt: skip


async def test_who_dials_again_and_again_is_not_answered_again_and_again(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        core, room = ada._core, membership(ada).room
        mallory = Identity.generate()
        offers: list[str] = []
        world.hub.intercept = lambda sender, to, room, text: offers.append(text) or text  # type: ignore[func-returns-value]
        bobs_link = core.link(bob.me)
        assert bobs_link is not None
        offer = "v=0\r\n"
        for number in range(300):
            world.hub.inject(
                mallory.peer_id, ada.me, room, envelope(mallory, ada.me, room, f"s{number}", 0, "offer", offer)
            )
            if number % 10 == 0:
                await trio.sleep(0.01)
            assert len(core.endpoint.peers) <= DIALS_IN_A_ROW + 2
        assert core.link(bob.me) is bobs_link
        assert bobs_link.is_direct


@pytest.mark.parametrize("kind", ["restart", "offer"])
async def test_searches_and_offers_of_a_peer_have_a_limit(autojump_clock: MockClock, kind: Kind) -> None:
    """Inside its own session, where it may say what it likes."""
    async with open_world(seed=1) as world:
        rooms = await two(world)
        room = membership(rooms[0]).room
        victim, hostile = rooms if rooms[0]._core.link(rooms[1].me).offerer == (kind == "restart") else rooms[::-1]  # type: ignore[union-attr]
        link = victim._core.link(hostile.me)
        assert link is not None
        said: list[str] = []

        def listen(sender: PeerId, to: PeerId, room: str, text: str) -> str:
            if sender == victim.me:
                said.append(open_untrusted(text, recipient=to, now_ms=time.time_ns() // 1_000_000).kind)
            return text

        world.hub.intercept = listen
        identity = world_identity(hostile)
        theirs = hostile._core.link(victim.me)
        assert theirs is not None
        for number in range(100):
            body = await theirs._connection.restart_ice(trickle=True) if kind == "offer" else ""  # type: ignore[union-attr]
            text = envelope(identity, victim.me, room, link.session, 1000 + number, kind, body)
            world.hub.inject(hostile.me, victim.me, room, text)
            await trio.sleep(0.02)
        answer = "answer" if kind == "offer" else "offer"
        assert 1 <= said.count(answer) <= ASKED_RESTARTS + 2
        assert victim._core.link(hostile.me) is link


def test_what_nobody_declared_is_kept_within_bounds() -> None:
    peer = Peer.__new__(Peer)
    kept = Undeclared()
    for number in range(2 * MESSAGES_MAX):
        kept.put(peer, "small", b"%d" % number, 0.0)
    assert len(kept.take("small", RELIABLE_ORDERED, 60.0)) == MESSAGES_MAX
    for _ in range(100):
        kept.put(peer, "large", bytes(BYTES_MAX // 10), 0.0)
    kept.put(peer, "other", b"x" * 8, 0.0)
    assert len(kept.take("large", RELIABLE_ORDERED, 0.0)) == 9
    assert kept.take("other", UNRELIABLE_UNORDERED, LIFE_S + 0.1) == []
    kept.put(peer, "other", b"y", 1.0)
    assert kept.take("other", UNRELIABLE_UNORDERED, 1.0 + LIFE_S) == [(peer, b"y")]
    assert kept.take("other", UNRELIABLE_UNORDERED, 1.0) == []


async def test_a_flood_of_events_ends_only_the_reader_that_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.room.hub.BACKLOG_MAX", 10)
    hub = EventHub(list)
    stuck, reader = hub.events(), hub.events()
    called: list[int] = []
    for number in range(3):  # together they are far more than 10 events behind
        hub.subscribe(SignalingUp, lambda event, number=number: called.append(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        for _ in range(2):
            for _ in range(8):
                hub.publish(SignalingUp())
            for _ in range(8):
                await reader.__anext__()
        hub.publish(SignalingUp())
        assert isinstance(await reader.__anext__(), SignalingUp)
        hub.close()
    assert sorted(called) == [0] * 17 + [1] * 17 + [2] * 17
    with pytest.raises(StopAsyncIteration):
        await reader.__anext__()
    for _ in range(10):
        await stuck.__anext__()
    with pytest.raises(EventBacklog):
        await stuck.__anext__()
