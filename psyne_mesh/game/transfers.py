"""Files from player to player, beside play: the receiver asks for what it lacks, and only for as much as the path bears.

The sender offers a file by its size and hash. The receiver grants bytes up to a limit, a little more with each chunk that comes
(so chunks leave at the pace at which they arrive), and measures by the echo of its words how long they queue on the way:
the limit grows while that is next to nothing and shrinks when it is not, as in LEDBAT (RFC 6817), so that positions on the
same path come about as soon as without it. After a break it asks from where it stands; so does who was gone for less
than `KEPT_S`, by the same hash.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game.transfer_wire import (
    CHUNK_BYTES,
    FILE_BYTES_MAX,
    REASON_MAX,
    Chunk,
    Done,
    Offer,
    Stop,
    TransferWord,
    Want,
)
from psyne_mesh.identity import PeerId

WINDOW_MIN: Final = 2 * CHUNK_BYTES
WINDOW_FIRST: Final = 4 * CHUNK_BYTES
WINDOW_MAX: Final = 2**18
"""A quarter of what a link lets wait on one channel (`SOFT_BUDGET_BYTES`): 2.5 MB/s at 100 ms."""
QUEUE_SHARE = 0.07
"""Of the round trip, and so twice that of a position's one way, may be spent in queues: positions may lose 30 %."""
QUEUE_MIN_S = 0.001
"""A chunk takes so long on a path of 4 MB/s: less than that cannot be told from none."""
URGENT_QUEUE_S = 0.015
"""The same of what we have asked for, which we wait for without playing: a tick of 60 Hz."""
BASE_S = 30.0
"""The shortest round trip of so long is the path's own."""
STALL_S = 1.5
STALL_MAX_S = 8.0
"""Nothing has come for so long: the receiver asks again from where it stands, and then after twice as long each time."""
ANEW_EVERY_S = 0.5
"""More often the sender does not begin again: one small word may make it send a whole window."""
KEPT_S = 60.0
"""Longer than the seat of a crashed player waits (45 s): what has come of its file waits for it."""
INCOMING_MAX = 4
"""Files that one player may be sending us at once."""
INCOMING_BYTES_MAX: Final = 2 * FILE_BYTES_MAX
"""Of all that is coming and all that waits to be taken, half of it from one player. What is offered beyond it is refused; what
we asked for is beside it.
"""


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Progress:
    """So many bytes of our file `number` have come to the player."""

    def __init__(self, number: int, peer: PeerId, done: int, size: int) -> None:
        self.number, self.peer, self.done, self.size = number, peer, done, size


class Sent:
    """Our file is over: with that player, whole if `reason` is ""."""

    def __init__(self, number: int, peer: PeerId, reason: str) -> None:
        self.number, self.peer, self.reason = number, peer, reason


class Arrived:
    """A file of that player is here, whole, and its hash is right."""

    def __init__(self, peer: PeerId, name: str, data: bytes, digest: bytes) -> None:
        self.peer, self.name, self.data, self.digest = peer, name, data, digest


TransferEvent = Progress | Sent | Arrived


class Window:
    """How many bytes may be under way. 1. `note(rtt_s, now)` for each chunk. 2. `size`."""

    def __init__(self, queue_min_s: float = QUEUE_MIN_S) -> None:
        self._queue_min_s = queue_min_s
        self.size = float(WINDOW_FIRST)
        self._bases: list[tuple[float, float]] = []  # when it was measured, a round trip shorter than all after it
        self._last: list[float] = []
        self._is_starting = True
        self._shrunk_at = -math.inf

    def note(self, rtt_s: float, now: float) -> None:
        self._bases = [(at, rtt) for at, rtt in self._bases if now - at < BASE_S and rtt < rtt_s] + [(now, rtt_s)]
        base = self._bases[0][1]
        self._last = [*self._last[-3:], rtt_s]
        # The least of four: one that met a burst says nothing. In the beginning a queue grows before four have told of it.
        queued = min(self._last[-2:] if self._is_starting else self._last) - base
        if queued <= max(self._queue_min_s, QUEUE_SHARE * base):
            more = CHUNK_BYTES / 3 if self._is_starting else CHUNK_BYTES * CHUNK_BYTES / self.size
            self.size = min(WINDOW_MAX, self.size + more)
        elif now - self._shrunk_at > rtt_s:
            self.size = max(WINDOW_MIN, self.size * (0.5 if self._is_starting else 0.8))
            self._is_starting = False
            self._shrunk_at = now

    def begin_anew(self) -> None:
        """After a break the path may be another."""
        self.__init__(self._queue_min_s)  # type: ignore[misc]


