"""`psyne-mesh join ROOM`: a room in the terminal. Lines typed here are said to everybody in it."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from io import TextIOWrapper
from typing import cast

import trio
from rich.console import Console

from psyne_mesh.cli.terminal import plain
from psyne_mesh.errors import MessageTooLarge, UnserialisableMessage
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.room import events
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.mesh import create_room, join_game_room, join_room
from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.manifest import Policy


class Line(Message):
    text: str


async def run_join(room_name: str, name: str | None, signaling: str, region: str | None, max_players: int) -> None:
    await _talk_in(
        join_game_room(room_name, max_players=max_players, region=region, signaling=signaling, player_name=name), name
    )


async def run_join_code(code: str, name: str | None, signaling: str, password: str | None) -> None:
    await _talk_in(join_room(code, signaling=signaling, player_name=name, password=password), name)


async def run_create(
    lobby: str, name: str | None, signaling: str, region: str | None, max_players: int, policy: str | None,
    password: str | None,
) -> None:  # fmt: skip
    await _talk_in(
        create_room(
            lobby, max_players=max_players, region=region, signaling=signaling, player_name=name, password=password,
            policy=cast(Policy | None, policy),
        ),
        name,
    )  # fmt: skip


async def _talk_in(block: AbstractAsyncContextManager[Room], name: str | None) -> None:
    console = Console()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a byte that is no UTF-8 is a typing error, not the end
    try:
        with unwrapped():
            async with block as room:
                console.print(
                    f"in room [bold]{plain(room.name)}[/bold] as {plain(name or room.me.short)}; type to talk, Ctrl-D leaves"
                )
                _say_way_in(room, console)
                chat = room.channel("chat", Line)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_show_events, room, console)
                    nursery.start_soon(_show_lines, chat, console)
                    await _say_lines(chat, console)
                    nursery.cancel_scope.cancel()
    except KeyboardInterrupt:
        console.print("left")


def _say_way_in(room: Room, console: Console) -> None:
    if room.info.policy != "invite":
        console.print(f"friends: psyne-mesh join --code [bold]{plain(room.code)}[/bold]")
    elif room.info.manifest.creator_id == room.me:
        console.print(f"friends, for an hour: psyne-mesh join --code {plain(room.invite())}", soft_wrap=True)


async def _say_lines(chat: Channel[Line], console: Console) -> None:
    # A thread, since a terminal cannot be waited for on every system; it is abandoned when the room is left.
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        if line.strip():
            try:
                await chat.send(Line(line.strip()))
            except (MessageTooLarge, UnserialisableMessage) as error:  # nobody got it
                console.print(f"[yellow]{plain(str(error))}[/yellow]")


async def _show_lines(chat: Channel[Line], console: Console) -> None:
    async for sender, line in chat:
        console.print(f"[bold]{plain(sender.name)}[/bold]: {plain(line.text)}")


async def _show_events(room: Room, console: Console) -> None:
    async for event in room.events():
        match event:
            case events.PeerConnected(peer=peer):
                console.print(f"[green]{plain(peer.name)} connected[/green] {plain(str(peer.path or ''))}")
            case events.PeerLeft(peer=peer, reason=reason):
                console.print(f"[red]{plain(peer.name)} is gone[/red] ({plain(reason)})")
            case events.Evicted(reason=reason):
                console.print(f"[red]we lost our place in the room[/red] ({plain(reason)})")
            case events.PeerUnreachable(error=error):
                console.print(f"[yellow]{plain(str(error))}[/yellow]")
            case events.SignalingDown(reason=reason):
                console.print(f"[yellow]signaling is down: {plain(reason)}; play goes on[/yellow]")
            case events.SignalingUp():
                console.print("[green]signaling is back[/green]")
            case events.ServerRefused(server=server, reason=reason):
                console.print(f"[yellow]{plain(server)}: {plain(reason)}[/yellow]")
            case events.TwoFaced(player=player):
                console.print(f"[red]{player.short} told players different things of itself, and is barred[/red]")
            case events.TamperingDetected(server=server, reason=reason):
                console.print(f"[red]{plain(server)}: {plain(reason)}[/red]")
