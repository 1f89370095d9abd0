"""The shared objects themselves, as the game holds them: ours are read after each frame, the others' written before it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.absences import Regained
from psyne_mesh.game.interpolation import Playback, Track
from psyne_mesh.game.schema import Schema, Shared, TheirSchema, Wire, schema_of
from psyne_mesh.game.shared import Announced, OwnerAbsent, Removed, SharedEvent, Updated
from psyne_mesh.game.shared_records import CLASSES_MAX, OBJECTS_MAX, Kept, is_hosted
from psyne_mesh.identity import PeerId

S = TypeVar("S", bound=Shared)

HOSTLESS_S = 60.0
"""The objects of a host that is gone are shown for so long until another goes on with them: a host is replaced within 3 s, but
after 45 s if one player is left, who had the higher seat (`game/host.py`)."""


class Appeared:
    """An object of another player is here."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared


class Vanished:
    """An object of another player is gone; it keeps its last values."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared


class Restored:
    """An object that we had before we crashed, as the others saw it last; it is nobody's until we share it."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared


class Refused:
    """A class of another player's objects cannot be read here, or one of its objects holds what it may not: `reason` names
    the field. None of those objects is shown. Once for each player and class."""

    def __init__(self, player: Any, kind: str, reason: str) -> None:
        self.player = player
        self.kind = kind
        self.reason = reason


ReplicaEvent = Appeared | Vanished | Restored | Refused


class _Mine:
    def __init__(self, number: int, shared: Shared, schema: Schema, last: tuple[Any, ...]) -> None:
        self.number = number
        self.shared = shared
        self.schema = schema
        self.last = last
        self.past = _track(schema)


class _Hosted:
    """An object of the host, whoever that is. source: whose replica is shown, None while it is ours or its host is gone
    (since `gone_at`)."""

    def __init__(self, shared: Shared, term: int, source: tuple[PeerId, int] | None) -> None:
        self.shared = shared
        self.term = term
        self.source = source
        self.gone_at = math.inf


class _Replica:
    """An object of another player; `shared` is None while its class is not known here, or cannot be read, and while it is an
    object of the host of whom we do not know yet that he is."""

    def __init__(self, owner: PeerId, player: Any, schema: TheirSchema) -> None:
        self.owner = owner
        self.player = player
        self.schema = schema
        self.term = 0
        self.wire: dict[int, Wire] = {}  # what came before its class was known here
        self.stamp = 0.0
        self.interval_s = 0.0
        self.shared: Shared | None = None
        self.names: tuple[str, ...] = ()
        self.smooth: tuple[float, ...] = ()
        self.track: Track | None = None
        self.is_moving = False
        self.is_absent = False


