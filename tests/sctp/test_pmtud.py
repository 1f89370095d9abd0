"""Path MTU discovery (RFC 8899), and the promise that no other packet is longer than the path MTU."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.sctp import SctpConfig
from psyne_mesh.webrtc.sctp.pieces import Pieces
from psyne_mesh.webrtc.sctp.pmtud import PathMtu
from tests.sctp.link import LinkConfig, LossyLink, assert_drained, is_probe


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        (65_535, 16_384),
        (16_383, 8900),
        (8999, 8900),
        (1500, 1435),
        (1431, 1415),
        (1411, 1400),
        (1399, 1191),
        (1191, 1191),
    ],
)
def test_the_ladder_is_climbed_as_far_as_the_path_allows(limit: int, found: int) -> None:
    link = LossyLink(LinkConfig(latency_s=0.02, mtu=limit))
    link.connect()
    link.run(10)
    assert link.a.association.path_mtu == link.b.association.path_mtu == found
    link.a.association.send(1, 51, bytes(200_000), link.now)
    link.run(5)
    assert len(link.b.data) == 1
    assert found - 3 <= link.a.largest_packet <= found
    assert link.a.association.stats.retransmissions == 0
    assert_drained(link)


def test_each_rung_takes_one_round_trip() -> None:
    link = LossyLink(LinkConfig(latency_s=0.05))
    link.connect()
    start = link.now
    assert link.run_until(lambda: link.a.association.path_mtu == 16_384, 5)
    assert link.now - start <= 5 * 0.1 + 0.1


@pytest.mark.parametrize("maximum", [1191, 1200, 2000, 16_384])
def test_the_maximum_of_the_configuration_is_the_top_rung(maximum: int) -> None:
    link = LossyLink(LinkConfig(latency_s=0.001), config_a=SctpConfig(packet_bytes_max=maximum))
    link.connect()
    link.run(3)
    assert link.a.association.path_mtu == maximum


def test_without_discovery_the_base_stays() -> None:
    link = LossyLink(config_a=SctpConfig(path_mtu_discovery=False))
    link.connect()
    link.run(3)
    assert link.a.association.path_mtu == 1191
    assert link.a.association.stats.packets_sent <= 4


def test_the_path_is_tried_again_after_a_while() -> None:
    link = LossyLink(LinkConfig(mtu=1300), config_a=SctpConfig(path_mtu_raise_s=60.0))
    link.connect()
    link.run(30)
    assert link.a.association.path_mtu == 1191
    link.links["a"].mtu = 1500
    link.run(60)
    assert link.a.association.path_mtu == 1435


@pytest.mark.parametrize("interleaving", [False, True])
@pytest.mark.parametrize("before", [65_535, 1500])
def test_a_black_hole_appears_in_the_middle(before: int, interleaving: bool) -> None:
    """Trap 11: the path shrinks to 1280 (a tunnel comes up); all that was in flight still arrives."""
    link = LossyLink(LinkConfig(latency_s=0.02, mtu=before), config_a=SctpConfig(interleaving=interleaving))
    link.connect()
    link.run(10)
    for i in range(20):
        link.a.association.send(1, 51, b"%2d" % i + bytes(40_000), link.now)
    link.run(0.05)
    assert len(link.b.data) < 20
    link.links["a"].mtu = 1280 - 68
    start = link.now
    assert link.run_until(lambda: len(link.b.data) == 20, 30)
    assert link.now - start < 5.0
    assert [data[:2] for data in link.b.data] == [b"%2d" % i for i in range(20)]
    link.run(10)
    assert link.a.association.path_mtu == 1191
    assert link.b.association.path_mtu == (16_384 if before > 2000 else 1435)  # the other direction is as it was
    assert_drained(link)


def test_a_timeout_that_was_no_black_hole_costs_one_confirmation() -> None:
    link = LossyLink(LinkConfig(latency_s=0.02))
    link.connect()
    link.run(5)
    link.drop = lambda name, packet, serial: True
    link.a.association.send(1, 51, bytes(5000), link.now)
    link.run(0.5)
    assert link.a.association.stats.timeouts >= 1
    assert link.a.association.path_mtu == 1191
    link.drop = None
    link.run(2)
    assert link.a.association.path_mtu == 16_384
    assert len(link.b.data) == 1


def test_lost_probes_are_no_congestion() -> None:
    link = LossyLink(LinkConfig(latency_s=0.02))
    link.drop = lambda name, packet, serial: is_probe(packet)
    link.connect()
    for _ in range(50):
        link.a.association.send(1, 51, bytes(1000), link.now)
        link.run(0.1)
    stats = link.a.association.stats
    assert (stats.retransmissions, stats.timeouts) == (0, 0)
    assert stats.path_mtu == 1191


def test_every_packet_fits_1280_bytes_of_ip_when_the_path_does() -> None:
    """Trap 11: 1191 + DTLS 37 + UDP 8 + IPv6 40 is 1276."""
    link = LossyLink(LinkConfig(latency_s=0.02, mtu=1203, loss=0.05), seed=5)
    link.connect()
    for i in range(50):
        link.a.association.send(i % 7, 51, bytes(i * 100 + 1), link.now, unordered=i % 2 == 0)
        link.b.association.send(i % 7, 51, bytes(10_000), link.now)
    link.run(20)
    assert len(link.a.data) == len(link.b.data) == 50
    assert max(link.a.largest_packet, link.b.largest_packet) <= 1191


class TestMachine:
    def test_three_lost_probes_end_the_climb(self) -> None:
        path = PathMtu(SctpConfig())
        path.start(0.0)
        now = 0.0
        for _ in range(3):
            assert path.take_probe(now, 0.2) == 1400
            assert path.take_probe(now, 0.2) is None
            assert path.deadline == now + 1.0  # RFC 8899: the probe timer is at least a second
            now += 1.0
            path.handle_timeout(now)
        assert path.take_probe(now, 0.2) is None
        assert path.deadline == now + 600.0

    def test_late_and_foreign_answers_are_ignored(self) -> None:
        path = PathMtu(SctpConfig())
        path.start(0.0)
        path.probe_acked(16_384, 0.0)
        assert path.current == 1191
        path.take_probe(0.0, 0.2)
        path.probe_acked(1400, 0.1)
        path.probe_acked(1400, 0.2)
        assert path.current == 1400
        assert path.take_probe(0.2, 0.2) == 1415

    def test_a_failed_confirmation_keeps_below_the_suspect_size(self) -> None:
        path = PathMtu(SctpConfig())
        path.start(0.0)
        for size in (1400, 1415, 1435):
            assert path.take_probe(0.0, 0.2) == size
            path.probe_acked(size, 0.0)
        path.timed_out(0.0)
        assert path.current == 1191
        now = 0.0
        for _ in range(3):
            assert path.take_probe(now, 0.2) == 1435
            now += 1.0
            path.handle_timeout(now)
        for size in (1400, 1415):
            assert path.take_probe(now, 0.2) == size
            path.probe_acked(size, now)
        assert path.take_probe(now, 0.2) is None
        assert path.current == 1415

    def test_a_timeout_at_the_base_changes_nothing(self) -> None:
        path = PathMtu(SctpConfig(path_mtu_discovery=False))
        path.start(0.0)
        path.timed_out(0.0)
        assert path.take_probe(0.0, 0.2) is None
        assert path.deadline is None


class TestPieces:
    """A hole narrower than the smallest packet: no chunk can be cut again, so packets travel in pieces."""

    CONFIG = SctpConfig(cuts_packets=True, rto_max_s=3.0)  # as a stack has it

    def link(self, mtu: int) -> LossyLink:
        link = LossyLink(
            LinkConfig(latency_s=0.02, mtu=mtu, bytes_per_s=100_000, queue_bytes=20_000), config_a=self.CONFIG
        )
        link.connect()
        return link

    def flow(self, link: LossyLink, seconds: float) -> float:
        """Bulk for so long; the longest silence at the receiver."""
        silence, quiet_since = 0.0, link.now
        end = link.now + seconds
        had = len(link.b.data)
        while link.now < end:
            while link.a.association.total_buffered_amount < 20_000:
                link.a.association.send(1, 51, bytes(5_000), link.now)
            link.flush(link.a)
            link.run(0.02)
            if len(link.b.data) > had:
                had, quiet_since = len(link.b.data), link.now
            silence = max(silence, link.now - quiet_since)
        return silence

    @pytest.mark.parametrize("both", [False, True])
    def test_bulk_goes_on_when_the_path_falls_to_1100_and_then_600_and_comes_back(self, both: bool) -> None:
        link = self.link(1500)
        assert self.flow(link, 5) < 1
        sides = ("a", "b") if both else ("a",)
        for mtu in (1100, 600):
            for side in sides:
                link.links[side].mtu = mtu - 65
            assert self.flow(link, 12) <= 3
            assert 500 <= link.a.association.path_mtu <= mtu - 65
        for side in sides:
            link.links[side].mtu = 1500 - 65
        assert self.flow(link, 60) <= 3
        assert link.a.association.path_mtu == 1435

    @pytest.mark.parametrize("mtu", [1100, 576])
    def test_a_hole_that_is_there_from_the_start(self, mtu: int) -> None:
        link = LossyLink(LinkConfig(latency_s=0.02, mtu=mtu - 65, bytes_per_s=100_000), config_a=self.CONFIG)
        link.a.association.send(1, 51, bytes(5000), link.now)
        link.connect()
        assert link.run_until(lambda: bool(link.b.data), 3)
        assert self.flow(link, 10) <= 3

    @pytest.mark.parametrize("mtu", [1100, 600, 576])
    def test_what_is_large_and_never_repeated_finds_its_size_beside_what_is_small(self, mtu: int) -> None:
        """As the datagrams of a tunnel, which a carrier does not repeat: what is small is acknowledged, so no timeout tells."""
        link = self.link(1500)

        def large_that_come(seconds: float) -> int:
            had = len(link.b.data)
            for _ in range(round(seconds / 0.1)):
                for size in (40, 1150):
                    link.a.association.send(1, 53, bytes(size), link.now, unordered=True, max_retransmits=0)
                link.flush(link.a)
                link.run(0.1)
            return sum(len(data) == 1150 for data in link.b.data[had:])

        assert large_that_come(5.0) >= 49
        link.links["a"].mtu = mtu - 65
        assert large_that_come(2.0) >= 10
        assert large_that_come(10.0) >= 99
        link.links["a"].mtu = 1500 - 65
        large_that_come(40.0)
        assert link.a.association.path_mtu == 1435

    def test_large_losses_at_random_leave_the_path_as_it_is(self) -> None:
        link = LossyLink(LinkConfig(latency_s=0.02, loss=0.05), config_a=self.CONFIG)
        link.connect()
        link.run(2.0)
        narrow = 0
        for _ in range(2_000):
            for size in (40, 1150):
                link.a.association.send(1, 53, bytes(size), link.now, unordered=True, max_retransmits=0)
            link.flush(link.a)
            link.run(0.02)
            narrow += link.a.association.path_mtu < 1191
        assert narrow <= 20

    def test_a_silence_costs_no_more_than_a_few_packets_in_pieces(self) -> None:
        link = self.link(1500)
        self.flow(link, 5)
        link.drop = lambda name, packet, serial: True
        self.flow(link, 8)
        assert link.a.association.path_mtu == 500
        link.drop = None
        assert self.flow(link, 10) <= 3.5
        assert link.a.association.path_mtu == 1435


def test_pieces_join_in_any_order_and_nonsense_is_refused() -> None:
    sender, receiver = Pieces(), Pieces()
    packet = bytes(range(256)) * 60
    pieces = sender.cut(packet, 500)
    assert max(map(len, pieces)) <= 500
    random.Random(1).shuffle(pieces)
    assert [whole for piece in pieces if (whole := receiver.join_untrusted(piece)) is not None] == [packet]
    for piece in (b"", b"\xf1", b"\xf1\0\1\2\2x", b"\xf1\0\1\0\xffx", b"\xf1\0\1\0\2" + bytes(1200)):
        with pytest.raises(ProtocolError):
            receiver.join_untrusted(piece)
    for number in range(1000):
        receiver.join_untrusted(sender.cut(packet, 500)[number % 30])
    assert len(receiver._parts) <= 64
