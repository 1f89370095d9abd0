"""What is owed to a player: the ledger by itself, and the words of two of them."""

from __future__ import annotations

import random
import struct

import pytest

from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import Identity
from psyne_mesh.mesh.owed import (
    ACCOUNTS_MAX,
    CHANNELS_MAX,
    CHANNELS_OF_FRAME,
    COUNT_MAX,
    OWED_TAG,
    UNSURE_S,
    Carried,
    Kind,
    Owed,
    room_untrusted,
    statement_untrusted,
)

TAG = b"the room"
ADA, BOB = (Identity.from_seed(bytes([number]) * 32).peer_id for number in (1, 2))
STAY_OF_ADA, STAY_OF_BOB = 1_000, 2_000


def met() -> tuple[Owed, Owed]:
    ada, bob = Owed(TAG, STAY_OF_ADA), Owed(TAG, STAY_OF_BOB)
    assert ada.meet(BOB, STAY_OF_BOB, {}, 0.0) == {} == bob.meet(ADA, STAY_OF_ADA, {}, 0.0)
    return ada, bob


def stated(speaker: Owed, hearer: Owed, now: float = 0.0) -> tuple[dict[str, int], dict[str, int]]:
    """What bob lacks, and what ada hears of it, after ada has opened a link."""
    for frame in speaker.statement(BOB, []):
        assert hearer.receive_untrusted(ADA, frame, now, {}) == {}
    missing, answers = hearer.settle(ADA)
    heard: dict[str, int] = {}
    for answer in answers:
        heard |= speaker.receive_untrusted(BOB, answer, now, {})
    return missing, heard


def test_both_sides_of_a_link_that_ended_know_the_same_number() -> None:
    ada, bob = met()
    ada.link_ended(BOB, {"chat": Carried(100, 0, 30), "log": Carried(5, 0)}, 0.0)
    bob.link_ended(ADA, {"chat": Carried(0, 80), "log": Carried(0, 5)}, 0.0)
    assert stated(ada, bob) == ({"chat": 20}, {"chat": 20})
    assert ada.overdue(UNSURE_S) == []  # 30 were not acknowledged, and the peer has said what became of them
    assert stated(ada, bob) == ({}, {})  # the same link revived, or a further one


def test_losses_of_several_links_are_told_one_by_one() -> None:
    ada, bob = met()
    for lost in (0, 3, 1):
        ada.link_ended(BOB, {"chat": Carried(10, 0)}, 0.0)
        bob.link_ended(ADA, {"chat": Carried(0, 10 - lost)}, 0.0)
        told = {"chat": lost} if lost else {}
        assert stated(ada, bob) == (told, told)


def test_what_no_link_took_is_missed_and_told_to_who_does_not_know() -> None:
    ada, bob = met()
    for number in range(10):
        ada.missed(BOB, "chat", 0.0, told=number < 4)  # four by reports
    assert stated(ada, bob) == ({"chat": 10}, {"chat": 6})


def test_without_another_link_what_was_not_acknowledged_is_told_once() -> None:
    ada, bob = met()
    ada.link_ended(BOB, {"chat": Carried(100, 0, 30)}, 1.0)
    assert ada.unsure_until == 1.0 + UNSURE_S
    assert ada.overdue(UNSURE_S) == []
    assert ada.overdue(1.0 + UNSURE_S) == [(BOB, {"chat": 30})]
    assert ada.overdue(100.0) == []
    bob.link_ended(ADA, {"chat": Carried(0, 60)}, 1.0)  # some had come without being acknowledged: it was 40
    assert stated(ada, bob) == ({"chat": 40}, {"chat": 10})


def test_who_leaves_is_owed_nothing_more_and_a_new_stay_begins_at_nothing() -> None:
    ada, bob = met()
    ada.link_ended(BOB, {"chat": Carried(100, 0, 30)}, 1.0)
    assert ada.part(BOB, {"chat": Carried(7, 0)}, 1.0) == {"chat": 30}
    assert ada.meet(BOB, STAY_OF_BOB + 1, {}, 2.0) == {}
    ada.link_ended(BOB, {"chat": Carried(7 + 2, 0, 2)}, 3.0)  # the same link, for another room
    assert list(map(counts_of, ada.statement(BOB, []))) == [{"chat": 2}]
    assert bob.receive_untrusted(ADA, ada.statement(BOB, [])[0], 3.0, {}) == {}  # not of bob's stay
    assert bob.settle(ADA) == ({}, [])


def test_a_restart_that_was_not_seen_ends_the_stay() -> None:
    ada, _ = met()
    ada.link_ended(BOB, {"chat": Carried(100, 0, 30)}, 1.0)
    assert ada.meet(BOB, STAY_OF_BOB, {}, 2.0) == {}
    assert ada.meet(BOB, STAY_OF_BOB + 1, {}, 2.0) == {"chat": 30}
    assert ada.statement(BOB, []) == []


