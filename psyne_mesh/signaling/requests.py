"""Requests of a player, checked against the bounds of the wire before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.joining import CreatePolicy, JoinRequest, RoomQuery, SeekRequest

_M = TypeVar("_M", bound=messages.Message)


def checked_join(request: JoinRequest) -> JoinRequest:
    """The request as the server will read it, or `InvalidConfig`."""
    check_record(request.record)
    return request_of(_checked(lambda: message_of(request, ref=0)))


def checked_list(query: RoomQuery) -> messages.ListRooms:
    return _checked(lambda: messages.ListRooms(ref=0, **attrs.asdict(query, recurse=False)))


def check_record(record: str) -> None:
    if not messages.is_record(record):
        raise InvalidConfig(
            f"a record is at most {messages.MAX_RECORD_CHARS} printable ASCII characters without quote and backslash, "
            f"such as base64; this one has {len(record)} characters"
        )


def checked_seek(request: SeekRequest) -> messages.Seek:
    """`InvalidConfig` for what is out of bounds."""
    check_record(request.join.record)
    return _checked(lambda: seek_message_of(request, ref=0))


def seek_of(message: messages.Seek) -> SeekRequest:
    return SeekRequest(
        join=request_of(message.join), players=message.players, party=message.party, party_size=message.party_size,
        avoid=tuple(message.avoid), rtt_ms=message.rtt_ms,
    )  # fmt: skip


def seek_message_of(request: SeekRequest, ref: int) -> messages.Seek:
    return messages.Seek(
        ref=ref, join=message_of(request.join, ref), players=request.players, party=request.party,
        party_size=request.party_size, avoid=list(request.avoid), rtt_ms=dict(request.rtt_ms),
    )  # fmt: skip


def request_of(message: messages.Join) -> JoinRequest:
    return JoinRequest(**{name: getattr(message, name) for name in _REQUEST})


def message_of(request: JoinRequest, ref: int) -> messages.Join:
    fields = attrs.asdict(request, recurse=False)
    return messages.Join(ref=ref, **{**fields, "metadata": dict(request.metadata)})


def query_of(message: messages.ListRooms) -> RoomQuery:
    return RoomQuery(**{name: getattr(message, name) for name in _QUERY})


def request_into(info: RoomInfo, asked: JoinRequest, create: CreatePolicy = "or") -> JoinRequest:
    """How to enter that room, with the record and the proof that we `asked` with. A server may have lost it and another
    member may come first, or we: so it has the room's own properties and not those we had once asked for."""
    return attrs.evolve(
        asked, name=info.name, app_id=info.app_id, region=info.region, max_players=info.max_players,
        skill_range=info.skill_range, create=create, metadata=info.metadata, instance=info.instance,
        manifest=info.manifest,
    )  # fmt: skip


def _checked(make: Callable[[], _M]) -> _M:
    """Encode and read back, so that there is one set of bounds: that of the decoder."""
    try:
        message = make()
        read = messages.decode_client_untrusted(messages.encode(message))
    except (ProtocolError, TypeError, ValueError) as error:
        raise InvalidConfig(str(error)) from error
    assert isinstance(read, type(message))
    return read


_REQUEST = tuple(field.name for field in attrs.fields(JoinRequest))
_QUERY = tuple(field.name for field in attrs.fields(RoomQuery))
