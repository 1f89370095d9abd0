"""The shapes that `psyne-mesh sim` prints and writes, and how it ends."""

from __future__ import annotations

import csv
import gc
import json
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest
from typer.testing import CliRunner

from psyne_mesh.simulations import kept, runner, table
from psyne_mesh.simulations.cli import Scale, app
from psyne_mesh.simulations.findings import Findings
from psyne_mesh.simulations.own import InvalidScenario
from psyne_mesh.simulations.run import Result
from psyne_mesh.simulations.scenario import SCALES, load
from psyne_mesh.simulations.world import World

RESULT_KEYS = ["scenario", "nodes", "seed", "trace_hash", "pass", "figures", "targets"]


def invoke(*words: str):
    return CliRunner().invoke(app, list(words))


_COMES_TO: dict[bytes, bytes] = {}


@pytest.fixture
def played(monkeypatch):
    """The runs that were asked for, by scenario and seed. Each is really played once: that a seed decides it is held elsewhere,
    and what tables keep of it is the same."""
    asked = []
    work = runner.work

    def once(unit):
        asked.append((unit.scenario.name, unit.seed))
        key = pickle.dumps(unit)
        if key not in _COMES_TO:
            _COMES_TO[key] = pickle.dumps(work(unit))
        return pickle.loads(_COMES_TO[key])  # noqa: S301

    monkeypatch.setattr(runner, "work", once)
    return asked


