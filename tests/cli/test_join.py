"""A room in the terminal: what others wrote cannot steer it, and what is typed wrongly does not end it."""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from psyne_mesh.cli import join
from psyne_mesh.cli.join import Line
from psyne_mesh.cli.terminal import plain
from psyne_mesh.errors import ClosedError, MessageTooLarge, UnserialisableMessage
from tests.signaling.worlds import player

STEERING = "\x1bc\x1b]0;owned\x07\x1b[2J\x9b31m\u202ehi\nthere"


class Channel:
    """As much of a room channel as the command uses: it takes lines of up to ten characters."""

    def __init__(self, *lines: tuple[str, str]) -> None:
        self.sent: list[str] = []
        self._lines = lines

    async def send(self, line: Line) -> None:
        if len(line.text) > 10:
            raise MessageTooLarge(len(line.text), 10)
        if line.text == "odd":
            raise UnserialisableMessage("[odd]")
        if line.text == "late":
            raise ClosedError("the room is over")
        self.sent.append(line.text)

    async def __aiter__(self) -> AsyncIterator[tuple[Any, Line]]:
        for name, text in self._lines:
            yield SimpleNamespace(name=name), Line(text)


def terminal() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=True, color_system=None, width=200), out


@pytest.mark.parametrize("text", [STEERING, "[red]hi[/red]", "[/x]", "back\\slash [bold]"])
async def test_words_of_others_are_shown_and_do_nothing(text: str) -> None:
    console, out = terminal()
    await join._show_lines(Channel((text, text)), console)  # type: ignore[arg-type]
    said = "".join(filter(str.isprintable, text))
    assert out.getvalue() == f"{said}: {said}\n"


def test_plain_text_stays_as_it_is() -> None:
    console, out = terminal()
    console.print(plain("Zoë 说: ok 👍"))
    assert out.getvalue() == "Zoë 说: ok 👍\n"


async def test_a_line_that_cannot_be_said_does_not_end_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n" + "x" * 20 + "\n\nodd\ntwo\n"))
    console, out = terminal()
    chat = Channel()
    await join._say_lines(chat, console)  # type: ignore[arg-type]
    assert chat.sent == ["one", "two"]
    assert "over the limit of 10 bytes" in out.getvalue()
    assert "[odd]" in out.getvalue()


async def test_the_end_of_the_room_is_the_end_of_talking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("late\ntwo\n"))
    with pytest.raises(ClosedError):
        await join._say_lines(Channel(), terminal()[0])  # type: ignore[arg-type]


async def test_an_odd_name_and_bytes_that_are_no_text_do_no_harm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = Channel()

    async def nothing_happens() -> AsyncIterator[None]:
        return
        yield

    @asynccontextmanager
    async def no_room(*_: object, **__: object) -> AsyncIterator[object]:
        info = SimpleNamespace(policy="open")
        yield SimpleNamespace(
            me=player(1).peer_id, channel=lambda *_: chat, events=nothing_happens, name="[/room]", info=info, code="[/code]"
        )  # fmt: skip

    monkeypatch.setattr(join, "join_game_room", no_room)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\nbye\n"), encoding="utf-8"))
    await join.run_join("[/room]", "[/x]", "ws://nowhere", None, 16)
    out = capsys.readouterr().out
    assert "in room [/room] as [/x];" in out
    assert "--code [/code]" in out
    assert chat.sent == ["caf\ufffd", "bye"]
