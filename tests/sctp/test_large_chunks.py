"""On a path that cannot shrink a chunk may fill the packet; elsewhere none exceeds a base packet."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.webrtc.sctp import wire
from tests.sctp.link import LinkConfig, LossyLink, assert_drained

BASE = 1191
MESSAGE = random.Random(1).randbytes(65_536)


def joined(config: LinkConfig | None = None, seed: int = 0) -> LossyLink:
    """Two associations on one machine, which know the size of their path."""
    link = LossyLink(config or LinkConfig(latency_s=0.0001), seed=seed)
    link.connect()
    link.a.association.set_path_fixed(True)
    link.b.association.set_path_fixed(True)
    assert link.run_until(lambda: link.a.association.path_mtu == 16_384, 60)
    return link


def chunks_sent(link: LossyLink) -> list[int]:
    """Sizes of the I-DATA chunks that `a` sent since `keep_packets` was set."""
    sizes = []
    for packet in link.a.sent_packets:
        chunks = wire.parse_packet_untrusted(packet)[4]
        sizes += [end - start for kind, _, start, end in chunks if kind == wire.I_DATA]
    return sizes


def test_a_long_message_takes_as_many_chunks_as_packets() -> None:
    link = joined()
    link.a.keep_packets = True
    link.a.association.send(1, 51, MESSAGE, link.now)
    link.run(1)
    assert link.b.data == [MESSAGE]
    assert len(chunks_sent(link)) == 5
    assert_drained(link)


def test_where_the_path_may_shrink_again_chunks_fit_base_packets() -> None:
    link = joined()
    link.a.association.set_path_fixed(False)
    link.a.keep_packets = True
    link.a.association.send(1, 51, MESSAGE, link.now)
    link.run(1)
    assert link.b.data == [MESSAGE]
    assert max(chunks_sent(link)) <= BASE


@pytest.mark.parametrize("seed", range(5))
def test_all_arrives_in_order_through_loss_and_timeouts(seed: int) -> None:
    link = joined(LinkConfig(latency_s=0.002, loss=0.1), seed)
    messages = [random.Random(n).randbytes(40_000 + n) for n in range(20)]
    for message in messages:
        link.a.association.send(1, 51, message, link.now)
    assert link.run_until(lambda: len(link.b.data) == len(messages), 120)
    assert link.b.data == messages
    link.run(5)
    assert_drained(link)


def test_a_window_too_small_for_a_chunk_counts_as_closed_and_ends_nothing() -> None:
    """The reader has stopped, and less than a large chunk still fits: asking for room must not look like a dead peer."""
    link = joined()
    window = 4 * 2**20
    link.b.association.set_unread(window - 5000, link.now)
    link.a.association.send(1, 51, bytes(20), link.now)
    link.run(1)
    link.a.association.send(1, 51, MESSAGE, link.now)
    link.run(600)
    assert link.a.association.is_established
    link.b.association.set_unread(0, link.now)
    link.run(60)
    assert link.b.data == [bytes(20), MESSAGE]
    assert_drained(link)
