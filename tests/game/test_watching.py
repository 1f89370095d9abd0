"""What spectators see, pure: a player's feed, its gates, and who believes what."""

from __future__ import annotations

import random
from collections.abc import Iterable

import attrs
import pytest

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game.watching import feed as feeds
from psyne_mesh.game.watching import viewer as seen
from psyne_mesh.game.watching.feed import INTERVAL_S, MESSAGE_OVERHEAD_BYTES, Feed
from psyne_mesh.game.watching.gate import SILENT_S, Gate, gates_of
from psyne_mesh.game.watching.viewer import Viewer
from psyne_mesh.game.watching.wire import (
    BATCH_BYTES,
    MORE,
    PIECE_BYTES,
    Batch,
    Facts,
    Need,
    Signed,
    Want,
    batch_untrusted,
    decode_untrusted,
    encode,
)
from psyne_mesh.identity import Identity, PeerId, verify_untrusted

KEYS = [Identity.from_seed(bytes([number]) * 32) for number in range(40)]
GATE, OTHER_GATE = PeerId("a" * 32), PeerId("b" * 32)
NOTHING = Want(0, 0, True)


@attrs.define
class Player:
    """A player, and whom it sees."""

    identity: Identity
    players: list[PeerId]
    host: PeerId | None = None
    stay: int = 1
    feed: Feed = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.feed = Feed(self, lambda body: self.identity.sign(b"test", body), 100)

    @property
    def id(self) -> PeerId:
        return self.identity.peer_id

    def facts(self) -> Facts:
        here = [player.raw for player in self.players]
        return Facts("name", b"", self.stay, 0, here, 1, b"" if self.host is None else self.host.raw)

    def states(self) -> list[bytes]:
        return [b"all of the state"]

    def objects(self, now: float, *, is_whole: bool) -> list[bytes]:
        return [b"all objects"] if is_whole else []

    def take(self, to: PeerId = GATE) -> list[Signed]:
        public = self.identity.public_key
        return [Signed(out.body, out.signature, public) for gate, out in self.feed.take_outputs() if gate == to]

    def plays(self, start: float, seconds: float, *, hz: float = 20, size: int = 40, copies: int = 7) -> None:
        """Positions at that rate to so many others."""
        n_ticks = round(seconds * hz)
        for tick in range(n_ticks):
            now = start + tick / hz
            self.feed.sent(copies * size, copies)
            self.feed.say("positions", bytes(size), now, is_text=False, is_reliable=False)
            self.feed.handle_timeout(now)


def players(count: int) -> list[Player]:
    ids = [key.peer_id for key in KEYS[:count]]
    return [Player(key, ids) for key in KEYS[:count]]


def a_viewer(creator: PeerId | None = None, players_max: int = 16) -> Viewer:
    return Viewer(creator, players_max, lambda one: verify_untrusted(one.key, b"test", one.body, one.signature))


def show(viewer: Viewer, batches: Iterable[Signed], now: float = 0.0) -> list[seen.ViewerEvent]:
    for signed in batches:
        viewer.receive(signed, now)
    return viewer.take_events()


def said(events: Iterable[seen.ViewerEvent]) -> list[bytes]:
    return [event.data for event in events if isinstance(event, seen.MessageSaid)]


# ------------------------------------------------------------------------------------------------------------- the feed


def test_nothing_is_kept_while_nobody_watches() -> None:
    (ada,) = players(1)
    ada.feed.say("chat", b"hello", 0.0, is_text=True, is_reliable=True)
    ada.feed.handle_timeout(100.0)
    assert ada.feed.next_timeout() == float("inf")
    ada.feed.want(GATE, NOTHING, 100.0)
    ada.feed.handle_timeout(100.0)
    (batch,) = [batch_untrusted(signed.body) for signed in ada.take()]
    assert batch.is_whole
    assert batch.messages == []


