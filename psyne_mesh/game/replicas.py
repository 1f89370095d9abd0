"""The shared objects themselves, as the game holds them: ours are read after each frame, the others' written before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.interpolation import Playback, Track
from psyne_mesh.game.schema import Schema, Shared, TheirSchema, Wire, schema_of
from psyne_mesh.game.shared import CLASSES_MAX, OBJECTS_MAX, Announced, Removed, SharedEvent, Updated
from psyne_mesh.identity import PeerId

S = TypeVar("S", bound=Shared)


class Appeared:
    """An object of another player is here."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared


class Vanished:
    """An object of another player is gone; it keeps its last values."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared


class Refused:
    """A class of another player's objects cannot be read here, or one of its objects holds what it may not: `reason` names
    the field. None of those objects is shown. Once for each player and class."""

    def __init__(self, player: Any, kind: str, reason: str) -> None:
        self.player = player
        self.kind = kind
        self.reason = reason


ReplicaEvent = Appeared | Vanished | Refused


class _Mine:
    def __init__(self, number: int, shared: Shared, schema: Schema, last: tuple[Any, ...]) -> None:
        self.number = number
        self.shared = shared
        self.schema = schema
        self.last = last


class _Replica:
    """An object of another player; `shared` is None while its class is not known here, or cannot be read."""

    def __init__(self, owner: PeerId, player: Any, schema: TheirSchema) -> None:
        self.owner = owner
        self.player = player
        self.schema = schema
        self.wire: dict[int, Wire] = {}  # what came before its class was known here
        self.stamp = 0.0
        self.interval_s = 0.0
        self.shared: Shared | None = None
        self.names: tuple[str, ...] = ()
        self.smooth: tuple[float, ...] = ()
        self.track: Track | None = None
        self.is_moving = False


class Replicas:
    """1. `share(shared, player)` and `unshare(shared)`: ours. 2. `changes()` after each frame, for `SharedObjects.update`.
    3. `apply(event, player)` for each of `SharedObjects.take_events()`. 4. `sample(now)` before the game reads, `all(kind)`.
    5. `take_events()`: what appeared, vanished or was refused.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kinds: dict[str, Schema] = {}
        self._shared_kinds: set[str] = set()
        self._mine: dict[int, _Mine] = {}
        self._theirs: dict[tuple[PeerId, int], _Replica] = {}
        self._playbacks: dict[PeerId, Playback] = {}
        self._stamps: dict[PeerId, float] = {}
        self._refused: set[tuple[PeerId, str]] = set()
        self._events: list[ReplicaEvent] = []

    # ----------------------------------------------------------------------------------------------------------- ours

    def share(self, shared: S, player: Any) -> tuple[int, Schema, list[Wire]]:
        """Its number, schema and values, for `SharedObjects.add`. `UnserialisableMessage` names a field that cannot travel."""
        if not isinstance(shared, Shared):
            hint = f"; write share({shared.__name__}())" if isinstance(shared, type) else ""
            raise InvalidConfig(
                f"share({shared!r}): must be an object of a class of yours that subclasses Shared{hint}"
            )
        schema = self.know(type(shared))
        if shared.owner is not None:
            raise InvalidConfig(f"{shared!r} is shared already")
        if len(self._mine) >= OBJECTS_MAX:
            raise InvalidConfig(f"a player shares at most {OBJECTS_MAX} objects at once")
        if schema.name not in self._shared_kinds and len(self._shared_kinds) >= CLASSES_MAX:
            raise InvalidConfig(f"a player shares objects of at most {CLASSES_MAX} classes")
        values = schema.values_of(shared)
        wire = [schema.wire_of(field, value) for field, value in enumerate(values)]
        self._shared_kinds.add(schema.name)
        number = next(self._numbers)
        self._mine[number] = _Mine(number, shared, schema, values)
        shared.__dict__.update(_owner=player, _mine=True, _number=number)
        return number, schema, wire

    def unshare(self, shared: Shared) -> int:
        """Its number, for `SharedObjects.remove`."""
        number = shared.__dict__.get("_number") if isinstance(shared, Shared) else None
        mine = self._mine.get(number) if number is not None else None
        if mine is None or mine.shared is not shared:
            raise InvalidConfig(f"unshare({shared!r}): must be an object that we share; each player takes back its own")
        del self._mine[mine.number]
        for key in ("_owner", "_mine", "_number"):
            del shared.__dict__[key]
        return mine.number

    def changes(self) -> list[tuple[int, list[tuple[int, Wire]]]]:
        """By number of the object, what changed since the last time: field and value on the wire. `UnserialisableMessage`
        names a field that cannot travel, and nothing is taken then."""
        changed: list[tuple[int, list[tuple[int, Wire]]]] = []
        taken: list[tuple[_Mine, tuple[Any, ...]]] = []
        for mine in self._mine.values():
            schema = mine.schema
            values = schema.values_of(mine.shared)
            last = mine.last
            if values == last:
                continue
            fields: list[tuple[int, Wire]] = []
            for number, value in enumerate(values):
                if value != last[number]:
                    fields.append((number, schema.wire_of(number, value)))
            changed.append((mine.number, fields))
            taken.append((mine, values))
        for mine, values in taken:
            mine.last = values
        return changed

    # ------------------------------------------------------------------------------------------------------ the others'

    def know(self, kind: type[Shared]) -> Schema:
        """From now on objects of this class can be read; those that came before are, too. `InvalidConfig` for a class of
        which a field cannot travel, or of a name that another class has."""
        schema = schema_of(kind)
        known = self._kinds.get(schema.name)
        if known is None:
            self._kinds[schema.name] = schema
            for replica in self._theirs.values():
                if replica.schema.name == schema.name:
                    self._make(replica, schema)
        elif known is not schema:
            places = f"{known.kind.__module__} and {kind.__module__}"
            raise InvalidConfig(f"two classes of shared objects are called {schema.name}, in {places}: rename one")
        return schema

    def apply(self, event: SharedEvent, player: Any) -> None:
        """player: whose object it is, as the game will see it in `owner`."""
        if isinstance(event, Updated):
            self._update(event, player)
        elif isinstance(event, Removed):
            replica = self._theirs.pop((event.owner, event.number), None)
            if replica is not None and replica.shared is not None:
                self._events.append(Vanished(replica.shared))
        elif isinstance(event, Announced):
            ours = self._kinds.get(event.schema.name)
            if ours is not None:
                self._is_readable(event.owner, player, event.schema, ours)

    def forget(self, owner: PeerId) -> None:
        """The player is gone, and its objects were removed."""
        self._playbacks.pop(owner, None)
        self._stamps.pop(owner, None)
        self._refused = {each for each in self._refused if each[0] != owner}

    def sample(self, now: float) -> None:
        """Write into the smooth fields of the others' objects what is to be seen now."""
        positions: dict[PeerId, float] = {}
        for replica in self._theirs.values():
            track, shared = replica.track, replica.shared
            if track is None or shared is None or not replica.is_moving:
                continue
            position = positions.get(replica.owner)
            if position is None:
                position = positions[replica.owner] = self._playbacks[replica.owner].at(now)
            for name, value in zip(replica.names, track.at(position)):
                setattr(shared, name, value)
            replica.is_moving = not track.is_at_rest(position)

    def all(self, kind: type[S]) -> Iterator[S]:
        """Ours first. The iterator is of a list of its own, so objects may come and go in the loop."""
        ours = [mine.shared for mine in self._mine.values() if isinstance(mine.shared, kind)]
        theirs = [each.shared for each in self._theirs.values() if isinstance(each.shared, kind)]
        return iter(ours + theirs)

    def delay_s(self, owner: PeerId) -> float | None:
        """How far behind its owner's newest message what we show is; None before there was one."""
        playback = self._playbacks.get(owner)
        return None if playback is None else playback.delay_s

    def take_events(self) -> list[ReplicaEvent]:
        events, self._events = self._events, []
        return events

    # --------------------------------------------------------------------------------------------------------- helpers

    def _update(self, event: Updated, player: Any) -> None:
        if self._stamps.get(event.owner) != event.stamp:
            self._stamps[event.owner] = event.stamp
            playback = self._playbacks.get(event.owner)
            if playback is None:
                playback = self._playbacks[event.owner] = Playback()
            playback.note(event.stamp, event.came, event.interval_s)
        key = event.owner, event.number
        replica = self._theirs.get(key)
        if replica is None or event.fresh:
            if replica is not None and replica.shared is not None:
                self._events.append(Vanished(replica.shared))
            replica = self._theirs[key] = _Replica(event.owner, player, event.schema)
        ours = self._kinds.get(event.schema.name)
        replica.stamp, replica.interval_s = event.stamp, event.interval_s
        if replica.shared is None:
            replica.wire.update(event.values)
            if ours is not None:
                self._make(replica, ours)
            return
        assert ours is not None
        self._write(replica, ours, event.values, event.at_rest)

    def _is_readable(self, owner: PeerId, player: Any, theirs: TheirSchema, ours: Schema) -> bool:
        difference = theirs.difference(ours)
        if difference is not None:
            self._refuse(owner, player, theirs.name, difference)
        return difference is None

    def _refuse(self, owner: PeerId, player: Any, kind: str, reason: str) -> None:
        if (owner, kind) not in self._refused:
            self._refused.add((owner, kind))
            self._events.append(Refused(player, kind, reason))

    def _make(self, replica: _Replica, ours: Schema) -> None:
        if not self._is_readable(replica.owner, replica.player, replica.schema, ours):
            return
        shared = ours.kind()
        shared.__dict__.update(_owner=replica.player, _mine=False)
        if ours.smooth:
            specs = [ours.fields[number].spec for number in ours.smooth]
            replica.track = Track([spec.snap for spec in specs], [spec.wrap for spec in specs])
            replica.names = tuple(ours.fields[number].name for number in ours.smooth)
            replica.smooth = tuple(float(getattr(shared, name)) for name in replica.names)
        replica.shared = shared
        self._write(replica, ours, replica.wire, True)
        replica.wire = {}
        if replica.shared is not None:
            for name, value in zip(replica.names, replica.smooth):
                setattr(shared, name, value)
            self._events.append(Appeared(shared))

    def _write(self, replica: _Replica, ours: Schema, values: dict[int, Wire], at_rest: bool) -> None:
        shared, fields = replica.shared, ours.fields
        smooth: dict[int, float] = {}
        for number, wire in values.items():
            if number >= len(fields):
                continue  # of a newer version
            field = fields[number]
            try:
                value = field.from_wire(wire)
            except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
                self._refuse(
                    replica.owner,
                    replica.player,
                    ours.name,
                    f"{ours.name}.{field.name} came with a value that it may not have: {error}",
                )
                continue
            if field.spec.smooth:
                smooth[number] = value
            else:
                setattr(shared, field.name, value)
        if smooth and replica.track is not None:
            replica.smooth = tuple([smooth.get(number, last) for number, last in zip(ours.smooth, replica.smooth)])
            replica.track.add(replica.stamp, replica.smooth, replica.interval_s, at_rest)
            replica.is_moving = True
