"""The base of small facts: events, effects, orders. One is made in a tenth of an attrs class's time, and so is the class."""

from __future__ import annotations

from typing import dataclass_transform

import msgspec


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Frozen(msgspec.Struct, frozen=True):
    """Fields as annotated, compared and hashed by value, never changed; `msgspec.structs.replace` makes a changed copy.

    For what has validators, converters or fields that are not compared there is attrs. A module of the compiled build gives no
    other keywords with its classes, and no `ClassVar` in them: they are lost there.
    """
