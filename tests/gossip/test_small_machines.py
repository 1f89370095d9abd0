"""Rumours, dialling, comparing views, routes, coordinates, cuts and walks: one table or two for each."""

from __future__ import annotations

import math
import random

import pytest

from psyne_mesh.gossip import codec, healing, sync
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.coordinates import Coordinate, distance
from psyne_mesh.gossip.dialer import Dialer
from psyne_mesh.gossip.effects import Adopt, CutMended, CutSeen, DialDue, Effects, ViewsDiffer
from psyne_mesh.gossip.events import SignalReceived
from psyne_mesh.gossip.healing import Cuts, Knocker
from psyne_mesh.gossip.records import OwnState, RoomKey
from psyne_mesh.gossip.routing import Router, Signal
from psyne_mesh.gossip.rumours import Rumours
from psyne_mesh.gossip.sync import Entry, Sync
from psyne_mesh.gossip.walks import Line, Walks, join_untrusted, shuffle_untrusted
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import CheapIdentity
from tests.gossip.neighbours import neighbour

PEERS = [PeerId(f"{n:032x}") for n in range(1, 21)]
A, B, C, D = PEERS[:4]
CONFIG = GossipConfig()

# ---------------------------------------------------------------------------------------------------------- rumours


def test_rumours_are_told_so_often_and_the_least_told_first() -> None:
    rumours = Rumours()
    rumours.add((1, A, ""), b"a" * 100, 2)
    rumours.add((1, B, ""), b"b" * 100, 1)
    taken = [rumours.take(150)[:1] for _ in range(4)]
    assert taken == [b"a", b"b", b"a", b""]


def test_a_newer_rumour_takes_the_place_of_the_older_and_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.rumours._RUMOURS_MAX", 2)
    rumours = Rumours()
    for peer, item in ((A, b"old"), (A, b"new"), (B, b"b"), (C, b"c")):
        rumours.add((1, peer, ""), item, 3)
    assert rumours.take(1000) == b"bc"


def test_what_does_not_fit_waits() -> None:
    rumours = Rumours()
    rumours.add((1, A, ""), bytes(900), 1)
    rumours.add((1, B, ""), bytes(100), 1)
    assert len(rumours.take(500)) == 100
    assert len(rumours.take(1000)) == 900


# ----------------------------------------------------------------------------------------------------------- dialer


def test_dials_are_bounded_in_number_and_patient_with_failures() -> None:
    dialer = Dialer(GossipConfig(dials_max=2), random.Random(1), Effects())
    for peer in (A, B, C):
        dialer.want(peer, 1.0)
    dialer.handle_timeout(1.0)
    assert dialer.effects.wishes == [DialDue(A), DialDue(B)]
    dialer.effects.wishes.clear()
    dialer.linked(A)
    dialer.handle_timeout(1.0)
    assert dialer.effects.wishes == [DialDue(C)]
    dialer.effects.wishes.clear()
    waits = []
    now = 1.0
    for _ in range(7):
        dialer.failed(B, now)
        waits.append(min(dialer.deadline, dialer._wishes[B].at) - now)
        now = dialer._wishes[B].at
        dialer.handle_timeout(now)
        assert B in dialer.in_flight
    assert all(0.74 * 2**n <= wait <= 1.26 * 2**n for n, wait in enumerate(waits[:5]))
    assert max(waits) <= 30.0 * 1.26


def test_a_dial_that_is_never_answered_counts_as_failed() -> None:
    dialer = Dialer(CONFIG, random.Random(1), Effects())
    dialer.want(A, 0.0)
    dialer.handle_timeout(0.0)
    dialer.handle_timeout(dialer.deadline)
    assert dialer.in_flight == {}
    assert dialer._wishes[A].failures == 1
    dialer.drop(A)
    dialer.handle_timeout(1000.0)
    assert dialer.effects.wishes == [DialDue(A)]


# ------------------------------------------------------------------------------------------------------------- sync


class View:
    """What we know: {peer: (epoch, incarnation, status, hash)}."""

    def __init__(self, known: dict[PeerId, tuple[int, int, int, bytes]]) -> None:
        self.known = known

    def version(self, peer: PeerId) -> tuple[int, int, int, bytes] | None:
        return self.known.get(peer)


