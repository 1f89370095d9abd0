"""Each verb does to the room what it says."""

from __future__ import annotations

import attrs
import pytest

from psyne_mesh.simulations import faults
from psyne_mesh.simulations.run import Run
from psyne_mesh.simulations.scenario import Scenario, load
from tests.simulations.helpers import GRAIN

CALM = Scenario(name="calm", number="0", title="", nodes=8, params={"duration_s": 10.0, "wait_s": 2.0})


def played(
    *timeline, nodes: int = 8, duration_s: float = 10.0, seed: int = 1, actor: str = "flooding", **fields
) -> Run:
    scenario = attrs.evolve(CALM, timeline=timeline, params={**CALM.params, "duration_s": duration_s}, **fields)
    run = Run(scenario, nodes, seed, {"name": "", "actor": actor})
    run.play()
    return run


def test_every_verb_is_documented_and_used_or_tested():
    used = {step["do"] for scenario in load().values() for step in scenario.timeline}
    tested_here = {"pause", "slow", "start", "isolate", "one_way", "net", "nat", "incompatible", "wander"}
    assert used | tested_here == set(faults.VERBS)
    assert all(act.__doc__ or name in ("leave",) for name, act in faults.VERBS.items())


def test_crash_start_and_restart():
    run = played(
        {"at": 1, "do": "crash", "count": 2, "as": "faulty"}, {"at": "wait_s + 1", "do": "start", "who": "faulty"}
    )
    faulty = run.labels["faulty"]
    assert [host.generation for host in faulty] == [2, 2]
    assert all(run.accounting.lives[host.index][0].how == "crash" for host in faulty)
    assert run.accounting.lives[faulty[0].index][1].up_at == pytest.approx(run.t0 + 3, abs=GRAIN)
    run = played({"at": 1, "do": "restart", "who": "all", "over_s": 4, "after_s": 0.5})
    assert [host.generation for host in run.world.hosts] == [2] * 8


def test_leave_join_and_churn():
    run = played({"at": 1, "do": "leave", "who": [3]}, {"at": 2, "do": "join", "count": 3, "as": "newcomers"})
    assert not run.world.hosts[3].up
    assert [host.index for host in run.labels["newcomers"]] == [8, 9, 10]
    assert all(host.lanes for host in run.labels["newcomers"])
    run = played({"at": 0, "do": "churn", "per_s": 0.1, "for_s": 10}, duration_s=12)
    assert 3 <= len(run.world.hosts) - 8 <= 16  # about 8 newcomers
    assert len(run.up()) == pytest.approx(8, abs=1)


def test_who_dies_with_its_neighbours_leaves_none_of_them():
    run = played({"at": 1, "do": "crash_around", "who": [3], "as": "hermit"}, nodes=24, duration_s=1.5)
    assert not run.world.hosts[3].up
    assert 4 <= sum(not host.up for host in run.world.hosts) < 24
    assert all(lane.void for host in run.world.hosts for lane in host.lanes.values() if not lane.dst.up)


def test_a_newcomer_can_die_at_once():
    run = played({"at": 1, "do": "join", "count": 2, "dies_after_s": 0.25})
    assert [host.up for host in run.world.hosts[8:]] == [False, False]
    assert all(life.linked_at == float("inf") for host in (8, 9) for life in run.accounting.lives[host])


def test_a_newcomer_by_hand_needs_no_signaling():
    run = played(
        {"at": 0, "do": "signaling", "up": False},
        {"at": 1, "do": "join", "count": 1, "by_hand": True, "as": "newcomers"},
    )
    (newcomer,) = run.labels["newcomers"]
    assert not newcomer.registered
    assert newcomer.lanes


def test_pause_and_stall_are_booked():
    run = played({"at": 1, "do": "pause", "who": [0], "for_s": 3})
    assert run.accounting.pauses == [(0, pytest.approx(run.t0 + 1, abs=GRAIN), pytest.approx(run.t0 + 4, abs=GRAIN))]
    run = played({"at": 0, "do": "stall", "who": [0, 1], "for_s": 9, "pause_s": 1, "run_s": 1})
    assert 6 <= len(run.accounting.pauses) <= 10
    assert not any(host.paused for host in run.world.hosts)


