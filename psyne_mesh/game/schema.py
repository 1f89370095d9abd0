"""What a shared object is made of: its fields, how each travels, and how two versions of a game read each other.

class Ship(Shared):
    x: float = smooth(0.0)                                     # others read it interpolated
    turret: float = quantised(0.0, bits=10, low=-pi, high=pi)  # ten bits on the wire
    hp: int = 100                                              # as it is
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from enum import Enum
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, get_type_hints

import msgspec

from psyne_mesh.errors import InvalidConfig, ProtocolError, UnserialisableMessage
from psyne_mesh.frozen import Frozen
from psyne_mesh.words import read_untrusted

T = TypeVar("T")

FIELDS_MAX = 64
NAME_MAX = 64  # characters of a class or field
QUANTISED_BITS_MAX = 32
INT_BITS = 64
# Text and bytes of one object, all fields together: what changes thirty times a second is small; send large things as
# messages.
OBJECT_BYTES_MAX = 4096

# What travels of one field: the bits of a number, or MessagePack.
Wire = int | bytes


class FieldSpec(Frozen):
    """What `smooth` and `quantised` leave in the class for its schema."""

    default: Any
    smooth: bool = False
    snap: float = math.inf
    wrap: float = 0.0
    bits: int = 0
    low: float = 0.0
    high: float = 0.0


def smooth(
    default: float, *, snap: float = math.inf, wrap: float = 0.0, bits: int = 0, low: float = 0.0, high: float = 0.0
) -> float:
    """A field whose movement the others see without steps: interpolated between two messages, and on for a quarter of a
    second.

    snap: a change by more is a jump, such as a teleport, and is shown as one. wrap: the period of an angle (`math.tau`, 360).
    bits, low, high: also quantised, see `quantised`; otherwise it travels as a float of 32 bits.
    """
    if not snap > 0 or not 0 <= wrap < math.inf:
        raise InvalidConfig(f"smooth(snap={snap!r}, wrap={wrap!r}): distances, and not negative")
    spec: Any = FieldSpec(float(default), True, float(snap), float(wrap), *_range(bits, low, high, optional=True))
    return spec  # type: ignore[no-any-return]  # the class has the default in its place


def quantised(default: T, *, bits: int, low: float, high: float) -> T:
    """A number between `low` and `high` (values beyond are cut) in so many bits: 10 of an angle are a third of a degree."""
    spec: Any = FieldSpec(default, False, math.inf, 0.0, *_range(bits, low, high, optional=False))
    return spec  # type: ignore[no-any-return]


def _range(bits: int, low: float, high: float, *, optional: bool) -> tuple[int, float, float]:
    if optional and bits == 0:
        return 0, 0.0, 0.0
    if not isinstance(bits, int) or not 1 <= bits <= QUANTISED_BITS_MAX:
        raise InvalidConfig(f"bits = {bits!r}: must lie in [1, {QUANTISED_BITS_MAX}]")
    if not -math.inf < low < high < math.inf:
        raise InvalidConfig(f"low = {low!r}, high = {high!r}: finite, and low below high")
    return bits, float(low), float(high)


class _SharedMeta(msgspec.StructMeta):
    __shared_specs__: dict[str, FieldSpec]
    __shared_schema__: Schema | None

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        specs = {key: value for key, value in namespace.items() if isinstance(value, FieldSpec)}
        inherited: dict[str, FieldSpec] = {}
        for base in reversed(bases):
            inherited |= getattr(base, "__shared_specs__", {})
        options = {"dict": True, "eq": False, "weakref": True, **options}
        made = super().__new__(
            mcs, name, bases, namespace | {key: spec.default for key, spec in specs.items()}, **options
        )
        made.__shared_specs__ = inherited | specs
        made.__shared_schema__ = None
        return made


@dataclass_transform()
class Shared(msgspec.Struct, metaclass=_SharedMeta):
    """Subclass this for an object that one player owns and all see: fields as in a dataclass, each with a default.

    `room.share(Ship())` makes ours; `room.all(Ship)` has everybody's. Only the owner's writes count: what is written
    into somebody else's is overwritten by what its owner says. Fields hold numbers, text, bytes, enums, tuples of
    these, or None; a list would change unseen.
    """

    @property
    def owner(self) -> Any:
        """The player whose object it is: a `Peer`, or for our own the `room.player`; None before it is shared."""
        return self.__dict__.get("_owner")

    @property
    def is_mine(self) -> bool:
        """Whether what we write into it counts."""
        return bool(self.__dict__.get("_mine", False))

    @property
    def is_absent(self) -> bool:
        """Its owner has crashed. It stays as it was for 45 s, and the owner goes on with it if it comes back."""
        return bool(self.__dict__.get("_absent", False))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({fields})"


class Field(Frozen, eq=False):
    """One field: its name, how it travels, and the two ways between a value and the wire."""

    name: str
    code: str  # compared between versions: a readable form of what is on the wire
    bits: int  # 0: MessagePack
    to_wire: Callable[[Any], Wire]
    from_wire: Callable[[Any], Any]  # raises ValueError or msgspec.ValidationError
    spec: FieldSpec


class Schema:
    """The fields of one class in order, and the numbers of those that are smooth."""

    def __init__(self, kind: type[Shared]) -> None:
        self.kind = kind
        self.name = kind.__name__
        self.fields = _fields_of(kind)
        self.codes = [(field.name, field.code) for field in self.fields]
        self.smooth = tuple(number for number, field in enumerate(self.fields) if field.spec.smooth)
        self.smooth_names = tuple(self.fields[number].name for number in self.smooth)
        names = [field.name for field in self.fields]
        getter = attrgetter(*names)
        self.values_of: Callable[[Any], tuple[Any, ...]] = (
            getter if len(names) > 1 else lambda shared: (getter(shared),)
        )

    def wire_of(self, number: int, value: Any) -> Wire:
        field = self.fields[number]
        try:
            return field.to_wire(value)
        except (ValueError, TypeError, OverflowError, struct.error, msgspec.MsgspecError) as error:
            raise UnserialisableMessage(f"{self.name}.{field.name} = {value!r} cannot be shared: {error}") from error

    def object_untrusted(self, values: Mapping[int, Wire]) -> Shared:
        """An object with these on the wire, by number of field; those that are not named are as in a new one."""
        shared = self.kind()
        for number, wire in values.items():
            if number >= len(self.fields):
                continue  # of a newer version
            field = self.fields[number]
            try:
                setattr(shared, field.name, field.from_wire(wire))
            except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
                raise ProtocolError(f"{self.name}.{field.name} came with a value that it may not have") from error
        return shared


def schema_of(kind: type[Shared]) -> Schema:
    """The schema of a class, made once. `InvalidConfig` names the field that cannot travel."""
    if not (isinstance(kind, type) and issubclass(kind, Shared)) or kind is Shared:
        raise InvalidConfig(
            f"{kind!r} is no class of shared objects: write `class Ship(Shared): x: float = smooth(0.0)`"
        )
    schema = kind.__shared_schema__
    if schema is None:
        schema = kind.__shared_schema__ = Schema(kind)
    return schema


# ----------------------------------------------------------------------------------------------------- two versions


class TheirSchema(Frozen):
    """A class as another player announced it. widths: the bits of each field, 0 for MessagePack."""

    name: str
    codes: tuple[tuple[str, str], ...]
    widths: tuple[int, ...]

    def difference(self, ours: Schema) -> str | None:
        """Why the two cannot be read together, naming the field; None when one only has more fields at the end."""
        for number, (mine, theirs) in enumerate(zip(ours.codes, self.codes, strict=False)):
            if mine == theirs:
                continue
            if mine[0] == theirs[0]:
                return f"{ours.name}.{mine[0]} is {mine[1]} here and {theirs[1]} there"
            return (
                f"field {number + 1} of {ours.name} is {mine[0]} here and {theirs[0]} there; new fields go to the end, "
                "and the old ones keep their names and order"
            )
        return None


def announcement(schema: Schema) -> bytes:
    return msgspec.msgpack.encode([schema.name, schema.codes])


_ANNOUNCEMENT = msgspec.msgpack.Decoder(tuple[str, list[tuple[str, str]]])


def announced_untrusted(data: bytes) -> TheirSchema:
    """What `announcement` made, or `ProtocolError`."""
    name, codes = read_untrusted(_ANNOUNCEMENT, data, "a class of shared objects")
    if not 1 <= len(codes) <= FIELDS_MAX or any(not 1 <= len(text) <= NAME_MAX for text in (name, *sum(codes, ()))):
        raise ProtocolError("a class of shared objects with too many fields, or names too long")
    if not all(text.isprintable() for text in (name, *sum(codes, ()))):
        raise ProtocolError("a class of shared objects with unprintable names")
    return TheirSchema(name, tuple(codes), tuple(_width_untrusted(code) for _, code in codes))


def _width_untrusted(code: str) -> int:
    if code in _WIDTHS:
        return _WIDTHS[code]
    if not code.startswith("quantised to "):
        return 0
    digits = code.removeprefix("quantised to ").partition(" ")[0]
    if not digits.isdecimal() or not digits.isascii() or not 1 <= int(digits) <= QUANTISED_BITS_MAX:
        raise ProtocolError(f"a field of {code!r}")
    return int(digits)


# ------------------------------------------------------------------------------------------------------ fields


_WIDTHS = {"bool": 1, "float": 64, "float of 32 bits": 32}
_FLOAT32, _UINT32 = struct.Struct(">f"), struct.Struct(">I")
_FLOAT64, _UINT64 = struct.Struct(">d"), struct.Struct(">Q")
_MUTABLE = (
    msgspec.inspect.ListType, msgspec.inspect.DictType, msgspec.inspect.SetType, msgspec.inspect.ByteArrayType,
)  # fmt: skip


def _fields_of(kind: type[Shared]) -> tuple[Field, ...]:
    try:
        info = msgspec.inspect.type_info(kind)
    except Exception as error:  # an annotation that cannot be resolved may raise anything
        raise InvalidConfig(f"the fields of {kind.__name__} cannot be read: {error}") from error
    assert isinstance(info, msgspec.inspect.StructType)
    if not 1 <= len(info.fields) <= FIELDS_MAX:
        raise InvalidConfig(f"{kind.__name__} has {len(info.fields)} fields: 1 to {FIELDS_MAX} can be shared")
    specs: dict[str, FieldSpec] = kind.__shared_specs__
    return tuple(_field(kind, field, specs.get(field.name)) for field in info.fields)


def _field(kind: type[Shared], field: msgspec.inspect.Field, spec: FieldSpec | None) -> Field:
    where = f"{kind.__name__}.{field.name}"
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        raise InvalidConfig(f"{where} has no default, which a late joiner of another version would need: give it one")
    if len(field.name) > NAME_MAX or len(kind.__name__) > NAME_MAX:
        raise InvalidConfig(f"{where}: names have at most {NAME_MAX} characters")
    of, spec = field.type, spec or FieldSpec(None)
    if spec.smooth and not isinstance(of, msgspec.inspect.FloatType):
        raise InvalidConfig(f"{where} is smooth, so it must be a float: write `{field.name}: float = smooth(...)`")
    if spec.bits:
        if not isinstance(of, msgspec.inspect.FloatType | msgspec.inspect.IntType):
            raise InvalidConfig(f"{where} is quantised, so it must be a float or an int")
        return _quantised_field(field.name, spec, isinstance(of, msgspec.inspect.IntType))
    match of:
        case msgspec.inspect.BoolType():
            return Field(field.name, "bool", 1, _bool_to_wire, bool, spec)
        case msgspec.inspect.FloatType() if spec.smooth:
            return Field(field.name, "float of 32 bits", 32, _float32_to_wire, _float32_from_wire, spec)
        case msgspec.inspect.FloatType():
            return Field(field.name, "float", 64, _float64_to_wire, _float64_from_wire, spec)
    _check_immutable(where, of)
    annotation = get_type_hints(kind, include_extras=True)[field.name]
    return Field(field.name, _code(annotation), 0, *_packed(annotation), spec)


def _check_immutable(where: str, of: msgspec.inspect.Type) -> None:
    if isinstance(of, _MUTABLE):
        raise InvalidConfig(f"{where} can change without being assigned, so nobody would hear of it: use a tuple")
    if isinstance(of, msgspec.inspect.AnyType | msgspec.inspect.CustomType | msgspec.inspect.RawType):
        raise InvalidConfig(f"{where} cannot travel: fields hold numbers, text, bytes, enums, tuples of these, or None")
    if isinstance(of, msgspec.inspect.UnionType):
        for part in of.types:
            _check_immutable(where, part)
    if isinstance(of, msgspec.inspect.TupleType):
        for part in of.item_types:
            _check_immutable(where, part)
    if isinstance(of, msgspec.inspect.VarTupleType | msgspec.inspect.FrozenSetType):
        _check_immutable(where, of.item_type)


def _quantised_field(name: str, spec: FieldSpec, whole: bool) -> Field:
    steps, low, high = (1 << spec.bits) - 1, spec.low, spec.high
    if low == -high and steps > 1:
        steps -= 1  # an even number of steps, so that 0 is exactly 0: what rests must not creep
    scale, step = steps / (high - low), (high - low) / steps

    def to_wire(value: Any) -> Wire:
        number = float(value)
        if number != number:
            raise ValueError("not a number")
        return int((min(max(number, low), high) - low) * scale + 0.5)

    def from_wire(number: int) -> Any:
        value = low + number * step
        return round(value) if whole else value

    code = f"quantised to {spec.bits} bits from {low:g} to {high:g}"
    return Field(name, code, spec.bits, to_wire, from_wire, spec)


def _bool_to_wire(value: Any) -> Wire:
    if not isinstance(value, bool):
        raise TypeError("must be True or False")
    return int(value)


def _float32_to_wire(value: Any) -> Wire:
    packed = _FLOAT32.pack(value)
    if not math.isfinite(value):
        raise ValueError("must be finite")
    number: int = _UINT32.unpack(packed)[0]
    return number


def _float32_from_wire(number: int) -> float:
    value: float = _FLOAT32.unpack(_UINT32.pack(number))[0]
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _float64_to_wire(value: Any) -> Wire:
    if not math.isfinite(value):
        raise ValueError("must be finite")
    number: int = _UINT64.unpack(_FLOAT64.pack(value))[0]
    return number


def _float64_from_wire(number: int) -> float:
    value: float = _FLOAT64.unpack(_UINT64.pack(number))[0]
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # a `PeerId` travels as the text that it is
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no form on the wire")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain)


def _packed(annotation: Any) -> tuple[Callable[[Any], Wire], Callable[[Any], Any]]:
    """MessagePack, read back at once: msgspec checks types when it decodes only."""
    decoder = msgspec.msgpack.Decoder(annotation)

    def from_wire(data: bytes) -> Any:
        value = decoder.decode(data)
        _demand_finite(value)
        return value

    def to_wire(value: Any) -> Wire:
        data = _ENCODER.encode(value)
        if len(data) > OBJECT_BYTES_MAX:
            raise ValueError(f"{len(data)} bytes are over the {OBJECT_BYTES_MAX} of one object; send it as a message")
        from_wire(data)
        return data

    return to_wire, from_wire


def _demand_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not finite")
    if isinstance(value, tuple | frozenset):
        for part in value:
            _demand_finite(part)


def _code(annotation: Any) -> str:
    if isinstance(annotation, type) and not getattr(annotation, "__args__", None):
        if issubclass(annotation, Enum):
            return f"enum {annotation.__name__}"[:NAME_MAX]
        return annotation.__name__[:NAME_MAX]
    return str(annotation).replace("typing.", "")[:NAME_MAX]
