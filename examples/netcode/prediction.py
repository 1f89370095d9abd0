"""My own ship, of which the host has the last word: with prediction it moves when the key does.

In the middle of the run something pushes it that only the host knows of: the mistake is not jumped but faded out.
"""

from __future__ import annotations

import msgspec
import trio

from examples.netcode.path import SETTLE_S, Line, frames, play, switch, taken, two_players
from psyne_mesh import Message, Room
from psyne_mesh.game.prediction import Predicted

SPEED, PUSH = 6.0 / 60, 1.5
PUSHED_S = 3.0


class Ship(msgspec.Struct):
    x: float = 0.0


class Keys(Message):
    pressed: list[tuple[int, int]]  # those that the host has not answered: (number, -1, 0 or 1)


class Word(Message):
    number: int
    x: float


def step(ship: Ship, key: int) -> None:
    ship.x += key * SPEED


def key_at(passed: float) -> int:
    return (0, 1, 1, -1, 0, 1)[int(passed * 1.5) % 6]


async def host(room: Room, truth: Line) -> None:
    keys, words = room.channel("keys", Keys, mode="unreliable"), room.channel("words", Word, mode="unreliable")
    ship, done = Ship(), 0
    async for passed in frames(SETTLE_S + 8):
        for message in taken(keys):
            for number, key in message.pressed:
                if number == done + 1:
                    step(ship, key)
                    done = number
        if ship.x and abs(passed - SETTLE_S - PUSHED_S) < 0.008:
            ship.x += PUSH
        truth.append((passed, ship.x))
        words.send_nowait(Word(done, ship.x))


async def scene(is_with: bool) -> tuple[Line, Line]:
    """(the ship as its player sees it, where the keys alone would have it at once)."""
    seen: Line = []
    keyed: Line = []
    async with two_players() as (ada, bob), trio.open_nursery() as nursery:
        keys, words = bob.channel("keys", Keys, mode="unreliable"), bob.channel("words", Word, mode="unreliable")
        nursery.start_soon(host, ada, [])
        await trio.sleep(SETTLE_S)
        mine, plain, ideal = Predicted(Ship(), step, smooth=("x",)), Ship(), Ship()
        async for passed in frames(6):
            for word in taken(words):
                mine.confirm(word.number, Ship(word.x), passed)
                plain = Ship(word.x)
            mine.act(key_at(passed), passed)
            step(ideal, key_at(passed))
            keys.send_nowait(Keys(mine.pending[:20]))
            seen.append((passed, mine.shown(passed).x if is_with else plain.x))
            keyed.append((passed, ideal.x))
        nursery.cancel_scope.cancel()
    return seen, keyed


def lag_ms(seen: Line, keyed: Line) -> float:
    """By how much the ship is behind the keys, until it is pushed: what shift makes the lines fit best."""
    early = [x for passed, x in seen if passed < PUSHED_S - 0.3]
    best = min(range(30), key=lambda late: sum(abs(x - keyed[max(0, at - late)][1]) for at, x in enumerate(early)))
    return best * 1000 / 60


if __name__ == "__main__":
    with_it = switch(str(__doc__))
    result = play(scene, with_it)
    print(f"{'with' if with_it else 'without'} prediction the ship is {lag_ms(*result):.0f} ms behind the keys")
    for passed, x in result[0][::15]:
        print(f"{passed:5.2f} s {' ' * int(20 + 4 * x)}o")
