"""What a player does in one tick, as a struct for the game and as a few bytes for the wire."""

from __future__ import annotations

import enum
import math
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec

from psyne_mesh.errors import InvalidConfig, UnserialisableMessage
from psyne_mesh.game.rollback.events import PlayerInput
from psyne_mesh.game.rollback.wire import INPUT_BYTES_MAX

_CACHED_MAX = 4096


class Input(msgspec.Struct, dict=True):
    """Subclass this: one field for each thing that a player can hold, press or steer, all with defaults.

        class Keys(rollback.Input):
            left: bool = False
            weapon: Annotated[int, msgspec.Meta(ge=0, le=7)] = 0
            aim: Annotated[float, rollback.Axis(bits=10, low=-math.pi, high=math.pi)] = 0.0

    A bool takes a bit, an int or enum what its bounds need, a float what its `Axis` says. In `tick` each has
    `predicted` (nobody has said it yet) and `present` (the seat has a player).
    """

    @property
    def predicted(self) -> bool:
        return bool(self.__dict__.get("_predicted", False))

    @property
    def present(self) -> bool:
        return bool(self.__dict__.get("_present", True))


class Axis(msgspec.Struct, frozen=True):
    """A float between `low` and `high` in `bits` bits (1 to 32): what is sent is what the own machine simulates,
    too.
    """

    bits: int
    low: float
    high: float


I = TypeVar("I", bound=Input)  # noqa: E741


class InputLayout(typing.Generic[I]):
    """1. `pack(value)` gives `size` bytes. 2. `view(said)` the struct for the game. Raises InvalidConfig for
    a type that cannot be packed, naming the field.
    """

    def __init__(self, kind: type[I]) -> None:
        if not (isinstance(kind, type) and issubclass(kind, Input)):
            raise InvalidConfig(f"inputs are a subclass of rollback.Input, not {kind!r}")
        self.kind = kind
        hints = typing.get_type_hints(kind, include_extras=True)
        self._fields = [(name, *_codec(f"{kind.__name__}.{name}", hints[name])) for name in kind.__struct_fields__]
        bits = sum(width for _, width, _, _ in self._fields)
        self.size = max(1, (bits + 7) // 8)
        if self.size > INPUT_BYTES_MAX:
            raise InvalidConfig(f"{kind.__name__} takes {self.size} bytes a tick; at most {INPUT_BYTES_MAX}")
        try:
            self.blank = self.pack(kind())
        except TypeError as error:
            raise InvalidConfig(f"every field of {kind.__name__} needs a default: {error}") from None
        self._cached: dict[tuple[bytes, bool, bool], I] = {}

    def pack(self, value: I) -> bytes:
        """Raises UnserialisableMessage, naming the field; nothing has changed then."""
        if type(value) is not self.kind:
            raise UnserialisableMessage(f"an input of this game is a {self.kind.__name__}, not {value!r}")
        packed = shift = 0
        try:
            for name, width, number, _ in self._fields:
                packed |= number(getattr(value, name)) << shift
                shift += width
        except (TypeError, ValueError) as error:
            raise UnserialisableMessage(str(error)) from None
        return packed.to_bytes(self.size, "little")

    def unpack(self, data: bytes) -> I:
        """Any bytes of the right length are some input: what is out of a field's bounds is brought to the nearest
        bound.
        """
        packed = int.from_bytes(data, "little")
        values: dict[str, Any] = {}
        for name, width, _, value in self._fields:
            values[name] = value(packed & (1 << width) - 1)
            packed >>= width
        return self.kind(**values)

    def view(self, said: PlayerInput) -> I:
        key = (said.data, said.predicted, said.present)
        known = self._cached.get(key)
        if known is None:
            if len(self._cached) >= _CACHED_MAX:
                self._cached.clear()
            known = self._cached[key] = self.unpack(said.data)
            known.__dict__.update(_predicted=said.predicted, _present=said.present)
        return known


def _codec(where: str, hint: Any) -> tuple[int, Callable[[Any], int], Callable[[int], Any]]:
    """(bits, value -> number, number -> value)."""
    metas = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    kind = typing.get_args(hint)[0] if metas else hint
    axis = next((meta for meta in metas if isinstance(meta, Axis)), None)
    bounds = next((meta for meta in metas if isinstance(meta, msgspec.Meta)), None)
    if kind is bool:
        return 1, lambda value: int(_checked(where, value, bool)), bool
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _of_enum(where, kind)
    if kind is int and bounds is not None and bounds.ge is not None and bounds.le is not None:
        return _of_int(where, int(bounds.ge), int(bounds.le))
    if kind is float and axis is not None:
        return _of_axis(where, axis)
    raise InvalidConfig(
        f"{where}: an input field is a bool, an enum, an int with bounds (Annotated[int, msgspec.Meta(ge=0, le=7)]) or a "
        f"float with rollback.Axis(bits, low, high), not {getattr(hint, '__name__', hint)}"
    )


def _checked(where: str, value: Any, kind: type | types.UnionType) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{where} is {value!r}, not {kind}")
    return value


def _of_enum(where: str, kind: type[enum.Enum]) -> tuple[int, Callable[[Any], int], Callable[[int], Any]]:
    members = list(kind)
    places = {member: place for place, member in enumerate(members)}
    return (
        max(1, (len(members) - 1).bit_length()),
        lambda value: places[_checked(where, value, kind)],
        lambda number: members[min(number, len(members) - 1)],
    )


def _of_int(where: str, low: int, high: int) -> tuple[int, Callable[[Any], int], Callable[[int], Any]]:
    def number(value: Any) -> int:
        if not low <= _checked(where, value, int) <= high:
            raise ValueError(f"{where} is {value}, not within {low} to {high}")
        return int(value) - low

    return max(1, (high - low).bit_length()), number, lambda packed: min(low + packed, high)


def _of_axis(where: str, axis: Axis) -> tuple[int, Callable[[Any], int], Callable[[int], Any]]:
    if not 1 <= axis.bits <= 32 or not axis.low < axis.high:
        raise InvalidConfig(f"{where}: an axis has 1 to 32 bits, and low below high")
    steps = (1 << axis.bits) - 1
    span = axis.high - axis.low

    def number(value: Any) -> int:
        if not math.isfinite(_checked(where, value, int | float)):
            raise ValueError(f"{where} is {value}")
        share: float = (min(max(value, axis.low), axis.high) - axis.low) / span
        return round(share * steps)

    return axis.bits, number, lambda packed: axis.low + packed / steps * span
