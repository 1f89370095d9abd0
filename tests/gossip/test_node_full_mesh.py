"""Small rooms end to end: join storms, crashes, goodbyes, restarts, cuts, and pairs that cannot connect."""

from __future__ import annotations

import statistics

import attrs
import pytest

from psyne_mesh.gossip.events import (
    BroadcastReceived,
    Event,
    Evicted,
    PartitionHealed,
    PartitionSuspected,
    PeerDiscovered,
    PeerLeft,
    PeerResumed,
    PeerSuspected,
    SignalReceived,
)
from psyne_mesh.gossip.records import OwnState
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import CheapIdentity, Cluster, room_of

# ------------------------------------------------------------------------------------------------------------- join


@pytest.mark.parametrize("seed", range(5))
def test_a_storm_of_sixteen_who_all_know_each_other_is_over_in_five_seconds(seed: int) -> None:
    storm = Cluster(seed)
    for index in range(16):
        storm.add(index, knows=storm.ids())
    took = storm.run(10.0, until=lambda: len(storm.links) == 120 and storm.views_equal())
    assert took <= 5.0
    assert storm.dials <= 140  # one side of a pair waits for the other


@pytest.mark.parametrize("seed", range(5))
def test_sixteen_who_know_one_of_them_meet_all(seed: int) -> None:
    storm = Cluster(seed)
    first = storm.add(0).peer_id
    for index in range(1, 16):
        storm.add(index, knows=[first])
    assert storm.run(20.0, until=lambda: len(storm.links) == 120 and storm.views_equal()) <= 10.0
    assert storm.left_once()
    assert storm.events(PeerLeft) == []


def test_a_view_is_everybody_and_their_records() -> None:
    room = room_of(3)
    node = room.nodes[room.ids()[0]]
    assert node.members == tuple(sorted(room.ids()))
    other = node.record(room.ids()[1])
    assert other is not None
    assert other.name == "player 1"
    assert node.record(node.peer_id) is node.own_record
    assert node.record(PeerId("0" * 32)) is None
    topology = node.topology(room.now)
    assert (topology.mode, len(topology.links), topology.members) == ("full", 2, 3)
    assert all(link.srtt is not None and 0.03 < link.srtt < 0.07 for link in topology.links)


def test_what_a_player_says_about_itself_reaches_everybody() -> None:
    room = room_of(5)
    player = room.ids()[1]
    room.tell(player, lambda node: node.update(room.now, metadata=b"skill=1300"))
    room.run(0.2)
    for node in room.nodes.values():
        record = node.record(player)
        assert record is not None
        assert record.metadata == b"skill=1300"
    assert len(room.events(PeerDiscovered)) == 20


# ------------------------------------------------------------------------------------------------------------ crash


def crash_times(size: int, seeds: range, loss: float = 0.0) -> list[float]:
    times = []
    for seed in seeds:
        room = room_of(size, seed)
        room.loss = loss
        room.run(2.0 + room.rng.random())
        victim = room.rng.choice(room.ids())
        room.crash(victim)
        gone = room.run(12.0, until=lambda: all(victim not in node.members for node in room.nodes.values()))  # noqa: B023
        times.append(gone)
        assert room.left_once()
        assert {event.reason for _, _, event in room.events(PeerLeft)} == {"timeout"}
        assert {event.peer for _, _, event in room.events(PeerLeft)} == {victim}
    return sorted(times)


def test_a_crash_in_a_room_of_sixteen_is_known_to_all_within_two_to_three_seconds() -> None:
    times = crash_times(16, range(10))
    assert statistics.median(times) <= 2.0
    assert times[-1] <= 3.0


def test_and_with_ten_percent_loss() -> None:
    times = crash_times(16, range(5), loss=0.1)
    assert statistics.median(times) <= 2.0
    assert times[-1] <= 3.0


@pytest.mark.parametrize("size", [2, 3, 4])
def test_in_the_smallest_rooms_too(size: int) -> None:
    assert crash_times(size, range(10))[-1] <= 3.0


def test_ten_percent_loss_kills_nobody() -> None:
    room = room_of(16, seed=1)
    room.loss = 0.1
    room.run(120.0)
    assert room.events(PeerLeft) == []
    assert sum(node.stats.suspicions_raised for node in room.nodes.values()) <= 3


