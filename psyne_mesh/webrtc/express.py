"""The express lane: messages that may be lost, between two of our own, in DTLS records of their own beside SCTP.

A position needs no chunk, no acknowledgement of its own and no memory of what was sent: a newer one is on its way. So it
travels in a record that holds nothing else, and what the two sides must know of the path rides along: how many came, how
late, and when. One record (integers in network order):

    byte 0       0xE1: the lane, version 1. An SCTP packet begins with its source port, 5000, so with 0x13
    byte 1       how much later than at its best the newest record came here, in 4 ms, 255 at most
    bytes 2-3    number of this record, from 1; one without messages has none of its own and repeats the last
    bytes 4-5    the sender's clock in 0.1 ms
    bytes 6-7    the highest number heard from the other side, 0 before the first
    bytes 8-9    how many were heard
    bytes 10-11  the clock in the newest record that was heard, plus the time since: who sent it reads the round trip
    then each message: SCTP stream (2 bytes), size (2 bytes: 11 bits of it, above them 1 bit of 0, 3 bits of `phase`, and
                 at the top 1 bit for text), the bytes

`phase`: how often an ordered channel has come over from SCTP, where its large messages go; an older phase is late, whatever
its number. All numbers wrap. Nothing is repeated, and nothing waits in a queue: when the path or the reader cannot follow, the
newest messages wait for the next record that may leave, and take the place of those before (RFC 8085 section 3.1.2 asks for a
bound of this kind). Order within a channel follows from the numbers.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from psyne_mesh.errors import ProtocolError

if TYPE_CHECKING:
    from psyne_mesh.webrtc.channel import Channel

EXPRESS = 0xE1
VERSION = 1  # in the description: who does not tell it gets SCTP only
RECORD_MAX = 1191  # bytes; what every path carries, as an SCTP packet of ours
RECORD_SAFE = 512  # bytes; on a path that has just swallowed larger ones
MESSAGES_MAX = 256  # in one record that comes; a record of ours holds no more either

# Records on their way whose fate is not known. The first is the initial window of RFC 6928 in packets, tripled as ours are
# small; the second lets 60 a second through at a round trip of 200 ms whatever is lost; the third bounds a flood.
WINDOW_FIRST = 32
WINDOW_MIN = 16
WINDOW_MAX = 1024
# What was heard is told with what leaves anyway. Where nothing does, after so many records, and for fewer after so long: an
# idle room, whose probes come one by one, sends no report at all.
REPORT_RECORDS = 16
REPORT_RECORDS_MIN = 4
REPORT_AFTER_S = 0.05
# Without a report for so long (or three round trips) what is under way counts as lost; while it goes on, up to a second; and
# a second before the first round trip was measured (RFC 6298 section 2.1).
SILENCE_S = 0.25
SILENCE_FIRST_S = SILENCE_MAX_S = 1.0
# Loss and delay that make us slower, and those that let us go faster: of the loss-based half of Google's congestion control
# (draft-ietf-rmcat-gcc section 6), and a delay that a player begins to see.
LOSS_HIGH, LOSS_LOW = 0.1, 0.02
EPOCH_RECORDS = 20
DELAY_HIGH_S, DELAY_LOW_S = 0.1, 0.05
# Between two frames of the game: a third of the delay, so that a queue is gone in about as long as it took to notice
INTERVAL_OF_DELAY = 1 / 3
INTERVAL_MAX_S = 0.25
INTERVAL_NONE_S = 0.01
# Above this a reader that finds several records waiting reads the newest only.
LATE_S = 0.25
TOLD_LIFE_S = 2.0  # what the peer told of its delay counts so long
# Messages sent within so long are of one frame of the game: they stay together.
FRAME_S = 0.002
HELD_MAX = 64  # messages of one frame that wait; beyond it the newest is dropped
HELD_LIFE_S = 0.4  # nothing unreliable comes late
BASE_S = 10.0  # a path that became longer for good is taken as it is after so long

_HEADER = Struct("!BBHHHHH")
_MESSAGE = Struct("!HH")
_ONE = Struct("!BBHHHHHHH")
_HEADER_BYTES = 12
_MESSAGE_BYTES = 4
TEXT = 0x8000
PHASES, PHASE_UNIT, PHASE_MASK = 8, 0x1000, 0x7000
_SIZE_MASK = 0x0FFF
_WORD = 0xFFFF
_CLOCK_HZ = 10_000.0
_TICK_S = 1e-4
_DELAY_UNIT = 40  # clock ticks


class ExpressStats(NamedTuple):
    """Counts of one peer's lane. `records_lost` were sent and not heard of; `thinned` were replaced by newer ones here."""

    records_sent: int
    records_received: int
    records_lost: int
    thinned: int
    window: int
    interval_s: float
    delay_s: float
    srtt_s: float | None


