"""The word about broadcasts that nobody could give: said again, and believed once."""

from __future__ import annotations

import pytest

from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import Identity
from psyne_mesh.room.carried import carried, carried_untrusted, lost_untrusted, lost_word
from psyne_mesh.room.never_came import PLAYERS_MAX, SAID_AFTER_S, NeverCame

ADA, BOB = [Identity.from_seed(bytes([number]) * 32).peer_id for number in range(2)]


def test_the_word_is_said_a_few_times_with_all_that_was_lost() -> None:
    table = NeverCame()
    table.lost(ADA, 1, 3, now=100.0)
    said = []
    while (at := table.next_timeout()) < 1_000:
        said += [(at, word) for word in table.due(at)]
        if at == 100.0 + SAID_AFTER_S[1]:
            table.lost(ADA, 1, 2, now=at + 0.5)
    first = [(100.0, (ADA, 3)), (101.0, (ADA, 3))]
    assert said == [*first, *((101.5 + after, (ADA, 5)) for after in SAID_AFTER_S)]


def test_who_hears_it_counts_each_loss_once_and_only_of_this_stay() -> None:
    table = NeverCame()
    assert [table.news(BOB, 7, count) for count in (3, 3, 5, 4, 5)] == [3, 0, 2, 0, 0]
    assert table.news(BOB, 8, 2) == 2
    assert table.news(ADA, 7, 1) == 1


def test_another_stay_of_the_author_begins_anew_and_the_tables_have_a_limit() -> None:
    table = NeverCame()
    table.lost(ADA, 1, 3, now=0.0)
    table.lost(ADA, 2, 1, now=0.0)
    assert table.due(0.0) == [(ADA, 1)]
    for number in range(PLAYERS_MAX + 10):
        peer = Identity.from_seed(number.to_bytes(32, "big")).peer_id
        table.lost(peer, 1, 1, now=0.0)
        table.news(peer, 1, 1)
    assert len(table._authors) == len(table._told) == PLAYERS_MAX


def test_the_word_is_no_message_and_a_message_no_word() -> None:
    assert lost_untrusted(lost_word(7)) == 7
    assert lost_untrusted(lost_word(2**40)) == 2**32 - 1
    assert lost_untrusted(carried("notes", b"x")) is None
    with pytest.raises(ProtocolError):
        carried_untrusted(lost_word(7))
    for wrong in (lost_word(7)[:-1], lost_word(7) + b"x"):
        with pytest.raises(ProtocolError):
            lost_untrusted(wrong)