class Replicas:
    """1. `share(shared, player)` and `unshare(shared)`: ours. 2. `changes()` after each frame, for `SharedObjects.update`.
    3. `apply(event, player)` for each of `SharedObjects.take_events()`. 4. `sample(now)` before the game reads, `all(kind)`.
    5. `take_events()`: what appeared, vanished or was refused.

    Objects of the host have odd numbers and a term, and keep their number when another player becomes the host: 6.
    `take_over(term, player)` when that is us; `take_released()` tells which of ours another host has taken. Of two who
    claim an object the one counts who is the host by what was given as `accepts`, and the higher term.
    """

    def __init__(self, accepts: Callable[[PeerId, int], bool] = lambda _player, _term: False) -> None:
        self._accepts = accepts
        self._hosted: dict[int, _Hosted] = {}
        self._claims: set[tuple[PeerId, int]] = set()  # objects of hosts of whom we do not know yet that they are
        self._orphans: set[int] = set()
        self._released: list[int] = []
        self._numbers = itertools.count(2, 2)
        self._hosted_number = 1
        self._kinds: dict[str, Schema] = {}
        self._shared_kinds: set[str] = set()
        self._mine: dict[int, _Mine] = {}
        self._theirs: dict[tuple[PeerId, int], _Replica] = {}
        self._playbacks: dict[PeerId, Playback] = {}
        self._stamps: dict[PeerId, float] = {}
        self._regained = Regained()
        self._refused: set[tuple[PeerId, str]] = set()
        self._events: list[ReplicaEvent] = []

    # ----------------------------------------------------------------------------------------------------------- ours

    def share(self, shared: S, player: Any, term: int = 0) -> tuple[int, Schema, list[Wire], int]:
        """Its number, schema, values and term, for `SharedObjects.add`. `UnserialisableMessage` names a field that cannot
        travel. term: ours as the host, whose object it is."""
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
        kept = self._regained.number_of(shared)
        taken = self._mine.keys()
        if (number := kept) is None or number in taken:
            number = next(each for each in self._numbers if not (each in taken or self._regained.is_reserved(each)))
        if term:
            while self._hosted_number in self._hosted:
                self._hosted_number += 2
            number = self._hosted_number
            self._hosted_number += 2
            self._hosted[number] = _Hosted(shared, term, None)
        self._mine[number] = _Mine(number, shared, schema, values)
        shared.__dict__.update(_owner=player, _mine=True, _number=number)
        return number, schema, wire, term

    def take_over(self, term: int, player: Any) -> list[tuple[int, Schema, list[Wire], int]]:
        """We are the host: its objects are ours from now on, as they were seen last. For `SharedObjects.add`, as of `share`."""
        taken = []
        for number, hosted in self._hosted.items():
            if hosted.term > term or (hosted.term == term and number in self._mine):
                continue
            self._detach(hosted)
            self._orphans.discard(number)
            hosted.term = term
            shared = hosted.shared
            schema = self._kinds[type(shared).__name__]
            values = schema.values_of(shared)
            wire = [schema.wire_of(field, value) for field, value in enumerate(values)]
            self._shared_kinds.add(schema.name)
            self._mine[number] = _Mine(number, shared, schema, values)
            shared.__dict__.update(_owner=player, _mine=True, _number=number)
            taken.append((number, schema, wire, term))
        return taken

    def take_released(self) -> list[int]:
        """Objects of ours that another host has taken, for `SharedObjects.release`."""
        released, self._released = self._released, []
        return released

    def unshare(self, shared: Shared) -> int:
        """Its number, for `SharedObjects.remove`."""
        number = shared.__dict__.get("_number") if isinstance(shared, Shared) else None
        mine = self._mine.get(number) if number is not None else None
        if mine is None or mine.shared is not shared:
            raise InvalidConfig(f"unshare({shared!r}): must be an object that we share; each player takes back its own")
        del self._mine[mine.number]
        self._hosted.pop(mine.number, None)
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

    def record(self, now: float) -> None:
        """After `changes`: where our own objects are now, for `Rewind`."""
        for mine in self._mine.values():
            if mine.past is not None:
                mine.past.add(now, tuple([getattr(mine.shared, name) for name in mine.schema.smooth_names]), 0.0)

    def pasts(self, kind: type[S]) -> Iterator[tuple[PeerId | None, S, Track | None, tuple[str, ...]]]:
        """All objects of that class, ours first: (owner, None for ours; the object; its past by its owner's clock; the fields
        that the past has)."""
        for mine in self._mine.values():
            if isinstance(mine.shared, kind):
                yield None, mine.shared, mine.past, mine.schema.smooth_names
        for replica in self._theirs.values():
            if isinstance(replica.shared, kind):
                yield replica.owner, replica.shared, None if replica.is_absent else replica.track, replica.names

    def playback(self, owner: PeerId) -> Playback | None:
        return self._playbacks.get(owner)

    # ------------------------------------------------------------------------------------------------------ the others'

    def know(self, kind: type[Shared]) -> Schema:
        """From now on objects of this class can be read; those that came before are, too. `InvalidConfig` for a class of
        which a field cannot travel, or of a name that another class has."""
        schema = schema_of(kind)
        known = self._kinds.get(schema.name)
        if known is None:
            self._kinds[schema.name] = schema
            for (_, number), replica in list(self._theirs.items()):
                if replica.schema.name == schema.name:
                    self._make(replica, number, schema)
            self._events += [Restored(shared) for shared in self._regained.of(schema)]
        elif known is not schema:
            places = f"{known.kind.__module__} and {kind.__module__}"
            raise InvalidConfig(f"two classes of shared objects are called {schema.name}, in {places}: rename one")
        return schema

    def apply(self, event: SharedEvent, player: Any) -> None:
        """player: whose object it is, as the game will see it in `owner`."""
        if isinstance(event, Updated):
            self._update(event, player)
        elif isinstance(event, Removed):
            self._remove(event)
        elif isinstance(event, OwnerAbsent):
            self._rest_absent(event.owner)
        elif isinstance(event, Kept):
            self._regained.note(event)
            if (known := self._kinds.get(event.schema.name)) is not None:
                self._events += [Restored(shared) for shared in self._regained.of(known)]
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
        if self._claims or self._orphans:
            self._settle(now)
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
        left = [self._hosted[number].shared for number in self._orphans]
        return iter(ours + theirs + [shared for shared in left if isinstance(shared, kind)])

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
            self._vanish(replica, event.number)
            replica = self._theirs[key] = _Replica(event.owner, player, event.schema)
        elif replica.term != event.term and replica.shared is not None and is_hosted(event.number, replica.term):
            self._detach(self._hosted[event.number])  # and shown again once the new term is known here
        if replica.is_absent:
            self._return(replica, player)
        replica.term = event.term
        ours = self._kinds.get(event.schema.name)
        replica.stamp, replica.interval_s = event.stamp, event.interval_s
        if replica.shared is None:
            replica.wire.update(event.values)
            if ours is not None:
                self._make(replica, event.number, ours)
            return
        assert ours is not None
        self._write(replica, ours, event.values, event.at_rest)

    def _rest_absent(self, owner: PeerId) -> None:
        """Its player has crashed: what it has stays where it was seen last."""
        for replica in self._theirs.values():
            if replica.owner != owner:
                continue
            replica.is_absent, replica.is_moving = True, False
            if replica.shared is not None:
                for name, value in zip(replica.names, replica.smooth):
                    setattr(replica.shared, name, value)
                replica.shared.__dict__["_absent"] = True

    def _return(self, replica: _Replica, player: Any) -> None:
        """It is back, perhaps with another clock."""
        replica.is_absent, replica.player = False, player
        if replica.shared is not None:
            replica.shared.__dict__.update(_owner=player, _absent=False)
            if replica.track is not None:
                replica.track = _track(self._kinds[replica.schema.name])

    def _is_readable(self, owner: PeerId, player: Any, theirs: TheirSchema, ours: Schema) -> bool:
        difference = theirs.difference(ours)
        if difference is not None:
            self._refuse(owner, player, theirs.name, difference)
        return difference is None

    def _refuse(self, owner: PeerId, player: Any, kind: str, reason: str) -> None:
        if (owner, kind) not in self._refused:
            self._refused.add((owner, kind))
            self._events.append(Refused(player, kind, reason))

    def _remove(self, event: Removed) -> None:
        self._claims.discard((event.owner, event.number))
        replica = self._theirs.pop((event.owner, event.number), None)
        hosted = self._hosted.get(event.number)
        if event.with_owner and hosted is not None and hosted.source == (event.owner, event.number):
            assert replica is not None
            self._rest(hosted, replica)
            self._orphans.add(event.number)
        else:
            self._vanish(replica, event.number)

    def _vanish(self, replica: _Replica | None, number: int) -> None:
        if replica is not None and replica.shared is not None:
            self._events.append(Vanished(replica.shared))
            if is_hosted(number, replica.term):
                del self._hosted[number]

    def _detach(self, hosted: _Hosted) -> None:
        """No replica is shown as that object any more: it stays as it was seen last."""
        if hosted.source is not None:
            replica = self._theirs[hosted.source]
            self._rest(hosted, replica)
            replica.shared = replica.track = None

    def _rest(self, hosted: _Hosted, replica: _Replica) -> None:
        for name, value in zip(replica.names, replica.smooth):
            setattr(hosted.shared, name, value)
        hosted.source = None

    def _settle(self, now: float) -> None:
        """Claims of hosts that we know by now, and objects of hosts that nobody has followed."""
        for owner, number in list(self._claims):
            replica = self._theirs[owner, number]
            self._make(replica, number, self._kinds[replica.schema.name])
        for number in list(self._orphans):
            hosted = self._hosted[number]
            hosted.gone_at = min(hosted.gone_at, now)
            if now - hosted.gone_at > HOSTLESS_S:
                self._orphans.remove(number)
                del self._hosted[number]
                self._events.append(Vanished(hosted.shared))

    def _claimed(self, replica: _Replica, number: int, ours: Schema) -> Shared | None:
        """The object of the host that this replica writes from now on; None while that is not known to be right."""
        hosted = self._hosted.get(number)
        # Of one term there is one host, but for two founders of a room who have just met: then it is whom the lease names.
        is_older = hosted is not None and replica.term < hosted.term
        if is_older or not self._accepts(replica.owner, replica.term):
            self._claims.add((replica.owner, number))
            return None
        self._claims.discard((replica.owner, number))
        self._orphans.discard(number)
        if hosted is not None:
            self._detach(hosted)
        if self._mine.pop(number, None) is not None:
            self._released.append(number)
        if hosted is None or not isinstance(hosted.shared, ours.kind):
            if hosted is not None:
                self._events.append(Vanished(hosted.shared))
            hosted = self._hosted[number] = _Hosted(ours.kind(), replica.term, None)
        hosted.term, hosted.source, hosted.gone_at = replica.term, (replica.owner, number), math.inf
        return hosted.shared

    def _make(self, replica: _Replica, number: int, ours: Schema) -> None:
        if not self._is_readable(replica.owner, replica.player, replica.schema, ours):
            return
        of_host = is_hosted(number, replica.term)
        is_new = not of_host or number not in self._hosted
        shared = self._claimed(replica, number, ours) if of_host else ours.kind()
        if shared is None:
            return
        shared.__dict__.update(_owner=replica.player, _mine=False)
        if ours.smooth:
            replica.track, replica.names = _track(ours), ours.smooth_names
            replica.smooth = tuple(float(getattr(shared, name)) for name in replica.names)
        replica.shared = shared
        self._write(replica, ours, replica.wire, True)
        replica.wire = {}
        if replica.shared is not None:
            for name, value in zip(replica.names, replica.smooth):
                setattr(shared, name, value)
            if is_new:
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


def _track(schema: Schema) -> Track | None:
    """For the smooth fields of an object; None if it has none."""
    specs = [schema.fields[number].spec for number in schema.smooth]
    return Track([spec.snap for spec in specs], [spec.wrap for spec in specs]) if specs else None
