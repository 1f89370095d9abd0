"""The main job, as a newcomer runs it: real processes, real sockets, the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from psyne_mesh.cli import demo
from psyne_mesh.cli.demo import Seat, run_demo, run_player
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.signaling.server import open_server

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.parametrize("players", [2, 4, 8])
def test_the_demo_keeps_its_promises(players: int) -> None:
    done = run("-m", "psyne_mesh.cli", "demo", "--players", str(players), "--seconds", "3", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ok"]
    assert result["players"] == players
    assert result["links_open"] == result["links_expected"] == players * (players - 1) // 2
    assert result["mesh_seconds"] > 0
    position, combat = result["channels"]["position"], result["channels"]["combat"]
    assert position["sent"] > 0
    assert (position["delivered_fraction"] >= 0.99) is not result[
        "thinned"
    ]  # thinned where the processors do not suffice
    assert combat["delivered_fraction"] == 1
    assert combat["out_of_order"] == 0
    for figures in (position, combat):
        assert 0 < figures["latency_ms_p50"] <= figures["latency_ms_p99"]
    assert result["errors"] == []


def test_the_demo_without_json_ends_with_a_verdict() -> None:
    done = run("-m", "psyne_mesh.cli", "demo", "--players", "2", "--seconds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "PASS"


@pytest.mark.parametrize("place", ["none/picture.svg", "file/picture.svg", "folder"])
async def test_a_picture_that_cannot_be_written_is_told_before_anybody_plays(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_play", lambda *_: pytest.fail("played"))
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidConfig, match=f"{place} cannot be written: "):
        await run_demo(2, 1, True, tmp_path / place)


async def test_the_picture_of_an_earlier_run_stays_until_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "demo.svg"
    picture.write_text("old")

    async def play(*_: object) -> None:
        assert picture.read_text() == "old"
        raise demo.DemoFailed("enough seen")

    monkeypatch.setattr(demo, "_play", play)
    assert await run_demo(2, 1, True, picture) == 1
    assert "enough seen" in picture.read_text().replace("&#160;", " ")


@asynccontextmanager
async def playing(names: list[str]) -> AsyncIterator[list[Seat]]:
    """Player processes in one room, connected and sending; the server's nursery owns them."""
    async with open_server("127.0.0.1", 0) as server, trio.open_nursery() as nursery:
        seats = [Seat(name) for name in names]
        for number, seat in enumerate(seats):
            await nursery.start(run_player, seat, number, len(seats), server.url)
        for word, reached in (("join", "ready"), ("play", "mesh")):
            for seat in seats:
                await seat.until(reached)
            for seat in seats:
                await seat.tell(word)
        yield seats
        nursery.cancel_scope.cancel()


async def test_a_killed_player_is_gone_once_and_the_others_play_on() -> None:
    with trio.fail_after(100):
        async with playing(["ada", "bob", "cid", "dan"]) as (victim, *others):
            assert victim.process is not None
            victim.process.kill()
            for seat in others:
                gone = await seat.until("gone")
                assert (gone["who"], gone["why"]) == ("ada", "timeout")
            before = {seat.name: seat.reached["status"]["positions_in"] for seat in others}
            for seat in others:
                while seat.reached["status"]["positions_in"] <= before[seat.name]:
                    await seat.changed.wait()
                await seat.tell("stop")
            for seat in others:
                assert (await seat.until("final"))["left"] == [["ada", "timeout"]]


async def test_a_player_that_leaves_is_gone_at_once() -> None:
    with trio.fail_after(100):
        async with playing(["ada", "bob"]) as (leaver, other):
            await leaver.tell("stop")
            await leaver.until("final")
            await leaver.tell("leave")
            gone: dict[str, Any] = await other.until("gone")
            assert (gone["who"], gone["why"]) == ("ada", "left")


@pytest.mark.parametrize(
    ("example", "roles", "wanted"),
    [
        ("simple.py", ["offerer", "answerer"], ["came back unchanged", "answerer: done"]),
        ("p2p_demo.py", ["player1", "player2"], ["player1: saw", "player2: saw"]),
    ],
)
async def test_the_examples_run_in_two_terminals(example: str, roles: list[str], wanted: list[str]) -> None:
    assert len((ROOT / "examples" / example).read_text(encoding="utf-8").splitlines()) < 80
    seconds = ["--seconds", "2"] if example == "p2p_demo.py" else []
    outputs: dict[str, str] = {}

    async def terminal(role: str, signaling: str) -> None:
        command = [sys.executable, f"examples/{example}", role, *seconds, "--signaling", signaling]
        done = await trio.run_process(command, cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False)
        outputs[role] = done.stdout.decode()
        assert done.returncode == 0, done.stderr.decode()

    with trio.fail_after(60):
        async with open_server("127.0.0.1", 0) as server, trio.open_nursery() as nursery:
            for role in roles:
                nursery.start_soon(terminal, role, server.url)
    text = "".join(outputs.values())
    for words in wanted:
        assert words in text
    assert "saw 0 positions" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["join", "lobby", "--signaling", "ws://127.0.0.1:9"], "signaling"),
        (["join", "", "--signaling", "ws://127.0.0.1:9"], "room name"),
        (["serve", "--certificate", "missing.pem", "--key", "missing.pem"], "certificate"),
    ],
)
def test_errors_on_the_command_line_are_one_line(arguments: list[str], words: str) -> None:
    done = run("-m", "psyne_mesh.cli", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
