"""What a peer with a valid key can make an SCTP association and its channels work for: chunks of every kind, chosen to cost.

Each attack is a generator: it first brings the victim into the state that makes its chunks dear (it may make it hold a lot, or
have a lot outstanding), then yields chunks, most of them for ever. `hostile.py` measures what they cost.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count, cycle
from typing import TypeAlias

from benchmarks.hostile import INITIAL_TSN, Victim
from psyne_mesh.config import DataChannelConfig
from psyne_mesh.testing.hostile import chunks as lies
from psyne_mesh.testing.hostile.chunks import WHOLE, WORD, Chunks, reset_request
from psyne_mesh.webrtc.credit import CREDIT_STREAM
from psyne_mesh.webrtc.dcep import ACK, encode_credit, encode_open
from psyne_mesh.webrtc.sctp import wire

HELD = 8_000  # chunks that the victim is made to hold, or has outstanding, where an attack wants that

# ------------------------------------------------------------------------------------------------------------------ data


def tiny_messages(interleaving: bool = False, held: int = HELD, *, unordered: bool = True) -> tuple[Victim, Chunks]:
    """Honest in every way, but one byte each: what a chunk costs at the least."""
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    flags = WHOLE | (wire.FLAG_UNORDERED if unordered else 0)
    return victim, (victim.data(flags=flags, number=i) for i in count())


def holes_from_above(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Every second TSN, the highest first: each is a range of its own, before all others."""
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    flags = WHOLE | wire.FLAG_UNORDERED
    return victim, (victim.data(flags=flags, tsn=INITIAL_TSN + offset) for offset in range(4 * held - 4000, 0, -2))


