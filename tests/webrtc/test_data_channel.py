"""What a task can do with a channel: wait, be told of the end, push back and be pushed back."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
import trio.testing

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import ClosedError, InvalidConfig, MessageTooLarge, PeerGone, WouldBlock
from psyne_mesh.webrtc.data_channel import HIGH_WATER_BYTES, LOW_WATER_BYTES, DataChannel
from psyne_mesh.webrtc.inbox import Inbox
from tests.webrtc.dial import LOOPBACK, dialled, introduce, two_peers


async def test_the_configuration_travels() -> None:
    config = DataChannelConfig(label="é", protocol="p", ordered=False, max_retransmits=2, priority=512)
    async with dialled(channel=config) as call:
        assert call.theirs.config == call.ours.config == config
        assert (call.theirs.label, call.theirs.state) == ("é", "open")
        assert "open" in repr(call.ours)


async def test_negotiated_channels_on_both_sides() -> None:
    config = DataChannelConfig(negotiated=True, id=4)
    async with two_peers() as (offerer, answerer):
        left, right = offerer.create_channel(config), answerer.create_channel(config)
        with pytest.raises(InvalidConfig):
            offerer.create_channel(config)
        await introduce(offerer, answerer)
        await left.send("sent while the other side may not be open yet")
        assert await right.receive()
        await right.wait_open()
        assert left.id == right.id == 4


async def test_sending_waits_for_the_opening() -> None:
    async with two_peers() as (offerer, answerer):
        channel = offerer.create_channel()
        assert channel.id is None
        with pytest.raises(WouldBlock):
            channel.send_nowait("too early")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.send, "in time")
            nursery.start_soon(introduce, offerer, answerer)
        theirs = await anext(answerer.incoming_channels)
        assert await theirs.receive() == "in time"


@pytest.mark.parametrize("closer", ["ours", "theirs"])
async def test_the_end_comes_after_the_last_message(closer: str) -> None:
    async with dialled() as call:
        near, far = (call.ours, call.theirs) if closer == "ours" else (call.theirs, call.ours)
        for n in range(50):
            await near.send(str(n))
        near.close()
        near.close()
        assert [message async for message in far] == [str(n) for n in range(50)]
        with pytest.raises(PeerGone):
            await far.receive()
        with pytest.raises(PeerGone):
            far.receive_nowait()
        with pytest.raises(PeerGone):
            await far.send("x")
        with pytest.raises(ClosedError):
            await near.receive()
        with pytest.raises(ClosedError):
            near.send_nowait("x")
        assert [message async for message in near] == []
        again = call.offerer.create_channel(DataChannelConfig(label="again"))
        await again.send("the connection lives on")
        assert await (await anext(call.answerer.incoming_channels)).receive()


async def test_leaving_ends_iteration_quietly_and_calls_loudly() -> None:
    async with dialled() as call:
        await call.theirs.send("last words")
        await call.answerer.drain()
        call.answerer.close()
        assert [message async for message in call.ours] == ["last words"]
        await call.offerer.wait_closed()
        assert isinstance(call.offerer.error, PeerGone)
        with pytest.raises(PeerGone):
            await call.ours.send("x")
        assert [channel async for channel in call.offerer.incoming_channels] == []


async def test_a_broken_connection_ends_iteration_loudly() -> None:
    async with dialled() as call:
        call.offerer.connection.close(PeerGone("silent for too long"))
        with pytest.raises(PeerGone):
            async for _ in call.ours:
                pass


async def test_a_reader_that_sleeps_stops_the_sender_and_bounds_what_is_held() -> None:
    config = attrs.evolve(LOOPBACK, receive_window_bytes=256 * 1024)
    async with dialled(config) as call:
        chunk = b"x" * 10_000
        sent = 0
        with trio.move_on_after(0.2) as scope:
            while True:
                await call.ours.send(chunk)
                sent += 1
        assert scope.cancelled_caught
        assert call.ours.buffered_amount > LOW_WATER_BYTES
        while call.ours.buffered_amount <= HIGH_WATER_BYTES:
            call.ours.send_nowait(chunk)
            sent += 1
        with pytest.raises(WouldBlock):
            call.ours.send_nowait(chunk)
        assert call.offerer.stats().queue_age_s > 0
        assert sent * len(chunk) - call.ours.buffered_amount <= 2 * config.receive_window_bytes
        for _ in range(sent):
            assert await call.theirs.receive() == chunk
        await call.ours.send("there is room again")
        assert await call.theirs.receive() == "there is room again"


async def test_what_nobody_will_read_of_a_closed_channel_counts_no_more() -> None:
    """The peer's close comes first, then ours: what lay unread would narrow the window of the other channels for good."""
    config = attrs.evolve(LOOPBACK, receive_window_bytes=256 * 1024)
    async with dialled(config) as call:
        for _ in range(4):
            await call.ours.send(bytes(50_000))
        call.ours.close()
        assert await call.theirs.receive() == bytes(50_000)
        while call.theirs._error is None:
            await trio.sleep(0.01)
        assert call.answerer.stats().stack.unread_bytes > 0
        call.theirs.close()
        assert call.answerer.stats().stack.unread_bytes == 0
        with pytest.raises(PeerGone):
            await call.theirs.receive()


