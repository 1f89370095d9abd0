"""Random loss costs little throughput, a real queue is still respected: Veno's law above CUBIC (`congestion.py`)."""

from __future__ import annotations

import math

import pytest

from psyne_mesh.webrtc.sctp import SctpConfig, congestion
from psyne_mesh.webrtc.sctp.backlog import Backlog
from psyne_mesh.webrtc.sctp.congestion import CongestionWindow
from tests.sctp.link import LinkConfig, LossyLink

ROUND_TRIP_S = 0.05
CONFIG = SctpConfig(ack_delay_max_s=0.02, packet_bytes_max=1435)


class Never(Backlog):
    """Takes every loss for congestion, as plain CUBIC does."""

    def is_small(self, window_packets: float) -> bool:
        return False


class Flow:
    """One link whose side `a` always has something to send."""

    def __init__(self, link: LinkConfig, seed: int, *, veno: bool = True) -> None:
        self.link = LossyLink(
            link, seed=seed, config_a=CONFIG, back=LinkConfig(latency_s=link.latency_s, loss=link.loss)
        )
        self.link.connect()
        if not veno:
            self.link.a.association._outbound.congestion._backlog = Never()
        self.link.on_event = self.feed
        self.link.a.association.set_buffered_amount_low_threshold(1, 200_000)
        self.feed()

    def feed(self, side: object = None, event: object = None) -> None:
        while self.link.a.association.buffered_amount(1) < 500_000:
            self.link.a.association.send(1, 53, bytes(8192), self.link.now)

    @property
    def received(self) -> int:
        return 8192 * len(self.link.b.messages)


def run_together(flows: list[Flow], seconds: float) -> float:
    """Shares the first one's bottleneck among all for so long. Returns the longest smoothed round trip that was seen."""
    links = [flow.link for flow in flows]
    now = max(link.now for link in links)
    for link in links:
        link.run(now - link.now)
        link.bottlenecks["a"] = links[0].bottlenecks["a"]
    longest, end = 0.0, now + seconds
    while now < end:
        now = min(moment for link in links if (moment := link.next_moment()) is not None)
        for link in links:
            link.run(max(0.0, now - link.now))
            longest = max(longest, link.a.association.srtt or 0.0)
    return longest


def rounds(backlog: Backlog, *rtts: float) -> None:
    for number, rtt in enumerate(rtts):
        backlog.measured(rtt + 0.02, 10 * number, 0)  # a delayed acknowledgement among them
        backlog.measured(rtt, 10 * number + 9, 10 * number + 20)


def mathis(loss: float) -> float:
    """Bytes per second of a Reno sender (Mathis et al. 1997)."""
    return 1400 / ROUND_TRIP_S * math.sqrt(1.5 / loss)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("loss", "times_mathis"), [(0.01, 1.35), (0.05, 1.4)])
def test_random_loss_costs_little(loss: float, times_mathis: float, seed: int) -> None:
    flow = Flow(LinkConfig(latency_s=ROUND_TRIP_S / 2, loss=loss), seed)
    flow.link.run(2)
    before = flow.received
    flow.link.run(15)
    assert (flow.received - before) / 15 >= times_mathis * mathis(loss)


@pytest.mark.skipif(not str(congestion.__file__).endswith(".py"), reason="compiled classes have no interpreted heirs")
@pytest.mark.parametrize("queue_ms", [10, 25, 100])
def test_two_flows_share_a_bottleneck(queue_ms: int) -> None:
    """One of ours, one of plain CUBIC, over 10 Mbit/s with a drop-tail queue: neither starves the other, and the queue is as
    long as two CUBIC flows make it."""
    rate = 1.25e6
    path = LinkConfig(latency_s=ROUND_TRIP_S / 2, bytes_per_s=rate, queue_bytes=int(rate * queue_ms / 1000))
    flows = [Flow(path, 1), Flow(path, 2, veno=False)]
    run_together(flows, 10)
    before = [flow.received for flow in flows]
    longest = run_together(flows, 20)
    ours, theirs = (flow.received - start for flow, start in zip(flows, before, strict=True))
    assert ours + theirs >= 0.8 * 20 * rate
    assert 0.5 <= ours / theirs <= 2.0
    assert longest <= ROUND_TRIP_S + queue_ms / 1000 + CONFIG.ack_delay_max_s


