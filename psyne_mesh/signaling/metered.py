"""A stream that is read no faster than its sender may cost."""

from __future__ import annotations

import trio

from psyne_mesh.limits import TokenBucket
from psyne_mesh.signaling.frames import FrameCounter

BYTES_PER_TOKEN = 4_096  # what unmasking and decoding so much costs is less than the rest of a message
_DEBT_S = 5.0  # so long is reading delayed at most at a time: well below the silence that ends a connection


class Metered(trio.abc.Stream):
    """Frames and bytes that come in are charged to `buckets`; while one is in debt nothing is read, and TCP tells the
    sender so. Nothing is lost."""

    def __init__(self, inner: trio.abc.Stream, *buckets: TokenBucket, skip: int) -> None:
        """skip: so many bytes come before the first frame."""
        self._inner = inner
        self._buckets = buckets
        self._frames = FrameCounter()
        self._skip = skip

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        now = trio.current_time()
        ready_at = min(now + _DEBT_S, max(bucket.ready_at() for bucket in self._buckets))
        if ready_at > now:
            await trio.sleep_until(ready_at)
        data = await self._inner.receive_some(max_bytes)
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        cost = self._frames.feed(data[skipped:]) + len(data) / BYTES_PER_TOKEN
        for bucket in self._buckets:
            bucket.charge(cost, trio.current_time())
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()
