"""What a message may say, declared beside its type: checked by every receiver before the game sees it.

    class Move(Message, rules=[speed(max=12), rate(per_s=60), sequence(), within(arena)], stamp="at"):
        sequence: int
        at: float                 # room.time() when it was sent
        x: float
        y: float

A rule sees a message, its sender's last accepted one and the time, and answers with the reason for a breach or with
None; a function of the game's own that does so is a rule, too. A breach is an event with evidence, never an exception,
and the message is not delivered. Rules are tolerant of what a network does: a rate is a bucket, a speed is held against
the time between the *sender's* stamps, bounded by when the messages came, and a silence explains what comes after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from psyne_mesh.errors import InvalidConfig

SENDERS_MAX = 1024
STAMP_MARGIN_S = 0.15
"""A stamp may be off by the error bound of the room's clock and this much: a tick of the sender's and a late task."""
BURST_S = 1.0
"""Messages that a network held back arrive together: a rate is held over so many seconds."""
SLACK = 1.02
"""Of a speed: what rounding of positions and of the sender's tick adds. A cheat of 1.2 is far beyond."""
HELD_BACK_S = 0.25
"""A message may have waited so long in the network while its follower did not: jitter of games' paths and a
retransmission.
"""
TICK_S = 1 / 30
"""A position is of the sender's last tick, and so is its stamp, to within one."""
TRACK_MAX = 512
OLDEST_S = 1.0
"""Nothing unreliable comes later than this, so a stamp that is older was made up, or its sender stood still."""
GAP_MAX_S = 10.0
"""A silence explains no more than this: a link that was silent for longer has ended."""
STALE = ""
"""What a rule answers for a message that newer ones have overtaken: it is not delivered, and nobody has done wrong."""
GAP_FADE_S = 2.0
"""What waited during a silence is here so soon after its first message: a retransmission or two."""


class Seen(msgspec.Struct):
    """What a rule may know. Times in seconds of the room's clock, `now` when the message came; `last` the sender's
    last accepted message of this type (None at first) with `last_at` when it came and `last_stamp_s` its stamp.

    `stamp_s`: when its sender says it was sent (`stamp` of the type; else None). `time_error_s`: the bound of the
    room's clock. `rtt_s`: the round trip to the sender, 0.0 if unknown. `gap_s`: the silence that was just before, in
    which messages may have waited on the way or here. `is_ordered`: messages of this channel do not overtake each
    other; `in_sequence`: nor do those that come to the other rules, as `sequence` leaves them out. `memory`: the
    rule's own, for each sender.
    """

    now: float
    time_error_s: float = 0.0
    rtt_s: float = 0.0
    gap_s: float = GAP_MAX_S
    stamp_s: float | None = None
    last: Any = None
    last_at: float = -math.inf
    last_stamp_s: float | None = None
    is_ordered: bool = True
    in_sequence: bool = True
    memory: dict[str, Any] = {}


Rule = Callable[[Any, Seen], str | None]
"""(message, what is known) -> why it breaks the rule, or None."""


class FieldRule:
    """A rule about fields of a message. `bound(kind)` is the same for one type, and quicker."""

    def __init__(
        self, name: str, fields: Sequence[str], make: Callable[[Callable[[Any], Any]], Rule], at_least: int
    ) -> None:
        """`make` takes what reads the fields of a message: a value for one field, else a tuple. Of a type without all
        of them those that it has are read, at least `at_least`."""
        self.__name__ = name
        self._fields, self._make, self._at_least = tuple(fields), make, at_least
        self._bound: dict[type[Any], Rule] = {}

    def bound(self, kind: type[Any]) -> Rule:
        """Raises InvalidConfig for a type without these fields."""
        has = [name for name in self._fields if hasattr(kind, name)]
        if len(has) < self._at_least:
            missing = next(name for name in self._fields if name not in has)
            raise InvalidConfig(f"{self.__name__}: {kind.__name__} has no field {missing!r}")
        reads = attrgetter(*has)
        return self._make(reads if len(has) > 1 or len(self._fields) == 1 else lambda message: (reads(message),))

    def __call__(self, message: Any, seen: Seen) -> str | None:
        kind = type(message)
        rule = self._bound.get(kind)
        if rule is None:
            rule = self._bound[kind] = self.bound(kind)
        return rule(message, seen)


class Breach(msgspec.Struct, frozen=True):
    """`sender` said something that `rule` forbids; `reason` says how. `message` and `before` (its last accepted one)
    are the evidence.
    """

    sender: object
    rule: str
    reason: str
    message: Any
    before: Any
    at: float


class _Known(msgspec.Struct):
    """What is known of one sender. `heard_at` when its last message came, accepted or not."""

    seen: Seen
    rules: list[tuple[str, Rule, dict[str, Any]]]
    heard_at: float
    gap_at: float