@pytest.mark.slow
def test_ten_percent_loss_kills_nobody_in_an_hour() -> None:
    room = room_of(16, seed=2)
    room.loss = 0.1
    room.run(3600.0)
    assert room.events(PeerLeft) == []
    suspicions = sum(node.stats.suspicions_raised for node in room.nodes.values())
    assert suspicions / 16 / 60 <= 0.1  # for each member and minute


def test_heavy_loss_is_suspected_and_refuted() -> None:
    room = room_of(8, seed=1)
    room.loss = 0.4
    room.run(120.0)
    assert room.events(PeerLeft) == []
    suspected, resumed = room.events(PeerSuspected), room.events(PeerResumed)
    assert len(suspected) > 0
    assert len(suspected) - len(resumed) <= 8


def test_a_stall_of_the_whole_process_costs_nobody_its_place() -> None:
    room = room_of(6, seed=3)
    sleeper = room.ids()[2]
    room.log.clear()
    room.stall(sleeper, 1.5)
    room.run(10.0)
    assert room.events(PeerLeft) == []
    assert room.events(PeerSuspected, sleeper) == []


def test_whom_the_others_missed_says_of_nobody_that_it_left() -> None:
    room = room_of(6, seed=3)
    sleeper = room.ids()[2]
    room.log.clear()
    room.stall(sleeper, 8.0)
    assert len(room.events(PeerLeft)) == 5  # for the others it is gone, and they hung up
    room.run(10.0)
    assert room.events(PeerLeft, sleeper) == []
    assert room.views_equal()
    assert all(room.linked(sleeper, peer) for peer in room.ids() if peer != sleeper)


# ---------------------------------------------------------------------------------------------------- goodbye, return


def test_goodbye_is_immediate() -> None:
    room = room_of(8, seed=4)
    before = room.now
    leaver = room.ids()[2]
    room.leave(leaver)
    room.run(20.0)
    left = room.events(PeerLeft)
    assert [(event.peer, event.reason) for _, _, event in left] == [(leaver, "left")] * 7  # type: ignore[attr-defined]
    assert max(when for when, _, _ in left) - before < 0.1


def test_a_link_that_is_gone_whyever_is_no_goodbye() -> None:
    room = room_of(4, seed=4)
    a, b = room.ids()[1:3]
    room.links.discard((min(a, b), max(a, b)))
    room.tell(a, lambda node: node.link_down(b, "closed", room.now))
    room.tell(b, lambda node: node.link_down(a, "closed", room.now))
    room.run(10.0)
    assert room.events(PeerLeft) == []
    assert room.events(PeerSuspected) == []
    assert room.linked(a, b)


@pytest.mark.parametrize("down_time", [0.1, 1.2, 10.0])
def test_a_restart_supersedes_the_old_life_at_once(down_time: float) -> None:
    room = room_of(6, seed=5)
    victim = room.ids()[3]
    room.crash(victim)
    room.run(down_time)
    room.log.clear()
    room.add(3, epoch=2, knows=[room.ids()[0]])
    room.run(6.0)
    assert room.views_equal()
    if down_time < 1.0:
        assert [event.reason for _, _, event in room.events(PeerLeft)] == ["superseded"] * 5
    found = [event for _, _, event in room.events(PeerDiscovered) if event.record.peer == victim]  # type: ignore[attr-defined]
    assert [event.record.epoch for event in found] == [found[0].record.epoch] * 5  # type: ignore[attr-defined]
    assert len(room.links) == 15


def test_a_clock_that_went_back_does_not_lock_a_player_out() -> None:
    room = room_of(4, seed=6)
    victim = room.ids()[2]
    room.crash(victim)
    room.run(5.0)
    room.add(2, epoch=0, knows=[room.ids()[0]])
    room.run(5.0)
    assert room.views_equal()
    assert room.nodes[victim].own_record.epoch > 1


def test_of_two_processes_with_one_key_the_newer_stays() -> None:
    room = room_of(3, seed=6)
    old = room.nodes[room.ids()[1]]
    room.run(30.0)
    newer = Cluster(9).add(1, epoch=7)
    old.learn([newer.own_record], room.now)
    room.drain(old.peer_id)
    assert [event.reason for _, _, event in room.events(Evicted, old.peer_id)] == ["superseded"]
    assert old.next_timeout() is None
    assert old.members == ()


