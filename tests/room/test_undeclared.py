"""What comes before its channel or its author's record is kept, within bounds."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from psyne_mesh.identity import Identity
from psyne_mesh.room.delivery import RELIABLE_ORDERED, UNRELIABLE_UNORDERED
from psyne_mesh.room.room import inside
from psyne_mesh.room.undeclared import BYTES_MAX, COUNTED_MAX, LIFE_S, MESSAGES_MAX, UNKNOWN_LIFE_S, Undeclared
from psyne_mesh.testing import open_world


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
    assert kept.take_of(quiet, 1.0 + UNKNOWN_LIFE_S, UNKNOWN_LIFE_S) == [("chat", b"too early", 1.0)]
    kept.put(quiet, "chat", b"of another stay", 1.0)
    assert kept.take_of(quiet, 1.1 + UNKNOWN_LIFE_S, UNKNOWN_LIFE_S) == []


def test_what_had_to_go_is_counted_once_for_each_channel_and_within_bounds() -> None:
    peer = Identity.generate().peer_id
    kept = Undeclared()
    for _ in range(MESSAGES_MAX + 3):
        kept.put(peer, "log", b"", 0.0)
    assert [kept.take_dropped(name) for name in ("log", "log", "other")] == [{peer: 3}, {}, {}]
    for number in range(2 * COUNTED_MAX):
        for _ in range(2):
            kept.put(peer, str(number), bytes(BYTES_MAX), 0.0)
    assert len(kept._dropped) == COUNTED_MAX
    assert kept.take_dropped("0") == {}
    assert kept.take_dropped(str(2 * COUNTED_MAX - 1)) == {peer: 1}


async def test_a_channel_declared_late_tells_what_it_missed(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        await ada.wait_connected(1)
        for _ in range(MESSAGES_MAX + 100):
            await ada.channel("log").send(b"")
        await trio.sleep(5)
        log = bob.channel("log")
        assert log.stats.dropped == 100
        for _ in range(MESSAGES_MAX):
            log.receive_nowait()
        await ada.channel("log").send(b"the next")
        assert (await log.receive())[1] == b"the next"
        assert log.stats.dropped == 100


async def test_what_an_author_lost_before_it_was_known_is_counted_once_it_is(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        await ada.wait_connected(1)
        log, positions = ada.channel("log"), ada.channel("positions", mode="unreliable")
        del inside(ada).players[bob.me]  # as while another room's link is quicker than the record
        for _ in range(MESSAGES_MAX + 5):
            inside(ada).on_message(bob.me, "log", b"")
        record = inside(ada).joined().node.record(bob.me)
        assert record is not None
        inside(ada)._discovered(record)
        assert (log.stats.dropped, positions.stats.dropped) == (5, 0)


async def test_a_cut_in_between_costs_no_first_words(autojump_clock: MockClock) -> None:
    """Its author fell silent and came back, in the same stay: the link lost nothing, and neither do we."""
    async with open_world(seed=1) as world:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        await ada.wait_connected(1)
        for number in range(3):
            await ada.channel("notes").send(b"%d" % number)
        await trio.sleep(1)
        with world.net.partition(["ada"], ["bob"], signaling=False):
            await trio.sleep(10)
            assert not bob.peers
        await trio.sleep(20)
        await ada.channel("notes").send(b"3")
        await trio.sleep(1)
        notes = bob.channel("notes")
        assert [notes.receive_nowait()[1] for _ in range(4)] == [b"0", b"1", b"2", b"3"]
