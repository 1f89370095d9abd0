"""What docs/matchmaking.md shows is run."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import trio

from psyne_mesh.signaling.server import open_server

PAGE = Path(__file__).resolve().parents[2] / "docs" / "matchmaking.md"
LISTINGS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
WAITING = 1  # the listing of a match, which needs others


@pytest.mark.parametrize("number", [number for number in range(len(LISTINGS)) if number != WAITING])
def test_the_listings_on_the_page_run(number: int) -> None:
    said = listed(LISTINGS[number])
    shown = r"^[0-9A-Z]{4}-[0-9A-Z]{4} us-west", "", "password is wrong", r"^new .*dust", "password', 1"
    assert re.search(shown[number], said, re.M)


async def test_the_match_on_the_page_is_made() -> None:
    """Four players run it; the second time they are two parties of two. None leaves before all are there."""
    listing = LISTINGS[WAITING].replace("trio.run(main)", "")
    listing = listing.replace("for peer in room.connected])", "for peer in room.connected]); await all_there()")
    listing = listing.replace("print(room.code)", "found.append(room.code); await all_there()")
    gathering, found = Gathering(4), list[str]()
    with trio.fail_after(60):
        async with open_server(port=0) as server, trio.open_nursery() as nursery:
            for number in range(4):
                names: dict[str, Any] = {"found": found, "all_there": gathering.wait}
                code = listing.replace("quick_match(players=4", f"quick_match(signaling={server.url!r}, players=4")
                exec(code.replace("ada-and-bob", f"party-{number % 2}"), names)  # noqa: S102 - our own page
                nursery.start_soon(names["main"])
    assert len(found) == 4
    assert len(set(found)) == 1


class Gathering:
    """`wait` until so many wait, again and again."""

    def __init__(self, count: int) -> None:
        self._count = self._missing = count
        self._all = trio.Event()

    async def wait(self) -> None:
        self._missing -= 1
        everybody = self._all
        if not self._missing:
            everybody.set()
            self._missing, self._all = self._count, trio.Event()
        await everybody.wait()


def listed(listing: str) -> str:
    """What it prints; a server of its own stands where `psyne-mesh serve` would."""
    output = io.StringIO()

    async def beside_a_server() -> None:
        async with open_server(port=0) as server:
            names: dict[str, Any] = {}
            code = listing.replace("trio.run(main)", "")
            if "server.url" not in code:
                code = code.replace("skill_range=(1200, 1400))", f"skill_range=(1200, 1400), signaling={server.url!r})")
            exec(code, names)  # noqa: S102 - our own page
            with redirect_stdout(output), trio.fail_after(60):
                await names["main"]()

    trio.run(beside_a_server)
    return output.getvalue()
