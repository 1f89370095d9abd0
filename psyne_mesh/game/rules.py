"""What a message may say, declared beside its type: checked by every receiver before the game sees it.

    class Move(Message, rules=[speed(max=12), rate(per_s=60), sequence(), within(arena)]):
        sequence: int
        x: float
        y: float

A rule sees a message, its sender's last accepted one and the time, and answers with the reason for a breach or with
None. A breach is an event with evidence, never an exception, and the message is not delivered. Rules are tolerant of
what a network does: a rate is a bucket, a speed is held against the time between the *sender's* stamps, bounded by
when the messages came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

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


class Seen(msgspec.Struct):
    """What a rule may know. Times in seconds of the room's clock, `now` when the message came; `last` the sender's
    last accepted message of this type (None at first) with `last_at` when it came and `last_stamp_s` its stamp.

    `stamp_s`: when its sender says it was sent (`stamp` of the type; else None). `time_error_s`: the bound of the
    room's clock.
    """

    now: float
    time_error_s: float = 0.0
    stamp_s: float | None = None
    last: Any = None
    last_at: float = -math.inf
    last_stamp_s: float | None = None
    memory: dict[str, Any] = {}


Rule = Callable[[Any, Seen], str | None]
"""(message, what is known) -> why it breaks the rule, or None. `Seen.memory` is the rule's own, for each sender."""


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


class Checked(Protocol):
    """A message type with rules."""

    __rules__: Sequence[Rule]


class RuleBook:
    """1. `check(sender, message, now, time_error_s)` for each message that came: None, or the `Breach`. 2.
    `forget(sender)` when it left.

    Work is that of the rules: a few microseconds. Memory is bounded by SENDERS_MAX times the types with rules.
    """

    def __init__(self, rules: Sequence[Rule], stamp: Callable[[Any], float | None] | None = None) -> None:
        """`stamp` gives the room time in seconds at which a message says it was sent."""
        self._rules = [(getattr(rule, "__name__", type(rule).__name__), rule) for rule in rules]
        self._stamp = stamp
        self._senders: dict[object, tuple[Seen, list[dict[str, Any]]]] = {}

    def check(self, sender: object, message: Any, now: float, time_error_s: float = 0.0) -> Breach | None:
        known = self._senders.get(sender)
        if known is None:
            if len(self._senders) >= SENDERS_MAX:
                del self._senders[next(iter(self._senders))]
            known = self._senders[sender] = (Seen(now), [{} for _ in self._rules])
        seen, memories = known
        seen.now, seen.time_error_s = now, time_error_s
        seen.stamp_s = self._stamp(message) if self._stamp is not None else None
        for (name, rule), memory in zip(self._rules, memories):
            seen.memory = memory
            reason = rule(message, seen)
            if reason is not None:
                return Breach(sender, name, reason, message, seen.last, now)
        seen.last, seen.last_at, seen.last_stamp_s = message, now, seen.stamp_s
        return None

    def forget(self, sender: object) -> None:
        self._senders.pop(sender, None)


def _named(name: str) -> Callable[[Rule], Rule]:
    def name_it(rule: Rule) -> Rule:
        rule.__name__ = name
        return rule

    return name_it


def rate(*, per_s: float, burst_s: float = BURST_S) -> Rule:
    """At most `per_s` messages a second, over any `burst_s` seconds and a bit."""
    if not per_s > 0 or not burst_s > 0:
        raise InvalidConfig(f"rate(per_s={per_s}, burst_s={burst_s}): both are above 0")
    most = per_s * burst_s + 1

    @_named(f"rate(per_s={per_s:g})")
    def rule(message: Any, seen: Seen) -> str | None:
        memory = seen.memory
        tokens = min(most, memory.get("tokens", most) + (seen.now - memory.get("at", seen.now)) * per_s * SLACK)
        memory["at"] = seen.now
        if tokens < 1:
            memory["tokens"] = tokens
            return f"more than {per_s:g} a second"
        memory["tokens"] = tokens - 1
        return None

    return rule


def sequence(field: str = "sequence") -> Rule:
    """`field` grows with every message: none is played again, none is older than one that was accepted."""

    @_named(f"sequence({field!r})")
    def rule(message: Any, seen: Seen) -> str | None:
        if seen.last is not None and getattr(message, field) <= getattr(seen.last, field):
            return f"{field} {getattr(message, field)} after {getattr(seen.last, field)}"
        return None

    return rule