def test_slow_and_bandwidth_and_loss_change_hosts():
    run = played(
        {"at": 0, "do": "slow", "who": [0], "ms": 5},
        {"at": 0, "do": "bandwidth", "who": [1], "down": 1000, "up": 2000},
        {"at": 0, "do": "loss", "who": [2], "in": 0.8, "out": 0.1},
    )
    hosts = run.world.hosts
    assert hosts[0].processing_s == 0.005
    assert (hosts[1].downlink, hosts[1].uplink) == (1000, 2000)
    lane = next(lane for lane in hosts[3].lanes.values() if lane.dst is hosts[2])
    assert lane.loss == pytest.approx(0.8, abs=GRAIN)


def test_splits_cut_the_given_shares_and_mend_heals_them():
    run = played({"at": 1, "do": "split", "parts": [0.25, 0.75], "as": "x"})
    assert [len(run.labels[f"x.{side}"]) for side in (0, 1)] == [2, 6]
    left, right = run.labels["x.0"][0].index, run.labels["x.1"][0].index
    assert not run.world.links.reachable(left, right)
    assert not run.accounting.connected(left, right, run.t0 + 2, run.t0 + 3)
    assert run.accounting.connected(left, right, run.t0, run.t0 + 0.5)
    run = played({"at": 1, "do": "split", "parts": [0.5, 0.5]}, {"at": 2, "do": "mend"})
    assert run.world.links.cuts == []
    assert run.mended_at == pytest.approx(run.t0 + 2, abs=GRAIN)


def test_a_cut_is_bridged_over_the_server_while_both_sides_reach_it():
    cut = {"at": 1, "do": "split", "parts": [0.5, 0.5]}
    for step, gone in (({}, 0), ({"signaling": "none"}, 32), ({"signaling": 0}, 32)):
        run = played({**cut, **step}, duration_s=15, actor="node")
        assert sum(fact.kind == "left" for fact in run.accounting.facts) == gone
    run = played(cut, {"at": 4, "do": "signaling", "up": False}, duration_s=15, actor="node")
    assert sum(fact.kind == "left" for fact in run.accounting.facts) == 32
    run = played(cut, duration_s=15, actor="node", net={"bridged": False})
    assert sum(fact.kind == "left" for fact in run.accounting.facts) == 32


def test_what_is_bridged_is_no_cut_to_the_judges():
    run = played({"at": 1, "do": "split", "parts": [0.5, 0.5]}, duration_s=5, actor="node")
    left, right = run.labels["split.0"][0].index, run.labels["split.1"][0].index
    assert run.accounting.connected(left, right, run.t0 + 2, run.t0 + 4)
    run = played({"at": 1, "do": "split", "parts": [0.5, 0.5], "signaling": 1}, duration_s=5, actor="node")
    left, right = run.labels["split.0"][0].index, run.labels["split.1"][0].index
    assert not run.accounting.connected(left, right, run.t0 + 2, run.t0 + 4)


def test_overlapping_splits_are_mended_by_name():
    run = played(
        {"at": 1, "do": "split", "parts": [0.5, 0.5], "as": "a"},
        {"at": 2, "do": "split", "parts": [0.3, 0.7], "as": "b"},
        {"at": 3, "do": "mend", "what": "a"},
    )
    assert len(run.world.links.cuts) == 1


def test_newcomers_join_on_their_side_of_a_cut():
    run = played(
        {"at": 1, "do": "split", "parts": [0.5, 0.5], "as": "cut"},
        {"at": 2, "do": "join_sides", "parts": [2, 1], "as": "cut"},
    )
    left, right = run.world.hosts[8], run.world.hosts[10]
    assert run.world.links.reachable(left.index, run.labels["cut.0"][0].index)
    assert not run.world.links.reachable(left.index, right.index)


