"""Every scenario loads, and runs at its smallest size; and what a scenario file may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from psyne_mesh.simulations.findings import verdict
from psyne_mesh.simulations.own import InvalidScenario, check, load_own
from psyne_mesh.simulations.run import run_once
from psyne_mesh.simulations.scenario import load

SCENARIOS = load()
NUMBERS = {str(number) for number in range(1, 34)} | {"12b"}
# What a room of a handful can be held to: no protocol is judged here, only that the scenario makes sense.
MUST_PASS_WHEN_TINY = ("join-storm", "crash-16", "one-way-pair", "signaling-dead", "duplicates", "wrong-clocks")


def test_all_numbered_scenarios_are_there():
    assert {scenario.number for scenario in SCENARIOS.values()} == NUMBERS


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_names_only_what_exists(name):
    scenario = SCENARIOS[name]
    assert scenario.targets.keys() > {"violations"}
    assert scenario.title
    check(scenario)
    for scale in ("ci", "nightly", "tiny"):
        scaled = scenario.scaled(scale)
        assert scaled.targets == scenario.targets
        assert scaled.nodes >= scenario.nodes_min


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_runs_and_measures_what_it_promises(name):
    scenario = SCENARIOS[name].scaled("tiny")
    result = run_once(scenario, None, 0)
    assert scenario.targets.keys() <= result.findings.figures.keys()
    assert result.events > 100
    assert len(result.trace_hash) == 32
    if name in MUST_PASS_WHEN_TINY:
        assert verdict(result.findings.figures, scenario.targets), result.findings.figures


@pytest.mark.parametrize("seed", [1, 6, 14])
def test_nobody_is_called_suspected_who_has_been_told_gone(seed):
    """A link that closes behind somebody who is gone reopened the case against him."""
    measured = run_once(SCENARIOS["seat-race"].scaled("ci"), None, seed).findings.figures
    assert measured["violations"] == 0


def test_inheritance_merges_tables_and_replaces_lists():
    child, parent = SCENARIOS["mass-crash-80"], SCENARIOS["mass-crash-50"]
    assert child.targets["delivered_percent"].bound == 99
    assert child.targets["whole_s_max"] == parent.targets["whole_s_max"]
    assert child.timeline[0]["share"] == 0.8
    assert "false_downs" not in SCENARIOS["loss-30"].targets


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('name = "x"\nnumber = "1"\ntitle = "t"\nnodes = 2', "duration_s"),
        (
            'name = "x"\nnumber = "1"\ntitle = "t"\nnodes = 2\nparams = { duration_s = 1 }\ntargets = { a = "3" }',
            "target",
        ),
        ('name = "x"\nnumber = "1"\ntitle = "t"\nnodes = 2\nparams = { duration_s = 1 }\nscales = { big = {} }', "big"),
    ],
)
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, text: str, complaint: str):
    path = tmp_path / "scenarios.toml"
    path.write_text("[[scenario]]\n" + text, encoding="utf-8")
    with pytest.raises(ValueError, match=complaint):
        load(path)


OWN = """
[[scenario]]
name = "mine"
number = "me"
title = "Mine"
nodes = 12
params = { duration_s = 60 }
timeline = [
  { at = 1, do = "isolate", count = 3 },
  { at = "duration_s", do = "mend" },
]
measures = ["merge"]
targets = { merged_s_max = "<= 20" }
"""


def test_a_file_of_ones_own_is_taken(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(OWN + '[[scenario]]\nname = "larger"\nlike = "mine"\nnodes = 20', encoding="utf-8")
    assert [scenario.nodes for scenario in load_own(path).values()] == [12, 20]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("isolate", "isolat", r"'mine': timeline step 1: no verb 'isolat'; near: isolate"),
        (
            "count = 3",
            'who = "them"',
            r"rehearsed with 8 nodes \(nodes_min\): timeline step 1 \(isolate\): there is no 'them'",
        ),
        ("at = 1,", "", r"timeline step 1: there is no 'at'"),
        ('do = "mend"', 'do = "stall"', r"timeline step 2 \(stall\): there is no 'for_s'"),
        ('"duration_s"', '"split_s"', r"timeline step 2: .*'split_s'"),
        ('["merge"]', '["merg"]', r"no measure 'merg'; near: merge"),
        ("merged_s_max", "merge_s_max", r"no figure .* \(targets\) 'merge_s_max'; near: merged_s_max"),
        ("<= 20", "< 20", r"'mine': target merged_s_max: a target is"),
        ("nodes = 12", "nodes = 4", r"nodes_min = 8"),
        ("nodes = 12", 'nodes = "many"', r"'mine': nodes cannot be 'many'"),
        ("measures", "measure", r"no field 'measure'; near: measures"),
        ("title", "hook", r"lacks title"),
        ('"mine"', '"crash-16"', r"'crash-16': that name is taken"),
        ("nodes = 12", 'like = "crash-16"', r"no earlier scenario in this file 'crash-16'"),
        ("params", "latency = { model = 'none' }\nparams", r"'mine': rehearsed .*'none'"),
        ("count = 3", "cout = 3", r"timeline step 1 \(isolate\): no field .* 'cout'; near: count"),
        ("count = 3", 'count = 3, ass = "faulty"', r"timeline step 1 \(isolate\): no field .* 'ass'; near: as"),
        ("at = 1,", "at = 61,", r"timeline step 1: at = 61, and the run lasts 60 s"),
        ("at = 1,", "at = -1,", r"timeline step 1: at = -1"),
        ("params", "net = { loss = 2.0 }\nparams", r"'mine': net.loss = 2.0: must lie in \[0, 1\]"),
        ("nodes = 12", "nodes = ", r"mine.toml: .*line 6"),
        ("[[scenario]]", "[scenario]", r"no \[\[scenario\]\] in it"),
    ],
)
def test_a_mistake_in_ones_own_file_is_told_with_its_place(tmp_path: Path, old: str, new: str, complaint: str):
    assert old in OWN
    path = tmp_path / "mine.toml"
    path.write_text(OWN.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InvalidScenario, match=complaint) as told:
        load_own(path)
    assert str(told.value).startswith(str(path))
    with pytest.raises(InvalidScenario, match=r"none\.toml"):
        load_own(tmp_path / "none.toml")
