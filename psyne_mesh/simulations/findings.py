"""The figures of one run, and how figures of several seeds become one.

Three kinds: `figures` are single numbers; `samples` are lists that are pooled over seeds before a percentile is taken;
`sums` are added up over seeds before a ratio is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from psyne_mesh.simulations.scenario import Target
from psyne_mesh.simulations.series import percentile

_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_POOLED = re.compile(r"(.+)_(p50|p90|p99|max)")
_RATIO = re.compile(r"(?:([0-9.]+)\s*\*\s*)?([\w.]+)\s*/\s*([\w.]+)")


@attrs.define
class Findings:
    figures: dict[str, float] = attrs.Factory(dict)
    samples: dict[str, list[float]] = attrs.Factory(dict)
    sums: dict[str, float] = attrs.Factory(dict)
    notes: list[str] = attrs.Factory(list)  # for people: what a figure alone does not say
    ratios: dict[str, str] = attrs.Factory(dict)

    def add(self, name: str, value: float) -> None:
        """A number that is judged alone and summed for ratios."""
        self.figures[name] = value
        self.sums[name] = value

    def add_samples(self, name: str, values: Sequence[float]) -> None:
        self.samples[name] = list(values)
        for suffix, value in percentiles(values).items():
            self.figures[f"{name}_{suffix}"] = value

    def add_arm(self, arm: str, other: Findings) -> None:
        """Takes over what another arm (a baseline, a run without the fault) found, under `arm.name`."""
        self.figures.update({f"{arm}.{name}": value for name, value in other.figures.items()})
        self.samples.update({f"{arm}.{name}": values for name, values in other.samples.items()})
        self.sums.update({f"{arm}.{name}": value for name, value in other.sums.items()})

    def finish(self, ratios: Mapping[str, str]) -> None:
        self.ratios = dict(ratios)
        for name, formula in ratios.items():
            self.figures[name] = evaluate(formula, self)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and max; NaN when there are no values."""
    return {suffix: percentile(list(values), share) for suffix, share in _PERCENTILES.items()}


def evaluate(formula: str, findings: Findings) -> float:
    """`a / b` or `k * a / b` over sums, percentiles or figures. Nothing over nothing was not measured (NaN), something over
    nothing is inf."""
    match = _RATIO.fullmatch(formula.strip())
    if match is None:
        raise ValueError(f"a ratio is 'a / b' or 'k * a / b', not {formula!r}")
    factor = float(match[1] or 1)
    above, below = _operand(match[2], findings), _operand(match[3], findings)
    if below == 0:
        return math.nan if above == 0 else math.inf
    return factor * above / below


def _operand(name: str, findings: Findings) -> float:
    if name in findings.sums:
        return findings.sums[name]
    pooled = _POOLED.fullmatch(name)
    if pooled is not None and pooled[1] in findings.samples:
        return percentile(findings.samples[pooled[1]], _PERCENTILES[pooled[2]])
    if name in findings.figures:
        return findings.figures[name]
    raise ValueError(f"no figure {name!r}; there are {', '.join(findings.figures)}")


def pool(runs: Sequence[Findings], targets: Mapping[str, Target]) -> dict[str, float]:
    """One figure for all seeds: percentiles over the pooled samples, ratios over the sums, else the worst of all seeds
    where there is a target and the mean where there is none. A ratio also has its `_least` and `_most` of one seed."""
    together = Findings(ratios=runs[0].ratios)
    for run in runs:
        for name, values in run.samples.items():
            together.samples.setdefault(name, []).extend(values)
        for name, value in run.sums.items():
            together.sums[name] = together.sums.get(name, 0.0) + value
    pooled: dict[str, float] = {}
    for name in runs[0].figures:
        values = [run.figures.get(name, math.nan) for run in runs]
        match = _POOLED.fullmatch(name)
        if name in together.ratios:
            together.figures = {key: _mean([run.figures[key] for run in runs]) for key in runs[0].figures}
            pooled[name] = evaluate(together.ratios[name], together)
            measured = [value for value in values if value == value]
            pooled[f"{name}_least"] = min(measured, default=math.nan)
            pooled[f"{name}_most"] = max(measured, default=math.nan)
        elif match is not None and match[1] in together.samples:
            pooled[name] = percentile(together.samples[match[1]], _PERCENTILES[match[2]])
        elif name in targets:
            pooled[name] = targets[name].worst(values)
        else:
            pooled[name] = _mean(values)
    return pooled


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def verdict(figures: Mapping[str, float], targets: Mapping[str, Target]) -> bool:
    return all(target.met(figures.get(name, math.nan)) for name, target in targets.items())


def rounded(figures: Mapping[str, float]) -> dict[str, Any]:
    """For JSON: six digits say enough, and what is not a number is null."""
    return {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in figures.items()}
