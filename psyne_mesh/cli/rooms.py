"""`psyne-mesh rooms`: which rooms a signaling server has."""

from __future__ import annotations

from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from psyne_mesh.cli.terminal import plain
from psyne_mesh.room.mesh import list_rooms
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.manifest import shown_code


async def run_rooms(
    lobby: str | None, signaling: str, app_id: str, region: str | None, watch: bool, as_json: bool
) -> None:
    console = Console()
    wanted = list_rooms(lobby, signaling=signaling, app_id=app_id, region=region)
    try:
        if not watch:
            _show(await wanted, console, as_json)
            return
        async with wanted as rooms:
            async for change in rooms:
                _say(change.kind, change.room, console, as_json)
    except KeyboardInterrupt:
        pass


def _show(rooms: tuple[RoomInfo, ...], console: Console, as_json: bool) -> None:
    if as_json:
        for room in rooms:
            typer.echo(msgspec.json.encode(_facts(room)))
        return
    if not rooms:
        console.print("no rooms; psyne-mesh create LOBBY makes one")
        return
    table = Table("lobby", "code", "players", "region", "skill", "policy", "version")
    for room in rooms:
        skill = "any" if room.skill_range is None else "{:g} to {:g}".format(*room.skill_range)
        table.add_row(
            plain(room.name), shown_code(room.code), f"{room.players}/{room.max_players}", plain(room.region), skill,
            room.policy, plain(room.manifest.app_version),
        )  # fmt: skip
    console.print(table)


def _say(kind: str, room: RoomInfo, console: Console, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode({"change": kind, **_facts(room)}))
    else:
        players = f"{room.players}/{room.max_players}"
        console.print(
            f"{kind:8} {plain(room.name)} {shown_code(room.code)} {players} {plain(room.region)} {room.policy}"
        )


def _facts(room: RoomInfo) -> dict[str, Any]:
    return {
        "name": room.name, "code": shown_code(room.code), "players": room.players, "max_players": room.max_players,
        "region": room.region, "skill_range": room.skill_range, "policy": room.policy,
        "app_version": room.manifest.app_version, "metadata": room.metadata,
    }  # fmt: skip
