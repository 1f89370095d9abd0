"""Shared objects on the wire: what changed since what each player has acknowledged, and what the others say of theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.absences import Absent
from psyne_mesh.game.schema import Schema, TheirSchema, announcement
from psyne_mesh.game.shared_records import Kept, Records, Theirs, is_hosted, offer_of
from psyne_mesh.game.shared_wire import (
    AT_REST,
    CLASS,
    DELTA,
    FULL,
    REMOVED,
    RESYNC,
    Head,
    Wire,
    fields_encoded,
    varint,
)
from psyne_mesh.identity import PeerId

# 20 to 30 Hz is what games send at (Source 20 to 66, Mirror 30, netfox 30); interpolation hides what is between.
SEND_HZ = 30.0
# One datagram on every path, with what SCTP and the channel put around it.
RECORDS_BYTES = 1000
# Messages on their way to one player whose acknowledgement would still be believed: four seconds. Older ones count as lost.
IN_FLIGHT_MAX = 128
# Who acknowledges nothing for so long gets everything anew when it is back, and until then a message four times a second.
SILENCE_S = 2.0
SILENT_INTERVAL_S = 0.25
# A smooth field that has not changed for so many sends is at rest, which is said once more: 15 Hz games do not look jerky.
REST_SENDS = 2
# After the sender has begun anew: objects that it does not name again in this time are gone.
UNCONFIRMED_S = 2.0
# Who is back after a crash has so long from its first word of shared objects to take up what it had before.
RETURN_S = 5.0
# A frame may come early by this share of an interval, and counts for the send that is due: half of a frame at 60 FPS. The
# sends stay that regular on the whole.
EARLY = 0.25
# And late by this one, until what can be said without it is said.
FRAME_PATIENCE = 0.6
_NEVER = -1


class Rng(Protocol):
    def getrandbits(self, k: int, /) -> int: ...


class Updated:
    """An object of another player is new, or has changed. values: what is on the wire, by number of field; stamp: when it was
    so by the clock of its owner; came: when that came by ours; at_rest: its smooth fields have stopped."""

    __slots__ = ("at_rest", "came", "fresh", "interval_s", "number", "owner", "schema", "stamp", "term", "values")

    def __init__(
        self, owner: PeerId, number: int, schema: TheirSchema, term: int, fresh: bool, at_rest: bool, stamp: float,
        interval_s: float, came: float, values: dict[int, Wire],
    ) -> None:  # fmt: skip
        self.owner = owner
        self.number = number
        self.schema = schema
        self.term = term
        self.fresh = fresh
        self.at_rest = at_rest
        self.stamp = stamp
        self.interval_s = interval_s
        self.came = came
        self.values = values


class Removed:
    """An object of another player is gone: it took it back, or (`with_owner`) left."""

    __slots__ = ("number", "owner", "with_owner")

    def __init__(self, owner: PeerId, number: int, with_owner: bool = False) -> None:
        self.owner = owner
        self.number = number
        self.with_owner = with_owner


class OwnerAbsent:
    """A player has crashed: its objects stay for a while as they are, `Removed` if it does not come back."""

    __slots__ = ("owner",)

    def __init__(self, owner: PeerId) -> None:
        self.owner = owner


class Announced:
    """Another player has named a class of its shared objects."""

    __slots__ = ("owner", "schema")

    def __init__(self, owner: PeerId, schema: TheirSchema) -> None:
        self.owner = owner
        self.schema = schema


SharedEvent = Updated | Removed | Announced | OwnerAbsent | Kept


class _Own:
    """One of our objects. changed: at which of our sends each field changed last; since: what was said before that send was
    of another object with that number, or of an earlier term."""

    def __init__(self, kind: int, schema: Schema, values: list[Wire], term: int, tick: int) -> None:
        self.kind = kind
        self.schema = schema
        self.term = term
        self.values = values
        self.changed = [tick] * len(self.values)
        self.since = tick
        self.newest = tick
        self.moving: dict[int, int] = {}
        self.removed = False


class _Link:
    """What one other player has of ours, and we of it."""

    def __init__(self, session: int, now: float) -> None:
        self.session = session
        self.sent = 0
        self.next_send = now
        self.baselines: dict[int, int] = {}  # object -> at which of our sends it had all of it
        self.classes_known: set[int] = set()
        self.in_flight: dict[int, tuple[int, list[int], list[int]]] = {}
        self.answered = now  # when it last acknowledged, or had nothing to
        self.resync = False
        # The other way.
        self.heard_session = 0
        self.heard = 0
        self.before = 0
        self.ack_due = False
        self.classes: dict[int, TheirSchema] = {}
        self.objects: dict[int, Theirs] = {}
        self.unconfirmed: set[int] = set()
        self.unconfirmed_until = math.inf
        self.returned_until = math.inf  # it had crashed, and until then we keep what it does not speak of

    def begin_anew(self, session: int, now: float) -> None:
        self.session = session
        self.sent = 0
        self.baselines.clear()
        self.classes_known.clear()
        self.in_flight.clear()
        self.answered = now


class SharedObjects:
    """All shared objects of one room, as one player exchanges them with the others over an unreliable channel.

    1. `peer_joined(peer, now)` and `peer_left(peer)` say who is there. Of who crashed (`keep_until`) the objects stay until
       then; if it comes back meanwhile `offers_to(peer)` is what it had, for `offer_untrusted` over there.
    2. `add(number, schema, values)`, `update(number, changes, now)`, `remove(number)`: our own, after each frame.
    3. `receive(peer, data, now)` for every message of the channel; `ProtocolError` when it is none.
    4. `datagrams_to_send(now)` after an update and when `next_timeout()` has come: who gets which message.
    5. `handle_timeout(now)` then, too; 6. `take_events()`: what the others' objects are now.

    Each message to a player names the fields that changed since what it has acknowledged, with their present values: the
    newest wins, nothing is waited for, and a lost message costs nothing but itself. A new player has acknowledged
    nothing, so it gets everything.
    """

    def __init__(self, rng: Rng, send_hz: float = SEND_HZ) -> None:
        if not 1 <= send_hz <= 120:
            raise InvalidConfig(f"send_hz = {send_hz!r}: must lie in [1, 120]")
        self.interval_s = 1 / send_hz
        self._rng = rng
        self._links: dict[PeerId, _Link] = {}
        self._absent = Absent()
        self._own: dict[int, _Own] = {}
        self._classes: dict[int, tuple[Schema, bytes, list[int]]] = {}
        self._class_numbers: dict[str, int] = {}
        self._tick = 0
        self._frame_at = -math.inf
        self._updated = False
        self._resting: dict[int, int] = {}  # objects with fields that moved lately, until they have come to rest
        self._events: list[SharedEvent] = []
        self._records: dict[tuple[int, int], bytes] = {}  # of this send: by object and what the receiver has

    # ------------------------------------------------------------------------------------------------------ players

    def peer_joined(self, peer: PeerId, now: float) -> None:
        self.peer_left(peer)
        link = self._links[peer] = _Link(self._new_session(), now)
        if (kept := self._absent.take(peer)) is not None:
            until, objects = kept
            link.objects, link.unconfirmed, link.unconfirmed_until = objects, set(objects), until
            link.returned_until = until

    def peer_left(self, peer: PeerId, keep_until: float = -math.inf) -> None:
        link = self._links.pop(peer, None)
        if link is None:
            return
        kept: dict[int, Theirs] = {}
        for number, theirs in link.objects.items():
            if keep_until == -math.inf or is_hosted(number, theirs.term):  # the next host goes on with those
                self._events.append(Removed(peer, number, True))
            else:
                kept[number] = theirs
        if kept:
            self._events += [Removed(*gone, True) for gone in self._absent.keep(peer, keep_until, kept)]
            self._events.append(OwnerAbsent(peer))

    def offers_to(self, peer: PeerId) -> list[bytes]:
        """What we kept of a player that is back, an object each; one that it has spoken of meanwhile is its own again."""
        link = self._links.get(peer)
        if link is None or link.returned_until == math.inf:
            return []
        return [offer_of(number, link.objects[number]) for number in sorted(link.unconfirmed)]

    # ------------------------------------------------------------------------------------------------------ our own

    def add(self, number: int, schema: Schema, values: list[Wire], term: int = 0) -> None:
        """A new object of ours, with its values on the wire; or one that we have, with a new term, which goes out whole. The
        term rises when an object goes to another owner: what comes with an older one is refused."""
        kind = self._class_numbers.get(schema.name)
        if kind is None:
            kind = self._class_numbers[schema.name] = len(self._classes)
            widths = [field.bits for field in schema.fields]
            self._classes[kind] = schema, announcement(schema), widths
        self._resting.pop(number, None)
        self._own[number] = _Own(kind, schema, values, term, self._tick + 1)

    def update(self, number: int, changes: Iterable[tuple[int, Wire]], now: float) -> None:
        """Fields of an object of ours, by number, as they are on the wire."""
        own = self._own.get(number)
        if own is None or own.removed:
            return
        tick = self._tick + 1
        self._frame_at, self._updated = now, True
        for field, value in changes:
            if own.values[field] != value:
                own.values[field] = value
                own.changed[field] = own.newest = tick
                if field in own.schema.smooth:
                    own.moving[field] = tick
        if own.moving:
            self._resting[number] = tick

    def remove(self, number: int) -> None:
        own = self._own.get(number)
        if own is not None:
            own.removed = True
            own.newest = self._tick + 1
            self._resting.pop(number, None)

    def release(self, number: int) -> None:
        """It is another player's now: nothing more is said of it, not even that it is gone."""
        self._own.pop(number, None)
        self._resting.pop(number, None)
        for link in self._links.values():
            link.baselines.pop(number, None)

    # --------------------------------------------------------------------------------------------------------- timers

    def next_timeout(self) -> float:
        """When `handle_timeout` and `datagrams_to_send` have something to do again; infinity when they have not."""
        # While objects move, the next frame brings the next send: before it there would be nothing new to say.
        patience = FRAME_PATIENCE * self.interval_s if self._resting else 0.0
        due = self._absent.next_timeout()
        for link in self._links.values():
            if link.next_send + patience < due and self._has_news_for(link):
                due = link.next_send + patience
            due = min(due, link.unconfirmed_until)
        return due

    def handle_timeout(self, now: float) -> None:
        for peer, link in self._links.items():
            if now >= link.unconfirmed_until:
                link.unconfirmed_until = math.inf
                for number in link.unconfirmed:
                    del link.objects[number]
                    self._events.append(Removed(peer, number))
                link.unconfirmed.clear()
        self._events += [Removed(*gone, True) for gone in self._absent.expire(now)]

    def take_events(self) -> list[SharedEvent]:
        events, self._events = self._events, []
        return events

    # -------------------------------------------------------------------------------------------------------- sending

    def datagrams_to_send(self, now: float) -> list[tuple[PeerId, bytes]]:
        if not self._updated and now < self.next_timeout():
            return []
        early = now + EARLY * self.interval_s
        due = [
            (peer, link) for peer, link in self._links.items() if early >= link.next_send and self._has_news_for(link)
        ]
        if not due:
            return []
        self._tick += 1
        self._records.clear()
        self._bring_to_rest()
        # What moves is where it was in its last frame. What rests is there now, too.
        stamp = self._frame_at if self._resting or self._updated else now
        self._updated = False
        out: list[tuple[PeerId, bytes]] = []
        for peer, link in due:
            silent = bool(link.in_flight) and now - link.answered > SILENCE_S
            if silent:  # what was on its way is lost, and so perhaps is whom it was for
                link.baselines.clear()
                link.classes_known.clear()
            interval = SILENT_INTERVAL_S if silent else self.interval_s
            link.next_send = max(link.next_send + interval, now + (1 - EARLY) * interval)
            if not link.in_flight:
                link.answered = now
            out.extend([(peer, message) for message in self._messages(link, stamp)])
        self._forget_removed()
        return out

    def _has_news_for(self, link: _Link) -> bool:
        if link.ack_due or link.resync or self._resting:
            return True
        baselines = link.baselines
        return any(own.newest > baselines.get(number, _NEVER) for number, own in self._own.items())

    def _bring_to_rest(self) -> None:
        """Fields that moved and do no longer are named once more, so that nobody goes on moving them."""
        for number in list(self._resting):
            own = self._own[number]
            for field, tick in list(own.moving.items()):
                if self._tick - tick >= REST_SENDS:
                    del own.moving[field]
                    own.changed[field] = own.newest = self._tick
            if not own.moving:
                del self._resting[number]

    def _messages(self, link: _Link, stamp: float) -> list[bytes]:
        messages: list[bytes] = []
        records: list[bytes] = []
        size = 0
        numbers: list[int] = []
        kinds: list[int] = []
        for number, own in self._own.items():
            baseline = link.baselines.get(number, _NEVER)
            if own.newest <= baseline:
                continue
            if baseline < own.since:
                baseline = _NEVER
            record = self._record(number, own, baseline)
            if records and size + len(record) > RECORDS_BYTES:
                messages.append(self._message(link, stamp, records, numbers, kinds))
                records, size, numbers, kinds = [], 0, [], []
            if baseline == _NEVER and not own.removed and own.kind not in link.classes_known and own.kind not in kinds:
                kinds.append(own.kind)  # in each message anew until one of them is acknowledged
                said = self._classes[own.kind][1]
                record = varint(own.kind << 3 | CLASS) + varint(len(said)) + said + record
            records.append(record)
            size += len(record)
            numbers.append(number)
        if records or link.ack_due or link.resync:
            messages.append(self._message(link, stamp, records, numbers, kinds))
        return messages

    def _message(self, link: _Link, stamp: float, records: list[bytes], numbers: list[int], kinds: list[int]) -> bytes:
        number = 0
        if records:
            link.sent += 1
            number = link.sent
            link.in_flight[number] = self._tick, numbers, kinds
            if len(link.in_flight) > IN_FLIGHT_MAX:
                del link.in_flight[next(iter(link.in_flight))]
        head = Head(
            RESYNC if link.resync else 0, link.session, number, link.heard_session, link.heard, link.before, stamp,
            self.interval_s,
        )  # fmt: skip
        link.ack_due = link.resync = False
        return head.encoded() + b"".join(records)

    def _record(self, number: int, own: _Own, baseline: int) -> bytes:
        key = number, baseline
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = self._encoded_record(number, own, baseline)
        return record

    def _encoded_record(self, number: int, own: _Own, baseline: int) -> bytes:
        if own.removed:
            return varint(number << 3 | REMOVED)
        widths = self._classes[own.kind][2]
        tag = number << 3 | (0 if own.moving else AT_REST)
        if baseline == _NEVER:
            everything = fields_encoded(widths, (1 << len(widths)) - 1, own.values)
            return varint(tag | FULL) + varint(own.kind) + varint(own.term) + everything
        mask = 0
        for field, tick in enumerate(own.changed):
            if tick > baseline:
                mask |= 1 << field
        named = mask.to_bytes((len(widths) + 7) // 8, "little")
        return varint(tag | DELTA) + named + fields_encoded(widths, mask, own.values)

    def _forget_removed(self) -> None:
        for number in [number for number, own in self._own.items() if own.removed]:
            newest = self._own[number].newest
            if all(link.baselines.get(number, _NEVER) >= newest for link in self._links.values()):
                del self._own[number]
                for link in self._links.values():
                    link.baselines.pop(number, None)

    # ------------------------------------------------------------------------------------------------------ receiving

    def receive(self, peer: PeerId, data: bytes, now: float) -> None:
        """Raises `ProtocolError` for what is no such message; nothing has changed then. Of strangers nothing is taken."""
        link = self._links.get(peer)
        if link is None:
            return
        head = Head.parse_untrusted(data)
        records = Records(link if head.session == link.heard_session else None)
        if head.number:
            records.read_untrusted(data)
        self._acknowledged(link, head, now)
        if not head.number:
            return
        if head.session != link.heard_session:
            self._they_began_anew(link, head, now)
        if not self._is_news(link, head.number):
            return
        late = head.number < link.heard
        if records.unknown or (late and records.adds):  # what is late could bring back what is gone; it is sent again
            link.resync = link.resync or not late
            return
        self._note_heard(link, head.number)
        self._take_in(peer, link, head, records, now)

    def _acknowledged(self, link: _Link, head: Head, now: float) -> None:
        if head.heard_session != link.session:
            return
        if head.flags & RESYNC:
            link.begin_anew(self._new_session(), now)
            return
        for back in range(33):
            number = head.heard - back
            if back and not head.before >> (back - 1) & 1:
                continue
            flown = link.in_flight.pop(number, None)
            if flown is None:
                continue
            link.answered = now
            tick, numbers, kinds = flown
            link.classes_known.update(kinds)
            baselines = link.baselines
            for each in numbers:
                if baselines.get(each, _NEVER) < tick:
                    baselines[each] = tick
        # What was sent before the oldest that can still be named is lost.
        for number in [number for number in link.in_flight if number < head.heard - 32]:
            del link.in_flight[number]

    def _they_began_anew(self, link: _Link, head: Head, now: float) -> None:
        link.heard_session, link.heard, link.before = head.session, 0, 0
        link.classes.clear()
        link.unconfirmed = set(link.objects)
        patience_s = UNCONFIRMED_S if link.returned_until == math.inf else min(RETURN_S, link.returned_until - now)
        link.unconfirmed_until = now + patience_s if link.unconfirmed else math.inf
        link.returned_until = math.inf

    def _is_news(self, link: _Link, number: int) -> bool:
        back = link.heard - number
        if back < 0:
            return True
        return 0 < back <= 32 and not link.before >> (back - 1) & 1

    def _note_heard(self, link: _Link, number: int) -> None:
        link.ack_due = True
        ahead = number - link.heard
        if ahead > 0:
            link.before = (
                (link.before << ahead | (1 << (ahead - 1) if link.heard else 0)) & 0xFFFFFFFF if ahead < 64 else 0
            )
            link.heard = number
        else:
            link.before |= 1 << (-ahead - 1)

    def _take_in(self, peer: PeerId, link: _Link, head: Head, records: Records, now: float) -> None:
        for kind, schema in records.classes:
            if link.classes.get(kind) != schema:
                link.classes[kind] = schema
                self._events.append(Announced(peer, schema))
        for number, schema, term, full, at_rest, values in records.objects:
            theirs = link.objects.get(number)
            if theirs is not None and (
                term < theirs.term or (head.number < theirs.last and number not in link.unconfirmed)
            ):
                continue
            fresh = theirs is None or theirs.schema != schema
            if fresh or full:
                link.objects[number] = Theirs(schema, term, head.number, dict(values))
            elif theirs is not None:
                theirs.last = head.number
                theirs.values.update(values)
            link.unconfirmed.discard(number)
            self._events.append(
                Updated(peer, number, schema, term, fresh, at_rest, head.stamp, head.interval_s, now, values)
            )
        for number in records.removed:
            theirs = link.objects.get(number)
            if theirs is not None and head.number > theirs.last:
                del link.objects[number]
                link.unconfirmed.discard(number)
                self._events.append(Removed(peer, number))

    def _new_session(self) -> int:
        return self._rng.getrandbits(32) | 1


# ------------------------------------------------------------------------------------------------- to many as to one


def tell_anew(core: SharedObjects, peer: PeerId, now: float) -> None:
    """It is told everything that we share once more."""
    link = core._links[peer]
    link.begin_anew(core._new_session(), now)
    link.next_send = now


def note_all_came(core: SharedObjects, peer: PeerId, now: float) -> None:
    """What was sent to it so far goes a reliable way: nobody acknowledges it."""
    link = core._links[peer]
    for tick, numbers, kinds in link.in_flight.values():
        link.classes_known.update(kinds)
        for each in numbers:
            link.baselines[each] = tick
    link.in_flight.clear()
    link.answered = now


def ours(core: SharedObjects) -> list[tuple[int, Schema, list[Wire], int]]:
    """Our objects as `SharedObjects.add` takes them, with values of their own."""
    return [(number, own.schema, list(own.values), own.term) for number, own in core._own.items() if not own.removed]