ALIVE, DOWN, LEFT = sync.ENTRY_ALIVE, sync.ENTRY_DOWN, sync.ENTRY_LEFT
WANT, SEND, THEY_SAY_DOWN, WE_SAY_DOWN, NOTHING = "theirs_newer", "ours_newer", "they_call_down", "we_call_down", ""


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        (None, (1, 0, ALIVE), WANT), (None, (1, 0, DOWN), WANT), (None, (1, 0, LEFT), NOTHING),
        ((1, 0, ALIVE), (1, 0, ALIVE), NOTHING), ((1, 0, ALIVE), (1, 1, ALIVE), WANT), ((1, 1, ALIVE), (1, 0, ALIVE), SEND),
        ((1, 0, ALIVE), (1, 0, DOWN), THEY_SAY_DOWN), ((1, 0, DOWN), (1, 0, ALIVE), WE_SAY_DOWN),
        ((1, 0, DOWN), (1, 0, DOWN), NOTHING), ((1, 0, DOWN), (2, 0, ALIVE), WANT), ((2, 0, ALIVE), (1, 0, DOWN), SEND),
        ((1, 0, ALIVE), (1, 0, LEFT), WANT), ((1, 0, LEFT), (1, 0, ALIVE), SEND), ((1, 0, LEFT), (1, 0, DOWN), SEND),
        ((1, 0, DOWN), (1, 1, DOWN), NOTHING),
    ],
)  # fmt: skip
def test_comparing_views(ours: tuple[int, int, int] | None, theirs: tuple[int, int, int], outcome: str) -> None:
    for theirs_hash in (b"one", b"other"):
        entry = Entry(A, *theirs, theirs_hash)
        found = sync.compare([entry], View({} if ours is None else {A: (*ours, b"one")}))
        for kind in (WANT, SEND, THEY_SAY_DOWN, WE_SAY_DOWN):
            assert getattr(found, kind) == ([A] if kind == outcome else [])
        both_alive = ours == theirs == (1, 0, ALIVE)
        assert found.two_faced == ([A] if both_alive and theirs_hash == b"other" else [])


def partners(machine: Sync) -> list[PeerId]:
    return [wish.peer for wish in machine.effects.wishes if isinstance(wish, ViewsDiffer)]


def test_two_still_views_that_differ_are_compared_and_moving_ones_are_not() -> None:
    a = neighbour(A)
    machine = Sync(CONFIG, random.Random(1), {A: a}, Effects())
    machine.link_up(0.0)
    for tick in range(10):
        machine.hash_seen(a, theirs=bytes([tick]), ours=b"ours", ours_since=0.0, now=tick / 2)  # theirs moves
    for tick in range(10):
        machine.hash_seen(a, theirs=b"7", ours=b"ours", ours_since=5 + tick / 2, now=5 + tick / 2)  # ours moves
    assert partners(machine) == []
    machine.hash_seen(a, theirs=b"7", ours=b"ours", ours_since=9.5, now=10.6)
    machine.hash_seen(a, theirs=b"7", ours=b"ours", ours_since=9.5, now=11.0)
    assert partners(machine) == [A]


def test_one_neighbour_is_compared_with_every_few_seconds() -> None:
    links = {peer: neighbour(peer) for peer in PEERS[:4]}
    machine = Sync(CONFIG, random.Random(1), links, Effects())
    machine.link_up(0.0)
    while machine.deadline < 100.0:
        machine.differed()
        machine.handle_timeout(machine.deadline)
    assert 16 <= len(partners(machine)) <= 26
    assert set(partners(machine)) == set(PEERS[:4])
    assert machine.may_send_digest(links[A], 100.0)
    assert not machine.may_send_digest(links[A], 100.2)  # our costliest answer


def test_a_room_that_agrees_is_compared_less_often_until_something_differs() -> None:
    links = {peer: neighbour(peer) for peer in PEERS[:4]}
    machine = Sync(CONFIG, random.Random(1), links, Effects())
    machine.link_up(0.0)
    while machine.deadline < 100.0:
        machine.handle_timeout(machine.deadline)
    assert 4 <= len(partners(machine)) <= 8
    machine.effects.wishes.clear()
    for now, theirs in (
        (101.0, b"7"),
        (102.0, b"7"),
    ):  # two probes of a neighbour whose view stands still, and is not ours
        machine.hash_seen(links[A], theirs, b"8", 0.0, now)
    assert partners(machine) == [A]
    machine.handle_timeout(machine.deadline)
    assert len(partners(machine)) == 2


