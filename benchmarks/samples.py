"""What was measured: every repetition of every work and stack, their medians, and ratios pair by pair."""

from __future__ import annotations

from statistics import median

import attrs

from benchmarks.work import Figures


@attrs.define
class Samples:
    """`add` in the order of measuring. A repetition in which a stack failed counts for none of its figures."""

    _figures: dict[tuple[str, str], list[Figures | None]] = attrs.Factory(dict)  # by work and stack
    failures: dict[tuple[str, str], list[str]] = attrs.Factory(dict)

    def add(self, work: str, stack: str, figures: Figures) -> None:
        self._figures.setdefault((work, stack), []).append(figures)

    def add_failure(self, work: str, stack: str, reason: str) -> None:
        self._figures.setdefault((work, stack), []).append(None)
        self.failures.setdefault((work, stack), []).append(reason)

    def works(self) -> list[str]:
        return list(dict.fromkeys(work for work, _ in self._figures))

    def stacks(self, work: str) -> list[str]:
        return [stack for measured, stack in self._figures if measured == work]

    def values(self, work: str, stack: str, figure: str) -> list[float]:
        return [figures[figure] for figures in self._figures.get((work, stack), []) if figures and figure in figures]

    def median(self, work: str, stack: str, figure: str) -> float | None:
        values = self.values(work, stack, figure)
        return median(values) if values else None

    def spread(self, work: str, stack: str, figure: str) -> tuple[float, float] | None:
        values = self.values(work, stack, figure)
        return (min(values), max(values)) if values else None

    def ratio(self, work: str, figure: str, stack: str, other: str) -> float | None:
        """The median of the ratios of the two in the same repetition; `None` without a pair."""
        pairs = zip(self._figures.get((work, stack), []), self._figures.get((work, other), []), strict=False)
        ratios = [
            one[figure] / two[figure] for one, two in pairs if one and two and figure in one and two.get(figure, 0) > 0
        ]
        return median(ratios) if ratios else None
