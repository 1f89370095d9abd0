"""Scenario files of one's own: read as scenarios.toml is, and what is wrong in them said before anything runs for long."""

from __future__ import annotations

import contextlib
import difflib
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from psyne_mesh.errors import LocalError
from psyne_mesh.simulations import faults, figures, hooks
from psyne_mesh.simulations.run import Run, run_once
from psyne_mesh.simulations.scenario import SCALES, Scenario, Target, load

REHEARSAL_S = 1.0  # virtual; enough for every step of a timeline to be taken once, one after the other
_STEP_S = 0.001
# What a value of the wrong kind or a missing field ends in, wherever the run comes upon it.
_WRONG = (LookupError, ValueError, TypeError, ArithmeticError, AttributeError)
_KINDS = {"str": str, "int": int, "float": (int, float), "bool": bool, "Mapping": dict, "tuple": list}


class InvalidScenario(LocalError, ValueError):
    """A scenario file, or a run of a scenario, that makes no sense. The message names the place and what is wrong there."""


def load_own(path: Path) -> dict[str, Scenario]:
    """Every scenario of the file by name, in the file's order, each rehearsed. Raises `InvalidScenario`."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("scenario", [])
    except (OSError, ValueError) as error:
        raise InvalidScenario(f"{path}: {error}") from error
    if not (isinstance(entries, list) and entries and all(isinstance(entry, dict) for entry in entries)):
        raise InvalidScenario(f"{path}: no [[scenario]] in it")
    taken = load()
    before: list[str] = []
    for number, entry in enumerate(entries, 1):
        with _place(f"{path}: scenario {entry.get('name', number)!r}"):
            _check_entry(entry, before)
            if entry["name"] in taken:
                raise InvalidScenario("that name is taken by a scenario of the package")
            before.append(entry["name"])
    with _place(f"{path}"):
        found = load(path)
    for scenario in found.values():
        with _place(f"{path}: scenario {scenario.name!r}"):
            check(scenario)
    return found


def check(scenario: Scenario) -> None:
    """Raises `InvalidScenario` for what the scenario names and nobody knows, and for steps that cannot be taken."""
    for number, step in enumerate(scenario.timeline, 1):
        with _place(f"timeline step {number}"):
            _known("verb", step.get("do"), faults.VERBS)
            at = scenario.value(step["at"])
            if not 0 <= at <= scenario.duration_s:
                raise InvalidScenario(f"at = {at:g}, and the run lasts {scenario.duration_s:g} s")
    for name in ("loss", "duplicate", "reorder", "dial_failure"):
        share = scenario.net.get(name, 0)
        if not isinstance(share, int | float) or not 0 <= share <= 1:
            raise InvalidScenario(f"net.{name} = {share!r}: must lie in [0, 1]; 0.3 is 30 %")
    for name in scenario.measures:
        _known("measure", name, figures.MEASURES)
    if scenario.hook:
        _known("hook", scenario.hook, hooks.BEFORE | hooks.AFTER | hooks.COMPARE)
    for scale in SCALES:
        with _place(f"scale {scale}"):
            nodes = scenario.scaled(scale).nodes
            if not 2 <= scenario.nodes_min <= nodes:
                raise InvalidScenario(f"nodes = {nodes}, where 2 <= nodes_min = {scenario.nodes_min} <= nodes is asked")
    with _place(f"rehearsed with {scenario.nodes_min} nodes (nodes_min)"):
        names = _rehearse(scenario)
    for name in scenario.targets:
        # Why a message was missed, as `missed_cut`, shows only where one was.
        if not (name.startswith("missed_") and "broadcast" in scenario.measures):
            _known("figure of these measures, hook, arms and ratios (targets)", name, names)


def check_nodes(scenario: Scenario, nodes: int | None) -> None:
    """Raises `InvalidScenario` for a room too small for what happens in it; None is the scenario's own size."""
    if nodes is not None and nodes < scenario.nodes_min:
        raise InvalidScenario(f"{scenario.name} needs at least {scenario.nodes_min} nodes (nodes_min), not {nodes}")