class Express:
    """Both directions of one peer's lane.

    1. `send` a message; False says that it must go another way. 2. `records_to_send`, once for a burst; each is the
    content of one DTLS record. 3. `receive_untrusted` every record that begins with `EXPRESS`.
    4. `handle_timeout` at `next_timeout`, then 2.
    """

    __slots__ = (
        "_base",
        "_base_at",
        "_best",
        "_clock_heard",
        "_count",
        "_delay",
        "_epoch_lost",
        "_epoch_sent",
        "_frame_at",
        "_heard_at",
        "_held",
        "_highest",
        "_interval",
        "_keeps",
        "_left_at",
        "_limited",
        "_missing",
        "_number",
        "_paced_at",
        "_pending",
        "_pending_bytes",
        "_received",
        "_report_at",
        "_reported",
        "_reported_at",
        "_reported_count",
        "_safe_until",
        "_settled",
        "_silence_s",
        "_slow_start",
        "_thinned",
        "_told_at",
        "_unreported",
        "_window",
        "excess_s",
        "is_spare",
        "number_heard",
        "own_interval_s",
        "peer_delay_s",
        "srtt_s",
    )  # fmt: skip

    def __init__(self) -> None:
        # What we send
        self._pending: list[tuple[int, int, bytes]] = []
        self._pending_bytes = 0
        self._held: list[tuple[int, int, bytes]] = []
        self._keeps = False  # something waits that no newer one replaces
        self.is_spare = False
        self.own_interval_s = 0.0  # the same as `_interval`, for the sake of our own loop
        self._frame_at = -1.0  # when the messages were sent that are held
        self._number = 0
        self._left_at = -1.0
        self._interval = 0.0  # between the frames of the game that may leave
        self._paced_at = -1.0
        # What the peer told of it
        self._reported = 0
        self._reported_count = 0  # low 16 bits
        self._received = 0  # the same, unwrapped
        self._reported_at = -1.0  # or when the first record left that it may speak of
        self._missing = 0
        self._settled = 0  # up to which number nothing is waited for: told of, or written off
        self._window = WINDOW_FIRST
        self._slow_start = True
        self._limited = False
        self._epoch_sent = self._epoch_lost = 0
        self._silence_s = SILENCE_FIRST_S
        self._safe_until = -1.0
        self._thinned = 0
        self.srtt_s: float | None = None
        self.peer_delay_s = 0.0
        self._told_at = -1.0
        # What we hear
        self._highest = 0
        self._count = 0
        self._clock_heard = 0
        self._heard_at = -1.0
        self._base = -1
        self._base_at = 0.0
        self._best = 0
        self._delay = 0
        self._unreported = 0
        self._report_at = -1.0
        self.number_heard = 0  # of the last record that `receive_untrusted` took
        self.excess_s = 0.0  # how much later than at its best that one came

    @property
    def stats(self) -> ExpressStats:
        return ExpressStats(
            self._number, self._count, self._missing, self._thinned, self._window, self._interval,
            self.peer_delay_s, self.srtt_s,
        )  # fmt: skip

    @property
    def under_way(self) -> int:
        """Records that the peer has not told of."""
        return self._number - self._settled

    def told_delay_s(self, now: float) -> float:
        """How late our records came when the peer told last, unless that is long ago."""
        return self.peer_delay_s if now - self._told_at < TOLD_LIFE_S else 0.0

    # --------------------------------------------------------------------------------------------------------- sending

    def send(self, stream: int, data: bytes, text: bool, now: float, *, thin: bool, phase: int = 0) -> bool:
        """Take a message for the next record. False: it is too large, or the path has as much as it bears.

        thin: then it waits instead, and is dropped for those of a later frame of the game. Otherwise it is told at
        `WINDOW_FIRST` already: what comes faster is a flood, and wants the back-pressure that SCTP has.
        """
        size = len(data)
        if size > RECORD_SAFE - 16 and (now < self._safe_until or size > RECORD_MAX - 16):
            return False
        entry = (stream, size | phase * PHASE_UNIT | (TEXT if text else 0), data)
        interval = max(self._interval, self.own_interval_s)
        if thin and interval and FRAME_S < now - self._left_at < interval:
            self._hold(entry, now)
            return True
        window = self._window if thin else min(self._window, WINDOW_FIRST)
        under_way = self._number - self._settled
        if under_way + self._pending_bytes // RECORD_MAX >= window and not (under_way and self._gives_up(now)):
            self._limited = True
            if thin:
                self._hold(entry, now)
            return thin
        if self._held:
            if now - self._frame_at > FRAME_S:
                self._drop_held()
            else:
                self._release()
        self._pending.append(entry)
        self._pending_bytes += size + _MESSAGE_BYTES
        if not thin:
            self._keeps = True
        return True

    def records_to_send(self, now: float) -> list[bytes]:
        """What the messages that were taken make, or a report that is due. Then `is_spare` tells whether newer ones will take
        the place of all that is in them."""
        pending = self._pending
        self.is_spare = False
        if not pending:
            if self._held and now >= self._left_at + max(self._interval, self.own_interval_s) and self._may_leave(now):
                self._release()
            if not pending:
                due = self._report_at >= 0.0 and (now >= self._report_at or self._unreported >= REPORT_RECORDS)
                return [_HEADER.pack(*self._header(now, self._number))] if due else []
        self._left_at = now
        self._pending_bytes = 0
        self.is_spare, self._keeps = not self._keeps, False
        if self._settled == self._number:
            self._reported_at = now
        if len(pending) == 1:
            stream, size, data = pending[0]
            pending.clear()
            self._number += 1
            delay, number, clock, highest, count, echo = self._fields(now, self._number)
            return [_ONE.pack(EXPRESS, delay, number, clock, highest, count, echo, stream, size) + data]
        self._pending = []
        limit = RECORD_SAFE if now < self._safe_until else RECORD_MAX
        records: list[bytes] = []
        parts: list[bytes] = []
        room = limit - _HEADER_BYTES
        for stream, size, data in pending:
            needed = _MESSAGE_BYTES + len(data)
            if needed > room or len(parts) >= 2 * MESSAGES_MAX:
                records.append(self._record(parts, now))
                parts = []
                room = limit - _HEADER_BYTES
            parts.append(_MESSAGE.pack(stream, size))
            parts.append(data)
            room -= needed
        records.append(self._record(parts, now))
        return records

    def path_changed(self, now: float) -> None:
        """Records go another way, or arrive again: what is known of the way before says nothing."""
        self._write_off(now)
        self._silence_s = SILENCE_FIRST_S
        self.srtt_s = None
        self._interval = 0.0
        self._base = -1

    def next_timeout(self) -> float | None:
        deadline = self._report_at if self._report_at >= 0.0 else None
        if self._held:
            # What comes next from the game takes the place of what is held, mostly before this
            due = max(self._left_at + max(self._interval, self.own_interval_s), self._frame_at) + FRAME_S
            if self._number - self._settled >= self._window:
                due = max(due, self._reported_at + self._patience_s())
            if deadline is None or due < deadline:
                deadline = due
        return deadline

    def handle_timeout(self, now: float) -> None:
        if self._held and now - self._frame_at > HELD_LIFE_S:
            self._drop_held()

    # ------------------------------------------------------------------------------------------------------- receiving

    def receive_untrusted(self, record: bytes, now: float) -> list[tuple[int, int, bytes]]:
        """The messages of one record: stream, flags (`TEXT`, `PHASE_MASK`), bytes. `ProtocolError` when it is
        none of ours, and then nothing has changed."""
        end = len(record)
        if not _HEADER_BYTES <= end <= RECORD_MAX:
            raise ProtocolError(f"an express record of {end} bytes")
        kind, delay, number, clock, highest, count, echo = _HEADER.unpack_from(record)
        if kind != EXPRESS:
            raise ProtocolError("not an express record")
        messages: list[tuple[int, int, bytes]] = []
        at = _HEADER_BYTES
        while at < end:
            if end - at < _MESSAGE_BYTES or len(messages) >= MESSAGES_MAX:
                raise ProtocolError("an express record that ends within a message, or holds too many")
            stream, size = _MESSAGE.unpack_from(record, at)
            at += _MESSAGE_BYTES
            stop = at + (size & _SIZE_MASK)
            if stop > end:
                raise ProtocolError("a message longer than its express record")
            messages.append((stream, size & ~_SIZE_MASK, record[at:stop]))
            at = stop
        if messages:
            self._heard(number, clock, now)
        self._told(delay, highest, count, echo, now)
        return messages

    def _heard(self, number: int, clock: int, now: float) -> None:
        ahead = (number - self._highest) & _WORD
        if ahead > 0x7FFF:
            ahead -= 0x10000
        self.number_heard = self._highest + ahead
        self._count += 1
        self._unreported += 1
        if self._report_at < 0.0 and self._unreported >= REPORT_RECORDS_MIN:
            self._report_at = now + REPORT_AFTER_S
        if ahead <= 0:
            return
        self._highest += ahead
        self._clock_heard = clock
        self._heard_at = now
        offset = (int(now * _CLOCK_HZ) - clock) & _WORD
        if self._base < 0:
            self._base, self._base_at, self._best = offset, now, 0x7FFF
        excess = (offset - self._base) & _WORD
        if excess > 0x7FFF:  # better than ever
            self._base, self._base_at, self._best = offset, now, 0x7FFF
            excess = 0
        if excess < self._best:
            self._best = excess
        if now - self._base_at > BASE_S:
            self._base = (self._base + self._best) & _WORD
            excess -= self._best
            self._base_at, self._best = now, 0x7FFF
        self._delay = min(255, excess // _DELAY_UNIT)
        self.excess_s = excess * _TICK_S

    def _told(self, delay: int, highest: int, count: int, echo: int, now: float) -> None:
        """What the peer says of our records. It can only slow itself down with lies."""
        under_way = self._number - self._reported
        behind = (self._number - highest) & _WORD
        got = (count - self._reported_count) & _WORD
        if behind >= under_way or got > 0x7FFF:
            return  # nothing new, overtaken on the way, or made up
        new = under_way - behind
        self._reported += new
        self._settled = max(self._settled, self._reported)
        self._reported_count = count
        self._received += got
        missing = max(0, self._reported - self._received)
        self._epoch_sent += new
        self._epoch_lost += missing - self._missing
        self._missing = missing
        self._reported_at = now
        self._silence_s = SILENCE_S
        self.peer_delay_s = delay * _DELAY_UNIT * _TICK_S
        self._told_at = now
        ticks = (int(now * _CLOCK_HZ) - echo) & _WORD
        if ticks < 0x8000:
            rtt = ticks * _TICK_S
            self.srtt_s = rtt if self.srtt_s is None else self.srtt_s + (rtt - self.srtt_s) / 8
        if self._epoch_sent >= EPOCH_RECORDS:
            self._end_epoch()
        if self.peer_delay_s > DELAY_HIGH_S or (self._interval and now - self._paced_at > self._round_s()):
            self._pace(now)

    def _end_epoch(self) -> None:
        loss = max(0, self._epoch_lost) / self._epoch_sent
        self._epoch_sent = self._epoch_lost = 0
        if loss > LOSS_HIGH:
            self._slow_start = False
            self._window = max(WINDOW_MIN, int(self._window * (1 - loss / 2)))
        elif loss < LOSS_LOW and self._limited:
            self._window = min(WINDOW_MAX, 2 * self._window if self._slow_start else self._window + 1)
        self._limited = False

    def _pace(self, now: float) -> None:
        self._paced_at = now
        if self.peer_delay_s > DELAY_HIGH_S:
            self._slow_start = False
            self._interval = max(self._interval, min(INTERVAL_MAX_S, self.peer_delay_s * INTERVAL_OF_DELAY))
        elif self.peer_delay_s < DELAY_LOW_S:
            self._interval *= 0.8
            if self._interval < INTERVAL_NONE_S:
                self._interval = 0.0

    # --------------------------------------------------------------------------------------------------------- helpers

    def _fields(self, now: float, number: int) -> tuple[int, int, int, int, int, int]:
        """Those of a record's header behind its kind. With it everything heard so far is told."""
        clock = int(now * _CLOCK_HZ)
        echo = 0
        if self._heard_at >= 0.0:
            echo = (self._clock_heard + int((now - self._heard_at) * _CLOCK_HZ)) & _WORD
        self._unreported = 0
        self._report_at = -1.0
        return self._delay, number & _WORD, clock & _WORD, self._highest & _WORD, self._count & _WORD, echo

    def _header(self, now: float, number: int) -> tuple[int, int, int, int, int, int, int]:
        delay, wire_number, clock, highest, count, echo = self._fields(now, number)
        return EXPRESS, delay, wire_number, clock, highest, count, echo

    def _record(self, parts: list[bytes], now: float) -> bytes:
        self._number += 1
        return _HEADER.pack(*self._header(now, self._number)) + b"".join(parts)

    def _may_leave(self, now: float) -> bool:
        return self._number - self._settled < self._window or self._gives_up(now)

    def _gives_up(self, now: float) -> bool:
        """The window is full and no report comes: what is under way counts as lost, and a little may try again."""
        if now < self._reported_at + self._patience_s():  # as in `next_timeout`: a difference may round to less
            return False
        self._write_off(now)
        self._silence_s = min(SILENCE_MAX_S, 2 * self._silence_s)
        self._window = WINDOW_MIN
        self._slow_start = False
        self._safe_until = now + BASE_S  # perhaps it was only the large ones that did not come through
        return True

    def _write_off(self, now: float) -> None:
        self._settled = self._number
        self._reported_at = now

    def _patience_s(self) -> float:
        return max(self._silence_s, 3 * (self.srtt_s or 0.0))

    def _round_s(self) -> float:
        return max(REPORT_AFTER_S, self.srtt_s or 0.0)

    def _hold(self, entry: tuple[int, int, bytes], now: float) -> None:
        if self._held and now - self._frame_at > FRAME_S:
            self._drop_held()
        if not self._held:
            self._frame_at = now
        if len(self._held) < HELD_MAX:
            self._held.append(entry)
        else:
            self._thinned += 1

    def _release(self) -> None:
        self._pending += self._held
        self._held = []

    def _drop_held(self) -> None:
        self._thinned += len(self._held)
        self._held = []


def is_next(channel: Channel, phase: int, number: int) -> bool:
    """Whether a message of an ordered channel, in the record of that number, is newer than what came before it."""
    phase //= PHASE_UNIT
    ahead = (phase - channel.express_phase_heard) % PHASES
    if ahead >= PHASES // 2 or (not ahead and (channel.express_over or number < channel.express_heard)):
        return False
    channel.express_phase_heard, channel.express_heard, channel.express_over = phase, number, False
    return True
