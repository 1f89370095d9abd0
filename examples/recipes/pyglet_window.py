"""pyglet: `python pyglet_window.py [URL] [SECONDS]`. Its clock calls `poll` once a frame; no thread of yours is needed."""

import os
import sys

import pyglet

if os.environ.get("PYGLET_HEADLESS"):
    pyglet.options["headless"] = True

from psyne_mesh import sync


class Dot(sync.Shared):
    x: float = sync.smooth(320.0)
    y: float = sync.smooth(240.0)


def main(url: str = "ws://127.0.0.1:8080", seconds: float = 1e9) -> None:
    window = pyglet.window.Window(640, 480)
    with sync.join_game_room("recipes", signaling=url, player_name="pyglet") as net:
        me = net.share(Dot())

        def update(dt: float) -> None:
            for event in net.poll():
                print(event)
            me.x = (me.x + 100 * dt) % 640

        @window.event
        def on_draw() -> None:
            window.clear()
            for dot in net.all(Dot):
                pyglet.shapes.Circle(dot.x, dot.y, 12).draw()

        pyglet.clock.schedule_interval(update, 1 / 60)
        pyglet.clock.schedule_once(lambda dt: pyglet.app.exit(), seconds)
        pyglet.app.run()


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