def test_a_feed_costs_a_tenth_at_most_whatever_is_said() -> None:
    """Per player of eight, in wire bytes: at 10, 20 and 60 Hz, of small and of large messages. Batches come twice a second."""
    for hz, size in [(10, 40), (20, 40), (60, 40), (20, 400), (60, 1000)]:
        (ada,) = players(1)
        ada.feed.want(GATE, NOTHING, 0.0)
        ada.plays(0.0, 5.0, hz=hz, size=size)
        ada.take()
        ada.plays(5.0, 30.0, hz=hz, size=size)
        batches = ada.take()
        spent = sum(len(one.body) + feeds.BATCH_OVERHEAD_BYTES for one in batches)
        upload = 30 * hz * 7 * (size + MESSAGE_OVERHEAD_BYTES)
        assert spent <= 0.08 * upload, (hz, size)
        assert len(batches) >= 30 / (feeds.HEARTBEAT_S + 0.1)


def test_reliable_messages_are_said_whole_and_positions_make_room() -> None:
    (ada,) = players(1)
    ada.feed.want(GATE, NOTHING, 0.0)
    viewer, heard = a_viewer(), list[bytes]()
    for tick in range(400):
        now = tick / 20
        ada.feed.say("notes", b"%d" % tick, now, is_text=False, is_reliable=True)
        ada.plays(now, 0.05)
        heard += [data for data in said(show(viewer, ada.take(), now)) if len(data) < 40]
    ada.feed.handle_timeout(20.0 + feeds.HEARTBEAT_S)
    heard += [data for data in said(show(viewer, ada.take(), 21.0)) if len(data) < 40]
    assert heard == [b"%d" % tick for tick in range(400)]


def test_of_what_is_fleeting_the_newest_are_said() -> None:
    (ada,) = players(1)
    ada.feed.want(GATE, NOTHING, 0.0)
    ada.feed.handle_timeout(0.0)
    ada.take()
    for number in range(200):
        ada.feed.say("positions", bytes(800) + b"%d" % number, 0.0, is_text=False, is_reliable=False)
    ada.feed.sent(30_000, 0)
    ada.feed.handle_timeout(0.6)
    (batch,) = [batch_untrusted(signed.body) for signed in ada.take()]
    (messages,) = [[data.lstrip(b"\0") for _, data in pieces] for channel, pieces in batch.messages]
    assert messages == [b"%d" % number for number in range(200 - len(messages), 200)]


def test_a_large_message_comes_in_pieces_and_a_flood_is_counted() -> None:
    (ada,) = players(1)
    ada.feed.want(GATE, NOTHING, 0.0)
    large = bytes(range(256)) * 1000
    ada.feed.say("maps", large, 0.0, is_text=False, is_reliable=True)
    for _ in range(7):
        ada.feed.say("maps", large, 0.0, is_text=False, is_reliable=True)
    viewer, events, now = a_viewer(), list[seen.ViewerEvent](), 0.0
    while now < 60:
        ada.feed.sent(1_000_000, 0)
        ada.feed.handle_timeout(now)
        batches = ada.take()
        assert all(len(signed.body) < BATCH_BYTES + 4096 for signed in batches)
        events += show(viewer, batches, now)
        now += INTERVAL_S
    whole = said(events)
    lost = sum(event.count for event in events if isinstance(event, seen.MessagesMissed))
    assert set(whole) == {large}
    assert (len(whole), lost) == (4, 4), "a mebibyte waits, and who watches is told of the rest"


def test_the_last_words_come_before_the_goodbye() -> None:
    ada, bob = players(2)
    viewer = a_viewer()
    for player in (ada, bob):
        player.feed.want(GATE, NOTHING, 0.0)
        player.feed.handle_timeout(0.0)
        show(viewer, player.take())
    ada.feed.say("chat", b"bye", 0.1, is_text=True, is_reliable=True)
    ada.feed.end(0.1)
    events = show(viewer, ada.take(), 0.1)
    assert said(events) == [b"bye"]
    assert isinstance(events[-1], seen.PlayerGone)
    assert events[-1].reason == "left"


# ------------------------------------------------------------------------------------------------------------ the gates


def test_the_gates_are_the_lowest_seats_who_are_here() -> None:
    seats = [None, GATE, OTHER_GATE, KEYS[0].peer_id, KEYS[1].peer_id]
    assert gates_of(seats, lambda peer: True) == [GATE, OTHER_GATE]
    assert gates_of(seats, lambda peer: peer != GATE) == [OTHER_GATE, KEYS[0].peer_id]