async def test_messages_over_the_limit_are_refused_and_the_channel_lives() -> None:
    async with dialled() as call:
        with pytest.raises(MessageTooLarge):
            await call.ours.send(b"x" * 262_145)
        await call.ours.send("fine")
        assert await call.theirs.receive() == "fine"
        with pytest.raises(WouldBlock):
            call.theirs.receive_nowait()
        await call.theirs.send("back")
        await call.answerer.drain()
        assert call.ours.receive_nowait() == "back"


async def test_an_inbox_keeps_order_and_ends() -> None:
    inbox: Inbox[int] = Inbox()
    for n in range(200):
        inbox.put(n)
    inbox.close()
    inbox.close(ValueError("the first end counts"))
    assert [n async for n in inbox] == list(range(200))
    other: Inbox[int] = Inbox()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(ValueError, match="broken"):
                await anext(other)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        other.close(ValueError("broken"))


async def test_many_channels_that_fill_the_queue_together_wait_for_each_other() -> None:
    async with dialled() as call:
        channels = [call.offerer.create_channel(DataChannelConfig(label=str(n))) for n in range(20)]
        chunk, count = b"x" * 100_000, 15  # 30 MB, of which the connection queues 16 MiB
        peak = 0

        async def send_and_close(channel: DataChannel) -> None:
            nonlocal peak
            for _ in range(count):
                await channel.send(chunk)
                peak = max(peak, call.offerer.buffered_amount)
            channel.close()

        async def drain(channel: DataChannel) -> None:
            assert len([message async for message in channel]) == count

        async with trio.open_nursery() as nursery:
            for channel in channels:
                nursery.start_soon(send_and_close, channel)
            for _ in channels:
                nursery.start_soon(drain, await anext(call.answerer.incoming_channels))
        assert peak > 15 * 2**20


def test_the_high_water_mark_is_kept_to_the_byte_without_asking_for_each_message() -> None:
    class Owner:
        """Counts what waits; sends when told."""

        buffered = asked = 0

        def send(self, channel: object, data: str | bytes) -> None:
            self.buffered += len(data.encode() if isinstance(data, str) else data)

        def channel_buffered_amount(self, channel: object) -> int:
            self.asked += 1
            return self.buffered

    owner = Owner()
    channel = DataChannel(owner, None)  # type: ignore[arg-type]
    dice = random.Random(5)
    refused = sent = 0
    for _ in range(20_000):
        data: str | bytes = bytes(dice.choice((0, 10, 1000, 5000, 200_000)))
        if dice.random() < 0.01:
            data = "é" * len(data)
        full = owner.buffered > HIGH_WATER_BYTES
        try:
            channel.send_nowait(data)
            sent += 1
            assert not full
        except WouldBlock:
            refused += 1
            assert full
        if dice.random() < 0.3:
            owner.buffered -= min(owner.buffered, dice.randrange(400_000))
    assert refused > 500
    assert owner.asked < sent / 2 + refused
