"""CPU time of peer processes around a measurement."""

from __future__ import annotations

from types import TracebackType

from benchmarks.process import PeerProcess


class CpuMeter:
    """`async with CpuMeter(one, two) as cpu:`, then `cpu.seconds`: of all of them, with all their threads."""

    def __init__(self, *peers: PeerProcess) -> None:
        self._peers = peers
        self.seconds = 0.0

    async def __aenter__(self) -> CpuMeter:
        self.seconds = -await self._total()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.seconds += await self._total()

    async def _total(self) -> float:
        return sum([float((await peer.call("usage", tidy=False))["cpu_s"]) for peer in self._peers])
