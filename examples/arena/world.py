"""The rules: ships, walls, bullets. Each player moves its own ship, and says itself when it is hit."""

from __future__ import annotations

import math
import random
from typing import Any

from psyne_mesh import sync

WIDTH, HEIGHT, RADIUS = 1280, 720, 16
SPEED, BULLET_SPEED, BULLET_S, RELOAD_S, DAMAGE, RESPAWN_S = 250.0, 640.0, 1.1, 0.22, 20, 2.0
WALLS = [(250, 150, 28, 200), (250, 520, 220, 28), (610, 330, 60, 60), (810, 170, 220, 28), (1000, 380, 28, 200)]


class Ship(sync.Shared):
    x: float = sync.smooth(0.0, snap=150.0)
    y: float = sync.smooth(0.0, snap=150.0)
    angle: float = sync.smooth(0.0, wrap=math.tau, bits=10, low=-math.pi, high=math.pi)
    hp: int = 100
    kills: int = 0
    deaths: int = 0
    paused: bool = False


class Shot(sync.Message):
    x: float
    y: float
    angle: float


class Kill(sync.Message):
    by: str


class Chat(sync.Message):
    text: str


class Bullet:
    def __init__(self, shot: Shot, owner: str) -> None:
        self.x, self.y, self.angle, self.owner, self.left = shot.x, shot.y, shot.angle, owner, BULLET_S


class Inputs:
    """What a player or a bot wants in one frame: a direction, where to aim, whether to fire."""

    def __init__(self, dx: float = 0.0, dy: float = 0.0, aim: float = 0.0, fire: bool = False) -> None:
        self.dx, self.dy, self.aim, self.fire = dx, dy, aim, fire


class World:
    def __init__(self, name: str, now: float) -> None:
        self.rng, self.me, self.now = random.Random(name), Ship(), now
        self.ships: list[Ship] = []
        self.host: Any = None  # the player whose ship wears the crown
        self.bullets: list[Bullet] = []
        self.lines: list[tuple[str, float]] = []  # chat and news, with when they were said
        self.sparks: list[tuple[float, float, str, int]] = []  # where, whose colour, how many: for the view
        self.reload, self.dead, self.hit_by = 0.0, 0.0, ""
        self.spawn()

    def spawn(self) -> None:
        self.dead, self.me.hp, (self.me.x, self.me.y) = 0.0, 100, self.free_place()

    def free_place(self) -> tuple[float, float]:
        while True:
            x, y = self.rng.uniform(60, WIDTH - 60), self.rng.uniform(60, HEIGHT - 60)
            if not blocked(x, y, 3 * RADIUS):
                return x, y

    def say(self, line: str) -> None:
        self.lines = [each for each in self.lines[-6:] if self.now - each[1] < 20] + [(line, self.now)]

    def fly(self, shot: Shot, owner: str) -> None:
        self.bullets.append(Bullet(shot, owner))

    def killed(self, name: str, kill: Kill) -> None:
        for ship in self.ships:
            if ship.owner.id == kill.by:
                ship.kills += ship.is_mine
                self.say(f"{ship.owner.name} > {name}")

    def move(self, inputs: Inputs, dt: float) -> Shot | None:
        """One frame of our ship and all bullets: the shot that it fires. `hit_by` is who has just shot us down."""
        self.now, self.reload, self.hit_by, me = self.now + dt, max(0.0, self.reload - dt), "", self.me
        self.fly_on(dt)
        self.dead = self.dead + dt if me.hp <= 0 else 0.0
        if self.dead > RESPAWN_S:
            self.spawn()
        if me.hp <= 0 or me.paused:
            return None
        length = math.hypot(inputs.dx, inputs.dy) or 1.0
        x, y = me.x + SPEED * dt * inputs.dx / length, me.y + SPEED * dt * inputs.dy / length
        me.x = me.x if blocked(x, me.y, RADIUS) else x
        me.y = me.y if blocked(me.x, y, RADIUS) else y
        me.angle = math.remainder(inputs.aim, math.tau)
        if not inputs.fire or self.reload > 0:
            return None
        self.reload = RELOAD_S
        return Shot(me.x + 20 * math.cos(me.angle), me.y + 20 * math.sin(me.angle), me.angle)

    def fly_on(self, dt: float) -> None:
        for bullet in self.bullets:
            bullet.left -= dt
            bullet.x += BULLET_SPEED * dt * math.cos(bullet.angle)
            bullet.y += BULLET_SPEED * dt * math.sin(bullet.angle)
            for ship in self.ships:
                near = math.dist((ship.x, ship.y), (bullet.x, bullet.y)) < RADIUS + 4
                if near and ship.owner.id != bullet.owner and ship.hp > 0 and not ship.paused:
                    bullet.left = 0.0
                    self.sparks.append((bullet.x, bullet.y, ship.owner.id, 40 if ship.hp <= DAMAGE else 12))
                    if ship.is_mine:
                        ship.hp = max(0, ship.hp - DAMAGE)
                        ship.deaths += ship.hp == 0
                        self.hit_by = "" if ship.hp else bullet.owner
            if bullet.left > 0 and blocked(bullet.x, bullet.y, 2):
                bullet.left = 0.0
                self.sparks.append((bullet.x, bullet.y, bullet.owner, 8))
        self.bullets = [bullet for bullet in self.bullets if bullet.left > 0]


def blocked(x: float, y: float, r: float) -> bool:
    inside = r <= x <= WIDTH - r and r <= y <= HEIGHT - r
    return not inside or any(wx - r < x < wx + w + r and wy - r < y < wy + h + r for wx, wy, w, h in WALLS)
