"""`psyne-mesh join ROOM`: a room in the terminal. Lines typed here are said to everybody in it."""

from __future__ import annotations

import sys

import trio
from rich.console import Console
from rich.markup import escape

from psyne_mesh.room import events
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room


class Line(Message):
    text: str


async def run_join(room_name: str, name: str | None, signaling: str, region: str | None, max_players: int) -> None:
    console = Console()
    try:
        async with join_game_room(
            room_name, max_players=max_players, region=region, signaling=signaling, player_name=name
        ) as room:
            console.print(
                f"in room [bold]{escape(room_name)}[/bold] as {name or room.me.short}; type to talk, Ctrl-D leaves"
            )
            chat = room.channel("chat", Line)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_show_events, room, console)
                nursery.start_soon(_show_lines, chat, console)
                await _say_lines(chat)
                nursery.cancel_scope.cancel()
    except KeyboardInterrupt:
        console.print("left")


async def _say_lines(chat: Channel[Line]) -> None:
    # A thread, since a terminal cannot be waited for on every system; it is abandoned when the room is left.
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        if line.strip():
            await chat.send(Line(line.strip()))


async def _show_lines(chat: Channel[Line], console: Console) -> None:
    async for sender, line in chat:
        console.print(f"[bold]{escape(sender.name)}[/bold]: {escape(line.text)}")


async def _show_events(room: Room, console: Console) -> None:
    async for event in room.events():
        match event:
            case events.PeerConnected(peer=peer):
                console.print(f"[green]{escape(peer.name)} connected[/green] {peer.path or ''}")
            case events.PeerLeft(peer=peer, reason=reason):
                console.print(f"[red]{escape(peer.name)} is gone[/red] ({reason})")
            case events.Evicted(reason=reason):
                console.print(f"[red]we lost our place in the room[/red] ({reason})")
            case events.PeerUnreachable(error=error):
                console.print(f"[yellow]{escape(str(error))}[/yellow]")
            case events.SignalingDown(reason=reason):
                console.print(f"[yellow]signaling is down: {escape(reason)}; play goes on[/yellow]")
            case events.SignalingUp():
                console.print("[green]signaling is back[/green]")
            case events.ServerRefused(server=server, reason=reason):
                console.print(f"[yellow]{escape(server)}: {escape(reason)}[/yellow]")
            case events.TamperingDetected(server=server, reason=reason):
                console.print(f"[red]{escape(server)}: {escape(reason)}[/red]")
