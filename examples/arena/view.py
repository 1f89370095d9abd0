"""What is seen: ships, bullets, sparks, scores, chat, and the network graph (F3)."""

from __future__ import annotations

import colorsys
import math
import random
from collections import defaultdict, deque
from itertools import pairwise
from typing import Any

import pygame

from examples.arena.world import BULLET_S, HEIGHT, RADIUS, WALLS, WIDTH, Ship, World
from psyne_mesh import sync

BACK, GRID, WALL, EDGE = (10, 12, 22), (20, 25, 42), (38, 46, 74), (86, 104, 160)
TEXT, DIM = (226, 232, 250), (136, 146, 178)
KEYS = "WASD move   mouse aim and fire   Enter chat   P pause   F3 network"


def colour_of(owner: str, light: float = 1.0) -> tuple[int, int, int]:
    r, g, b = colorsys.hls_to_rgb(int(owner[:6], 16) % 24 / 24, 0.62, 0.85)
    return int(255 * r * light), int(255 * g * light), int(255 * b * light)


class View:
    def __init__(self) -> None:
        self.screen, self.graph, self.graph_due = pygame.display.set_mode((WIDTH, HEIGHT)), False, 0.0
        pygame.display.set_caption("psyne-mesh arena")
        self.small, self.font, self.big = (pygame.font.Font(None, size) for size in (19, 23, 64))
        self.glows: dict[tuple[str, int], pygame.Surface] = {}
        self.particles: list[list[Any]] = []
        self.trips: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=60))
        self.rows: list[tuple[str, str, str]] = []
        self.back = pygame.Surface((WIDTH, HEIGHT))
        self.back.fill(BACK)
        for at in range(0, WIDTH, 40):
            pygame.draw.line(self.back, GRID, (at, 0), (at, HEIGHT))
            pygame.draw.line(self.back, GRID, (0, at), (WIDTH, at))
        for wall in WALLS:
            pygame.draw.rect(self.back, (4, 5, 10), pygame.Rect(wall).move(5, 6), border_radius=6)
            pygame.draw.rect(self.back, WALL, wall, border_radius=6)
            pygame.draw.rect(self.back, EDGE, wall, width=2, border_radius=6)

    def draw(self, world: World, net: sync.Room, typing: str | None, dt: float) -> None:
        self.screen.blit(self.back, (0, 0))
        for bullet in world.bullets:
            tail = 26 * min(1.0, (BULLET_S - bullet.left) * 8)
            back = bullet.x - tail * math.cos(bullet.angle), bullet.y - tail * math.sin(bullet.angle)
            pygame.draw.line(self.screen, colour_of(bullet.owner, 0.6), back, (bullet.x, bullet.y), 3)
            self.glow((bullet.x, bullet.y), bullet.owner, 18)
            pygame.draw.circle(self.screen, (255, 255, 255), (bullet.x, bullet.y), 3)
        for ship in world.ships:
            self.draw_ship(ship, ship.owner == world.host)
        self.draw_sparks(world, dt)
        self.draw_scores(world.ships, world.host)
        for number, (line, said) in enumerate(reversed(world.lines)):
            fade = max(0.3, 1 - (world.now - said) / 12)
            self.write(line, (18, HEIGHT - 62 - 22 * number), (int(226 * fade), int(232 * fade), int(250 * fade)))
        self.write(KEYS if typing is None else f"say: {typing}_", (18, HEIGHT - 30), DIM if typing is None else TEXT)
        if world.me.hp <= 0 or world.me.paused:
            self.write("paused" if world.me.paused else "shot down", (WIDTH / 2, HEIGHT / 2 - 60), TEXT, self.big, 0.5)
        if self.graph:
            self.draw_graph(net, world.now)
        pygame.display.flip()

    def draw_ship(self, ship: Ship, is_host: bool) -> None:
        owner, (x, y) = ship.owner, (ship.x, ship.y)
        if ship.hp <= 0:
            pygame.draw.circle(self.screen, colour_of(owner.id, 0.3), (x, y), RADIUS, width=2)
            return
        self.glow((x, y), owner.id, 58)
        corners = [
            (ship.angle + turn, RADIUS * r) for turn, r in ((0, 1.45), (2.45, 1.15), (math.pi, 0.45), (-2.45, 1.15))
        ]
        hull = [(x + r * math.cos(a), y + r * math.sin(a)) for a, r in corners]
        pygame.draw.polygon(self.screen, colour_of(owner.id, 0.35 if ship.paused else 1.0), hull)
        pygame.draw.aalines(self.screen, (255, 255, 255), True, hull)
        left = (120, 255, 140) if ship.hp > 60 else (255, 210, 90) if ship.hp > 30 else (255, 90, 90)
        pygame.draw.rect(self.screen, (60, 20, 30), (x - 22, y - 36, 44, 4), border_radius=2)
        pygame.draw.rect(self.screen, left, (x - 22, y - 36, 44 * ship.hp / 100, 4), border_radius=2)
        name = owner.name + (" (away)" if ship.paused else "")
        width = self.write(name, (x, y - 56), TEXT if ship.is_mine else DIM, self.small, 0.5)
        if is_host:
            self.crown(x - 12 - width / 2, y - 51)

    def draw_sparks(self, world: World, dt: float) -> None:
        for x, y, owner, count in world.sparks:
            for _ in range(count):
                angle, speed = random.uniform(0, math.tau), random.uniform(30, 80 + 5 * count)
                self.particles.append([x, y, speed * math.cos(angle), speed * math.sin(angle), 0.7, owner])
        world.sparks.clear()
        for each in self.particles:
            each[0], each[1], each[4] = each[0] + each[2] * dt, each[1] + each[3] * dt, max(0.0, each[4] - dt)
            pygame.draw.circle(self.screen, colour_of(each[5], each[4] / 0.7), (each[0], each[1]), 2)
        self.particles = [each for each in self.particles if each[4] > 0]

    def draw_scores(self, ships: list[Ship], host: Any) -> None:
        self.panel(WIDTH - 232, 12, 220, 34 + 22 * len(ships))
        self.write("kills   deaths", (WIDTH - 118, 20), DIM, self.small)
        for row, ship in enumerate(sorted(ships, key=lambda ship: (-ship.kills, ship.deaths))):
            y = 42 + 22 * row
            pygame.draw.circle(self.screen, colour_of(ship.owner.id), (WIDTH - 216, y + 7), 5)
            self.write(ship.owner.name[:12], (WIDTH - 204, y), TEXT if ship.is_mine else DIM)
            self.write(str(ship.kills), (WIDTH - 90, y), TEXT, None, 1.0)
            self.write(str(ship.deaths), (WIDTH - 36, y), TEXT, None, 1.0)
            if ship.owner == host:
                self.crown(WIDTH - 124, y + 8)

    def draw_graph(self, net: sync.Room, now: float) -> None:
        if now >= self.graph_due:
            self.graph_due, self.rows = now + 0.25, [self.measured(peer) for peer in net.peers.values()]
        self.panel(12, 12, 560, 34 + 34 * len(self.rows))
        self.write("round trip    jitter     resent     path", (112, 20), DIM, self.small)
        for row, (peer_id, name, figures) in enumerate(self.rows):
            y, trips = 44 + 34 * row, self.trips[peer_id]
            self.write(name[:10], (24, y), colour_of(peer_id))
            self.write(figures, (112, y + 2), TEXT, self.small)
            points = [(410 + 2.5 * n, y + 22 - 22 * trip / max(5.0, *trips)) for n, trip in enumerate(trips)]
            if len(points) > 1:
                pygame.draw.aalines(self.screen, colour_of(peer_id), False, points)

    def measured(self, peer: Any) -> tuple[str, str, str]:
        stats, trips = peer.stats, self.trips[peer.id]
        trips.append(peer.rtt_ms or 0.0)
        jitter = sum(abs(a - b) for a, b in pairwise(trips)) / max(1, len(trips) - 1)
        sent = stats.stack.sctp if stats else None
        again = 100 * sent.retransmissions / max(1, sent.packets_sent) if sent else 0.0
        way = str(peer.path).partition(",")[0]
        return peer.id, peer.name, f"{trips[-1]:6.1f} ms   {jitter:5.1f} ms   {again:4.1f} %   {way}"

    def glow(self, at: tuple[float, float], owner: str, size: int) -> None:
        if (owner, size) not in self.glows:
            surface = self.glows[owner, size] = pygame.Surface((2 * size, 2 * size))
            for r in range(size, 0, -1):
                pygame.draw.circle(surface, colour_of(owner, 0.55 * (1 - r / size) ** 2), (size, size), r)
        self.screen.blit(self.glows[owner, size], (at[0] - size, at[1] - size), special_flags=pygame.BLEND_RGB_ADD)

    def crown(self, x: float, y: float) -> None:
        points = [(-7, 4), (-7, -4), (-3, 0), (0, -6), (3, 0), (7, -4), (7, 4)]
        pygame.draw.polygon(self.screen, (255, 205, 80), [(x + dx, y + dy) for dx, dy in points])

    def panel(self, x: int, y: int, width: int, height: int) -> None:
        shade = pygame.Surface((width, height), pygame.SRCALPHA)
        pygame.draw.rect(shade, (8, 10, 20, 190), (0, 0, width, height), border_radius=8)
        pygame.draw.rect(shade, (*EDGE, 120), (0, 0, width, height), width=1, border_radius=8)
        self.screen.blit(shade, (x, y))

    def write(
        self, text: str, at: tuple[float, float], colour: Any = TEXT, font: Any = None, left_of: float = 0
    ) -> int:
        drawn = (font or self.font).render(text, True, colour)
        self.screen.blit(drawn, (at[0] - left_of * drawn.get_width(), at[1]))
        return int(drawn.get_width())
