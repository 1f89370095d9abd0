"""A peer that acknowledges what it did not get, so that no loss slows us: it is found out, and nobody honest is."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from benchmarks.hostile import Victim
from psyne_mesh.webrtc.sctp import Closed, SctpConfig, wire
from psyne_mesh.webrtc.sctp.honesty import EVERY_BYTES
from tests.sctp.link import LinkConfig, LossyLink, assert_drained
from tests.sctp.test_transfer import bulk

MIB = 2**20
MOST = 3 * EVERY_BYTES + 2 * MIB  # and what may be on its way then


def lied_to(victim: Victim, acknowledge: Callable[[int], None], size: int) -> int:
    """How much was sent until the liar was found out."""
    sent = 0
    while victim.association.state.is_up and sent < 40 * MIB:
        while victim.association.buffered_amount(2) < MIB:
            victim.association.send(2, 53, bytes(size), victim.now)
            sent += size
        victim.association.packets_to_send(victim.now)
        acknowledge(victim.association._outbound.outstanding.next_tsn - 1)
        victim.now += 1e-3
    told = [event.reason for event in victim.association.take_events() if isinstance(event, Closed)]
    assert told == ["the peer acknowledges what it did not get"]
    return sent


def acknowledge_in(victim: Victim, tsn: int, *gaps: tuple[int, int]) -> None:
    if victim.association.state.is_up:
        victim.association.receive(victim.sealed(victim.tag, wire.sack_chunk(tsn, 1 << 24, list(gaps))), victim.now)


@pytest.mark.parametrize(
    ("way", "size"),
    [
        ("all that was sent", 4_000),
        ("all that was sent", 200_000),
        ("one chunk each", 16_000),
        ("by gap blocks", 16_000),
        ("by saying goodbye", 16_000),
    ],
)
def test_who_acknowledges_all_is_found_out(way: str, size: int) -> None:
    victim = Victim()

    def acknowledge(newest: int) -> None:
        table = victim.association._outbound.outstanding
        base = table.cumulative_tsn
        if way == "all that was sent":
            acknowledge_in(victim, newest)
        elif way == "one chunk each":
            for tsn in range(base + 1, newest + 1):
                acknowledge_in(victim, tsn)
        elif way == "by saying goodbye":
            if victim.association._outbound.honesty.kept is None:
                acknowledge_in(victim, newest)
            else:
                goodbye = wire.chunk(wire.SHUTDOWN, 0, wire.U32.pack(newest & 0xFFFFFFFF))
                victim.association.receive(victim.sealed(victim.tag, goodbye), victim.now)
        elif newest > base + 2:
            acknowledge_in(victim, base + 1, (2, newest - base - 1))
        else:
            acknowledge_in(victim, newest)

    assert lied_to(victim, acknowledge, size) <= MOST


@pytest.mark.parametrize("interleaving", [False, True])
@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_an_honest_one_gets_all_of_it(interleaving: bool, loss: float) -> None:
    link = LossyLink(
        LinkConfig(latency_s=0.02, jitter_s=0.004, loss=loss, duplication=loss, mtu=1500),
        seed=7,
        config_a=SctpConfig(interleaving=interleaving),
        back=LinkConfig(latency_s=0.02, loss=loss),
    )
    link.connect()
    dice, said = random.Random(1), list[bytes]()
    for number in range(400):
        size = dice.choice((100, 4_000, 60_000))
        said.append(number.to_bytes(4, "big") + bytes(size))
        link.a.association.send(1, 53, said[-1], link.now)
        if number % 20 == 0:
            link.run(0.05)
    assert link.run_until(lambda: len(link.b.data) == len(said), 600)
    assert link.b.data == said
    link.run(5)
    assert_drained(link)
    assert link.a.association._outbound.honesty.every > EVERY_BYTES


def test_what_is_kept_back_costs_no_throughput() -> None:
    rates = []
    for every in (EVERY_BYTES, 1 << 60):
        link = LossyLink(LinkConfig(latency_s=0.02, bytes_per_s=5e6, queue_bytes=200_000, mtu=1500))
        link.connect()
        link.a.association._outbound.honesty.every = every
        rates.append(bulk(link, 16 * MIB))
    assert rates[0] >= 0.98 * rates[1]


def test_the_last_one_is_not_forgotten() -> None:
    """The path swallows all that would show the gap."""
    link = LossyLink(LinkConfig(latency_s=0.02, mtu=1500))
    link.connect()
    honesty = link.a.association._outbound.honesty
    honesty.acked_bytes, honesty.every = 3, 1
    link.a.association.send(1, 53, bytes(100_000), link.now)
    link.flush(link.a)
    assert honesty.kept is not None
    link.drop = lambda name, packet, serial: name == "a"
    link.run(0.1)
    link.drop = None
    assert link.run_until(lambda: link.b.data == [bytes(100_000)], 10)
    link.run(2)
    assert_drained(link)
    assert honesty.kept is None
