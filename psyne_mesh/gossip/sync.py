"""Anti-entropy between two neighbours: a summary of hashes, a digest of versions, then what is missing (scuttlebutt).

SUMMARY (16 hashes) -> DIGEST of the buckets that differ -> DELTA with records and wants -> DELTA with the wanted.
A room that agrees pays 16 hashes every few seconds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from psyne_mesh.errors import ProtocolError
from psyne_mesh.frozen import Frozen
from psyne_mesh.gossip import codec, effects
from psyne_mesh.gossip.codec import HASH_BYTES, Reader, raw_of, varint
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Effects, ViewsDiffer
from psyne_mesh.gossip.neighbours import Neighbour
from psyne_mesh.gossip.view_hash import BUCKETS
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

_HASHES = struct.Struct(f"{HASH_BYTES}s" * BUCKETS)
SUMMARY_BYTES = _HASHES.size
_ENTRIES_MAX = 960  # of one digest, of 41 bytes each; the rest waits for the next round
_WANTS_MAX = 1024  # ids asked for in one DELTA
_MISMATCH_S = 1.0  # two views that stand still for so long and differ start a sync
_DIGEST_GAP_S = 0.5  # a neighbour gets at most one digest in this time: it is our costliest answer
_PAIR_GAP_S = 2.0  # and we start at most one sync with the same neighbour in this time
_REST_MAX = 4  # beats between two comparisons of a room that agrees: 20 s, while payloads are kept for repair for 30

ENTRY_ALIVE, ENTRY_DOWN, ENTRY_LEFT = 0, 1, 2


class Entry(Frozen):
    """One line of a digest: which version of `peer` the sender has, what it holds of it, and the hash of the record."""

    peer: PeerId
    epoch: int
    incarnation: int
    status: int
    version_hash: bytes


class Versioned(Protocol):
    """What `compare` needs to know of our own view."""

    def version(self, peer: PeerId) -> tuple[int, int, int, bytes] | None:
        """(epoch, incarnation, entry status, hash of the record), or None for somebody unknown."""


class Comparison(Frozen):
    """What follows from a neighbour's digest."""

    theirs_newer: list[PeerId]  # ask for these
    ours_newer: list[PeerId]  # send these
    they_call_down: list[PeerId]  # same version, alive for us: pass the accusation on
    we_call_down: list[PeerId]  # same version or older, down for us: send them our accusation
    two_faced: list[PeerId]  # same version, alive for both, and other words: send ours, which proves it


class Sync:
    """When to compare views, and with whom. How to drive it:

    1. `link_up`, `link_down` follow `links`.
    2. `hash_seen(...)` for every probe.
    3. `handle_timeout(now)` at `deadline`. It wishes: `ViewsDiffer`: send that neighbour a SUMMARY.
    """

    def __init__(self, config: GossipConfig, rng: random.Random, links: dict[PeerId, Neighbour], out: Effects) -> None:
        self._config = config
        self._rng = rng
        self._links = links
        self.effects = out
        self.deadline = math.inf
        self._rest = 1  # a comparison in so many beats
        self._beats = 0  # since the last one

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.SYNC]

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.effects.timers[effects.SYNC] = deadline

    def link_up(self, now: float) -> None:
        if self.deadline == math.inf:
            self.deadline = now + self._config.sync_interval_s * (0.5 + self._rng.random())

    def link_down(self) -> None:
        if not self._links:
            self.deadline = math.inf

    def hash_seen(self, neighbour: Neighbour, theirs: bytes, ours: bytes, ours_since: float, now: float) -> None:
        """The view hash of a probe. It says something only if neither view moves: news are always on their way."""
        views = neighbour.views
        if theirs != views.hash:
            views.hash, views.since = theirs, now
        elif theirs != ours and now - max(views.since, ours_since) >= _MISMATCH_S and now >= views.next_at:
            views.next_at = now + _PAIR_GAP_S
            self.effects.wishes.append(ViewsDiffer(neighbour.peer))
            self.differed()

    def differed(self) -> None:
        """Two views differed, or there is traffic to repair: compare at every beat again."""
        self._rest = 1

    def may_send_digest(self, neighbour: Neighbour, now: float) -> bool:
        if now - neighbour.views.digest_at < _DIGEST_GAP_S:
            return False
        neighbour.views.digest_at = now
        return True

    def handle_timeout(self, now: float) -> None:
        if now < self.deadline:
            return
        self.deadline = now + self._config.sync_interval_s * (0.8 + 0.4 * self._rng.random())
        self._beats += 1
        if self._links and self._beats >= self._rest:
            self._beats, self._rest = 0, min(_REST_MAX, 2 * self._rest)
            partner = self._rng.choice(list(self._links.values()))
            partner.views.next_at = now + _PAIR_GAP_S
            self.effects.wishes.append(ViewsDiffer(partner.peer))


