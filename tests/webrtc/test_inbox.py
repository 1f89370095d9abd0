"""What a task that reads costs the others, and what it costs itself."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from psyne_mesh.webrtc.inbox import Inbox


class Steps(trio.abc.Instrument):
    """Counts how often each task had its turn."""

    def __init__(self) -> None:
        self.by_name: dict[str, int] = {}

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.by_name[task.name] = self.by_name.get(task.name, 0) + 1


async def test_a_reader_has_one_turn_for_a_message_that_it_waited_for() -> None:
    inbox: Inbox[int] = Inbox()
    got: list[int] = []

    async def read() -> None:
        async for item in inbox:
            got.append(item)

    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, name="reader")
            for number in range(100):
                await trio.testing.wait_all_tasks_blocked()
                inbox.put(number)
            await trio.testing.wait_all_tasks_blocked()
            inbox.close()
    finally:
        trio.lowlevel.remove_instrument(steps)
    assert got == list(range(100))
    assert steps.by_name["reader"] == 100 + 2  # the start and the end


async def test_a_reader_that_always_finds_something_lets_others_have_their_turn() -> None:
    inbox: Inbox[int] = Inbox()
    for number in range(1000):
        inbox.put(number)
    inbox.close()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert len([item async for item in inbox]) == 1000
        assert turns >= 10
        nursery.cancel_scope.cancel()


async def test_each_read_can_be_cancelled_and_loses_nothing() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(inbox)
    assert scope.cancelled_caught
    assert await anext(inbox) == 1
    with trio.move_on_after(0) as scope:
        await anext(inbox)
    assert scope.cancelled_caught
    inbox.put(2)
    assert await anext(inbox) == 2


async def test_two_readers_share_what_comes() -> None:
    inbox: Inbox[int] = Inbox()
    got: list[int] = []

    async def read() -> None:
        async for item in inbox:
            got.append(item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        inbox.put(0)
        assert await anext(inbox) == 0  # the reader that was woken for it goes back to sleep
        for number in range(1, 10):
            inbox.put(number)
        inbox.close()
    assert sorted(got) == list(range(1, 10))


@pytest.mark.parametrize("error", [None, ValueError("broken")])
async def test_news_is_an_item_or_the_end(error: Exception | None) -> None:
    inbox: Inbox[int] = Inbox()
    assert not inbox.has_news
    inbox.put(1)
    assert inbox.has_news
    inbox.get_nowait()
    assert not inbox.has_news
    inbox.close(error)
    assert inbox.has_news
    await inbox.wait()
    with pytest.raises(ValueError if error else StopAsyncIteration):
        inbox.get_nowait()