def test_list_as_json_names_every_scenario():
    done = invoke("list", "--json")
    assert done.exit_code == 0
    (told,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert [scenario["name"] for scenario in told["scenarios"]] == list(load())
    assert told["scenarios"][0]["targets"]["links_missing"] == "== 0"


def test_list_for_people():
    done = invoke("list")
    assert done.exit_code == 0
    assert "join-storm" in done.stdout


def test_run_prints_one_json_object_as_its_last_line():
    done = invoke("run", "crash-16", "--nodes", "5", "--seed", "3", "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    assert list(told) == RESULT_KEYS
    assert (told["scenario"], told["nodes"], told["seed"]) == ("crash-16", 5, 3)
    assert isinstance(told["pass"], bool)
    assert done.exit_code == 0  # the run went well; the object says whether the targets were met
    assert told["targets"]["detection_s_p99"] == "<= 3"
    assert isinstance(told["figures"]["detection_s_p99"], float)
    again = invoke("run", "crash-16", "--nodes", "5", "--seed", "3", "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == told


def test_run_for_people_shows_targets_and_trace():
    done = invoke("run", "crash-16", "--scale", "tiny")
    assert "detection_s_p99" in done.stdout
    assert "trace " in done.stdout


@pytest.mark.parametrize("words", [("run", "crash"), ("run", "crash16"), ("all", "--only", "Crash_16")])
def test_a_misspelt_name_gets_a_hint(words):
    done = invoke(*words)
    assert done.exit_code == 2
    assert "crash-16" in done.output


def test_a_scale_that_nobody_knows_is_refused():
    assert tuple(scale.value for scale in Scale) == SCALES
    done = invoke("run", "crash-16", "--nodes", "4", "--scale", "CI")
    assert done.exit_code == 2
    assert "nightly" in done.output


@pytest.mark.parametrize(("name", "smallest"), [("seat-race", 7), ("one-way-pair", 4)])
def test_a_room_too_small_for_what_happens_is_refused(name, smallest):
    for nodes in (smallest - 1, 1, -3):
        done = invoke("run", name, "--nodes", str(nodes))
        assert done.exit_code == 2
        assert f"at least {smallest} nodes" in done.output
    with pytest.raises(InvalidScenario, match=f"at least {smallest} nodes"):
        runner.run_all([load()[name]], nodes=smallest - 1)
    assert json.loads(invoke("run", name, "--nodes", str(smallest), "--scale", "tiny", "--json").stdout)["pass"]


def test_all_writes_lines_table_and_summary(tmp_path):
    done = invoke(
        "all", "--ci", "--only", "join-storm", "--only", "one-way-pair", "--seeds", "2", "--jobs", "1",
        "--output", str(tmp_path),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted((line["scenario"], line["seed"]) for line in lines) == [
        ("join-storm", 0),
        ("join-storm", 1),
        ("one-way-pair", 0),
        ("one-way-pair", 1),
    ]
    assert all(list(line) == [*RESULT_KEYS, "scale"] for line in lines)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["scenario"] for row in rows} == {"join-storm", "one-way-pair"}
    assert {"scenario", "scale", "nodes", "seed", "figure", "value"} == set(rows[0])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["scenario"] for row in summary] == ["join-storm", "one-way-pair"]
    assert summary[0]["seeds"] == 2


def test_all_as_json_ends_in_one_object(tmp_path):
    words = ("all", "--ci", "--only", "join-storm", "--only", "crash-16", "--seeds", "2", "--jobs", "1", "--json")
    done = invoke(*words, "--output", str(tmp_path))
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert list(told) == ["scale", "pass", "worse", "scenarios"]
    assert (told["scale"], told["pass"], told["worse"], done.exit_code) == ("ci", True, [], 0)
    assert told["scenarios"] == json.loads((tmp_path / "summary.json").read_text())


def test_what_was_found_of_others_and_at_other_scales_stays(tmp_path, played):
    def run(*words: str) -> None:
        assert invoke("all", *words, "--jobs", "1", "--output", str(tmp_path)).exit_code == 0

    def kept(read) -> list[tuple[str, str, int]]:
        return sorted({(line["scenario"], line["scale"], int(line["seed"])) for line in read})

    run("--only", "join-storm", "--seeds", "2")
    run("--ci", "--only", "seat-race", "--seeds", "1")
    run("--ci", "--only", "join-storm", "--seeds", "1")
    run("--only", "seat-race", "--seeds", "1")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["scenario"], row["scale"], row["seeds"]) for row in summary] == [
        ("join-storm", "full", 2),
        ("seat-race", "full", 1),
        ("join-storm", "ci", 1),
        ("seat-race", "ci", 1),
    ]
    runs = [("join-storm", "ci", 0), ("join-storm", "full", 0), ("join-storm", "full", 1)]
    runs += [("seat-race", "ci", 0), ("seat-race", "full", 0)]
    assert kept(json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()) == runs
    with (tmp_path / "results.csv").open(newline="") as file:
        assert kept(csv.DictReader(file)) == runs
    # A page gets the lines of this scale only.
    page = tmp_path / "page.md"
    page.write_text("\n".join(table.marks("ci")), encoding="utf-8")
    run("--ci", "--only", "seat-race", "--seeds", "1", "--write-docs", str(page))
    assert "2 of 2 pass at scale `ci`" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--write-docs", "{tmp}/none.md"), "cannot be read"),
        (("--write-docs", "{tmp}/page.md"), "lacks the marks"),
        (("--ci", "--nightly"), "two scales"),
    ],
)
def test_a_wrong_option_is_told_before_anything_runs(tmp_path, monkeypatch, words, complaint):
    monkeypatch.setattr(runner, "work", lambda unit: pytest.fail("ran"))
    (tmp_path / "page.md").write_text("no marks", encoding="utf-8")
    given = [word.format(tmp=tmp_path) for word in words]
    done = invoke("all", "--only", "crash-16", "--jobs", "1", "--output", str(tmp_path / "out"), *given)
    assert done.exit_code == 2
    assert complaint in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("all", "--only", "crash-16", "--output", "{tmp}/file/out"),
        ("all", "--only", "crash-16", "--output", "{tmp}/file"),
        ("all", "--only", "crash-16", "--output", "{tmp}/taken"),
        ("all", "--only", "crash-16", "--output", "{tmp}/out", "--archive", "{tmp}/none/runs.jsonl"),
        ("run", "crash-16", "--pictures", "{tmp}/file/out"),
        ("report", "--output", "{tmp}/file/out"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_before_anything_runs(tmp_path, monkeypatch, words):
    drawing = pytest.importorskip("psyne_mesh.simulations.report") if words[0] != "all" else None
    for module, name in ((runner, "work"), (drawing, "run_with_pictures"), (drawing, "write_report")):
        if module is not None:
            monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("ran"))
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "results.jsonl").mkdir(parents=True)
    done = invoke(*(word.format(tmp=tmp_path) for word in words))
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert "[Errno" in done.output
    assert not (tmp_path / "out").exists()