class _Outgoing:
    def __init__(self, number: int, peer: PeerId, name: str, data: bytes, digest: bytes, now: float) -> None:
        self.number, self.peer, self.name, self.data, self.digest = number, peer, name, data, digest
        self.cursor = self.limit = 0
        self.heard_at = now
        self.anew_at = -math.inf
        self.is_here = True

    def offer(self) -> Offer:
        return Offer(self.number, len(self.data), self.digest, self.name)


class _Incoming:
    def __init__(self, offer: Offer, queue_min_s: float) -> None:
        self.number, self.name, self.size, self.digest = offer.number, offer.name, offer.size, offer.digest
        self.data = bytearray()
        self.hash = hashlib.sha256()
        self.window = Window(queue_min_s)
        self.came_at = 0.0
        self.ask_at = math.inf
        self.pause_s = STALL_S


class Transfers:
    """1. `send(peer, name, data, digest, now)` gives a number; `stop(number)`. 2. `receive(peer, word, now)`;
    `peer_joined(peer, now)` and `peer_left(peer, now, is_for_good=...)`. 3. `handle_timeout(now)` at `next_timeout()`. 4. From
    `accept(bytes_max)` on files are taken; `taken(size)` once the game has one. 5. After each: send `take_outputs()`, reliably
    and in order; `take_events()`.
    """

    def __init__(self) -> None:
        self._next = 1
        self._outgoing: dict[int, _Outgoing] = {}
        self._incoming: dict[tuple[PeerId, bytes], _Incoming] = {}
        self._bytes_max = -1
        self._expected: dict[tuple[PeerId, bytes], int] = {}  # whom we have asked for what, and how large that is
        self._waiting_bytes = 0  # of files that the game has not taken
        self._outputs: list[tuple[PeerId, TransferWord]] = []
        self._events: list[TransferEvent] = []

    # ------------------------------------------------------------------------------------------------------ the game's

    def send(self, peer: PeerId, name: str, data: bytes, digest: bytes, now: float) -> int:
        number, self._next = self._next, self._next + 1
        is_first = not any(each.peer == peer for each in self._outgoing.values())
        outgoing = self._outgoing[number] = _Outgoing(number, peer, name, data, digest, now)
        if is_first:
            self._outputs.append((peer, outgoing.offer()))
        return number

    def stop(self, number: int) -> None:
        outgoing = self._outgoing.get(number)
        if outgoing is not None:
            self._outputs.append((outgoing.peer, Stop(number)))
            self._end(outgoing, "was stopped")

    def receiver_of(self, number: int) -> PeerId | None:
        outgoing = self._outgoing.get(number)
        return None if outgoing is None else outgoing.peer

    def accept(self, bytes_max: int) -> None:
        self._bytes_max = max(self._bytes_max, bytes_max)

    def expect(self, peer: PeerId, digest: bytes, size: int) -> None:
        """We have asked that player for it."""
        self._expected[peer, digest] = size

    def expect_no_more(self, peer: PeerId, digest: bytes) -> None:
        """It has come, or shall come no more."""
        self._expected.pop((peer, digest), None)
        incoming = self._incoming.pop((peer, digest), None)
        if incoming is not None:
            self._outputs.append((peer, Done(incoming.number, "the player has it from another one")))

    def came(self, peer: PeerId, digest: bytes) -> int:
        """So many bytes of that file are here."""
        incoming = self._incoming.get((peer, digest))
        return 0 if incoming is None else len(incoming.data)

    def taken(self, size: int) -> None:
        self._waiting_bytes -= size

    def arriving(self) -> list[tuple[PeerId, str, int, int]]:
        """Who sends, the name, how many bytes are here and how many there are."""
        return [(peer, each.name, len(each.data), each.size) for (peer, _), each in self._incoming.items()]

    # -------------------------------------------------------------------------------------------------------- the room's

    def peer_joined(self, peer: PeerId, now: float) -> None:
        """Or its link is back."""
        first = self._first_to(peer)
        if first is not None:
            first.is_here, first.heard_at, first.anew_at = True, now, -math.inf
            self._outputs.append((peer, first.offer()))

    def peer_left(self, peer: PeerId, now: float, *, is_for_good: bool) -> None:
        for outgoing in [each for each in self._outgoing.values() if each.peer == peer]:
            outgoing.is_here, outgoing.heard_at = False, now
            if is_for_good:
                self._end(outgoing, "the player left")
        for key, incoming in list(self._incoming.items()):
            if key[0] == peer:
                incoming.came_at, incoming.ask_at = now, math.inf
                if is_for_good:
                    del self._incoming[key]

    def receive(self, peer: PeerId, word: TransferWord, now: float) -> None:
        """Raises ProtocolError for a file whose hash is wrong; it is refused then."""
        match word:
            case Offer():
                self._on_offer(peer, word, now)
            case Chunk():
                self._on_chunk(peer, word, now)
            case Want():
                self._on_want(peer, word, now)
            case Stop(number=number):
                for key, incoming in list(self._incoming.items()):
                    if key[0] == peer and incoming.number == number:
                        del self._incoming[key]
            case Done(number=number, reason=reason):
                outgoing = self._outgoing.get(number)
                if outgoing is not None and outgoing.peer == peer:
                    self._end(outgoing, reason)

    def next_timeout(self) -> float:
        dues = [min(each.ask_at, each.came_at + KEPT_S) for each in self._incoming.values()]
        return min(dues + [each.heard_at + KEPT_S for each in self._firsts()], default=math.inf)

    def handle_timeout(self, now: float) -> None:
        for (peer, digest), incoming in list(self._incoming.items()):
            if now >= incoming.came_at + KEPT_S:
                del self._incoming[peer, digest]
            elif now >= incoming.ask_at:
                incoming.window.begin_anew()
                self._ask(peer, incoming, now, is_anew=True)
                incoming.pause_s = min(2 * incoming.pause_s, STALL_MAX_S)
        for outgoing in self._firsts():
            if now >= outgoing.heard_at + KEPT_S:
                self._end(outgoing, "nothing was heard for a minute" if outgoing.is_here else "the player left")

    def take_outputs(self) -> list[tuple[PeerId, TransferWord]]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_events(self) -> list[TransferEvent]:
        events, self._events = self._events, []
        return events

    # ------------------------------------------------------------------------------------------------------- sending

    def _firsts(self) -> list[_Outgoing]:
        """One file at a time goes to each player."""
        firsts: dict[PeerId, _Outgoing] = {}
        for outgoing in self._outgoing.values():
            firsts.setdefault(outgoing.peer, outgoing)
        return list(firsts.values())

    def _first_to(self, peer: PeerId) -> _Outgoing | None:
        return next((each for each in self._outgoing.values() if each.peer == peer), None)

    def _on_want(self, peer: PeerId, want: Want, now: float) -> None:
        outgoing = self._outgoing.get(want.number)
        if outgoing is None or outgoing.peer != peer or want.held > len(outgoing.data):
            return
        if want.is_anew and now - outgoing.anew_at < ANEW_EVERY_S:
            return
        outgoing.heard_at, outgoing.is_here = now, True
        if want.is_anew:
            outgoing.anew_at = now
            outgoing.cursor = outgoing.limit = want.held
        outgoing.limit = max(outgoing.limit, min(want.limit, want.held + WINDOW_MAX, len(outgoing.data)))
        while outgoing.cursor < outgoing.limit:
            end = min(outgoing.cursor + CHUNK_BYTES, outgoing.limit)
            self._outputs.append(
                (peer, Chunk(want.number, outgoing.cursor, want.stamp, outgoing.data[outgoing.cursor : end]))
            )
            outgoing.cursor = end
        self._events.append(Progress(want.number, peer, want.held, len(outgoing.data)))

    def _end(self, outgoing: _Outgoing, reason: str) -> None:
        del self._outgoing[outgoing.number]
        self._events.append(Sent(outgoing.number, outgoing.peer, reason))
        following = self._first_to(outgoing.peer)
        if following is not None and following.is_here and following.number > outgoing.number:
            self._outputs.append((outgoing.peer, following.offer()))

    # ------------------------------------------------------------------------------------------------------ receiving

    def _on_offer(self, peer: PeerId, offer: Offer, now: float) -> None:
        incoming = self._incoming.get((peer, offer.digest))
        if incoming is not None and incoming.size == offer.size:
            incoming.number = offer.number  # it goes on where it stopped
        else:
            why_not = self._why_not(peer, offer)
            if why_not:
                self._outputs.append((peer, Done(offer.number, why_not[:REASON_MAX])))
                return
            incoming = self._incoming[peer, offer.digest] = _Incoming(
                offer, URGENT_QUEUE_S if (peer, offer.digest) in self._expected else QUEUE_MIN_S
            )
        incoming.came_at = now
        incoming.window.begin_anew()
        if len(incoming.data) == incoming.size:
            self._finish(peer, incoming)
        else:
            self._ask(peer, incoming, now, is_anew=True)

    def _why_not(self, peer: PeerId, offer: Offer) -> str:
        expected = self._expected.get((peer, offer.digest))
        if expected is not None:
            return "" if offer.size == expected else "the player asked for something else"
        unasked = {key: each.size for key, each in self._incoming.items() if key not in self._expected}
        theirs = [size for key, size in unasked.items() if key[0] == peer]
        coming = sum(unasked.values()) + self._waiting_bytes
        if self._bytes_max < 0:
            return "the player's game expects no files"
        if offer.size > self._bytes_max:
            return f"the player takes files of up to {self._bytes_max} bytes"
        is_too_much = sum(theirs) + offer.size > INCOMING_BYTES_MAX // 2 or coming + offer.size > INCOMING_BYTES_MAX
        if len(theirs) >= INCOMING_MAX or is_too_much:
            return "the player has no room for it now"
        return ""

    def _ask(self, peer: PeerId, incoming: _Incoming, now: float, *, is_anew: bool) -> None:
        held = len(incoming.data)
        incoming.ask_at = now + incoming.pause_s
        limit = min(incoming.size, held + int(incoming.window.size))
        self._outputs.append((peer, Want(incoming.number, held, limit, now, is_anew)))

    def _on_chunk(self, peer: PeerId, chunk: Chunk, now: float) -> None:
        incoming = next(
            (each for key, each in self._incoming.items() if key[0] == peer and each.number == chunk.number), None
        )
        if incoming is None or chunk.offset != len(incoming.data) or not chunk.data:
            return  # of before a break
        if chunk.offset + len(chunk.data) > incoming.size:
            raise ProtocolError("a file that is longer than it said")
        incoming.data += chunk.data
        incoming.hash.update(chunk.data)
        incoming.came_at, incoming.pause_s = now, STALL_S
        if 0 <= now - chunk.stamp < KEPT_S:
            incoming.window.note(now - chunk.stamp, now)
        if len(incoming.data) < incoming.size:
            self._ask(peer, incoming, now, is_anew=False)
        else:
            self._finish(peer, incoming)

    def _finish(self, peer: PeerId, incoming: _Incoming) -> None:
        del self._incoming[peer, incoming.digest]
        if incoming.hash.digest() != incoming.digest:
            self._outputs.append((peer, Done(incoming.number, "it came damaged: its hash is another")))
            raise ProtocolError("a file whose hash is another than it said")
        self._outputs.append((peer, Done(incoming.number, "")))
        self._waiting_bytes += incoming.size
        self._events.append(Arrived(peer, incoming.name, bytes(incoming.data), incoming.digest))