def test_a_statement_waits_until_the_player_is_known_and_counts_links_that_still_flush() -> None:
    ada, _ = met()
    stranger = Owed(TAG, STAY_OF_BOB)
    ada.link_ended(BOB, {"chat": Carried(4, 0)}, 0.0)
    (frame,) = ada.statement(BOB, [{"chat": Carried(6, 0)}])
    assert counts_of(frame) == {"chat": 10}
    stranger.receive_untrusted(ADA, frame, 0.0, {})
    assert stranger.settle(ADA) == ({}, [])
    stranger.link_ended(ADA, {"chat": Carried(0, 9)}, 0.0)
    stranger.meet(ADA, STAY_OF_ADA, {}, 0.0)
    assert stranger.settle(ADA)[0] == {"chat": 1}


def test_what_came_and_found_no_room_is_told() -> None:
    ada, bob = met()
    (frame,) = bob.dropped(ADA, {"chat": 3})
    assert ada.receive_untrusted(BOB, frame, 0.0, {"chat": Carried(5, 0)}) == {"chat": 3}
    assert Owed(TAG, 1).dropped(ADA, {"chat": 3}) == []


def test_nobody_lacks_more_than_was_sent_whatever_it_says() -> None:
    for kind in (Kind.MISSING, Kind.DROPPED):
        ada, bob = met()
        ada.link_ended(BOB, {"chat": Carried(4, 0)}, 0.0)
        live = {"chat": Carried(6, 0)}
        for said, news in ((7, 7), (2**40, 3), (1, 0)):
            (frame,) = bob._frames(kind, STAY_OF_ADA, {"chat": said, "never": said})
            assert ada.receive_untrusted(BOB, frame, 0.0, live) == ({"chat": news} if news else {})
        ada.broadcasts, ada.carried = 2, 1  # these have no channel here, and can find no room there all the same
        (frame,) = bob._frames(kind, STAY_OF_ADA, {"chat": 100})
        assert ada.receive_untrusted(BOB, frame, 0.0, live) == ({"chat": 3} if kind is Kind.DROPPED else {})


def test_as_many_channels_as_a_room_has_fit_into_frames_that_everybody_takes() -> None:
    ada, bob = met()
    names = [f"{number:03}" + "n" * 125 for number in range(CHANNELS_MAX)]
    for name in names:
        ada.missed(BOB, name, 0.0, told=False)
    frames = ada.statement(BOB, [])
    assert len(frames) == CHANNELS_MAX // CHANNELS_OF_FRAME
    assert max(map(len, frames)) < 9_000
    assert stated(ada, bob) == (dict.fromkeys(names, 1), dict.fromkeys(names, 1))


def test_words_of_one_player_are_bounded() -> None:
    ada, bob = met()
    for number in range(CHANNELS_MAX + 1):
        bob.missed(ADA, str(number), 0.0, told=False)
    *first, last = bob.statement(ADA, [])
    for frame in first:
        ada.receive_untrusted(BOB, frame, 0.0, {})
    with pytest.raises(ProtocolError, match="more channels"):
        ada.receive_untrusted(BOB, last, 0.0, {})
    with pytest.raises(ProtocolError, match="too many words"):
        for _ in range(70):
            ada.receive_untrusted(BOB, first[0], 0.0, {})
    for number in range(ACCOUNTS_MAX + 10):
        ada.missed(Identity.from_seed(number.to_bytes(32, "big")).peer_id, "chat", 0.0, told=True)
    assert len(ada._accounts) == ACCOUNTS_MAX


def test_no_frame_does_more_than_be_refused() -> None:
    ada, _ = met()
    (frame,) = Owed(TAG, STAY_OF_BOB)._frames(Kind.STATED, STAY_OF_ADA, {"chat": 1, "log": 2})
    assert room_untrusted(frame) == TAG
    rng = random.Random(1)
    for _ in range(3_000):
        bad = bytearray(frame[: rng.randrange(len(frame) + 1)] if rng.random() < 0.5 else frame)
        if bad and rng.random() < 0.8:
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        try:
            ada.receive_untrusted(BOB, bytes(bad), 0.0, {})
        except ProtocolError:
            continue
    head = struct.pack("!8s8sBQQ", OWED_TAG, TAG, 0, STAY_OF_ADA, STAY_OF_BOB)
    for bad_entries in (
        b"\x00" + bytes(8), b"\x01a" + bytes(7), b"\x01\xff" + bytes(8), 2 * (b"\x01a" + bytes(8)),
        b"\x01a" + (COUNT_MAX + 1).to_bytes(8, "big"), b"\x81" + b"a" * 129 + bytes(8),
    ):  # fmt: skip
        with pytest.raises(ProtocolError):
            statement_untrusted(head + bad_entries)


def counts_of(frame: bytes) -> dict[str, int]:
    return statement_untrusted(frame).counts
