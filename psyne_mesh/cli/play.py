"""`psyne-mesh play`: the arena of examples/, with a signaling server and bots of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from psyne_mesh.cli.terminal import plain
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.sync import join_game_room, open_server

PLAYERS_MAX = 8
BOTS = ("Ada", "Blaise", "Charles", "Dorothy", "Edsger", "Frances", "Grace")
# Of an animated picture: short enough to load with a page.
ANIMATION_S = 6
ANIMATION_HZ = 12
ANIMATION_SIZE = (640, 360)


def run_play(
    name: str | None, signaling: str | None, room: str, bots: int | None, seconds: float | None, headless: bool,
    screenshot: Path | None, animation: Path | None,
) -> None:  # fmt: skip
    if find_spec("pygame") is None:
        raise InvalidConfig("the arena needs pygame-ce: pip install 'psyne-mesh[play]', or python3 run.py play")
    if headless:
        os.environ |= {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from examples.arena.game import play

    name = name or _user()
    with contextlib.ExitStack() as stack:
        url = signaling or stack.enter_context(open_server(port=0)).url
        stack.enter_context(_bots(url, room, BOTS[: (0 if signaling else 3) if bots is None else bots]))
        net = stack.enter_context(join_game_room(room, max_players=PLAYERS_MAX, signaling=url, player_name=name))
        Console().print(f"arena on {plain(url)}; another window: psyne-mesh play --signaling {plain(url)}")
        pictures = Pictures(animation) if animation is not None else None
        last = play(net, name, seconds=seconds, autopilot=headless, each_frame=pictures)
    if screenshot is not None:
        import pygame

        pygame.image.save(last, screenshot)
    if pictures is not None:
        pictures.save()


@contextlib.contextmanager
def _bots(url: str, room: str, names: tuple[str, ...]) -> Iterator[None]:
    """In a process of their own, so that they do not slow the window down."""
    if not names:
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.arena.bots", url, room, *names], stdin=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()  # then they say goodbye, and end
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


class Pictures:
    """The last seconds of the game, as an animated picture: called with the screen after each frame."""

    def __init__(self, path: Path) -> None:
        if find_spec("PIL") is None:
            raise InvalidConfig("--animation needs Pillow: pip install pillow")
        self._path = path
        self._frames: list[Any] = []
        self._due = 0.0

    def __call__(self, screen: Any, now: float) -> None:
        import pygame

        if now >= self._due:
            self._due = now + 1 / ANIMATION_HZ
            self._frames = [
                *self._frames[1 - ANIMATION_S * ANIMATION_HZ :],
                pygame.transform.smoothscale(screen, ANIMATION_SIZE),
            ]

    def save(self) -> None:
        import pygame
        from PIL import Image

        if not self._frames:
            raise InvalidConfig("no frame was shown: --seconds is too short for a picture")
        images = [Image.frombytes("RGB", each.get_size(), pygame.image.tobytes(each, "RGB")) for each in self._frames]
        palette = images[-1].quantize(96)
        small = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        small[0].save(self._path, save_all=True, append_images=small[1:], duration=1000 // ANIMATION_HZ, loop=0)


def _user() -> str:
    try:
        return getpass.getuser()[:14]
    except (OSError, KeyError):  # no entry for this user
        return "you"
