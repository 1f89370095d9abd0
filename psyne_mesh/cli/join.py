"""`psyne-mesh join ROOM`: a room in the terminal. Lines typed here are said to everybody in it."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import trio
from rich.console import Console

from psyne_mesh.cli.terminal import plain
from psyne_mesh.errors import MessageTooLarge, UnserialisableMessage
from psyne_mesh.room import events
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room


class Line(Message):
    text: str


async def run_join(room_name: str, name: str | None, signaling: str, region: str | None, max_players: int) -> None:
    console = Console()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a byte that is no UTF-8 is a typing error, not the end
    try:
        async with join_game_room(
            room_name, max_players=max_players, region=region, signaling=signaling, player_name=name
        ) as room:
            console.print(
                f"in room [bold]{plain(room_name)}[/bold] as {plain(name or room.me.short)}; type to talk, Ctrl-D leaves"
            )
            chat = room.channel("chat", Line)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_show_events, room, console)
                nursery.start_soon(_show_lines, chat, console)
                await _say_lines(chat, console)
                nursery.cancel_scope.cancel()
    except KeyboardInterrupt:
        console.print("left")


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
