"""Requests of a player, checked against the bounds of the wire before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.events import Joined, SkillRange
from psyne_mesh.signaling.registry import JoinRequest
from psyne_mesh.signaling.transport import CreatePolicy

_M = TypeVar("_M", bound=messages.Message)


def checked_join(
    name: str,
    app_id: str,
    region: str,
    max_players: int,
    skill_range: SkillRange | None,
    create: CreatePolicy,
    record: str,
    metadata: Mapping[str, object] | None,
) -> JoinRequest:
    """The request as the server will read it, or `InvalidConfig`."""
    check_record(record)
    message = _checked(
        lambda: messages.Join(
            ref=0,
            room=name,
            app_id=app_id,
            region=region,
            max_players=max_players,
            skill_range=skill_range,
            create=create,
            record=record,
            metadata=dict(metadata or {}),  # type: ignore[arg-type]  # what else is inside is refused on reading back
        )
    )
    return request_of(message)


def checked_list(
    app_id: str, region: str | None, skill_range: SkillRange | None, only_open: bool, limit: int
) -> messages.ListRooms:
    return _checked(
        lambda: messages.ListRooms(
            ref=0, app_id=app_id, region=region, skill_range=skill_range, only_open=only_open, limit=limit
        )
    )


def check_record(record: str) -> None:
    if not messages.is_record(record):
        raise InvalidConfig(
            f"a record is at most {messages.MAX_RECORD_CHARS} printable ASCII characters without quote and backslash, "
            f"such as base64; this one has {len(record)} characters"
        )


def request_of(message: messages.Join) -> JoinRequest:
    return JoinRequest(
        name=message.room,
        app_id=message.app_id,
        region=message.region,
        max_players=message.max_players,
        skill_range=message.skill_range,
        create=message.create,
        record=message.record,
        metadata=message.metadata,
    )


def message_of(request: JoinRequest, ref: int) -> messages.Join:
    return messages.Join(
        ref=ref,
        room=request.name,
        app_id=request.app_id,
        region=request.region,
        max_players=request.max_players,
        skill_range=request.skill_range,
        create=request.create,
        record=request.record,
        metadata=dict(request.metadata),  # type: ignore[arg-type]  # checked when it was made
    )


def request_again(joined: Joined, record: str) -> JoinRequest:
    """How to enter again a room that we were in. The server may have lost it and another member may come first, or we:
    so "or", with the room's own properties and not those we had once asked for."""
    info = joined.info
    return JoinRequest(
        name=info.name,
        app_id=info.app_id,
        region=info.region,
        max_players=info.max_players,
        skill_range=info.skill_range,
        create="or",
        record=record,
        metadata=info.metadata,
    )


def _checked(make: Callable[[], _M]) -> _M:
    """Encode and read back, so that there is one set of bounds: that of the decoder."""
    try:
        message = make()
        read = messages.decode_client_untrusted(messages.encode(message))
    except (ProtocolError, TypeError, ValueError) as error:
        raise InvalidConfig(str(error)) from error
    assert isinstance(read, type(message))
    return read
