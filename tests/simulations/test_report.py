"""The pictures are drawn, the same data give the same bytes, and the page needs no other file."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from psyne_mesh import simulations
from psyne_mesh.simulations import pictures, report
from psyne_mesh.simulations.cli import app
from psyne_mesh.simulations.report import Sizes, run_with_pictures, write_report
from psyne_mesh.simulations.run import Run, run_once
from psyne_mesh.simulations.scenario import load


def test_the_same_data_give_the_same_picture(tmp_path):
    texts = [
        pictures.save(pictures.ecdf({"a": [1.0, 2.0]}, "title", "s"), tmp_path / name, "x") for name in ("one", "two")
    ]
    assert texts[0] == texts[1]
    assert (tmp_path / "one" / "x.png").read_bytes() == (tmp_path / "two" / "x.png").read_bytes()


def test_a_run_can_be_drawn(tmp_path):
    scenario = load()["broadcast-one-source"].scaled("tiny")
    result = run_with_pictures(scenario, 12, 1, tmp_path)
    assert result.nodes == 12
    assert {path.name for path in tmp_path.iterdir()} >= {"mesh.svg", "timeline.png", "coverage.svg"}


def test_a_drawn_run_is_judged_with_all_its_arms(tmp_path):
    scenario = load()["wrong-clocks"].scaled("tiny")
    drawn, plain = run_with_pictures(scenario, None, 2, tmp_path), run_once(scenario, None, 2)
    assert drawn.findings.figures["true.same_trace"] == 1
    assert drawn.findings.figures == plain.findings.figures
    assert drawn.trace_hash == plain.trace_hash


@pytest.mark.parametrize("words", [("report",), ("run", "crash-16", "--pictures", "out")])
def test_without_the_extra_it_says_what_to_install(monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    for name in ("report", "pictures"):
        monkeypatch.delitem(sys.modules, f"psyne_mesh.simulations.{name}", raising=False)
        monkeypatch.delattr(simulations, name, raising=False)
    monkeypatch.setitem(sys.modules, "networkx", None)  # as if it were not there
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert "pip install 'psyne-mesh[sim]'" in done.output


def test_a_long_title_stays_inside_and_sizes_are_plain():
    title = "Bytes a node sends while nothing happens (frames, without DTLS and UDP heads)"
    drawn = pictures.load_against_size({"a": [(4, 0.21), (8, 0.9), (512, 7.0)]}, title, "kB/s")
    drawn.canvas.draw()
    (axes,) = drawn.axes
    box = axes.title.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= drawn.bbox.x1
    assert box.y1 <= drawn.bbox.y1
    assert axes.title.get_text().replace("\n", " ") == title
    shown = [[label.get_text() for label in axis.get_ticklabels(which="both")] for axis in (axes.xaxis, axes.yaxis)]
    assert [text for text in shown[0] if text] == ["4", "8", "512"]
    assert {"0.5", "1", "2", "5"} < set(shown[1])
    assert not any("$" in text for text in shown[1])


def test_a_report_is_of_its_seed_and_tells_of_each_run(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "QUICK", Sizes(split=16, broadcast=20, crash_seeds=1, crash=20, load=(4,)))
    played: list[tuple[str, int]] = []
    play = Run.play
    monkeypatch.setattr(Run, "play", lambda run: played.append((run.scenario.name, run.seed)) or play(run))
    words = ("report", "--quick", "--seed", "5", "--output", str(tmp_path / "out"), "--results", str(tmp_path))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "index.html")
    assert {seed for _, seed in played} == {5}
    assert len(played) == report.QUICK.runs
    assert f"{len(played)}/{len(played)}" in done.stderr


@pytest.mark.slow
def test_the_page_holds_everything(tmp_path):
    line = {
        "number": "3", "scenario": "crash-16", "scale": "full", "nodes": 16, "seeds": 1, "pass": False,
        "figures": {"detection_s_p99": None}, "targets": {"detection_s_p99": "<= 3"},
    }  # fmt: skip
    summary = json.dumps([line, {**line, "scale": "ci"}])
    (tmp_path / "summary.json").write_text(summary, encoding="utf-8")
    page = write_report(tmp_path / "report", tmp_path, sizes=report.QUICK).read_text(encoding="utf-8")
    assert page.count("<svg") == 5
    assert "detection_s_p99 &lt;= 3: <b>never</b>" in page
    assert page.index("scale full") < page.index("scale ci")
    for name in ("mesh", "timeline", "coverage", "detection", "load"):
        assert (tmp_path / "report" / f"{name}.png").stat().st_size > 1000
