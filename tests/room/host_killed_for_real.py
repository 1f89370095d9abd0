"""A real host killed with SIGKILL, over real sockets: `python -m tests.room.host_killed_for_real --players 4`.

Each player is a process. Who is the host writes the time into the room's state thirty times a second. Told: how long after the
kill the last of the others knew the next host, whether all named the same, and how old the state was that they went on with.
Clocks of one machine are compared (CLOCK_MONOTONIC), so all of them have to run on one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import trio

from psyne_mesh import join_game_room
from psyne_mesh.errors import NotHost
from psyne_mesh.events import HostChanged
from psyne_mesh.signaling.server import open_server
from tests.room.players import LOOPBACK

ROOT = Path(__file__).resolve().parents[2]
TICK_S = 1 / 30
SETTLED_S = 4.0  # all have their seats, and are in the roster
PATIENCE_S = 60.0


@attrs.frozen
class Outcome:
    """hosts: whom each of those who stay names, with the term. took_s: until the last of them did. age_s: of the room's state
    when the host was killed, at the one who had least of it once the next host was known."""

    hosts: list[tuple[str, int]]
    took_s: float
    age_s: float


async def play(url: str) -> None:
    """One player; tells each host, with the time and the newest time in the room's state, as a line of JSON."""
    async with join_game_room("killed", signaling=url, config=LOOPBACK) as room:

        def tell(event: HostChanged) -> None:
            host = None if event.host is None else str(event.host.id)
            told = {"at": time.monotonic(), "term": event.term, "host": host, "me": str(room.me)}
            print(json.dumps(told | {"state": room.state.get("written", 0.0), "seats": len(room.voters)}), flush=True)

        room.on(HostChanged, tell)
        room.is_host  # noqa: B018 - from now on we look for one
        while True:
            if room.is_host:
                try:
                    room.state["written"] = time.monotonic()
                    room.state["voters"] = len(room.voters)
                except NotHost:
                    pass
            await trio.sleep(TICK_S)


class _Player:
    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []

    async def listen(self) -> None:
        assert self.process.stdout is not None
        buffer = b""
        async for chunk in self.process.stdout:
            *lines, buffer = (buffer + chunk).split(b"\n")
            self.told += [json.loads(line) for line in lines]

    @property
    def host(self) -> str | None:
        return self.told[-1]["host"] if self.told else None


async def kill_the_host(players: int) -> Outcome:
    """Fails with `trio.TooSlowError` when no host comes about in a minute."""
    async with open_server(port=0) as server, trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "tests.room.host_killed_for_real", "--join", server.url]
        everybody = [
            _Player(await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=ROOT)) for _ in range(players)
        ]
        try:
            for player in everybody:
                nursery.start_soon(player.listen)
            with trio.fail_after(PATIENCE_S):
                first = await _agreed(everybody)
                await trio.sleep(SETTLED_S)
                first = await _agreed(everybody)
                victim = next(player for player in everybody if player.told[-1]["me"] == first)
                rest = [player for player in everybody if player is not victim]
                killed_at = time.monotonic()
                victim.process.kill()
                while await _agreed(rest) == first:
                    await trio.sleep(0.01)
            last = [player.told[-1] for player in rest]
            return Outcome(
                [(each["host"], each["term"]) for each in last],
                max(each["at"] for each in last) - killed_at,
                killed_at - min(each["state"] for each in last),
            )
        finally:
            for player in everybody:
                player.process.kill()
            with trio.CancelScope(shield=True):
                for player in everybody:
                    await player.process.wait()
            nursery.cancel_scope.cancel()
    raise AssertionError


async def _agreed(players: list[_Player]) -> str:
    """Whom all of these name."""
    while True:
        named = {player.host for player in players}
        if len(named) == 1 and (host := named.pop()) is not None:
            return host
        await trio.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--players", type=int, default=4)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--join")
    given = parser.parse_args()
    if given.join:
        trio.run(play, given.join)
        return
    for _ in range(given.times):
        outcome = trio.run(kill_the_host, given.players)
        same = len(set(outcome.hosts)) == 1
        print(
            f"next host after {outcome.took_s:.2f} s, the same for all: {same}, state {outcome.age_s * 1000:.0f} ms old"
        )


if __name__ == "__main__":
    main()
