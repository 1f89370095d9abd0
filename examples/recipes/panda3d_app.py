"""panda3d: `python panda3d_app.py [URL] [SECONDS]`. A task polls; `sys.exit` inside it says goodbye, as every end does."""

import os
import sys

from direct.showbase.ShowBase import ShowBase
from direct.task import Task

from psyne_mesh import sync


class Dot(sync.Shared):
    x: float = sync.smooth(0.0)


class Game(ShowBase):
    def __init__(self, net: sync.Room, seconds: float) -> None:
        super().__init__(windowType=os.environ.get("PANDA_WINDOW"))
        self.net, self.mine, self.seconds = net, net.share(Dot()), seconds
        self.models = {}
        self.taskMgr.add(self.update, "network")

    def update(self, task: Task.Task) -> int:
        for event in self.net.poll():
            print(event)
        self.mine.x = task.time % 10
        for dot in self.net.all(Dot):
            if dot not in self.models:
                self.models[dot] = self.render.attachNewNode(dot.owner.name)
            self.models[dot].setPos(dot.x, 10, 0)
        if task.time > self.seconds:
            sys.exit()
        return Task.cont


def main(url: str = "ws://127.0.0.1:8080", seconds: float = 1e9) -> None:
    with sync.join_game_room("recipes", signaling=url, player_name="panda3d") as net:
        Game(net, seconds).run()


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
