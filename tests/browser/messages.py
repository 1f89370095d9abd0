"""Message classes with every kind of field that has a form in TypeScript: `messages.ts` beside it is made from them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from psyne_mesh import CombatAction, Message, PlayerPosition, Shared, quantised, smooth
from psyne_mesh.room import Finite, FloatVector, Int64

__all__ = ["CombatAction", "FloatVector", "PlayerPosition"]  # of the package, and carried by this game as well


class Team(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct, array_like=True):
    x: Finite
    y: Finite = 0.0


class Item(msgspec.Struct, tag="item"):
    name: Annotated[str, Meta(min_length=1, max_length=32)]
    count: Annotated[int, Meta(ge=1, le=99)] = 1


class Coin(msgspec.Struct, tag="coin"):
    value: int


@dataclass
class Look:
    hat: str
    colour: tuple[int, int, int] = (255, 255, 255)


class Span(NamedTuple):
    first: int
    last: int


class Shot(Message):
    """Somebody fired."""

    x: Finite
    y: Finite
    weapon: int = 0


class Hit(Message, tag="h"):
    target: str
    damage: Annotated[float, Meta(gt=0, le=1000)]


class Everything(Message, tag=7):
    """One field of each kind.

    Only the first paragraph goes into the file.
    """

    flag: bool
    small: Annotated[int, Meta(ge=-8, lt=8)]
    at_ns: Int64
    ratio: Annotated[float, Meta(ge=0, le=1)]
    word: Annotated[str, Meta(pattern="^[a-z]+$", max_length=8)]
    blob: Annotated[bytes, Meta(max_length=4)]
    team: Team
    which: Literal["left", "right", 0]
    point: Point
    path: Annotated[list[Point], Meta(max_length=16)]
    loot: Item | Coin | None
    look: Look
    span: Span
    scores: dict[str, int]
    pair: tuple[int, str]
    trail: tuple[float, ...] = ()
    seen: frozenset[int] = frozenset()
    owner: str | None = None
    home: Point = msgspec.field(default_factory=lambda: Point(1.0, 2.0))
    first: Shot = msgspec.field(default_factory=lambda: Shot(1.0, 2.0))
    anything: Any = None
    raw: bytes = b"\x00\xff"
    big: Int64 = 2**60


class Ship(Shared):
    """An object that all see."""

    x: float = smooth(0.0)
    turret: float = quantised(0.0, bits=10, low=-3.2, high=3.2)
    hp: int = 100
    team: Team = Team.RED
