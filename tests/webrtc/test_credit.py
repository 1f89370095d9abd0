"""A reliable channel that nobody reads holds back itself, and no other channel of its connection."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.channel import Channel, MessageReceived
from psyne_mesh.webrtc.credit import CREDIT_STREAM, Credits
from psyne_mesh.webrtc.data_channel import UNREAD_OVERHEAD_BYTES
from psyne_mesh.webrtc.dcep import encode_credit, parse_credit_untrusted
from psyne_mesh.webrtc.sctp.send_queue import CREDIT_UNLIMITED, Message, SendQueue
from psyne_mesh.webrtc.stack import StackConfig
from tests.webrtc.pair import Pair

MIB = 2**20


class Reader:
    """The application of the server's side: it reads what it is told to, and tells its stack as a `Link` does."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.reads: set[str] = set()
        self.held: dict[str, list[tuple[Channel, int]]] = {}
        self.most = self.unread = 0
        pair.server.on_event = self.hear

    def hear(self, event: object) -> None:
        if isinstance(event, MessageReceived):
            size = len(event.data) + UNREAD_OVERHEAD_BYTES
            if event.channel.label not in self.reads:
                event.channel.unread += size
                self.unread += size
                self.held.setdefault(event.channel.label, []).append((event.channel, size))
                self.most = max(self.most, self.unread)
            self.pair.server.stack.set_unread(self.unread, self.pair.now)

    def read(self, label: str, n_bytes: int) -> None:
        """Some of what is held."""
        held = self.held.get(label, [])
        while held and n_bytes > 0:
            channel, size = held.pop(0)
            channel.unread -= size
            self.unread -= size
            n_bytes -= size
        self.pair.server.stack.set_unread(self.unread, self.pair.now)
        self.pair.settle(self.pair.server)


def pair_with(*labels: str, announced: int = 65_507, config: StackConfig | None = None) -> tuple[Pair, Reader]:
    pair = Pair(announced=announced, config=config)
    for label in labels:
        pair.client.stack.create_channel(DataChannelConfig(label=label), pair.now)
    reader = Reader(pair)
    pair.run(1)
    return pair, reader