def within(low: Sequence[float], high: Sequence[float], fields: Sequence[str] = ("x", "y", "z")) -> Rule:
    """Each field lies between its ends of a box."""
    names = fields[: len(low)]
    if len(low) != len(high) or len(names) != len(low) or any(a > b for a, b in zip(low, high)):
        raise InvalidConfig(f"within({low}, {high}): as many ends as fields, low ones below high ones")

    @_named("within")
    def rule(message: Any, seen: Seen) -> str | None:
        for name, a, b in zip(names, low, high):
            value = getattr(message, name)
            if not a <= value <= b:
                return f"{name} is {value:g}, outside {a:g} to {b:g}"
        return None

    return rule


def speed(*, max: float, fields: Sequence[str] = ("x", "y", "z"), over_s: float = 0.5) -> Rule:
    """No faster than `max` units a second, on the way since `over_s` seconds ago.

    Time is the sender's own, if its messages are stamped, and never more than has gone by here since the earlier
    message came, plus what the network may have held it back. Without stamps it is the latter alone. Teleports that
    a game allows are messages of another type, or pass `restart=` of your own rule.
    """
    if not max > 0 or not over_s > 0:
        raise InvalidConfig(f"speed(max={max}, over_s={over_s}): both are above 0")

    @_named(f"speed(max={max:g})")
    def rule(message: Any, seen: Seen) -> str | None:
        point = tuple([getattr(message, name) for name in fields if hasattr(message, name)])
        stamp = seen.now if seen.stamp_s is None else seen.stamp_s
        track: list[tuple[float, float, tuple[float, ...]]] = seen.memory.setdefault("track", [])
        if track:
            then, came, origin = track[0]
            # What came quickly counts from when it was sent; what claims a longer way than has gone by here does not
            # get it.
            spent = (
                min(stamp - then, seen.now - came + HELD_BACK_S)
                if seen.stamp_s is not None
                else seen.now - came + HELD_BACK_S
            )
            far = math.dist(point, origin)
            if far > max * SLACK * (spent if spent > 0 else 0.0) + max * TICK_S:
                return f"{far:g} units in {spent:.3f} s, {far / (spent or 1e-9):.1f} a second of at most {max:g}"
        track.append((stamp, seen.now, point))
        window = over_s if seen.stamp_s is not None else 4 * over_s  # what may have been held back weighs less then
        while len(track) > 1 and (track[1][0] <= stamp - window or len(track) > TRACK_MAX):
            del track[0]
        return None

    return rule


def stamped() -> Rule:
    """A stamp is no later than now and no older than the network explains, to within the clock's bound and
    STAMP_MARGIN_S.
    """

    @_named("stamped")
    def rule(message: Any, seen: Seen) -> str | None:
        if seen.stamp_s is None:
            return None
        margin = seen.time_error_s + STAMP_MARGIN_S
        if not math.isfinite(seen.time_error_s):
            return None
        if seen.stamp_s > seen.now + margin:
            return f"stamped {seen.stamp_s - seen.now:.3f} s in the future"
        if seen.last_stamp_s is not None and seen.stamp_s < seen.last_stamp_s - margin:
            return f"stamped {seen.last_stamp_s - seen.stamp_s:.3f} s before one that was accepted"
        if seen.stamp_s < seen.now - margin - OLDEST_S:
            return f"stamped {seen.now - seen.stamp_s:.3f} s ago"
        return None

    return rule


def cooldown(seconds: float, when: Callable[[Any], bool] = lambda message: True) -> Rule:
    """`when(message)` is true at most once in so many seconds."""

    @_named(f"cooldown({seconds:g})")
    def rule(message: Any, seen: Seen) -> str | None:
        if not when(message):
            return None
        stamp = seen.now if seen.stamp_s is None else seen.stamp_s
        last = seen.memory.get("last", -math.inf)
        if stamp - last < seconds - (TICK_S if seen.stamp_s is not None else HELD_BACK_S):
            return f"again after {stamp - last:.3f} s of {seconds:g}"
        seen.memory["last"] = stamp
        return None

    return rule


def between(field: str, low: float, high: float) -> Rule:
    """`field` lies between `low` and `high`."""

    @_named(f"between({field!r})")
    def rule(message: Any, seen: Seen) -> str | None:
        value = getattr(message, field)
        return None if low <= value <= high else f"{field} is {value:g}, outside {low:g} to {high:g}"

    return rule
