"""What neighbours say is heard a few milliseconds' worth at a time, so that dear words hold up nothing else. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from typing import TypeAlias

from psyne_mesh.identity import PeerId

# Of work (`gossip/costs.py`: a microsecond each) in one turn of the loop; the frame that uses it up is heard to its end, and
# has 24 signatures at most: so no turn takes 5 ms.
TURN_UNITS = 1_000.0
# Of one neighbour in one room that wait. Its account lets it say 4 MiB in a second, of which a quarter of a core hears all; who
# has more waiting than a sixteenth of that speaks to a machine that does not keep up, and gossip repairs what is not heard.
WAITING_BYTES_MAX = 256 * 1024

Speaker: TypeAlias = tuple[bytes, PeerId]  # tag of the room, and who speaks in it


class Turns:
    """1. `may_hear(speaker, frame)` when one came: True, hear it now; False, it waits. 2. `spend(units)` once it was heard. 3.
    `begin()` in the next turn of the loop, as long as anything waits: hear `waiting()`. 4. `rest(speaker)` of whom is gone.

    Of each speaker in order; of several one frame each in turn, so that who says much keeps nobody else waiting.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._left = TURN_UNITS
        self._waiting: OrderedDict[Speaker, deque[bytes]] = OrderedDict()
        self._bytes: Counter[Speaker] = Counter()

    def may_hear(self, speaker: Speaker, frame: bytes) -> bool:
        if self._left > 0.0 and speaker not in self._waiting:
            return True
        if self._bytes[speaker] + len(frame) > WAITING_BYTES_MAX:
            self.dropped += 1
        else:
            self._waiting.setdefault(speaker, deque()).append(frame)
            self._bytes[speaker] += len(frame)
        return False

    def spend(self, units: float) -> None:
        self._left -= units

    def begin(self) -> bool:
        """Whether anything waits."""
        self._left = TURN_UNITS
        return bool(self._waiting)

    def waiting(self) -> Iterator[tuple[Speaker, bytes]]:
        """As long as the turn has units left."""
        while self._left > 0.0 and self._waiting:
            speaker, frames = next(iter(self._waiting.items()))
            frame = frames.popleft()
            self._bytes[speaker] -= len(frame)
            if frames:
                self._waiting.move_to_end(speaker)
            else:
                self._forget(speaker)
            yield speaker, frame

    def rest(self, speaker: Speaker) -> Iterator[bytes]:
        """What it said before it went: a turn's worth."""
        frames = self._waiting.get(speaker, deque())
        self._forget(speaker)
        self._left = max(self._left, TURN_UNITS)
        while self._left > 0.0 and frames:
            yield frames.popleft()

    def _forget(self, speaker: Speaker) -> None:
        self._waiting.pop(speaker, None)
        self._bytes.pop(speaker, None)
