"""What one client may take of a server, as numbers."""

from __future__ import annotations

from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.limits import SignalShares

SENDERS = [PeerId(f"{number:032x}") for number in range(100)]


def admitted(shares: SignalShares, sender: PeerId, size: int) -> int:
    count = 0
    while shares.admit(sender, size):
        count += 1
    return count


def test_one_sender_fills_its_share_and_leaves_room_for_others() -> None:
    shares = SignalShares(messages_max=1_000, bytes_max=1_000_000)
    assert 0 < admitted(shares, SENDERS[0], 50_000) * 50_000 <= 62_500
    assert admitted(shares, SENDERS[1], 1) > 11, "a whole offer with its candidates"


def test_all_senders_together_leave_half_for_the_news() -> None:
    for size in (1, 5_000):
        shares = SignalShares(messages_max=1_000, bytes_max=1_000_000)
        waiting = sum(admitted(shares, sender, size) for sender in SENDERS)
        assert 0 < waiting <= 500
        assert waiting * size <= 500_000


def test_what_was_sent_makes_room_again() -> None:
    shares = SignalShares(messages_max=1_000, bytes_max=1_000_000)
    for _ in range(3):
        counts = {sender: admitted(shares, sender, 5_000) for sender in SENDERS}
        assert sum(counts.values()) > 50
        for sender, count in counts.items():
            for _ in range(count):
                shares.release(sender, 5_000)
    assert not shares._waiting
