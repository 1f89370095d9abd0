"""Shots that hit what the shooter saw: who is shot at looks back to the moment that the shot says."""

from __future__ import annotations

import math

import trio

from examples.netcode.path import SETTLE_S, Line, frames, play, switch, taken, two_players
from psyne_mesh import Message, Room, Shared, smooth

SIZE = 0.5


class Ship(Shared):
    x: float = smooth(0.0)


class Shot(Message):
    at: float  # room.shown_time(target)
    x: float


def place(passed: float) -> float:
    return 6 * math.sin(1.1 * passed)


async def target(room: Room, is_with: bool, hits: list[bool], claims: Line) -> None:
    ship, shots = room.share(Ship()), room.channel("shots", Shot, mode="reliable_unordered")
    async for passed in frames(SETTLE_S + 11):
        ship.x = place(passed)
        for shot in taken(shots):
            seen = room.rewind(shot.at, Ship)[0] if is_with else ship
            hits.append(abs(seen.x - shot.x) <= SIZE)
            claims.append((shot.x, seen.x))


async def scene(is_with: bool) -> tuple[list[bool], Line]:
    """(which shots hit, (where the shooter saw the ship, where its owner looked for it))."""
    hits: list[bool] = []
    claims: Line = []
    async with two_players() as (ada, bob), trio.open_nursery() as nursery:
        shots = bob.channel("shots", Shot, mode="reliable_unordered")
        nursery.start_soon(target, ada, is_with, hits, claims)
        bob.all(Ship)
        await trio.sleep(SETTLE_S)
        fired = 0.0
        async for passed in frames(10):
            for ship in bob.all(Ship):
                if passed - fired >= 0.1:  # an aim bot, so that all misses are the network's
                    fired = passed
                    shots.send_nowait(Shot(bob.shown_time(ship), ship.x))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return hits, claims


if __name__ == "__main__":
    with_it = switch(str(__doc__))
    result = play(scene, with_it)
    print(
        f"{'with' if with_it else 'without'} rewind {sum(result[0])} of {len(result[0])} shots hit what they were aimed at"
    )