def test_one_way_verbs_cut_in_one_direction():
    run = played({"at": 1, "do": "one_way", "who": [0], "direction": "in"})
    (cut,) = run.world.links.cuts
    assert cut.blocks(1, 0)
    assert not cut.blocks(0, 1)
    run = played({"at": 1, "do": "one_way", "who": [0], "direction": "out"})
    assert run.world.links.cuts[0].blocks(0, 1)
    assert not run.world.links.cuts[0].blocks(1, 0)
    run = played({"at": 1, "do": "one_way_pair", "who": [2, 5]})
    (cut,) = run.world.links.cuts
    assert [cut.blocks(*ends) for ends in ((2, 5), (5, 2), (2, 4))] == [True, False, False]


def test_isolate_flap_and_flip_flop_come_and_go():
    run = played({"at": 1, "do": "isolate", "who": [0, 1]})
    assert not run.world.links.reachable(0, 1)
    assert not run.world.links.reachable(0, 5)
    assert run.world.links.reachable(4, 5)
    for step in ({"do": "flap", "who": [0]}, {"do": "flip_flop", "who": [0], "direction": "in"}):
        run = played({"at": 0, "on_s": 1, "off_s": 1, "for_s": 8, **step})
        assert len(run.accounting.cuts_since) - 1 == 8
        assert run.world.links.cuts == []


def test_net_changes_every_link_and_refuses_unknown_fields():
    run = played({"at": 1, "do": "net", "loss": 0.25, "dial_s": [1, 2]})
    assert run.world.net.dial_s == (1, 2)
    assert all(lane.loss == 0.25 for host in run.world.hosts for lane in host.lanes.values())
    with pytest.raises(ValueError, match="no field 'lose'"):
        played({"at": 1, "do": "net", "lose": 0.25})


def test_nat_and_incompatible_pairs_keep_links_from_forming():
    run = played({"at": 0, "do": "incompatible", "who": [0, 1, 2], "before_boot": True})
    assert run.world.hosts[1].peer not in run.world.hosts[0].lanes
    assert run.world.hosts[3].peer in run.world.hosts[0].lanes
    run = played({"at": 0, "do": "nat", "who": [0, 1], "kind": "symmetric", "before_boot": True})
    assert run.world.hosts[1].peer not in run.world.hosts[0].lanes


def test_clocks_are_set_before_the_start():
    run = played({"at": 0, "do": "clock", "before_boot": True, "spread": True, "offset_s": 600, "drift_ppm": 500})
    offsets = [host.clock_offset for host in run.world.hosts]
    assert len(set(offsets)) == 8
    assert all(abs(offset) <= 600 for offset in offsets)
    assert all(abs(host.clock_rate - 1) <= 5e-4 for host in run.world.hosts)


def test_broadcast_talk_and_repeat_send():
    run = played({"at": 1, "do": "broadcast", "who": [0, 1], "messages": 3, "every_s": 1, "size": 64})
    assert [sent.origin for sent in run.accounting.sent].count(0) == 3
    assert all(len(sent.delivered) == 7 for sent in run.accounting.sent)
    run = played({"at": 1, "do": "talk", "for_s": 5, "every_s": 0.5})
    assert len(run.accounting.sent) == 10
    run = played({"at": 1, "do": "repeat", "who": [0], "messages": 4, "every_s": 0.5})
    assert len(run.accounting.unmarked) == 4 * 7


def test_notes_and_marks():
    run = played({"at": 2, "do": "note", "as": "measure"}, {"at": 1, "do": "mark", "count": [2, 3], "as": "some"})
    assert run.notes["measure"].at == pytest.approx(run.t0 + 2, abs=GRAIN)
    assert len(run.labels["some"]) == 3  # the second of the list, for seed 1
    assert run.spared.keys() == {host.index for host in run.labels["some"]}


def test_a_cut_that_wanders_cuts_off_another_part_each_time_and_ends():
    step = {"at": 1, "do": "wander", "share": 0.25, "every_s": 2, "for_s": 6}
    for seconds, away in ((2, [0, 1]), (4, [2, 3]), (6, [4, 5])):
        (cut,) = played(step, duration_s=seconds).world.links.cuts
        assert [index for index, side in cut.sides.items() if side == 0] == away
        assert not cut.blocks(0, 1)
    run = played(step, duration_s=8)
    assert run.world.links.cuts == []
    assert run.mended_at == pytest.approx(run.t0 + 7, abs=GRAIN)
