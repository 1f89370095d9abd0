"""What a message costs a page: `python -m benchmarks.page [PLAYERS] [SECONDS] [TURNS]`, a Chromium and Python players.

By turns: nothing, messages on an unreliable channel of the room, and the same bytes on bare data channels of the same
connections, of which the page only counts the messages: what any library has to pay. Processor time of the page's thread, and
of all threads of its process, as its DevTools say; so what else runs does not matter much.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.server import open_server
from tests.browser.chromium import Devtools, open_chromium, open_tab
from tests.room.players import LOOPBACK

HZ, BYTES = 60, 100
BARE = DataChannelConfig(label="bare", ordered=False, max_retransmits=0)
_CLOCKS = ("ThreadTime", "ProcessTime")
_PAGE = """
import { joinGameRoom } from "/app/psyne-mesh.js";
globalThis.came = { room: 0, bare: 0 };
class Watched extends RTCPeerConnection {
  constructor(configuration) {
    super(configuration);
    this.addEventListener("datachannel", ({ channel }) => {
      if (channel.label === "bare") setTimeout(() => (channel.onmessage = () => came.bare++)); // after the member has its own
    });
  }
}
const room = await joinGameRoom("bench", { maxPlayers: 16, platform: { RTCPeerConnection: Watched, WebSocket } });
room.channel("words", { mode: "unreliable" }).onMessage(() => came.room++);
globalThis.room = room;
"""


async def turn(kind: str, rooms: list[Room], page: Any, tab: Devtools, seconds: float) -> tuple[tuple[float, ...], int]:
    """Seconds of a processor of the page's thread and of its process, and how many messages came."""
    before, came = await _spent(tab), await tab.value("JSON.stringify(came)")
    ends_at = trio.current_time() + seconds
    while trio.current_time() < ends_at:
        due = trio.current_time() + 1 / HZ
        for room in rooms:
            if kind == "room":
                room.channel("words", mode="unreliable").send_nowait(bytes(BYTES))
            elif kind == "bare":
                link = room._core.link(page)
                if link is not None:
                    link.send_message(BARE, bytes(BYTES))
        await trio.sleep_until(due)
    after = json.loads(await tab.value("JSON.stringify(came)"))
    spent = tuple(late - early for early, late in zip(before, await _spent(tab), strict=True))
    return spent, after.get(kind, 0) - json.loads(came).get(kind, 0)


async def _spent(tab: Devtools) -> tuple[float, ...]:
    metrics = {each["name"]: float(each["value"]) for each in (await tab.call("Performance.getMetrics"))["metrics"]}
    return tuple(metrics[name] for name in _CLOCKS)


async def main(players: int = 5, seconds: float = 10.0, turns: int = 3) -> None:
    place = Path(tempfile.mkdtemp(prefix="psyne-bench-"))
    (place / "index.html").write_text('<!doctype html><script type="module" src="page.js"></script>', encoding="ascii")
    (place / "page.js").write_text(_PAGE, encoding="ascii")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server(port=0, config=ServerConfig(web=place)))
        rooms = [
            await stack.enter_async_context(
                join_game_room("bench", signaling=server.url, player_name=f"p{n}", max_players=16, config=LOOPBACK)
            )
            for n in range(players)
        ]
        home = await stack.enter_async_context(open_chromium())
        tab = await stack.enter_async_context(open_tab(home, "http" + server.url.removeprefix("ws") + "/"))
        await tab.call("Performance.enable")
        await tab.until(f"globalThis.room?.connected.length === {players}")
        page = await tab.value("room.me")
        costs: dict[str, list[tuple[float, ...]]] = {"room": [], "bare": []}
        for _ in range(turns):
            idle, _none = await turn("idle", rooms, page, tab, seconds)
            for kind, found in costs.items():
                spent, came = await turn(kind, rooms, page, tab, seconds)
                found.append(tuple(1e6 * (busy - rest) / max(1, came) for busy, rest in zip(spent, idle, strict=True)))
                print(
                    f"{kind}: {came} messages; us of a processor for each, thread and process: {found[-1]}", flush=True
                )
        for number, whose in enumerate(("page's thread", "tab's process")):
            room_us, bare_us = (statistics.median(each[number] for each in found) for found in costs.values())
            share, bare = (100 * 15 * HZ * each / 1e6 for each in (room_us, bare_us))
            ratio = room_us / bare_us
            print(f"{whose}: 15 players at {HZ} Hz are {share:.1f} % of a core, bare {bare:.1f} %; ratio {ratio:.2f}")


if __name__ == "__main__":
    trio.run(main, *[int(word) for word in sys.argv[1:]])
