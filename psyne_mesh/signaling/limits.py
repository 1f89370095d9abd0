"""How much one client may ask of a server. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import attrs

from psyne_mesh.config import StunServer
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.churn import ChurnLimits
from psyne_mesh.signaling.doors import DoorLimits
from psyne_mesh.signaling.registry import RegistryLimits

REGIONS_MAX = 32  # as many as a welcome tells of


def _regions(config: object, attribute: object, regions: Mapping[str, str]) -> None:
    if len(regions) > REGIONS_MAX:
        raise InvalidConfig(f"regions: {len(regions)} of them; at most {REGIONS_MAX}")
    for region, server in regions.items():
        if not region or len(region) > 64 or "/" in region or len(server) > 256:
            raise InvalidConfig(f"regions: {region!r} is no name of a region, or its server's is too long")
        StunServer.parse(server)


@attrs.frozen(kw_only=True)
class ServerConfig:
    """Bounds of a signaling server; the policy at each bound stands beside it. Times in seconds."""

    doors: DoorLimits = attrs.Factory(DoorLimits)
    registry: RegistryLimits = attrs.Factory(RegistryLimits)
    churn: ChurnLimits = attrs.Factory(ChurnLimits)
    keepalive_s: float = 10.0  # clients speak at least this often...
    silence_factor: float = 3.0  # ...and are dropped ("timeout") after this many times that without a word
    hello_timeout_s: float = 10.0  # TLS, HTTP head, WebSocket and hello each; then the connection is closed
    outbound_messages_max: int = (
        1_024  # waiting for one client; one more and it is dropped as too slow; see QueueShares
    )
    outbound_bytes_max: int = 8 * 2**20  # the same, in bytes; the longest answer is under 1 MiB
    # Frames and messages; a faster client is read more slowly, nothing is lost, and the welcome tells it the rate. Four
    # players who have no other way carry a game at 20 Hz with half of it.
    messages_per_s: float = 200.0
    burst: int = 500  # joining 15 players with 10 candidates each is 165 messages
    garbage_max: int = 10  # frames that are no messages; one more and the connection is closed
    grace_s: float = 1.0  # for goodbyes when the server stops
    # host or host:port, as clients dial this server; "*" for any. The addresses of this machine need not be named. Hellos
    # for others are refused: a rogue server that a player dials cannot be that player here.
    public_names: frozenset[str] = frozenset()
    # Of web pages that may connect, such as "https://game.example"; "*" for any. Pages of our own public names may.
    origins: frozenset[str] = frozenset()
    # A STUN server in each region, such as {"us-west": "stun.us-west.example:3478"}: clients measure how far they are by it,
    # and are placed by that. At most 32; what a server says in its welcome.
    regions: Mapping[str, str] = attrs.field(factory=dict, validator=_regions)
    shows_rooms: bool = False  # /rooms lists them for everybody
    web: Path | None = (
        None  # a game's page, with index.html, at /; the lobby that comes with us is at /app/ in any case
    )


class QueueShares:
    """How much of one client's queue others may fill, so that who floods it takes no place from answers to the client's own
    questions, and little from others. Signals and news are best effort: what exceeds a share is left out.

    1. `admit(sender, size)` before a signal is queued, or news, with None for the sender. False: leave it out.
    2. `release(sender, size)` when it was sent. Where nothing waits, one is always admitted: the queue has bounds of its own.
    """

    __slots__ = ("_bytes_max", "_message_bytes", "_total", "_waiting")

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._message_bytes = (
            bytes_max // messages_max
        )  # what one costs at least: so one sum bounds both, messages and bytes
        self._bytes_max = bytes_max
        self._total = 0
        self._waiting: Counter[PeerId] = Counter()  # signals of each; entries that reach 0 are deleted

    def admit(self, sender: PeerId | None, size: int) -> bool:
        cost = max(size, self._message_bytes)
        if sender is None:
            total_max = self._bytes_max * 7 // 8  # the rest is for answers
        else:
            total_max = self._bytes_max * 3 // 4  # a further eighth is for news
            sender_max = self._bytes_max // 16  # a guess: some forty offers, or half a second at 8 Mbit/s
            if self._waiting[sender] and self._waiting[sender] + cost > sender_max:
                return False
        if self._total and self._total + cost > total_max:
            return False
        if sender is not None:
            self._waiting[sender] += cost
        self._total += cost
        return True

    def release(self, sender: PeerId | None, size: int) -> None:
        cost = max(size, self._message_bytes)
        self._total -= cost
        if sender is None:
            return
        self._waiting[sender] -= cost
        if not self._waiting[sender]:
            del self._waiting[sender]
