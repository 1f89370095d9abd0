"""Every scenario loads, and runs at its smallest size; and what a scenario file may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations import faults, figures, hooks
from simulations.findings import verdict
from simulations.run import run_once
from simulations.scenario import load

SCENARIOS = load()
NUMBERS = {str(number) for number in range(1, 30)} | {"12b"}
# What a room of a handful can be held to: no protocol is judged here, only that the scenario makes sense.
MUST_PASS_WHEN_TINY = ("join-storm", "crash-16", "one-way-pair", "signaling-dead", "duplicates", "wrong-clocks")


def test_all_numbered_scenarios_are_there():
    assert {scenario.number for scenario in SCENARIOS.values()} == NUMBERS


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_names_only_what_exists(name):
    scenario = SCENARIOS[name]
    assert set(scenario.measures) <= set(figures.MEASURES)
    assert {step["do"] for step in scenario.timeline} <= set(faults.VERBS)
    assert not scenario.hook or scenario.hook in hooks.BEFORE | hooks.AFTER | hooks.COMPARE
    assert scenario.targets.keys() > {"violations"}
    assert scenario.title
    for step in scenario.timeline:
        scenario.value(step["at"])
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