class TestBacklog:
    def test_nothing_is_known_before_a_round_trip(self) -> None:
        assert not Backlog().is_small(10)

    def test_even_round_trips_mean_no_queue(self) -> None:
        backlog = Backlog()
        rounds(backlog, 0.05, 0.05, 0.051, 0.05)
        assert backlog.is_small(20)

    def test_three_packets_of_ours_in_a_queue_are_congestion(self) -> None:
        backlog = Backlog()
        rounds(backlog, 0.05, 0.05, 0.054, 0.054, 0.054)
        assert backlog.is_small(20)  # 20 * 4 / 54: one and a half
        assert not backlog.is_small(50)

    def test_a_long_queue_is_congestion_whoever_made_it(self) -> None:
        backlog = Backlog()
        rounds(backlog, 0.05, 0.05, 0.06, 0.06, 0.06)
        assert not backlog.is_small(4)

    def test_a_single_long_round_is_no_queue(self) -> None:
        backlog = Backlog()
        rounds(backlog, 0.05, 0.05, 0.07)
        assert backlog.is_small(20)


class TestWindow:
    @staticmethod
    def avoiding(*rtts: float) -> CongestionWindow:
        """A window of 20 packets in congestion avoidance after these rounds."""
        window = CongestionWindow(SctpConfig())
        window.lost(0)
        window.cumulative_tsn_moved(0)
        window.cwnd = window.ssthresh = 20 * window.mtu
        for number, rtt in enumerate(rtts):
            window.measured(rtt, True, 10 * number + 9, 10 * number + 20)
        return window

    def test_it_falls_to_four_fifths_without_a_queue(self) -> None:
        window = self.avoiding(0.05, 0.05, 0.05, 0.05)
        assert window.lost(100)
        assert window.cwnd == 16 * window.mtu

    def test_it_falls_to_cubics_share_with_one(self) -> None:
        window = self.avoiding(0.05, 0.05, 0.09, 0.09, 0.09)
        assert window.lost(100)
        assert window.cwnd == 14 * window.mtu

    def test_no_loss_of_slow_start_is_random(self) -> None:
        window = self.avoiding(0.05, 0.05, 0.05, 0.05)
        window.ssthresh = 1 << 40
        assert window.lost(100)
        assert window.cwnd == 14 * window.mtu

    def test_growth_slows_down_as_soon_as_a_queue_stands(self) -> None:
        grown = []
        for later in (0.05, 0.09):
            window = self.avoiding(0.05, 0.05, 0.05, 0.05)
            window.lost(100)
            window.cumulative_tsn_moved(100)
            for number in range(4):
                window.measured(later, True, 110 + 10 * number, 121 + 10 * number)
            before = window.cwnd
            for step in range(4):
                window.acked(window.cwnd, True, 0.05 * step, 0.05)
            grown.append((window.cwnd - before) / window.mtu)
        free, queued = grown
        assert free >= 3.5
        assert queued <= 2.5


@pytest.mark.parametrize("deaf_ms", [80, 150])
def test_a_lost_answer_is_asked_for_again_before_t3_expires(deaf_ms: int) -> None:
    """Also in the middle of a recovery: all SACKs are lost for a while, the first probe among them or not."""
    link = LossyLink(LinkConfig(latency_s=ROUND_TRIP_S / 2), config_a=CONFIG)
    link.connect()
    for _ in range(20):
        link.a.association.send(1, 53, bytes(3000), link.now)
        link.run(0.06)
    began = link.now
    lost = iter((True,))
    link.drop = lambda name, packet, serial: name == "a" and len(packet) > 1000 and next(lost, False)
    link.a.association.send(1, 53, bytes(10_000), link.now)
    link.run(0.07)
    assert link.a.association._outbound.congestion.recovery_exit is not None
    link.drop = lambda name, packet, serial: name == "b" and link.now - began < 0.07 + deaf_ms / 1000
    link.run(1)
    stats = link.a.association.stats
    assert stats.timeouts == 0
    assert stats.tail_probes in (1, 2)
    assert len(link.b.data) == 21


def test_what_the_peer_waits_with_its_answers_is_learned() -> None:
    """RFC 9260 section 6.2 lets it wait 200 ms; a probe before that is in vain. The first ones are, later ones are not made."""
    link = LossyLink(
        LinkConfig(latency_s=0.005),
        config_a=SctpConfig(ack_delay_max_s=0.02, path_mtu_discovery=False),
        config_b=SctpConfig(ack_delay_max_s=0.2, path_mtu_discovery=False),
    )
    link.connect()
    for _ in range(30):
        link.a.association.send(1, 51, b"alone", link.now)
        link.run(0.5)
    assert link.a.association.stats.tail_probes <= 5
    assert link.a.association.stats.timeouts == 0
    assert len(link.b.data) == 30
