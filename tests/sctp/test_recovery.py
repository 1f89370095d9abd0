"""RTO, congestion window, HyStart++ and RACK, each alone."""

from __future__ import annotations

import pytest

from psyne_mesh.webrtc.sctp import SctpConfig
from psyne_mesh.webrtc.sctp.congestion import CongestionWindow
from psyne_mesh.webrtc.sctp.hystart import CSS_ROUNDS, SAMPLES_MIN, HyStart
from psyne_mesh.webrtc.sctp.outstanding import ACKED, Chunk
from psyne_mesh.webrtc.sctp.rack import Rack
from psyne_mesh.webrtc.sctp.rto import RtoEstimator
from psyne_mesh.webrtc.sctp.send_queue import Message

MTU = 1191


def chunk(tsn: int, sent_at: float) -> Chunk:
    return Chunk(tsn, b"", b"", 100, Message(1, 51, b"x", False, None, None, 0.0), sent_at)


class TestRto:
    def test_the_first_sample_sets_it(self) -> None:
        rto = RtoEstimator(SctpConfig(rtt_variance_min_s=0.0))
        assert rto.rto == 0.5
        rto.measured(0.1)
        assert (rto.srtt, rto.rttvar) == (0.1, 0.05)
        assert rto.rto == pytest.approx(0.3)

    def test_later_samples_are_smoothed(self) -> None:
        rto = RtoEstimator(SctpConfig())
        rto.measured(0.1)
        rto.measured(0.2)
        assert rto.srtt == pytest.approx(0.1125)
        assert rto.rttvar == pytest.approx(0.0625)
        assert rto.min_rtt == 0.1

    def test_bounds(self) -> None:
        config = SctpConfig(rto_min_s=0.3, rtt_variance_min_s=0.0, rto_max_s=2.0)
        rto = RtoEstimator(config)
        for _ in range(50):
            rto.measured(0.001)
        assert rto.rto == 0.3
        for _ in range(10):
            rto.expired()
        assert rto.rto == 2.0
        rto.measured(0.001)
        assert rto.rto == 0.3

    def test_it_exceeds_the_ack_delay_of_the_peer(self) -> None:
        rto = RtoEstimator(SctpConfig())
        for _ in range(100):
            rto.measured(0.02)
        assert rto.rto > 0.02 + 0.2


class TestCongestionWindow:
    def test_slow_start_doubles_per_round_trip(self) -> None:
        window = CongestionWindow(SctpConfig())
        assert window.cwnd == 10 * MTU
        window.acked(10 * MTU, True, 0.0, 0.1)
        assert window.cwnd == 20 * MTU

    def test_it_does_not_grow_when_unused(self) -> None:
        window = CongestionWindow(SctpConfig())
        window.acked(10 * MTU, False, 0.0, 0.1)
        assert window.cwnd == 10 * MTU

    def test_one_reduction_per_fast_recovery(self) -> None:
        window = CongestionWindow(SctpConfig())
        window.cwnd = 100_000
        assert window.lost(50)
        assert window.cwnd == window.ssthresh == 70_000
        assert not window.lost(60)
        window.acked(20_000, True, 0.0, 0.1)
        assert window.cwnd == 70_000
        window.cumulative_tsn_moved(49)
        assert window.recovery_exit == 50
        window.cumulative_tsn_moved(50)
        assert window.recovery_exit is None
        assert window.lost(70)

    def test_congestion_avoidance_returns_to_the_old_window_as_cubic_does(self) -> None:
        window = CongestionWindow(SctpConfig())
        window.cwnd = 1000 * MTU
        window.lost(1)
        window.cumulative_tsn_moved(1)
        k_s = (1000 * 0.3 / 0.4) ** (1 / 3)
        now = 0.0
        while now < k_s:
            window.acked(window.cwnd, True, now, 0.1)
            now += 0.1
        assert window.cwnd == pytest.approx(1000 * MTU, rel=0.03)

    def test_small_windows_grow_at_least_as_reno_would(self) -> None:
        window = CongestionWindow(SctpConfig())
        window.lost(1)
        window.cumulative_tsn_moved(1)
        before = window.cwnd
        for step in range(10):
            window.acked(window.cwnd, True, step * 0.01, 0.01)
        assert window.cwnd >= before + 5 * MTU

    def test_a_timeout_begins_anew_with_one_packet(self) -> None:
        window = CongestionWindow(SctpConfig())
        window.mtu_changed(16_384)
        window.cwnd = 200_000
        window.timed_out()
        assert (window.cwnd, window.ssthresh) == (MTU, 140_000)

    def test_the_floor_is_four_packets(self) -> None:
        window = CongestionWindow(SctpConfig())
        for tsn in range(20):
            window.lost(tsn)
            window.cumulative_tsn_moved(tsn)
        assert window.cwnd == 4 * MTU
        window.mtu_changed(16_384)
        assert window.cwnd == 4 * 16_384

    def test_idle_time_shrinks_it_to_the_initial_window(self) -> None:
        window = CongestionWindow(SctpConfig())
        window.cwnd = 1_000_000
        window.idled(2)
        assert window.cwnd == 250_000
        window.idled(1000)
        assert window.cwnd == 10 * MTU
        window.cwnd = 2 * MTU
        window.idled(5)
        assert window.cwnd == 2 * MTU


