"""Players without a person: `python -m examples.arena.bots URL ROOM NAME...`; also the autopilot of pictures."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time

from examples.arena.online import Online
from examples.arena.world import Chat, Inputs, Kill, World, blocked
from psyne_mesh import sync

FPS = 60


class Bot:
    """Goes to places, shoots at the nearest, and misses some."""

    def __init__(self, world: World) -> None:
        self.world, self.goal, self.wobble = world, world.free_place(), 0.0

    def inputs(self) -> Inputs:
        me, rng = self.world.me, self.world.rng
        if math.dist((me.x, me.y), self.goal) < 40 or rng.random() < 0.008:
            self.goal = self.world.free_place()
        angle = math.atan2(self.goal[1] - me.y, self.goal[0] - me.x)
        ways = [angle + turn for turn in (0.0, 0.7, -0.7, 1.5, -1.5, 2.4)]  # round walls
        angle = next((a for a in ways if not blocked(me.x + 50 * math.cos(a), me.y + 50 * math.sin(a), 20)), angle)
        self.wobble += rng.uniform(-0.05, 0.05) - 0.02 * self.wobble
        foes = [ship for ship in self.world.ships if not ship.is_mine and ship.hp > 0 and not ship.paused]
        if not foes:
            return Inputs(math.cos(angle), math.sin(angle), angle)
        distance, foe = min((math.dist((ship.x, ship.y), (me.x, me.y)), n) for n, ship in enumerate(foes))
        aim = math.atan2(foes[foe].y - me.y, foes[foe].x - me.x) + self.wobble
        return Inputs(math.cos(angle), math.sin(angle), aim, distance < 520 and rng.random() < 0.2)


def play_frame(online: Online, inputs: Inputs, dt: float) -> None:
    """One frame of anybody: the network first, then the rules, then what they made us do."""
    online.frame()
    world = online.world
    if (shot := world.move(inputs, dt)) is not None:
        world.fly(shot, online.ship.owner.id)
        online.shots.send(shot)
    if world.hit_by:
        world.killed(online.ship.owner.name, Kill(world.hit_by))
        online.kills.send(Kill(world.hit_by))


def main(url: str, room: str, *names: str) -> None:
    over = threading.Event()  # whoever started us closes our input

    def until_closed() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=until_closed, daemon=True).start()
    with contextlib.ExitStack() as stack:
        players: list[Online] = []
        for name in names:
            net = stack.enter_context(sync.join_game_room(room, max_players=8, signaling=url, player_name=name))
            players.append(Online(net, World(name, time.time())))
        bots = [Bot(online.world) for online in players]
        players[0].say(Chat("catch me"))
        while not over.wait(1 / FPS):
            for online, bot in zip(players, bots, strict=True):
                play_frame(online, bot.inputs(), 1 / FPS)


if __name__ == "__main__":
    main(*sys.argv[1:])
