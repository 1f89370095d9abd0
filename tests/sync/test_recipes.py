"""The recipes, each run as its users would, without a window: others see the player, what it shares, and that it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from psyne_mesh import sync
from tests.sync.frames import until

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.py"))
NEEDS = {
    "arcade_window": "arcade", "panda3d_app": "panda3d", "plain_loop": "psyne_mesh", "pygame_window": "pygame",
    "pyglet_window": "pyglet", "textual_chat": "textual", "trio_guest": "trio", "ursina_app": "ursina",
}  # fmt: skip
HEADLESS = {
    "SDL_VIDEODRIVER": "dummy", "ARCADE_HEADLESS": "True", "PYGLET_HEADLESS": "1", "PANDA_WINDOW": "none", "TERM": "xterm",
}  # fmt: skip


class Dot(sync.Shared):
    x: float = sync.smooth(0.0)


def test_each_fits_on_a_screen() -> None:
    assert {path.stem for path in RECIPES} == set(NEEDS)
    for path in RECIPES:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        assert len(lines) <= 40, path.name


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_plays_and_leaves(recipe: Path, url: str) -> None:
    if find_spec(NEEDS[recipe.stem]) is None:
        pytest.skip(f"{NEEDS[recipe.stem]} is not installed: the recipe is for those who have it")
    with sync.join_game_room("recipes", signaling=url, player_name="watcher") as net:
        reasons: list[str] = []
        seen: set[float] = set()
        came: list[Any] = []
        net.on_peer_connected(came.append)
        net.on_peer_left(lambda peer, reason: reasons.append(reason))
        environment = os.environ | HEADLESS | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        game = subprocess.Popen(
            [sys.executable, str(recipe), url, "2.5"], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

        def frame() -> None:
            seen.update(dot.x for dot in net.all(Dot))
            assert reasons or game.poll() in (None, 0), game.communicate()[1]

        until(lambda: reasons, net, each_frame=frame)
        _, errors = game.communicate(timeout=30)
        assert game.returncode == 0, errors
    assert reasons == ["left"]
    assert came
    if recipe.stem == "textual_chat":
        assert not seen
    elif recipe.stem != "pygame_window":  # without a window the mouse stands still
        assert len(seen) > 5
