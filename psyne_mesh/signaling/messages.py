"""The words between client and server: JSON text frames, `{"v": 1, "type": ...}`, one message each.

    client                                server
       <- challenge(nonce)
       hello(public_key, signature) ->
       <- welcome(peer_id, keepalive_s)
       join / leave / list / ping (ref) ->
       <- joined / left / room_list / pong / error (the same ref)
       signal(to, room, envelope) ->
       <- signal(from, room, envelope), peer_joined, peer_left, error

Decoding checks every bound, so what comes out of `decode_*_untrusted` is safe to store and to pass on.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, NoReturn

import msgspec

from psyne_mesh.errors import (
    AppVersionMismatch,
    InviteExpired,
    ManifestRefused,
    MessageTooLarge,
    NotInvited,
    PeerGone,
    ProtocolError,
    RemoteError,
    RoomExists,
    RoomFull,
    RoomMismatch,
    RoomNotFound,
    SignalingError,
    VersionMismatch,
    WrongPassword,
)
from psyne_mesh.names import PART_PATTERN, PLAIN_PATTERN, normal
from psyne_mesh.signaling.base64 import from_base64_untrusted as from_base64_untrusted
from psyne_mesh.signaling.base64 import to_base64 as to_base64
from psyne_mesh.signaling.events import is_lobby_name
from psyne_mesh.signaling.manifest import Code, Manifest

PROTOCOL_VERSION = 1
HELLO_DOMAIN = b"psyne-hello"

MAX_FRAME_BYTES = 65_536  # from a client; an offer sealed is 2-4 KiB
MAX_SERVER_FRAME_BYTES = 2**20  # the answer to a join: 256 members with records of 2.8 KiB are 730 KiB
MAX_ENVELOPE_CHARS = 49_152  # leaves room for the frame around it
MAX_RECORD_CHARS = 2_800  # base64 of 2 KiB
MAX_METADATA_BYTES = 2_048
MAX_PLAYERS = 10_000
MAX_MEMBERS_LISTED = 256
MAX_LISTED = 100
MAX_MATCH_PLAYERS = 256  # who wait for each other; a room of more has no place for a table of all
MAX_AVOIDED = 16
MAX_REGIONS = 32

_PLAIN = r"\A[ !#-\[\]-~]*\Z"  # base64 and the like, one byte of JSON a character: 256 of them share a frame
_EXACT = 2**53 - 1  # what a JavaScript number holds exactly; MessagePack, between servers, ends at 2**64

MAX_NAME_CHARS = 128
MAX_PART_CHARS = 64

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARS, pattern=PLAIN_PATTERN)]
Part = Annotated[str, msgspec.Meta(max_length=MAX_PART_CHARS, pattern=PART_PATTERN)]
Key = Annotated[str, msgspec.Meta(min_length=3, max_length=258, pattern=PLAIN_PATTERN)]
Peer = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Ref = Annotated[int, msgspec.Meta(ge=0, le=_EXACT)]
Record = Annotated[str, msgspec.Meta(max_length=MAX_RECORD_CHARS, pattern=_PLAIN)]
Envelope = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ENVELOPE_CHARS)]
Players = Annotated[int, msgspec.Meta(ge=1, le=MAX_PLAYERS)]
Scalar = str | Annotated[int, msgspec.Meta(ge=-_EXACT, le=_EXACT)] | float | bool | None
PartyName = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS, pattern=PLAIN_PATTERN)]
Millis = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Door = Annotated[str, msgspec.Meta(max_length=128, pattern=_PLAIN)]
Reason = Annotated[str, msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=512)]

# Close codes of the WebSocket (4000-4999 are for private use, RFC 6455 section 7.4.2).
GOODBYE = 1000
GOING_AWAY = 1001
TOO_BIG = 1009
SUPERSEDED = 4001
TOO_SLOW = 4002
TIMED_OUT = 4003
MISBEHAVED = 4004
WRONG_VERSION = 4005
NOT_PROVED = 4006
FULL = 4007


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """The head that every message shares."""

    v: int = PROTOCOL_VERSION


# ---------------------------------------------------------------------------------------------------- client to server


class Hello(Message, frozen=True, tag="hello"):
    """Who we are, and the proof: `signature` is over the challenge and `audience` under `HELLO_DOMAIN`.

    `audience` is the host[:port] that the client dialled. A server that is told its own public names refuses others, so
    that a rogue server cannot show our answer to an honest one.
    """

    ref: Ref
    peer_id: Peer
    public_key: Annotated[str, msgspec.Meta(max_length=64)]
    signature: Annotated[str, msgspec.Meta(max_length=128)]
    audience: Annotated[str, msgspec.Meta(max_length=256)] = ""


class Join(Message, frozen=True, tag="join"):
    """A `JoinRequest`, by the same names; its `name` travels as "room"."""

    ref: Ref
    name: Name = msgspec.field(name="room")
    app_id: Part = ""
    region: Part = ""
    max_players: Players = 16
    skill_range: tuple[float, float] | None = None
    create: Literal["or", "only", "never"] = "or"
    record: Record = ""
    metadata: dict[str, Scalar] = {}
    instance: Code = ""
    manifest: Manifest = Manifest()
    door: Door = ""

    def __post_init__(self) -> None:
        check_properties(self.skill_range, self.metadata)
        if not is_lobby_name(self.name):
            raise ValueError("a name that ends like the code of an instance; enter by the code instead")
        for text, limit in ((self.name, MAX_NAME_CHARS), (self.app_id, MAX_PART_CHARS), (self.region, MAX_PART_CHARS)):
            if len(normal(text)) > limit:  # a few letters of no living writing become three
                raise ValueError(f"a name of {len(normal(text))} characters in its normal form is over {limit}")


class Seek(Message, frozen=True, tag="seek"):
    """A `SeekRequest`, by the same names. It is answered when there is a place, however long that takes."""

    ref: Ref
    join: Join
    players: Annotated[int, msgspec.Meta(ge=0, le=MAX_MATCH_PLAYERS)] = 0
    party: PartyName = ""
    party_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_MATCH_PLAYERS)] = 1
    avoid: Annotated[list[Key], msgspec.Meta(max_length=MAX_AVOIDED)] = []
    rtt_ms: Annotated[dict[Part, Millis], msgspec.Meta(max_length=MAX_REGIONS)] = {}

    def __post_init__(self) -> None:
        if self.players not in (0, self.join.max_players) or self.party_size > self.join.max_players:
            raise ValueError("a match is for as many as its room, and a party has place in it")


class Withdraw(Message, frozen=True, tag="withdraw"):
    """Nobody waits for the answer to the `Seek` of that `seek_ref` any more. `lobby`: the key of its join."""

    seek_ref: Ref
    lobby: Key


class Leave(Message, frozen=True, tag="leave"):
    """`record`: the leaver's goodbye, signed by itself, for the members to whom it has no link."""

    ref: Ref
    room: Key
    record: Record = ""


