"""The table of links, alone: orders and offers in, starts and hang-ups out."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.dial_limits import DIALS_IN_A_ROW, LINKS_MAX, STRANGERS_MAX, handshakes_max
from psyne_mesh.mesh.link_table import (
    ASLEEP,
    ASLEEP_MAX,
    ASLEEP_S,
    CLOSED,
    LINGER_S,
    LOOK_AGAIN_S,
    STARTS_APART_S,
    Closing,
    DialFailed,
    HangUp,
    LinkDown,
    LinkTable,
    LinkUp,
    Open,
    SleepLink,
    StartLink,
    TableLink,
)  # fmt: skip

PEERS = sorted(Identity.from_seed(number.to_bytes(32, "big")).peer_id for number in range(LINKS_MAX + 4))
LOW, ME, HIGH = PEERS[0], PEERS[1], PEERS[-1]


class View:
    def __init__(self, *members: PeerId, knows_all: bool = True, is_large: bool = False) -> None:
        self.members = {*members}
        self.knows_all, self.is_large = knows_all, is_large

    def knows(self, peer: PeerId) -> bool:
        return peer in self.members


def table(**rooms: View) -> LinkTable:
    sessions = itertools.count()
    made = LinkTable(ME, lambda: f"mine-{next(sessions)}")
    for name, view in rooms.items():
        made.enter(name, view)
    return made


def dialled(links: LinkTable, peer: PeerId = HIGH, room: str = "game", now: float = 0.0) -> TableLink:
    links.dial(room, peer, now)
    (start,) = links.take_outputs()
    assert isinstance(start, StartLink)
    assert start.link.offerer
    return start.link


def opened(links: LinkTable, peer: PeerId = HIGH, now: float = 0.0) -> TableLink:
    link = dialled(links, peer, now=now)
    links.opened(link)
    links.take_events()
    return link


def test_a_dial_that_opens_tells_the_rooms_that_know_the_peer() -> None:
    links = table(game=View(HIGH), lobby=View(HIGH), other=View())
    link = dialled(links)
    links.dial("game", HIGH, 0.1)
    assert links.take_outputs() == []
    links.opened(link)
    assert links.take_events() == [LinkUp("game", HIGH), LinkUp("lobby", HIGH)]
    links.dial("lobby", HIGH, 1.0)
    assert links.take_events() == [LinkUp("lobby", HIGH)]


def test_a_link_that_was_open_goes_down_and_one_that_was_not_has_failed() -> None:
    links = table(game=View(HIGH, LOW))
    links.gone(opened(links), "whatever")
    error = ValueError("why")
    links.gone(dialled(links, LOW), "no answer", error)
    assert links.take_events() == [LinkDown("game", HIGH, CLOSED), DialFailed("game", LOW, "no answer", error)]
    assert not links.links


def test_a_room_that_gives_up_a_link_ends_it_only_when_no_other_room_knows_the_peer() -> None:
    links = table(game=View(HIGH), lobby=View(HIGH))
    opened(links)
    links.unwant("game", HIGH, "misbehaving", 1.0)
    assert links.take_outputs() == []
    links.depart("game", 2.0)
    links.unwant("lobby", HIGH, "misbehaving", 3.0)
    (hang_up,) = links.take_outputs()
    assert isinstance(hang_up, HangUp)
    assert hang_up.reason == "misbehaving"


@pytest.mark.parametrize(
    ("reason", "large", "sleeps"), [("timeout", False, True), ("timeout", True, True), ("impaired", False, True),
                                    ("impaired", True, False), ("full", False, False), ("refused", True, False)],
)  # fmt: skip
def test_what_becomes_of_a_link_depends_on_the_reason_and_the_room(reason: str, large: bool, sleeps: bool) -> None:
    links = table(game=View(is_large=large))
    link = opened(links)
    links.unwant("game", HIGH, reason, 1.0)
    assert links.take_outputs() == [SleepLink(link) if sleeps else HangUp(link, reason)]


def test_a_sleeping_link_answers_dials_by_itself_and_is_up_again_when_it_was_revived() -> None:
    links = table(game=View(HIGH))
    link = opened(links)
    links.unwant("game", HIGH, "timeout", 1.0)
    links.unwant("game", HIGH, "timeout", 1.5)
    assert links.take_outputs() == [SleepLink(link)]
    links.dial("game", HIGH, 2.0)
    links.revived(link)
    links.revived(link)
    assert links.take_events() == [DialFailed("game", HIGH, ASLEEP), LinkUp("game", HIGH)]


def test_sleeping_links_are_kept_for_long_and_only_so_many() -> None:
    links = table(game=View())
    slept = [opened(links, peer) for peer in PEERS[2 : ASLEEP_MAX + 4]]
    for number, link in enumerate(slept):
        links.unwant("game", link.peer, "timeout", float(number))
    ended = [output.link for output in links.take_outputs() if isinstance(output, HangUp)]
    assert ended == slept[:2]
    assert links.next_timeout() == ASLEEP_S
    links.handle_timeout(2 + ASLEEP_S)
    assert links.take_outputs() == [HangUp(slept[2], "timeout")]
    assert links.next_timeout() == 3 + ASLEEP_S


def test_after_a_goodbye_a_link_lingers_for_the_next_room() -> None:
    for meets_again in (False, True):
        view = View()
        links = table(lobby=view)
        link = opened(links)
        links.unwant("lobby", HIGH, "left", 1.0)
        assert (links.take_outputs(), links.next_timeout()) == ([], 1 + LINGER_S)
        if meets_again:
            view.members.add(HIGH)
        links.handle_timeout(1 + LINGER_S)
        assert links.take_outputs() == ([] if meets_again else [HangUp(link, "left")])
        assert isinstance(link.phase, Open if meets_again else Closing)


@pytest.mark.parametrize("peer", [LOW, HIGH])
def test_of_two_offers_that_cross_the_higher_ids_stands(peer: PeerId) -> None:
    links = table(game=View(peer))
    mine = dialled(links, peer)
    assert links.offer_received(peer, "theirs", 0, 0.1) is (peer > ME)
    if peer > ME:
        start, hang_up = links.take_outputs()
        assert (start.link.session, start.link.offerer, hang_up) == ("theirs", False, HangUp(mine, "superseded"))
    links.gone(mine, "superseded")
    assert (links.take_events() == []) is (peer > ME)


def test_an_offer_of_a_peer_that_is_back_takes_the_place_of_its_link_and_its_failure_is_a_link_down() -> None:
    links = table(game=View(HIGH))
    dead = opened(links)
    assert links.offer_received(HIGH, "new", 0, 1.0)
    assert dead.is_superseded
    links.gone(dead, "superseded")
    assert links.take_events() == []
    links.gone(links.links[HIGH], "no path")
    assert links.take_events() == [LinkDown("game", HIGH, CLOSED)]


def test_an_offer_that_was_held_back_ends_no_link_that_stands() -> None:
    links = table(game=View(HIGH))
    link = opened(links)
    links.envelope_received(link, 5000)
    assert not links.offer_received(HIGH, "old", 4999, 1.0)
    assert links.offers_refused == 1
    links.unwant("game", HIGH, "timeout", 2.0)
    assert links.links[HIGH].is_asleep or not links.take_outputs()


def test_strangers_get_few_links_and_nobody_dials_again_and_again() -> None:
    links = table(game=View(*PEERS[100:]))
    answered = [links.offer_received(peer, "s", 0, 0.0) for peer in PEERS[2:100]]
    assert sum(answered) == STRANGERS_MAX
    assert sum(links.offer_received(HIGH, f"s{number}", number, 0.0) for number in range(20)) == DIALS_IN_A_ROW
    assert not links.hears_over_mesh("game", PEERS[90])
    assert links.hears_over_mesh("game", PEERS[2])  # it has a link
    assert links.hears_over_mesh("game", PEERS[101])


def test_a_restart_ends_the_link_of_the_run_before_once_though_two_rooms_hear_of_it() -> None:
    links = table(game=View(HIGH), lobby=View(HIGH))
    opened(links)
    links.unwant("game", HIGH, "superseded", 1.0)
    assert [type(output) for output in links.take_outputs()] == [HangUp]
    assert links.offer_received(HIGH, "of the new run", 0, 1.2)
    links.take_outputs()
    links.unwant("lobby", HIGH, "superseded", 1.5)
    assert links.take_outputs() == []


def test_a_closed_table_starts_nothing_and_hangs_up_at_once() -> None:
    links = table(game=View())
    link = opened(links)
    links.close()
    links.dial("game", LOW, 1.0)
    assert not links.offer_received(LOW, "s", 0, 1.0)
    links.depart("game", 1.0)
    assert links.take_outputs() == [HangUp(link, "left")]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_each_link_starts_once_and_nothing_is_told_of_rooms_that_are_gone(seed: int) -> None:
    """Random orders, offers and ends. What must always hold is checked after each."""
    rng = random.Random(seed)
    rooms = {"a": View(), "b": View(is_large=True)}
    links = table(**rooms)
    running: list[TableLink] = []
    now = 0.0
    for step in range(400):
        now += rng.random()
        links.handle_timeout(now)
        peer, room = PEERS[rng.choice([0, 2, 3, 4])], rng.choice(["a", "b"])
        view = rooms[room]
        view.members.symmetric_difference_update({peer} if rng.random() < 0.3 else ())
        match rng.randrange(7):
            case 0:
                links.dial(room, peer, now)
            case 1:
                links.unwant(room, peer, rng.choice(["timeout", "left", "impaired", "superseded", "full"]), now)
            case 2:
                links.offer_received(peer, f"theirs-{step}", rng.randrange(9), now)
            case 3 if running:
                links.opened(rng.choice(running))
            case 4 if running:
                links.revived(rng.choice(running))
            case 5 if running:
                links.gone(running.pop(rng.randrange(len(running))), "network")
            case _:
                pass
        for output in links.take_outputs():
            if isinstance(output, StartLink):
                assert all(output.link is not link for link in running)
                running.append(output.link)
            elif isinstance(output, HangUp):
                assert isinstance(output.link.phase, Closing)
        for event in links.take_events():
            assert event.room in rooms
        assert links.next_timeout() > now
        assert len(links.links) <= 4
        for link in links.links.values():
            assert link in running


# ------------------------------------------------------------------------------------------------- a loop that is behind


class Slow:
    """A table whose loop is late by `lag_s`."""

    def __init__(self, lag_s: float, **rooms: View) -> None:
        self.lag_s = lag_s
        sessions = itertools.count()
        self.links = LinkTable(ME, lambda: f"mine-{next(sessions)}", lambda now: self.lag_s)
        for name, view in rooms.items():
            self.links.enter(name, view)

    def started(self) -> list[PeerId]:
        return [output.link.peer for output in self.links.take_outputs() if isinstance(output, StartLink)]


def test_the_later_the_loop_the_fewer_handshakes_are_begun_and_the_next_follows_at_once() -> None:
    peers = PEERS[2:12]
    slow = Slow(0.4, game=View(*peers))
    for peer in peers:
        slow.links.dial("game", peer, 1.0)
    slow.links.handle_timeout(1.1)
    slow.links.handle_timeout(1.2)
    first = slow.started()
    assert first == peers[: int(handshakes_max(0.4))]
    assert slow.links.next_timeout() == 1.2 + LOOK_AGAIN_S
    slow.links.opened(slow.links.links[first[0]])
    assert slow.links.next_timeout() < 1.3
    slow.links.handle_timeout(1.3)
    assert slow.started() == peers[len(first) : len(first) + 1]


def test_dials_are_begun_one_by_one_so_that_it_shows_what_they_cost() -> None:
    peers = PEERS[2:12]
    slow = Slow(0.0, game=View(*peers))
    for peer in peers:
        slow.links.dial("game", peer, 1.0)
    assert slow.started() == peers[:1]
    for number in range(1, 4):
        due = slow.links.next_timeout()
        assert due == pytest.approx(1.0 + number * STARTS_APART_S)
        slow.links.handle_timeout(due)
        assert slow.started() == peers[number : number + 1]
    slow.lag_s = 0.3  # the first ones have made the loop late
    slow.links.handle_timeout(1.3)
    assert slow.started() == []


@pytest.mark.parametrize(("lag_s", "most"), [(0.0, math.inf), (0.05, math.inf), (0.1, 8), (0.5, 1), (60.0, 1)])
def test_one_handshake_is_always_allowed(lag_s: float, most: float) -> None:
    assert handshakes_max(lag_s) == most


def test_who_waits_is_answered_when_it_dials_us_and_forgotten_when_nobody_wants_it() -> None:
    a, b, c, d = PEERS[2:6]
    slow = Slow(1.0, game=View(a, b, c, d), lobby=View(d))
    for peer in (a, b, c, d):
        slow.links.dial("game", peer, 0.0)
    slow.links.dial("lobby", d, 0.0)
    assert slow.started() == [a]
    assert slow.links.offer_received(b, "theirs", 1, 0.0)
    assert slow.started() == [b]
    slow.links.unwant("game", c, "left", 0.0)
    slow.links.depart("game", 0.0)
    slow.lag_s = 0.0
    slow.links.handle_timeout(1.0)
    assert slow.started() == [d]  # the other room wants it still


def test_a_table_that_is_closed_dials_nobody_who_waits() -> None:
    a, b = PEERS[2:4]
    slow = Slow(1.0, game=View(a, b))
    slow.links.dial("game", a, 0.0)
    slow.links.dial("game", b, 0.0)
    assert slow.started() == [a]
    slow.links.close()
    slow.lag_s = 0.0
    slow.links.handle_timeout(1.0)
    assert slow.started() == []
