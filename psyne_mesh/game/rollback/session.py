"""Rollback: one simulation on every machine, fed with everybody's inputs, the missing ones guessed and mended when
they come.
"""

from __future__ import annotations

from typing import Any

import msgspec

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.game.rollback.admission import AHEAD_MAX, NOTICE_TICKS, Admissions
from psyne_mesh.game.rollback.delay import InputDelay
from psyne_mesh.game.rollback.departures import Departures
from psyne_mesh.game.rollback.desync import Difference, StateChecks
from psyne_mesh.game.rollback.events import (
    Advance,
    Contradiction,
    DelayChanged,
    Load,
    PlayerInput,
    Request,
    Resumed,
    Save,
    SeatJoined,
    SeatLeft,
    SessionEvent,
    Stalled,
)
from psyne_mesh.game.rollback.schedule import Schedule
from psyne_mesh.game.rollback.track import InputTrack
from psyne_mesh.game.rollback.wire import (
    FRAMES_MAX,
    INPUT_BYTES_MAX,
    Admission,
    Agreement,
    Cut,
    Entry,
    Hashes,
    Inputs,
    Proposal,
    Refusal,
    Seated,
    State,
    Word,
    decode_inputs_untrusted,
    decode_word_untrusted,
    encode_inputs,
    encode_word,
)

WINDOW_TICKS = 8
"""Predicted at the most (ggrs, fortress-rollback, GGPO). A longer one replays more ticks in one frame than Python
can.
"""
CATCH_UP_TICKS = 4
"""In one call: a machine that stood still is back in step soon, and still draws in between (a guess)."""
HISTORY_TICKS = 256
"""Of own inputs, for those who join: four seconds at 60 Hz."""
LATENESS_WINDOW_S = 0.5
WARM_UP_TICKS = 30
"""Of a seat whose player has just joined: blank for all, so that nobody waits for who is still catching up."""
HASH_EVERY_PACKETS = 8
SEATS_MAX = 62  # bits of a row, see `Rows`


class SessionStats(msgspec.Struct):
    """Counts since the session began. `rollbacks[depth]` counts those that replayed so many ticks; `stalled_ticks`
    are calls of `advance` in which a tick was due and the window was full.
    """

    ticks: int = 0
    replayed_ticks: int = 0
    stalled_ticks: int = 0
    stalls: int = 0
    rollbacks: list[int] = msgspec.field(default_factory=lambda: [0] * (WINDOW_TICKS + 2))
    bytes_sent: int = 0
    packets_sent: int = 0


