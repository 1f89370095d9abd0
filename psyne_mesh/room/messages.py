"""Typed messages: the base class for a game's own, and the three that psyne's README names.

On the wire a message is one MessagePack array `[tag, field, field, ...]`; the tag is the class name unless the class
says otherwise (`class Shot(Message, tag="s")`), so adding a field with a default at the end stays compatible.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Annotated

import msgspec

_LARGEST = sys.float_info.max
Finite = Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]
"""A float that is neither NaN nor infinite: one NaN position spreads through a whole simulation."""


class Message(msgspec.Struct, array_like=True, tag=True):
    """Subclass this for a game's own messages; fields are declared as in a dataclass.

        class Shot(Message):
            weapon: int
            x: float
            y: float

    NaN and infinite floats are refused on both sides.
    """


class PlayerPosition(Message):
    """Where a player is: metres, metres per second, radians. Sent at 60 Hz, unreliable: the next one replaces it.

    `timestamp_ns` is the monotonic clock of the sender; compare it only with stamps of the same sender or machine.
    """

    sequence: int
    timestamp_ns: int
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
    timestamp_ns: int
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
