"""What comes before its channel or its author's record is kept, within bounds."""

from __future__ import annotations

from psyne_mesh.identity import Identity
from psyne_mesh.room.delivery import RELIABLE_ORDERED, UNRELIABLE_UNORDERED
from psyne_mesh.room.undeclared import BYTES_MAX, LIFE_S, MESSAGES_MAX, UNKNOWN_LIFE_S, Undeclared


def test_what_nobody_declared_is_kept_within_bounds() -> None:
    peer, other = Identity.generate().peer_id, Identity.generate().peer_id
    kept = Undeclared()
    for number in range(2 * MESSAGES_MAX):
        kept.put(peer, "small", b"%d" % number, 0.0)
    assert len(kept.take("small", RELIABLE_ORDERED, 60.0, [peer])) == MESSAGES_MAX
    for _ in range(100):
        kept.put(peer, "large", bytes(BYTES_MAX // 10), 0.0)
    kept.put(peer, "other", b"x" * 8, 0.0)
    assert len(kept.take("large", RELIABLE_ORDERED, 0.0, [peer])) == 9
    assert kept.take("other", UNRELIABLE_UNORDERED, LIFE_S + 0.1, [peer]) == []
    kept.put(peer, "other", b"y", 1.0)
    assert kept.take("other", UNRELIABLE_UNORDERED, 1.0 + LIFE_S, [other]) == []
    assert kept.take("other", UNRELIABLE_UNORDERED, 1.0 + LIFE_S, [peer]) == [(peer, b"y")]
    assert kept.take("other", UNRELIABLE_UNORDERED, 1.0, [peer]) == []


def test_nobody_pushes_out_anothers_first_words() -> None:
    loud, quiet = Identity.generate().peer_id, Identity.generate().peer_id
    kept = Undeclared()
    kept.put(quiet, "chat", b"hello", 0.0)
    for _ in range(2 * MESSAGES_MAX):
        kept.put(loud, "chat", b"", 0.0)
    for _ in range(20):
        kept.put(loud, "chat", bytes(BYTES_MAX // 10), 0.0)
    assert kept.take("chat", RELIABLE_ORDERED, 0.0, [quiet]) == [(quiet, b"hello")]
    kept.put(quiet, "chat", b"too early", 1.0)
    assert kept.take_of(quiet, 1.0 + UNKNOWN_LIFE_S) == [("chat", b"too early", 1.0)]
    kept.put(quiet, "chat", b"of another stay", 1.0)
    assert kept.take_of(quiet, 1.1 + UNKNOWN_LIFE_S) == []