# ---------------------------------------------------------------------------------------------------------- routing


def test_a_signal_goes_straight_or_in_its_direction_or_on_walks() -> None:
    links = PEERS[1:6]
    for to, direction, expected in ((B, None, [B]), (PEERS[9], D, [D]), (PEERS[9], PEERS[10], [])):
        router = Router(CONFIG, A, random.Random(1), Effects())
        router.send(to, b"x", direction, links, 0.0)
        targets = [out.peer for out in router.effects.frames]
        assert targets[: len(expected)] == expected
        assert len(set(targets)) == (1 if to == B else 4)


def test_a_signal_that_comes_back_takes_another_way_and_not_for_ever() -> None:
    router = Router(CONFIG, A, random.Random(1), Effects())
    signal = Signal(1, B, PEERS[9], 2, b"x")
    c, d = neighbour(C), neighbour(D)
    for source in (c, d, c, d):
        router.received(source, signal, C, PEERS[1:8], 0.0)
    ways = [out.peer for out in router.effects.frames]
    assert len(ways) == len(set(ways)) == 3
    assert ways[1] == C  # its direction, unless it came from there
    router.received(c, Signal(2, B, PEERS[9], 1, b"x"), None, PEERS[1:6], 0.0)
    assert len(router.effects.frames) == 3
    for _ in range(2):
        router.received(c, Signal(3, PEERS[8], A, 1, b"mine"), None, PEERS[1:6], 0.0)
    assert router.effects.events == [SignalReceived(PEERS[8], b"mine", C)]
    for source in (c, d):
        router.received(source, Signal(4, B, PEERS[5], 2, b"x"), None, PEERS[1:6], 0.0)
    assert len(router.effects.frames) == 4  # handed to its addressee: that is the end of it


def test_an_answer_finds_the_way_back() -> None:
    router = Router(CONFIG, A, random.Random(1), Effects())
    router.received(neighbour(C), Signal(1, PEERS[9], A, 3, b"offer"), None, PEERS[1:6], 0.0)
    router.send(PEERS[9], b"answer", None, PEERS[1:6], 0.0)
    assert router.effects.frames[0].peer == C


def test_what_is_long_over_is_forgotten() -> None:
    """Or every signal and everybody that ever was would be remembered, up to thousands."""
    router = Router(CONFIG, A, random.Random(1), Effects())
    for now, events in ((0.0, 1), (59.0, 1), (61.0, 2)):
        router.received(neighbour(D), Signal(int(now), PEERS[8], B, 1, b"another"), None, PEERS[1:6], now)
        router.received(neighbour(C), Signal(7, PEERS[9], A, 3, b"mine"), None, PEERS[1:6], now)
        assert len(router.effects.events) == events
    firsts = []
    for is_gone in (False, True):
        if is_gone:
            router.gone(PEERS[9])
        for _ in range(8):
            router.effects.frames.clear()
            router.send(PEERS[9], b"answer", None, PEERS[1:6], 62.0)
            firsts.append(router.effects.frames[0].peer)
    assert set(firsts[:8]) == {C} < set(firsts[8:])


def test_a_flood_of_signals_is_cut_for_its_neighbour_only() -> None:
    router = Router(CONFIG, A, random.Random(1), Effects())
    c, d = neighbour(C), neighbour(D)
    for number in range(200):
        router.received(c, Signal(number, B, PEERS[9], 3, b"x"), None, PEERS[1:6], 0.0)
    assert router.passed_on == 64
    router.received(d, Signal(1000, B, PEERS[9], 3, b"x"), None, PEERS[1:6], 0.0)
    assert router.passed_on == 65
    router.received(c, Signal(1001, B, PEERS[9], 3, b"x"), None, PEERS[1:6], 1.0)
    assert router.passed_on == 66


# ------------------------------------------------------------------------------------------------------ coordinates