def test_a_table_that_was_cut_off_goes_on_where_it_stopped(tmp_path, monkeypatch, played):

    def run(*words: str):
        played.clear()
        done = invoke(
            "all", "--ci", "--only", "join-storm", "--only", "seat-race", "--jobs", "1", "--output", str(tmp_path),
            *words,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        return list(played), json.loads((tmp_path / "summary.json").read_text())

    assert run("--seeds", "1")[0] == [("join-storm", 0), ("seat-race", 0)]
    runs = tmp_path / "runs.jsonl"
    runs.write_text(runs.read_text() + '{"definition": "cut off in the mid')
    again, told = run("--seeds", "2", "--resume")
    assert again == [("join-storm", 1), ("seat-race", 1)]
    assert run("--seeds", "2", "--resume")[0] == []
    afresh, fresh = run("--seeds", "2")
    assert afresh == [("join-storm", 0), ("seat-race", 0), ("join-storm", 1), ("seat-race", 1)]
    assert [(row["figures"], row["seeds"]) for row in told] == [(row["figures"], row["seeds"]) for row in fresh]
    # Other code may find something else.
    monkeypatch.setattr(kept, "code", lambda: "changed")
    assert len(run("--seeds", "2", "--resume")[0]) == 4


def test_an_archive_holds_what_is_judged_and_a_table_goes_on_from_it(tmp_path, monkeypatch, played):
    archive = tmp_path / "archive.jsonl"

    def run(folder: str, *words: str):
        played.clear()
        only = ("--only", "crash-16", "--only", "lifeguard")
        output = tmp_path / folder
        done = invoke("all", "--ci", *only, "--seeds", "1", "--jobs", "1", "--output", str(output), *words)
        return list(played), {row["scenario"]: row for row in json.loads((output / "summary.json").read_text())}, done

    _, whole, _ = run("whole")
    ran, first, _ = run("first", "--archive", str(archive))
    assert len(ran) == 2
    again, second, _ = run("second", "--archive", str(archive))
    assert again == []
    for name, row in first.items():
        judged = {figure: whole[name]["figures"][figure] for figure in row["targets"]}
        assert judged.items() <= row["figures"].items() <= whole[name]["figures"].items()
        assert second[name]["figures"] == row["figures"]
    assert run("second", "--archive", str(archive))[0] == []
    # What is too large for it is run again, and said; a scenario's runs of other code give way to new ones.
    archive.write_text(archive.read_text() + '{"cut off in the mid')
    monkeypatch.setattr(kept, "_ARCHIVED_MAX", 2000)
    ran, _, done = run("first", "--resume", "--archive", str(archive))
    assert ran == []
    assert "lifeguard: its runs are too large" in done.output
    assert len(archive.read_text().splitlines()) == 1
    monkeypatch.setattr(kept, "code", lambda: "changed")
    assert len(run("third", "--archive", str(archive))[0]) == 2
    assert len(archive.read_text().splitlines()) == 1


def test_the_committed_table_is_what_the_committed_runs_come_to():
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "simulations.md").read_text(encoding="utf-8").splitlines()
    runs: dict[str, list[Result]] = {}
    for line in (docs / "simulation-runs.jsonl").read_text(encoding="utf-8").splitlines():
        result = json.loads(line)["result"]
        found = Findings(**result.pop("findings"))
        runs.setdefault(result["scenario"], []).append(Result(**result, findings=found))
    assert len(runs) > 30
    for name, results in runs.items():
        row = runner.row_of(load()[name], results)
        assert row.seeds == tuple(range(len(results)))
        assert table.markdown([runner.row_line(row)]).splitlines()[2] in page, name


def test_what_a_scenario_is_called_does_not_make_its_results_old():
    scenario = load()["crash-16"]
    assert kept.definition(attrs.evolve(scenario, known="why", title="else")) == kept.definition(scenario)
    assert kept.definition(attrs.evolve(scenario, net={"loss": 0.1})) != kept.definition(scenario)


@pytest.fixture(scope="module")
def rows():
    scenario = load()["crash-16"].scaled("tiny")
    return runner.run_all([scenario], seeds=[0, 1])


def test_a_world_goes_with_its_run():
    """Twenty seeds of a thousand nodes in one process would not fit into its memory."""

    def worlds() -> int:
        return sum(type(thing) is World for thing in gc.get_objects())

    before = worlds()
    runner.work(runner.Unit(load()["crash-16"].scaled("tiny"), None, 0))
    assert worlds() <= before


def test_any_executor_will_do(rows):
    with ThreadPoolExecutor(1) as executor:
        others = runner.run_all([load()["crash-16"].scaled("tiny")], seeds=[0, 1], executor=executor)
    assert others[0].trace_hashes == rows[0].trace_hashes


def test_what_runs_is_the_scenario_that_was_given(rows):
    """Not the one of that name in the package's file."""
    scenario = load()["crash-16"].scaled("tiny")
    louder = attrs.evolve(scenario, net={"loss": 0.2})
    mine = attrs.evolve(scenario, name="mine")
    with ThreadPoolExecutor(1) as executor:
        plain, lossy, own = runner.run_all([scenario, louder, mine], seeds=[1, 0], executor=executor)
    assert plain.trace_hashes == rows[0].trace_hashes
    assert lossy.trace_hashes != plain.trace_hashes
    assert (lossy.seeds, own.scenario.name) == ((0, 1), "mine")
    unit = runner.Unit(louder, None, 0)
    assert pickle.loads(pickle.dumps(unit)) == unit  # noqa: S301


