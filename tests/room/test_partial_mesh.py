"""Rooms where not everybody has a link to everybody: being in the room still means being reachable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import trio.testing
from trio.testing import MockClock

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import MessageTooLarge, ProtocolError, WouldBlock
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.events import BroadcastReceived
from psyne_mesh.mesh.membership import SendOutcome
from psyne_mesh.room import events
from psyne_mesh.room.carried import carried, carried_untrusted
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.inside import CARRIED_LIFE_S
from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room, inside
from psyne_mesh.testing import Quality, open_world
from tests.room.players import LOOPBACK, connected, first, open_party

SMALL = GossipConfig(full_mesh_max=4, full_mesh_hysteresis=1, active_view=3, max_players=16)


class Note(Message):
    number: int


async def test_a_broadcast_reaches_everybody_in_a_partial_mesh_in_order() -> None:
    async with open_party() as party:
        rooms = [await party.join(name=str(number), gossip=SMALL) for number in range(8)]
        for room in rooms:  # everybody knows everybody, and hangs on the overlay by more than a thread
            while len(room.peers) < 7 or len(room.connected) < 3:
                await trio.testing.wait_all_tasks_blocked(0.01)
            await room.wait_connected()
        channels = [room.channel("notes", Note) for room in rooms]
        report = [await channels[0].send(Note(number)) for number in range(20)]
        assert all(one.sent == 7 for one in report)
        for channel in channels[1:]:
            assert [(await channel.receive())[1].number for _ in range(20)] == list(range(20))
        views = [room.topology() for room in rooms]
        assert all(len(view.nodes) == 8 for view in views)
        assert {view.mode for view in views} == {"partial"}


async def test_a_message_that_others_cannot_carry_is_refused_before_anybody_gets_it(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        rooms = [await world.join("lobby", str(number), gossip=SMALL) for number in range(8)]
        channels = [room.channel("notes") for room in rooms]
        with trio.fail_after(60):
            for room in rooms:
                await room.wait_connected(7)  # some of them through others
            while not any(peer.relayed for peer in rooms[0].peers.values()):
                await trio.sleep(0.1)
        limit = SMALL.broadcast_max_bytes - len(carried("notes", b""))
        with pytest.raises(MessageTooLarge) as refused:
            await channels[0].send(b"x" * (limit + 1))
        assert (refused.value.size, refused.value.limit) == (limit + 1, limit)
        far = next(peer for peer in rooms[0].peers.values() if peer.relayed)
        near = rooms[0].connected[0]
        with pytest.raises(MessageTooLarge):
            await channels[0].send(b"x" * (limit + 1), to=far)
        report = await channels[0].send(b"x" * (limit + 1), to=[far, near])
        assert report.skipped == {far.id: SendOutcome.TOO_LARGE}
        await channels[0].send(b"x" * limit)
        with trio.fail_after(60):
            for room, channel in zip(rooms[1:], channels[1:], strict=True):
                wanted = [limit + 1, limit] if room.me == near.id else [limit]
                assert sorted(wanted) == sorted([len((await channel.receive())[1]) for _ in wanted])


async def test_what_is_said_while_a_cut_makes_the_room_small_reaches_the_far_side_in_order(
    autojump_clock: MockClock,
) -> None:
    """Three of ten are a full mesh meanwhile; their words go on in the stream that the others will ask for."""
    async with open_world(seed=3) as world, trio.open_nursery() as nursery:
        names = [f"p{number}" for number in range(10)]
        rooms = [await world.join("lobby", name, gossip=SMALL) for name in names]
        for room in rooms:
            await room.wait_connected(9)
        got: dict[str, list[int]] = {name: [] for name in names[1:]}

        async def read(name: str, room: Room) -> None:
            async for _, note in room.channel("notes", Note):
                got[name].append(note.number)

        for name, room in zip(names[1:], rooms[1:], strict=True):
            nursery.start_soon(read, name, room)
        await trio.sleep(10)
        with world.net.partition(names[:3], names[3:], signaling=False):
            for number in range(5):
                await trio.sleep(4)
                await rooms[0].channel("notes", Note).send(Note(number))
            assert len(rooms[0].connected) == 2
        await trio.sleep(20)
        await rooms[0].channel("notes", Note).send(Note(5))
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert all(numbers == list(range(6)) for numbers in got.values()), got


async def test_a_sender_in_a_partial_mesh_goes_at_the_pace_of_its_links(autojump_clock: MockClock) -> None:
    async with open_world(seed=3, quality=Quality(latency_s=0.02, bytes_per_s=500_000)) as world:
        rooms = [await world.join("big", str(number), gossip=SMALL) for number in range(7)]
        for room in rooms:
            await room.wait_connected(6)
        await trio.sleep(10)
        readers = [room.channel("bulk") for room in rooms[1:]]
        bulk, sent = rooms[0].channel("bulk"), 0
        with trio.move_on_after(5):
            while True:
                sent += (await bulk.send(bytes(16_000))).sent == 6
                await trio.sleep(0.001)
        assert sent < 5 * 3 * 500_000 / 16_000
        assert all(len(room.peers) == 6 for room in rooms)
        await trio.sleep(20)
        # Nobody reads meanwhile: of what others carry a reader keeps 4 MiB, and counts the rest.
        assert [sum(1 for _ in waiting(channel)) + channel.stats.dropped for channel in readers] == 6 * [sent]
        report = None
        for _ in range(3_000):
            if (report := bulk.send_nowait(bytes(16_000))).skipped:
                break
        assert report is not None
        on_its_own = len(rooms[0].connected) == 6  # with a link to everybody nothing is carried
        assert set(report.skipped.values()) == {SendOutcome.OVERFLOW if on_its_own else SendOutcome.CONGESTED}


def waiting(channel: Channel[Any]) -> Iterator[Any]:
    with suppress(WouldBlock):
        while True:
            yield channel.receive_nowait()


async def test_who_has_lost_every_link_reaches_nobody_and_is_told_so(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        names = [str(number) for number in range(8)]
        rooms = [await world.join("lobby", name, gossip=SMALL) for name in names]
        for room in rooms:
            await room.wait_connected(7)
        world.hub.kill()
        alone, notes = rooms[0], [room.channel("notes") for room in rooms]
        said = 0
        with world.net.partition(names[:1], names[1:]), trio.fail_after(13):
            while alone.topology().links:
                said += 1
                await notes[0].send(bytes([said]))
                await trio.sleep(1)
            assert not any(peer.connected or peer.relayed for peer in alone.peers.values())
            for _ in range(3):  # it waits until somebody is back who passes it on, and goes nowhere else
                said += 1
                report = await notes[0].send(bytes([said]))
                assert (set(report.waiting), report.skipped) == (set(alone.peers), {})
            position = await alone.channel("positions", mode="unreliable").send(b"here?")
            assert set(position.skipped) == set(alone.peers)
            assert set(position.skipped.values()) == {SendOutcome.NOT_CONNECTED}
        with trio.fail_after(10):
            for channel in notes[1:]:
                assert [(await channel.receive())[1][0] for _ in range(said)] == list(range(1, said + 1))


async def test_a_pair_that_cannot_connect_talks_through_a_third() -> None:
    impatient = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False, connection_timeout_s=0.3)
    async with open_party() as party:
        ada = await party.join(name="ada", config=impatient)
        bob = await party.join(name="bob", config=LOOPBACK)
        await connected(ada, bob)
        cid_key = None

        def no_dial_between_ada_and_cid(sender: str, to: str, room: str, envelope: str) -> str | None:
            return None if cid_key is not None and {sender, to} == {ada.me, cid_key} else envelope

        from psyne_mesh.identity import Identity

        identity = Identity.generate()
        cid_key = identity.peer_id
        party.hub.intercept = no_dial_between_ada_and_cid
        cid = await party.join(name="cid", config=impatient, identity=identity)
        await cid.wait_connected(1)
        unreachable = await first(cid, events.PeerUnreachable)
        assert unreachable.peer.id == ada.me
        await first(ada, events.PeerUnreachable)
        await cid.channel("notes", Note).send(Note(1))
        assert (await ada.channel("notes", Note).receive())[1] == Note(1)
        assert (await bob.channel("notes", Note).receive())[1] == Note(1)
        await ada.channel("notes", Note).send(Note(2), to=cid.me)
        assert (await cid.channel("notes", Note).receive())[1] == Note(2)


@pytest.mark.parametrize("payload", [b"", b"\x00bytes", "", "text \N{SNOWMAN}"])
@pytest.mark.parametrize("reliable", [True, False])
def test_carried_messages_come_back_equal(payload: bytes | str, reliable: bool) -> None:
    blob = carried("a/channel", payload, reliable=reliable)
    assert carried_untrusted(blob) == ("a/channel", payload, reliable)


async def test_what_others_carried_for_too_long_is_dropped_unless_it_is_reliable() -> None:
    async with open_party() as party:
        ada, bob = await party.join(name="ada"), await party.join(name="bob")
        await connected(ada, bob)
        channel = ada.channel("notes")
        for age_s in (0.0, CARRIED_LIFE_S, CARRIED_LIFE_S + 0.1, 30.0):
            for reliable in (True, False):
                blob = carried("notes", f"{reliable} {age_s}", reliable=reliable)
                inside(ada).on_gossip(BroadcastReceived(bob.me, blob, 1, age_s))
        got = [(await channel.receive())[1] for _ in range(6)]
        assert got == ["True 0.0", "False 0.0", "True 1.0", "False 1.0", "True 1.1", "True 30.0"]


@pytest.mark.parametrize(
    "blob",
    [b"", b"\x01", b"\x01\x00\x00", b"\x01\x04\x01a", b"\x01\x00\x05ab", b"\x01\x00\x01\xff", b"\x01\x00\x01a\xff"],
)
def test_bad_carried_messages(blob: bytes) -> None:
    with pytest.raises(ProtocolError):
        carried_untrusted(blob)
