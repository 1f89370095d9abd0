"""Who plays with whom: the quality of matches, how fast a crowd is seated, and what guesses at a password cost.

    python -m benchmarks.matchmaking quality --seeds 20 --arrivals 500
    python -m benchmarks.matchmaking crowd --players 100
    python -m benchmarks.matchmaking guesses --wrong 10000 --clients 20

quality: players of several skills and regions arrive in virtual time and ask the server's own matching for rooms of four.
    Told is the mean spread of skill in a room as a share of that of rooms filled in order of arrival, and the longest wait.
crowd: that many players ask a server of its own process for rooms of four within one second, over loopback. Told is when the
    last had its seat, and the rooms, with who was in two or in none.
guesses: that many wrong passwords are offered to a room, as fast as a server reads, while friends with the right one come.
    Told is the server's share of a core beside that without guesses, and how long the friends took.
"""

from __future__ import annotations

import json
import os
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
import trio
import typer

from benchmarks.signaling import serving
from psyne_mesh.errors import RoomError, SignalingError
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.signaling.client import SignalingClient, connect_signaling
from psyne_mesh.signaling.joining import JoinRequest, SeekRequest
from psyne_mesh.signaling.locks import password_keys
from psyne_mesh.signaling.manifest import Manifest, new_code, sign
from psyne_mesh.signaling.placing import LOOK_S, Placing
from psyne_mesh.signaling.registry import RegistryLimits, RoomRegistry
from psyne_mesh.signaling.requests import checked_join, request_into

PLAYERS = 4
SKILL_MEAN, SKILL_SD, HALF_RANGE = (
    1500.0,
    300.0,
    100.0,
)  # Elo's own spread of a population of players, and half of a class
REGIONS = {"us-west": 5, "us-east": 4, "eu": 6, "asia": 3}  # how many of 18 players are at home there
ARRIVALS_PER_S = 5.0
app = typer.Typer(add_completion=False)


@attrs.frozen
class Arrival:
    at: float
    peer: PeerId
    skill: float
    region: str


@attrs.frozen
class Quality:
    """Of one seed. Spreads are highest minus lowest skill of a room, the mean of all rooms."""

    spread: float
    spread_in_order: float
    one_region: float
    longest_wait_s: float
    rooms: int
    left: int
    twice: int


def arrivals(seed: int, count: int) -> list[Arrival]:
    rng, at, found = random.Random(seed), 0.0, []
    for number in range(count):
        at += rng.expovariate(ARRIVALS_PER_S)
        region = rng.choices(list(REGIONS), list(REGIONS.values()))[0]
        found.append(Arrival(at, PeerId(f"{number:032x}"), rng.gauss(SKILL_MEAN, SKILL_SD), region))
    return found


def quality(seed: int, count: int = 500) -> Quality:
    """In virtual time: `Placing` is what the server runs."""
    players = arrivals(seed, count)
    rng = random.Random(f"codes {seed}")
    registry = RoomRegistry(RegistryLimits(rooms_created_per_peer_max=count))
    placing = Placing(registry)
    by_peer = {player.peer: player for player in players}
    rooms: dict[str, list[Arrival]] = {}
    waits: dict[PeerId, float] = {}
    twice, coming, now = 0, list(players), 0.0
    while (coming or len(waits) < count) and now < 600:
        now += LOOK_S
        while coming and coming[0].at <= now:
            player = coming.pop(0)
            placing.seek(player.peer, 0, seek_of(player, rng), player.at)
        placing.handle_timeout(now)
        for place in placing.take_places():
            twice += place.peer in waits
            waits[place.peer] = now - by_peer[place.peer].at
            assert not isinstance(place.outcome, Exception), place.outcome
            rooms.setdefault(place.outcome.room, []).append(by_peer[place.peer])
            registry.join(place.peer, request_into(place.outcome, JoinRequest("ranked")), now)
    in_order = [players[number : number + PLAYERS] for number in range(0, count - PLAYERS + 1, PLAYERS)]
    return Quality(
        spread=mean_spread(list(rooms.values())), spread_in_order=mean_spread(in_order),
        one_region=statistics.mean(len({player.region for player in room}) == 1 for room in rooms.values()),
        longest_wait_s=max(waits.values()), rooms=sum(len(room) == PLAYERS for room in rooms.values()),
        left=count - len(waits), twice=twice,
    )  # fmt: skip


def seek_of(player: Arrival, rng: random.Random) -> SeekRequest:
    join = JoinRequest(
        "ranked", region=player.region, skill_range=(player.skill - HALF_RANGE, player.skill + HALF_RANGE),
        max_players=PLAYERS, manifest=Manifest(code=new_code(rng)),
    )  # fmt: skip
    return SeekRequest(join=join, players=PLAYERS)


def mean_spread(rooms: Sequence[Sequence[Arrival]]) -> float:
    return statistics.mean(
        max(player.skill for player in room) - min(player.skill for player in room) for room in rooms
    )


def signed(identity: Identity, request: JoinRequest, manifest: Manifest) -> JoinRequest:
    request = checked_join(attrs.evolve(request, manifest=manifest))
    return attrs.evolve(request, manifest=sign(manifest, request, identity))


async def quick_match(client: SignalingClient, identity: Identity, rng: random.Random) -> str:
    """The key of the room in which we are then."""
    request = signed(identity, JoinRequest("crowd", max_players=PLAYERS), Manifest(code=new_code(rng)))
    info = await client.seek(SeekRequest(join=request, players=PLAYERS))
    return (await client.join(request_into(info, request))).room


