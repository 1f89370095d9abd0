"""Somebody else's ship: smooth fields are shown a little later, and without steps."""

from __future__ import annotations

import itertools
import math

import trio

from examples.netcode.path import SETTLE_S, Line, frames, play, switch, two_players
from psyne_mesh import Room, Shared, smooth


class Smooth(Shared):
    x: float = smooth(0.0)


class Plain(Shared):
    x: float = 0.0


def place(passed: float) -> float:
    return 4 * math.sin(1.7 * passed)


async def owner(room: Room, truth: Line) -> None:
    ships = (room.share(Smooth()), room.share(Plain()))
    async for passed in frames(SETTLE_S + 4):
        for ship in ships:
            ship.x = place(passed)
        truth.append((passed - SETTLE_S, place(passed)))


async def scene(is_with: bool) -> tuple[Line, Line]:
    """(as it is seen, as it is at its owner)."""
    seen: Line = []
    truth: Line = []
    async with two_players() as (ada, bob), trio.open_nursery() as nursery:
        nursery.start_soon(owner, ada, truth)
        for kind in (Smooth, Plain):
            bob.all(kind)
        await trio.sleep(SETTLE_S)
        async for passed in frames(4):
            for ship in bob.all(Smooth if is_with else Plain):
                seen.append((passed, ship.x))
        nursery.cancel_scope.cancel()
    return seen, [each for each in truth if each[0] >= 0]


def frozen(seen: Line) -> int:
    """Frames in which it stands still though it moves."""
    return sum(a[1] == b[1] for a, b in itertools.pairwise(seen))


def roughness(seen: Line) -> float:
    """How much longer steps change from frame to frame: 1.0 is the path itself."""
    steps = [b[1] - a[1] for a, b in itertools.pairwise(seen)]
    ideal = [place(b / 60) - place(a / 60) for a, b in zip(range(len(seen)), range(1, len(seen)))]
    bends = [sum(abs(b - a) for a, b in itertools.pairwise(line)) for line in (steps, ideal)]
    return bends[0] / bends[1]


if __name__ == "__main__":
    with_it = switch(str(__doc__))
    result = play(scene, with_it)
    print(
        f"{'with' if with_it else 'without'} interpolation it stands still in {frozen(result[0])} of {len(result[0])} frames"
    )
    for passed, x in result[0][::6]:
        print(f"{passed:5.2f} s {' ' * int(20 + 4 * x)}o")
