"""The page about rollback, played by two programs with loops of their own over real sockets."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rollback.md"
PATIENCE_S = 60
TICKS = 90


class Program:
    """What the listing leaves to a game: keys, a picture, a clock, and an end."""

    def __init__(self, number: int, all_programs: list[Program], is_over: list[bool]) -> None:
        self.number, self.all, self.is_over = number, all_programs, is_over
        self.globals: dict[str, Any] = {}
        self.frames = 0
        self.seats: set[int] = set()
        self.heard: list[object] = []
        self.error: BaseException | None = None
        self.began = time.monotonic()
        self.states: dict[int, bytes] = {}
        all_programs.append(self)

    def names(self) -> dict[str, Any]:
        self.globals = {
            "__name__": f"pasted{self.number}", "running": self.running, "pressed": self.pressed, "draw": self.draw,
            "clock": self, "play_sound": self.heard.append,
        }  # fmt: skip
        return self.globals

    def running(self) -> bool:
        self.frames += 1
        if all(program.confirmed >= TICKS for program in self.all) or any(program.error for program in self.all):
            self.is_over.append(True)  # for all: who leaves first must not leave the other behind
        return not self.is_over and time.monotonic() - self.began < PATIENCE_S

    @property
    def confirmed(self) -> int:
        game = self.globals.get("game")
        return game._session.confirmed if game is not None and game._session is not None else -1

    def pressed(self, key: str) -> bool:
        return self.frames // 15 % 3 == ("up", "down").index(key) + self.number

    def draw(self, state: Any, seat: int) -> None:
        self.seats.add(seat)

    def tick(self, fps: int) -> None:
        time.sleep(1 / fps)  # the frame of a game, not a wait for something to come true


def test_the_listing_on_the_page_is_one_game_for_two(url: str) -> None:
    (listing,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    code = compile(listing.replace('"pong"', f'"pong", signaling={url!r}'), str(PAGE), "exec")
    programs: list[Program] = []
    is_over: list[bool] = []
    games: list[dict[str, Any]] = []

    def run(program: Program, names: dict[str, Any]) -> None:
        try:
            exec(code, names)  # noqa: S102 - our own page
        except BaseException as error:  # noqa: BLE001 - shown below
            program.error = error

    for number in range(2):
        program = Program(number, programs, is_over)
        games.append(program.names())
    threads = [threading.Thread(target=run, args=pair) for pair in zip(programs, games)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S * 2)
    assert [program.error for program in programs if program.error] == []
    if not is_over:
        pytest.fail(f"the game did not get far: {[(program.frames, program.confirmed) for program in programs]}")
    sessions = [names["game"]._session for names in games]
    kept = [session._checks._hashes for session in sessions]
    common = kept[0].keys() & kept[1].keys()
    assert len(common) > 10
    assert [frame for frame in common if kept[0][frame] != kept[1][frame]] == []
    assert {seat for program in programs for seat in program.seats} >= {session.me for session in sessions}
