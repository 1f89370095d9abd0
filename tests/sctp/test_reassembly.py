"""Chunks become messages in every order of arrival, and nothing is left behind."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyne_mesh.webrtc.sctp.reassembly import HELD_LIFE_S, Reassembly
from psyne_mesh.webrtc.sctp.wire import FLAG_BEGIN, FLAG_END, FLAG_UNORDERED

Fragment = tuple[int, int, int, int, int, bytes]  # TSN, stream, number, PPID (or FSN), flags, payload


def fragments(tsn: int, stream: int, number: int, parts: int, *, unordered: bool = False) -> list[Fragment]:
    out = []
    for i in range(parts):
        flags = FLAG_UNORDERED if unordered else 0
        flags |= FLAG_BEGIN if i == 0 else 0
        flags |= FLAG_END if i == parts - 1 else 0
        out.append((tsn + i, stream, 0 if unordered else number, 51, flags, b"%d.%d.%d " % (stream, number, i)))
    return out


def whole(stream: int, number: int, parts: int) -> bytes:
    return b"".join(b"%d.%d.%d " % (stream, number, i) for i in range(parts))


def feed(reassembly: Reassembly, chunks: list[Fragment]) -> list[bytes]:
    for chunk in chunks:
        reassembly.add_data(*chunk)
    return [message.data for message in reassembly.ready]


@given(st.permutations(range(12)), st.booleans())
def test_data_fragments_join_in_any_order(order: list[int], unordered: bool) -> None:
    chunks = []
    for number, parts in enumerate((1, 4, 2, 1, 4)):
        chunks += fragments(2**32 - 5 + len(chunks), 3, number, parts, unordered=unordered)
    reassembly = Reassembly(interleaving=False)
    got = feed(reassembly, [chunks[i] for i in order])
    want = [whole(3, number, parts) for number, parts in enumerate((1, 4, 2, 1, 4))]
    assert sorted(got) == sorted(want)
    if not unordered:
        assert got == want
    assert reassembly.is_empty
    assert reassembly.violations == 0


@given(st.permutations(range(12)))
def test_i_data_fragments_of_interleaved_messages_join_in_any_order(order: list[int]) -> None:
    chunks = []
    for stream, unordered in ((1, False), (2, False), (1, True)):
        for number, parts in ((0, 1), (1, 3)):
            for i in range(parts):
                flags = FLAG_UNORDERED if unordered else 0
                flags |= FLAG_BEGIN if i == 0 else 0
                flags |= FLAG_END if i == parts - 1 else 0
                chunks.append((stream, number, 51 if i == 0 else i, flags, b"%d.%d.%d " % (stream, number, i)))
    reassembly = Reassembly(interleaving=True)
    for i in order:
        reassembly.add_i_data(*chunks[i])
    got = [(m.stream_id, m.unordered, m.data, m.ppid) for m in reassembly.ready]
    for stream, unordered in ((1, False), (2, False), (1, True)):
        want = [(stream, unordered, whole(stream, number, parts), 51) for number, parts in ((0, 1), (1, 3))]
        mine = [entry for entry in got if entry[:2] == (stream, unordered)]
        assert sorted(mine) == want
        if not unordered:
            assert mine == want
    assert reassembly.is_empty


def test_held_bytes_count_what_waits() -> None:
    reassembly = Reassembly(interleaving=False)
    feed(reassembly, fragments(5, 1, 1, 1))  # number 0 is missing
    assert (reassembly.held_bytes, reassembly.held_chunks) == (len(b"1.1.0 "), 2)
    feed(reassembly, fragments(1, 1, 0, 3)[1:])
    assert (reassembly.held_bytes, reassembly.held_chunks) == (18, 4)
    assert feed(reassembly, fragments(1, 1, 0, 3)[:1]) == [whole(1, 0, 3), whole(1, 1, 1)]
    assert (reassembly.held_bytes, reassembly.held_chunks) == (0, 0)


@pytest.mark.parametrize("interleaving", [False, True])
def test_numbers_wrap(interleaving: bool) -> None:
    reassembly = Reassembly(interleaving=interleaving)
    top = 2**32 if interleaving else 2**16
    reassembly._next[1] = top - 2
    flags = FLAG_BEGIN | FLAG_END
    for number in (0, top - 1, top - 2):
        if interleaving:
            reassembly.add_i_data(1, number, 51, flags, b"%d" % number)
        else:
            reassembly.add_data(number, 1, number, 51, flags, b"%d" % number)
    assert [m.data for m in reassembly.ready] == [b"%d" % (top - 2), b"%d" % (top - 1), b"0"]


class TestForward:
    def test_what_was_skipped_no_longer_blocks(self) -> None:
        reassembly = Reassembly(interleaving=False)
        feed(reassembly, fragments(12, 1, 2, 1))
        feed(reassembly, fragments(11, 1, 1, 1))
        reassembly.forward(12, [(1, False, 0)])
        assert [m.data for m in reassembly.ready] == [whole(1, 1, 1), whole(1, 2, 1)]
        assert reassembly.is_empty

    def test_perishable_messages_that_waited_for_too_long_are_dropped(self) -> None:
        reassembly = Reassembly(interleaving=False)
        reassembly.perishable.add(1)
        feed(reassembly, fragments(12, 1, 2, 1))
        reassembly.now = HELD_LIFE_S + 0.1
        feed(reassembly, fragments(13, 1, 3, 1))
        reassembly.forward(12, [(1, False, 1)])
        assert [m.data for m in reassembly.ready] == [whole(1, 3, 1)]
        assert reassembly.is_empty
        reassembly.reset([1])
        assert not reassembly.perishable

    def test_whole_messages_before_the_skipped_one_are_delivered(self) -> None:
        reassembly = Reassembly(interleaving=False)
        feed(reassembly, fragments(11, 1, 1, 1))
        reassembly.forward(12, [(1, False, 2)])
        assert [m.data for m in reassembly.ready] == [whole(1, 1, 1)]
        feed(reassembly, fragments(13, 1, 3, 1))
        assert len(reassembly.ready) == 2

    @pytest.mark.parametrize("unordered", [False, True])
    @pytest.mark.parametrize("kept", [[0], [1], [2], [0, 1], [1, 2], [0, 2]])
    def test_half_messages_of_data_are_dropped(self, unordered: bool, kept: list[int]) -> None:
        reassembly = Reassembly(interleaving=False)
        half = fragments(10, 1, 0, 3, unordered=unordered)
        feed(reassembly, [half[i] for i in kept])
        assert reassembly.held_bytes
        reassembly.forward(12, [] if unordered else [(1, False, 0)])
        assert reassembly.is_empty
        assert not reassembly.ready

    def test_a_message_that_may_still_complete_is_kept(self) -> None:
        reassembly = Reassembly(interleaving=False)
        feed(reassembly, fragments(13, 1, 1, 2)[:1])
        reassembly.forward(13, [(1, False, 0)])
        assert feed(reassembly, fragments(13, 1, 1, 2)[1:]) == [whole(1, 1, 2)]

    def test_i_forward_names_the_message(self) -> None:
        reassembly = Reassembly(interleaving=True)
        for mid in (0, 1):
            reassembly.add_i_data(1, mid, 51, FLAG_BEGIN | FLAG_UNORDERED, b"u")
            reassembly.add_i_data(1, mid, 51, FLAG_BEGIN, b"o")
        reassembly.forward(5, [(1, True, 0), (1, False, 0)])
        assert sorted(reassembly._partials) == [(1, False, 1), (1, True, 1)]
        reassembly.add_i_data(1, 1, 1, FLAG_END, b"o")
        assert [m.data for m in reassembly.ready] == [b"oo"]

    def test_an_old_number_changes_nothing(self) -> None:
        reassembly = Reassembly(interleaving=False)
        feed(reassembly, fragments(10, 1, 0, 1) + fragments(11, 1, 1, 1))
        reassembly.forward(12, [(1, False, 0)])
        feed(reassembly, fragments(13, 1, 2, 1))
        assert len(reassembly.ready) == 3


@pytest.mark.parametrize("interleaving", [False, True])
def test_a_reset_begins_at_zero_and_forgets_the_old(interleaving: bool) -> None:
    reassembly = Reassembly(interleaving=interleaving)

    def add(stream: int, number: int, flags: int, payload: bytes) -> None:
        if interleaving:
            reassembly.add_i_data(stream, number, 51, flags, payload)
        else:
            reassembly.add_data(20, stream, number, 51, flags, payload)

    add(1, 0, FLAG_BEGIN | FLAG_END, b"first")
    add(1, 5, FLAG_BEGIN | FLAG_END, b"early")
    add(1, 1, FLAG_BEGIN, b"half")
    add(2, 3, FLAG_BEGIN | FLAG_END, b"other")
    reassembly.reset([1])
    add(1, 0, FLAG_BEGIN | FLAG_END, b"again")
    assert [m.data for m in reassembly.ready] == [b"first", b"again"]
    reassembly.reset([2])
    assert reassembly.is_empty


class TestContradictions:
    def test_a_number_that_was_delivered(self) -> None:
        reassembly = Reassembly(interleaving=False)
        feed(reassembly, fragments(1, 1, 0, 1) + fragments(2, 1, 0, 1))
        assert len(reassembly.ready) == 1
        assert reassembly.violations == 1
        assert reassembly.is_empty

    def test_a_number_that_is_held(self) -> None:
        reassembly = Reassembly(interleaving=False)
        feed(reassembly, fragments(1, 1, 4, 1) + fragments(2, 1, 4, 1))
        assert reassembly.violations == 1

    def test_neighbours_of_another_message_do_not_join(self) -> None:
        reassembly = Reassembly(interleaving=False)
        assert feed(reassembly, [fragments(1, 1, 0, 2)[0], fragments(1, 2, 0, 2)[1]]) == []
        assert feed(reassembly, [fragments(5, 1, 0, 2)[0], fragments(6, 1, 0, 2)[0]]) == []

    def test_a_fragment_beyond_the_end(self) -> None:
        reassembly = Reassembly(interleaving=True)
        reassembly.add_i_data(1, 0, 3, FLAG_END, b"end")
        reassembly.add_i_data(1, 0, 4, 0, b"beyond")
        reassembly.add_i_data(1, 0, 2, FLAG_END, b"another end")
        reassembly.add_i_data(1, 0, 3, 0, b"twice")
        assert reassembly.violations == 3
        reassembly.add_i_data(1, 1, 3, 0, b"late")
        reassembly.add_i_data(1, 1, 2, FLAG_END, b"end before it")
        assert reassembly.violations == 4


def test_no_order_of_fragments_costs_more_than_a_little() -> None:
    """Every second fragment first, then the holes from behind: naive joining would move each of them thousands of
    times."""
    chunks = fragments(1, 1, 0, 20_000)
    reassembly = Reassembly(interleaving=False)
    random.Random(1).shuffle(chunks)
    (message,) = feed(reassembly, chunks)
    assert message == whole(1, 0, 20_000)
    chunks = fragments(50_000, 1, 1, 20_000)
    feed(reassembly, chunks[1::2])
    assert feed(reassembly, chunks[0::2][::-1])[-1] == whole(1, 1, 20_000)


def test_an_end_before_a_fragment_that_is_held_contradicts_it() -> None:
    """However many are held: each such end must cost the same."""
    reassembly = Reassembly(interleaving=True)
    for fsn in range(5, 5000):
        reassembly.add_i_data(1, 0, fsn, 0, b"x")
    for _ in range(5000):
        reassembly.add_i_data(1, 0, 3, FLAG_END, b"x")
    assert reassembly.violations == 5000
    reassembly.add_i_data(1, 0, 51, FLAG_BEGIN, b"x")
    for fsn in range(1, 5):
        reassembly.add_i_data(1, 0, fsn, 0, b"x")
    reassembly.add_i_data(1, 0, 4999, FLAG_END, b"x")  # what was early no longer is, and this one does end after it
    reassembly.add_i_data(1, 0, 5000, FLAG_END, b"x")
    assert reassembly.violations == 5000 + 1
    assert [len(message.data) for message in reassembly.ready] == [5001]


@given(st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=40)
def test_the_books_are_right_whatever_comes(dice: random.Random, interleaving: bool) -> None:
    """Held bytes, the heaps and the indexes agree with what is there after any chunks, skips and resets, honest or not."""
    reassembly = Reassembly(interleaving=interleaving)
    tsn = 2**32 - 30
    unseen = list(range(tsn, tsn + 200))
    cumulative = tsn - 1
    for _ in range(150):
        stream, number, flags = dice.randrange(3), dice.randrange(10), dice.randrange(8)
        action = dice.random()
        if action < 0.8:
            tsn = unseen.pop(min(dice.randrange(12), len(unseen) - 1))
            if interleaving:
                reassembly.add_i_data(stream, number, dice.randrange(4), flags, b"xyz")
            else:
                reassembly.add_data(tsn, stream, number, 51, flags, b"xyz")
        elif action < 0.95:
            cumulative += dice.randrange(8)
            unseen = [tsn for tsn in unseen if tsn > cumulative]
            cumulative = unseen[0] - 1
            reassembly.forward(cumulative, [(stream, dice.random() < 0.5 and interleaving, number)])
        else:
            reassembly.reset([stream])
        partials, runs = reassembly._partials, reassembly._by_start
        held = [part for run in runs.values() for part in run.parts]
        held += [part for partial in partials.values() for part in (*partial.parts, *partial.early.values())]
        whole = [data for waiting in reassembly._waiting.values() for _, data, _ in waiting.messages.values()]
        assert reassembly.held_bytes == sum(map(len, held + whole))
        assert reassembly.held_chunks == len(held) + 2 * len(whole)
        assert {run.next_tsn for run in runs.values()} == set(reassembly._by_end)
        assert {first for firsts in reassembly._runs_of.values() for first in firsts} == set(runs)
        assert set(runs) <= set(reassembly._run_starts)
        assert sum(numbers.live for numbers in reassembly._numbers.values()) == len(partials)
        assert {(s, u, mid) for (s, u), numbers in reassembly._numbers.items() for mid in numbers.heap} >= set(partials)


@pytest.mark.parametrize("interleaving", [False, True])
def test_void_entries_do_not_pile_up(interleaving: bool) -> None:
    """One message stays incomplete for ever, thousands beside it come and end."""
    reassembly = Reassembly(interleaving=interleaving)
    for number in range(5000):
        for tsn, flags in ((3 * number, FLAG_BEGIN), (3 * number + 1, FLAG_END)):
            if number == 0 and flags == FLAG_END:
                continue
            if interleaving:
                reassembly.add_i_data(1, number, 1, flags | FLAG_UNORDERED, b"x")
            else:
                reassembly.add_data(tsn, 1, 0, 51, flags | FLAG_UNORDERED, b"x")
    assert len(reassembly.ready) == 4999
    assert len(reassembly._run_starts) < 50
    assert all(len(numbers.heap) < 50 for numbers in reassembly._numbers.values())