def test_gates_share_the_players_and_one_takes_over_from_a_silent_one() -> None:
    others = [key.peer_id for key in KEYS[:16]]
    heard: dict[PeerId, float] = {}
    gates = {me: Gate(me, lambda peer: heard.get(peer, 0.0), lambda peer: (5, 7)) for me in (GATE, OTHER_GATE)}
    for gate in gates.values():
        gate.meet(others, [GATE, OTHER_GATE], 0.0)
    asked = {me: {player for player, _ in gate.take_outputs()} for me, gate in gates.items()}
    assert asked[GATE] | asked[OTHER_GATE] == set(others)
    assert not asked[GATE] & asked[OTHER_GATE]
    assert min(map(len, asked.values())) >= 4
    for gate in gates.values():
        gate.handle_timeout(SILENT_S - 0.01)
        assert not gate.take_outputs()
        gate.handle_timeout(SILENT_S)
        assert {player for player, _ in gate.take_outputs()} == set(others), "nobody has heard anything"
    heard = dict.fromkeys(others, 10.0)
    gates[GATE].handle_timeout(10.0 + SILENT_S - 0.01)
    assert not gates[GATE].take_outputs()


def test_another_gate_gets_what_the_dead_one_took_along() -> None:
    (ada,) = players(1)
    viewer = a_viewer()
    ada.feed.want(GATE, NOTHING, 0.0)
    numbers, lost_from = [], 30
    for tick in range(60):
        now = tick / 20
        ada.feed.say("notes", b"%d" % tick, now, is_text=False, is_reliable=True)
        ada.plays(now, 0.05)
        batches = ada.take()
        if tick < lost_from:
            numbers += said(show(viewer, batches, now))
    ada.feed.want(OTHER_GATE, Want(*viewer.cursor(ada.id), False), 3.0)
    ada.plays(3.0, 1.0)
    assert not ada.take(GATE), "only who asked last is served"
    ada.feed.want(OTHER_GATE, Want(*viewer.cursor(ada.id), False), 4.0)
    numbers += said(show(viewer, ada.take(OTHER_GATE), 4.0))
    assert [one for one in numbers if len(one) < 40] == [b"%d" % tick for tick in range(60)]


def test_who_lacks_some_gets_it_of_the_player_and_takes_no_place_of_a_gate() -> None:
    (ada,), viewer, _ = everybody(1)
    ada.plays(0.1, 5.0)
    batches = ada.take()
    missing = batches[3:5]
    lost = batches.index(missing[0]) + 1  # `everybody` has shown the first
    ada.feed.want(OTHER_GATE, Want(101, lost, False, lost + 2), 5.1)
    assert ada.take(OTHER_GATE) == missing
    ada.plays(5.1, 2.0)
    outputs = ada.feed.take_outputs()
    assert {gate for gate, _ in outputs} == {GATE}, "which goes on to be served"
    viewer.receive(batches[6], 5.0)
    assert viewer.kept(Need(ada.id.raw, 101, lost, lost + 2)) == ([], (lost, lost + 2))
    later = a_viewer()
    ada.feed.want(GATE, NOTHING, 8.0)
    ada.plays(8.0, 1.0)
    show(later, ada.take(), 8.0)
    assert later.cursor(ada.id)[1] > lost + 2
    for signed in missing:
        assert later.receive(signed, 9.0) is None, "of others it takes nothing that it has read past"
        assert later.receive(signed, 9.0, is_first_hand=True) == ada.id
        assert later.receive(signed, 9.0, is_first_hand=True) is None
    assert later.kept(Need(ada.id.raw, 101, lost, lost + 2)) == (missing, None)
    assert later.kept(Need(ada.id.raw, 101, lost - 1, lost + 2)) == (missing, (lost - 1, lost))


