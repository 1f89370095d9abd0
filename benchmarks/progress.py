"""What a person sees on stderr while the works are measured: a bar on a terminal, else a line for each finished work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.stacks.registry import Stack
from benchmarks.work import Scale, Work


class Estimate:
    """How long it will take yet: what the works say of themselves, corrected by how long the first ones took."""

    def __init__(self, planned: Sequence[tuple[Work, list[Stack]]], repetitions: int, scale: Scale) -> None:
        self.total_s = sum(work.rough_s * len(stacks) * repetitions for work, stacks in planned)
        self.done_s = 0.0
        self._share = scale.share

    def left_s(self, elapsed_s: float) -> float:
        pace = elapsed_s / self.done_s if self.done_s else self._share
        return max(0.0, self.total_s - self.done_s) * pace


class Shown:
    """The runner's watcher. Works as a context manager."""

    def __init__(self, estimate: Estimate, repetitions: int, console: Console) -> None:
        self._estimate = estimate
        self._repetitions = repetitions
        self._console = console
        self._began = self._work_began = time.monotonic()
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=estimate.total_s)

    def __enter__(self) -> Shown:
        self._bar.start()
        self._console.print(f"{about(self._estimate.left_s(0.0))} to measure, roughly", highlight=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begins(self, work: Work, repetition: int, stack: Stack) -> None:
        words = f"{work.name} {repetition + 1}/{self._repetitions}: {stack.name}, {self._left()} left"
        self._bar.update(self._task, description=words)

    def failed(self, work: Work, stack: Stack, reason: str) -> None:
        self._console.print(f"[bold red]{work.name}: {stack.name} failed[/]")
        self._console.print(reason, highlight=False, markup=False)

    def measured(self, work: Work) -> None:
        self._estimate.done_s += work.rough_s
        self._bar.advance(self._task, work.rough_s)

    def finished(self, work: Work) -> None:
        now = time.monotonic()
        taken, self._work_began = now - self._work_began, now
        self._console.print(f"{work.name} took {about(taken)}, {self._left()} left", highlight=False)

    def _left(self) -> str:
        return f"about {about(self._estimate.left_s(time.monotonic() - self._began))}"


def about(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"