def test_the_expelled_stay_out() -> None:
    room = room_of(4, seed=6)
    bad = room.ids()[3]
    for peer in room.ids()[:3]:
        room.tell(peer, lambda node: node.expel(bad, room.now))
    room.run(30.0)
    assert all(bad not in room.nodes[peer].members for peer in room.ids()[:3])
    left = [event for _, at, event in room.events(PeerLeft) if at != bad]
    assert [event.reason for event in left] == ["kicked"] * 3


# --------------------------------------------------------------------------------------------------------- messages


def payloads(events: list[tuple[float, PeerId, Event]]) -> list[bytes]:
    return [event.payload for _, _, event in events if isinstance(event, BroadcastReceived)]


def test_identical_broadcasts_reach_everybody_in_order() -> None:
    room = room_of(8, seed=5)
    for tick in range(50):
        for peer in room.ids()[:3]:
            room.say(peer, b"same" if tick % 2 else b"%d" % tick)
        room.run(0.016)
    room.run(1.0)
    for origin in room.ids()[:3]:
        expected = [b"same" if tick % 2 else b"%d" % tick for tick in range(50)]
        for peer in room.ids():
            got = [entry for entry in room.events(BroadcastReceived, peer) if entry[2].origin == origin]  # type: ignore[attr-defined]
            assert payloads(got) == ([] if peer == origin else expected)


def test_a_message_lost_with_a_link_is_repaired() -> None:
    room = room_of(6, seed=5)
    origin, unlucky = room.ids()[:2]
    room.blocked = lambda a, b: (a, b) == (origin, unlucky)
    room.say(origin, b"lost")
    room.run(0.5)
    room.mend()
    room.run(12.0)
    assert payloads(room.events(BroadcastReceived, unlucky)) == [b"lost"]


def test_a_newcomer_gets_what_is_sent_from_its_first_link_on_and_no_history() -> None:
    room = room_of(6, seed=5)
    origin = room.ids()[0]
    for number in range(5):
        room.say(origin, b"old %d" % number)
    room.run(1.0)
    newcomer = room.add(50, knows=[room.ids()[1]]).peer_id
    room.run(5.0, until=lambda: any(newcomer in link for link in room.links))
    room.say(origin, b"new")
    room.run(12.0)
    assert payloads(room.events(BroadcastReceived, newcomer)) == [b"new"]


def pair_without_a_way(seed: int = 1) -> tuple[Cluster, PeerId, PeerId]:
    x, y = CheapIdentity(2).peer_id, CheapIdentity(5).peer_id
    room = Cluster(seed)
    room.no_dial = lambda a, b: {a, b} == {x, y}
    first = room.add(0).peer_id
    for index in range(1, 8):
        room.add(index, knows=[first])
    room.run(20.0)
    return room, x, y


def test_a_pair_that_cannot_connect_is_served_by_its_neighbours() -> None:
    room, x, y = pair_without_a_way()
    assert room.views_equal()
    assert not room.linked(x, y)
    room.say(x, b"hi")
    room.tell(x, lambda node: node.send_signal(y, b"offer", room.now))
    room.run(0.2)
    assert payloads(room.events(BroadcastReceived)) == [b"hi"] * 7
    assert [(event.origin, event.blob) for _, _, event in room.events(SignalReceived)] == [(x, b"offer")]
    room.run(120.0)
    assert room.events(PeerSuspected) == []
    room.crash(x)
    assert room.run(10.0, until=lambda: x not in room.nodes[y].members) <= 3.0
    assert room.dials < 200  # it is tried again, more and more rarely


def test_a_one_way_link_costs_nobody_its_place() -> None:
    room = room_of(8, seed=3)
    a, b = room.ids()[1], room.ids()[4]
    room.blocked = lambda x, y: (x, y) == (a, b)
    room.run(120.0)
    assert room.events(PeerLeft) == []
    room.say(a, b"round the corner")
    room.run(8.0)
    assert payloads(room.events(BroadcastReceived)) == [b"round the corner"] * 7


# ------------------------------------------------------------------------------------------------------------- cuts


