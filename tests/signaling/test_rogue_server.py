"""A server that answers what it likes: its clients get typed errors, and what they had stands."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from psyne_mesh.errors import RoomFull, SignalingError
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.events import Lost, PeerJoined, Restored
from psyne_mesh.signaling.joining import JoinRequest

from .rogue import open_rogue, welcome_in
from .worlds import player

NONSENSE = {
    "a band upside down": {"skill_range": (5.0, 1.0)},
    "metadata over the limit": {"metadata": {"a": "x" * 5000}},
    "another room's key": {"room": "//elsewhere"},
}
UNFIT = ("peer_gone", "unheard of")


def join_of(question: m.ClientMessage) -> m.Join:
    assert isinstance(question, m.Join)
    return question


def refused(question: m.ClientMessage, code: str) -> m.Error:
    return m.Error(code=code, message="ha", ref=getattr(question, "ref", None))


@pytest.mark.parametrize("changes", NONSENSE.values(), ids=NONSENSE.keys())
async def test_a_room_that_cannot_be_is_not_entered(changes: dict[str, object], autojump_clock: MockClock) -> None:
    async with open_rogue(lambda q: welcome_in(join_of(q))) as rogue, rogue.connect(1) as a:
        await a.join(JoinRequest("stands"))
        rogue.answer = lambda q: welcome_in(q, **changes) if isinstance(q, m.Join) else None  # each is taken back
        began = trio.current_time()
        with pytest.raises(SignalingError, match="nonsense"):
            await a.join(JoinRequest("lobby"))
        assert trio.current_time() - began < 1, "the question has its answer, such as it is"
        rogue.cut()
        assert isinstance(await a.next_event(), Lost)
        restored = await a.next_event()
        assert isinstance(restored, Restored)
        assert [(room, type(error)) for room, error in restored.refused] == [("//stands", SignalingError)]


@pytest.mark.parametrize("code", UNFIT)
async def test_what_is_no_answer_to_the_question_is_a_signaling_error(code: str, autojump_clock: MockClock) -> None:
    async with open_rogue(lambda q: welcome_in(join_of(q))) as rogue, rogue.connect(1) as a:
        await a.join(JoinRequest("stands"))
        rogue.answer = lambda q: refused(q, code)
        with pytest.raises(SignalingError):
            await a.join(JoinRequest("lobby"))
        rogue.cut()
        assert isinstance(await a.next_event(), Lost)
        restored = await a.next_event()
        assert isinstance(restored, Restored)
        assert [(room, type(error)) for room, error in restored.refused] == [("//stands", SignalingError)]
        for unfit in (*UNFIT, "room_not_found", "room_full"):
            rogue.answer = lambda q, unfit=unfit: refused(q, unfit)  # type: ignore[misc]
            for question in (a.list_rooms, lambda: a.leave("//stands")):
                with pytest.raises(SignalingError):
                    await question()  # type: ignore[operator]
        rogue.answer = lambda q: refused(q, "room_full")
        with pytest.raises(RoomFull):
            await a.join(JoinRequest("lobby"))
        assert a.is_connected


async def test_a_list_of_rooms_that_cannot_be_is_a_signaling_error(autojump_clock: MockClock) -> None:
    bad = welcome_in(m.Join(ref=0, name="r"), skill_range=(5.0, 1.0)).info
    async with open_rogue(lambda q: m.RoomList(ref=q.ref, rooms=[bad], truncated=False)) as rogue:  # type: ignore[union-attr]
        async with rogue.connect(1) as a:
            with pytest.raises(SignalingError, match="nonsense"):
                await a.list_rooms()


@pytest.mark.parametrize("leave_first", [True, False])
async def test_of_a_leave_and_a_join_the_later_one_holds(leave_first: bool, autojump_clock: MockClock) -> None:
    async with open_rogue(lambda q: welcome_in(join_of(q))) as rogue, rogue.connect(1) as a:
        await a.join(JoinRequest("r"))
        rogue.answer = lambda q: None
        questions = [lambda: a.leave("//r"), lambda: a.join(JoinRequest("r"))]
        async with trio.open_nursery() as nursery:
            for question in questions if leave_first else reversed(questions):
                nursery.start_soon(question)
                await wait_all_tasks_blocked()
            for asked in rogue.asked[-2:]:  # both answers in one tick, before the tasks that asked wake
                answer = (
                    m.LeftRoom(ref=asked.ref, room="//r") if isinstance(asked, m.Leave) else welcome_in(join_of(asked))
                )
                a._deliver(answer)
        newcomer = m.Member(player(2).peer_id, "", 1)
        a._deliver(m.MemberJoined(room="//r", peer=newcomer))
        with trio.move_on_after(1):
            assert isinstance(await a.next_event(), PeerJoined)
            assert leave_first, "who left hears nothing"
            return
        assert not leave_first
