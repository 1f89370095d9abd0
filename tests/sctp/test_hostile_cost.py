"""What a peer's chunks may cost: CPU for each byte, bytes out for each byte in, whatever it makes us hold before.

CPU is compared with that of honest one-byte messages, measured beside it in the same process: a machine that is slow or busy is
so for both. `python -m benchmarks.hostile` prints absolute figures.
"""

from __future__ import annotations

import math
from itertools import islice

import pytest

from benchmarks import attacks
from benchmarks.attacks import ATTACKS, Attack, tiny_messages
from benchmarks.hostile import PACKINGS, Chunks, Cost, Victim, cost
from psyne_mesh.webrtc.sctp import wire

# One-byte messages cost 1 % of a core at 1 Mbit/s, where 5 % are allowed. Measured: 4.5 at most
RATIO_MAX = 6.0
OUT_PER_BYTE_MAX = 3.0
ONE_TIME_MS = 10  # of what ends the association at once
# Each chunk that we sent is acknowledged once, and lost once for each time that it was sent: so few bytes do not pay for that
ONCE_EACH = {"sacks_with_gaps": 3.0}
TRIES = 10  # only where the first are too slow
HELD = 4000  # in the everyday suite; where cost followed what is held, it was ten times the limit even so

# Their answers are what we wanted to send anyway, again: see `TestRepeats`
REPEATING = ("window_flaps", "acks_from_behind", "sacks_of_one", "sacks_of_duplicates")

KINDS = {
    wire.DATA, wire.INIT, wire.INIT_ACK, wire.SACK, wire.HEARTBEAT, wire.HEARTBEAT_ACK, wire.ABORT, wire.SHUTDOWN,
    wire.SHUTDOWN_ACK, wire.ERROR, wire.COOKIE_ECHO, wire.COOKIE_ACK, wire.SHUTDOWN_COMPLETE, wire.I_DATA, wire.RE_CONFIG,
    wire.PAD, wire.FORWARD_TSN, wire.I_FORWARD_TSN,
}  # fmt: skip


def ratio_to_honest(attack: Attack, interleaving: bool, packing: str, n_bytes: int, held: int) -> tuple[float, Cost]:
    """The least of some tries, as whatever else runs only adds."""
    best = honest = math.inf
    for _ in range(TRIES):
        honest = min(honest, cost(tiny_messages, PACKINGS["bundled"], 20_000).ns_per_byte)
        result = cost(lambda: attack(interleaving, held), PACKINGS[packing], n_bytes)
        best = min(best, result.ns_per_byte)
        if best / honest <= RATIO_MAX:
            break
    return best / honest / ONCE_EACH.get(attack.__name__, 1.0), result


def judge(attack: Attack, interleaving: bool, packing: str, n_bytes: int, held: int) -> None:
    ratio, result = ratio_to_honest(attack, interleaving, packing, n_bytes, held)
    if not result.ended:  # one call, and nothing more
        assert ratio <= RATIO_MAX
    else:
        assert result.longest_ms <= ONE_TIME_MS
    if attack.__name__ not in REPEATING:
        assert result.out_per_byte <= OUT_PER_BYTE_MAX


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_no_chunk_costs_much_more_than_honest_ones(attack: Attack) -> None:
    judge(attack, True, "alone", 10_000, HELD)


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("interleaving", [False, True])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_nor_in_any_packing(attack: Attack, interleaving: bool, packing: str) -> None:
    judge(attack, interleaving, packing, 200_000, attacks.HELD)


def test_there_is_an_attack_with_every_kind_of_chunk() -> None:
    tried = set()
    for attack in ATTACKS:
        for interleaving in (False, True):
            tried |= {chunk[0] for chunk in islice(attack(interleaving, 20)[1], 5)}
    assert tried >= KINDS
    assert {value for name, value in vars(wire).items() if name in vars(wire) and _is_kind(name)} == KINDS


def _is_kind(name: str) -> bool:
    prefixes = ("FLAG_", "PARAM_", "CAUSE_", "ZERO_", "HEADER_", "_")
    return name.isupper() and isinstance(getattr(wire, name), int) and not name.startswith(prefixes)


class TestRepeats:
    """Row 16 of the attacks that were found: window flaps after optimistic acknowledgements had everything sent 337 times."""

    @pytest.mark.parametrize("name", REPEATING)
    def test_are_paid_for_with_what_has_arrived(self, name: str) -> None:
        attack = next(attack for attack in ATTACKS if attack.__name__ == name)
        victim, chunks = attack(True, attacks.HELD)
        before, acked_before = victim.association.stats, _acked(victim)
        _give(victim, chunks, 3000)
        after, acked = victim.association.stats, _acked(victim) - acked_before
        repeated = (after.bytes_sent - after.user_bytes_sent) - (before.bytes_sent - before.user_bytes_sent)
        allowed = before.cwnd_bytes + 65_536 + 2 * acked  # in advance, and for what came
        assert repeated <= 1.3 * allowed + 1300 * after.timeouts  # with headers; a packet for each timeout

    def test_of_an_honest_lossy_path_are_not_held_up(self) -> None:
        victim = Victim(interleaving=True)
        victim.outstanding(200, size=1000)
        outbound = victim.association._outbound
        before = outbound._repeats_left
        base = outbound.outstanding.cumulative_tsn
        victim.give(wire.sack_chunk(base, 1 << 24, [(i, i) for i in range(3, 200, 3)]))  # two of three are lost
        victim.now += 0.1
        victim.association.handle_timeout(victim.now)
        assert outbound._repeats_left > before // 2


def _acked(victim: Victim) -> int:
    """User bytes that the peer has acknowledged."""
    table = victim.association._outbound.outstanding
    return victim.association.stats.user_bytes_sent - table.flight_bytes - table.lost_bytes


def _give(victim: Victim, chunks: Chunks, n: int) -> None:
    for chunk in islice(chunks, n):
        victim.now += 1e-3
        deadline = victim.association.next_timeout()
        if deadline is not None and deadline <= victim.now:
            victim.association.handle_timeout(victim.now)
        victim.take(victim.sealed(victim.tag, chunk))