def test_a_gate_asks_the_player_for_what_no_gate_has() -> None:
    others = [key.peer_id for key in KEYS[:16]]
    gates = {me: Gate(me, lambda peer: 0.0, lambda peer: (5, 7)) for me in (GATE, OTHER_GATE)}
    for gate in gates.values():
        gate.meet(others, [GATE, OTHER_GATE], 0.0)
    mine = {me: {player for player, _ in gate.take_outputs()} for me, gate in gates.items()}
    asked: dict[PeerId, list[tuple[float, PeerId]]] = {me: [] for me in gates}
    for tenth in range(0, 60, 7):
        for me, gate in gates.items():
            for player in others:
                gate.lacks(player, 5, 2, 4, tenth / 10)
            wants = gate.take_outputs()
            assert all(want == Want(5, 2, False, 4) for _, want in wants)
            asked[me] += [(tenth / 10, player) for player, _ in wants]
    for me, theirs in asked.items():
        assert {player for at, player in theirs if at <= 0.7} == mine[me], "not at once: the other one may have it"
        assert {player for at, player in theirs if at <= 1.4} == set(others), "then whoever can"
        assert all(sum(each == player for _, each in theirs) <= 6 for player in others), "a gate may once a second"
    gate = gates[GATE]
    gate.meet([], [], 10.0)
    gate.lacks(others[0], 5, 2, 4, 10.0)
    gate.lacks(others[0], 5, 2, 4, 11.5)
    assert not gate.take_outputs(), "nobody is asked who is not linked"


def test_a_gate_that_keeps_all_to_itself_cannot_keep_the_other_away() -> None:
    """It asks each time the honest one was given the stream: then both get it, on the same budget."""
    (ada,) = players(1)
    ada.feed.want(GATE, NOTHING, 0.0)
    ada.feed.want(OTHER_GATE, NOTHING, 1.0)
    ada.feed.want(GATE, NOTHING, 1.1)
    ada.plays(1.1, 10.0)
    outputs = ada.feed.take_outputs()
    to = {gate: [signed for each, signed in outputs if each == gate] for gate in (GATE, OTHER_GATE)}
    assert abs(len(to[GATE]) - len(to[OTHER_GATE])) <= 1
    assert sum(len(one.body) + feeds.BATCH_OVERHEAD_BYTES for _, one in outputs) <= 0.1 * 10 * 20 * 7 * 100


def test_a_gate_that_asks_all_the_time_gets_no_more() -> None:
    (ada,) = players(1)
    ada.feed.want(GATE, NOTHING, 0.0)
    ada.plays(0.0, 5.0)
    ada.take()
    session = 101
    for number in range(1000):
        ada.feed.want(GATE, Want(session, 0, True), 5.0 + number / 1000)
    again = ada.take()
    assert len(again) <= 4 * 14, "twice at once and once a second"
    ada.plays(6.0, 4.0)
    assert sum(batch_untrusted(signed.body).is_whole for signed in ada.take()) <= 2


def test_who_asks_for_the_log_each_second_draws_no_more_than_was_said() -> None:
    (ada,) = players(1)
    ada.feed.want(GATE, NOTHING, 0.0)
    for tick in range(40):  # half a mebibyte of log
        ada.feed.sent(2**20, 1)
        ada.feed.say("level", bytes(12_000), tick / 4, is_text=False, is_reliable=True)
        ada.feed.handle_timeout(tick / 4)
    ada.take()
    drawn = 0
    for second in range(10, 20):
        ada.feed.want(OTHER_GATE, Want(101, 0, False), float(second))
        drawn += sum(len(signed.body) for signed in ada.take(OTHER_GATE))
    assert feeds.LOG_BYTES_MAX / 2 <= drawn <= 2 * feeds.LOG_BYTES_MAX


# ---------------------------------------------------------------------------------------------------------- who believes


def everybody(count: int = 4) -> tuple[list[Player], Viewer, list[seen.ViewerEvent]]:
    here, viewer, events = players(count), a_viewer(), list[seen.ViewerEvent]()
    for player in here:
        player.feed.want(GATE, NOTHING, 0.0)
        player.feed.handle_timeout(0.0)
        events += show(viewer, player.take())
    return here, viewer, events


def shown(events: Iterable[seen.ViewerEvent]) -> set[PeerId]:
    return {event.player for event in events if type(event) is seen.PlayerSeen}


def test_players_are_those_who_name_each_other() -> None:
    here, _, events = everybody(4)
    assert shown(events) == {player.id for player in here}


