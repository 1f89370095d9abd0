"""What the layer below tells of its paths: a new one, or the old one again after a silence."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp.config import SctpConfig
from psyne_mesh.webrtc.sctp.rto import RtoEstimator
from tests.sctp.link import LinkConfig, LossyLink


def test_a_changed_path_ends_the_back_off() -> None:
    rto = RtoEstimator(SctpConfig())
    rto.path_changed()
    assert rto.rto == SctpConfig().rto_initial_s
    rto.measured(0.05)
    before = rto.rto
    for _ in range(4):
        rto.expired()
    assert rto.rto > 4 * before
    rto.path_changed()
    assert rto.rto == before


def broken_under_bulk(carries: bool) -> LossyLink:
    """5 s of bulk into a path that swallows it, at a round trip of 200 ms; then the layer below speaks."""
    link = LossyLink(LinkConfig(latency_s=0.1), seed=1)
    link.connect()
    link.run(1)
    link.drop = lambda name, packet, serial: True
    for number in range(100):
        link.a.association.send(1, 51, number.to_bytes(2, "big") + bytes(1_000), link.now)
        link.run(0.05)
    link.drop = None
    link.a.association.path_changed(link.now, carries=carries)
    return link


def test_a_path_that_carries_again_begins_as_a_new_one() -> None:
    """What timeouts left of the window, one packet, and of its threshold, says nothing of the path."""
    link = broken_under_bulk(carries=True)
    assert link.run_until(lambda: len(link.b.data) == 100, 1.5)  # 10, 20, 40, 30 packets in four round trips
    assert [data[1] for data in link.b.data] == list(range(100))


def test_a_path_that_may_not_carry_is_asked_with_a_packet_or_two() -> None:
    link = broken_under_bulk(carries=False)
    sent = link.counts["a"]
    link.run(0.09)
    assert link.counts["a"] <= sent + 2
    assert link.run_until(lambda: len(link.b.data) == 100, 20)


def test_the_first_packet_lost_again_is_repeated_before_the_others() -> None:
    """Everything behind it waits for it."""
    link = LossyLink(LinkConfig(latency_s=0.1), seed=1)
    link.connect()
    for _ in range(500):
        link.a.association.send(1, 51, bytes(1_000), link.now)
    assert link.run_until(lambda: len(link.b.data) == 500, 5)  # the window is wide now
    link.drop = lambda name, packet, serial: True
    for number in range(250):
        link.a.association.send(1, 51, number.to_bytes(2, "big") + bytes(1_000), link.now)
    link.run(5)
    first = link.counts["a"] + 1
    link.drop = lambda name, packet, serial: name == "a" and serial == first
    link.a.association.path_changed(link.now)
    assert link.run_until(lambda: len(link.b.data) > 500, 0.7)  # lost, told, repeated: three times one way
