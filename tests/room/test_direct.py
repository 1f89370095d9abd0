"""One player to one player: the three URIs and the two functions of psyne."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from psyne_mesh.errors import InvalidConfig, InvalidUri, PeerGone
from psyne_mesh.identity import Identity
from psyne_mesh.room.direct import _meeting_place, create_channel, create_gaming_channel
from psyne_mesh.room.messages import Action, CombatAction, PlayerPosition
from psyne_mesh.signaling.server import open_server
from psyne_mesh.uri import GameUri, PeerUri
from tests.room.players import LOOPBACK, PATIENCE_S

ADA, BOB = Identity.from_seed(b"a" * 32), Identity.from_seed(b"b" * 32)


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


async def test_a_peer_by_id_whatever_its_display_name() -> None:
    async with open_server("127.0.0.1", 0) as server:
        ada, bob = Identity.generate(), Identity.generate()
        options = {"signaling": server.url, "config": LOOPBACK}
        await both(
            create_channel(f"webrtc://{bob.peer_id}", player_name="ada", identity=ada, **options),
            create_channel(f"webrtc://{ada.peer_id}", player_name="bob", identity=bob, **options),
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


async def test_a_stranger_who_takes_a_name_gets_nothing_meant_for_its_owner() -> None:
    """He guesses where the two meet, comes first, and calls himself bob."""
    ada, bob, mallory = (Identity.generate() for _ in range(3))
    async with open_server("127.0.0.1", 0) as server, trio.open_nursery() as nursery:
        options = {"signaling": server.url, "config": LOOPBACK}
        heard: list[object] = []

        async def eavesdrop() -> None:
            async with create_channel("webrtc://ada", player_name="bob", identity=mallory, **options) as channel:
                assert not channel.is_proved
                with suppress(PeerGone):
                    heard.append(await channel.receive())

        async def answer() -> None:
            async with create_channel(
                "webrtc://ada", player_name="bob", identity=bob, peer_id=ada.peer_id, **options
            ) as channel:
                await channel.send(await channel.receive())
                await channel.wait_left()

        nursery.start_soon(eavesdrop)
        with trio.fail_after(PATIENCE_S):
            while server.stats.members < 1:
                await trio.sleep(0.01)
            nursery.start_soon(answer)
            async with create_channel(
                "webrtc://bob", player_name="ada", identity=ada, peer_id=bob.peer_id, **options
            ) as channel:
                assert channel.is_proved
                assert channel.peer.id == bob.peer_id
                await channel.send(b"for bob only")
                assert await channel.receive() == b"for bob only"
        nursery.cancel_scope.cancel()
    assert heard == []


@pytest.mark.parametrize("peer_id", ["bob", 5, str(Identity.generate().peer_id)], ids=["a name", "a number", "another"])
async def test_a_proof_that_cannot_be_is_refused(peer_id: Any) -> None:
    with pytest.raises(InvalidConfig, match="peer_id"):
        async with create_channel(f"webrtc://{BOB.peer_id}", identity=ADA, peer_id=peer_id):
            pass


async def test_bad_requests() -> None:
    for uri in ("http://x", "webrtc://"):
        with pytest.raises(InvalidUri):
            async with create_channel(uri):
                pass
    with pytest.raises(InvalidConfig, match="player_name"):
        async with create_channel("webrtc://bob"):
            pass


@pytest.mark.parametrize(
    ("by_ada", "of_ada", "by_bob", "of_bob"),
    [
        ("bob", ("ada", None), "ada", ("bob", BOB)),
        (BOB.peer_id, ("ada", ADA), ADA.peer_id, ("bob", BOB)),
        (BOB.peer_id, (None, ADA), ADA.peer_id, ("bob", BOB)),
        ("Rene\u0301", ("Zoe\u0308", None), "Zo\u00eb", ("Ren\u00e9", None)),
        ("さくら", ("지우\u200d", None), "지우\u200d", ("さくら", None)),
        ("b" * 64, ("a" * 64, None), "a" * 64, ("b" * 64, None)),
        ("player", ("player", None), "player", ("player", None)),
    ],
    ids=["a name and an id", "two ids", "no names", "two forms", "other writings", "long names", "one name"],
)
def test_two_who_name_each_other_go_to_the_same_room(by_ada: str, of_ada: Any, by_bob: str, of_bob: Any) -> None:
    places = [_meeting_place(PeerUri(by_ada), *of_ada), _meeting_place(PeerUri(by_bob), *of_bob)]
    assert places[0].room == places[1].room
    assert len(places[0].room) <= 128
    assert not any(name in places[0].room for name in (by_ada, by_bob)), "a list of rooms tells no names"


def test_who_cannot_be_named_in_return_is_told_at_once() -> None:
    for named, player_name, identity, missing in (
        (BOB.peer_id, "ada", None, "identity"),
        ("bob", None, ADA, "player_name"),
        ("bob", "\t", ADA, "player_name"),
        ("bob", str(ADA.peer_id), ADA, "player_name"),
        ("bob", 5, None, "player_name"),
        (BOB.peer_id, "ada", "me", "identity"),
    ):
        with pytest.raises(InvalidConfig, match=missing):
            _meeting_place(PeerUri(named), player_name, identity)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "nobody", ["\t", "bo\tb", "\u202ebob", "\ud800", "b" * 65, "\N{GRINNING FACE}" * 17, str(ADA.peer_id)]
)
def test_whom_nobody_can_be_is_not_waited_for(nobody: str) -> None:
    for target in (PeerUri(nobody), GameUri(nobody, "combat-1")):
        with pytest.raises(InvalidUri):
            _meeting_place(target, "ada", ADA)


@pytest.mark.parametrize("wrong", [None, 5, "", b"bob"])
async def test_a_gaming_channel_is_to_a_name_in_a_named_room(wrong: Any) -> None:
    for peer, room in ((wrong, "combat-1"), ("bob", wrong)):
        with pytest.raises(InvalidUri, match="must be the name"):
            async with create_gaming_channel(peer, room, "ws://127.0.0.1:1"):
                pass
