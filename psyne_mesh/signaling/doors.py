"""Who may come in to a server: limits before anybody has proved anything, by address and in total. Pure."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from enum import Enum
from ipaddress import IPv6Address, ip_address

import attrs

from psyne_mesh.limits import TokenBucket, forget_oldest

_BUCKETS_MAX = 10_000  # addresses whose rates are remembered; the one that knocked longest ago begins anew
_LANE_SHARE = 4  # one address takes at most this part of the lane of those who are told to come back
_RETRY_MAX_S = 30  # a guess: longer, and a player believes that there is no server
_CROWD_HALVES_S = 10.0  # of those who were told to come back half are given up on after so long: they may never come


class Standing(Enum):
    WAITING = "waiting"  # let in; it has not proved who it is
    CLIENT = "client"
    TURNED_AWAY = "turned away"  # gets a short answer
    SLAMMED = "slammed"  # gets none
    GONE = "gone"


@attrs.define(eq=False)
class Entry:
    """One connection. `reason` and `retry_after_s`: why, and when to come back, if it was turned away."""

    address: str
    standing: Standing
    reading: TokenBucket  # shared by all connections of the address
    reason: str = ""
    retry_after_s: int = 0


@attrs.frozen(kw_only=True)
class DoorLimits:
    """What is over a limit is told to come back (HTTP 503 with Retry-After), or cut off where even that is too much."""

    clients_max: int = 10_000
    # Behind a proxy all clients share its address. Never more than half of what this process has descriptors for.
    clients_per_address_max: int = 1_000
    # Handshakes under way: at 3 ms each the last has waited for less than a second. When all are taken, the oldest of
    # the address that has most gives way.
    waiting_max: int = 256
    waiting_per_address_max: int = 128
    # Hellos cost 3 ms: all together three quarters of a core, one address 15 %. The burst is a school behind one NAT.
    hellos_per_s: float = 250.0
    hellos_per_address_per_s: float = 50.0
    hellos_per_address_burst: float = 256.0
    # Of clients of one address together, in the units of `ServerConfig.messages_per_s`: 20 to 40 % of a core.
    messages_per_address_per_s: float = 2_000.0
    messages_per_address_burst: float = 20_000.0  # a thousand players come back at once
    turned_away_max: int = 128  # at once; they are told to come back. More are cut off
    descriptors_reserve: int = 64  # for logs, Redis, the listener and what the program itself opens


class Doors:
    """1. `knock(address, now)` for each connection, before a byte of it is read. 2. `proved(entry, now)` when it said who
    it is; False: too late, others came first. 3. `left(entry)` at its end, whatever it was. 4. `take_evicted()` after each
    knock: who must go for others.

    address: as `address_of` gives it. descriptors: how many files this process may have open.
    """

    def __init__(self, limits: DoorLimits, descriptors: float, now: float) -> None:
        self._limits = limits
        self._connections_max = max(16, descriptors - limits.descriptors_reserve - limits.turned_away_max)
        self._per_address_max = min(limits.clients_per_address_max, self._connections_max / 2)
        self._waiting: dict[Entry, None] = {}  # the oldest first
        self._count: dict[Standing, Counter[str]] = {standing: Counter() for standing in Standing}
        self._hellos = TokenBucket(burst=limits.waiting_max, per_second=limits.hellos_per_s, now=now)
        self._hellos_of: OrderedDict[str, TokenBucket] = OrderedDict()
        self._reading_of: OrderedDict[str, TokenBucket] = OrderedDict()
        self._crowd = 0.0  # told to come back, and not back yet
        self._crowd_at = now
        self._evicted: list[Entry] = []

    def count(self, standing: Standing) -> int:
        return self._count[standing].total()

    def knock(self, address: str, now: float) -> Entry:
        entry = Entry(address, Standing.WAITING, self._reading(address, now))
        reason = self._objection(address, now)
        if reason is not None:
            entry.reason = reason
            entry.standing = self._turn_away(entry, now)
        else:
            self._waiting[entry] = None
            self._crowd = max(0.0, self._crowd - 1)
        self._count[entry.standing][address] += 1
        return entry

    def proved(self, entry: Entry, now: float, *, replaces: bool = False) -> bool:
        """`replaces`: a client with the same identity is here, and gives way."""
        if entry.standing is not Standing.WAITING:
            return False
        if self.count(Standing.CLIENT) >= self._limits.clients_max and not replaces:
            return False
        self._forget(entry)
        entry.standing = Standing.CLIENT
        self._count[Standing.CLIENT][entry.address] += 1
        return True

    def left(self, entry: Entry) -> None:
        self._forget(entry)
        entry.standing = Standing.GONE

    def take_evicted(self) -> list[Entry]:
        evicted, self._evicted = self._evicted, []
        return evicted

    # ------------------------------------------------------------------------------------------------------- helpers

    def _objection(self, address: str, now: float) -> str | None:
        limits, clients, waiting = self._limits, self._count[Standing.CLIENT], self._count[Standing.WAITING]
        if clients[address] + waiting[address] >= self._per_address_max:
            return "this server has as many guests from your address as it allows"
        if waiting[address] >= limits.waiting_per_address_max:
            return "too many handshakes from your address are under way"
        if clients.total() >= limits.clients_max:
            return "this server has as many guests as it can serve"
        hellos = self._hellos_of.pop(address, None) or TokenBucket(
            burst=limits.hellos_per_address_burst, per_second=limits.hellos_per_address_per_s, now=now
        )
        self._hellos_of[address] = hellos
        forget_oldest(self._hellos_of, _BUCKETS_MAX)
        if hellos.left(now) < 1:
            return "too many guests from your address at once"
        if self._hellos.left(now) < 1:
            return "too many guests at once"
        if not self._makes_room(address):
            return "too many handshakes are under way"
        hellos.charge(1, now)
        self._hellos.charge(1, now)
        return None

    def _makes_room(self, address: str) -> bool:
        """Who has most of what is scarce gives some of it to who has less: silent ones keep nobody out."""
        clients, waiting = self._count[Standing.CLIENT], self._count[Standing.WAITING]
        if len(self._waiting) < self._limits.waiting_max and (
            clients.total() + waiting.total() < self._connections_max - len(self._evicted)
        ):
            return True
        if not waiting:
            return False
        greediest, most = waiting.most_common(1)[0]
        if most <= waiting[address] + 1:
            return False
        victim = next(entry for entry in self._waiting if entry.address == greediest)
        self._forget(victim)
        victim.standing = Standing.SLAMMED
        self._count[Standing.SLAMMED][greediest] += 1
        self._evicted.append(victim)
        return True

    def _turn_away(self, entry: Entry, now: float) -> Standing:
        self._crowd *= 0.5 ** ((now - self._crowd_at) / _CROWD_HALVES_S)
        self._crowd_at = now
        self._crowd += 1
        entry.retry_after_s = min(_RETRY_MAX_S, math.ceil(self._crowd / self._limits.hellos_per_s))
        lane = self._count[Standing.TURNED_AWAY]
        lane_max = self._limits.turned_away_max
        if lane.total() >= lane_max or lane[entry.address] >= max(1, lane_max // _LANE_SHARE):
            return Standing.SLAMMED
        return Standing.TURNED_AWAY

    def _forget(self, entry: Entry) -> None:
        self._waiting.pop(entry, None)
        count = self._count[entry.standing]
        count[entry.address] -= 1
        if count[entry.address] <= 0:
            del count[entry.address]

    def _reading(self, address: str, now: float) -> TokenBucket:
        bucket = self._reading_of.pop(address, None) or TokenBucket(
            burst=self._limits.messages_per_address_burst, per_second=self._limits.messages_per_address_per_s, now=now
        )
        self._reading_of[address] = bucket
        forget_oldest(self._reading_of, _BUCKETS_MAX)
        return bucket


def address_of(host: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one, which is one household's (RFC 6177)."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
