"""Targets, ratios, and many seeds in one figure."""

from __future__ import annotations

import math

import pytest

from psyne_mesh.simulations.findings import Findings, evaluate, pool, rounded, verdict
from psyne_mesh.simulations.scenario import Target


def findings(detection: list[float], downs: float) -> Findings:
    found = Findings()
    found.add_samples("detection_s", detection)
    found.add("false_downs", downs)
    return found


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [("<= 3", 3.0, True), ("<= 3", 3.1, False), (">= 99.9", 99.9, True), ("== 0", 0.0, True), ("== 0", 1.0, False)],
)
def test_a_target_is_met_or_not(text, value, met):
    assert Target.parse(text).met(value) is met
    assert str(Target.parse(text)) == text


def test_what_was_not_measured_meets_no_target():
    for text in ("<= 1e9", ">= -1e9", "== 0"):
        assert not Target.parse(text).met(math.nan)
    assert not verdict({}, {"delivered_percent": Target.parse(">= 0")})


def test_a_target_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="a target is"):
        Target.parse("about 3")


def test_percentiles_are_taken_over_all_seeds_together():
    runs = [findings([1.0] * 99, 0), findings([9.0], 0)]
    figures = pool(runs, {})
    assert figures["detection_s_p99"] == 1.0
    assert figures["detection_s_max"] == 9.0


def test_a_judged_figure_is_that_of_the_worst_seed_and_others_are_averaged():
    runs = [findings([1.0], downs) for downs in (0, 0, 3)]
    assert pool(runs, {"false_downs": Target.parse("== 0")})["false_downs"] == 3
    assert pool(runs, {})["false_downs"] == 1


def test_ratios_are_taken_over_sums():
    runs = []
    for ours, theirs in ((0, 10), (1, 90)):
        run = findings([1.0], ours)
        run.add_arm("swim", findings([4.0], theirs))
        run.finish(
            {
                "fp_percent": "100 * false_downs / swim.false_downs",
                "latency": "detection_s_p50 / swim.detection_s_p50",
            }
        )
        runs.append(run)
    assert runs[0].figures["fp_percent"] == 0
    figures = pool(runs, {})
    assert figures["fp_percent"] == pytest.approx(1.0)
    assert figures["fp_percent_least"] == 0
    assert figures["fp_percent_most"] == pytest.approx(100 / 90)
    assert figures["latency"] == pytest.approx(0.25)


def test_nothing_over_nothing_was_not_measured_and_meets_no_target():
    nothing = evaluate("false_downs / false_downs", findings([], 0))
    assert math.isnan(nothing)
    assert not Target.parse("<= 1.5").met(nothing)
    run = findings([], 2)
    run.add_arm("swim", findings([], 0))
    assert evaluate("false_downs / swim.false_downs", run) == math.inf


def test_a_formula_that_is_none_is_refused():
    with pytest.raises(ValueError, match="a ratio is"):
        evaluate("a + b", Findings())
    with pytest.raises(ValueError, match="no figure 'b'"):
        evaluate("a / b", Findings(sums={"a": 1.0}))


def test_json_knows_no_infinity():
    assert rounded({"a": math.inf, "b": math.nan, "c": 1 / 3}) == {"a": None, "b": None, "c": 0.333333}
