"""The arena in a real tab, in one room with a Python player: each sees the other's ship, by the wire of the desktop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from examples.arena.world import Chat, Ship
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.signaling.server import open_server
from tests.browser.chromium import Devtools, open_chromium, open_tab
from tests.interop.browser_peer import find_browser
from tests.room.players import LOOPBACK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.interop,
    pytest.mark.skipif(find_browser("chromium") is None, reason="chromium is not installed: .ci/install-browsers"),
]


async def play_in(tab: Devtools, name: str) -> None:
    await tab.until("document.readyState === 'complete' && document.querySelector('#room')?.value")
    await tab.value("addEventListener('psyne-room', (event) => { globalThis.room = event.detail; })")
    await tab.value(f"document.querySelector('#name').value = {name!r}; document.querySelector('button').click()")
    await tab.until("globalThis.room !== undefined")


async def until(condition: Any) -> Any:
    while not (found := condition()):
        await trio.sleep(0.05)
    return found


async def test_a_tab_and_a_python_player_see_and_hear_each_other() -> None:
    with trio.fail_after(150):
        async with open_server(port=0) as server, open_chromium() as home:
            url = "http" + server.url.removeprefix("ws") + "/app/?room=arena"
            async with (
                join_game_room(
                    "arena", signaling=server.url, max_players=8, player_name="ada", config=LOOPBACK
                ) as room,
                open_tab(home, url) as tab,
            ):
                ship, chat = room.share(Ship(x=300.0, y=100.0)), room.channel("chat", Chat)
                await play_in(tab, "tab")
                await room.wait_connected(1)
                theirs = await until(lambda: next((each for each in room.all(Ship) if not each.is_mine), None))
                assert theirs.owner.name == "tab"
                assert (theirs.hp, theirs.paused) == (100, False)
                # What the page shows of ours: it shoots where we are told to be, so look at its own picture of us.
                await chat.send(Chat("hello page"))
                await tab.until("globalThis.room.peers.size === 1 && globalThis.room.connected.length === 1")
                before = theirs.x, theirs.y
                for code in ("KeyD", "KeyS"):
                    await tab.value(f"dispatchEvent(new KeyboardEvent('keydown', {{code: {code!r}}}))")
                await until(lambda: list(room.all(Ship)) and math.dist((theirs.x, theirs.y), before) > 20)
                ship.hp = 40
                await tab.value("document.querySelector('#say').value = 'hello python'")
                await tab.value("document.querySelector('#talk').requestSubmit()")
                sender, said = await chat.receive()
                assert (sender.name, said) == ("tab", Chat("hello python"))
                await tab.call("Page.navigate", url="about:blank")  # the page says goodbye as it goes
                await until(lambda: not room.peers)