def test_whom_nobody_names_is_no_player_and_is_not_heard() -> None:
    here, viewer, _ = everybody(4)
    mallory = Player(KEYS[30], [player.id for player in here] + [KEYS[30].peer_id])
    mallory.feed.want(GATE, NOTHING, 1.0)
    mallory.feed.say("chat", b"I play, too", 1.0, is_text=True, is_reliable=True)
    mallory.feed.handle_timeout(1.0)
    assert show(viewer, mallory.take(), 1.0) == []


def test_a_crowd_that_says_it_plays_does_not_replace_players() -> None:
    """Those who were shown go on; for who has just come, the maker of the room decides while it is here."""
    here, viewer, _ = everybody(3)
    ids = [key.peer_id for key in KEYS[20:30]]
    crowd = [Player(key, ids) for key in KEYS[20:30]]
    newcomer = a_viewer(creator=here[0].id)
    for player in [*crowd, *here]:
        player.feed.want(OTHER_GATE, NOTHING, 10.0)
        player.feed.handle_timeout(10.0)
        batches = player.take(OTHER_GATE)
        show(viewer, batches, 10.0)
        newcomer.receive(batches[0], 10.0)
    assert not shown(viewer.take_events())
    newcomer.handle_timeout(10.0 + seen.DOUBT_S)
    events = newcomer.take_events()
    gone = {event.player for event in events if isinstance(event, seen.PlayerGone)}
    assert shown(events) - gone == {player.id for player in here}


def test_nobody_forges_a_word() -> None:
    (ada,), viewer, _ = everybody(1)
    ada.feed.say("chat", b"truth", 1.0, is_text=True, is_reliable=True)
    ada.feed.sent(10_000, 10)
    ada.feed.handle_timeout(1.0)
    (true,) = ada.take()
    lie = encode(attrs_like(batch_untrusted(true.body), b"lies!"))
    for forged in (
        Signed(lie, true.signature, true.key),
        Signed(lie, KEYS[30].sign(b"test", lie), true.key),
        Signed(true.body, bytes(64), true.key),
        Signed(true.body, true.signature, KEYS[30].public_key),
        Signed(true.body, KEYS[0].sign(b"another room", true.body), true.key),
    ):
        with pytest.raises(ProtocolError):
            viewer.receive(forged, 1.0)
    assert viewer.take_events() == []
    assert said(show(viewer, [true, true], 1.0)) == [b"truth"], "and once"


def attrs_like(batch: Batch, data: bytes) -> Batch:
    return Batch(batch.session, batch.number, batch.said, messages=[("chat", [(1, data)])])


def test_what_is_missing_is_asked_for_and_told_if_nobody_has_it() -> None:
    (ada,), viewer, _ = everybody(1)
    batches = []
    for tick in range(200):
        now = 0.05 + tick / 20
        ada.feed.say("notes", b"%d" % tick, now, is_text=False, is_reliable=True)
        ada.feed.sent(2_000, 7)
        ada.feed.handle_timeout(now)
        batches += [(now, signed) for signed in ada.take()]
    missing, needs, heard, lost = range(4, 7), list[tuple[float, Need]](), list[bytes](), 0
    for number, (now, signed) in enumerate(batches):
        if number not in missing:
            viewer.receive(signed, now)
        viewer.handle_timeout(now)
        for need in viewer.take_outputs():
            needs.append((now, need))
            if need.session == 0:  # a gate asks the player for all that holds
                ada.feed.want(GATE, Want(101, 10**6, True), now)
                ada.feed.handle_timeout(now + 30)
                batches += [(now, one) for one in ada.take()]
        events = viewer.take_events()
        heard += said(events)
        lost += sum(event.count for event in events if isinstance(event, seen.MessagesMissed))
    first = needs[0]
    assert first[1] == Need(ada.id.raw, 101, 5, 8)
    assert first[0] - batches[7][0] <= seen.NEED_AFTER_S + INTERVAL_S
    assert len(heard) + lost == 200, "each came, or was counted"
    assert heard == sorted(heard, key=int)
    assert 0 < lost < 120


def test_a_host_is_who_most_say() -> None:
    here, viewer, _ = everybody(4)
    for number, player in enumerate(here):
        player.host = here[0].id if number else KEYS[30].peer_id
        player.feed.handle_timeout(0.6)
        show(viewer, player.take(), 0.6)
        assert (viewer.host == (1, here[0].id)) is (number == 3), "three of four, and not two"