async def measure_crowd(players: int) -> dict[str, Any]:
    seats: dict[PeerId, list[str]] = {}
    took: list[float] = []
    ready, all_ready, finished = 0, trio.Event(), trio.Event()

    async def play(number: int, url: str) -> None:
        nonlocal ready
        identity, rng = Identity.generate(), random.Random(number)
        async with connect_signaling(url, identity) as client:
            ready += 1
            if ready == players:
                all_ready.set()
            await all_ready.wait()
            await trio.sleep(rng.random())  # all within one second
            seats.setdefault(identity.peer_id, []).append(await quick_match(client, identity, rng))
            took.append(trio.current_time() - began)
            if len(took) == players:
                finished.set()
            await finished.wait()

    async with serving() as (port, _), trio.open_nursery() as nursery:
        for number in range(players):
            nursery.start_soon(play, number, f"ws://127.0.0.1:{port}")
        await all_ready.wait()
        began = trio.current_time()
        with trio.move_on_after(60):
            await finished.wait()
        nursery.cancel_scope.cancel()
    sizes = Counter(room for rooms in seats.values() for room in rooms)
    return {
        "players": players,
        "full_rooms": sum(size == PLAYERS for size in sizes.values()),
        "other_rooms": sum(size != PLAYERS for size in sizes.values()),
        "twice": sum(len(rooms) > 1 for rooms in seats.values()),
        "left": players - len(seats),
        "last_seated_s": round(max(took, default=float("inf")), 3),
    }


async def measure_guesses(wrong: int, clients: int, seconds: float) -> dict[str, float]:
    offered = 0

    async def guess(url: str, request: JoinRequest) -> None:
        nonlocal offered
        async with connect_signaling(url, Identity.generate()) as client, trio.open_nursery() as nursery:

            async def one() -> None:
                nonlocal offered
                while offered < wrong:
                    offered += 1
                    try:
                        await client.join(attrs.evolve(request, door=os.urandom(24).hex()))
                    except (RoomError, SignalingError):
                        await trio.lowlevel.checkpoint()

            for _ in range(min(32, wrong)):
                nursery.start_soon(one)

    async def friends(url: str, request: JoinRequest, for_s: float) -> list[float]:
        took, ends_at = [], trio.current_time() + for_s
        while trio.current_time() < ends_at:
            began = trio.current_time()
            async with connect_signaling(url, Identity.generate()) as client:
                await client.join(request)
                took.append(trio.current_time() - began)
            await trio.sleep(0.2)
        return sorted(took)

    host, rng = Identity.generate(), random.Random(1)
    keys = password_keys("swordfish", rng.randbytes(16))
    manifest = Manifest(code=new_code(rng), policy="password", lock=keys.lock)
    async with serving() as (port, process):
        url = f"ws://127.0.0.1:{port}"
        request = signed(host, JoinRequest("locked", max_players=64), manifest)
        request = attrs.evolve(request, instance=manifest.code, door=keys.door)
        async with connect_signaling(url, host) as client:
            await client.join(request)
            calm_cpu, calm = await cpu_while(process.pid, friends, url, request, seconds)
            async with trio.open_nursery() as nursery:
                for _ in range(clients):
                    nursery.start_soon(guess, url, request)
                await trio.sleep(2)  # their hellos are not what is measured
                cpu, beside = await cpu_while(process.pid, friends, url, request, seconds)
                nursery.cancel_scope.cancel()
    return {
        "clients": clients, "friends": len(beside),
        "calm_percent_of_a_core": round(100 * calm_cpu, 2), "guessed_percent_of_a_core": round(100 * cpu, 2),
        "guesses_cost_percent": round(100 * (cpu - calm_cpu), 2),
        "calm_p50_s": round(calm[len(calm) // 2], 4), "guessed_p50_s": round(beside[len(beside) // 2], 4),
        "guessed_max_s": round(beside[-1], 4),
    }  # fmt: skip


async def cpu_while(pid: int, run: Any, url: str, request: JoinRequest, seconds: float) -> tuple[float, list[float]]:
    before = cpu_seconds(pid)
    result = await run(url, request, seconds)
    return (cpu_seconds(pid) - before) / seconds, result


def cpu_seconds(pid: int) -> float:
    """Of a process, by Linux's own account."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@app.command("quality")
def quality_command(
    seeds: Annotated[int, typer.Option(min=1)] = 20, arrivals: Annotated[int, typer.Option(min=4)] = 500
) -> None:
    found = [quality(seed, arrivals) for seed in range(seeds)]
    typer.echo(json.dumps({
        "seeds": seeds, "arrivals": arrivals,
        "spread_share_mean": round(statistics.mean(one.spread / one.spread_in_order for one in found), 3),
        "spread_share_worst": round(max(one.spread / one.spread_in_order for one in found), 3),
        "in_one_region": round(statistics.mean(one.one_region for one in found), 3),
        "longest_wait_s": max(one.longest_wait_s for one in found),
        "left": sum(one.left for one in found), "twice": sum(one.twice for one in found),
    }, indent=1))  # fmt: skip


@app.command("crowd")
def crowd_command(players: Annotated[int, typer.Option(min=4)] = 100) -> None:
    typer.echo(json.dumps(trio.run(measure_crowd, players), indent=1))


@app.command("guesses")
def guesses_command(
    wrong: Annotated[int, typer.Option(min=1)] = 10_000, clients: Annotated[int, typer.Option(min=1)] = 20,
    seconds: Annotated[float, typer.Option(min=1)] = 10.0,
) -> None:  # fmt: skip
    typer.echo(json.dumps(trio.run(measure_guesses, wrong, clients, seconds), indent=1))


if __name__ == "__main__":
    app()
