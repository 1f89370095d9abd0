"""Who counts: a record costs nothing, so it takes a link, or a neighbour's voucher, to be a member, to sit and to vote."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.gossip import codec
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.events import Evicted, PeerDiscovered, PeerLeft
from psyne_mesh.gossip.records import OwnState, Record
from psyne_mesh.gossip.seats import Claim, Seats, vote_of
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import CheapIdentity, Cluster, room_of
from tests.gossip.test_node_hostile import EVIL, KEY, infiltrated, keep_talking, say, told
from tests.gossip.test_seats import ME, seats

PEERS = [CheapIdentity(number).peer_id for number in range(10)]
CROWD = [CheapIdentity(5000 + number) for number in range(240)]


def made_up(number: int, seats: int) -> Record:
    """One of a crowd that claims all seats, and votes for its own kind."""
    ballot = tuple((seat, vote_of(CROWD[seat].peer_id)) for seat in range(seats))
    state = OwnState(epoch=1, joined_at=1, seat=number % seats if seats else None, ballot=ballot)
    return state.sign(KEY, CROWD[number])


def tell(room: Cluster, way: str, records: list[Record]) -> None:
    if way == "member":
        for start in range(0, len(records), 20):
            say(room, told(*records[start : start + 20]))
    else:
        for peer in room.ids():
            room.tell(peer, lambda node: node.learn(records, room.now))


@pytest.mark.parametrize("way", ["member", "server"])
def test_made_up_records_that_vote_for_each_other_evict_nobody(way: str) -> None:
    room = infiltrated(config=GossipConfig(max_players=6), size=5)
    room.run(5.0)
    [before] = {node.seats for node in room.nodes.values()}
    assert sum(holder is not None for holder in before) == 5
    for _ in range(6):
        tell(room, way, [made_up(number, 6) for number in range(40)])
        room.run(4.0)
        for node in room.nodes.values():
            assert [holder for holder in node.seats if holder in room.nodes] == [h for h in before if h is not None]
    assert room.events(Evicted) == []


@pytest.mark.parametrize("way", ["member", "server"])
def test_a_room_of_four_stays_one_whatever_records_come_and_nobody_is_shown_for_long(way: str) -> None:
    room = infiltrated(config=GossipConfig(max_players=64), size=4)
    room.run(5.0)
    tell(room, way, [made_up(number, 0) for number in range(240)])
    for _ in range(40):
        room.run(0.25)
        for node in room.nodes.values():
            assert node.topology(room.now).mode == "full"
            assert len(node.members) <= 64 + 4
    assert all(set(node.members) - {EVIL.peer_id} == set(room.nodes) for node in room.nodes.values())


def vouch_for_all(room: Cluster, *liars: PeerId) -> None:
    """They say of everybody whom they are asked for that it is there, and answer for themselves."""
    for liar in liars or (EVIL.peer_id,):

        def answer(sender: PeerId, frame: bytes, liar: PeerId = liar) -> None:
            if frame[1] == codec.PING_REQ:
                sequence, target, _ = codec.indirect_untrusted(frame)
                words = codec.indirect(sequence, target, alive=True)
            elif frame[1] == codec.PING:
                sequence = codec.probe_untrusted(frame)[2]
                words = codec.PROBE.pack(codec.VERSION, codec.ACK, sequence, codec.NO_HASH, 0, 6, 0, 0, 0, 0, 0, 0, 0)
            else:
                return
            room.tell(sender, lambda node: node.receive(liar, words, room.now))

        room.by_hand[liar] = answer


def join_by_hand(room: Cluster, *liars: CheapIdentity) -> None:
    """More like EVIL: members with links to all, driven by hand."""
    for liar in liars:
        for peer in room.ids():
            room.links.add((min(peer, liar.peer_id), max(peer, liar.peer_id)))
            room.tell(peer, lambda node, liar=liar: node.link_up(liar.peer_id, room.now, 0.05))
            words = told(OwnState(epoch=1, joined_at=1).sign(KEY, liar))
            room.tell(peer, lambda node, liar=liar, words=words: node.receive(liar.peer_id, words, room.now))


@pytest.mark.parametrize(
    ("way", "size", "vouches"),
    [("member", 13, True), ("member", 15, False), ("member", 15, True), ("server", 15, False)],
)
def test_no_records_make_a_room_of_up_to_sixteen_partial(way: str, size: int, vouches: bool) -> None:
    """It is made for 64, and nearly as many as a full mesh holds are there, the liar among them, which stands for all that it
    made up."""
    room = infiltrated(config=GossipConfig(max_players=64), size=size)
    keep_talking(room, 5.0)
    if vouches:
        vouch_for_all(room)
    for beat in range(25):
        if beat % 8 == 0:
            tell(room, way, [made_up(number, 0) for number in range(beat * 4, beat * 4 + 40)])
        keep_talking(room, 0.4)
        for node in room.nodes.values():
            assert node.topology(room.now).mode == "full"


LIARS = [CheapIdentity(7000 + number) for number in range(4)]


@pytest.mark.parametrize("size", [11, 12])
def test_up_to_a_third_of_the_members_who_lie_together_make_no_room_partial(size: int) -> None:
    """Two who vouched for what they made up did, once."""
    room = infiltrated(config=GossipConfig(max_players=64), size=size)
    liars = LIARS[: (size + 1) // 3]
    join_by_hand(room, *liars[1:])
    vouch_for_all(room, EVIL.peer_id, *(liar.peer_id for liar in liars[1:]))
    keep_talking(room, 4.0)
    for beat in range(25):
        if beat % 8 == 0:
            tell(room, "member", [made_up(number, 0) for number in range(beat * 4, beat * 4 + 40)])
        keep_talking(room, 0.4)
        for node in room.nodes.values():
            assert node.topology(room.now).mode == "full"


def test_whom_two_liars_vouch_for_takes_no_seat_and_is_gone_ten_seconds_after_they_stop() -> None:
    """They may stand for what they made up for as long as they like, as they might run it: no more are shown than fit in."""
    room = infiltrated(config=GossipConfig(max_players=8), size=5)
    join_by_hand(room, LIARS[0])
    vouch_for_all(room, EVIL.peer_id, LIARS[0].peer_id)
    keep_talking(room, 4.0)
    [before] = {node.seats for node in room.nodes.values()}
    shown = 0
    for beat in range(50):
        if beat % 10 == 0:
            tell(room, "member", [made_up(number, 8) for number in range(240)])
        keep_talking(room, 0.4)
        for node in room.nodes.values():
            assert len(node.members) <= 8 + 4
            shown = max(shown, len(node.members))
            assert [holder for holder in node.seats if holder in room.nodes] == [h for h in before if h in room.nodes]
    assert shown > 7  # they are shown, while somebody stands for them
    assert not room.events(Evicted)
    room.by_hand.clear()  # they stop to vouch
    keep_talking(room, 10.4)
    honest = {*room.nodes, EVIL.peer_id, LIARS[0].peer_id}
    assert all(set(node.members) <= honest for node in room.nodes.values())


def test_a_room_in_which_no_link_to_some_comes_about_is_partial_once_there_are_many() -> None:
    """Three in ten pairs never reach each other, so that few ever have sixteen links; neighbours stand for the rest."""
    room = Cluster(5, GossipConfig(max_players=64))
    dice = random.Random(5)
    apart = {(a, b) for a in range(20) for b in range(3, a) if dice.random() < 0.3}
    ids = [CheapIdentity(index).peer_id for index in range(20)]
    number = {peer: index for index, peer in enumerate(ids)}
    room.no_dial = lambda a, b: (max(number[a], number[b]), min(number[a], number[b])) in apart
    for index in range(20):
        room.add(index, knows=room.ids()[:3])
    modes = [node.topology for node in room.nodes.values()]
    assert room.run(15.0, until=lambda: all(mode(room.now).mode == "partial" for mode in modes)) < 15.0


@pytest.mark.parametrize("way", ["member", "server"])
@pytest.mark.parametrize("size", [4, 13])
def test_a_thousand_keys_evict_nobody_and_are_shown_for_ten_seconds_at_most(way: str, size: int) -> None:
    room = infiltrated(config=GossipConfig(max_players=size + 1), size=size)
    keep_talking(room, 4.0)
    [before] = {node.seats for node in room.nodes.values()}
    crowd = [CheapIdentity(20_000 + number) for number in range(1000)]
    slate = tuple((seat, vote_of(crowd[seat].peer_id)) for seat in range(size + 1))
    states = [OwnState(epoch=1, joined_at=1, seat=seat % (size + 1), ballot=slate) for seat in range(size + 1)]
    records = [states[number % (size + 1)].sign(KEY, who) for number, who in enumerate(crowd)]
    room.log.clear()
    for beat in range(60):
        if beat % 4 == 0 and beat < 40:
            tell(room, way, records[beat * 25 : (beat + 4) * 25])
        keep_talking(room, 0.4)
        for node in room.nodes.values():
            assert [holder for holder in node.seats if holder in room.nodes] == [h for h in before if h in room.nodes]
            assert len(node.members) <= size + 1 + 4
    assert not room.events(Evicted)
    shown: dict[tuple[PeerId, PeerId], float] = {}
    for at, who, event in room.log:
        if isinstance(event, PeerDiscovered):
            shown[who, event.record.peer] = at
        elif isinstance(event, PeerLeft):
            assert at - shown.pop((who, event.peer)) <= 10.0
            assert event.peer not in room.nodes
    assert len(room.events(PeerDiscovered)) > 0
    assert shown == {}


def test_a_full_table_has_a_place_for_who_is_linked_to_us() -> None:
    room = room_of(3, config=GossipConfig(max_players=4))
    tell(room, "server", [made_up(number, 0) for number in range(30)])
    assert all(len(node.members) == 8 for node in room.nodes.values())
    newcomer = room.add(9, epoch=9, knows=room.ids()[:1]).peer_id
    room.run(8.9)  # until nobody has vouched for the made-up ones for nine seconds
    assert all(newcomer in node.members for node in room.nodes.values())


def test_a_pair_without_a_link_is_vouched_for_as_long_as_a_neighbour_reaches_it() -> None:
    room = Cluster(3, GossipConfig())
    first = room.add(0).peer_id
    last = CheapIdentity(4).peer_id
    room.no_dial = lambda a, b: {a, b} == {first, last}
    for index in range(1, 5):
        room.add(index, knows=[first] if index < 4 else room.ids()[1:2])
    room.run(60.0)
    assert not room.linked(first, last)
    assert room.views_equal()
    assert room.events(PeerLeft) == []
    room.crash(last)
    assert room.run(20.0, until=room.views_equal) < 12.0


def test_a_server_shows_the_same_nobody_once_a_minute_only() -> None:
    room = room_of(3)
    for _ in range(50):
        tell(room, "server", [made_up(0, 0)])
        room.run(1.0)
    assert len([event for _, _, event in room.events(PeerDiscovered) if event.record.peer == CROWD[0].peer_id]) == 3  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------- seats


def seated(count: int, holders: int) -> tuple[Seats, list[Claim]]:
    """We in seat 0, and others, all for long."""
    machine = seats(count)
    machine.met_others(0.0)
    claims = [Claim(ME, 0), *(Claim(PEERS[seat], seat) for seat in range(1, holders))]
    machine.claimed = 0
    machine.view(claims, 1.0)
    return machine, claims


def test_living_holders_keep_their_seats_against_any_number_of_newcomers() -> None:
    machine, claims = seated(8, 5)
    crowd = [CheapIdentity(7000 + number).peer_id for number in range(60)]
    slate = tuple((seat, vote_of(crowd[seat])) for seat in range(8))
    machine.view([*claims, *(Claim(peer, number % 8, True, slate) for number, peer in enumerate(crowd))], 10.0)
    assert machine.seats[:5] == (ME, *PEERS[1:5])
    machine.view([*claims, *(Claim(peer, number % 8, True, slate) for number, peer in enumerate(crowd))], 100.0)
    assert machine.seats[:5] == (ME, *PEERS[1:5])


def test_those_who_sat_before_decide_between_two_sides_of_a_cut() -> None:
    machine, claims = seated(8, 5)
    late, rival = PEERS[6], PEERS[7]
    machine.view([*claims, Claim(late, 7)], 20.0)
    named = ((7, vote_of(rival)),)
    claims[1:4] = [Claim(claim.peer, claim.seat, True, named) for claim in claims[1:4]]
    machine.view([*claims, Claim(late, 7), Claim(rival, 7)], 40.0)
    assert machine.seats[7] == rival


def test_a_claim_without_anybody_behind_it_does_not_count_against_a_holder() -> None:
    machine, claims = seated(4, 3)
    machine.view([*claims, Claim(PEERS[8], 0, False), Claim(PEERS[9], 3, False)], 10.0)
    assert machine.seats[0] == ME
