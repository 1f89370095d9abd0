"""What one client may take of a server, as numbers."""

from __future__ import annotations

from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.limits import QueueShares

SENDERS = [PeerId(f"{number:032x}") for number in range(100)]


def admitted(shares: QueueShares, sender: PeerId, size: int) -> int:
    count = 0
    while shares.admit(sender, size):
        count += 1
    return count


def test_one_sender_fills_its_share_and_leaves_room_for_others() -> None:
    shares = QueueShares(messages_max=1_000, bytes_max=1_000_000)
    assert 0 < admitted(shares, SENDERS[0], 50_000) * 50_000 <= 62_500
    assert admitted(shares, SENDERS[1], 1) > 11, "a whole offer with its candidates"


def test_all_senders_together_leave_a_quarter_for_the_news() -> None:
    for size in (1, 5_000):
        shares = QueueShares(messages_max=1_000, bytes_max=1_000_000)
        waiting = sum(admitted(shares, sender, size) for sender in SENDERS)
        assert 0 < waiting <= 750
        assert waiting * size <= 750_000


def test_the_short_signals_of_many_are_not_worth_more_than_a_place_each() -> None:
    """Fifty who dial one player at once, an offer and ten candidates each."""
    shares = QueueShares(messages_max=1_024, bytes_max=8 * 2**20)
    for sender in SENDERS[:50]:
        assert all(shares.admit(sender, size) for size in (3_500, *[700] * 10))


def test_a_queue_that_is_small_passes_on_what_comes_alone() -> None:
    for messages_max, size in ((1, 10), (16, 300), (1_024, 49_000)):
        shares = QueueShares(messages_max, bytes_max=65_536)
        assert shares.admit(SENDERS[0], size)
        shares.release(SENDERS[0], size)
        assert shares.admit(SENDERS[1], size)


def test_what_was_sent_makes_room_again() -> None:
    shares = QueueShares(messages_max=1_000, bytes_max=1_000_000)
    for _ in range(3):
        counts = {sender: admitted(shares, sender, 5_000) for sender in SENDERS}
        assert sum(counts.values()) > 50
        for sender, count in counts.items():
            for _ in range(count):
                shares.release(sender, 5_000)
    assert not shares._waiting
