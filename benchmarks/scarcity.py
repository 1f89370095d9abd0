"""A processor that does not suffice: a quota of Linux's cgroups for some processes, or, where there are none, busy loops beside
them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PERIOD_US = 100_000  # the kernel's default: a quota is given out ten times a second
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Quota:
    """1. `hold(pid)` each process; 2. `limit(cores)` for all of them together, None for no limit. Made by `open_quota`."""

    def __init__(self, place: Path, *, first: bool) -> None:
        self._place = place
        self._first = first

    def hold(self, pid: int) -> None:
        (self._place / "cgroup.procs").write_text(str(pid))

    def limit(self, cores: float | None) -> None:
        quota = -1 if cores is None else max(1_000, int(cores * PERIOD_US))
        if self._first:
            (self._place / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self._place / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (self._place / "cpu.max").write_text(f"{'max' if quota < 0 else quota} {PERIOD_US}")


@contextmanager
def open_quota() -> Iterator[Quota | None]:
    """None where this system, or who we are, allows no such group."""
    for root, first in ((_V1, True), (_V2, False)):
        place = root / f"psyne-overload-{os.getpid()}"
        try:
            place.mkdir()
            if not (place / ("cpu.cfs_quota_us" if first else "cpu.max")).exists():
                place.rmdir()
                continue
        except OSError:
            continue
        # A group competes with each single process beside it: it must not lose against them what the quota leaves it.
        (place / ("cpu.shares" if first else "cpu.weight")).write_text("16384" if first else "1600")
        try:
            yield Quota(place, first=first)
        finally:
            place.rmdir()  # its processes have ended
        return
    yield None


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def cpu_s(pids: list[int]) -> float:
    """Of processes that live, with all their threads. Linux only."""
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / _TICKS
