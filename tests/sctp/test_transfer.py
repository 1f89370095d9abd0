"""Whole transfers over bad links: complete, in order, soon enough, and nothing left behind."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.webrtc.sctp import MessageReceived, SctpConfig
from tests.sctp.link import LinkConfig, LossyLink, Side, assert_drained

KINDS = pytest.mark.parametrize("interleaving", [False, True])


def mixed_traffic(link: LossyLink, seed: int, count: int) -> None:
    """Messages of many sizes on five streams each way, some unordered; checks that all arrive, and in order."""
    rng = random.Random(seed)
    wanted: dict[str, dict[int, list[bytes]]] = {"a": {}, "b": {}}
    unordered: dict[str, set[bytes]] = {"a": set(), "b": set()}
    for i in range(count):
        for side in (link.a, link.b):
            data = b"%s%d " % (side.name.encode(), i) + rng.randbytes(rng.choice((0, 10, 100, 1000, 4000, 20_000)))
            if rng.random() < 0.2:
                unordered[side.name].add(data)
                side.association.send(9, 51, data, link.now, unordered=True)
            else:
                stream = rng.randrange(5)
                wanted[side.name].setdefault(stream, []).append(data)
                side.association.send(stream, 51, data, link.now)
        if rng.random() < 0.3:
            link.run(rng.random() * 0.05)
    assert link.run_until(lambda: len(link.a.data) == len(link.b.data) == count, 600)
    for side in (link.a, link.b):
        got: dict[int, list[bytes]] = {}
        for message in link.other(side).messages:
            got.setdefault(message.stream_id, []).append(message.data)
            assert message.unordered == (message.stream_id == 9)
        assert set(got.pop(9, [])) == unordered[side.name]
        assert got == wanted[side.name]


@pytest.mark.parametrize("seed", range(100))
def test_loss_reordering_and_duplication_leave_no_trace(seed: int) -> None:
    link = LossyLink(
        LinkConfig(latency_s=0.02, jitter_s=0.02, loss=0.1, duplication=0.1, mtu=1500 if seed % 3 else 65_535),
        seed=seed,
        config_a=SctpConfig(interleaving=seed % 2 == 0, packet_bytes_max=16_384 if seed % 5 else 1191),
    )
    link.connect()
    mixed_traffic(link, seed, 60)
    link.run(10)
    assert_drained(link)


@pytest.mark.slow
@KINDS
@pytest.mark.parametrize("round_trip_ms", [20, 200, 800])
@pytest.mark.parametrize("loss", [0.0, 0.05, 0.1, 0.2, 0.3])
def test_the_loss_matrix(loss: float, round_trip_ms: int, interleaving: bool) -> None:
    link = LossyLink(
        LinkConfig(latency_s=round_trip_ms / 2000, jitter_s=round_trip_ms / 10_000, loss=loss),
        seed=round_trip_ms,
        config_a=SctpConfig(interleaving=interleaving, association_retransmits_max=None),
    )
    link.connect(timeout_s=300)
    mixed_traffic(link, 1, 150)
    link.run(120)
    assert_drained(link)


@KINDS
def test_tsns_ssns_and_mids_wrap_in_the_middle_of_it(interleaving: bool) -> None:
    link = LossyLink(
        LinkConfig(latency_s=0.01, jitter_s=0.01, loss=0.05, mtu=1500),
        seed=3,
        config_a=SctpConfig(interleaving=interleaving),
    )
    for side in (link.a, link.b):
        association = side.association
        association._handshake.initial_tsn = 2**32 - 30
        association._outbound.restart(2**32 - 30)
        association._resets._next_request = 2**32 - 30
    link.connect()
    for side in (link.a, link.b):
        top = 2**32 if interleaving else 2**16
        for stream in range(5):
            side.association._outbound.queue.stream(stream).next_ordered = top - 5
            link.other(side).association._inbound.reassembly._next[stream] = top - 5
        side.association._outbound.queue.stream(9).next_unordered = top - 5
    mixed_traffic(link, 5, 100)
    link.run(10)
    assert_drained(link)


def bulk(link: LossyLink, total: int, *, stream: int = 1) -> float:
    """Keep the link full with 64 KiB messages; returns the bytes per second of virtual time."""
    count = total // 65_536
    sent = 0
    payload = bytes(65_536)

    def feed(side: object = None, event: object = None) -> None:
        nonlocal sent
        while sent < count and link.a.association.buffered_amount(stream) < 8_000_000:
            link.a.association.send(stream, 53, payload, link.now)
            sent += 1

    link.on_event = feed
    link.a.association.set_buffered_amount_low_threshold(stream, 4_000_000)
    start = link.now
    feed()
    assert link.run_until(lambda: len(link.b.events) > count, 600)
    link.on_event = None
    return total / (link.now - start)


@pytest.mark.parametrize("limit", [1500, 65_535])
def test_a_long_path_is_filled(limit: int) -> None:
    """Trap 15: at 100 ms, 80 % of window / RTT once slow start is through."""
    link = LossyLink(LinkConfig(latency_s=0.05, mtu=limit))
    link.connect()
    link.run(5)
    bulk(link, 30_000_000)
    link.b.events.clear()
    link.b.events.append(link.a.events[0])
    rate = bulk(link, 60_000_000)
    assert rate >= 0.8 * (4 * 2**20) / 0.1


@pytest.mark.parametrize(("latency_s", "queue_bytes"), [(0.01, 50_000), (0.01, 400_000), (0.04, 1_000_000)])
def test_a_bottleneck_is_used_well_and_hardly_anything_sent_twice(latency_s: float, queue_bytes: int) -> None:
    link = LossyLink(LinkConfig(latency_s=latency_s, bytes_per_s=5e6, queue_bytes=queue_bytes, mtu=1500))
    link.connect()
    link.run(3)
    assert bulk(link, 12_000_000) >= 0.7 * 5e6
    link.run(3)
    stats = link.a.association.stats
    assert stats.timeouts == 0
    assert link.b.association.stats.duplicates_received <= 20
    assert_drained(link)


@pytest.mark.parametrize(("interleaving", "late_ms_max"), [(True, 5.0), (False, 60.0)])
def test_a_bulk_stream_does_not_delay_a_ping_stream(interleaving: bool, late_ms_max: float) -> None:
    """Trap 15. The link's own queue is short here, so what is left is the scheduler's doing: under I-DATA a ping
    passes 256 KiB messages; without it, it waits for the end of one."""
    link = LossyLink(
        LinkConfig(latency_s=0.01, bytes_per_s=5e6, queue_bytes=20_000, mtu=1500),
        config_a=SctpConfig(interleaving=interleaving),
        back=LinkConfig(latency_s=0.01),
    )
    link.connect()
    link.run(2)
    sent_at: dict[bytes, float] = {}
    late: list[float] = []

    def arrived(side: Side, event: object) -> None:
        if side is link.b and isinstance(event, MessageReceived) and event.stream_id == 2:
            late.append(link.now - sent_at[event.data] - 0.01)

    link.on_event = arrived
    for i in range(300):
        while link.a.association.buffered_amount(1) < 1_000_000:
            link.a.association.send(1, 53, bytes(262_144), link.now)
        data = b"ping %d" % i
        sent_at[data] = link.now
        link.a.association.send(2, 51, data, link.now, unordered=True)
        link.run(1 / 60)
    late.sort()
    assert len(late) > 290
    assert late[len(late) // 2] * 1000 <= late_ms_max


def test_small_messages_at_60_hz_come_without_extra_delay() -> None:
    """Trap 13."""
    link = LossyLink(LinkConfig(latency_s=0.03))
    link.connect()
    link.run(2)
    sent_at: dict[bytes, float] = {}
    late: list[float] = []

    def arrived(side: Side, event: object) -> None:
        if isinstance(event, MessageReceived):
            late.append(link.now - sent_at[event.data])

    link.on_event = arrived
    for i in range(300):
        data = b"%d" % i
        sent_at[data] = link.now
        link.a.association.send(1, 51, data, link.now)
        link.run(1 / 60)
    link.run(1)
    assert late == pytest.approx([0.03] * 300)


def test_the_first_loss_of_a_quiet_stream_is_repaired_in_half_a_second() -> None:
    """Trap 13: the first RTO."""
    link = LossyLink(LinkConfig(latency_s=0.03))
    link.connect()
    link.drop = lambda name, packet, serial: b"lost once" in packet
    link.a.association.send(1, 51, b"lost once", link.now)
    link.flush(link.a)
    link.drop = None
    start = link.now
    assert link.run_until(lambda: link.b.data == [b"lost once"], 5)
    assert link.now - start <= 0.55


def test_the_tail_of_a_burst_is_repaired_before_the_rto() -> None:
    link = LossyLink(LinkConfig(latency_s=0.03, mtu=1500))
    link.connect()
    for _ in range(20):
        link.a.association.send(1, 51, bytes(1000), link.now)
        link.run(0.05)
    for name in (b"head", b"body", b"tail", b"tail"):
        link.a.association.send(1, 51, name + bytes(1100), link.now)
    link.drop = lambda name, packet, serial: b"tail" in packet
    link.flush(link.a)
    link.drop = None
    start = link.now
    assert link.run_until(lambda: len(link.b.data) == 24, 5)
    assert link.now - start <= 0.06 + 2 * 0.06 + 0.06 + 0.06  # SACK, patience, probe and its SACK, repair
    assert link.a.association.stats.tail_probes == 1
    assert link.a.association.stats.timeouts == 0


def test_rtt_growing_tenfold_costs_few_needless_retransmissions() -> None:
    link = LossyLink(LinkConfig(latency_s=0.02))
    link.connect()
    for i in range(600):
        if i == 200:
            link.links["a"].latency_s = link.links["b"].latency_s = 0.4
        link.a.association.send(1, 51, b"%d" % i, link.now)
        link.run(1 / 60)
    link.run(3)
    assert link.b.data == [b"%d" % i for i in range(600)]
    assert link.b.association.stats.duplicates_received < 60
    assert link.a.association.srtt == pytest.approx(0.8, abs=0.15)
    assert_drained(link)
