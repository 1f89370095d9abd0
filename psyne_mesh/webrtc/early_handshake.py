"""DTLS before there is a path: its handshake goes inside ICE's checks (`dtls/embedding.py`), all else waits for the path."""

from __future__ import annotations

import trio

from psyne_mesh.webrtc import dtls
from psyne_mesh.webrtc.link import Link
from psyne_mesh.webrtc.stack import Stack


class EarlyHandshake:
    """What ICE calls an `Embedder`, between a link and its stack.

    1. While it exists and is not `over`, the link is held: nothing that it has leaves, no event goes up. 2. `begin` once the
    stack was started. 3. `path_found` once there is a path: what was not acknowledged goes directly, and the link runs.
    """

    def __init__(self, stack: Stack, link: Link) -> None:
        self._stack = stack
        self._link = link
        self._embedding = dtls.Embedding()
        link.hold()

    @property
    def is_over(self) -> bool:
        """Nothing is carried any more; the peer may go on."""
        return self._embedding.is_over

    def attributes(self) -> tuple[bytes, bytes] | None:
        if self._stack.phase == "connected" and not self._link.is_held:
            self._embedding.finish()
        return self._embedding.attributes()

    def waiting(self) -> int:
        return len(self._embedding.waiting)

    def embedded(self, ack: bytes | None, data: bytes) -> None:
        datagram = self._embedding.receive_untrusted(ack, data)
        if datagram is None:
            return
        if not self._link.is_held:
            self._link.deliver([datagram])
            return
        now = trio.current_time()
        self._stack.receive([datagram], now)
        self.begin(now)

    def begin(self, now: float) -> None:
        """The handshake has something to say."""
        self._embedding.hold(self._stack.handshake_to_send(now))
        if self._stack.phase == "closed":
            self.path_found(now)

    def path_found(self, now: float) -> None:
        if self._link.is_held:
            self._link.release(self._embedding.waiting, now)

    def abandon(self, now: float) -> None:
        """The peer knows nothing of all this."""
        self._embedding.finish()
        self.path_found(now)