class RuleBook:
    """Of one type of message. 1. `check(sender, message, now, time_error_s, rtt_s)` for each message that came: None, or
    the `Breach`. 2. `forget(sender)` when it left. 3. `restart()` when the clock was set anew.

    Work is that of the rules: a few microseconds. Memory is bounded by SENDERS_MAX times the types with rules.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        stamp: Callable[[Any], float | None] | None = None,
        kind: type[Any] | None = None,
        *,
        is_ordered: bool = True,
    ) -> None:
        """`stamp` gives the room time in seconds at which a message says it was sent. `kind`: the type, if all
        messages are of one. `is_ordered`: they do not overtake each other. Raises InvalidConfig for a rule about a field
        that it has not."""
        # What newer ones have overtaken is left out before its place or time says anything.
        in_order = sorted(rules, key=lambda rule: not name_of(rule).startswith("sequence("))
        self._rules = [(name_of(rule), rule if kind is None else bound(rule, kind)) for rule in in_order]
        self._stamp, self._is_ordered = stamp, is_ordered
        self._in_sequence = is_ordered or any(name.startswith("sequence(") for name, _ in self._rules)
        self._senders: dict[object, _Known] = {}

    def check(
        self, sender: object, message: Any, now: float, time_error_s: float = 0.0, rtt_s: float = 0.0
    ) -> Breach | None:
        """An infinite `time_error_s`: nobody knows the room's time yet, and stamps say nothing. A breach without a reason
        (`STALE`) is none: newer messages have overtaken this one, and it is not to be delivered."""
        known = self._senders.get(sender)
        if known is None:
            if len(self._senders) >= SENDERS_MAX:
                del self._senders[next(iter(self._senders))]
            rules: list[tuple[str, Rule, dict[str, Any]]] = [(name, rule, {}) for name, rule in self._rules]
            known = self._senders[sender] = _Known(
                Seen(now, is_ordered=self._is_ordered, in_sequence=self._in_sequence), rules, now, now
            )
        seen = known.seen
        gap = now - known.heard_at
        known.heard_at = now
        if gap > HELD_BACK_S:
            seen.gap_s, known.gap_at = min(gap, GAP_MAX_S), now
        elif seen.gap_s and now - known.gap_at > GAP_FADE_S:
            seen.gap_s = 0.0
        seen.now, seen.time_error_s, seen.rtt_s = now, time_error_s, rtt_s
        seen.stamp_s = self._stamp(message) if self._stamp is not None and time_error_s < math.inf else None
        for name, rule, memory in known.rules:
            seen.memory = memory
            reason = rule(message, seen)
            if reason is not None:
                return Breach(sender, name, reason, message, seen.last, now)
        seen.last, seen.last_at, seen.last_stamp_s = message, now, seen.stamp_s
        return None

    def forget(self, sender: object) -> None:
        self._senders.pop(sender, None)

    def restart(self) -> None:
        self._senders.clear()


def name_of(rule: Rule) -> str:
    return getattr(rule, "__name__", type(rule).__name__)


def bound(rule: Rule, kind: type[Any]) -> Rule:
    return rule.bound(kind) if isinstance(rule, FieldRule) else rule


def _named(name: str) -> Callable[[Rule], Rule]:
    def name_it(rule: Rule) -> Rule:
        rule.__name__ = name
        return rule

    return name_it


def rate(*, per_s: float, burst_s: float = BURST_S) -> Rule:
    """At most `per_s` messages a second, over any `burst_s` seconds and a bit; after a silence as many as it held."""
    if not per_s > 0 or not burst_s > 0:
        raise InvalidConfig(f"rate(per_s={per_s}, burst_s={burst_s}): both are above 0")
    most = per_s * burst_s + 1

    @_named(f"rate(per_s={per_s:g})")
    def rule(message: Any, seen: Seen) -> str | None:
        memory, now = seen.memory, seen.now
        tokens = memory.get("tokens", most) + (now - memory.get("at", now)) * per_s * SLACK
        memory["at"] = now
        if tokens > most:
            tokens = max(most, min(tokens, seen.gap_s * per_s * SLACK + 1))
        if tokens < 1:
            memory["tokens"] = tokens
            return f"more than {per_s:g} a second"
        memory["tokens"] = tokens - 1
        return None

    return rule


def sequence(field: str = "sequence") -> Rule:
    """`field` grows with every message: none is played again, none is older than one that was accepted. Where messages
    may overtake each other, those that were overtaken are left out without a word.
    """

    def make(reads: Callable[[Any], Any]) -> Rule:
        def rule(message: Any, seen: Seen) -> str | None:
            if seen.last is None:
                return None
            number, before = reads(message), reads(seen.last)
            if number > before:
                return None
            return f"{field} {number} after {before}" if seen.is_ordered else STALE

        return rule

    return FieldRule(f"sequence({field!r})", (field,), make, 1)


def within(low: Sequence[Any], high: Sequence[float] | None = None, fields: Sequence[str] = ("x", "y", "z")) -> Rule:
    """Each field lies between its ends of a box: `within((0, 0), (100, 60))`, or as one value `within(arena)` with
    `arena = ((0, 0), (100, 60))`."""
    if high is None:
        if len(low) != 2:
            raise InvalidConfig(f"within({low}): a box is a pair of its low and its high ends")
        low, high = low
    names = tuple(fields[: len(low)])
    if len(low) != len(high) or not names or len(names) != len(low) or any(a > b for a, b in zip(low, high)):
        raise InvalidConfig(f"within({low}, {high}): as many ends as fields, low ones below high ones")
    ends = tuple(zip(names, low, high))

    def make(reads: Callable[[Any], Any]) -> Rule:
        def rule(message: Any, seen: Seen) -> str | None:
            values = reads(message)
            for value, (name, a, b) in zip(values if len(ends) > 1 else (values,), ends):
                if not a <= value <= b:
                    return f"{name} is {value:g}, outside {a:g} to {b:g}"
            return None

        return rule

    return FieldRule("within", names, make, len(names))


def speed(*, max: float, fields: Sequence[str] = ("x", "y", "z"), over_s: float = 0.5) -> Rule:
    """No faster than `max` units a second, on the way since `over_s` seconds ago.

    Time is the sender's own, if its messages are stamped, and never more than has gone by here since the earlier
    message came, plus what the network may have held it back. Without stamps it is the latter alone. Teleports that
    a game allows are messages of another type.
    """
    if not max > 0 or not over_s > 0:
        raise InvalidConfig(f"speed(max={max}, over_s={over_s}): both are above 0")
    fastest, tick = max * SLACK, max * TICK_S
    distance = math.dist

    def make(reads: Callable[[Any], Any]) -> Rule:
        def rule(message: Any, seen: Seen) -> str | None:
            point = reads(message)
            now, stamp = seen.now, seen.stamp_s
            memory = seen.memory
            track = memory.get("track")
            if track is None or memory["stamped"] != (stamp is not None):  # two clocks that do not compare
                track = memory["track"] = []
                memory["stamped"] = stamp is not None
            else:
                then, came, origin = track[0]
                spent = now - came + (HELD_BACK_S if seen.in_sequence else OLDEST_S)
                if stamp is not None:
                    # What came quickly counts from when it was sent; what claims more time than has gone by here does
                    # not get it, unless there was a silence.
                    spent = min(abs(stamp - then), spent + seen.gap_s)
                far = distance(point, origin)
                if far > (fastest * spent if spent > 0 else 0.0) + tick:
                    return f"{far:g} units in {spent:.3f} s, {far / (spent or 1e-9):.1f} a second of at most {max:g}"
                if far != far:
                    return "a place that is no number"
            at = now if stamp is None else stamp
            if at >= track[-1][0] if track else True:
                track.append((at, now, point))
            # Without stamps what may have been held back weighs less on a longer way.
            since = now - 4 * over_s if stamp is None else stamp - over_s
            while len(track) > 1 and (track[1][0] <= since or len(track) > TRACK_MAX):
                del track[0]
            return None

        return rule

    def make_tuple(reads: Callable[[Any], Any]) -> Rule:
        return make(reads if len(fields) > 1 else lambda message: (reads(message),))

    return FieldRule(f"speed(max={max:g})", fields, make_tuple, 1)


def stamped() -> Rule:
    """A stamp is no later than now and no older than the network explains, to within the clock's bound and
    STAMP_MARGIN_S. Types with a `stamp` have this rule by themselves.
    """

    @_named("stamped")
    def rule(message: Any, seen: Seen) -> str | None:
        stamp = seen.stamp_s
        if stamp is None:
            return None
        now, margin = seen.now, seen.time_error_s + STAMP_MARGIN_S
        if not stamp <= now + margin:
            return f"stamped {stamp - now:.3f} s in the future"
        if seen.is_ordered and seen.last_stamp_s is not None and stamp < seen.last_stamp_s - margin:
            return f"stamped {seen.last_stamp_s - stamp:.3f} s before one that was accepted"
        if stamp < now - margin - OLDEST_S - seen.rtt_s - seen.gap_s:
            return f"stamped {now - stamp:.3f} s ago"
        return None

    return rule


def cooldown(seconds: float, when: Callable[[Any], bool] = lambda message: True) -> Rule:
    """`when(message)` is true at most once in so many seconds."""
    if not seconds > 0:
        raise InvalidConfig(f"cooldown({seconds}): above 0")

    @_named(f"cooldown({seconds:g})")
    def rule(message: Any, seen: Seen) -> str | None:
        if not when(message):
            return None
        is_stamped = seen.stamp_s is not None
        stamp = seen.now if seen.stamp_s is None else seen.stamp_s
        last = seen.memory.get("last", -math.inf)
        if stamp - last < seconds - (TICK_S if is_stamped else HELD_BACK_S + seen.gap_s):
            return f"again after {stamp - last:.3f} s of {seconds:g}"
        seen.memory["last"] = stamp
        return None

    return rule


def between(field: str, low: float, high: float) -> Rule:
    """`field` lies between `low` and `high`."""
    if not low <= high:
        raise InvalidConfig(f"between({field!r}, {low}, {high}): low is below high")

    def make(reads: Callable[[Any], Any]) -> Rule:
        def rule(message: Any, seen: Seen) -> str | None:
            value = reads(message)
            return None if low <= value <= high else f"{field} is {value:g}, outside {low:g} to {high:g}"

        return rule

    return FieldRule(f"between({field!r})", (field,), make, 1)