class RollbackSession:
    """One player's part in a simulation that runs on several machines.

    1. `advance(local, now)` once a frame: do what the requests say, in order, and call `saved(frame, state)` at each
    `Save`.
    2. `receive(seat, data, now)` for each unreliable packet of the player in `seat`, `receive_word(seat, data, now)`
       for each reliable one. Both raise ProtocolError and have changed nothing then.
    3. `drop(seat, now)` when the room says that its player is gone; `admit(seat, now)` when one wants to join.
    4. Send what `packets_to_send(now)` returns, and what `take_words()` returns, after each of the above; at the
       latest at `next_timeout()`.
    5. `take_events()`.

    `now` is in seconds of a clock that all players share (`room.time()`); frame 0 is due at `start`. An input is a
    run of as many bytes as `blank`, the one of a seat without a player. A state is bytes that stand for the whole
    of it.
    """

    def __init__(
        self,
        *,
        seats: int,
        me: int,
        players: set[int],
        blank: bytes,
        start: float,
        hz: float = 60.0,
        window: int = WINDOW_TICKS,
        delay: int | None = None,
        difference: Difference | None = None,
    ) -> None:
        """`players`: the seats that have one at frame 0, ourselves among them. `delay` in ticks, None finds it
        (`InputDelay`). Raises InvalidConfig.
        """
        if not 0 <= me < seats <= SEATS_MAX or not {me} <= players <= set(range(seats)):
            raise InvalidConfig(
                f"seat {me} of {seats}, players {sorted(players)}: a session needs its own seat among at most {SEATS_MAX}"
            )
        if not 1 <= len(blank) <= INPUT_BYTES_MAX:
            raise InvalidConfig(f"an input has 1 to {INPUT_BYTES_MAX} bytes, not {len(blank)}")
        if not 1 <= window <= 60 or not 1 <= hz <= 240 or not 0 <= (delay or 0) <= 60:
            raise InvalidConfig(f"window {window} (1 to 60 ticks), hz {hz} (1 to 240), delay {delay} (0 to 60 ticks)")
        self.me, self.seats, self.window, self.hz = me, seats, window, hz
        self.frame = 0  # the next to be simulated
        self.first_frame = 0  # the first of ours: later if we joined
        self.stats = SessionStats()
        self._blank, self._size = blank, len(blank)
        self._tracks = [InputTrack(blank) for _ in range(seats)]
        self._players = set(players)
        self._schedule = Schedule(start, hz)
        self._delay = InputDelay(delay, start)
        self._checks = StateChecks(len(players), me, difference or (lambda ours, theirs: ("", None, None)))
        self._departures = Departures(self._tracks, self._size)
        self._admissions = Admissions()
        self._used: dict[int, tuple[bytes, ...]] = {}  # what each unconfirmed frame was simulated with
        self._states: dict[int, bytes] = {}
        self._first_wrong: int | None = None
        self._confirmed_state = 0
        self._skipped: bytes | None = None
        self._acked = dict.fromkeys(players - {me}, -1)
        self._late: dict[
            int, tuple[float, int, int]
        ] = {}  # of each seat: since when, the worst of this and of the last half second
        self._packets = 0
        self._is_dirty = False
        self._resend_at = start
        self._stalled_since: float | None = None
        self._words: list[tuple[int, Word]] = []
        self._events: list[SessionEvent] = []
        self._entries: list[Entry] = []  # who was let in lately
        for seat in set(range(seats)) - players:
            self._tracks[seat].cut(0)

    # ------------------------------------------------------------------------------------------------------------
    # the tick

    @property
    def players(self) -> frozenset[int]:
        """The seats that have a player now, as all machines agree; who is gone and not cut yet is among them."""
        return frozenset(self._players)

    @property
    def confirmed(self) -> int:
        """The newest frame for which the inputs of all seats are known: what was simulated up to there is final."""
        return min(self._tracks[seat].last for seat in self._players) if self._players else self.frame - 1

    @property
    def delay(self) -> int:
        """Ticks from `advance(local, ...)` until `local` takes effect."""
        return self._delay.ticks

    def advance(self, local: bytes, now: float) -> list[Request]:
        """What to do in this frame, in order. Empty when no tick is due, or the window is full."""
        if len(local) != self._size:
            raise ValueError(f"an input has {self._size} bytes here, not {len(local)}")
        requests: list[Request] = []
        self._confirm_states(now)
        self._roll_back(requests)
        for _ in range(
            CATCH_UP_TICKS if self._schedule.behind(self.frame, now) < 4 * CATCH_UP_TICKS else 4 * CATCH_UP_TICKS
        ):
            if not self._schedule.is_due(self.frame, now):
                break
            if self._waits(now):
                break
            self._say(local, now)
            self._simulate(self.frame, requests)
            self.frame += 1
            self.stats.ticks += 1
            self._is_dirty = True
        self._schedule.slip(self.frame, now)
        self._forget()
        return requests

    def _waits(self, now: float) -> bool:
        hold = self._admissions.holds_at
        if self.frame - self.confirmed <= self.window and (hold is None or self.frame < hold):
            if self._stalled_since is not None:
                self._events.append(Resumed(now - self._stalled_since))
                self._stalled_since = None
            return False
        self.stats.stalled_ticks += 1
        if self._stalled_since is None:
            self._stalled_since = now
            self.stats.stalls += 1
            slowest = min(self._players, key=lambda seat: self._tracks[seat].last)
            self._events.append(Stalled(slowest, self.frame))
        return True

    def _say(self, local: bytes, now: float) -> None:
        """Our input for the frame that is one delay ahead; none, if the delay has just become shorter; two, if
        longer.
        """
        before = self._delay.ticks
        ahead = self._delay.update(now)
        if ahead != before:
            self._events.append(DelayChanged(ahead))
        mine = self._tracks[self.me]
        if self.frame + ahead < mine.begins_at:
            return
        if mine.last >= self.frame + ahead:
            self._skipped = local
            return
        newest = mine.kept(mine.last)
        if self._skipped is not None and self._skipped != newest:
            local = self._skipped  # a key that was hit in the tick that was left out counts a tick later
        self._skipped = None
        while mine.last < self.frame + ahead:
            mine.put(mine.last + 1, local)

    def _simulate(self, frame: int, requests: list[Request], *, replayed: bool = False) -> None:
        inputs = tuple([track.at(frame) for track in self._tracks])
        self._used[frame] = inputs
        requests.append(Save(frame))
        requests.append(
            Advance(
                frame,
                tuple(
                    [
                        PlayerInput(data, not track.knows(frame), track.has_player(frame))
                        for data, track in zip(inputs, self._tracks)
                    ]
                ),
                replayed,
            )
        )

    def _roll_back(self, requests: list[Request]) -> None:
        first = self._first_wrong
        if first is None:
            return
        self._first_wrong = None
        depth = self.frame - first
        self.stats.rollbacks[min(depth, len(self.stats.rollbacks) - 1)] += 1
        self.stats.replayed_ticks += depth
        requests.append(Load(first))
        for frame in range(first, self.frame):
            self._simulate(frame, requests, replayed=True)

    def saved(self, frame: int, state: bytes) -> None:
        """The state at the beginning of `frame`, as `Save` asked. A later one for the same frame replaces it."""
        self._states[frame] = state

    def state(self, frame: int) -> bytes:
        """What `saved` was told, for `Load`; and the state that we joined with. KeyError when it is not kept any
        more.
        """
        state = self._states.get(frame)
        return self._checks.kept(frame) if state is None else state

    def snapshot(self) -> tuple[int, bytes]:
        """(frame, confirmed state at its beginning) of the newest check; an empty state before the first."""
        frame = max(self._checks.newest_check, 0)
        return frame, self._checks.state(frame) or b""

    def checked_states(self) -> list[tuple[int, bytes]]:
        """(frame, hash) of the kept checks, oldest first: what an observer may hold against another's word."""
        return self._checks.checks()

    @property
    def oldest_confirmed(self) -> int:
        """The oldest frame that `confirmed_inputs` still knows."""
        return max((track.oldest for track in self._tracks if track.oldest > track.begins_at), default=0)

    def confirmed_inputs(self, frame: int) -> tuple[int, bytes]:
        """(bits of the seats with a player, all inputs one after the other) of a confirmed frame, for spectators."""
        present = sum(1 << seat for seat, track in enumerate(self._tracks) if track.has_player(frame))
        return present, b"".join([track.at(frame) for track in self._tracks])

    def spoken(self, seat: int, first: int, count: int) -> bytes | None:
        """The inputs of a seat's player for `count` frames from `first` on, one after the other; None while they are not
        all known, or not any more.
        """
        if self._tracks[seat].last < first + count - 1:
            return None
        inputs = [self._tracks[seat].kept(frame) for frame in range(first, first + count)]
        return None if None in inputs else b"".join([data for data in inputs if data is not None])

    def _confirm_states(self, now: float) -> None:
        """States whose past is known for good. One that is about to be replayed is not among them."""
        final = min(self.confirmed + 1, self.frame - 1)
        if self._first_wrong is not None:
            final = min(final, self._first_wrong)
        while self._confirmed_state <= final:
            state = self._states.pop(self._confirmed_state, None)
            if state is not None:
                self._checks.confirmed(self._confirmed_state, state, now)
            self._confirmed_state += 1

    def _forget(self) -> None:
        confirmed = self.confirmed
        for frame in [frame for frame in self._used if frame < min(confirmed, self.frame - 1)]:
            del self._used[frame]
        mine = self._tracks[self.me]
        needed = min([confirmed, *self._acked.values()])
        for track in self._tracks:
            track.forget(min(confirmed, needed if track is mine else confirmed) - HISTORY_TICKS)

    # ---------------------------------------------------------------------------------------------------------------
    # inputs

    def receive(self, seat: int, data: bytes, now: float) -> None:
        """Work is bounded by FRAMES_MAX. What is old, ahead of its turn or from a seat without a player is dropped."""
        packet = decode_inputs_untrusted(data, self._size)
        if seat not in self._acked or self._departures.is_gone(seat):
            return
        track = self._tracks[seat]
        if packet.first + len(packet.inputs) > self.frame + AHEAD_MAX:
            raise ProtocolError("inputs for a tick that is far ahead")
        self._acked[seat] = max(self._acked[seat], min(packet.acknowledged, self._tracks[self.me].last))
        if packet.inputs and packet.first + len(packet.inputs) - 1 > track.last:
            self._note_lateness(seat, self.frame - (packet.first + len(packet.inputs) - 1), now)
        self._delay.report(seat, packet.lateness, now)
        self._schedule.follow(packet.slipped, self.frame)
        for frame, said in enumerate(packet.inputs, packet.first):
            if frame == track.last + 1:
                track.put(frame, said)
                self._compare(seat, frame, said)
            elif frame <= track.last:
                kept = track.kept(frame)
                if kept is not None and kept != said:
                    self._events.append(Contradiction(seat, frame))
                    break
            else:
                break  # a gap: its sender repeats what is missing
        if packet.checked >= 0:
            self._checks.heard(seat, packet.checked, packet.hash, now)
        self._drain(now)

    def _compare(self, seat: int, frame: int, said: bytes) -> None:
        used = self._used.get(frame)
        if used is not None and used[seat] != said and (self._first_wrong is None or frame < self._first_wrong):
            self._first_wrong = frame

    def _note_lateness(self, seat: int, ticks: int, now: float) -> None:
        since, worst, before = self._late.get(seat, (now, -128, -128))
        if now - since >= LATENESS_WINDOW_S:
            since, worst, before = now, -128, worst
        self._late[seat] = (since, max(worst, ticks), before)

    def packets_to_send(self, now: float) -> list[tuple[int, bytes]]:
        """(seat, data): one for each other player after each tick, and twice a tick's time while the game waits."""
        if not (self._is_dirty or now >= self._resend_at):
            return []
        self._is_dirty = False
        self._resend_at = now + 2 / self.hz
        mine = self._tracks[self.me]
        packets = []
        self._packets += 1
        for seat, acked in self._acked.items():
            if self._departures.is_gone(seat):
                continue
            first = max(acked + 1, mine.oldest)
            inputs = [
                data
                for frame in range(first, min(mine.last + 1, first + FRAMES_MAX))
                if (data := mine.kept(frame)) is not None
            ]
            _, worst, before = self._late.get(seat, (0.0, -128, -128))
            checked = self._checks.newest_check
            digest = self._checks.digest(checked) if (self._packets + seat) % HASH_EVERY_PACKETS == 0 else None
            packets.append(
                (
                    seat,
                    encode_inputs(
                        Inputs(
                            self._tracks[seat].last,
                            max(worst, before),
                            self._schedule.slipped,
                            first,
                            inputs,
                            checked if digest else -1,
                            digest or b"",
                        )
                    ),
                )
            )
        self.stats.packets_sent += len(packets)
        self.stats.bytes_sent += sum(len(data) for _, data in packets)
        return packets

    def next_timeout(self) -> float:
        """Seconds of the shared clock: when `packets_to_send` has something again at the latest."""
        return self._resend_at

    # ---------------------------------------------------------------------------------------------------------- rare
    # words

    def receive_word(self, seat: int, data: bytes, now: float) -> None:
        word = decode_word_untrusted(data)
        if seat in self._acked:
            self._hear(seat, word, now)
            self._settle()
        self._drain(now)

    def _hear(self, seat: int, word: Word, now: float) -> None:
        if isinstance(word, Cut):
            named = [known.seat for known in word.gone] + [entry.seat for entry in word.admitted]
            if named and max(named) >= self.seats:
                raise ProtocolError("a seat that is not in this game")
            self._departures.hear(seat, word)
        elif isinstance(word, Hashes | State):
            self._checks.hear(seat, word, now)
        elif isinstance(word, Proposal | Agreement | Refusal | Admission) and not self._departures.is_gone(seat):
            wanted = seat_of(word)
            if wanted >= self.seats:
                raise ProtocolError("a seat that is not in this game")
            is_free = wanted not in self._players and not self._departures.unsettled
            self._admissions.hear(seat, word, self.frame, is_free, self._others())

    def take_words(self) -> list[tuple[int, bytes]]:
        """(seat, data) to be sent reliably and in order."""
        words, self._words = self._words, []
        return [(seat, encode_word(word)) for seat, word in words]

    def take_events(self) -> list[SessionEvent]:
        events, self._events = self._events, []
        return events

    def _drain(self, now: float) -> None:
        self._words += self._checks.words
        self._checks.words.clear()
        self._events += self._checks.events
        self._checks.events.clear()
        self._words += self._admissions.words
        self._admissions.words.clear()
        self._events += self._admissions.events
        self._admissions.events.clear()
        for seat, frame in self._admissions.agreed:
            entry = Entry(seat, frame)
            self._words += [(other, Admission(entry)) for other in sorted(self._others())]
            self._let_in(entry, is_sponsor=True)
        self._admissions.agreed.clear()
        for entry in self._admissions.entries:
            self._let_in(entry, is_sponsor=False)
        self._admissions.entries.clear()

    def _others(self) -> set[int]:
        return {seat for seat in self._players if seat != self.me and not self._departures.is_gone(seat)}

    # -------------------------------------------------------------------------------------- who comes and goes

    def drop(self, seat: int, now: float) -> None:
        """The room says that its player is gone. The seat is cut when all survivors have told what they have of it."""
        if seat not in self._acked or self._departures.is_gone(seat):
            return
        self._departures.drop(seat)
        self._delay.forget(seat)
        self._checks.forget(seat)
        self._admissions.drop(seat)
        self._words += [(other, self._departures.word(self._entries)) for other in sorted(self._others())]
        self._settle()
        self._drain(now)

    def _settle(self) -> None:
        before = {seat: self._tracks[seat].last for seat in self._departures.unsettled}
        for seat, frame in self._departures.settle(self._others()):
            for backfilled in range(before[seat] + 1, frame):
                self._compare(seat, backfilled, self._tracks[seat].at(backfilled))
            self._tracks[seat].cut(frame)
            if frame < self.frame:  # simulated with a player who was not there any more
                self._first_wrong = frame if self._first_wrong is None else min(frame, self._first_wrong)
            self._players.discard(seat)
            self._acked.pop(seat, None)
            self._checks.resize(len(self._players))
            self._admissions.settle(seat, self._departures.admitted())
            self._events.append(SeatLeft(seat, frame))

    def admit(self, seat: int, now: float) -> None:
        """One machine proposes that `seat` has a player soon. `SeatJoined` or `JoinRefused` tells what became of it."""
        if seat in self._players or seat >= self.seats or self._admissions.is_open or self._departures.unsettled:
            raise ValueError(f"seat {seat} cannot be given now")
        self._admissions.propose(seat, self.frame + NOTICE_TICKS, self._others())
        self._drain(now)

    def _let_in(self, entry: Entry, is_sponsor: bool) -> None:
        seat = entry.seat
        players = sorted(self._players)
        self._departures.back(seat)
        self._tracks[seat].begin_at(entry.frame, WARM_UP_TICKS)
        self._players.add(seat)
        self._acked[seat] = entry.frame - 1
        self._checks.resize(len(self._players))
        recent = [old for old in self._entries if old.seat != seat and old.frame > self.frame - AHEAD_MAX]
        self._entries = [*recent, entry]
        self._events.append(SeatJoined(seat, entry.frame))
        if is_sponsor:
            self._words.append((seat, Seated(entry, players, self._schedule.slipped)))

    @classmethod
    def enter(cls, seated: Seated, state: bytes, *, start: float, **options: Any) -> RollbackSession:
        """Our part once we may join: `state` is the confirmed one at the beginning of `seated.entry.frame`, which a
        `Spectator` has come to. `options` as for a session; its first request is to load that state.
        """
        entry = seated.entry
        session = cls(me=entry.seat, players={*seated.players, entry.seat}, start=start, **options)
        session.frame = session.first_frame = session._confirmed_state = entry.frame
        session._acked = dict.fromkeys(seated.players, entry.frame + WARM_UP_TICKS - 1)
        for seat in seated.players:
            session._tracks[seat].begin_known(entry.frame)
        session._tracks[entry.seat].begin_at(entry.frame, WARM_UP_TICKS)
        session._schedule.begin(seated.slipped)
        session._states[entry.frame] = state
        return session


def seat_of(word: Proposal | Agreement | Refusal | Admission) -> int:
    return word.entry.seat if isinstance(word, Admission) else word.seat