def flood(pair: Pair, label: str, n_bytes: int, size: int = 1000) -> None:
    channel = pair.client.channel(label)
    for _ in range(n_bytes // size):
        pair.client.stack.send(channel, bytes(size), pair.now)
    pair.settle(pair.client)


def test_other_channels_go_on() -> None:
    pair, reader = pair_with("state", "chat")
    reader.reads.add("chat")
    flood(pair, "state", 12 * MIB)
    pair.run(5)
    assert 4 * MIB - 2000 <= reader.most <= 6 * MIB
    for number in range(20):
        pair.send(pair.client, pair.client.channel("chat"), b"%d" % number)
        before = len(pair.server.messages("chat"))
        pair.run(0.1)
        assert len(pair.server.messages("chat")) == before + 1  # at once, though nobody reads the other
    assert pair.server.stack._association._inbound.a_rwnd > 65_536
    # Whoever reads at last gets it all, in order
    while len(pair.server.messages("state")) < 12 * MIB // 1000:
        had = len(pair.server.messages("state"))
        reader.read("state", MIB)
        pair.run(1)
        assert len(pair.server.messages("state")) > had
    assert pair.client.stack.channel_buffered_amount(pair.client.channel("state")) == 0


@pytest.mark.parametrize("n_stuck", [3, 12])
def test_however_many_stand_still_memory_is_bounded(n_stuck: int) -> None:
    labels = [f"state {i}" for i in range(n_stuck)]
    each = 15 * MIB // n_stuck  # SCTP takes 16 MiB
    pair, reader = pair_with(*labels)
    for label in labels:
        flood(pair, label, each, 10_000)
        pair.run(1)
    pair.run(10)
    assert reader.most <= 3 * 4 * MIB + MIB  # two windows that are exempt, the window itself
    while any(len(pair.server.messages(label)) < each // 10_000 for label in labels):
        for label in labels:
            reader.read(label, 10 * MIB)
        had = sum(len(pair.server.messages(label)) for label in labels)
        pair.run(1)
        assert sum(len(pair.server.messages(label)) for label in labels) > had


def test_a_reader_that_keeps_up_never_notices() -> None:
    pair, reader = pair_with("bulk")
    reader.reads.add("bulk")
    flood(pair, "bulk", 12 * MIB, 60_000)
    pair.run(3)
    assert len(pair.server.messages("bulk")) == 12 * MIB // 60_000


def test_a_peer_that_knows_nothing_of_it_is_held_back_by_the_window() -> None:
    pair, reader = pair_with("state", announced=0)
    flood(pair, "state", 12 * MIB)
    pair.run(5)
    assert reader.most <= 5 * MIB
    assert pair.client.stack._association.stats.a_rwnd_remote_bytes < 65_536
    assert not any(event.data[:1] == b"C" for event in pair.client.events if type(event) is MessageReceived)


@pytest.mark.python_only
def test_who_ignores_it_is_held_back_by_the_window() -> None:
    pair, reader = pair_with("state")
    pair.client.stack._association.set_credit = lambda *_: None  # type: ignore[method-assign]
    flood(pair, "state", 15 * MIB)
    pair.run(20)
    assert reader.most <= 9 * MIB  # what is exempt on one channel, and the window


def test_closing_a_channel_that_nobody_read_is_not_held_up() -> None:
    pair, reader = pair_with("state", "chat")
    flood(pair, "state", 8 * MIB)
    pair.run(2)
    assert pair.client.stack.channel_buffered_amount(pair.client.channel("state")) > 0
    pair.server.stack.close_channel(pair.server.channel("state"), pair.now)
    pair.settle(pair.server)
    reader.reads.add("state")
    reader.read("state", 99 * MIB)
    pair.run(5)
    assert "state" in pair.client.closed()
    assert "state" in pair.server.closed()


def test_tiny_and_empty_messages_are_counted_alike_on_both_sides() -> None:
    """Else credit would leak, and a channel stop in the end."""
    pair, reader = pair_with("log", config=StackConfig(receive_window_bytes=65_536))
    reader.reads.add("log")
    channel = pair.client.channel("log")
    for _ in range(40):
        for _ in range(100):
            pair.client.stack.send(channel, b"", pair.now)
            pair.client.stack.send(channel, "ä", pair.now)
        pair.settle(pair.client)
        pair.run(0.5)
    assert len(pair.server.messages("log")) == 8000


class TestSendQueue:
    def queue(self) -> SendQueue:
        queue = SendQueue()
        for stream in (1, 2):
            for _ in range(3):
                queue.push(queue.stream(stream), Message(stream, 53, bytes(100), False, None, None, 0.0))
        return queue

    def drain(self, queue: SendQueue) -> list[int]:
        sent = []
        while (stream := queue.scheduler.pick()) is not None:
            message = stream.messages[0]
            message.offset = message.size
            sent.append(stream.id)
            queue.sent(stream, message.size)
        return sent

    def test_a_stream_without_credit_stands_aside(self) -> None:
        queue = self.queue()
        queue.set_credit(queue.stream(1), 0)
        assert self.drain(queue) == [2, 2, 2]
        queue.set_credit(queue.stream(1), 165)  # one message, and another begins with what is left
        assert self.drain(queue) == [1, 1]
        queue.set_credit(queue.stream(1), CREDIT_UNLIMITED)
        assert self.drain(queue) == [1]
        assert queue.buffered == 0

    def test_what_will_cost_is_what_has_not_begun(self) -> None:
        queue = self.queue()
        stream = queue.stream(1)
        assert queue.unbegun_cost(stream) == 3 * 164
        stream.messages[0].offset = 40
        stream.buffered -= 40
        assert queue.unbegun_cost(stream) == 2 * 164
        assert queue.unbegun_cost(queue.stream(7)) == 0

    @pytest.mark.parametrize("seed", range(20))
    def test_whatever_happens_nothing_is_forgotten_or_sent_twice(self, seed: int) -> None:
        dice = random.Random(seed)
        queue, pushed, sent, dropped = SendQueue(), 0, 0, 0
        queue.interleaving = bool(seed % 2)
        queue.begun_bytes_max = 3000
        for _ in range(400):
            stream = queue.stream(dice.randrange(4))
            action = dice.random()
            if action < 0.4:
                size = dice.choice((1, 100, 2500))
                queue.push(stream, Message(stream.id, 53, bytes(size), False, None, None, 0.0))
                pushed += 1
            elif action < 0.6:
                queue.set_credit(stream, dice.choice((-100, 0, 1, 500, CREDIT_UNLIMITED)))
            elif action < 0.7 and stream.messages and queue.scheduler.locked is None:
                queue.discard(stream)
                dropped += 1
            elif (picked := queue.scheduler.pick()) is not None:
                message = picked.messages[0]
                size = min(1000, message.size - message.offset)
                if queue.interleaving and message.size > 1000 and not message.offset and queue.hold_back(picked):
                    continue
                message.offset += size
                ended = message.offset == message.size
                queue.sent(picked, size)
                sent += ended
        for stream in queue.streams.values():
            queue.set_credit(stream, CREDIT_UNLIMITED)
        sent += len(self._rest(queue))
        assert sent + dropped == pushed
        assert queue.buffered == queue.begun_bytes == 0

    def _rest(self, queue: SendQueue) -> list[Message]:
        rest = []
        while (stream := queue.scheduler.pick()) is not None:
            message = stream.messages[0]
            size = message.size - message.offset
            message.offset = message.size
            queue.sent(stream, size)
            rest.append(message)
        return rest


def test_words_of_credit_are_read_as_written_and_nothing_else_is() -> None:
    assert parse_credit_untrusted(encode_credit(7, 2**40)) == (7, 2**40)
    assert parse_credit_untrusted(encode_credit(7, -5)) == (7, 0)
    for word in (b"", b"C", encode_credit(1, 1) + b"x", b"\x03" + encode_credit(1, 1)[1:]):
        with pytest.raises(ProtocolError):
            parse_credit_untrusted(word)


def test_only_reliable_channels_have_credit() -> None:
    credits = Credits(4 * MIB, MIB)
    for config in (DataChannelConfig(max_retransmits=0), DataChannelConfig(max_packet_life_time_ms=5)):
        channel = Channel(config)
        before = channel.credit_left
        credits.watch(channel)
        assert channel.credit_left == before
    assert CREDIT_STREAM < 65_535
