"""psyne-mesh as a game uses it: `join_game_room`, then a broadcast channel; gossip, signed records and all."""

from __future__ import annotations

from typing import Any

import trio

from benchmarks.stacks.ours import Ours
from benchmarks.stacks.protocol import now_ns, stamped
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.room.peer import Peer


class Rooms(Ours):
    """Instead of `dial`: enter {url, room, names, players}, which ends when everybody sees everybody.

    greet   {}: from now on the players here send a newcomer one reliable message as soon as there is a link.
    """

    def connecting(self, **_: Any) -> Any:
        raise NotImplementedError("players of a room find each other")

    def hand_over(self, channel: Channel[bytes], message: bytes) -> int:
        return channel.send_nowait(message).sent

    async def do_enter(self, *, url: str, room: str, names: list[str], players: int, greet: bool = False) -> None:
        async with trio.open_nursery() as entering:
            for name in names:
                entering.start_soon(self.nursery.start, self._play, url, room, name, players, greet)

    async def _play(
        self, url: str, room: str, name: str, players: int, greet: bool,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:  # fmt: skip
        async with join_game_room(room, signaling=url, player_name=name, max_players=64) as joined:
            positions: Channel[bytes] = joined.channel("position", mode="unreliable")
            greetings: Channel[bytes] = joined.channel("greeting", mode="reliable")
            self.channels[name] = [positions]  # type: ignore[list-item]  # hand_over knows
            if greet:

                @joined.on_peer_connected
                def welcome(peer: Peer) -> None:
                    greetings.send_nowait(stamped(now_ns(), 100), to=peer)

            await joined.wait_connected(players - 1)
            task_status.started()
            async for _, message in positions:
                self.latencies.add(message)


if __name__ == "__main__":
    trio.run(Rooms().main)