# ------------------------------------------------------------------------------------------------------- the frames


def summary(buckets: list[bytes]) -> bytes:
    return codec.head(codec.SUMMARY) + _HASHES.pack(*buckets)


def differing_untrusted(data: bytes, offset: int, buckets: list[bytes]) -> int:
    """The mask of buckets in which the summary at `offset` differs from ours."""
    if len(data) < offset + _HASHES.size:
        raise ProtocolError("summary too short")
    theirs = _HASHES.unpack_from(data, offset)
    return sum(1 << i for i in range(BUCKETS) if theirs[i] != buckets[i])


def digest(mask: int, entries: Iterable[tuple[PeerId, int, int, int, bytes]]) -> bytes:
    parts = [codec.head(codec.DIGEST), mask.to_bytes(2, "big")]
    parts += map(_line, islice(entries, _ENTRIES_MAX))
    return b"".join(parts)


@lru_cache(maxsize=8192)
def _line(entry: tuple[PeerId, int, int, int, bytes]) -> bytes:
    """Remembered: a view changes less often than it is compared."""
    peer, epoch, incarnation, status, version_hash = entry
    return b"".join((raw_of(peer), varint(epoch), varint(incarnation), bytes((status,)), version_hash))


def digest_untrusted(frame: bytes) -> tuple[int, list[Entry]]:
    reader = Reader(frame)
    mask = int.from_bytes(reader.take_untrusted(2), "big")
    entries: list[Entry] = []
    while reader.more:
        if len(entries) == _ENTRIES_MAX:
            raise ProtocolError("digest too long")
        peer = reader.peer_untrusted()
        epoch, incarnation, status = reader.varint_untrusted(), reader.varint_untrusted(), reader.u8_untrusted()
        entry = Entry(peer, epoch, incarnation, status, reader.take_untrusted(HASH_BYTES))
        if entry.status > ENTRY_LEFT:
            raise ProtocolError("unknown status in a digest")
        entries.append(entry)
    return mask, entries


def compare(entries: list[Entry], ours: Versioned) -> Comparison:
    result = Comparison([], [], [], [], [])
    for entry in entries:
        mine = ours.version(entry.peer)
        theirs = (entry.epoch, entry.incarnation)
        if mine is None:
            if entry.status != ENTRY_LEFT:
                result.theirs_newer.append(entry.peer)
            continue
        epoch, incarnation, status, version_hash = mine
        if theirs > (epoch, incarnation) or (theirs == (epoch, incarnation) and entry.status == ENTRY_LEFT > status):
            if entry.status != ENTRY_DOWN or status == ENTRY_ALIVE:
                result.theirs_newer.append(entry.peer)
        elif theirs < (epoch, incarnation) or status == ENTRY_LEFT > entry.status:
            result.ours_newer.append(entry.peer)
        elif entry.status == ENTRY_DOWN and status == ENTRY_ALIVE:
            result.they_call_down.append(entry.peer)
        elif entry.status == ENTRY_ALIVE and status == ENTRY_DOWN:
            result.we_call_down.append(entry.peer)
        elif entry.status == status == ENTRY_ALIVE and entry.version_hash != version_hash:
            result.two_faced.append(entry.peer)
    return result


def nothing() -> bytes:
    """The delta that says: we know no more than you, and lack nothing."""
    return codec.head(codec.DELTA) + varint(0)


def delta(wants: list[PeerId], items: Iterable[bytes], limit: int) -> list[bytes]:
    wants = wants[:_WANTS_MAX]
    first = codec.head(codec.DELTA) + varint(len(wants)) + b"".join(map(raw_of, wants))
    frames = codec.pack_items(codec.head(codec.DELTA) + varint(0), items, limit)
    return [first, *frames] if wants else frames


def delta_untrusted(frame: bytes) -> tuple[list[PeerId], int]:
    """(wanted ids, offset of the items)."""
    reader = Reader(frame)
    wants = [reader.peer_untrusted() for _ in range(reader.count_untrusted(_WANTS_MAX))]
    return wants, reader.offset
