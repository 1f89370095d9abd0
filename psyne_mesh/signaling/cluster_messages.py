"""What the servers of one cluster tell each other: MessagePack, one message a payload. Pure.

The servers belong to one operator and the backplane is theirs; it is read with the same care as everything else.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.signaling.messages import (
    MAX_LISTED,
    MAX_MEMBERS_LISTED,
    MAX_SERVER_FRAME_BYTES,
    ListRooms,
    Peer,
    Reason,
    Room,
)

CLUSTER_VERSION: Literal[1] = 1

ServerId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class ClusterMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """`number`: one more than that of the last message to the same receiver, or to all (`to_all`), of the same sender."""

    sender: ServerId
    number: int | None = None
    to_all: bool = False
    v: Literal[1] = CLUSTER_VERSION


class Alive(ClusterMessage, frozen=True, tag="alive"):
    """`is_new`: please answer with your own, at once. `clock_s`: the sender's clock, of no known beginning; None: of a
    server that does not tell, and likewise `hears`, the servers whose heartbeats reach the sender."""

    is_new: bool = False
    clock_s: float | None = None
    hears: Annotated[list[ServerId], msgspec.Meta(max_length=1_000)] | None = None


class Stopping(ClusterMessage, frozen=True, tag="stopping"):
    """Do not wait for the silence."""


class Arrived(ClusterMessage, frozen=True, tag="arrived"):
    """`peer` has proved its identity at the sender: any older connection of it is superseded. `seated_s`: when, on the
    sender's clock. `is_answer`: to one whose connection is older than the sender's; it is not answered again."""

    peer: Peer
    seated_s: float | None = None
    is_answer: bool = False


class Departed(ClusterMessage, frozen=True, tag="departed"):
    peer: Peer
    reason: Reason


class Forward(ClusterMessage, frozen=True, tag="forward"):
    """A client of the sender says `frame`, about a room that the receiver keeps. `seated_s` as in `Arrived`; `address`:
    what of the client counts as one."""

    peer: Peer
    frame: str
    seated_s: float | None = None
    address: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Deliver(ClusterMessage, frozen=True, tag="deliver"):
    """To clients of the receiver. `cost`: what is charged to each of them, in tokens."""

    peers: Annotated[list[Peer], msgspec.Meta(min_length=1, max_length=MAX_MEMBERS_LISTED)]
    frame: str
    cost: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0


class AskRooms(ClusterMessage, frozen=True, tag="ask_rooms"):
    question: int
    wanted: ListRooms


class HaveRooms(ClusterMessage, frozen=True, tag="have_rooms"):
    question: int
    rooms: Annotated[list[Room], msgspec.Meta(max_length=MAX_LISTED)]
    truncated: bool


AnyClusterMessage = Alive | Stopping | Arrived | Departed | Forward | Deliver | AskRooms | HaveRooms

_MAX_BYTES = 2 * MAX_SERVER_FRAME_BYTES
BUNDLE_BYTES_MAX = 2**18  # after so much a bundle is closed; one message may be larger


def encode(message: ClusterMessage) -> bytes:
    return _encoder.encode(message)


def bundle(encoded: list[bytes]) -> bytes:
    """Several messages as one payload: a backplane costs by payloads."""
    return encoded[0] if len(encoded) == 1 else _bundles.encode([msgspec.Raw(message) for message in encoded])


def decode_untrusted(payload: bytes) -> list[AnyClusterMessage]:
    """One, or those of a bundle; `ProtocolError` for what no server of this version says."""
    if len(payload) > _MAX_BYTES + BUNDLE_BYTES_MAX:
        raise ProtocolError(f"a cluster payload of {len(payload)} bytes is over {_MAX_BYTES + BUNDLE_BYTES_MAX}")
    try:
        return _bundle_decoder.decode(payload) if _is_array(payload) else [_decoder.decode(payload)]
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not a cluster message: {error}"[:200]) from error


def _is_array(payload: bytes) -> bool:
    """MessagePack: fixarray, array 16, array 32. A single message is a map."""
    return bool(payload) and (0x90 <= payload[0] <= 0x9F or payload[0] in (0xDC, 0xDD))


_encoder = msgspec.msgpack.Encoder(enc_hook=str)
_bundles = msgspec.msgpack.Encoder()
_bundle_decoder: msgspec.msgpack.Decoder[list[AnyClusterMessage]] = msgspec.msgpack.Decoder(list[AnyClusterMessage])
_decoder: msgspec.msgpack.Decoder[AnyClusterMessage] = msgspec.msgpack.Decoder(AnyClusterMessage)
