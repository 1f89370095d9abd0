"""What a scenario is, as data: read from scenarios.toml, checked, scaled."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

SCENARIO_FILE = Path(__file__).with_name("scenarios.toml")
SCALES = ("full", "ci", "nightly", "tiny")
TINY_S = 30.0  # a tiny run shows that a scenario works, not what the protocol can do
TINY_SETTLE_S = 8.0
_TARGET = re.compile(r"\s*(<=|>=|==)\s*([-+0-9.e]+)\s*")


@attrs.frozen
class Target:
    """A pass figure: `figure op bound`."""

    op: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Target:
        match = _TARGET.fullmatch(text)
        if match is None:
            raise ValueError(f"a target is '<= x', '>= x' or '== x', not {text!r}")
        return cls(match[1], float(match[2]))

    def met(self, value: float) -> bool:
        """A figure that could not be measured (NaN) meets nothing."""
        if self.op == "<=":
            return value <= self.bound
        return value >= self.bound if self.op == ">=" else value == self.bound

    def worst(self, values: list[float]) -> float:
        """Of several runs, the figure that is farthest on the wrong side. NaN is worse than any."""
        if any(value != value for value in values):
            return float("nan")
        if self.op == "<=":
            return max(values)
        return min(values) if self.op == ">=" else max(values, key=lambda value: abs(value - self.bound))

    def __str__(self) -> str:
        return f"{self.op} {self.bound:g}"


def _tables(given: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(given)


def _names(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(given)


@attrs.frozen(kw_only=True)
class Scenario:
    """One entry of scenarios.toml. The file's head explains every field."""

    name: str
    number: str
    title: str
    best_known: str = ""
    known: str = ""  # why it does not meet its targets; empty: it should
    nodes: int
    nodes_min: int = 8  # below that it makes no sense
    seeds: int = 20
    params: Mapping[str, float] = attrs.Factory(dict)
    net: Mapping[str, Any] = attrs.Factory(dict)
    latency: Mapping[str, Any] = attrs.Factory(lambda: {"model": "constant", "rtt_ms": 50})
    config: Mapping[str, Any] = attrs.Factory(dict)
    boot: Mapping[str, Any] = attrs.Factory(lambda: {"kind": "settled"})
    timeline: tuple[Mapping[str, Any], ...] = attrs.field(default=(), converter=_tables)
    measures: tuple[str, ...] = attrs.field(default=(), converter=_names)
    targets: Mapping[str, Target] = attrs.Factory(dict)
    arms: tuple[Mapping[str, Any], ...] = attrs.field(default=(), converter=_tables)
    ratios: Mapping[str, str] = attrs.Factory(dict)
    hook: str = ""
    real_signatures: bool = False
    sample_s: float = 1.0
    compare_views: bool = False
    scales: Mapping[str, Mapping[str, Any]] = attrs.Factory(dict)
    scale: str = "full"

    def scaled(self, scale: str) -> Scenario:
        """The same at the size that CI, the nightly run or the tests use: one of `SCALES`, else `ValueError`. Targets never
        change with the size."""
        if scale not in SCALES:
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, not {scale!r}")
        changes = dict(self.scales.get(scale, {}))
        if scale == "tiny":
            changes.setdefault("nodes", self.nodes_min)
            changes.setdefault("seeds", 1)
            changes["boot"] = {**self.boot, "settle_s": min(TINY_SETTLE_S, self.boot.get("settle_s", TINY_SETTLE_S))}
            changes["params"] = {"duration_s": min(TINY_S, self.duration_s), **changes.get("params", {})}
        params = {**self.params, **changes.pop("params", {})}
        return attrs.evolve(self, params=params, scale=scale, **changes)

    def value(self, given: Any) -> float:
        """A number, or a sum of numbers and parameter names such as "split_s + 60"."""
        if isinstance(given, int | float):
            return float(given)
        total = 0.0
        for term in str(given).split("+"):
            word = term.strip()
            total += self.params[word] if word in self.params else float(word)
        return total

    @property
    def duration_s(self) -> float:
        return self.params["duration_s"]


def load(path: Path = SCENARIO_FILE) -> dict[str, Scenario]:
    """Every scenario of the file by name, in the file's order. `like = "name"` inherits from an earlier one."""
    raw: dict[str, dict[str, Any]] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["scenario"]:
        base = {key: value for key, value in raw[entry["like"]].items() if key != "known"} if "like" in entry else {}
        raw[entry["name"]] = _merged(base, {key: value for key, value in entry.items() if key != "like"})
    return {name: _scenario(entry) for name, entry in raw.items()}


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _scenario(entry: Mapping[str, Any]) -> Scenario:
    fields = {**entry}
    # An empty text takes an inherited target away.
    fields["targets"] = {figure: Target.parse(text) for figure, text in entry.get("targets", {}).items() if text}
    # Promises that every scenario checks: what the node says must be consistent.
    fields["targets"].setdefault("violations", Target("==", 0.0))
    scenario = Scenario(**fields)
    unknown = [scale for scale in scenario.scales if scale not in SCALES]
    if unknown or "duration_s" not in scenario.params:
        raise ValueError(f"scenario {scenario.name}: unknown scale {unknown} or no params.duration_s")
    return scenario
