"""Typed messages: the base class for a game's own, and the three that psyne's README names.

On the wire a message is one MessagePack array `[tag, field, field, ...]`; the tag is the class name unless the class
says otherwise (`class Shot(Message, tag="s")`), so adding a field with a default at the end stays compatible.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from enum import IntEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, dataclass_transform

import msgspec

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.rules import Rule, RuleBook, stamped

_LARGEST = sys.float_info.max
Finite = Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
"""A float that is neither NaN nor infinite: one NaN position spreads through a whole simulation."""


Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A whole number that needs 64 bits, such as nanoseconds: a `bigint` in TypeScript, where `int` is a `number` of 53 bits."""


Stamp = str | Callable[[Any], float | None]


class _MessageMeta(msgspec.StructMeta):
    """Takes `rules` and `stamp` out of the class statement, and checks them there."""

    __rules__: tuple[Rule, ...]
    __stamp__: Callable[[Any], float | None] | None

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, rules: Sequence[Rule] | None = None,
        stamp: Stamp | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        made = super().__new__(mcs, name, bases, namespace, **options)
        if rules is not None:
            made.__rules__ = _checked_rules(name, rules)
        if stamp is not None:
            made.__stamp__ = _stamp_reader(made, stamp)
        if made.__dict__.get("__rules__") or made.__dict__.get("__stamp__"):
            rule_book(made)
        if any(isinstance(base, _MessageMeta) for base in bases):
            tag = made.__struct_config__.tag
            _made[tag] = [*(known for known in _made.get(tag, ()) if known() is not None), weakref.ref(made)]
        return made


_made: dict[str | int | None, list[weakref.ref[type[Any]]]] = {}


def kinds_of(tag: str | int) -> list[type[Message]]:
    """The classes that exist with that tag, the newest last. Work: as many as there are of it, not of all."""
    return [kind for known in _made.get(tag, ()) if (kind := known()) is not None]


@dataclass_transform()
class Message(msgspec.Struct, metaclass=_MessageMeta, array_like=True, tag=True):
    """Subclass this for a game's own messages; fields are declared as in a dataclass.

        class Shot(Message):
            weapon: int
            x: float
            y: float

    NaN and infinite floats are refused on both sides.

    rules: what receivers hold each message against (`psyne_mesh.game.rules`); one that breaks a rule is not delivered, and
    `RuleBroken` tells of it. stamp: the field (or a function of the message) with `room.time()` when it was sent; a stamp
    that the room's clock cannot explain breaks a rule, too. Both are inherited. `InvalidConfig` for what is no rule, or
    speaks of a field that is not there.
    """

    if TYPE_CHECKING:

        def __init_subclass__(
            cls, *, rules: Sequence[Rule] = ..., stamp: Stamp | None = ..., tag: Any = ..., **options: Any
        ) -> None: ...


def _checked_rules(name: str, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    if isinstance(rules, str) or not isinstance(rules, Sequence) or not all(map(callable, rules)):
        raise InvalidConfig(
            f"class {name}(Message, rules={rules!r}): a list of rules, such as [rate(per_s=60)], or of functions "
            "of (message, seen) that return why it breaks the rule, or None"
        )
    return tuple(rules)


def _stamp_reader(kind: type[Any], stamp: Stamp) -> Callable[[Any], float | None]:
    if isinstance(stamp, str) and hasattr(kind, stamp):
        return attrgetter(stamp)
    if not isinstance(stamp, str) and callable(stamp):
        return stamp
    raise InvalidConfig(
        f"class {kind.__name__}(Message, stamp={stamp!r}): the name of a field that holds room.time(), or a function"
    )


def rule_book(kind: type[Any], *, is_ordered: bool = True) -> RuleBook | None:
    """A new one for messages of that type; None if it has no rules. is_ordered: they do not overtake each other."""
    rules, stamp = kind.__rules__, kind.__stamp__
    if not rules and stamp is None:
        return None
    return RuleBook([*rules, stamped()] if stamp is not None else rules, stamp, kind, is_ordered=is_ordered)


Message.__rules__ = ()
Message.__stamp__ = None


class PlayerPosition(Message):
    """Where a player is: metres, metres per second, radians. Sent at 60 Hz, unreliable: the next one replaces it.

    `timestamp_ns` is the monotonic clock of the sender; compare it only with stamps of the same sender or machine.
    """

    sequence: int
    timestamp_ns: Int64
    x: Finite = 0.0
    y: Finite = 0.0
    z: Finite = 0.0
    vx: Finite = 0.0
    vy: Finite = 0.0
    vz: Finite = 0.0
    yaw: Finite = 0.0
    pitch: Finite = 0.0
    health: Annotated[int, msgspec.Meta(ge=0, le=255)] = 100
    weapon: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    flags: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


class Action(IntEnum):
    ATTACK = 0
    BLOCK = 1
    DODGE = 2
    RELOAD = 3
    USE_ITEM = 4


class CombatAction(Message):
    """What a player does to another; reliable and ordered, since a lost hit is a wrong score.

    `target` is a peer id; `direction` a unit vector; `damage` in health points; `accuracy` from 0 to 1.
    """

    sequence: int
    timestamp_ns: Int64
    action: Action
    target: str = ""
    direction: tuple[Finite, Finite, Finite] = (0.0, 0.0, 1.0)
    weapon: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    damage: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    accuracy: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    item: str = ""


class FloatVector(Message):
    """A plain run of numbers, as psyne's first examples sent."""

    values: tuple[Finite, ...]
