"""The rungs under one connection: the path that ICE found, and below it a tunnel for as long as there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from psyne_mesh.webrtc.ice import Path

# ICE finds a path within two round trips, or within its 0.5 s retransmission after a loss; blocked UDP should cost no
# more than a second. A tunnel that was taken too early costs nothing: the path takes over as soon as it is there.
TUNNEL_AFTER_S = 0.8


class Direct(Protocol):
    """What the ladder needs of ICE."""

    @property
    def path(self) -> Path | None: ...
    def send(self, datagrams: Sequence[bytes]) -> None: ...


class Tunnel(Protocol):
    """Another way for the datagrams of one peer: through a common peer, or through signaling. Unreliable, as UDP is; what
    it carries is DTLS, so whoever carries it reads nothing and can change nothing."""

    @property
    def path(self) -> Path: ...
    def send(self, datagrams: Sequence[bytes]) -> None: ...


class Ladder:
    """1. `set_direct(True)` when ICE has a path, False when it lost it. 2. `note_described(now)` when both sides know each
    other; from `deadline` on `use_tunnel()` may be called. 3. `send` takes the best rung that stands."""

    def __init__(self, direct: Direct, tunnel: Tunnel | None) -> None:
        self._direct = direct
        self._tunnel = tunnel
        self._is_direct = False
        self._tunnelling = False
        self.deadline = math.inf

    @property
    def has_tunnel(self) -> bool:
        return self._tunnel is not None

    @property
    def path(self) -> Path | None:
        if self._tunnelling and not self._is_direct and self._tunnel is not None:
            return self._tunnel.path
        return self._direct.path

    def note_described(self, now: float) -> None:
        if self._tunnel is not None and not self._tunnelling and not self._is_direct:
            self.deadline = min(self.deadline, now + TUNNEL_AFTER_S)

    def set_direct(self, is_direct: bool) -> None:
        self._is_direct = is_direct
        if is_direct:
            self.deadline = math.inf

    def use_tunnel(self) -> None:
        """The tunnel carries from now on whenever there is no direct path."""
        self._tunnelling = self._tunnel is not None
        self.deadline = math.inf

    def send(self, datagrams: Sequence[bytes]) -> None:
        if self._is_direct or not self._tunnelling or self._tunnel is None:
            self._direct.send(datagrams)
        else:
            self._tunnel.send(datagrams)
