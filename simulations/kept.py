"""Results of finished runs on disk, so that `sim all --resume` goes on where a long table was cut off.

The same code, scenario and seed give the same result (tests/simulations/test_determinism.py), so a kept one is as good as
a new one. What was found by other code, or under another definition of the scenario, is not taken.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import attrs

import psyne_mesh
from simulations.findings import Findings
from simulations.run import Result
from simulations.scenario import Scenario

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
        line = {"definition": definition(scenario), "nodes": nodes, "result": attrs.asdict(result)}
        self._append(json.dumps(line))

    def _append(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def definition(scenario: Scenario) -> str:
    """A fingerprint of all that decides the result of a run: the code and what the scenario says, but for its words."""
    bare = attrs.evolve(scenario, title="", best_known="", known="", seeds=0, scales={})
    return hashlib.sha256(f"{code()} {bare!r}".encode()).hexdigest()[:16]


@functools.cache
def code() -> str:
    """A fingerprint of the gossip core and of the world that plays it."""
    house, here = Path(psyne_mesh.__file__).parent, Path(__file__).parent
    files = [
        house / "identity.py",
        *sorted((house / "gossip").rglob("*.py")),
        *(file for file in sorted(here.rglob("*.py")) if file.name not in _SHOW),
    ]
    found = hashlib.sha256()
    for file in files:
        found.update(file.name.encode())
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
