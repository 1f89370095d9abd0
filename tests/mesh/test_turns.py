"""However dear the words of neighbours are, one turn of the loop hears a few milliseconds' worth of them, and all in turn."""

from __future__ import annotations

from psyne_mesh.gossip.codec import ITEMS_MAX
from psyne_mesh.gossip.costs import VERIFY
from psyne_mesh.identity import PeerId
from psyne_mesh.mesh.turns import TURN_UNITS, WAITING_BYTES_MAX, Speaker, Turns

LIAR, ADA, BOB = ((b"room", PeerId(f"{number:032x}")) for number in range(3))
LONGEST_MS = 5.0


def heard(turns: Turns, *said: tuple[Speaker, bytes], units: float) -> list[list[tuple[Speaker, bytes]]]:
    """What each turn of the loop hears, where each frame costs so much."""
    each: list[list[tuple[Speaker, bytes]]] = [[]]
    for speaker, frame in said:
        if turns.may_hear(speaker, frame):
            each[-1].append((speaker, frame))
            turns.spend(units)
    while turns.begin():
        each.append([])
        for speaker, frame in turns.waiting():
            each[-1].append((speaker, frame))
            turns.spend(units)
    return each


def test_a_batch_of_the_dearest_frames_takes_many_turns_and_none_of_these_five_milliseconds() -> None:
    """64 datagrams: ten frames with as many records as a frame may have, in one step once."""
    dearest = VERIFY * ITEMS_MAX
    turns = heard(Turns(), *[(LIAR, b"x" * 7_000)] * 10, units=dearest)
    assert [len(frames) for frames in turns] == [1] * 10
    for units in (VERIFY, 3 * VERIFY, dearest):
        for frames in heard(Turns(), *[(LIAR, b"x")] * 500, units=units):
            assert (len(frames) - 1) * units < TURN_UNITS
            assert len(frames) * units <= LONGEST_MS * 1_000
    assert TURN_UNITS + dearest <= LONGEST_MS * 1_000


def test_each_is_heard_in_order_and_who_says_much_keeps_nobody_waiting() -> None:
    said = [(LIAR, b"%d" % number) for number in range(50)] + [(ADA, b"ping"), (ADA, b"pong"), (BOB, b"word")]
    turns = heard(Turns(), *said, units=TURN_UNITS)
    flat = [each for frames in turns for each in frames]
    assert sorted(flat) == sorted(said)
    for speaker in (LIAR, ADA, BOB):
        assert [each for each in flat if each[0] == speaker] == [each for each in said if each[0] == speaker]
    assert flat.index((ADA, b"ping")) <= 3
    assert flat.index((BOB, b"word")) <= 4


def test_what_costs_nothing_never_waits() -> None:
    assert heard(Turns(), *[(ADA, b"probe")] * 1_000, units=0.0) == [[(ADA, b"probe")] * 1_000]


def test_what_waits_is_bounded_and_whose_link_is_gone_is_heard_to_the_end_of_a_turn() -> None:
    turns = Turns()
    turns.spend(TURN_UNITS)
    frame = bytes(16 * 1024)
    assert not any(turns.may_hear(LIAR, frame) for _ in range(100))
    assert turns.dropped == 100 - WAITING_BYTES_MAX // len(frame)
    assert not turns.may_hear(ADA, b"goodbye")
    assert list(turns.rest(ADA)) == [b"goodbye"]
    rest = 0
    for _ in turns.rest(LIAR):
        rest += 1
        turns.spend(TURN_UNITS / 4)
    assert rest == 4
    assert not turns.begin()
