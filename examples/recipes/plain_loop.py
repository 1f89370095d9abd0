"""A loop of your own: `python plain_loop.py [URL] [SECONDS]`. Everybody in the room sees everybody's dot go round."""

import math
import sys
import time

from psyne_mesh import sync


class Dot(sync.Shared):
    x: float = sync.smooth(0.0)
    y: float = sync.smooth(0.0)


def main(url: str = "ws://127.0.0.1:8080", seconds: float = 30.0) -> None:
    with sync.join_game_room("recipes", signaling=url, player_name="plain") as net:
        me = net.share(Dot())
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            for event in net.poll():
                print(event)
            me.x, me.y = math.cos(now), math.sin(now)
            for dot in net.all(Dot):
                print(f"{dot.owner.name} {dot.x:5.2f} {dot.y:5.2f}", end="   ")
            print(end="\r")
            time.sleep(1 / 60)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
