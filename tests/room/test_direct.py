"""One player to one player: the three URIs and the two functions of psyne."""

from __future__ import annotations

import pytest
import trio

from psyne_mesh.errors import InvalidConfig, InvalidUri, PeerGone
from psyne_mesh.identity import Identity
from psyne_mesh.room.direct import create_channel, create_gaming_channel
from psyne_mesh.room.messages import Action, CombatAction, PlayerPosition
from psyne_mesh.signaling.server import open_server
from tests.room.players import LOOPBACK, PATIENCE_S


async def both(first, second):  # type: ignore[no-untyped-def]
    """Open two channels towards each other at the same time, play, and let the first leave first."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                async with second as channel:
                    action = await channel.receive(CombatAction)
                    await channel.send(PlayerPosition(action.sequence, 0))
                    await channel.send(b"raw")
                    with pytest.raises(PeerGone):
                        await channel.receive(CombatAction)

            nursery.start_soon(answer)
            async with first as channel:
                await channel.send(CombatAction(5, 0, Action.DODGE))
                assert await channel.receive() == b"raw"  # another type may be read first
                assert (await channel.receive(PlayerPosition)).sequence == 5
                assert channel.peer.name == "bob"


async def test_a_peer_by_name() -> None:
    async with open_server("127.0.0.1", 0) as server:
        options = {"signaling": server.url, "config": LOOPBACK}
        await both(
            create_channel("webrtc://bob", player_name="ada", **options),
            create_channel("webrtc://ada", player_name="bob", mode={PlayerPosition: "unreliable_ordered"}, **options),
        )


async def test_a_room_of_two_on_a_named_server() -> None:
    async with open_server("127.0.0.1", 0) as server:
        uri = server.url.replace("ws://", "webrtc://").rstrip("/") + "/duel"
        await both(
            create_channel(uri, player_name="ada", config=LOOPBACK),
            create_channel(uri, player_name="bob", config=LOOPBACK),
        )


async def test_a_peer_in_a_game_room_by_name_and_by_id() -> None:
    async with open_server("127.0.0.1", 0) as server:
        ada = Identity.generate()
        await both(
            create_gaming_channel("bob", "combat-1", server.url, region="us-west", identity=ada, config=LOOPBACK),
            create_channel(
                f"webrtc-game://{ada.peer_id}?room=combat-1&region=us-west",
                signaling=server.url,
                player_name="bob",
                config=LOOPBACK,
            ),
        )


async def test_bad_requests() -> None:
    for uri in ("http://x", "webrtc://"):
        with pytest.raises(InvalidUri):
            async with create_channel(uri):
                pass
    with pytest.raises(InvalidConfig, match="player_name"):
        async with create_channel("webrtc://bob"):
            pass