def test_a_file_of_ones_own(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "simulations.md"
    path = tmp_path / "mine.toml"
    # The example that the page gives.
    (example,) = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    path.write_text(example, encoding="utf-8")
    file = ("--file", str(path))
    told = json.loads(invoke("list", "--json", *file).stdout)
    assert [scenario["name"] for scenario in told["scenarios"]] == ["my-cut"]
    one = json.loads(invoke("run", "my-cut", "--json", *file).stdout)
    assert one["figures"].keys() >= one["targets"].keys() > {"merged_s_max"}
    output = ("--jobs", "1", "--output", str(tmp_path / "out"))
    assert invoke("all", "--ci", "--only", "join-storm", "--seeds", "1", *output).exit_code == 0
    done = invoke("all", "--ci", "--seeds", "1", *output, *file)
    assert done.exit_code == (0 if one["pass"] else 1)  # nobody has a baseline of it
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [(row["scenario"], row["scale"]) for row in summary] == [("join-storm", "ci"), ("my-cut", "ci")]
    assert invoke("run", "crash-16", *file).exit_code == 2
    assert invoke("all", "--write-baseline", *file).exit_code == 2


def test_a_mistake_in_ones_own_file_is_told_in_a_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[[scenario]]\nname = 3", encoding="utf-8")
    done = invoke("list", "--file", str(path))
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert "lacks a name" in done.output


def test_a_worse_result_than_the_baseline_is_told(rows, tmp_path):
    path = tmp_path / "baseline.json"
    runner.write_baseline(rows, path)
    baseline = runner.read_baseline(path)
    assert runner.compare(rows, baseline) == []
    baseline["crash-16@tiny"]["figures"]["detection_s_p99"] = 0.1
    (row,) = rows
    slower = attrs.evolve(row, passed=False, figures={**row.figures, "detection_s_p99": 5.0})
    told = runner.compare([slower], baseline)
    assert any("passed in the baseline" in sentence for sentence in told)
    assert any("detection_s_p99 was 0.1, is 5" in sentence for sentence in told)
    assert runner.read_baseline(tmp_path / "none.json") == {}


def test_summaries_grow_scenario_by_scenario(rows, tmp_path):
    path = tmp_path / "summary.json"
    others = runner.run_all([load()["join-storm"].scaled("tiny")], seeds=[0])
    runner.merged_summary(path, rows)
    lines = runner.merged_summary(path, others)
    assert [line["scenario"] for line in lines] == ["join-storm", "crash-16"]  # the order of the file
    assert json.loads(path.read_text(encoding="utf-8")) == lines
    assert "| 3 | `crash-16`" in table.markdown(lines)


def test_the_table_is_written_between_its_marks(rows, tmp_path):
    page = tmp_path / "page.md"
    (begin, end), (other_begin, other_end) = table.marks("tiny"), table.marks("ci")
    page.write_text(f"before\n{begin}\nold\n{end}\n{other_begin}\nstays\n{other_end}\nafter\n", encoding="utf-8")
    table.write_docs(page, [runner.row_line(row) for row in rows], ["crash-16"])
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    assert "stays" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "`crash-16`" in text
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the marks"):
        table.write_docs(page, [runner.row_line(row) for row in rows], ["crash-16"])


def test_a_table_is_made_piece_by_piece(rows, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("\n".join(table.marks("tiny")), encoding="utf-8")
    crash = runner.row_line(rows[0])
    first, second, third = ({**crash, "scenario": name, "pass": name != "b", "seeds_failed": [0]} for name in "abc")
    table.write_docs(page, [second, third], ["a", "b", "c"])
    assert "1 of 2 pass" in page.read_text(encoding="utf-8")
    table.write_docs(page, [first], ["a", "b", "c"])
    whole = page.read_text(encoding="utf-8")
    assert [line.split("`")[1] for line in whole.splitlines() if line.startswith("| 3 ")] == ["a", "b", "c"]
    assert f"2 of 3 pass at scale `tiny`; {crash['events']:,} events of 1 of them in" in whole
    table.write_docs(page, [{**second, "pass": True}], ["b", "c"])  # `a` is no scenario any more
    assert "2 of 2 pass" in page.read_text(encoding="utf-8")


def test_figures_for_people():
    assert [table.show(value) for value in (float("nan"), float("inf"), 0.12345, 12345.0)] == [
        "not measured",
        "never",
        "0.1235",
        "12,345",
    ]