def _check_entry(entry: Mapping[str, Any], before: Collection[str]) -> None:
    if not isinstance(entry.get("name"), str):
        raise InvalidScenario("lacks a name")
    if entry["name"] in before:
        raise InvalidScenario("that name comes twice")
    kinds = {field.name: _KINDS[str(field.type).partition("[")[0]] for field in attrs.fields(Scenario)}
    for key, value in entry.items():
        if key == "like":
            _known("earlier scenario in this file", value, before)
            continue
        _known("field", key, kinds)
        if not isinstance(value, kinds[key]):  # type: ignore[arg-type]
            raise InvalidScenario(f"{key} cannot be {value!r}")
    missing = [name for name in ("number", "title", "nodes") if name not in entry and "like" not in entry]
    if missing:
        raise InvalidScenario(f"lacks {', '.join(missing)}")
    for name, text in entry.get("targets", {}).items():
        with _place(f"target {name}"):
            if text:
                Target.parse(text)


def _rehearse(scenario: Scenario) -> Collection[str]:
    """Takes every step once in a small room, and gives the names of the figures that a run has."""
    boot = {**scenario.boot, "over_s": 0.2, "settle_s": 1}
    short = attrs.evolve(scenario, params={**scenario.params, "duration_s": REHEARSAL_S}, boot=boot)
    in_order = sorted(range(len(short.timeline)), key=lambda number: scenario.value(short.timeline[number]["at"]))
    steps = [_Step({**step, "at": _STEP_S * in_order.index(number)}) for number, step in enumerate(short.timeline)]
    _Rehearsal(attrs.evolve(short, timeline=steps), scenario.nodes_min, 0).play()
    for number, step in enumerate(steps, 1):
        if "arm" not in step:  # a step of another arm was not taken
            with _place(f"timeline step {number} ({step['do']})"):
                for key in step.unread:
                    _known("field that this step would read", key, step.read)
    return run_once(attrs.evolve(short, timeline=()), scenario.nodes_min, 0).findings.figures


class _Step(dict[str, Any]):
    """A step that knows which of its fields were asked for: one that nobody reads is misspelt, or without effect."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.read = {"at": None, "do": None, "before_boot": None, "arm": None}

    @property
    def unread(self) -> list[str]:
        return [key for key in self.keys() if key not in self.read]

    def __getitem__(self, key: str) -> Any:
        self.read[key] = None
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read[key] = None
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.read[str(key)] = None
        return super().__contains__(key)

    def items(self) -> Any:
        self.read.update(dict.fromkeys(self.keys()))
        return super().items()


class _Rehearsal(Run):
    def _do(self, step: faults.Step) -> None:
        number = next(number for number, known in enumerate(self.scenario.timeline, 1) if known is step)
        with _place(f"timeline step {number} ({step['do']})"):
            super()._do(step)


def _known(kind: str, name: Any, names: Collection[str]) -> None:
    if name not in names:
        there_are = f"; there are {', '.join(sorted(names))}" if names else ""
        raise InvalidScenario(f"no {kind} {name!r}{near(str(name), names) or there_are}")


def near(name: str, names: Collection[str]) -> str:
    """What somebody who wrote `name` may have meant, as the end of a sentence; empty where nothing is like it."""
    alike = [known for known in names if name.lower() in known or known in name.lower()]
    alike += [known for known in difflib.get_close_matches(name.lower(), names) if known not in alike]
    return f"; near: {', '.join(alike)}" if alike else ""


@contextlib.contextmanager
def _place(where: str) -> Iterator[None]:
    """Puts the place in front of what is said inside."""
    try:
        yield
    except InvalidScenario as error:
        raise InvalidScenario(f"{where}: {error}") from error
    except _WRONG as error:
        said = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidScenario(f"{where}: {said}") from error
