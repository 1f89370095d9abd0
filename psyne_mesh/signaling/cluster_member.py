"""The Trio shell of a `ClusterSwitchboard`: heartbeats, and payloads to and from the backplane."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.signaling.backplane import BackplaneDown, BackplaneLink
from psyne_mesh.signaling.cluster import HEARTBEAT_S, ClusterSwitchboard
from psyne_mesh.signaling.cluster_messages import BUNDLE_BYTES_MAX, bundle
from psyne_mesh.signaling.sparse_log import SparseLog

logger = logging.getLogger(__name__)

_QUEUE_MAX = 10_000  # messages for the backplane; more are dropped and counted: Redis is down or far too slow
_SETTLE_S = 0.3  # for the answers of the other servers, before the first client comes in
_LEAVE_S = 1.0  # for what is queued and the goodbye; a backplane that is slower than that has lost us anyhow


@uninterrupted
class ClusterMember:
    """1. `await nursery.start(member.run)`: returns when the other servers had time to answer.
    2. `flush()` whenever the switchboard was called. 3. `await leave()` before the end."""

    def __init__(self, switchboard: ClusterSwitchboard, link: BackplaneLink, deliver: Callable[[], None]) -> None:
        self._switchboard = switchboard
        self._link = link
        self._deliver = deliver  # what a payload or a heartbeat brought about; it flushes
        self._queue, self._outbound = trio.open_memory_channel[tuple[str | None, bytes]](_QUEUE_MAX)
        self._all_sent = trio.Event()
        self._is_leaving = False
        self._log = SparseLog(logger)
        self.dropped = 0  # messages to other servers

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all)
            nursery.start_soon(self._receive_all)
            self._switchboard.start(trio.current_time())
            self.flush()
            await trio.sleep(_SETTLE_S)
            task_status.started()
            while True:
                await trio.sleep(HEARTBEAT_S)
                self._switchboard.tick(trio.current_time())
                self._deliver()

    def flush(self) -> None:
        for item in self._switchboard.take_wire():
            if self._is_leaving:
                continue  # to the others we are gone
            try:
                self._queue.send_nowait(item)
            except trio.WouldBlock:
                self.dropped += 1

    async def leave(self) -> None:
        """So that the others need not wait for our silence. It goes behind all that was said, and nothing follows it: any
        other word of ours would bring us back."""
        self._switchboard.stop()
        self.flush()
        self._is_leaving = True
        self._queue.close()
        with trio.move_on_after(_LEAVE_S, shield=True):
            await self._all_sent.wait()

    async def _send_all(self) -> None:
        try:
            async for first in self._outbound:
                for to, messages in self._runs(first):
                    try:
                        await self._link.publish(to, bundle(messages))
                    except BackplaneDown as error:
                        self.dropped += len(messages)
                        self._log.say("down", f"the backplane is down, this server is on its own: {error}")
        finally:
            self._all_sent.set()  # or nothing more will be: killed

    def _runs(self, first: tuple[str | None, bytes]) -> list[tuple[str | None, list[bytes]]]:
        """What is queued, in order; what goes to one place in a row is one payload."""
        runs = [(first[0], [first[1]])]
        size = len(first[1])
        while True:
            try:
                to, message = self._outbound.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return runs
            size += len(message)
            if runs[-1][0] == to and size <= BUNDLE_BYTES_MAX:
                runs[-1][1].append(message)
            else:
                runs.append((to, [message]))
                size = len(message)

    async def _receive_all(self) -> None:
        while True:
            payload = await self._link.receive()
            self._switchboard.receive_wire(payload, trio.current_time())
            self._deliver()
