"""What the benchmarks make of their samples: medians, ratios, targets, the JSON object, the page."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import docs, machine, progress, report, runner, targets
from benchmarks.process import PeerFailed
from benchmarks.samples import Samples
from benchmarks.stacks.registry import STACKS, Stack
from benchmarks.work import FULL, QUICK, TINY, Figures, Scale, Work, less, more
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


def test_the_compiled_build_is_judged_beside_the_other() -> None:
    collected = samples(ours=[20, 20], compiled=[10, 12], aiortc=[40, 40])
    verdicts = targets.judge(
        collected, [{"work": "rtt", "figure": "p50_us", "must": [{"most": 0.3, "of": "aiortc"}], "aim": [{"most": 11}]}]
    )
    assert [(v.stack, v.level, v.measured, v.met) for v in verdicts] == [
        ("ours", "must", 0.5, False),
        ("ours", "aim", 20, False),
        ("compiled", "must", 0.275, True),
        ("compiled", "aim", 11, True),
    ]
    result = report.as_object(collected, WORKS, verdicts)["results"]["rtt"]
    assert (result["ours"], result["compiled"]) == (20, 11)
    assert result["compiled_ratio"] == pytest.approx(0.55)


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


# ------------------------------------------------------------------------------------------------------------- the page


def full_run(time: str, collected: Samples) -> dict[str, Any]:
    about = MACHINE | {"time": time, "commit": "abc", "load": [0.25], "versions": {"aiortc": {"aiortc": "1.14"}}}
    result = report.as_object(collected, WORKS, targets.judge(collected))
    return result | {"machine": about, "repetitions": 2}


def test_the_page_holds_the_newest_run_of_each_work(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page, plot, kept = tmp_path / "page.md", tmp_path / "growth.svg", tmp_path / "full.json"
    page.write_text(f"before\n{docs.BEGIN}\nold\n{docs.END}\nafter\n", encoding="utf-8")
    first = samples(ours=[100, 200], compiled=[80, 120], aiortc=[400, 400], wrtc=[125, 250])
    first.add("growth", "ours", {"worst_step": 1.1, "rtt_us_1": 100.0, "rtt_us_100": 110.0})
    first.add_failure("growth", "aiortc", "crashed")
    docs.keep(full_run("2026-01-01", first), list(WORKS), kept)
    second = Samples()
    second.add("growth", "ours", {"worst_step": 2.5, "rtt_us_1": 100.0, "rtt_us_100": 250.0})
    docs.write(docs.keep(full_run("2026-01-02", second), list(WORKS), kept), page, plot)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert (
        "| rtt: p50_us (us) | <= 0.45 x aiortc, < 1 x wrtc | <= 1.4 x floor.p50_us | 150 [100-200] | 0.38 | 0.80 "
        "| yes, not measured | 100 [80-120] | yes, not measured |"
    ) in text
    assert "| growth: worst_step (x) | <= 1.25 |  | 2.5 [2.5-2.5] |  |  | **no** |  |  |" in text
    assert "rtt: 2026-01-01, commit abc" in text
    assert "growth: 2026-01-02, commit abc" in text
    assert "aiortc 1.14; 2 repetitions; load before 0.25" in text
    assert "failed" not in text  # that was in the run which has been replaced
    assert "<svg" in plot.read_text(encoding="utf-8")
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the marks"):
        docs.write({}, page, plot)


def test_failures_stand_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{docs.BEGIN}{docs.END}", encoding="utf-8")
    collected = samples(ours=[100, 200])
    for _ in range(2):
        collected.add_failure("rtt", "wrtc", "crashed")
    docs.write(docs.keep(full_run("2026-01-01", collected), list(WORKS), tmp_path / "full.json"), page)
    assert "wrtc failed 2 times at rtt" in page.read_text(encoding="utf-8")


def test_the_page_of_the_repository_has_its_marks() -> None:
    text = docs.PAGE.read_text(encoding="utf-8")
    assert text.count(docs.BEGIN) == text.count(docs.END) == 1


def test_what_others_take_is_told_in_percent_of_a_core() -> None:
    others = machine.Others()
    assert sum(number for number in range(10_000)) > 0
    percent = others.percent()
    assert percent is None or percent >= 0


# ------------------------------------------------------------------------------------------------------------ measuring


async def test_each_repetition_takes_every_stack_in_the_same_order() -> None:
    seen: list[str] = []

    async def measure(stack: Stack, scale: Scale) -> Figures:
        seen.append(stack.name)
        if stack.name == "wrtc":
            raise PeerFailed("no libwebrtc today")
        return {"rate": 1.0}

    work = Work("made up", {"rate": more("/s"), "time": less("s")}, ("ours", "aiortc", "wrtc"), measure, "")
    planned = [(work, [STACKS[name] for name in work.stacks])]
    told = StringIO()
    with progress.Shown(progress.Estimate(planned, 2, TINY), 2, Console(file=told)) as shown:
        collected = await runner.run(planned, TINY, 2, shown)
    assert seen == ["ours", "aiortc", "wrtc"] * 2
    assert collected.values("made up", "ours", "rate") == [1.0, 1.0]
    assert collected.failures == {("made up", "wrtc"): ["no libwebrtc today"] * 2}
    assert told.getvalue().count("no libwebrtc today") == 2
    assert (
        told.getvalue().splitlines()[-1].startswith("made up took 0 s, about 0 s left")
    )  # nobody's terminal: a line a work


def test_the_estimate_learns_from_what_is_done() -> None:
    works = [(work, [STACKS["ours"], STACKS["aiortc"]]) for work in (WORKS["rtt"], WORKS["poll"])]
    estimate = progress.Estimate(works, 3, FULL)
    assert estimate.left_s(0) == 6 * (WORKS["rtt"].rough_s + WORKS["poll"].rough_s)
    assert progress.Estimate(works, 3, QUICK).left_s(0) == estimate.left_s(0) * QUICK.share
    estimate.done_s = estimate.total_s / 4
    assert estimate.left_s(100) == 300
    assert (progress.about(99.6), progress.about(1500)) == ("100 s", "25 min")


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
