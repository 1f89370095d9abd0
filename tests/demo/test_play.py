"""The arena: small enough to read, and playable: a window's frames without a window, with bots, over real links."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from examples.arena.online import Online
from examples.arena.world import World
from psyne_mesh import sync
from tests.room.players import LOOPBACK
from tests.sync.frames import until

ROOT = Path(__file__).resolve().parents[2]
ARENA = ROOT / "examples" / "arena"


def test_it_fits_in_400_lines_of_which_less_than_40_talk_to_the_network() -> None:
    lines = {path.name: path.read_text(encoding="utf-8").splitlines() for path in ARENA.glob("*.py")}
    assert sum(sum(map(bool, map(str.strip, text))) for text in lines.values()) <= 400
    assert sum(map(bool, map(str.strip, lines["online.py"]))) < 40
    entrances = ("join_game_room", ".poll()", "net.channel(", "net.share(", "net.pause(", "net.host")
    talking = [name for name, text in lines.items() if any(each in line for line in text for each in entrances)]
    assert sorted(talking) == ["bots.py", "online.py"]  # bots enter by themselves


@pytest.mark.slow
def test_the_host_wears_the_crown_and_who_pauses_is_away() -> None:
    with sync.open_server(port=0) as server, contextlib.ExitStack() as stack:
        ada, bob = [
            Online(
                stack.enter_context(sync.join_game_room("a", signaling=server.url, config=LOOPBACK, player_name=name)),
                World(name, 0),
            )
            for name in ("ada", "bob")
        ]

        def frame() -> None:
            ada.frame()
            bob.frame()

        until(
            lambda: ada.world.host is not None and ada.world.host.id == getattr(bob.world.host, "id", ""),
            each_frame=frame,
        )
        ada.pause()
        until(lambda: [peer.away for peer in bob.net.peers.values()] == ["paused"], each_frame=frame)
        until(lambda: [ship.paused for ship in bob.world.ships if not ship.is_mine] == [True], each_frame=frame)
        ada.pause()
        until(lambda: [peer.away for peer in bob.net.peers.values()] == [None], each_frame=frame)
        bob.pause()  # and the window is closed


@pytest.mark.slow
def test_a_game_with_bots_is_played_and_pictured(tmp_path: Path) -> None:
    pygame = pytest.importorskip("pygame", reason="the arena needs the extra `play`")
    pytest.importorskip("PIL", reason="animated pictures need Pillow")
    still, moving = tmp_path / "arena.png", tmp_path / "arena.gif"
    done = subprocess.run(
        [sys.executable, "-m", "psyne_mesh.cli", "play", "--headless", "--bots", "2", "--seconds", "10", "--name", "you",
         "--screenshot", still, "--animation", moving],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    picture = pygame.image.load(still)
    assert picture.get_size() == (1280, 720)
    colours = {tuple(picture.get_at((x, y))) for x in range(0, 1280, 2) for y in range(0, 720, 2)}
    assert len(colours) > 300  # ships glow; an empty arena has a dozen
    assert moving.read_bytes()[:4] == b"GIF8"


def test_it_is_a_picture_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "docs/arena.gif" in text
    assert "docs/arena.png" in text
    assert (ROOT / "docs" / "arena.gif").stat().st_size < 1.5e6
