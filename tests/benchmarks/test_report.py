"""What the benchmarks make of their samples: medians, ratios, targets, the JSON object, the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report, runner, targets
from benchmarks.process import PeerFailed
from benchmarks.samples import Samples
from benchmarks.stacks.registry import STACKS, Stack
from benchmarks.work import TINY, Figures, Scale, Work, less, more
from benchmarks.works import WORKS
from benchmarks.works.growth import worst_step

MACHINE = {"time": "2026-01-01T00:00:00+00:00", "system": "", "processor": "", "cores": 2, "python": "3.11"}


def samples(**stacks: list[float]) -> Samples:
    """One figure of `rtt` for each stack, repetition by repetition."""
    collected = Samples()
    for repetition in range(max(map(len, stacks.values()))):
        for stack, values in stacks.items():
            collected.add("rtt", stack, {"p50_us": values[repetition]})
    return collected


def test_ratios_are_taken_pair_by_pair() -> None:
    # The machine is ten times slower in the second repetition: the ratio does not notice, a ratio of medians might.
    collected = samples(ours=[10, 100, 30], aiortc=[20, 200, 20])
    assert collected.ratio("rtt", "p50_us", "ours", "aiortc") == 0.5
    assert collected.median("rtt", "ours", "p50_us") == 30
    assert collected.spread("rtt", "ours", "p50_us") == (10, 100)


def test_a_failed_repetition_takes_its_pair_along() -> None:
    collected = Samples()
    collected.add("rtt", "ours", {"p50_us": 10})
    collected.add_failure("rtt", "aiortc", "crashed")
    collected.add("rtt", "ours", {"p50_us": 30})
    collected.add("rtt", "aiortc", {"p50_us": 60})
    assert collected.ratio("rtt", "p50_us", "ours", "aiortc") == 0.5
    assert collected.ratio("rtt", "p50_us", "ours", "wrtc") is None
    assert report.as_object(collected, WORKS, [])["failures"] == [
        {"work": "rtt", "stack": "aiortc", "reason": "crashed"}
    ]


def test_the_object_for_programs() -> None:
    result = report.as_object(samples(ours=[10, 20], aiortc=[40, 40], wrtc=[5, 10]), WORKS, [])["results"]["rtt"]
    assert (result["ours"], result["aiortc"], result["wrtc"]) == (15, 40, 7.5)
    assert (result["ratio"], result["ratio_wrtc"]) == (0.375, 2.0)
    assert (result["figure"], result["unit"], result["better"]) == ("p50_us", "us", "less")
    assert result["spread"]["ours"] == (10, 20)
    assert result["figures"]["p50_us"]["ours"] == 15
    assert json.loads(json.dumps(result))["ratio"] == 0.375


def test_without_data_channels_of_ours_the_rooms_stand_for_ours() -> None:
    collected = Samples()
    collected.add("join", "rooms", {"join_ms": 30.0, "cold_ms": 500.0})
    result = report.as_object(collected, WORKS, [])["results"]["join"]
    assert result["ours"] == 30
    assert result["ratio"] is None


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ({"most": 15}, True),
        ({"most": 14.9}, False),
        ({"least": 15}, True),
        ({"below": 15}, False),
        ({"most": 0.5, "of": "aiortc"}, True),
        ({"below": 1.0, "of": "wrtc"}, False),
        ({"most": 1.0, "of": "node-datachannel"}, None),
        ({"most": 3.0, "of": "floor.p50_us"}, True),
        ({"most": 2.9, "of": "floor.p50_us"}, False),
    ],
)
def test_targets(condition: dict[str, Any], met: bool | None) -> None:
    collected = samples(ours=[10, 20], aiortc=[40, 40], wrtc=[5, 10])
    collected.add("floor", "udp", {"p50_us": 5.0})
    (verdict,) = targets.judge(collected, [{"work": "rtt", "figure": "p50_us", "must": [condition]}])
    assert verdict.met is met


def test_every_target_names_a_figure_that_its_work_gives() -> None:
    for target in targets.load():
        work = WORKS[target["work"]]
        assert target["figure"] in work.figures
        assert target.get("stack", "ours") in work.stacks
        for condition in target.get("must", []) + target.get("aim", []):
            other = condition.get("of")
            if other is not None and "." in other:
                name, figure = other.split(".")
                assert figure in WORKS[name].figures
            elif other is not None:
                assert other in work.stacks


def test_works_are_described_and_their_stacks_exist() -> None:
    for name, work in WORKS.items():
        assert name == work.name
        assert set(work.stacks) <= set(STACKS)
        assert len(work.about) > 80
        assert all(figure.unit and figure.better in ("less", "more") for figure in work.figures.values())


def test_worst_step() -> None:
    figures = {"throughput_cpu_1": 2.0, "throughput_cpu_2": 3.0, "rtt_us_1": 100.0, "rtt_us_3": 120.0}
    assert worst_step(figures, TINY) == 1.5


# ------------------------------------------------------------------------------------------------------------ measuring


async def test_each_repetition_takes_every_stack_in_the_same_order() -> None:
    seen: list[str] = []

    async def measure(stack: Stack, scale: Scale) -> Figures:
        seen.append(stack.name)
        if stack.name == "wrtc":
            raise PeerFailed("no libwebrtc today")
        return {"rate": 1.0}

    work = Work("made up", {"rate": more("/s"), "time": less("s")}, ("ours", "aiortc", "wrtc"), measure, "")
    news: list[str] = []
    collected = await runner.run([(work, [STACKS[name] for name in work.stacks])], TINY, 2, news.append, lambda: None)
    assert seen == ["ours", "aiortc", "wrtc"] * 2
    assert collected.values("made up", "ours", "rate") == [1.0, 1.0]
    assert collected.failures == {("made up", "wrtc"): ["no libwebrtc today"] * 2}
    assert any("no libwebrtc today" in line for line in news)


def test_a_stack_that_is_not_there_is_left_out_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STACKS, "wrtc", Stack("wrtc", ("python",), needs="no_such_module.inside"))
    news: list[str] = []
    ((_, stacks),) = runner.plan([WORKS["rtt"]], ["ours", "wrtc"], news.append)
    assert [stack.name for stack in stacks] == ["ours"]
    assert any("wrtc is not measured" in line for line in news)


def test_results_are_appended_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plots = pytest.importorskip("benchmarks.plots")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    collected = samples(ours=[10, 20], aiortc=[40, 40])
    collected.add("growth", "ours", {"worst_step": 1.1, "rtt_us_1": 100.0, "rtt_us_100": 110.0})
    for _ in range(2):
        kept = report.append_lines(report.as_object(collected, WORKS, []), collected, MACHINE, "quick")
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len(lines) == 6
    assert lines[0]["values"]["p50_us"] == [10, 20]
    page = plots.draw(kept)
    assert "rtt" in page.read_text()
    assert {path.name for path in tmp_path.glob("*.png")} == {"benchmarks-rtt.png", "benchmarks-growth.png"}