class ListRooms(Message, frozen=True, tag="list"):
    """A `RoomQuery`, by the same names."""

    ref: Ref
    app_id: Part = ""
    name: Name | None = None
    code: Code | None = None
    region: Part | None = None
    skill_range: tuple[float, float] | None = None
    only_open: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LISTED)] = MAX_LISTED

    def __post_init__(self) -> None:
        _check_band(self.skill_range)


class Signal(Message, frozen=True, tag="signal"):
    to: Peer
    room: Key
    envelope: Envelope


class Ping(Message, frozen=True, tag="ping"):
    ref: Ref


# ---------------------------------------------------------------------------------------------------- server to client


class Challenge(Message, frozen=True, tag="challenge"):
    nonce: Annotated[str, msgspec.Meta(max_length=128)]


class Welcome(Message, frozen=True, tag="welcome"):
    """The server knows us. It drops a client that says nothing for three times `keepalive_s`.

    time_ms: its wall clock, Unix milliseconds. messages_per_s and burst: how fast it reads a client, in frames, where a
    frame of more than 4 KiB counts more. None: an older server does not tell. regions: by name, a STUN server there, by
    which clients measure how far they are.
    """

    ref: Ref
    peer_id: Peer
    keepalive_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    time_ms: Annotated[int, msgspec.Meta(ge=0, le=_EXACT)] | None = None
    messages_per_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    burst: Annotated[int, msgspec.Meta(ge=1, le=_EXACT)] | None = None
    regions: Annotated[
        dict[Part, Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(max_length=MAX_REGIONS)
    ] = {}


class Member(msgspec.Struct, frozen=True):
    peer_id: Peer
    record: Record
    index: Annotated[int, msgspec.Meta(ge=0, le=_EXACT)]


class Room(msgspec.Struct, frozen=True, kw_only=True):
    room: Key
    name: Name
    app_id: Part
    region: Part
    players: Annotated[int, msgspec.Meta(ge=0, le=MAX_PLAYERS)]
    max_players: Players
    skill_range: tuple[float, float] | None
    state: Literal["waiting", "active"]
    metadata: dict[str, Scalar]
    instance: Code = ""
    manifest: Manifest = Manifest()


class JoinedRoom(Message, frozen=True, tag="joined"):
    ref: Ref
    info: Room
    peers: Annotated[list[Member], msgspec.Meta(max_length=MAX_MEMBERS_LISTED)]
    created: bool
    index: Annotated[int, msgspec.Meta(ge=0, le=_EXACT)]


class Placed(Message, frozen=True, tag="placed"):
    """The answer to a `Seek`: a seat is held in that room, for the `Join` that follows."""

    ref: Ref
    info: Room


class LeftRoom(Message, frozen=True, tag="left"):
    ref: Ref
    room: Key


class MemberJoined(Message, frozen=True, tag="peer_joined"):
    room: Key
    peer: Member
    rejoined: bool = False


class MemberLeft(Message, frozen=True, tag="peer_left"):
    room: Key
    peer_id: Peer
    reason: Reason
    record: Record = ""


class RoomList(Message, frozen=True, tag="room_list"):
    ref: Ref
    rooms: Annotated[list[Room], msgspec.Meta(max_length=MAX_LISTED)]
    truncated: bool


class SignalFrom(Message, frozen=True, tag="signal"):
    sender: Peer = msgspec.field(name="from")
    room: Key
    envelope: Envelope


class Pong(Message, frozen=True, tag="pong"):
    ref: Ref


class Error(Message, frozen=True, tag="error"):
    """A refusal. `ref` names the request; for a `signal`, which has none, `peer_id` and `room` do."""

    code: Annotated[str, msgspec.Meta(max_length=32)]
    message: Text
    ref: Ref | None = None
    room: Key | None = None
    peer_id: Peer | None = None
    versions: tuple[Part, Part] | None = None  # of the game: ours, and the room's


ClientMessage = Hello | Join | Seek | Withdraw | Leave | ListRooms | Signal | Ping
ServerMessage = (
    Challenge
    | Welcome
    | JoinedRoom
    | Placed
    | LeftRoom
    | MemberJoined
    | MemberLeft
    | RoomList
    | SignalFrom
    | Pong
    | Error
)


# ----------------------------------------------------------------------------------------------------------- functions


def encode(message: Message) -> str:
    return _encoder.encode(message).decode()


def decode_client_untrusted(frame: str | bytes) -> ClientMessage:
    """What a client said. `ProtocolError` for garbage, `VersionMismatch` for good JSON of another version."""
    raw = _sized(frame, MAX_FRAME_BYTES)
    try:
        _check_version(_head.decode(raw))
        return _client.decode(raw)
    except (ValueError, RecursionError) as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
        _refuse(error)


def decode_server_untrusted(frame: str | bytes) -> ServerMessage:
    """What a server said. Errors as for `decode_client_untrusted`."""
    raw = _sized(frame, MAX_SERVER_FRAME_BYTES)
    try:
        _check_version(_head.decode(raw))
        return _server.decode(raw)
    except (ValueError, RecursionError) as error:
        _refuse(error)


def ref_untrusted(frame: str | bytes) -> int | None:
    """The `ref` of a frame that is no message, if it has one, so that the complaint reaches the right question."""
    try:
        return _reference.decode(_sized(frame, MAX_FRAME_BYTES)).ref
    except (ValueError, RecursionError, ProtocolError):
        return None


def hello_payload(nonce: str, audience: str) -> bytes:
    """The bytes that a `Hello` signs. The nonce is base64, so the NUL cannot be inside it."""
    return f"{nonce}\0{audience}".encode()


def check_properties(skill_range: tuple[float, float] | None, metadata: dict[str, Scalar]) -> None:
    """What a room may be like, beyond the bounds of its types. Raises `ValueError`."""
    _check_band(skill_range)
    if len(_encoder.encode(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata is over {MAX_METADATA_BYTES} bytes of JSON")


def is_record(text: str) -> bool:
    """Whether it may be in a `Record` field."""
    return len(text) <= MAX_RECORD_CHARS and _plain_text(text) is not None


_EXCEPTIONS: dict[str, type[RemoteError]] = {
    "room_full": RoomFull,
    "room_not_found": RoomNotFound,
    "room_exists": RoomExists,
    "room_mismatch": RoomMismatch,
    "manifest": ManifestRefused,
    "wrong_password": WrongPassword,
    "not_invited": NotInvited,
    "invite_expired": InviteExpired,
    "app_version": AppVersionMismatch,
    "peer_gone": PeerGone,
}
_CODES = {exception: code for code, exception in _EXCEPTIONS.items()}


def code_of(error: RemoteError) -> str:
    """The `Error.code` under which an exception travels; "limit" for every other refusal."""
    return _CODES.get(type(error), "limit")


def refusal_of(error: RemoteError, ref: int) -> Error:
    versions = (error.ours, error.theirs) if isinstance(error, AppVersionMismatch) else None
    return Error(code=code_of(error), message=str(error)[:500], ref=ref, versions=versions)


def exception_of(error: Error) -> RemoteError:
    """The exception that an `Error` stands for."""
    if error.code == "app_version":
        return AppVersionMismatch(error.message, *(error.versions or ()))
    return _EXCEPTIONS.get(error.code, SignalingError)(error.message or error.code)


# ------------------------------------------------------------------------------------------------------------- helpers


class _Head(msgspec.Struct):
    v: int
    type: str


class _Reference(msgspec.Struct):
    ref: Ref


def _plain(value: object) -> str:
    if isinstance(value, str):  # PeerId, and whatever names users derive from str
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be sent")


_plain_text = re.compile(_PLAIN).match
_encoder = msgspec.json.Encoder(enc_hook=_plain)
_head = msgspec.json.Decoder(_Head)
_reference = msgspec.json.Decoder(_Reference)
_client: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_server: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)


def _sized(frame: str | bytes, limit: int) -> bytes:
    try:
        raw = frame.encode() if isinstance(frame, str) else frame
    except UnicodeEncodeError as error:
        raise ProtocolError("a frame is UTF-8 text") from error
    if len(raw) > limit:
        raise ProtocolError(str(MessageTooLarge(len(raw), limit)))
    return raw


def _check_version(head: _Head) -> None:
    if head.v != PROTOCOL_VERSION:
        raise VersionMismatch(PROTOCOL_VERSION, head.v)


def _check_band(band: tuple[float, float] | None) -> None:
    if band is not None and not (math.isfinite(band[0]) and math.isfinite(band[1]) and band[0] <= band[1]):
        raise ValueError("a skill range is (low, high) with low <= high, both finite")


def _refuse(error: Exception) -> NoReturn:
    raise ProtocolError(f"not a message of this protocol: {error}"[:300]) from error
