"""pygame-ce: `python pygame_window.py [URL] [SECONDS]`. Move the mouse; close the window, and the others see you leave."""

import sys

import pygame

from psyne_mesh import sync


class Dot(sync.Shared):
    x: float = sync.smooth(0.0)
    y: float = sync.smooth(0.0)


def main(url: str = "ws://127.0.0.1:8080", seconds: float = 1e9) -> None:
    screen, clock = pygame.display.set_mode((640, 480)), pygame.time.Clock()
    with sync.join_game_room("recipes", signaling=url, player_name="pygame") as net:
        me = net.share(Dot())
        while pygame.time.get_ticks() < 1000 * seconds:
            if any(event.type == pygame.QUIT for event in pygame.event.get()):
                break
            for event in net.poll():
                print(event)
            me.x, me.y = pygame.mouse.get_pos()
            screen.fill("black")
            for dot in net.all(Dot):
                pygame.draw.circle(screen, "gold" if dot.is_mine else "skyblue", (dot.x, dot.y), 12)
            pygame.display.flip()
            clock.tick(60)
    pygame.quit()


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
