"""The loop: keys and mouse in, frames out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pygame

from examples.arena.bots import FPS, Bot, play_frame
from examples.arena.online import Online
from examples.arena.view import View
from examples.arena.world import Chat, Inputs, World
from psyne_mesh import sync


def play(
    net: sync.Room, name: str, seconds: float | None = None, autopilot: bool = False,
    each_frame: Callable[[pygame.Surface, float], object] | None = None,
) -> pygame.Surface:  # fmt: skip
    """Until the window is closed, or `seconds` are over; the last picture."""
    pygame.init()
    clock, view, world = pygame.time.Clock(), View(), World(name, time.time())
    online, pilot, typing = Online(net, world), Bot(world), None
    began, dt, view.graph = time.monotonic(), 1 / FPS, autopilot
    while seconds is None or time.monotonic() - began < seconds:
        for event in pygame.event.get():
            if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE):
                return view.screen
            if event.type == pygame.KEYDOWN:
                typing = key(event, typing, online, view)
        still = Inputs(aim=world.me.angle)
        play_frame(online, pilot.inputs() if autopilot else still if typing is not None else pressed(world), dt)
        view.draw(world, net, typing, dt)
        if each_frame is not None:
            each_frame(view.screen, time.monotonic())
        dt = min(0.05, clock.tick(FPS) / 1000)
    return view.screen


def key(event: pygame.Event, typing: str | None, online: Online, view: View) -> str | None:
    """What one key does; and what is being typed after it."""
    if typing is None:
        view.graph ^= event.key == pygame.K_F3
        if event.key == pygame.K_p:
            online.pause()
        return "" if event.key == pygame.K_RETURN else None
    if event.key == pygame.K_BACKSPACE:
        return typing[:-1]
    if event.key != pygame.K_RETURN:
        return f"{typing}{event.unicode}"[:80]
    if typing:
        online.say(Chat(typing))
    return None


def pressed(world: World) -> Inputs:
    keys, (x, y) = pygame.key.get_pressed(), pygame.mouse.get_pos()
    right, left = keys[pygame.K_d] or keys[pygame.K_RIGHT], keys[pygame.K_a] or keys[pygame.K_LEFT]
    down, up = keys[pygame.K_s] or keys[pygame.K_DOWN], keys[pygame.K_w] or keys[pygame.K_UP]
    aim = math.atan2(y - world.me.y, x - world.me.x)
    return Inputs(right - left, down - up, aim, pygame.mouse.get_pressed()[0] or keys[pygame.K_SPACE])