def test_coordinates_foretell_round_trips() -> None:
    rng = random.Random(3)
    places = [(rng.uniform(0, 0.08), rng.uniform(0, 0.05), rng.uniform(0.002, 0.01)) for _ in range(40)]

    def real(i: int, j: int) -> float:
        (ax, ay, ah), (bx, by, bh) = places[i], places[j]
        return math.hypot(ax - bx, ay - by) + ah + bh

    nodes = [Coordinate(random.Random(n)) for n in range(40)]
    for _ in range(300):
        for i, node in enumerate(nodes):
            j = rng.randrange(40)
            if i != j:
                node.update(nodes[j].wire, real(i, j) * rng.uniform(0.95, 1.05))
    errors = sorted(
        abs(distance(nodes[i].wire, nodes[j].wire) - real(i, j)) / real(i, j) for i in range(40) for j in range(i)
    )
    assert errors[len(errors) // 2] < 0.11  # the Vivaldi paper's median
    assert all(node.error < 0.4 for node in nodes)


def test_nonsense_moves_nobody_far() -> None:
    node = Coordinate(random.Random(1))
    for rtt in (0.0, -1.0, math.inf, 1e9):
        node.update((32_767, -32_768, 0, 65_535, 0), rtt)
    assert node.wire == (0, 0, 0, 0, 1500)
    for _ in range(200):
        node.update((32_767, -32_768, 32_767, 65_535, 0), 9.9)
    assert all(-32_768 <= value <= 65_535 for value in node.wire)
    codec.PROBE.pack(codec.VERSION, 1, 0, codec.NO_HASH, 0, 0, *node.wire, 0, 0)


# ------------------------------------------------------------------------------------------------------------- cuts


def test_one_event_for_one_cut() -> None:
    cuts = Cuts(CONFIG, Effects())
    alive = PEERS[:10]
    for place, peer in enumerate(PEERS[:4]):
        cuts.lost(peer, 10.0 + place / 10)
        cuts.lost(peer, 10.5)  # first suspected, then gone
    assert cuts.deadline == pytest.approx(11.3)
    cuts.handle_timeout(11.3, alive)
    assert cuts.effects.wishes == [CutSeen(tuple(PEERS[:4]), tuple(PEERS[4:10]), True)]
    cuts.lost(A, 12.0)
    assert cuts.deadline == math.inf


@pytest.mark.parametrize(("others", "majority"), [(4, False), (7, False), (8, True), (20, True)])
def test_majority_counts_ourselves(others: int, majority: bool) -> None:
    cuts = Cuts(CONFIG, Effects())
    for peer in PEERS[:4]:
        cuts.lost(peer, 0.0)
    cuts.handle_timeout(1.0, PEERS[:others])
    assert cuts.effects.wishes == [CutSeen(tuple(PEERS[:4]), tuple(PEERS[4:others]), majority)]


def test_a_cut_is_told_when_no_verdict_is_to_come_or_three_holds_have_passed() -> None:
    cuts = Cuts(CONFIG, Effects())
    for peer in PEERS[:3]:
        cuts.lost(peer, 0.0)
    cuts.handle_timeout(1.0, PEERS, suspecting=True)
    assert cuts.effects.wishes == []
    cuts.lost(PEERS[3], 1.1)
    while not cuts.effects.wishes:
        now = cuts.deadline
        cuts.handle_timeout(now, PEERS, suspecting=True)
    assert now == 3.0
    assert isinstance(cuts.effects.wishes[0], CutSeen)
    assert len(cuts.effects.wishes[0].lost) == 4


def test_two_losses_and_false_alarms_are_no_cut() -> None:
    cuts = Cuts(CONFIG, Effects())
    for peer in (A, B, C):
        cuts.lost(peer, 0.0)
    cuts.back(C, 0.5)
    cuts.handle_timeout(cuts.deadline, PEERS)
    for peer in PEERS[:4]:
        cuts.lost(peer, 10.0)
        cuts.forget(peer)  # it said goodbye after all
    cuts.handle_timeout(cuts.deadline, PEERS)
    assert cuts.effects.wishes == []


def test_slow_losses_do_not_hold_the_event_back_for_ever() -> None:
    cuts = Cuts(CONFIG, Effects())
    for place, peer in enumerate(PEERS):
        cuts.lost(peer, place * 0.9)
    assert cuts.deadline == pytest.approx(3.0)


def test_a_heal_is_one_event_too() -> None:
    cuts = Cuts(CONFIG, Effects())
    for peer in PEERS[:5]:
        cuts.lost(peer, 0.0)
    cuts.handle_timeout(1.0, PEERS)
    cuts.effects.wishes.clear()
    for peer in PEERS[:4]:
        cuts.back(peer, 60.0)
    cuts.handle_timeout(61.0, PEERS)
    assert cuts.effects.wishes == [CutMended(tuple(PEERS[:4]), (PEERS[4],))]


def test_a_component_knocks_at_a_constant_rate_whatever_its_size() -> None:
    knocks = {}
    for size in (1, 10, 100):
        knockers = [Knocker(CONFIG, random.Random(n), Effects()) for n in range(size)]
        for knocker in knockers:
            knocker.arm(0.0)
            while knocker.deadline < 1000.0:
                knocker.handle_timeout(knocker.deadline, PEERS, size - 1)
        knocks[size] = sum(len(knocker.effects.wishes) for knocker in knockers)
    assert 180 <= knocks[1] <= 220  # one node alone cannot knock more than once in an interval
    assert 320 <= knocks[10] <= 480
    assert 320 <= knocks[100] <= 480
    quiet = Knocker(CONFIG, random.Random(1), Effects())
    quiet.arm(0.0)
    quiet.handle_timeout(quiet.deadline, [], 5)
    assert quiet.deadline == math.inf


def test_a_few_links_cross_a_healed_cut() -> None:
    rng = random.Random(1)
    crossing = sum(len(Knocker(CONFIG, rng, Effects()).cross_links(PEERS, 1000)) for _ in range(1000))
    assert 20 <= crossing <= 70


def test_exactly_two_members_look_out() -> None:
    room = RoomKey.of(b"room").raw
    lookouts = [peer for peer in PEERS if healing.is_lookout(room, peer, [p for p in PEERS if p != peer])]
    assert len(lookouts) == 2
    assert healing.is_lookout(room, A, [])


# ------------------------------------------------------------------------------------------------------------ walks


def record(who: int) -> bytes:
    return OwnState(epoch=1).sign(RoomKey.of(b"room"), CheapIdentity(who)).encode()


def test_a_join_walks_and_ends() -> None:
    walks = Walks(CONFIG, random.Random(1), Effects())
    newcomer = OwnState(epoch=1).sign(RoomKey.of(b"room"), CheapIdentity(1))
    walks.newcomer(newcomer, [*PEERS[:8], newcomer.peer])
    assert len(walks.effects.frames) == 4
    assert newcomer.peer not in [out.peer for out in walks.effects.frames]
    assert join_untrusted(walks.effects.frames[0].frame) == (CONFIG.active_walk_length, newcomer.encode())
    walks.effects.frames.clear()
    assert not walks.join_received(A, 5, newcomer.encode(), newcomer.peer, PEERS[:8])
    assert join_untrusted(walks.effects.frames[0].frame)[0] == 4
    assert walks.effects.frames[0].peer != A
    assert walks.join_received(A, CONFIG.passive_walk_length, newcomer.encode(), newcomer.peer, PEERS[:8])
    assert walks.effects.wishes == []
    assert walks.join_received(A, 0, newcomer.encode(), newcomer.peer, PEERS[:8])
    assert walks.effects.wishes == [Adopt(newcomer.encode())]


def test_a_shuffle_walks_and_its_answer_comes_back() -> None:
    start, middle, end = (Walks(CONFIG, random.Random(n), Effects()) for n in range(3))
    own, known = Line(record(1), 0), [Line(record(n), n) for n in range(2, 12)]
    start.begin_shuffle(0.0, own, known[:5], known[5:], [B])
    [first] = start.effects.frames
    number, ttl, lines = shuffle_untrusted(first.frame)
    assert len(lines) == 8
    assert lines[0] == own
    assert middle.shuffle_received(A, number, ttl, lines, known, [A, C, D]) == []
    [second] = middle.effects.frames
    middle.effects.frames.clear()
    number, _, lines = shuffle_untrusted(second.frame)
    assert end.shuffle_received(B, number, 1, lines, known, [B, C, D]) == lines
    [answer] = end.effects.frames
    number, _, lines = shuffle_untrusted(answer.frame)
    assert middle.reply_received(number, lines, [A, C, D]) == []
    assert [out.peer for out in middle.effects.frames] == [A]
    assert start.reply_received(number, lines, [B]) == lines
    assert start.reply_received(number, lines, [B]) == []  # once only


def test_shuffles_that_nobody_started_are_not_believed() -> None:
    walks = Walks(CONFIG, random.Random(1), Effects())
    assert walks.reply_received(bytes(8), [Line(record(1), 0)], [A]) == []
    walks.shuffle_received(A, bytes(8), 3, [], [], [A, B, C])
    assert walks.shuffle_received(B, bytes(8), 1, [Line(record(1), 0)], [], [A, B, C]) == []  # it walked in a circle
