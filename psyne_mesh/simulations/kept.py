"""Results of finished runs on disk, so that `sim all --resume` goes on where a long table was cut off.

The same code, scenario and seed give the same result (tests/simulations/test_determinism.py), so a kept one is as good as
a new one. What was found by other code, or under another definition of the scenario, is not taken.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

import psyne_mesh
from psyne_mesh.simulations.findings import Findings
from psyne_mesh.simulations.run import Result
from psyne_mesh.simulations.scenario import Scenario

_ARCHIVED_MAX = 20_000  # bytes of one run: more is the latency of every delivery, of a run that takes a minute at most
_WORD = re.compile(r"[A-Za-z_][\w.]*")

# Of the simulator's own files those that start runs or show them: what they do changes no result.
_SHOW = {"__init__.py", "cli.py", "kept.py", "own.py", "pictures.py", "report.py", "runner.py", "speed.py", "table.py"}


class KeptRuns:
    """A file of finished runs: one JSON object a line, appended as they end; of two lines for one run the later counts.

    Without `resume` nothing of what stands there is found, but it stays: a forgotten option must not cost hours.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self._found: dict[tuple[str, int | None, int], dict[str, Any]] = {}
        if not path.exists():
            return
        text = path.read_text(encoding="utf-8")
        if resume:
            self._read(text)
        if text and not text.endswith("\n"):
            self._append("")  # was killed while it wrote; what comes now is not to stand in the same line

    def _read(self, text: str) -> None:
        for line in text.splitlines():
            try:
                fields = json.loads(line)
            except ValueError:
                continue  # cut off
            result = fields["result"]
            self._found[fields["definition"], fields["nodes"], result["seed"]] = result

    def find(self, scenario: Scenario, nodes: int | None, seed: int) -> Result | None:
        found = self._found.get((definition(scenario), nodes, seed))
        # What other code wrote may have other fields: it is never asked for.
        return Result(**{**found, "findings": Findings(**found["findings"])}) if found is not None else None

    def keep(self, scenario: Scenario, nodes: int | None, result: Result) -> None:
        self._append(_line(scenario, nodes, result))

    def _append(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def judged(result: Result, scenario: Scenario) -> Result:
    """The same with no more than its targets are judged by: a thousandth of the size."""
    words = set(scenario.targets)
    words.update(word for name in scenario.targets for word in _WORD.findall(scenario.ratios.get(name, "")))
    found = result.findings
    findings = Findings(
        figures={name: value for name, value in found.figures.items() if name in words},
        samples={
            name: values for name, values in found.samples.items() if any(w.startswith(f"{name}_") for w in words)
        },
        sums={name: value for name, value in found.sums.items() if name in words},
        ratios={name: formula for name, formula in found.ratios.items() if name in words},
    )
    return attrs.evolve(result, findings=findings)


def write_archive(path: Path, runs: Iterable[tuple[Scenario, Result]]) -> list[str]:
    """A file of finished runs that is small enough to be committed; `KeptRuns` reads it. It holds what they are judged by.

    The lines of other scenarios stay; those of the same one, of other code or at another scale, go. Returns the scenarios
    whose runs are too large for it.
    """
    lines: dict[str, list[str]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # cut off, or mended by hand; it cost no hours to lose it
            lines.setdefault(json.loads(text)["result"]["scenario"], []).append(text)
    fresh: dict[str, list[str]] = {}
    for scenario, result in sorted(runs, key=lambda run: run[1].seed):
        fresh.setdefault(scenario.name, []).append(_line(scenario, None, judged(result, scenario)))
    large = [name for name, texts in fresh.items() if max(map(len, texts)) > _ARCHIVED_MAX]
    lines.update({name: [] if name in large else texts for name, texts in fresh.items()})
    text = "".join(f"{line}\n" for name in sorted(lines) for line in lines[name])
    path.write_text(text, encoding="utf-8")
    return large


def _line(scenario: Scenario, nodes: int | None, result: Result) -> str:
    return json.dumps({"definition": definition(scenario), "nodes": nodes, "result": attrs.asdict(result)})


def definition(scenario: Scenario) -> str:
    """A fingerprint of all that decides the result of a run: the code and what the scenario says, but for its words."""
    bare = attrs.evolve(scenario, title="", best_known="", known="", seeds=0, scales={})
    return hashlib.sha256(f"{code()} {bare!r}".encode()).hexdigest()[:16]


@functools.cache
def code() -> str:
    """A fingerprint of the gossip core, of the table of links and of the world that plays them."""
    house, here = Path(psyne_mesh.__file__).parent, Path(__file__).parent
    files = [
        house / "identity.py",
        *(house / "mesh" / name for name in ("link_table.py", "dial_limits.py", "restarts.py")),
        *sorted((house / "gossip").rglob("*.py")),
        *(file for file in sorted(here.rglob("*.py")) if file.name not in _SHOW),
    ]
    found = hashlib.sha256()
    for file in files:
        found.update(file.name.encode())
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
