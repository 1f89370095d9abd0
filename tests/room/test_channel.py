"""The receiving half of a room channel by itself: turns, ends, and what is no message."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from psyne_mesh.errors import ClosedError, InvalidConfig, WouldBlock
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.codec import MessageCodec
from psyne_mesh.room.delivery import UNRELIABLE_UNORDERED
from psyne_mesh.room.losses import Losses
from psyne_mesh.room.messages import Message
from psyne_mesh.room.silent import Silent


class Note(Message):
    number: int


CODEC = MessageCodec([Note])
SENDER: Any = SimpleNamespace(id="sender")
LOSSES = Losses([].append, lambda *_: None, lambda *_: None)


def make(inbox_max: int = 1024, faults: list[Exception] | None = None) -> Channel[Note]:
    membership: Any = SimpleNamespace(label=lambda name: name, max_message_size=1000)
    fault = [].append if faults is None else faults.append
    return Channel(
        membership, {}, Silent(0), LOSSES, "notes", CODEC, UNRELIABLE_UNORDERED, 256,
        inbox_max, fault,
    )  # fmt: skip


async def test_a_receive_loop_lets_other_tasks_have_their_turn() -> None:
    channel = make()
    for number in range(1000):
        channel.deliver(SENDER, CODEC.encode(Note(number)))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for number in range(1000):
            assert (await channel.receive())[1] == Note(number)
        assert turns >= 10
        nursery.cancel_scope.cancel()
    assert channel.stats.received == 1000


async def test_a_sleeping_reader_is_woken_past_what_is_no_message_and_by_the_end() -> None:
    channel = make()
    got: list[int] = []

    async def read() -> None:
        async for _, note in channel:
            got.append(note.number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        channel.deliver(SENDER, b"\xc1 no message")
        await trio.testing.wait_all_tasks_blocked()
        assert (got, channel.stats.refused) == ([], 1)
        channel.deliver(SENDER, CODEC.encode(Note(1)))
        channel.deliver(SENDER, CODEC.encode(Note(2)))
        channel.close("the room was left")
    assert sorted(got) == [1, 2]
    with pytest.raises(ClosedError):
        await channel.receive()
    with pytest.raises(ClosedError):
        channel.receive_nowait()


async def test_a_full_inbox_drops_the_oldest_and_a_cancelled_receive_loses_nothing() -> None:
    channel = make(inbox_max=3)
    for number in range(5):
        channel.deliver(SENDER, CODEC.encode(Note(number)))
    assert channel.stats.dropped == 2
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.receive()
    assert scope.cancelled_caught
    assert [channel.receive_nowait()[1].number for _ in range(3)] == [2, 3, 4]
    with pytest.raises(WouldBlock):
        channel.receive_nowait()


async def test_a_callback_gets_what_waits_and_what_comes_and_nobody_else_does() -> None:
    channel = make()
    got: list[int] = []
    channel.deliver(SENDER, CODEC.encode(Note(1)))
    assert channel.on_message(lambda sender, note: got.append(note.number)) is not None
    channel.deliver(SENDER, b"no message of this channel")
    channel.deliver(SENDER, CODEC.encode(Note(2)))
    assert got == [1, 2]
    assert (channel.stats.received, channel.stats.refused) == (2, 1)
    with pytest.raises(InvalidConfig, match="callback"):
        channel.receive_nowait()
    with pytest.raises(InvalidConfig, match="callback"):
        channel.on_message(print)


async def test_who_waits_for_a_message_is_told_that_a_callback_gets_them() -> None:
    channel = make()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            with pytest.raises(InvalidConfig, match="callback"):
                await channel.receive()

        await trio.testing.wait_all_tasks_blocked()
        channel.on_message(print)


@pytest.mark.parametrize("callback", [None, 3, trio.sleep])
def test_a_callback_is_a_plain_function(callback: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"channel\.on_message"):
        make().on_message(callback)


async def test_what_a_callback_raises_goes_to_the_room_and_not_into_the_packet_handler() -> None:
    faults: list[Exception] = []
    channel = make(faults=faults)
    channel.on_message(lambda sender, note: 1 / note.number)
    channel.deliver(SENDER, CODEC.encode(Note(0)))
    assert [type(fault) for fault in faults] == [ZeroDivisionError]


async def test_what_newer_messages_replace_is_never_decoded() -> None:
    decoded: list[bytes] = []

    class Counting(MessageCodec):
        def decode_untrusted(self, payload: bytes | str) -> Message:
            decoded.append(bytes(payload))  # type: ignore[arg-type]
            return super().decode_untrusted(payload)

    membership: Any = SimpleNamespace(label=lambda name: name, max_message_size=1000)
    channel: Channel[Note] = Channel(
        membership, {}, Silent(0), LOSSES, "notes", Counting([Note]), UNRELIABLE_UNORDERED,
        256, 2, [].append,
    )  # fmt: skip
    for number in range(10):
        channel.deliver(SENDER, CODEC.encode(Note(number)))
    assert [(await channel.receive())[1].number for _ in range(2)] == [8, 9]
    assert len(decoded) == 2
    assert channel.stats.dropped == 8
