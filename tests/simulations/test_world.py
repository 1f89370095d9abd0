"""Machines, links, cuts, dials and clocks of the world, seen through probes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from psyne_mesh.gossip.events import CloseLink, Dial
from psyne_mesh.mesh.link_table import CLOSED
from psyne_mesh.simulations.actor import BareRecord
from psyne_mesh.simulations.cuts import SIGNALING, Cut, place, regions, split
from tests.simulations.helpers import GRAIN, pair, probes, send


def dial(world, caller, callee) -> None:
    caller.actor.order(Dial(callee.peer, BareRecord(callee.peer)))
    world.drain(caller)


# ----------------------------------------------------------------------------------------------------------------- cuts


def test_a_cut_drops_unreliable_frames_and_holds_reliable_ones_until_it_heals():
    world, a, b = pair()
    cut = split([[0], [1]])
    world.links.cut(cut)
    send(world, a, b, b"lost")
    send(world, a, b, b"first", reliable=True)
    send(world, a, b, b"second", reliable=True)
    world.run(5.0)
    assert b.actor.frames() == []
    world.links.mend(cut)
    world.run(30.0)
    assert b.actor.frames() == [b"first", b"second"]


def test_a_one_way_cut_silences_one_direction_only():
    world, a, b = pair()
    world.links.cut(split([[0], [1]], one_way=True))
    send(world, a, b, b"unheard")
    send(world, b, a, b"heard")
    world.run(2.0)
    assert b.actor.frames() == []
    assert a.actor.frames() == [b"heard"]


def test_overlapping_cuts_hold_until_the_last_is_gone():
    world, a, b = pair()
    first, second = split([[0], [1]]), split([[0], [1]])
    world.links.cut(first)
    world.links.cut(second)
    world.links.mend(first)
    send(world, a, b, b"still cut")
    world.run(1.0)
    world.links.mend(second)
    send(world, a, b, b"whole")
    world.run(2.0)
    assert b.actor.frames() == [b"whole"]


def test_a_cut_link_dies_when_consent_runs_out_and_a_shorter_cut_is_survived():
    world, a, b = pair()
    short = split([[0], [1]])
    world.links.cut(short)
    world.run(20.0)
    world.links.mend(short)
    world.run(60.0)
    assert a.actor.times("down") == []
    world.links.cut(split([[0], [1]]))
    world.run(100.0)
    assert a.actor.times("down") == [pytest.approx(90.0, abs=GRAIN)]
    assert b.actor.times("down") == [pytest.approx(90.0, abs=GRAIN)]
    assert not a.lanes
    assert not b.lanes


def test_regions_join_over_third_parties():
    pair_cut = Cut({0: 0, 1: 1})
    numbers = regions([pair_cut])
    assert numbers[place(0, [pair_cut])] != numbers[place(1, [pair_cut])]
    chain = Cut({0: 0, 1: 1, 2: 2}, one_way=(0, 1))
    numbers = regions([chain])  # 0 and 1 do not hear each other, but both reach 2
    assert len({numbers[place(index, [chain])] for index in range(3)}) == 1


def test_signaling_can_stand_on_one_side_of_a_cut():
    world, hosts = probes(4)
    world.links.cut(split([[0, 1], [2, 3]], signaling=0))
    assert [host.sees_signaling for host in hosts] == [True, True, False, False]
    world.links.mend(world.links.cuts[0])
    assert all(host.sees_signaling for host in hosts)
    assert SIGNALING not in split([[0], [1]]).sides


# ------------------------------------------------------------------------------------------------------------- machines


def test_a_silent_crash_is_noticed_by_consent_only():
    world, a, b = pair()
    world.crash(b)
    world.run(29.0)
    assert a.actor.times("down") == []
    world.run(31.0)
    assert a.actor.times("down") == [pytest.approx(30.5, abs=GRAIN)]


def test_a_crash_with_notice_is_known_after_one_latency():
    world, a, b = pair(instant_notice=True)
    world.crash(b)
    world.run(2.0)
    assert a.actor.log[-1][1:] == (pytest.approx(0.525, abs=GRAIN), b.peer, CLOSED)


def test_frames_to_the_dead_and_of_earlier_lives_go_nowhere():
    world, a, b = pair()
    world.crash(b)
    send(world, a, b, b"to the dead")
    world.run(1.0)
    world.start(b)
    send(world, a, b, b"over the old link")
    world.run(2.0)
    assert b.actor.frames() == []
    assert b.generation == 2
    assert world.frames_lost == 2


def test_a_new_link_replaces_the_old_without_a_link_down():
    world, a, b = pair()
    world.crash(b)
    world.start(b)
    world.links.connect(b, a)
    world.run(60.0)
    assert len(a.actor.times("up")) == 2
    assert a.actor.times("down") == []
    send(world, a, b, b"new")
    world.run(61.0)
    assert b.actor.frames() == [b"new"]


def test_a_goodbye_still_travels_and_then_the_link_is_closed():
    world, a, b = pair()
    send(world, b, a, b"bye", reliable=True)
    world.leave(b)
    world.run(2.0)
    assert a.actor.frames() == [b"bye"]
    assert a.actor.log[-1] == ("down", pytest.approx(0.525, abs=GRAIN), b.peer, CLOSED)


def test_a_hang_up_is_known_to_the_other_side_after_one_latency_and_for_one_reason():
    world, a, b = pair()
    a.actor.order(CloseLink(b.peer, "surplus"))
    world.drain(a)
    world.run(2.0)
    assert a.actor.log[-1] == ("down", pytest.approx(0.5, abs=GRAIN), b.peer, CLOSED)
    assert b.actor.log[-1] == ("down", pytest.approx(0.525, abs=GRAIN), a.peer, CLOSED)


def test_a_hang_up_does_not_cross_a_cut():
    world, a, b = pair()
    cut = split([[0], [1]])
    world.links.cut(cut)
    a.actor.order(CloseLink(b.peer, "surplus"))
    world.drain(a)
    world.run(10.0)
    world.links.mend(cut)
    world.run(20.0)
    assert b.actor.times("down") == []


def test_a_silent_peers_link_sleeps_and_wakes_by_itself_when_the_path_carries_again():
    world, a, b = pair()
    cut = split([[0], [1]])
    world.links.cut(cut)
    for one, other in ((a, b), (b, a)):
        one.actor.order(CloseLink(other.peer, "timeout"))
        world.drain(one)
    world.run(20.0)
    assert not a.lanes
    assert a.table.links[b.peer].is_asleep
    a.actor.order(Dial(b.peer, BareRecord(b.peer)))
    world.drain(a)
    assert a.actor.log[-1][2:] == (b.peer, "asleep")
    world.links.mend(cut)
    world.run(22.0)
    for one in (a, b):
        assert len(one.actor.times("up")) == 2
        assert one.actor.times("down") == []
        assert not one.asleep
    assert world.dialer.attempts == 0


def test_what_comes_over_a_sleeping_link_wakes_it():
    world, a, b = pair()
    world.links.cut(split([[0], [1]], one_way=True))
    a.actor.order(CloseLink(b.peer, "timeout"))
    world.drain(a)
    world.run(5.0)
    send(world, b, a, b"here")
    world.run(6.0)
    assert [entry[0] for entry in a.actor.log[-2:]] == ["up", "got"]


def test_a_paused_process_gets_what_queued_up_and_knows_how_long_it_slept():
    world, a, b = pair()
    b.actor.set_timer(1.0, "due")
    world.drain(b)
    world.pause(b, 4.0)
    for number in range(5):
        send(world, a, b, bytes([number]))
    world.run(4.0)
    assert b.actor.frames() == []
    world.run(10.0)
    assert b.actor.frames() == [bytes([number]) for number in range(5)]
    assert b.actor.lag == pytest.approx(4.0, abs=GRAIN)
    assert b.actor.times("timer") == [pytest.approx(4.5, abs=GRAIN)]
    assert b.inbox is None


def test_a_paused_process_learns_of_a_lost_link_when_it_goes_on_and_after_what_was_sent_before():
    world, a, b = pair()
    world.pause(b, 4.0)
    send(world, a, b, b"bye", reliable=True)
    a.actor.order(CloseLink(b.peer, "surplus"))
    world.drain(a)
    world.run(4.0)
    assert b.actor.log[1:] == [("up", 0.5, a.peer)]
    world.run(10.0)
    goes_on = pytest.approx(4.5, abs=GRAIN)
    assert b.actor.log[2:] == [("got", goes_on, b"bye"), ("down", goes_on, a.peer, CLOSED)]


def test_a_slow_process_works_one_frame_after_the_other():
    world, a, b = pair()
    world.slow(b, 0.1)
    for number in range(5):
        send(world, a, b, bytes([number]))
    world.run(10.0)
    times = b.actor.times("got")
    assert [later - earlier for earlier, later in pairwise(times)] == [pytest.approx(0.1, abs=GRAIN)] * 4


def test_a_wrong_clock_shifts_what_the_node_sees_and_nothing_else():
    world, hosts = probes(1)
    host = hosts[0]
    world.crash(host)
    world.set_clock(host, offset=100.0, rate=2.0)
    world.start(host)
    assert host.actor.times("start") == [101.0]
    host.actor.set_timer(103.0, "due")
    world.drain(host)
    world.run(1.49)
    assert host.actor.times("timer") == []
    world.run(1.51)
    assert host.actor.times("timer") == [103.0]


# ---------------------------------------------------------------------------------------------------------------- dials


def test_a_dial_costs_its_time_and_links_both_sides():
    world, hosts = probes(2)
    dial(world, *hosts)
    world.run(5.0)
    (up,) = hosts[0].actor.times("up")
    assert 0.8 <= up <= 2.0
    assert hosts[1].actor.times("up") == [up]


def test_both_dial_and_one_link_comes():
    world, hosts = probes(2)
    dial(world, hosts[0], hosts[1])
    dial(world, hosts[1], hosts[0])
    world.run(5.0)
    assert [len(host.actor.times("up")) for host in hosts] == [1, 1]
    assert world.dialer.attempts == 2


@pytest.mark.parametrize("trouble", ["crash", "cut", "nat", "pair", "chance"])
def test_a_dial_that_cannot_succeed_fails_after_its_timeout(trouble):
    world, hosts = probes(2)
    a, b = hosts
    match trouble:
        case "crash":
            world.crash(b)
        case "cut":
            world.links.cut(split([[0], [1]]))
        case "nat":
            a.nat = b.nat = "symmetric"
        case "pair":
            world.dialer.incompatible[0, 1] = None
        case "chance":
            world.net.dial_failure = 1.0
    dial(world, a, b)
    world.run(20.0)
    # Nobody answers for the dead; the others answer, and then ICE finds no path.
    assert a.actor.times("failed") == [pytest.approx(4.5 if trouble == "crash" else 15.5)]
    assert a.actor.times("up") == []


def test_whom_the_server_does_not_know_the_mesh_is_asked_for():
    world, hosts = probes(2)
    world.crash(hosts[1])
    world.run(40.0)  # the server hears nothing of it, and takes it off its list
    dial(world, *hosts)
    world.run(45.0)
    assert world.dialer.over_mesh == 1
    assert hosts[0].actor.log[-1][1:] == (pytest.approx(44.0, abs=GRAIN), hosts[1].peer, "no answer")


@pytest.mark.parametrize("first", [0, 1])
def test_who_restarts_while_it_is_dialled_gets_one_link_whoever_dials(first):
    world, hosts = probes(2)
    a, b = hosts[first], hosts[1 - first]
    dial(world, a, b)
    world.crash(b)
    world.start(b)
    world.run(1.0)
    dial(world, b, a)
    world.run(5.0)
    assert [len(host.actor.times("up")) for host in hosts] == [1, 1]
    assert a.table.links[b.peer].session == b.table.links[a.peer].session


# ------------------------------------------------------------------------------------------------------------- the clock


def test_things_of_the_same_moment_happen_in_the_order_in_which_they_were_planned():
    world, _ = probes(1)
    seen: list[int] = []
    for number in range(20):
        world.at(3.0, seen.append, number)
    world.at(2.0, seen.append, -1)
    world.run(3.0)
    assert seen == [-1, *range(20)]
    assert world.now == 3.0


def test_a_timer_that_moves_later_fires_once():
    world, hosts = probes(1)
    host = hosts[0]
    host.actor.set_timer(2.0, "early")
    world.drain(host)
    host.actor._timers.clear()
    host.actor.set_timer(4.0, "late")
    world.drain(host)
    world.run(10.0)
    assert host.actor.times("timer") == [4.0]


def test_a_node_whose_timer_never_moves_is_found_out():
    world, hosts = probes(1)
    host = hosts[0]
    host.actor.timer_fired = lambda what, now: host.actor.set_timer(now, what)
    host.actor.handle_timeout = lambda now: None
    host.actor.set_timer(1.0, "stuck")
    world.drain(host)
    with pytest.raises(RuntimeError, match="time stands still"):
        world.run(2.0)