@pytest.mark.parametrize("seed", range(12))
def test_a_room_cut_in_halves_knows_it_and_heals(seed: int) -> None:
    room = room_of(8, seed)
    left = set(room.ids()[:4])
    room.cut(left)
    room.run(60.0)
    assert all(len(node.members) == 4 for node in room.nodes.values())
    suspected = [event for _, _, event in room.events(PartitionSuspected)]
    assert len(suspected) == 8
    assert all(len(event.lost) == 4 and len(event.remaining) == 3 and not event.majority for event in suspected)  # type: ignore[attr-defined]
    room.mend()
    assert room.run(60.0, until=lambda: room.views_equal() and len(room.links) == 28) <= 15.0
    room.run(5.0)
    assert room.left_once()
    assert len(room.events(PeerLeft)) == 32  # each pair once down, once up
    assert len(room.events(PartitionHealed)) >= 8


def look_out(room: Cluster) -> None:
    """The lookouts learn what a server lists that everybody reaches: the newest record of each."""
    for peer, node in room.nodes.items():
        if node.is_lookout():
            node.learn([other.own_record for name, other in room.nodes.items() if name != peer], room.now)
            room.drain(peer)


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_server_lists_from_beyond_a_cut_revives_nobody(whole: bool) -> None:
    """Members over there may begin another life while the cut lasts, as when somebody calls one gone by mistake."""
    room = room_of(6, seed=3)
    side = set(room.ids()[:3])
    room.cut(side)
    room.run(20.0)
    if not whole:  # nothing but its version is remembered
        for node in room.nodes.values():
            for member in node._core.membership.down():
                node._core.membership._shorten(member.record.peer)
    for peer, node in room.nodes.items():
        if peer not in side:
            room.tell(peer, lambda node: node._core.census.revive(node.own_record.epoch, room.now))
    room.run(5.0)
    room.log.clear()
    dials = room.dials
    look_out(room)
    room.run(10.0)
    assert room.dials > dials
    assert room.events(PeerDiscovered) == []
    room.mend()
    look_out(room)
    assert room.run(20.0, until=room.views_equal) <= 10.0


def test_who_looks_at_the_server_heals_a_cut_without_knocking() -> None:
    room = room_of(8, 3)
    left = set(room.ids()[:4])
    room.cut(left)
    room.run(30.0)
    for node in room.nodes.values():
        node._core.knocker.deadline = float("inf")
    room.mend()
    assert sum(node.is_lookout() for node in room.nodes.values()) == 4  # two of each side
    look_out(room)
    assert room.run(30.0, until=room.views_equal) <= 5.0
    dials = room.dials
    look_out(room)
    room.run(2.0)
    assert room.dials == dials  # of a room that has healed it is no news


def test_who_starts_again_is_believed_though_its_life_before_was_lost() -> None:
    """A server shows a new stay of a lost member to be believed at once, as any newcomer's."""
    room = room_of(4, 5)
    peer, other = room.ids()[0], room.ids()[1]
    room.crash(peer)
    room.run(20.0)
    core = room.nodes[other]._core
    lost = core.membership.record(peer)
    assert lost is not None
    assert not core.membership.is_alive(peer)
    assert core.membership.was_lost(lost)
    assert not core.membership.was_lost(attrs.evolve(lost, epoch=lost.epoch + 5, joined_at=lost.epoch + 5))


def test_repeated_cuts_do_not_wear_the_room_out() -> None:
    room = room_of(6, 4)
    sides = [set(room.ids()[:3]), set(room.ids()[1:4]), set(room.ids()[::2])]
    for side in sides * 2:
        room.cut(side)
        room.run(8.0)
        room.mend()
        assert room.run(40.0, until=room.views_equal) <= 20.0
    room.run(10.0)
    assert room.views_equal()
    assert room.left_once()


def test_whom_a_server_showed_and_who_is_gone_is_not_told_gone_again_by_a_neighbour() -> None:
    """A newcomer hears of those who were lost before its time; one of them it had known and lost itself."""
    room = room_of(3, 7)
    observer = room.ids()[0]
    core = room.nodes[observer]._core
    ghost = CheapIdentity(11)
    record = OwnState(epoch=1, joined_at=1).sign(core.room, ghost)
    room.tell(observer, lambda node: node.learn([record], room.now))
    core.membership.mark_down(record.peer, room.now)
    room.log.clear()
    core.census.learn_gone(record, 1.0, room.now, room.ids()[1])
    room.tell(observer, lambda node: node.handle_timeout(room.now))
    assert [event for _, _, event in room.events(PeerLeft, observer)] == []
