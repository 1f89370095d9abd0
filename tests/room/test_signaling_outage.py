"""The real signaling server dies and comes back: those who play notice an event, newcomers get in again."""

from __future__ import annotations

import trio

from psyne_mesh.room import events
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.signaling.server import serve
from tests.room.players import LOOPBACK, PATIENCE_S, connected, first


async def test_the_server_dies_play_goes_on_and_a_newcomer_joins_when_it_is_back() -> None:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            first_life = trio.CancelScope()

            async def live(port: int, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
                with first_life:
                    await serve("127.0.0.1", port, task_status=task_status)

            server = await nursery.start(live, 0)
            options = {"signaling": server.url, "config": LOOPBACK}
            async with (
                join_game_room("lobby", player_name="ada", **options) as ada,
                join_game_room("lobby", player_name="bob", **options) as bob,
            ):
                await connected(ada, bob)
                watch = ada.events()
                server.kill()
                first_life.cancel()
                while not isinstance(await anext(watch), events.SignalingDown):
                    pass
                await ada.channel("raw").send(b"still here")
                assert (await bob.channel("raw").receive())[1] == b"still here"
                await nursery.start(serve, "127.0.0.1", server.port)
                while not isinstance(await anext(watch), events.SignalingUp):
                    pass
                async with join_game_room("lobby", player_name="cid", **options) as cid:
                    await connected(ada, bob, cid)
                    await first(ada, events.PeerConnected)
            nursery.cancel_scope.cancel()
