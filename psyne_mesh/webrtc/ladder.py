"""The rungs under one connection: the path that ICE found, and below it a tunnel for as long as there is none."""

from __future__ import annotations

import hmac
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # simulations need the times below, and no sockets
    from psyne_mesh.webrtc.ice import Path

# ICE finds a path within two round trips, or within its 0.5 s retransmission after a loss; blocked UDP should cost no
# more than a second. A tunnel that was taken too early costs nothing: the path takes over as soon as it is there.
TUNNEL_AFTER_S = 0.8
# Of the MAC behind each datagram in a tunnel. One forgery in 2**64 comes through, to end one handshake at most.
MAC_BYTES = 8


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
    """1. `set_direct(is_direct)` when ICE has a path and when it lost it. 2. `note_described` when both sides know each
    other; from `deadline` on `use_tunnel()` may be called. 3. `send` takes the best rung that stands. 4. What came through
    the tunnel goes through `open_untrusted`.

    Before a DTLS handshake is through, nothing in it proves who sent a datagram, and one that is made up ends it. On the path
    of ICE the peer is who answered the checks. In a tunnel anybody may pretend to carry, so each datagram there has a MAC,
    keyed with the ICE passwords of the two first descriptions: those who passed these on could forge it, nobody else.
    """

    def __init__(self, direct: Direct, tunnel: Tunnel | None) -> None:
        self._direct = direct
        self._tunnel = tunnel
        self._is_direct = False
        self._tunnelling = False
        self._keys: tuple[bytes, bytes] | None = None  # of what we send and of what the peer sends
        self.deadline = math.inf

    @property
    def has_tunnel(self) -> bool:
        return self._tunnel is not None

    @property
    def is_direct(self) -> bool:
        """Datagrams go over the path of ICE, as far as is known."""
        return self._is_direct

    @property
    def path(self) -> Path | None:
        if self._tunnelling and not self._is_direct and self._tunnel is not None:
            return self._tunnel.path
        return self._direct.path

    def note_described(self, now: float, local_password: str, remote_password: str) -> None:
        """The passwords of the first time hold: ICE restarts change them on the two sides at different moments."""
        if self._keys is None:
            ours, theirs = local_password.encode(), remote_password.encode()
            self._keys = hmac.digest(ours, theirs, "sha256"), hmac.digest(theirs, ours, "sha256")
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
        elif self._keys is not None:
            key = self._keys[0]
            self._tunnel.send([datagram + _mac(key, datagram) for datagram in datagrams])

    def open_untrusted(self, datagrams: Sequence[bytes]) -> list[bytes]:
        """Those of the peer, without their MACs."""
        if self._keys is None:
            return []
        key = self._keys[1]
        return [
            datagram[:-MAC_BYTES]
            for datagram in datagrams
            if hmac.compare_digest(_mac(key, datagram[:-MAC_BYTES]), datagram[-MAC_BYTES:])
        ]


def _mac(key: bytes, datagram: bytes) -> bytes:
    return hmac.digest(key, datagram, "sha256")[:MAC_BYTES]
