"""Every snippet of "Your first multiplayer game" does what the page says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from psyne_mesh import Identity, sync
from psyne_mesh.cli.app import app
from tests.room.players import LOOPBACK
from tests.sync.conftest import Join
from tests.sync.frames import meet, until

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "first-game.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)
SNIPPETS = {code.split("\n", 1)[0].removeprefix("# "): code for kind, code in BLOCKS if kind == "python"}
COMMANDS = [line for kind, code in BLOCKS if not kind for line in code.splitlines()]


def run(name: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "pasted"}
    exec(SNIPPETS[name], names)  # noqa: S102 - our own page
    return names


class Ship(sync.Shared):
    x: float = sync.smooth(320.0)
    y: float = sync.smooth(240.0)


def test_every_snippet_has_a_test() -> None:
    assert set(SNIPPETS) == {"game.py", "shots.py", "events.py", "identity.py", "online.py"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole consoles only")
def test_two_windows_see_each_other(url: str, tmp_path: Path) -> None:
    pytest.importorskip("pygame", reason="the page's game needs pygame-ce")
    program = tmp_path / "game.py"
    program.write_text(
        SNIPPETS["game.py"].replace("max_players=8", f"max_players=8, signaling={url!r}"), encoding="utf-8"
    )
    talking = re.findall(r".*(?:sync\.|net\.|me\.[xy] ).*", SNIPPETS["game.py"])
    assert len([line for line in talking if "import" not in line]) <= 12  # the glue of a pygame program
    with sync.join_game_room("my-first-game", signaling=url) as net:
        windows = [
            subprocess.Popen(
                [sys.executable, program], env=os.environ | {"SDL_VIDEODRIVER": "dummy"}, stderr=-1, text=True
            )
            for _ in range(2)
        ]
        reasons: list[str] = []
        net.on_peer_left(lambda peer, reason: reasons.append(reason))
        until(lambda: len(list(net.all(Ship))) == 2 and len(net.connected) == 2, net)
        for window in windows:
            window.send_signal(signal.SIGINT)
        until(lambda: len(reasons) == 2, net)
        assert reasons == ["left", "left"]
        for window in windows:
            window.communicate(timeout=30)


def test_messages_and_events(join: Join) -> None:
    shots, events = run("shots.py"), run("events.py")
    hits: list[tuple[str, int]] = []
    said: list[str] = []
    with join("ada") as ada:
        with join("bob") as bob:
            meet(bob)
            bob.wait_connected(1)
            ada.wait_connected(1)
            events["watch"](ada, said.append)

            def hit(name: str, power: int) -> None:
                hits.append((name, power))

            shots["play_frame"](bob, True, hit)
            until(lambda: hits, ada, bob, each_frame=lambda: shots["play_frame"](ada, False, hit))
            assert hits == [("bob", 1)]
        until(lambda: len(said) == 2, ada)
        assert said[0].startswith("bob is here, direct")
        assert said[1] == "bob is gone: left"


def test_the_identity_is_kept(tmp_path: Path) -> None:
    me = run("identity.py")["who_am_i"](tmp_path / "game")
    assert isinstance(me, Identity)
    assert (tmp_path / "game" / "player.key").exists()


def test_the_configuration_for_the_internet(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("online.py")
    config = names["CONFIG"]
    assert [server.host for server in config.stun_servers] == ["stun.example.net"]
    assert [(server.host, server.port) for server in config.turn_servers] == [("turn.example.net", 443)]
    names["CONFIG"] = LOOPBACK
    with names["enter"](url, "ada") as net:
        assert net.player.name == "ada"


def test_the_commands_have_these_options() -> None:
    assert len(COMMANDS) == 7
    for line in re.findall(r"psyne-mesh (serve|doctor)((?: --\w+ \S+)*)", PAGE):
        shown = CliRunner().invoke(app, [line[0], "--help"], env={"COLUMNS": "200"}).output
        assert all(option in shown for option in re.findall(r"--\w+", line[1])), line


@pytest.mark.slow
@pytest.mark.timeout(900)  # PyInstaller walks through everything that is installed
def test_a_packaged_program_runs(url: str, tmp_path: Path) -> None:
    if find_spec("PyInstaller") is None:
        pytest.skip("PyInstaller is not installed: only who packages a game needs it")
    program = tmp_path / "game.py"
    shutil.copy(Path(__file__).resolve().parents[2] / "examples" / "recipes" / "plain_loop.py", program)
    (command,) = [line.split("pyinstaller ")[1] for line in COMMANDS if "--hidden-import" in line]
    subprocess.run(
        [sys.executable, "-m", "PyInstaller", *command.split()], cwd=tmp_path, check=True, capture_output=True
    )
    done = subprocess.run(
        [tmp_path / "dist" / "game", url, "1"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "plain" in done.stdout
