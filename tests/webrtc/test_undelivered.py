"""What an ended connection still held is counted, by channel: nothing reliable is lost without a number."""

from __future__ import annotations

from psyne_mesh.webrtc.channel import Channel
from tests.webrtc.pair import Pair


def test_queued_in_flight_and_half_acknowledged_messages_are_counted() -> None:
    pair = Pair()
    ours, _ = pair.open(label="words")
    positions, _ = pair.open(label="positions", ordered=False, max_retransmits=0)
    pair.run(1)
    for number in range(5):
        pair.send(pair.client, ours, b"%d" % number)
    pair.run(1)
    assert len(pair.server.messages("words")) == 5
    pair.drop = lambda *_: True
    for _ in range(40):
        pair.send(pair.client, ours, bytes(50_000))
        pair.send(pair.client, positions, b"here")
    pair.run(0.2)
    pair.client.stack.close(pair.now)
    pair.settle(pair.client)
    assert (ours.undelivered, positions.undelivered) == (40, 0)


def test_a_connection_that_ends_with_nothing_held_counts_nothing() -> None:
    pair = Pair()
    ours, theirs = pair.open(label="words")
    pair.send(pair.client, ours, b"hello")
    pair.run(1)
    pair.client.stack.close(pair.now)
    pair.settle(pair.client)
    pair.run(1)
    ended: list[Channel] = [ours, theirs]
    assert [channel.undelivered for channel in ended] == [0, 0]
    assert [channel.state for channel in ended] == ["closed", "closed"]