def test_a_player_of_whom_nothing_comes_is_gone() -> None:
    (ada, bob), viewer, _ = everybody(2)
    bob.players = [bob.id]
    bob.feed.handle_timeout(1.0)
    show(viewer, bob.take(), 1.0)
    bob.feed.handle_timeout(1.0 + seen.DOUBT_S)
    events = show(viewer, bob.take(), 1.0 + seen.DOUBT_S)
    assert not [event for event in events if isinstance(event, seen.PlayerGone)], "she may have said goodbye"
    assert viewer.next_timeout() <= 1.0 + 2 * seen.DOUBT_S
    viewer.handle_timeout(1.0 + 2 * seen.DOUBT_S)
    events = viewer.take_events()
    assert [event.player for event in events if isinstance(event, seen.PlayerGone)] == [ada.id]


def test_a_flood_of_authors_takes_no_place_of_players() -> None:
    here, viewer, _ = everybody(4)
    for number in range(200):
        key = Identity.from_seed(number.to_bytes(32, "big"))
        mallory = Player(key, [key.peer_id])
        mallory.feed.want(GATE, NOTHING, 1.0)
        mallory.feed.handle_timeout(1.0)
        show(viewer, mallory.take(), 1.0 + number / 1000)
    assert len(viewer._authors) <= seen.AUTHORS_MAX
    for player in here:
        player.feed.say("chat", b"here", 2.0, is_text=True, is_reliable=True)
        player.feed.handle_timeout(2.0)
        assert said(show(viewer, player.take(), 2.0)) == [b"here"]


def test_messages_without_an_end_are_few_and_small() -> None:
    """An author may sign what it likes: thousands of pieces, of as many messages, none of which ends."""
    (ada,), viewer, _ = everybody(1)
    session, number = viewer.cursor(ada.id)

    def say(*messages: tuple[str, list[tuple[int, bytes]]]) -> None:
        nonlocal number
        body = encode(Batch(session, number, 0, messages=list(messages)))
        viewer.receive(Signed(body, ada.identity.sign(b"test", body), ada.identity.public_key), 1.0)
        number += 1

    for piece in (b"", b"x", bytes(PIECE_BYTES - 1)):
        with pytest.raises(ProtocolError):
            say(("chat", [(MORE, piece)] * 4))
    for channel in range(40):
        say((f"channel {channel}", [(MORE, bytes(PIECE_BYTES))] * 3))
    assert len(viewer._authors[ada.id].pieces) == seen.BEGUN_MAX
    for _ in range(100):
        say(("chat", [(MORE, bytes(PIECE_BYTES))] * 3))
    held = sum(len(piece) for pieces in viewer._authors[ada.id].pieces.values() for piece in pieces)
    assert held <= seen.BEGUN_MAX * (seen.MESSAGE_BYTES_MAX + PIECE_BYTES)
    assert sum(len(each[3].body) for each in viewer._authors[ada.id].log) == viewer._authors[ada.id].log_bytes


@pytest.mark.parametrize("seed", range(20))
def test_readers_take_anything(seed: int) -> None:
    rng = random.Random(seed)
    (ada,), viewer, _ = everybody(1)
    body = encode(Batch(1, 2, 3, True, ada.facts(), [b"x"], [b"y"], [("c", [(0, b"z")])]))
    word = encode(Signed(body, bytes(64), bytes(32)))
    for _ in range(300):
        raw = bytearray(rng.choice([body, word, rng.randbytes(rng.randrange(200))]))
        for _ in range(rng.randrange(1, 4)):
            if raw:
                raw[rng.randrange(len(raw))] = rng.randrange(256)
        for read in (decode_untrusted, batch_untrusted):
            try:
                read(bytes(raw))
            except ProtocolError:
                continue
        try:  # an author may sign what it likes
            viewer.receive(Signed(bytes(raw), KEYS[0].sign(b"test", bytes(raw)), KEYS[0].public_key), 1.0)
        except ProtocolError:
            continue
    viewer.handle_timeout(100.0)
