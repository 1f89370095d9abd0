"""arcade: `python arcade_window.py [URL] [SECONDS]`. `poll` stands in `on_update`."""

import sys

import arcade

from psyne_mesh import sync


class Dot(sync.Shared):
    x: float = sync.smooth(320.0)
    y: float = sync.smooth(240.0)


class Game(arcade.Window):
    def __init__(self, net: sync.Room, seconds: float) -> None:
        super().__init__(640, 480, "psyne-mesh")
        self.net, self.me, self.seconds = net, net.share(Dot()), seconds

    def on_update(self, delta_time: float) -> None:
        for event in self.net.poll():
            print(event)
        self.me.x = (self.me.x + 100 * delta_time) % 640
        self.seconds -= delta_time
        if self.seconds < 0:
            sys.exit()

    def on_draw(self) -> None:
        self.clear()
        for dot in self.net.all(Dot):
            arcade.draw_circle_filled(dot.x, dot.y, 12, arcade.color.SKY_BLUE)


def main(url: str = "ws://127.0.0.1:8080", seconds: float = 1e9) -> None:
    with sync.join_game_room("recipes", signaling=url, player_name="arcade") as net:
        Game(net, seconds)
        arcade.run()


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