class TestHyStart:
    @staticmethod
    def round_of(hystart: HyStart, rtt: float, number: int) -> None:
        if number == 0:
            hystart.measured(rtt, 0, 101)  # opens the first round, which ends with TSN 100
        for _ in range(SAMPLES_MIN):
            hystart.measured(rtt, number * 100 + 50, 0)
        hystart.measured(rtt, (number + 1) * 100, (number + 2) * 100 + 1)

    def test_even_round_trips_never_end_slow_start(self) -> None:
        hystart = HyStart()
        for number in range(30):
            self.round_of(hystart, 0.1 + (number % 2) * 0.003, number)
        assert hystart.divisor == 1
        assert not hystart.is_over

    def test_growing_round_trips_end_it_after_a_trial(self) -> None:
        hystart = HyStart()
        self.round_of(hystart, 0.1, 0)
        self.round_of(hystart, 0.12, 1)
        assert hystart.divisor > 1
        for number in range(2, 2 + 2 * CSS_ROUNDS):
            self.round_of(hystart, 0.12, number)
        assert hystart.is_over

    def test_an_accident_is_forgiven(self) -> None:
        hystart = HyStart()
        self.round_of(hystart, 0.1, 0)
        self.round_of(hystart, 0.12, 1)
        self.round_of(hystart, 0.1, 2)
        assert hystart.divisor == 1


class TestRack:
    @staticmethod
    def sent(rack: Rack, *chunks: Chunk) -> None:
        for one in chunks:
            rack.sent(one)

    def test_a_later_arrival_makes_the_earlier_lost_after_a_quarter_round_trip(self) -> None:
        rack, first, second = Rack(), chunk(1, 0.0), chunk(2, 0.001)
        self.sent(rack, first, second)
        second.state = ACKED
        rack.acked(second, 0.101, 0.1)
        assert rack.detect_losses(0.101, 0.1, 0.1, 10) == []
        assert rack.deadline == pytest.approx(0.0 + 0.1 + 0.025)
        assert rack.detect_losses(rack.deadline, 0.1, 0.1, 10) == [first]
        assert rack.deadline is None

    def test_what_was_sent_later_than_any_arrival_is_left_alone(self) -> None:
        rack, first, second = Rack(), chunk(1, 0.0), chunk(2, 0.0)
        self.sent(rack, first, second)
        first.state = ACKED
        rack.acked(first, 0.1, 0.1)
        assert rack.detect_losses(50.0, 0.1, 0.1, 10) == []

    def test_a_lost_retransmission_is_found(self) -> None:
        rack, first, second, third = Rack(), chunk(1, 0.0), chunk(2, 0.0), chunk(3, 0.2)
        self.sent(rack, first, second)
        second.state = ACKED
        rack.acked(second, 0.1, 0.1)
        assert rack.detect_losses(0.13, 0.1, 0.1, 10) == [first]
        first.sent_at, first.transmissions = 0.13, 2
        self.sent(rack, first, third)
        third.state = ACKED
        rack.acked(third, 0.3, 0.1)
        assert rack.detect_losses(0.3, 0.1, 0.1, 10) == [first]

    def test_an_acknowledgement_of_the_original_says_nothing_of_the_repetition(self) -> None:
        rack, first, second = Rack(), chunk(1, 0.0), chunk(2, 0.0)
        self.sent(rack, first, second)
        second.sent_at, second.transmissions = 0.5, 2
        self.sent(rack, second)
        second.state = ACKED
        rack.acked(second, 0.51, 0.1)  # ten ms after a repetition over a path of 100 ms
        assert rack.detect_losses(9.0, 0.1, 0.1, 10) == []

    def test_duplicates_widen_the_window_for_some_recoveries(self) -> None:
        rack = Rack()
        assert rack.patience(0.1, 1.0) == pytest.approx(0.025)
        rack.duplicate_reported(0.0)
        assert rack.patience(0.1, 1.0) == pytest.approx(0.05)
        assert rack.patience(0.1, 0.03) == pytest.approx(0.03)  # never more than the smoothed RTT
        for _ in range(16):
            rack.recovered()
        assert rack.patience(0.1, 1.0) == pytest.approx(0.025)

    def test_a_cut_report_condemns_nothing_above_it(self) -> None:
        rack, first, second = Rack(), chunk(7, 0.0), chunk(2, 0.0)
        self.sent(rack, first, second)
        second.state = ACKED
        rack.acked(second, 0.1, 0.1)
        assert rack.detect_losses(9.0, 0.1, 0.1, 5) == []
        assert rack.detect_losses(9.0, 0.1, 0.1, 7) == [first]

    def test_the_tail_is_the_last_one_in_flight(self) -> None:
        rack, first, second = Rack(), chunk(1, 0.0), chunk(2, 0.0)
        assert rack.newest_in_flight() is None
        self.sent(rack, first, second)
        second.state = ACKED
        assert rack.newest_in_flight() is first
