"""One room, four ways in: a desktop window, two browser tabs and a terminal. The README's picture is what this test saw:

PSYNE_PICTURE=docs/one-room.png python3 run.py test tests/browser/test_picture.py -m slow
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.signaling.server import open_server
from tests.browser.chromium import Devtools, open_chromium, open_tab
from tests.browser.test_arena_in_chromium import play_in, until
from tests.interop.browser_peer import find_browser
from tests.room.players import LOOPBACK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.interop,
    pytest.mark.skipif(find_browser("chromium") is None, reason="chromium is not installed: .ci/install-browsers"),
]
ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT, GAP, BAR = 960, 540, 24, 30
# The thumbs of nobody: each tab flies in circles and fires now and then.
PILOT = """
setInterval(() => {
  const code = ["KeyW", "KeyD", "KeyS", "KeyA"][Math.floor(performance.now() / 900 + %d) %% 4];
  for (const each of ["KeyW", "KeyD", "KeyS", "KeyA"])
    dispatchEvent(new KeyboardEvent(each === code ? "keydown" : "keyup", { code: each }));
  dispatchEvent(new KeyboardEvent(Math.random() < 0.5 ? "keydown" : "keyup", { code: "Space" }));
}, 200);
"""


@asynccontextmanager
async def desktop(url: str, picture: Path) -> AsyncIterator[trio.Process]:
    """A desktop window without a screen: it plays for half a minute, and keeps its last frame."""
    command = [sys.executable, "-m", "psyne_mesh.cli", "play", "--name", "desktop", "--signaling", url, "--headless",
               "--seconds", "30", "--screenshot", str(picture)]  # fmt: skip
    process = await trio.lowlevel.open_process(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def terminal(url: str) -> AsyncIterator[list[str]]:
    """What `psyne-mesh join` says, line by line."""
    command = [
        sys.executable,
        "-m",
        "psyne_mesh.cli",
        "join",
        "arena",
        "--name",
        "terminal",
        "--signaling",
        url,
        "--max-players",
        "8",
    ]
    said: list[str] = []
    process = await trio.lowlevel.open_process(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"COLUMNS": "96", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip

    async def read() -> None:
        buffer = b""
        assert process.stdout is not None
        while more := await process.stdout.receive_some():
            *lines, buffer = (buffer + more).split(b"\n")
            said.extend(line.decode(errors="replace").rstrip() for line in lines)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        try:
            yield said
        finally:
            process.kill()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await process.wait()


async def shot_of(tab: Devtools) -> bytes:
    await tab.call("Page.bringToFront")
    await trio.sleep(0.6)
    return base64.b64decode((await tab.call("Page.captureScreenshot", format="png"))["data"])


async def test_a_window_two_tabs_and_a_terminal_are_in_one_room(tmp_path: Path) -> None:
    pytest.importorskip("pygame", reason="the arena needs the extra `play`")
    shots: dict[str, Any] = {}
    with trio.fail_after(180):
        async with open_server(port=0) as server, open_chromium(f"--window-size={WIDTH},{HEIGHT}") as home:
            page = "http" + server.url.removeprefix("ws") + "/app/?room=arena"
            async with (
                join_game_room("arena", signaling=server.url, max_players=8, player_name="counter", config=LOOPBACK) as room,
                open_tab(home, page) as one, open_tab(home, page) as two, terminal(server.url) as said,
            ):  # fmt: skip
                for number, tab in enumerate((one, two)):
                    size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
                    await tab.call("Emulation.setDeviceMetricsOverride", **size)
                    await tab.call("Page.bringToFront")
                    await play_in(tab, f"tab {number + 1}")
                    await tab.value(PILOT % number)
                async with desktop(server.url, tmp_path / "window.png") as process:
                    names = {"tab 1", "tab 2", "terminal", "desktop"}
                    await until(lambda: names <= {peer.name for peer in room.connected})
                    for tab in (one, two):  # each of the tabs reaches all, the counter too
                        await tab.call("Page.bringToFront")
                        await tab.until(
                            "[...globalThis.room.peers.values()].filter((peer) => peer.connected || peer.relayed).length >= 4"
                        )
                        await tab.value("document.querySelector('#graph').hidden = false")
                    await trio.sleep(1.5)
                    shots["browser tab"] = await shot_of(one)
                    shots["another tab"] = await shot_of(two)
                    await process.wait()
                assert (tmp_path / "window.png").exists()
                seen = "\n".join(said)
                assert all(name in seen for name in ("tab 1", "tab 2", "desktop")), seen
    if (path := os.environ.get("PSYNE_PICTURE")) is not None:
        compose(Path(path), (tmp_path / "window.png").read_bytes(), shots, said)


def compose(path: Path, window: bytes, shots: dict[str, bytes], said: list[str]) -> None:
    """Four frames with titles, two by two."""
    import io

    import pygame

    pygame.font.init()
    font, mono = pygame.font.Font(None, 24), pygame.font.SysFont("dejavusansmono,monospace", 15)
    whole = pygame.Surface((2 * WIDTH + 3 * GAP, 2 * (HEIGHT + BAR) + 3 * GAP))
    whole.fill((28, 32, 48))
    frames = {"desktop window (pygame)": window, **shots, "terminal": None}
    for number, (title, picture) in enumerate(frames.items()):
        x, y = GAP + number % 2 * (WIDTH + GAP), GAP + number // 2 * (HEIGHT + BAR + GAP)
        pygame.draw.rect(whole, (56, 64, 96), (x, y, WIDTH, BAR), border_top_left_radius=8, border_top_right_radius=8)
        whole.blit(font.render(title, True, (226, 232, 250)), (x + 12, y + 7))
        area = pygame.Surface((WIDTH, HEIGHT))
        area.fill((10, 12, 22))
        if picture is not None:
            area = pygame.transform.smoothscale(pygame.image.load(io.BytesIO(picture)), (WIDTH, HEIGHT))
        for row, line in enumerate(said[-26:] if picture is None else ()):
            area.blit(mono.render(line[:104], True, (178, 255, 190)), (14, 12 + 20 * row))
        whole.blit(area, (x, y + BAR))
    pygame.image.save(
        pygame.transform.smoothscale(whole, (whole.get_width() * 2 // 3, whole.get_height() * 2 // 3)), path
    )
