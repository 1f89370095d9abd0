"""Records of shared objects as they are read: whole, before anything of them counts; and what is offered to who is back."""

from __future__ import annotations

from typing import Protocol

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game.schema import TheirSchema, announced_untrusted
from psyne_mesh.game.shared_wire import (
    AT_REST,
    CLASS,
    DELTA,
    FULL,
    HEAD,
    MESSAGE_BYTES_MAX,
    Wire,
    fields_encoded,
    fields_untrusted,
    varint,
    varint_untrusted,
)  # fmt: skip
from psyne_mesh.identity import PeerId

# Of one player; `Replicas.share` refuses further ones of ours with `InvalidConfig`, others' are a `ProtocolError`.
OBJECTS_MAX = 1024
CLASSES_MAX = 64


class Known(Protocol):
    """What a player has said so far."""

    classes: dict[int, TheirSchema]
    objects: dict[int, Theirs]


class Theirs:
    """One object of another player. last: the number of the newest message that spoke of it; values: as they were said last."""

    def __init__(self, schema: TheirSchema, term: int, last: int, values: dict[int, Wire]) -> None:
        self.schema = schema
        self.term = term
        self.last = last
        self.values = values


class Kept:
    """Of us, before we crashed: what the others kept of an object of ours, by its number there."""

    __slots__ = ("number", "owner", "schema", "values")

    def __init__(self, owner: PeerId, number: int, schema: TheirSchema, values: dict[int, Wire]) -> None:
        self.owner = owner
        self.number = number
        self.schema = schema
        self.values = values


def is_hosted(number: int, term: int) -> bool:
    """An object of the host, whoever that is, and of nobody else."""
    return bool(number & 1 and term)


def offer_of(number: int, theirs: Theirs) -> bytes:
    """The records of a class and an object, as in a message."""
    said = msgspec.msgpack.encode([theirs.schema.name, theirs.schema.codes])
    widths = theirs.schema.widths
    values = [theirs.values[field] for field in range(len(widths))]
    fields = fields_encoded(widths, (1 << len(widths)) - 1, values)
    return varint(CLASS) + varint(len(said)) + said + varint(number << 3 | FULL) + varint(0) + varint(0) + fields


def offer_untrusted(me: PeerId, data: bytes) -> Kept:
    """What another player says that it kept of an object of ours, or `ProtocolError`."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise ProtocolError("an offer of a shared object that is too long")
    records = Records(None)
    records.read_untrusted(bytes(HEAD.size) + data)
    if records.unknown or records.removed or len(records.objects) != 1 or len(records.classes) != 1:
        raise ProtocolError("not an offer of one shared object")
    if records.objects[0][0] & 1:
        raise ProtocolError("an offer of an object of the host, which was nobody's own")
    number, schema, _, _, _, values = records.objects[0]
    return Kept(me, number, schema, values)


class Records:
    """The records of one message, read whole before anything of it counts."""

    def __init__(self, link: Known | None) -> None:
        self._known_classes = dict(link.classes) if link is not None else {}
        self._known = link.objects if link is not None else {}
        self.classes: list[tuple[int, TheirSchema]] = []
        self.objects: list[tuple[int, TheirSchema, int, bool, bool, dict[int, Wire]]] = []
        self.removed: list[int] = []
        self.unknown = False  # it builds on what we do not have
        self.adds = False  # it names an object that is new here

    def read_untrusted(self, data: bytes) -> None:
        at = HEAD.size
        named: set[int] = set()
        while at < len(data) and not self.unknown:
            tag, at = varint_untrusted(data, at)
            number, kind, at_rest = tag >> 3, tag & 3, bool(tag & AT_REST)
            if kind == CLASS:
                at = self._read_class_untrusted(number, data, at)
                continue
            if number in named:  # two bytes that change nothing, thousands of times, would be dear
                raise ProtocolError("a shared object twice in one message")
            named.add(number)
            if kind == FULL:
                at = self._read_full_untrusted(number, at_rest, data, at)
            elif kind == DELTA:
                at = self._read_delta_untrusted(number, at_rest, data, at)
            else:
                self.removed.append(number)

    def _read_class_untrusted(self, number: int, data: bytes, at: int) -> int:
        size, at = varint_untrusted(data, at)
        if number >= CLASSES_MAX or at + size > len(data):
            raise ProtocolError("too many classes of shared objects, or one that ends inside")
        schema = announced_untrusted(data[at : at + size])
        self._known_classes[number] = schema
        self.classes.append((number, schema))
        return at + size

    def _read_full_untrusted(self, number: int, at_rest: bool, data: bytes, at: int) -> int:
        kind, at = varint_untrusted(data, at)
        term, at = varint_untrusted(data, at)
        schema = self._known_classes.get(kind)
        if schema is None:
            self.unknown = True
            return at
        if number not in self._known:
            self.adds = True
            if len(self._known) + len(self.objects) >= 2 * OBJECTS_MAX:
                raise ProtocolError("too many shared objects of one player")
        values, at = fields_untrusted(schema.widths, (1 << len(schema.widths)) - 1, data, at)
        self.objects.append((number, schema, term, True, at_rest, values))
        return at

    def _read_delta_untrusted(self, number: int, at_rest: bool, data: bytes, at: int) -> int:
        theirs = self._known.get(number)
        if theirs is None:
            self.unknown = True
            return at
        length = (len(theirs.schema.widths) + 7) // 8
        if at + length > len(data):
            raise ProtocolError("an object ends inside its mask")
        mask = int.from_bytes(data[at : at + length], "little")
        values, at = fields_untrusted(theirs.schema.widths, mask, data, at + length)
        self.objects.append((number, theirs.schema, theirs.term, False, at_rest, values))
        return at
