"""The targets of `targets.toml`, judged."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import attrs

from benchmarks.samples import Samples

FILE = Path(__file__).with_name("targets.toml")


@attrs.frozen
class Verdict:
    """met: `None` when something it needs was not measured."""

    work: str
    stack: str
    figure: str
    level: str  # "must" or "aim"
    wanted: str
    measured: float | None
    met: bool | None


def load() -> list[dict[str, Any]]:
    targets: list[dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["target"]
    return targets


def judge(samples: Samples, targets: list[dict[str, Any]] | None = None) -> list[Verdict]:
    """One verdict for each condition on a work that was measured, and for each build of ours that it was measured with."""
    verdicts = []
    for target in load() if targets is None else targets:
        work, figure = target["work"], target["figure"]
        builds = [target["stack"]] if "stack" in target else ["ours", "compiled"]
        for stack in [build for build in builds if build in samples.stacks(work)]:
            for level in ("must", "aim"):
                for condition in target.get(level, []):
                    value = _value(samples, work, figure, stack, condition.get("of"))
                    wanted, met = _compare(value, condition)
                    verdicts.append(Verdict(work, stack, figure, level, wanted, value, met))
    return verdicts


def _value(samples: Samples, work: str, figure: str, stack: str, of: str | None) -> float | None:
    if of is None:
        return samples.median(work, stack, figure)
    if "." not in of:
        return samples.ratio(work, figure, stack, of)
    other_work, other_figure = of.split(".")
    others = samples.stacks(other_work)
    ours = samples.median(work, stack, figure)
    other = samples.median(other_work, others[0], other_figure) if others else None
    return ours / other if ours is not None and other else None


def _compare(value: float | None, condition: dict[str, Any]) -> tuple[str, bool | None]:
    word = next(word for word in ("most", "least", "below") if word in condition)
    limit = condition[word]
    sign = {"most": "<=", "least": ">=", "below": "<"}[word]
    wanted = f"{sign} {limit:,g}" + (f" x {condition['of']}" if "of" in condition else "")
    if value is None:
        return wanted, None
    return wanted, {"most": value <= limit, "least": value >= limit, "below": value < limit}[word]
