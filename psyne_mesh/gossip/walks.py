"""HyParView's random walks through a lobby, where nobody knows everybody: joins and shuffles.

FORWARD_JOIN carries a newcomer's record away from the node it met first; SHUFFLE trades a handful of records with a node
some hops away, and its answer comes back the same way. Ages travel with the records, so that the dead fade out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from psyne_mesh.errors import ProtocolError
from psyne_mesh.frozen import Frozen
from psyne_mesh.gossip import codec, effects
from psyne_mesh.gossip.codec import Reader, sized, varint
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Adopt, Effects
from psyne_mesh.gossip.events import SendFrame
from psyne_mesh.gossip.policy import Policy
from psyne_mesh.gossip.records import RECORD_MAX_BYTES, Record
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

_JOIN_WALKS = 4  # of one newcomer: a few nodes that will dial it are enough
_SHUFFLE_LINKS, _SHUFFLE_KNOWN = 3, 4  # the paper's ka and kp
_LINES_MAX = 16  # records in one shuffle
_PATHS_MAX = 256  # shuffles under way through us; the oldest loses its answer
_TTL_MAX = 16
_AGE_MAX_S = 86_400


class Line(Frozen):
    """A record, and how many seconds ago somebody last had a sign of its subject."""

    record: bytes
    age: int


class Walks:
    """How to drive it: `newcomer(...)` starts join walks, `begin_shuffle(...)` at `deadline`; `join_received`,
    `shuffle_received`, `reply_received` take the frames. They return records to learn, and wish: `Adopt`."""

    def __init__(self, config: GossipConfig, rng: random.Random, out: Effects) -> None:
        self._config = config
        self._rng = rng
        self._paths: dict[bytes, PeerId | None] = {}
        self.effects = out
        self.deadline = math.inf

    @property
    def deadline(self) -> float:
        return self.effects.timers[effects.SHUFFLE]

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self.effects.timers[effects.SHUFFLE] = deadline

    def follow(self, policy: Policy, now: float) -> None:
        if policy.knows_all:
            self.deadline = math.inf
        elif self.deadline == math.inf:
            self.deadline = now + self._config.shuffle_interval_s * self._rng.random()

    # ------------------------------------------------------------------------------------------------------ joins

    def newcomer(self, record: Record, links: list[PeerId]) -> None:
        self._step(self._config.active_walk_length, record.encoded, record.peer, None, links, _JOIN_WALKS)

    def join_received(self, peer: PeerId, ttl: int, record: bytes, subject: PeerId, links: list[PeerId]) -> bool:
        """True if the record should be learned: the walk ends here, or passes the point where it leaves a trace."""
        ttl = min(ttl, self._config.active_walk_length)
        ends = ttl == 0 or len(links) <= 1
        if ends:
            self.effects.wishes.append(Adopt(record))
        else:
            self._step(ttl - 1, record, subject, peer, links, 1)
        return ends or ttl == self._config.passive_walk_length

    def _step(
        self, ttl: int, record: bytes, subject: PeerId, source: PeerId | None, links: list[PeerId], walks: int
    ) -> None:
        open_to = [peer for peer in links if peer not in (subject, source)]
        frame = codec.head(codec.FORWARD_JOIN) + bytes((ttl,)) + record
        for peer in self._rng.sample(open_to, min(walks, len(open_to))):
            self.effects.frames.append(SendFrame(peer, frame, True))

    # --------------------------------------------------------------------------------------------------- shuffles

    def begin_shuffle(self, now: float, own: Line, near: list[Line], known: list[Line], links: list[PeerId]) -> None:
        self.deadline = now + self._config.shuffle_interval_s * (0.67 + 0.66 * self._rng.random())
        if links:
            number = self._rng.getrandbits(64).to_bytes(8, "big")
            self._remember(number, None)
            lines = [own, *self._pick(near, _SHUFFLE_LINKS), *self._pick(known, _SHUFFLE_KNOWN)]
            frame = encode_shuffle(codec.SHUFFLE, number, max(1, self._config.passive_walk_length), lines)
            self.effects.frames.append(SendFrame(self._rng.choice(links), frame, True))

    def shuffle_received(
        self, peer: PeerId, number: bytes, ttl: int, lines: list[Line], known: list[Line], links: list[PeerId]
    ) -> list[Line]:
        if number in self._paths:
            return []  # it walked in a circle
        self._remember(number, peer)
        onward = [other for other in links if other != peer]
        if ttl > 1 and len(onward) > 1:
            frame = encode_shuffle(codec.SHUFFLE, number, min(ttl, _TTL_MAX) - 1, lines)
            self.effects.frames.append(SendFrame(self._rng.choice(onward), frame, True))
            return []
        answer = encode_shuffle(codec.SHUFFLE_REPLY, number, 0, self._pick(known, len(lines)))
        self.effects.frames.append(SendFrame(peer, answer, True))
        return lines

    def reply_received(self, number: bytes, lines: list[Line], links: list[PeerId]) -> list[Line]:
        """Ours to learn, or somebody else's to pass back."""
        if number not in self._paths:
            return []
        back = self._paths.pop(number)
        if back is None:
            return lines
        if back in links:
            self.effects.frames.append(SendFrame(back, encode_shuffle(codec.SHUFFLE_REPLY, number, 0, lines), True))
        return []

    def _pick(self, lines: list[Line], count: int) -> list[Line]:
        return self._rng.sample(lines, min(count, len(lines)))

    def _remember(self, number: bytes, back: PeerId | None) -> None:
        if len(self._paths) >= _PATHS_MAX:
            del self._paths[next(iter(self._paths))]
        self._paths[number] = back


def join_untrusted(frame: bytes) -> tuple[int, bytes]:
    """(ttl, record)."""
    reader = Reader(frame)
    ttl = reader.u8_untrusted()
    return ttl, reader.rest()


def encode_shuffle(kind: int, number: bytes, ttl: int, lines: list[Line]) -> bytes:
    body = b"".join(varint(line.age) + sized(line.record) for line in lines[:_LINES_MAX])
    return codec.head(kind) + number + bytes((ttl,)) + body


def shuffle_untrusted(frame: bytes) -> tuple[bytes, int, list[Line]]:
    """(number, ttl, lines) of a SHUFFLE or SHUFFLE_REPLY."""
    reader = Reader(frame)
    number, ttl = reader.take_untrusted(8), reader.u8_untrusted()
    lines: list[Line] = []
    while reader.more:
        if len(lines) == _LINES_MAX:
            raise ProtocolError("too many records in a shuffle")
        age = min(reader.varint_untrusted(), _AGE_MAX_S)
        lines.append(Line(reader.sized_untrusted(RECORD_MAX_BYTES), age))
    return number, ttl, lines
