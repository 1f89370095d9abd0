"""The commands and their options. Each hands over to a file of its own at once."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import trio
import typer

import psyne_mesh
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.room.mesh import DEFAULT_SIGNALING
from psyne_mesh.simulations.cli import app as simulations

app = typer.Typer(
    name="psyne-mesh",
    help="Multiplayer rooms for Python games, peer to peer, with no game server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_PUBLIC_NAME = (
    "HOST or HOST:PORT by which players dial this server, if not by an IP address of this machine; may be repeated. * takes "
    "any: then a rogue server that a player dials can enter here in its name."
)
_ORIGIN = "A web page's origin that may connect, https://HOST[:PORT], or * for all; may be repeated."
_PASSWORD = (
    "Of a room that has one; others on this machine see it in the list of processes, so better by the environment."
)
_SIGNALING = typer.Option(help="The signaling server to meet at.", envvar="PSYNE_MESH_SIGNALING")


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"psyne-mesh {psyne_mesh.__version__}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version, and end.")
    ] = False,
) -> None:
    """Multiplayer rooms for Python games, peer to peer, with no game server."""


@app.command()
def demo(
    players: Annotated[int, typer.Option(min=2, max=16, help="How many player processes.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long they play once the mesh stands.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="No table; one JSON object as the last line.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Save the last table as an SVG picture.")] = None,
) -> None:
    """Play the combat demo: player processes on this machine in one room, over real ICE, DTLS and SCTP."""
    from psyne_mesh.cli.demo import run_demo

    sys.exit(trio.run(run_demo, players, seconds, json, picture))


if find_spec("examples") is not None and find_spec("examples.arena") is not None:

    @app.command()
    def play(
        name: Annotated[str | None, typer.Option(help="Your display name.")] = None,
        signaling: Annotated[
            str | None, typer.Option(help="Where friends play; without it a server runs inside.")
        ] = None,
        room: Annotated[str, typer.Option(help="The room's name.")] = "arena",
        bots: Annotated[
            int | None, typer.Option(min=0, max=7, help="How many bots; 3 on our own server, none on another.")
        ] = None,
        seconds: Annotated[float | None, typer.Option(min=1, help="End by itself.")] = None,
        headless: Annotated[bool, typer.Option("--headless", help="No window; a bot plays for you.")] = False,
        screenshot: Annotated[Path | None, typer.Option(help="Save the last frame as a PNG.")] = None,
        animation: Annotated[Path | None, typer.Option(help="Save the last seconds as a GIF; needs Pillow.")] = None,
    ) -> None:
        """Play the arena: a window with three bots, on a signaling server of its own. Needs the extra `play` (pygame-ce)."""
        from psyne_mesh.cli.play import run_play

        run_play(name, signaling, room, bots, seconds, headless, screenshot, animation)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for everybody.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes any free one.")] = 8080,
    certificate: Annotated[str | None, typer.Option(help="TLS certificate chain (PEM) for wss://.")] = None,
    key: Annotated[str | None, typer.Option(help="TLS private key (PEM).")] = None,
    redis: Annotated[str | None, typer.Option(help="Share rooms with other servers through this Redis URL.")] = None,
    public_name: Annotated[list[str] | None, typer.Option(help=_PUBLIC_NAME)] = None,
    origin: Annotated[list[str] | None, typer.Option(help=_ORIGIN)] = None,
    list_rooms: Annotated[bool, typer.Option("--list-rooms", help="Show all rooms to everybody at /rooms.")] = False,
    web: Annotated[
        Path | None, typer.Option(help="The folder of a game's page, with an index.html, to hand out at /.")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(help="NAME=STUN: a region and a STUN server in it, by which players measure how far it is."),
    ] = None,
) -> None:
    """Run a signaling server: WebSocket for players, /healthz and /stats for people, /app/ and --web for browsers."""
    from psyne_mesh.cli.serve import run_serve

    trio.run(
        run_serve, host, port, certificate, key, redis, public_name or (), origin or (), list_rooms, web, region or ()
    )


@app.command()
def rooms(
    lobby: Annotated[str | None, typer.Argument(help="Only of this lobby.")] = None,
    signaling: Annotated[str, _SIGNALING] = DEFAULT_SIGNALING,
    app_id: Annotated[str, typer.Option(help="Of which game.")] = "",
    region: Annotated[str | None, typer.Option(help="Only of this region.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and tell what changes.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object for each room.")] = False,
) -> None:
    """Show the rooms that a signaling server has, with the codes by which to enter them."""
    from psyne_mesh.cli.rooms import run_rooms

    trio.run(run_rooms, lobby, signaling, app_id, region, watch, json)


@app.command()
def create(
    lobby: Annotated[str, typer.Argument(help="The lobby's name.")],
    name: Annotated[str | None, typer.Option(help="Your display name.")] = None,
    signaling: Annotated[str, _SIGNALING] = DEFAULT_SIGNALING,
    region: Annotated[str | None, typer.Option(help="Where it is.")] = None,
    max_players: Annotated[int, typer.Option(min=2, max=1024)] = 16,
    policy: Annotated[str | None, typer.Option(help="open, code, password or invite.")] = None,
    password: Annotated[str | None, typer.Option(help=_PASSWORD, envvar="PSYNE_MESH_PASSWORD")] = None,
) -> None:
    """Make a room of your own, say its code or an invitation, and chat in it."""
    from psyne_mesh.cli.join import run_create

    trio.run(run_create, lobby, name, signaling, region, max_players, policy, password)


@app.command()
def join(
    room: Annotated[str | None, typer.Argument(help="The lobby's name.")] = None,
    code: Annotated[str | None, typer.Option(help="The code of one room, or an invitation, instead of a name.")] = None,
    password: Annotated[str | None, typer.Option(help=_PASSWORD, envvar="PSYNE_MESH_PASSWORD")] = None,
    name: Annotated[str | None, typer.Option(help="Your display name.")] = None,
    signaling: Annotated[str, _SIGNALING] = DEFAULT_SIGNALING,
    region: Annotated[str | None, typer.Option(help="Only players of the same region meet.")] = None,
    max_players: Annotated[int, typer.Option(min=2, max=1024)] = 16,
) -> None:
    """Enter a room from the terminal: see who comes and goes, and chat."""
    from psyne_mesh.cli.join import run_join, run_join_code

    if (room is None) == (code is None):
        raise InvalidConfig("join by a name or by --code: psyne-mesh join LOBBY, or psyne-mesh join --code K7QM-3FHT")
    if code is not None:
        trio.run(run_join_code, code, name, signaling, password)
    elif room is not None:
        trio.run(run_join, room, name, signaling, region, max_players)


@app.command()
def doctor(
    stun: Annotated[list[str] | None, typer.Option(help="A STUN server, stun:HOST[:PORT]; may be repeated.")] = None,
    turn: Annotated[list[str] | None, typer.Option(help="A TURN server, turn(s):HOST[:PORT][?transport=tcp].")] = None,
    turn_user: Annotated[str, typer.Option(help="The user name for all --turn.")] = "",
    turn_credential: Annotated[str, typer.Option(help="Its credential.", envvar="PSYNE_MESH_TURN_CREDENTIAL")] = "",
    signaling: Annotated[str, _SIGNALING] = DEFAULT_SIGNALING,
    json: Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")] = False,
) -> None:
    """Look at this network: addresses, servers, NAT; say which players can be reached, and what to configure next.

    Exit status 0 when rooms will work, 1 when not. `--signaling none` leaves signaling out.
    """
    from psyne_mesh.cli.doctor import run_doctor

    sys.exit(trio.run(run_doctor, stun or [], turn or [], turn_user, turn_credential, signaling, json))


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="What `room.evidence(path)` wrote; several of one room.")],
) -> None:
    """Say what files of evidence prove, by whom against whom, and what not. Exit status 1 if something is proved."""
    from psyne_mesh.cli.verify import run_verify

    sys.exit(run_verify(files))


@app.command()
def schema(
    module: Annotated[str, typer.Argument(help="Where the message classes are, such as game.messages.")],
    typescript: Annotated[
        bool, typer.Option("--typescript", help="For the page; what comes without an option.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON Schema instead.")] = False,
    check: Annotated[
        Path | None, typer.Option(help="Write nothing; exit status 1 if this file holds something else.")
    ] = None,
) -> None:
    """Write a game's message types for a page: psyne-mesh schema --typescript game.messages > messages.ts"""
    from psyne_mesh.cli.schema import run_schema

    if typescript and json:
        raise InvalidConfig("--typescript or --json: one at a time")
    sys.exit(run_schema(module, json, check))


app.add_typer(simulations, name="sim", help="Run the mesh simulations: scenarios, seeds, figures.")
