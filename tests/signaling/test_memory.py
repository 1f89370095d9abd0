"""The hooks by which a test breaks signaling in memory."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import RoomFull, SignalingError, SignalingLost
from psyne_mesh.signaling.events import Lost, PeerJoined, PeerLeft, Restored, SignalReceived
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.memory import open_memory_signaling

from .worlds import player

A, B, C = (player(number).peer_id for number in (1, 2, 3))


async def test_a_man_in_the_middle_can_change_and_drop() -> None:
    async with open_memory_signaling() as hub, hub.connect(A) as a, hub.connect(B) as b:
        await a.join(JoinRequest("r"))
        await b.join(JoinRequest("r"))
        assert isinstance(await a.next_event(), PeerJoined)
        seen = []

        def middle(sender: str, to: str, room: str, envelope: str) -> str | None:
            seen.append((sender, to, room, envelope))
            return None if envelope == "drop me" else envelope.upper()

        hub.intercept = middle
        a.send_signal(B, "//r", "drop me")
        a.send_signal(B, "//r", "change me")
        assert await b.next_event() == SignalReceived(A, "//r", "CHANGE ME")
        assert seen == [(A, B, "//r", "drop me"), (A, B, "//r", "change me")]
        hub.inject(C, B, "//r", "out of nowhere")
        assert await b.next_event() == SignalReceived(C, "//r", "out of nowhere")


async def test_delay_is_virtual_time(autojump_clock: MockClock) -> None:
    async with open_memory_signaling() as hub, hub.connect(A) as a:
        await a.join(JoinRequest("r"))
        hub.delay_s = 2.5
        a.send_signal(A, "//r", "later")
        began = trio.current_time()
        assert await a.next_event() == SignalReceived(A, "//r", "later")
        assert trio.current_time() - began == pytest.approx(2.5)


async def test_one_client_is_cut_off_and_comes_back() -> None:
    async with open_memory_signaling() as hub, hub.connect(A) as a, hub.connect(B) as b:
        await a.join(JoinRequest("r", record="old"))
        await b.join(JoinRequest("r", max_players=2))
        assert isinstance(await a.next_event(), PeerJoined)
        hub.disconnect(A)
        hub.disconnect(A)
        lost = await a.next_event()
        assert isinstance(lost, Lost)
        assert lost.retrying
        assert await b.next_event() == PeerLeft("//r", A, "lost")
        with pytest.raises(SignalingLost):
            a.send_signal(B, "//r", "x")
        with pytest.raises(SignalingLost):
            await a.list_rooms()
        a.set_record("//r", "new")
        hub.reconnect(A)
        restored = await a.next_event()
        assert isinstance(restored, Restored)
        assert [p.peer_id for p in restored.rooms[0].peers] == [B]
        back = await b.next_event()
        assert isinstance(back, PeerJoined)
        assert (back.peer.record, back.rejoined) == ("new", True)


async def test_the_hub_dies_and_comes_back_empty() -> None:
    async with open_memory_signaling() as hub, hub.connect(A) as a, hub.connect(B) as b:
        await a.join(JoinRequest("r", max_players=5, metadata={"map": "dust"}))
        await b.join(JoinRequest("r", max_players=2))
        hub.kill()
        with pytest.raises(SignalingError):
            async with hub.connect(C):
                pass
        hub.revive()
        assert [type(await a.next_event()) for _ in range(4)] == [PeerJoined, Lost, Restored, PeerJoined]
        assert hub.registry.list_rooms().rooms[0].max_players == 5, "the room's own size, whoever came first"
        assert hub.registry.list_rooms().rooms[0].metadata == {"map": "dust"}
        while not isinstance(event := await b.next_event(), Restored):
            assert isinstance(event, Lost | PeerLeft)
        assert [p.peer_id for p in event.rooms[0].peers] == [A]


async def test_a_room_that_filled_up_meanwhile_refuses_the_return(autojump_clock: MockClock) -> None:
    async with open_memory_signaling() as hub, hub.connect(A) as a, hub.connect(B) as b, hub.connect(C) as c:
        await b.join(JoinRequest("r", max_players=2))
        await a.join(JoinRequest("r"))
        hub.disconnect(A)
        with pytest.raises(RoomFull):
            await c.join(JoinRequest("r"))
        await trio.sleep(11)
        await c.join(JoinRequest("r"))
        hub.reconnect(A)
        assert isinstance(await a.next_event(), Lost)
        restored = await a.next_event()
        assert isinstance(restored, Restored)
        assert restored.rooms == ()
        assert [(key, type(error)) for key, error in restored.refused] == [("//r", RoomFull)]
