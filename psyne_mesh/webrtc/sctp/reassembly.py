"""From chunks back to messages, and ordered messages into their order.

DATA names no message: fragments belong together when their TSNs are neighbours (RFC 9260 section 6.9), so they are
kept as runs. I-DATA names message and fragment (RFC 8260 section 2.1), so they are kept by that name.
What is held here is limited: `inbound` refuses chunks when `held_bytes` or `held_chunks` is over its limit.

A peer may make us hold what it likes, within those limits, so nothing here ever looks through it: every step costs what it
adds, delivers or drops, and at most the logarithm of what is held. Numbers stand in heaps for that, with their oldest on top.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush

from psyne_mesh.webrtc.sctp.events import MessageReceived
from psyne_mesh.webrtc.sctp.wire import FLAG_BEGIN, FLAG_END, FLAG_UNORDERED, unwrap

HELD_LIFE_S = 1.0  # of a perishable message; two round trips where that is longer

_WAITING_CHUNKS = 2  # a whole message that waits counts as so many held chunks: it will cost its reader as well
_STALE_SPARED = 16  # heaps are cleaned when more of their entries are void than count, and than this

_WHOLE = FLAG_BEGIN | FLAG_END
_new = tuple.__new__  # twice as fast as MessageReceived(...)


class _Run:
    """Fragments of DATA with neighbouring TSNs, first_tsn up to but not including next_tsn."""

    __slots__ = ("begins", "ends", "first_tsn", "key", "next_tsn", "parts", "ppid")

    def __init__(self, tsn: int, key: tuple[int, int, bool], ppid: int, flags: int, payload: bytes) -> None:
        self.key = key  # stream, SSN, unordered
        self.ppid = ppid
        self.first_tsn = tsn
        self.next_tsn = tsn + 1
        self.begins = bool(flags & FLAG_BEGIN)
        self.ends = bool(flags & FLAG_END)
        self.parts = deque((payload,))


class _Partial:
    """Fragments of one I-DATA message: `parts` from FSN 0 without a hole, `early` the others, all up to `highest_fsn`."""

    __slots__ = ("early", "highest_fsn", "last_fsn", "parts", "ppid")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.early: dict[int, bytes] = {}
        self.highest_fsn = -1  # of those that ever were early
        self.last_fsn = -1
        self.ppid = 0


class _Waiting:
    """Whole ordered messages of one stream that came before their turn. Their numbers are unwrapped, from `expected` on, and
    leave in their order only, so `order` holds no void ones."""

    __slots__ = ("expected", "messages", "order")

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.messages: dict[int, tuple[int, bytes, float]] = {}  # number -> (PPID, message, since)
        self.order: list[int] = []  # a heap


class _Numbers:
    """The MIDs of incomplete messages of one stream, unwrapped, in a heap. Those that have ended are void; `live` are not."""

    __slots__ = ("heap", "live")

    def __init__(self, mid: int) -> None:
        self.heap = [mid]
        self.live = 1

    def add(self, mid: int) -> None:
        heappush(self.heap, unwrap(self.heap[0], mid))
        self.live += 1


class Reassembly:
    """1. Per packet set `now`, then `add_data` or `add_i_data` per new chunk. 2. `forward` and `reset` as the peer says.
    3. Drain `ready`.

    perishable: streams whose messages are dropped when they had to wait for `held_life_s` for one that then never came.
    """

    __slots__ = (
        "_by_end",
        "_by_start",
        "_mask",
        "_next",
        "_numbers",
        "_partials",
        "_run_starts",
        "_runs_of",
        "_waiting",
        "held_bytes",
        "held_chunks",
        "held_life_s",
        "now",
        "perishable",
        "ready",
        "violations",
    )

    def __init__(self, *, interleaving: bool) -> None:
        self._mask = 0xFFFFFFFF if interleaving else 0xFFFF  # MIDs have 32 bits, SSNs 16
        self._next: dict[int, int] = {}  # stream -> number of the next ordered message
        self._waiting: dict[int, _Waiting] = {}  # by stream
        self.now = 0.0
        self.perishable: set[int] = set()
        self.held_life_s = HELD_LIFE_S
        self._by_start: dict[int, _Run] = {}
        self._by_end: dict[int, _Run] = {}
        self._run_starts: list[int] = []  # a heap of first TSNs, some of them void
        self._runs_of: dict[int, set[int]] = {}  # stream -> first TSNs
        self._partials: dict[tuple[int, bool, int], _Partial] = {}  # (stream, unordered, MID)
        self._numbers: dict[tuple[int, bool], _Numbers] = {}  # of the partials, by (stream, unordered)
        self.held_bytes = 0  # user data that waits for other chunks
        self.held_chunks = 0  # see _WAITING_CHUNKS
        self.ready: list[MessageReceived] = []
        self.violations = 0  # chunks dropped because they contradict what is held

    @property
    def is_empty(self) -> bool:
        return not (self._waiting or self._by_start or self._by_end or self._partials or self.held_chunks)

    def add_data(self, tsn: int, stream: int, ssn: int, ppid: int, flags: int, payload: bytes) -> None:
        """A DATA chunk that came for the first time; `tsn` is unwrapped."""
        if flags & _WHOLE != _WHOLE:
            self._add_to_run(tsn, stream, ssn, ppid, flags, payload)
        elif flags & FLAG_UNORDERED:
            self.ready.append(_new(MessageReceived, (stream, ppid, payload, True)))
        else:
            self._in_order(stream, ssn, ppid, payload)

    def add_i_data(self, stream: int, mid: int, ppid_or_fsn: int, flags: int, payload: bytes) -> None:
        """An I-DATA chunk that came for the first time."""
        if flags & _WHOLE == _WHOLE:
            if flags & FLAG_UNORDERED:
                self.ready.append(_new(MessageReceived, (stream, ppid_or_fsn, payload, True)))
            else:
                self._in_order(stream, mid, ppid_or_fsn, payload)
            return
        key = (stream, bool(flags & FLAG_UNORDERED), mid)
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial()
            numbers = self._numbers.get(key[:2])
            if numbers is None:
                self._numbers[key[:2]] = _Numbers(mid)
            else:
                numbers.add(mid)
        elif not flags & _WHOLE and ppid_or_fsn == len(partial.parts) and not partial.early and partial.last_fsn < 0:
            partial.parts.append(payload)  # the straight path: the next fragment of the middle
            self.held_bytes += len(payload)
            self.held_chunks += 1
            return
        fsn = 0 if flags & FLAG_BEGIN else ppid_or_fsn
        if flags & FLAG_BEGIN:
            partial.ppid = ppid_or_fsn
        parts, early = partial.parts, partial.early
        if fsn < len(parts) or fsn in early or (partial.last_fsn >= 0 and (flags & FLAG_END or fsn > partial.last_fsn)):
            self.violations += 1
            return
        if flags & FLAG_END:
            if partial.highest_fsn > fsn:
                self.violations += 1
                return
            partial.last_fsn = fsn
        self.hold(payload)
        if fsn != len(parts):
            early[fsn] = payload
            partial.highest_fsn = max(partial.highest_fsn, fsn)
            return
        parts.append(payload)
        while early and (payload_ := early.pop(len(parts), None)) is not None:
            parts.append(payload_)
        if len(parts) - 1 == partial.last_fsn:
            del self._partials[key]
            self._partial_ended(key[:2])
            self._completed(stream, mid, partial.ppid, parts, unordered=key[1])

    def forward(self, cumulative_tsn: int, skipped: Iterable[tuple[int, bool, int]]) -> None:
        """The peer abandoned messages (RFC 3758 section 3.6, RFC 8260 section 2.3.1). `cumulative_tsn` is the new one,
        already moved over what had arrived beyond it. Work: what is named, dropped and delivered."""
        starts = self._run_starts
        kept = []
        while starts and starts[0] <= cumulative_tsn + 1:
            first_tsn = heappop(starts)
            run = self._by_start.get(first_tsn)
            if run is None:
                continue
            # A fragment that is missing below the cumulative TSN will never come
            if not run.begins or (not run.ends and run.next_tsn <= cumulative_tsn):
                self._drop_run(run)
            else:
                kept.append(
                    first_tsn
                )  # two at most: the one that the next TSN goes on with, and one that begins with it
        for first_tsn in kept:
            heappush(starts, first_tsn)
        mask = self._mask
        half = 1 << (mask.bit_length() - 1)
        # Each stream once: the work must not depend on how often the peer repeats itself
        newest = {(stream, unordered): number for stream, unordered, number in skipped}
        for key, number in newest.items():
            if key in self._numbers:
                self._skip_partials(key, number)
            stream, unordered = key
            ahead = (number - self._next.get(stream, 0)) & mask
            if unordered or ahead >= half:
                continue
            waiting = self._waiting.get(stream)
            if waiting is not None:
                # What came whole before the skipped message is still good: deliver it in order
                last, order = waiting.expected + ahead, waiting.order
                while order and order[0] <= last:
                    self._deliver_waiting(stream, waiting)
            self._next[stream] = (number + 1) & mask
            self._deliver_in_order(stream)

    def reset(self, streams: Collection[int]) -> None:
        """The peer reset its side of these streams (RFC 6525 section 5.2.2 E4): numbers begin at zero again. Work: the
        streams that are named, and what is dropped."""
        if self._next:
            for stream in streams:
                self._next.pop(stream, None)
        self.perishable.difference_update(streams)
        if self._waiting:
            for stream in streams:
                waiting = self._waiting.pop(stream, None)
                if waiting is not None:
                    self.held_bytes -= sum(len(data) for _, data, _ in waiting.messages.values())
                    self.held_chunks -= _WAITING_CHUNKS * len(waiting.messages)
        if self._numbers:
            for stream in streams:
                self._drop_partials((stream, False))
                self._drop_partials((stream, True))
        if self._runs_of:
            for stream in streams:
                for first_tsn in list(self._runs_of.get(stream, ())):
                    self._drop_run(self._by_start[first_tsn])

    def reset_all(self) -> list[int]:
        """The peer reset its side of all its streams: those that have been used. Work: what is dropped, as the tables go as
        wholes."""
        known = list(self._next)
        self._next = {}
        self.perishable.clear()
        self.reset({*self._waiting, *self._runs_of, *(stream for stream, _ in self._numbers)})
        return known

    def hold(self, payload: bytes) -> None:
        self.held_bytes += len(payload)
        self.held_chunks += 1

    def release(self, payloads: Iterable[bytes]) -> None:
        for payload in payloads:
            self.held_bytes -= len(payload)
            self.held_chunks -= 1

    # --------------------------------------------------------------------------------------------------------- helpers

    def _release_partial(self, partial: _Partial) -> None:
        self.release(partial.parts)
        self.release(partial.early.values())

    def _in_order(self, stream: int, number: int, ppid: int, data: bytes) -> None:
        """A whole ordered message."""
        expected = self._next.get(stream, 0)
        if number == expected:
            self._next[stream] = (number + 1) & self._mask
            self.ready.append(_new(MessageReceived, (stream, ppid, data, False)))
            if stream in self._waiting:
                self._deliver_in_order(stream)
            return
        ahead = (number - expected) & self._mask
        waiting = self._waiting.get(stream)
        if ahead > self._mask >> 1 or (waiting is not None and waiting.expected + ahead in waiting.messages):
            self.violations += 1  # a new TSN with a number that was delivered or is held already
            return
        if waiting is None:
            waiting = self._waiting[stream] = _Waiting(expected)
        waiting.messages[waiting.expected + ahead] = (ppid, data, self.now)
        heappush(waiting.order, waiting.expected + ahead)
        self.held_bytes += len(data)
        self.held_chunks += _WAITING_CHUNKS

    def _deliver_in_order(self, stream: int) -> None:
        """The number that is expected on the stream has changed: what waited for it is delivered."""
        waiting = self._waiting.get(stream)
        if waiting is None:
            return
        number = waiting.expected + ((self._next[stream] - waiting.expected) & self._mask)
        order = waiting.order
        while order and order[0] == number:
            self._deliver_waiting(stream, waiting)
            number += 1
        waiting.expected = number
        self._next[stream] = number & self._mask
        if not order:
            del self._waiting[stream]

    def _deliver_waiting(self, stream: int, waiting: _Waiting) -> None:
        """The first of those that wait."""
        ppid, data, since = waiting.messages.pop(heappop(waiting.order))
        self.held_bytes -= len(data)
        self.held_chunks -= _WAITING_CHUNKS
        if self.now - since <= self.held_life_s or stream not in self.perishable:
            self.ready.append(_new(MessageReceived, (stream, ppid, data, False)))

    def _skip_partials(self, key: tuple[int, bool], mid: int) -> None:
        """Drop what is incomplete up to and with `mid`."""
        numbers = self._numbers[key]
        heap = numbers.heap
        last = unwrap(heap[0], mid)
        while heap and heap[0] <= last:
            partial = self._partials.pop((key[0], key[1], heappop(heap) & self._mask), None)
            if partial is not None:
                numbers.live -= 1
                self._release_partial(partial)
        if not numbers.live:
            del self._numbers[key]

    def _drop_partials(self, key: tuple[int, bool]) -> None:
        numbers = self._numbers.pop(key, None)
        if numbers is not None:
            for mid in numbers.heap:
                partial = self._partials.pop((key[0], key[1], mid & self._mask), None)
                if partial is not None:
                    self._release_partial(partial)

    def _partial_ended(self, key: tuple[int, bool]) -> None:
        numbers = self._numbers[key]
        numbers.live -= 1
        if not numbers.live:
            del self._numbers[key]
        elif len(numbers.heap) > 2 * numbers.live + _STALE_SPARED:
            partials = self._partials
            numbers.heap = [mid for mid in numbers.heap if (key[0], key[1], mid & self._mask) in partials]
            heapify(numbers.heap)

    def _drop_run(self, run: _Run) -> None:
        del self._by_end[run.next_tsn]
        self._forget_start(run)
        self.release(run.parts)

    def _forget_start(self, run: _Run) -> None:
        """The run has ended, or goes on as part of the one before it."""
        del self._by_start[run.first_tsn]
        stream = run.key[0]
        firsts = self._runs_of[stream]
        firsts.remove(run.first_tsn)
        if not firsts:
            del self._runs_of[stream]
        if len(self._run_starts) > 2 * len(self._by_start) + _STALE_SPARED:
            self._run_starts[:] = self._by_start
            heapify(self._run_starts)

    def _completed(self, stream: int, number: int, ppid: int, parts: Collection[bytes], *, unordered: bool) -> None:
        data = b"".join(parts)
        self.held_bytes -= len(data)
        self.held_chunks -= len(parts)
        if unordered:
            self.ready.append(MessageReceived(stream, ppid, data, True))
        else:
            self._in_order(stream, number, ppid, data)

    def _add_to_run(self, tsn: int, stream: int, ssn: int, ppid: int, flags: int, payload: bytes) -> None:
        unordered = bool(flags & FLAG_UNORDERED)
        key = (stream, 0 if unordered else ssn, unordered)
        run = None if flags & FLAG_BEGIN else self._by_end.get(tsn)
        if run is not None and (run.ends or run.key != key):
            run = None  # the neighbour is another message whose own end is missing
        if run is None:
            run = self._by_start[tsn] = _Run(tsn, key, ppid, flags, payload)
            heappush(self._run_starts, tsn)
            firsts = self._runs_of.get(stream)
            if firsts is None:
                self._runs_of[stream] = {tsn}
            else:
                firsts.add(tsn)
        else:
            del self._by_end[tsn]
            run.parts.append(payload)
            run.next_tsn = tsn + 1
            run.ends = bool(flags & FLAG_END)
        self.hold(payload)
        if not run.ends:
            after = self._by_start.get(run.next_tsn)
            if after is not None and not after.begins and after.key == key:
                del self._by_end[after.next_tsn]
                self._forget_start(after)
                run = self._join(run, after)
        if run.begins and run.ends:
            self._forget_start(run)
            self._completed(stream, ssn, run.ppid, run.parts, unordered=unordered)
        else:
            self._by_end[run.next_tsn] = run

    def _join(self, run: _Run, after: _Run) -> _Run:
        """Append `after` to `run`, moving the shorter of both so that no order of arrival costs quadratic time."""
        if len(run.parts) < len(after.parts):
            after.parts.extendleft(reversed(run.parts))
            run.parts = after.parts
        else:
            run.parts.extend(after.parts)
        run.next_tsn, run.ends = after.next_tsn, after.ends
        return run