def holes_filled(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Many ranges, and then the first hole, and the next."""
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    flags = WHOLE | wire.FLAG_UNORDERED
    victim.give(*(victim.data(flags=flags, tsn=INITIAL_TSN + 2 * i + 1) for i in range(2 * held)))
    return victim, (victim.data(flags=flags, tsn=INITIAL_TSN + 2 * i) for i in range(2 * held))


def known(victim: Victim, base: int = 0, outstanding: int = 0) -> lies.Peer:
    return lies.Peer(victim, INITIAL_TSN, base, outstanding)


def behind_many_holes(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    return staged(victim, lies.duplicates_behind_holes(known(victim), held))


def staged(victim: Victim, storm: lies.Storm) -> tuple[Victim, Chunks]:
    victim.give(*storm.stage)
    return victim, storm.chunks


def hold_fragments(victim: Victim, n: int) -> None:
    victim.give(*lies.held_fragments(victim, n))


def hold_ordered(victim: Victim, n: int, *, stream: int = 1) -> None:
    """Whole messages of one stream that wait for the first."""
    victim.give(*(victim.data(stream=stream, number=i) for i in range(1, n + 1)))


def fragments(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    return victim, (victim.data(stream=i % 60_000, number=i, flags=0, ppid=1) for i in count())


def many_partials(interleaving: bool = True, held: int = HELD) -> tuple[Victim, Chunks]:
    """Messages of two fragments that all are under way at once, ended in the opposite order."""
    victim = Victim(interleaving=True)
    victim.open_channels(1, negotiated=True, id=1)

    def chunks() -> Chunks:
        for base in count(0, held // 2):
            numbers = range(base, base + held // 2)
            flags = wire.FLAG_UNORDERED
            yield from (victim.data(number=i, flags=wire.FLAG_BEGIN | flags) for i in numbers)
            yield from (victim.data(number=i, flags=wire.FLAG_END | flags, ppid=1) for i in reversed(numbers))

    return victim, chunks()


def ordered_backwards(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Whole messages of one stream, the last first: all wait, then all come at once."""
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    return victim, (victim.data(number=base + offset) for base in count(0, held) for offset in range(held - 1, -1, -1))


def replay_deferred(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """A reset that waits for data, data beyond it that waits for the reset, and other resets that do not wait."""
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    number = count(INITIAL_TSN)
    victim.give(reset_request(next(number), [1], victim.tsn + 50_000))
    victim.tsn = INITIAL_TSN
    flags = WHOLE | wire.FLAG_UNORDERED
    far = INITIAL_TSN + 50_001
    victim.give(*(victim.data(flags=flags, tsn=far + 1 + i) for i in range(held)))
    return victim, (reset_request(next(number), [5 + 2 * (i % 400)], INITIAL_TSN - 1) for i in count())


# --------------------------------------------------------------------------------------------------------------- control


def forward_over_fragments(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    return staged(victim, lies.forwards_over_fragments(known(victim), held))


def forward_over_streams(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """The same with a stream in each whose messages all lie further ahead."""
    victim = Victim(interleaving=interleaving)
    victim.give(*(victim.data(number=20_000 + i) for i in range(held)))
    return victim, (victim.forward(victim.tsn + i, [(1, False, i)] * 2) for i in count())


def forward_by_leaps(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Numbers that leap by more than is held, without reaching it."""
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    leap = 1 << 18 if interleaving else 20
    start = 1 << 31 if interleaving else 32_000
    victim.give(*(victim.data(number=start - 1 - i) for i in range(held)))
    mask = WORD if interleaving else 0xFFFF
    return victim, (victim.forward(victim.tsn + i, [(1, False, i * leap & mask)]) for i in count())


def forward_with_lists(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """As many streams as a base packet names."""
    victim = Victim(interleaving=interleaving)
    hold_fragments(victim, held)
    skipped = [[(stream + base, False, 7) for stream in range(140)] for base in range(0, 65_000, 140)]
    return victim, (victim.forward(victim.tsn + i, skipped[i % len(skipped)]) for i in count())


def resets_over_fragments(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    return staged(victim, lies.resets_over_fragments(known(victim), held))


def resets_in_lists(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Streams that the peer never opened, hundreds a request."""
    victim = Victim(interleaving=interleaving)
    streams = [list(range(base, base + 500)) for base in range(0, 65_000, 500)]
    return victim, (reset_request(i, streams[i % 2], INITIAL_TSN - 1) for i in count(INITIAL_TSN))


def resets_of_all(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Every stream has been used; a request without a list means all of them."""
    victim = Victim(interleaving=interleaving)
    victim.give(*(victim.data(stream=stream, ppid=50, payload=ACK) for stream in range(min(4 * held, 60_000))))
    return victim, (reset_request(i, [], victim.tsn - 1) for i in count(INITIAL_TSN))


def resets_deferred(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Requests for streams whose last TSN is not here yet, hundreds a request, asked again and again."""
    victim = Victim(interleaving=interleaving)
    streams = list(range(500))
    return victim, (reset_request(i, streams, INITIAL_TSN + 1000) for i in count(INITIAL_TSN))


def ask_for_resets(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Our own streams, which have data waiting behind a closed window, are to be reset."""
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1000, ordered=False)
    victim.give(wire.sack_chunk(victim.association._outbound.outstanding.next_tsn - 1, 0, []))
    for stream in range(0, 2000, 2):
        victim.association.send(stream, 53, bytes(100), victim.now)
    streams = b"".join(wire.U16.pack(stream) for stream in range(0, 2000, 2))
    first = wire.U32.pack(INITIAL_TSN) + streams
    victim.give(wire.chunk(wire.RE_CONFIG, 0, wire.parameter(wire.PARAM_INCOMING_RESET, first)))
    return victim, (
        wire.chunk(wire.RE_CONFIG, 0, wire.parameter(wire.PARAM_INCOMING_RESET, wire.U32.pack(i)))
        for i in count(INITIAL_TSN + 1)
    )


def refused_requests(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    return victim, (
        wire.chunk(wire.RE_CONFIG, 0, wire.parameter(wire.PARAM_ADD_OUTGOING, wire.U32.pack(i) + bytes(4)))
        for i in count(INITIAL_TSN)
    )


def many_parameters(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """RE-CONFIG and ERROR and HEARTBEAT-ACK of nothing but empty parameters."""
    victim = Victim(interleaving=interleaving)
    body = wire.parameter(99, b"") * 280
    return victim, cycle([wire.chunk(kind, 0, body) for kind in (wire.RE_CONFIG, wire.ERROR, wire.HEARTBEAT_ACK)])


def sacks_with_gaps(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    return staged(victim, lies.gap_acks(known(victim, victim.outstanding(held), held), held))


def sacks_repeated(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """The same gap blocks again and again."""
    victim = Victim(interleaving=interleaving)
    base = victim.outstanding(held)
    gaps = [(i, i) for i in range(2, 500, 2)]
    return victim, cycle([wire.sack_chunk(base, 1 << 24, gaps), wire.sack_chunk(base, 1 << 24, [(2, 2)])])


def sacks_of_one(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """One chunk more each time, as far apart as there are."""
    victim = Victim(interleaving=interleaving)
    base = victim.outstanding(held)
    dice = random.Random(1)
    offsets = list(range(2, held - 1))
    dice.shuffle(offsets)
    return victim, (wire.sack_chunk(base, 1 << 24, [(i, i)]) for i in offsets)


def sacks_of_duplicates(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    base = victim.outstanding(held)
    return victim, cycle([wire.sack_chunk(base, 1 << 24, [], range(base, base + 280)), wire.sack_chunk(base, 0, [])])


def sacks_of_the_past(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    base = victim.outstanding(held)
    return victim, cycle([wire.sack_chunk(base - 5, 1 << 24, []), wire.sack_chunk(base, 1 << 24, [])])


def sacks_that_renege(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Everything has come but the first; then the first has, and the rest has not."""
    victim = Victim(interleaving=interleaving)
    base = victim.outstanding(held)

    def chunks() -> Chunks:
        for i in count(1):
            yield wire.sack_chunk(base + i, 1 << 24, [(2, held - i)])
            yield wire.sack_chunk(base + i + 1, 1 << 24, [])
            victim.now += 1.0  # T3-rtx expires meanwhile

    return victim, chunks()


def window_flaps(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Row 16: everything is said to have come at once, so that the window grows and the round trips shrink; then the peer's
    window closes and opens, and whatever is outstanding is asked for again and again."""
    victim = Victim(interleaving=interleaving)
    outbound = victim.association._outbound
    outbound.honesty.every = 1 << 60  # else it were found out before its window is so large
    for _ in range(400):
        for _ in range(20):
            victim.association.send(2, 53, bytes(1000), victim.now)
        victim.now += 1e-4
        victim.acknowledge()
    for _ in range(held // 8):
        victim.association.send(2, 53, bytes(1000), victim.now)
    base = outbound.outstanding.cumulative_tsn
    victim.association.packets_to_send(victim.now)

    return staged(victim, lies.window_flaps(known(victim, base), held))


def acks_from_behind(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """The same, with the newest chunk acknowledged each time: everything before it is taken for lost."""
    victim, _ = window_flaps(interleaving, held=held)
    table = victim.association._outbound.outstanding

    def chunks() -> Chunks:
        base = table.cumulative_tsn
        while True:
            newest = max((c for c in table.chunks.values() if c.state == 0), key=lambda c: c.serial, default=None)
            if newest is None or newest.tsn <= base + 1:
                yield wire.sack_chunk(base, 1 << 24, [])
            else:
                yield wire.sack_chunk(base, 1 << 24, [(newest.tsn - base, newest.tsn - base)])

    return victim, chunks()


def heartbeats(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    return Victim(interleaving=interleaving), cycle([wire.chunk(wire.HEARTBEAT, 0, b"")])


def long_heartbeats(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    return Victim(interleaving=interleaving), cycle([wire.chunk(wire.HEARTBEAT, 0, bytes(1100))])


def heartbeat_acks(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    info = wire.parameter(wire.PARAM_HEARTBEAT_INFO, bytes(14))
    return Victim(interleaving=interleaving), cycle([wire.chunk(wire.HEARTBEAT_ACK, 0, info)])


def inits(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    return victim, cycle([victim.init])


def init_acks(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    return victim, cycle([bytes([wire.INIT_ACK]) + victim.init[1:]])


def cookies_again(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Our own cookie, as if our COOKIE-ACK had been lost."""
    victim = Victim(interleaving=interleaving)
    return victim, cycle([wire.chunk(wire.COOKIE_ECHO, 0, victim.cookie)])


def cookies_made_up(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    return victim, cycle([wire.chunk(wire.COOKIE_ECHO, 0, bytes(len(victim.cookie)))])


def errors(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    return Victim(interleaving=interleaving), cycle([wire.chunk(wire.ERROR, 0, b"")])


def padding(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    return Victim(interleaving=interleaving), cycle([wire.chunk(wire.PAD, 0, b"")])


def unknown_and_silent(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    return Victim(interleaving=interleaving), cycle([wire.chunk(0xBF, 0, b"")])


def unknown_and_reported(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    return Victim(interleaving=interleaving), cycle([wire.chunk(0xFF, 0, b"")])


def other_kinds(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Those that say nothing on an association that stands."""
    kinds = (wire.COOKIE_ACK, wire.SHUTDOWN_ACK, wire.SHUTDOWN_COMPLETE)
    return Victim(interleaving=interleaving), cycle([wire.chunk(kind, 0, b"") for kind in kinds])


def the_wrong_data(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """DATA where I-DATA was agreed on, and the other way round."""
    other = Victim(interleaving=not interleaving)
    return Victim(interleaving=interleaving), cycle([other.data()])


def streams_out_of_range(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving, streams=10)
    return victim, (victim.data(stream=60_000) for _ in count())


def shutdowns(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """The peer wants to close, and never acknowledges what it would have to wait for."""
    victim = Victim(interleaving=interleaving)
    base = victim.outstanding(held)
    return victim, cycle([wire.chunk(wire.SHUTDOWN, 0, wire.U32.pack(base & WORD))])


def aborts(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """One ends the association, whatever it says."""
    return Victim(interleaving=interleaving), cycle([wire.chunk(wire.ABORT, 0, wire.parameter(0xBEEF, b"") * 200)])


def shutdown_with_data(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """We shut down, and the peer goes on."""
    victim = Victim(interleaving=interleaving)
    victim.association.shutdown(victim.now)
    victim.association.packets_to_send(victim.now)
    return victim, (victim.data(flags=WHOLE | wire.FLAG_UNORDERED) for _ in count())


# -------------------------------------------------------------------------------------------------------------- channels


def _dcep(victim: Victim, stream: int, payload: bytes, number: int = 0, ppid: int = 50) -> bytes:
    return victim.data(payload, stream=stream, number=number, ppid=ppid)


def opens(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """One channel after the other, without a name."""
    victim = Victim(interleaving=interleaving)
    word = encode_open(DataChannelConfig(label=""))
    return victim, (_dcep(victim, 1 + 2 * (i % 32_000), word, i // 32_000) for i in count())


def opens_with_words(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    word = encode_open(DataChannelConfig(label="x" * 500))
    return victim, (_dcep(victim, 1 + 2 * (i % 32_000), word, i // 32_000) for i in count())


def open_and_reset(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """A channel comes and goes, all the time, in step with our answers."""
    victim = Victim(interleaving=interleaving)
    word = encode_open(DataChannelConfig(label=""))

    def chunks() -> Chunks:
        resets = victim.association._resets
        for number in count(INITIAL_TSN):
            yield _dcep(victim, 1, word)
            yield reset_request(number, [1], victim.tsn - 1)
            done = wire.U32.pack(resets._next_request) + wire.U32.pack(1)
            yield wire.chunk(wire.RE_CONFIG, 0, wire.parameter(wire.PARAM_RECONFIG_RESPONSE, done))
            victim.acknowledge()

    return victim, chunks()


def opens_in_use(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1)
    word = encode_open(DataChannelConfig(label=""))
    return victim, (_dcep(victim, 0, word, i) for i in count())


def dcep_nonsense(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    return victim, (_dcep(victim, 1 + 2 * (i % 32_000), b"\x07", i // 32_000) for i in count())


def dcep_acks(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    return victim, (_dcep(victim, 1, ACK, i) for i in count())


def credits_changing(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Thousands of messages wait on a channel, which may send, and may not."""
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    channel = victim.table.channel(1)
    assert channel is not None
    victim.give(wire.sack_chunk(victim.association._outbound.outstanding.next_tsn - 1, 0, []))
    for _ in range(held):
        victim.table.send(channel, b"x", victim.now)
    words = cycle([encode_credit(1, 0), encode_credit(1, 1 << 40)])
    return victim, (victim.data(next(words), stream=CREDIT_STREAM, number=i, ppid=50) for i in count())


def empty_messages(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    victim.open_channels(1, negotiated=True, id=1)
    return victim, (_dcep(victim, 1, b"\0", i, ppid=57) for i in count())


def unknown_ppids(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    victim.open_channels(500, negotiated=False)
    return victim, (_dcep(victim, 2 * (i % 500), b"x", i // 500, ppid=77) for i in count())


def bad_texts(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    victim.open_channels(500, negotiated=False)
    return victim, (_dcep(victim, 2 * (i % 500), b"\xff", i // 500, ppid=51) for i in count())


def early_messages(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    """Messages on streams that have no channel."""
    victim = Victim(interleaving=interleaving)
    return victim, (_dcep(victim, i % 60_000, b"x", i // 60_000, ppid=53) for i in count())


def early_on_one(interleaving: bool = False, held: int = HELD) -> tuple[Victim, Chunks]:
    victim = Victim(interleaving=interleaving)
    return victim, (_dcep(victim, 7, b"x", i, ppid=53) for i in count())


Attack: TypeAlias = Callable[[bool, int], tuple[Victim, Chunks]]  # interleaving, held
ATTACKS: tuple[Attack, ...] = (
    tiny_messages, holes_from_above, holes_filled, behind_many_holes, fragments, many_partials, ordered_backwards,
    replay_deferred, forward_over_fragments, forward_over_streams, forward_by_leaps, forward_with_lists,
    resets_over_fragments, resets_in_lists, resets_of_all, resets_deferred, ask_for_resets, refused_requests, many_parameters,
    sacks_with_gaps, sacks_repeated, sacks_of_one, sacks_of_duplicates, sacks_of_the_past, sacks_that_renege, window_flaps,
    acks_from_behind, heartbeats, long_heartbeats, heartbeat_acks, inits, init_acks, cookies_again, cookies_made_up, errors,
    padding, unknown_and_silent, unknown_and_reported, other_kinds, the_wrong_data, streams_out_of_range, shutdowns, aborts,
    shutdown_with_data, opens, opens_with_words, open_and_reset, opens_in_use, dcep_nonsense, dcep_acks,
    credits_changing, empty_messages, unknown_ppids, bad_texts, early_messages, early_on_one,
)  # fmt: skip
