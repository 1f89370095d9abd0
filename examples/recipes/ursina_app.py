"""ursina: `python ursina_app.py [URL] [SECONDS]`. An entity polls in its `update`."""

import os
import sys

from ursina import Entity, Ursina, time

from psyne_mesh import sync


class Dot(sync.Shared):
    x: float = sync.smooth(0.0)


class Players(Entity):
    def __init__(self, net: sync.Room, seconds: float) -> None:
        super().__init__()
        self.net, self.mine, self.seconds, self.balls = net, net.share(Dot()), seconds, {}

    def update(self) -> None:
        for event in self.net.poll():
            print(event)
        self.mine.x = (self.mine.x + time.dt) % 10
        for dot in self.net.all(Dot):
            if dot not in self.balls:
                self.balls[dot] = Entity(model="sphere")
            self.balls[dot].x = dot.x
        self.seconds -= min(time.dt, 0.1)  # the first frame has loaded everything
        if self.seconds < 0:
            sys.exit()


def main(url: str = "ws://127.0.0.1:8080", seconds: float = 1e9) -> None:
    app = Ursina(window_type=os.environ.get("PANDA_WINDOW", "onscreen"))
    with sync.join_game_room("recipes", signaling=url, player_name="ursina") as net:
        players = Players(net, seconds)
        app.run()
        del players


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
