"""A player with two faces, among real rooms: it is named, and shut out; those who come later hear of it, too."""

from __future__ import annotations

import attrs
import trio
from trio.testing import MockClock

from psyne_mesh import events
from psyne_mesh.gossip import codec
from psyne_mesh.gossip.exchange import told
from psyne_mesh.gossip.records import OwnState, Record, RoomKey
from psyne_mesh.room.room import Room, inside
from psyne_mesh.testing import open_world


def face(room: Room, name: str) -> Record:
    core = inside(room).joined().node._core
    state = attrs.evolve(core.census.state, incarnation=core.census.state.incarnation + 1, name=name)
    assert isinstance(state, OwnState)
    own = core.census.own
    return state.sign(RoomKey(own.room), core.identity, own.instance, own.at)


async def test_a_player_with_two_faces_is_named_and_shut_out(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob, mallory = [await world.join("lobby", name) for name in ("ada", "bob", "mallory")]
        for room in (ada, bob, mallory):
            await room.wait_connected(2)
        seen: list[tuple[str, object]] = []
        for room in (ada, bob):
            room.on(events.TwoFaced, lambda event: seen.append(("named", event.player)))
            room.on_peer_left(lambda peer, reason: seen.append((reason, peer.id)))
        for room, name in ((ada, "an angel"), (bob, "a devil")):
            link = mallory._core.link(room.me)
            assert link is not None
            frame = told(face(mallory, name))
            assert frame[1] == codec.TOLD
            link.send_frame(inside(mallory).joined().tag + frame, reliable=True)
        with trio.fail_after(5):
            while len(seen) < 4:
                await trio.sleep(0.1)
        assert seen.count(("two-faced", mallory.me)) == seen.count(("named", mallory.me)) == 2
        assert [peer.name for peer in ada.connected] == ["bob"]
        assert [peer.name for peer in bob.connected] == ["ada"]
        carol = await world.join("lobby", "carol")
        await carol.wait_connected(2)
        await trio.sleep(5)
        assert {peer.name for peer in carol.connected} == {"ada", "bob"}
