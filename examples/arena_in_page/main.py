"""The loop of `examples/arena/game.py`, but for its `await`: run by Pyodide, where `page.js` is the window."""

from __future__ import annotations

import asyncio
import json
import math
import time
import traceback
from importlib import import_module
from typing import Any

from examples.arena.bots import FPS, Bot, play_frame
from examples.arena.online import Online
from examples.arena.world import Chat, Inputs, World
from psyne_mesh import sync


async def play(window: Any, room: str, name: str, autopilot: bool) -> None:
    async with sync.join_game_room(room, max_players=8, player_name=name) as net:
        world, last = World(name, time.time()), time.monotonic()
        online, pilot = Online(net, world), Bot(world)
        while not window.closed:
            now = time.monotonic()
            play_frame(online, pilot.inputs() if autopilot else pressed(window, world), min(0.05, now - last))
            for text in json.loads(window.typed()):
                online.say(Chat(text))
            window.draw(json.dumps(picture(world)))
            last = now
            await asyncio.sleep(max(0.0, now + 1 / FPS - time.monotonic()))


def pressed(window: Any, world: World) -> Inputs:
    keys = json.loads(window.pressed())
    aim = math.atan2(keys["y"] - world.me.y, keys["x"] - world.me.x)
    return Inputs(keys["right"] - keys["left"], keys["down"] - keys["up"], aim, keys["fire"])


def picture(world: World) -> dict[str, Any]:
    ships = [
        {"x": ship.x, "y": ship.y, "angle": ship.angle, "hp": ship.hp, "name": ship.owner.name, "id": ship.owner.id}
        for ship in world.ships
    ]
    world.sparks.clear()
    bullets = [[each.x, each.y, each.owner] for each in world.bullets]
    return {"ships": ships, "bullets": bullets, "lines": [line for line, _ in world.lines]}


if __name__ == "__main__":
    page = import_module("js").arena
    playing = asyncio.ensure_future(play(page, str(page.room), str(page.name), bool(page.autopilot)))
    playing.add_done_callback(lambda done: page.ended("".join(traceback.format_exception(done.exception()))))
