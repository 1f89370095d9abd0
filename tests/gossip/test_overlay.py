"""The active view: how many links, which, and who may not displace whom."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import DialWanted, Effects, Part
from psyne_mesh.gossip.overlay import Overlay
from psyne_mesh.gossip.policy import Mode
from psyne_mesh.identity import PeerId
from tests.gossip.neighbours import displaced, heard, placed

OWN = PeerId("f" * 32)
PEERS = [PeerId(f"{n:032x}") for n in range(1, 101)]


def nowhere(peer: PeerId) -> float:
    return math.inf


def partial(members: int = 100, **config: int) -> Overlay:
    overlay = Overlay(GossipConfig(**config), OWN, random.Random(1), {}, Effects())  # type: ignore[arg-type]
    overlay.resize(members, 0.0, links=members - 1, standing=members - 1, small=0, large=members - 1)
    return overlay


def tick(overlay: Overlay, now: float, pending: int = 0) -> list[object]:
    overlay.deadline = min(overlay.deadline, now)
    overlay.handle_timeout(now, PEERS, nowhere, pending)
    facts, overlay.effects.wishes = list(overlay.effects.wishes), []
    return facts


@pytest.mark.parametrize(
    ("sizes", "mode"),
    [
        ([16], Mode.FULL), ([17], Mode.PARTIAL), ([17, 13], Mode.PARTIAL), ([17, 12], Mode.FULL), ([256], Mode.PARTIAL),
        ([20, 257], Mode.LOBBY), ([20, 257, 192], Mode.LOBBY), ([20, 257, 191], Mode.PARTIAL), ([20, 257, 5], Mode.FULL),
    ],
)  # fmt: skip
def test_modes_change_with_hysteresis(sizes: list[int], mode: Mode) -> None:
    overlay = Overlay(GossipConfig(), OWN, random.Random(1), {}, Effects())
    for size in sizes:
        overlay.resize(size, 0.0, links=size - 1, standing=size - 1, small=0, large=size - 1)
    assert overlay.mode is mode


@pytest.mark.parametrize(("members", "target"), [(17, 6), (64, 6), (65, 7), (128, 7), (200, 8), (256, 8)])
def test_the_target_grows_with_the_logarithm(members: int, target: int) -> None:
    assert partial(members).target == target


def test_when_most_links_fall_silent_others_are_dialled_without_a_verdict() -> None:
    overlay = partial()
    for peer in PEERS[:8]:
        placed(overlay, peer, 0.0, outbound=True)
    tick(overlay, 9.0)  # draws by lot
    assert tick(overlay, 10.0) == []
    for peer in PEERS[:4]:
        heard(overlay, peer, 7, 0.05, audible=False)
    assert not overlay.hollow  # half: the failure detector's affair
    assert tick(overlay, 12.0) == []
    for peer in PEERS[:7]:
        heard(overlay, peer, 7, 0.05, audible=False)
    assert overlay.hollow
    assert overlay.isolated
    wishes = tick(overlay, 14.0)
    assert len(wishes) == 12
    assert not {wish.peer for wish in wishes if isinstance(wish, DialWanted)} & set(PEERS[:8])
    heard(overlay, PEERS[0], 7, 0.05, audible=True)
    assert not overlay.isolated


def test_silent_links_keep_nobody_out_while_most_are_silent() -> None:
    overlay = partial()
    for peer in PEERS[:11]:
        placed(overlay, peer, 0.0, outbound=False)
    placed(overlay, PEERS[20], 1.0, outbound=False)
    assert not overlay.admits(overlay.links[PEERS[20]], 1.0, isolated=False)
    for peer in PEERS[:9]:
        heard(overlay, peer, 7, 0.05, audible=False)
    assert overlay.admits(overlay.links[PEERS[20]], 1.0, isolated=False)
    for peer in PEERS[30:43]:  # but who floods us with links and falls silent makes room for no more than there is
        placed(overlay, peer, 2.0, outbound=False)
        heard(overlay, peer, 7, 0.05, audible=False)
    assert not overlay.admits(overlay.links[PEERS[42]], 2.0, isolated=False)


def test_vacancies_are_dialled_twice_over_in_parallel() -> None:
    overlay = partial()
    wishes = tick(overlay, 1.0)
    assert len(wishes) == 14
    assert len({wish.peer for wish in wishes if isinstance(wish, DialWanted)}) == 14
    assert tick(overlay, 3.0, pending=14) == []


def test_half_of_the_view_is_our_own_choice() -> None:
    overlay = partial()
    for peer in PEERS[:7]:
        placed(overlay, peer, 0.0, outbound=False)
    assert len(tick(overlay, 10.0)) == 8  # four anchors are missing, though there are links enough
    for peer in PEERS[7:11]:
        placed(overlay, peer, 0.0, outbound=True)
    assert not any(isinstance(fact, DialWanted) for fact in tick(overlay, 20.0))


def drawn_by_lot(overlay: Overlay, *peers: PeerId) -> None:
    for peer in peers:
        overlay.links[peer].place.unbiased = True


def unbiased(overlay: Overlay) -> list[PeerId]:
    return [peer for peer, neighbour in overlay.links.items() if neighbour.place.unbiased]


def test_two_links_are_drawn_by_our_own_hash_whatever_is_near() -> None:
    overlay = partial()
    overlay.handle_timeout(1.0, PEERS[:8], lambda peer: float(peer != PEERS[0]), 0)
    first = [wish.peer for wish in overlay.effects.wishes if isinstance(wish, DialWanted)]
    assert first[:2] == sorted(PEERS[:8], key=overlay._rank)[:2]
    for peer in first:
        placed(overlay, peer, 2.0, outbound=True)
    assert unbiased(overlay) == first[:2]


def test_a_lot_that_comes_to_nothing_is_drawn_again() -> None:
    overlay = partial()
    for peer in PEERS[:8]:
        placed(overlay, peer, 0.0, outbound=peer in PEERS[4:8])
    wishes = [wish.peer for wish in tick(overlay, 1.0) if isinstance(wish, DialWanted)]
    assert len(wishes) + len(unbiased(overlay)) == 2
    for peer in wishes:
        overlay.parted(peer, 2.0)  # so says a dial that failed
    for peer in unbiased(overlay):
        displaced(overlay, peer, 2.0)
    again = [wish.peer for wish in tick(overlay, 3.0) if isinstance(wish, DialWanted)]
    assert len(again) + len(unbiased(overlay)) >= 2
    assert not set(again) & set(wishes)


def test_whom_we_dialled_already_may_be_drawn_and_an_inbound_link_may_not() -> None:
    overlay = partial(20)
    for peer in PEERS[:10]:
        placed(overlay, peer, 0.0, outbound=peer in PEERS[:5])
    overlay.handle_timeout(1.0, PEERS[:10], nowhere, 0)
    assert overlay.effects.wishes == []
    assert len(unbiased(overlay)) == 2
    assert set(unbiased(overlay)) <= set(PEERS[:5])


def test_nearness_and_surplus_never_take_what_was_drawn() -> None:
    overlay = partial(active_view=4)
    for place, peer in enumerate(PEERS[:12]):
        placed(overlay, peer, 0.0, outbound=True)
        heard(overlay, peer, 20, place / 100)
    drawn_by_lot(overlay, PEERS[10], PEERS[11])  # the farthest
    parted: list[PeerId] = []
    for now in range(10, 300):
        for fact in tick_near(overlay, float(now)):
            if isinstance(fact, Part):
                parted.append(fact.peer)
                displaced(overlay, fact.peer, float(now))
            elif isinstance(fact, DialWanted):
                placed(overlay, fact.peer, float(now), outbound=True)
                heard(overlay, fact.peer, 20, 0.001)
    assert set(PEERS[:10]) & set(parted)
    assert unbiased(overlay) == PEERS[10:12]


def test_who_seems_cut_off_dials_three_by_lot_less_and_less_often_and_keeps_the_links() -> None:
    """Three, because most of those whom a flood of newcomers made known are liars."""
    overlay = partial()
    for peer in PEERS[:8]:
        placed(overlay, peer, 0.0, outbound=True)
    drawn_by_lot(overlay, PEERS[0], PEERS[1])
    dialled = []
    for now in range(0, 2000, 10):
        overlay.cut_off(float(now), PEERS)
        dialled += [now for _ in overlay.effects.wishes]
        overlay.effects.wishes.clear()
    assert dialled == [at for at in (0, 10, 30, 70, 150, 310, 630, 1230, 1830) for _ in range(3)]
    overlay.in_touch()
    overlay.cut_off(2430.0, PEERS)
    overlay.effects.wishes.clear()
    overlay.cut_off(2440.0, PEERS)
    strangers = [wish.peer for wish in overlay.effects.wishes if isinstance(wish, DialWanted)]
    placed(overlay, strangers[0], 2441.0, outbound=True)
    assert unbiased(overlay) == [PEERS[1], strangers[0]]


def test_near_members_are_half_of_the_rest() -> None:
    overlay = partial()
    near = dict(zip(PEERS[:40], (n / 100 for n in range(40)), strict=True))
    overlay.handle_timeout(1.0, PEERS[:40], lambda peer: near[peer], 0)
    chosen = [wish.peer for wish in overlay.effects.wishes if isinstance(wish, DialWanted)]
    average = sum(near[peer] for peer in chosen) / len(chosen)
    assert average < 0.17  # the mean of all is 0.195


def test_only_the_dialler_sheds_and_only_what_both_can_spare() -> None:
    overlay = partial()
    for peer in PEERS[:12]:
        placed(overlay, peer, 0.0, outbound=False)
    for peer in PEERS[12:18]:
        placed(overlay, peer, 0.0, outbound=True)
    for place, peer in enumerate(PEERS[:18]):
        heard(overlay, peer, 20, place / 100)
    drawn_by_lot(overlay, PEERS[12], PEERS[13])
    assert tick(overlay, 2.0) == []  # too young
    assert tick(overlay, 10.0) == [Part(PEERS[17], "surplus")]
    displaced(overlay, PEERS[17], 10.0)
    heard(overlay, PEERS[16], 6, 0.16)
    assert tick(overlay, 12.0) == [Part(PEERS[15], "surplus")]
    displaced(overlay, PEERS[15], 12.0)
    for place in (11, 10, 9, 8, 7):
        assert tick(overlay, 14.0) == [
            Part(PEERS[place], "full")
        ]  # four anchors stay, whatever the number of inbound links
        displaced(overlay, PEERS[place], 14.0)
    assert tick(overlay, 14.0) == []  # as many as we take from others


@pytest.mark.parametrize("anchors", [0, 2, 4])
def test_more_links_than_we_take_from_others_are_sent_on(anchors: int) -> None:
    """Who was stranded and let in, or came while the room was small, goes once it has others: one after the other."""
    overlay = partial()
    for peer in PEERS[:20]:
        placed(overlay, peer, 0.0, outbound=peer in PEERS[:anchors])
        heard(overlay, peer, 20 if peer != PEERS[19] else 1, 0.1)  # the last has nobody but us
    parted: list[PeerId] = []
    for now in range(10, 60):
        parts = [fact for fact in tick(overlay, 2.0 * now) if isinstance(fact, Part)]
        assert len(parts) <= 1
        for part in parts:
            displaced(overlay, part.peer, 2.0 * now)
            parted.append(part.peer)
    assert parted == PEERS[18 : 18 - len(parted) : -1]  # the youngest first
    assert len(overlay.links) == overlay.target + 4  # as many as we let in


def test_a_flood_of_newcomers_sends_nobody_on_who_came_before_it() -> None:
    """The links of the flood are too young to be judged: those before it would be the youngest that may go."""
    overlay = partial()
    before = overlay.target + 4  # as many as we let in
    for peer in PEERS[:before]:
        placed(overlay, peer, 0.0, outbound=False)
        heard(overlay, peer, 20, 0.1)
    flood = PEERS[before : before + 10]
    for second, peer in enumerate(flood, 10):
        placed(overlay, peer, float(second), outbound=False)
        heard(overlay, peer, 20, 0.1)
        assert not any(isinstance(fact, Part) for fact in tick(overlay, second + 0.9))
    parted = []
    for second in range(22, 60):
        for part in [fact for fact in tick(overlay, float(second)) if isinstance(fact, Part)]:
            displaced(overlay, part.peer, float(second))
            parted.append(part.peer)
    assert parted == flood[::-1]
    assert list(overlay.links) == PEERS[:before]


def full_house(overlay: Overlay) -> PeerId:
    for peer in PEERS[:4]:
        placed(overlay, peer, 0.0, outbound=True)
    for peer in PEERS[4:12]:
        placed(overlay, peer, 0.0, outbound=False)
        heard(overlay, peer, 20, 0.1)
    return PEERS[11]


def test_a_full_house_refuses_but_makes_room_for_the_isolated_once() -> None:
    overlay = partial()
    newcomer = full_house(overlay)
    assert not overlay.admits(overlay.links[newcomer], 10.0, isolated=False)
    assert overlay.admits(overlay.links[newcomer], 10.0, isolated=True)
    [part] = overlay.effects.wishes
    assert isinstance(part, Part)
    assert part.peer == PEERS[10]  # an inbound link, never an anchor; the youngest, so that a flood displaces itself
    overlay.effects.wishes.clear()
    assert not overlay.admits(overlay.links[newcomer], 20.0, isolated=True)
    assert overlay.admits(overlay.links[newcomer], 80.0, isolated=True)


def test_a_flood_of_newcomers_does_not_displace_the_oldest_links() -> None:
    overlay = partial()
    for peer in PEERS[:6]:
        placed(overlay, peer, 0.0, outbound=True)
        heard(overlay, peer, 20, 0.5)
    for peer in PEERS[6:20]:  # near newcomers, who want to be all that we know
        placed(overlay, peer, 1.0, outbound=peer in PEERS[6:12])
        heard(overlay, peer, 20, 0.05)
    drawn_by_lot(overlay, PEERS[6], PEERS[7])
    parted: list[PeerId] = []
    for now in range(10, 40):
        for fact in tick(overlay, 2.0 * now):
            assert isinstance(fact, Part)
            parted.append(fact.peer)
            displaced(overlay, fact.peer, 2.0 * now)
    for newcomer in PEERS[40:60]:
        placed(overlay, newcomer, 100.0, outbound=False)
        heard(overlay, newcomer, 20, 0.05)
        overlay.admits(overlay.links[newcomer], 100.0, isolated=True)
    parted += [fact.peer for fact in overlay.effects.wishes if isinstance(fact, Part)]
    assert set(PEERS[2:6]) <= set(parted)
    assert not set(PEERS[:2]) & set(parted)


def test_a_near_link_that_keeps_its_promise_replaces_the_far_one_however_old() -> None:
    overlay = partial(active_view=4)
    for place, peer in enumerate(PEERS[:5]):
        placed(overlay, peer, 0.0, outbound=True)
        heard(overlay, peer, 20, 0.4 + place / 100)
    drawn_by_lot(overlay, PEERS[0], PEERS[1])
    [wish] = tick_near(overlay, 10.0)
    assert isinstance(wish, DialWanted)
    placed(overlay, wish.peer, 11.0, outbound=True)
    heard(overlay, wish.peer, 20, 0.1)
    assert Part(PEERS[4], "surplus") in tick_near(overlay, 40.0)


def tick_near(overlay: Overlay, now: float) -> list[object]:
    overlay.deadline = now
    overlay.handle_timeout(now, PEERS, lambda peer: 0.01, 0)
    facts, overlay.effects.wishes = list(overlay.effects.wishes), []
    return facts


def test_the_backoff_is_forgotten_when_it_is_over() -> None:
    overlay = partial()
    for place, peer in enumerate(PEERS):
        overlay.parted(peer, float(place))
    assert len(overlay._backoff) == 60


def test_what_we_dialled_ourselves_is_admitted() -> None:
    overlay = partial()
    full_house(overlay)
    placed(overlay, PEERS[20], 10.0, outbound=True)
    assert overlay.admits(overlay.links[PEERS[20]], 10.0, isolated=False)


def test_who_parted_is_not_dialled_for_a_minute() -> None:
    overlay = partial()
    for peer in PEERS[:90]:
        overlay.parted(peer, 0.0)
    for peer in PEERS[90:94]:
        placed(overlay, peer, 0.0, outbound=True)
    first = {wish.peer for wish in tick(overlay, 30.0) if isinstance(wish, DialWanted)}
    assert first <= set(PEERS[94:])
    later = {wish.peer for wish in tick(overlay, 70.0) if isinstance(wish, DialWanted)}
    assert not later <= set(PEERS[94:])


def test_a_lonely_node_ignores_the_backoff() -> None:
    overlay = partial()
    for peer in PEERS:
        overlay.parted(peer, 0.0)
    assert len(tick(overlay, 1.0)) > 0


def test_a_link_across_a_healed_cut_is_kept() -> None:
    overlay = partial()
    for peer in PEERS[:18]:
        placed(overlay, peer, 0.0, outbound=True)
        heard(overlay, peer, 20, 0.1)
    drawn_by_lot(overlay, PEERS[0], PEERS[1])
    overlay.keep(PEERS[17], 60.0)
    for now in range(6, 59):
        for fact in tick(overlay, float(now)):
            assert isinstance(fact, Part)
            assert fact.peer != PEERS[17]
            displaced(overlay, fact.peer, float(now))


def test_a_promise_that_coordinates_do_not_keep_makes_us_try_less() -> None:
    overlay = partial(active_view=4)
    for peer in PEERS[:5]:
        placed(overlay, peer, 0.0, outbound=True)
        heard(overlay, peer, 20, 0.1)
    drawn_by_lot(overlay, PEERS[0], PEERS[1])
    tries = []
    for now in range(10, 600):
        overlay.deadline = float(now)
        overlay.handle_timeout(float(now), PEERS, lambda peer: 0.01, 0)
        tries += [now for fact in overlay.effects.wishes if isinstance(fact, DialWanted)]
        overlay.effects.wishes.clear()
    assert 3 <= len(tries) <= 7
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert gaps == sorted(gaps)


def test_who_has_nobody_else_is_let_in_although_nobody_can_be_spared_but_not_many() -> None:
    overlay = partial()
    for peer in PEERS[:4]:
        placed(overlay, peer, 0.0, outbound=True)
    for peer in PEERS[4:11]:  # newcomers themselves, with few links
        placed(overlay, peer, 0.0, outbound=False)
    admitted = 0
    for stranded in PEERS[20:30]:
        placed(overlay, stranded, 10.0, outbound=False)
        if overlay.admits(overlay.links[stranded], 10.0, isolated=True):
            admitted += 1
        else:
            displaced(overlay, stranded, 10.0)
    assert admitted == 4
    assert overlay.effects.wishes == []
    small = partial(members=24)  # a room that has just outgrown its full mesh: what stands there is no reason to refuse
    for peer in PEERS[:17]:
        placed(small, peer, 0.0, outbound=False)
    for number, stranded in enumerate(PEERS[20:30]):
        placed(small, stranded, 10.0, outbound=False)
        assert small.admits(small.links[stranded], 10.0, isolated=True) == (number < 7)  # links_max: 24
        assert not small.admits(small.links[stranded], 10.0, isolated=False)
        if number >= 7:
            displaced(small, stranded, 10.0)
    for peer in PEERS[20:24]:  # they have found others: the next takes the place of the youngest
        heard(overlay, peer, 20, 0.1)
    placed(overlay, PEERS[31], 60.0, outbound=False)
    assert overlay.admits(overlay.links[PEERS[31]], 60.0, isolated=True)
    assert [fact.peer for fact in overlay.effects.wishes if isinstance(fact, Part)] == [PEERS[23]]


def test_whom_a_lobby_could_not_reach_it_hears_nothing_of_until_that_life_is_long_past() -> None:
    overlay = partial()
    overlay.unreachable(PEERS[0], epoch=5, now=0.0)
    assert not overlay.shuns(PEERS[0], 5, 1.0)  # who has no links is glad of anybody
    for peer in PEERS[10:18]:
        placed(overlay, peer, 0.0, outbound=True)
    assert overlay.shuns(PEERS[0], 5, 1.0)
    assert not overlay.shuns(PEERS[0], 6, 1.0)  # it has restarted
    assert not overlay.shuns(PEERS[1], 5, 1.0)
    assert not overlay.shuns(PEERS[0], 5, 901.0)
