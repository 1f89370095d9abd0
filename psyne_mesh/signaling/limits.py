"""How much one client may ask of a server. Pure."""

from __future__ import annotations

from collections import Counter

import attrs

from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.registry import RegistryLimits


@attrs.frozen(kw_only=True)
class ServerConfig:
    """Bounds of a signaling server; the policy at each bound stands beside it. Times in seconds."""

    registry: RegistryLimits = attrs.Factory(RegistryLimits)
    clients_max: int = 10_000  # one more is refused: HTTP 503, or 4007 after its hello
    clients_per_address_max: int = 1_000  # the same; behind a proxy all clients share its address
    keepalive_s: float = 10.0  # clients speak at least this often...
    silence_factor: float = 3.0  # ...and are dropped ("timeout") after this many times that without a word
    hello_timeout_s: float = 10.0  # TLS, HTTP head, WebSocket and hello each; then the connection is closed
    outbound_messages_max: int = (
        1_024  # waiting for one client; one more and it is dropped as too slow; see SignalShares
    )
    outbound_bytes_max: int = 8 * 2**20  # the same, in bytes; the longest answer is under 1 MiB
    messages_per_s: float = 100.0  # a faster client is read more slowly; nothing is lost
    burst: int = 500  # joining 15 players with 10 candidates each is 165 messages
    garbage_max: int = 10  # frames that are no messages; one more and the connection is closed
    grace_s: float = 1.0  # for goodbyes when the server stops
    audiences: frozenset[str] | None = None  # host:port names of this server; hellos for others are refused. None: any


class SignalShares:
    """How much of one client's queue signals may fill, so that who floods it takes no place from the news of its rooms,
    and little from the signals of others. Signals are best effort: what exceeds a share is left out.

    1. `admit(sender, size)` before a signal is queued; False: leave it out. 2. `release(sender, size)` when it was sent.
    Where nothing waits, one is always admitted: the queue has bounds of its own.
    """

    __slots__ = ("_all_max", "_message_bytes", "_sender_max", "_total", "_waiting")

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._message_bytes = (
            bytes_max // messages_max
        )  # what one costs at least: so one sum bounds both, messages and bytes
        self._all_max = bytes_max * 3 // 4  # the rest is for news and answers
        self._sender_max = bytes_max // 16  # a guess: some forty offers, or half a second at 8 Mbit/s
        self._total = 0
        self._waiting: Counter[PeerId] = Counter()  # entries that reach 0 are deleted

    def admit(self, sender: PeerId, size: int) -> bool:
        cost = max(size, self._message_bytes)
        if self._waiting[sender] and self._waiting[sender] + cost > self._sender_max:
            return False
        if self._total and self._total + cost > self._all_max:
            return False
        self._waiting[sender] += cost
        self._total += cost
        return True

    def release(self, sender: PeerId, size: int) -> None:
        cost = max(size, self._message_bytes)
        self._total -= cost
        self._waiting[sender] -= cost
        if not self._waiting[sender]:
            del self._waiting[sender]
