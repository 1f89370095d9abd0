"""A hash over the newest records of everybody alive, in buckets: two views are equal if and only if it is.

Each bucket is hashed over the sorted hashes of its records, and the whole over the buckets: 128 bits, and not linear, so that
nobody can choose records of its own whose sum hides a difference. What changed is hashed when it is asked for.
"""

from __future__ import annotations

from hashlib import blake2b

from psyne_mesh.gossip.codec import HASH_BYTES, NO_HASH

BUCKETS = 16


class ViewHash:
    """1. `put(peer, version_hash)` for each newer record of who is alive, `drop(peer)` when it is not. 2. Read `buckets` and
    `whole`; of nobody at all it is zeros."""

    __slots__ = ("_buckets", "_records", "changed", "value")

    def __init__(self) -> None:
        self._records: list[dict[str, bytes]] = [{} for _ in range(BUCKETS)]
        self._buckets = [NO_HASH] * BUCKETS
        self.changed = 0  # bit i: bucket i is to be hashed again
        self.value = NO_HASH  # as of the last look, if nothing has `changed` since

    def put(self, peer: str, version_hash: bytes) -> None:
        bucket = bucket_of(peer)
        self._records[bucket][peer] = version_hash
        self.changed |= 1 << bucket

    def drop(self, peer: str) -> None:
        bucket = bucket_of(peer)
        if self._records[bucket].pop(peer, None) is not None:
            self.changed |= 1 << bucket

    @property
    def buckets(self) -> list[bytes]:
        if self.changed:
            self._update()
        return self._buckets

    @property
    def whole(self) -> bytes:
        if self.changed:
            self._update()
        return self.value

    def _update(self) -> None:
        changed, self.changed = self.changed, 0
        while changed:
            bucket = changed.bit_length() - 1
            changed ^= 1 << bucket
            self._buckets[bucket] = _hash(sorted(self._records[bucket].values()))
        self.value = _hash(self._buckets) if any(self._records) else NO_HASH


def bucket_of(peer: str) -> int:
    return int(peer[0], 16)


def _hash(parts: list[bytes]) -> bytes:
    return blake2b(b"".join(parts), digest_size=HASH_BYTES).digest() if parts else NO_HASH
