"""A game in a page, played by two rooms of one process: run by this Python, and by Pyodide."""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from types import SimpleNamespace
from typing import Any

from psyne_mesh.errors import ClosedError, InvalidConfig, PeerGone, UnserialisableMessage, WouldBlock
from psyne_mesh.events import MessageRefused, PeerAway, PeerConnected, PeerLeft, SharedAppeared, SharedGone
from psyne_mesh.game.schema import Shared, smooth
from psyne_mesh.room.messages import Message
from psyne_mesh.sync import in_page
from tests.browser.fake_member import FakeRoom, meet


class Shot(Message):
    x: float
    weapon: int = 0


class Ship(Shared):
    x: float = smooth(0.0)
    hp: int = 100


def raises(kind: type[BaseException], call: Any) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


async def story() -> None:
    clock = count(1)
    first, second = FakeRoom(1, "ada"), FakeRoom(2, "bob")
    ada, bob = (in_page.Room(each, lambda: next(clock) / 60) for each in (first, second))
    meet(first, second)
    came: list[str] = []
    ada.on(PeerConnected, lambda event: came.append(event.peer.name))
    assert [type(event).__name__ for event in ada.poll()] == ["PeerDiscovered", "PeerConnected"]
    assert came == ["bob"]
    bob.poll()
    assert [peer.name for peer in ada.connected] == ["bob"]
    peer = ada.peers[bob.me]
    assert (peer.path, peer.rtt_ms, peer.seat, peer.stats, peer.away) == ("host", 1.5, 0, None, None)
    assert (ada.name, ada.code, ada.player.name, ada.host) == ("arena", "K7QM-3FHT", "ada", None)

    # Messages: typed, raw, to one, to who is not here, refused.
    shots, heard = ada.channel("shots", Shot, mode="unreliable"), bob.channel("shots", Shot)
    assert (first.modes["shots"], second.modes["shots"]) == ("unreliable", "reliable")
    shots.send(Shot(1.5, weapon=2))
    shots.send(Shot(2.5), to=peer)
    bob.poll()
    assert [(sender.name, shot) for sender, shot in heard] == [("ada", Shot(1.5, 2)), ("ada", Shot(2.5))]
    raises(WouldBlock, heard.receive_nowait)
    raises(PeerGone, lambda: shots.send(Shot(1.0), to="f" * 32))
    raises(UnserialisableMessage, lambda: shots.send(Shot(float("nan"))))
    raises(UnserialisableMessage, lambda: shots.send(SimpleNamespace(x=1)))
    first.unreachable.add(second.me)
    assert "not connected" in raises(PeerGone, lambda: shots.send(Shot(1.0), to=peer))
    first.unreachable.clear()
    words, texts = ada.channel("words"), []
    bob.channel("words").on_message(lambda sender, text: texts.append((sender.name, text)))
    words.send("hello")
    words.send(b"\x00\xff")
    bob.poll()
    assert texts == [("ada", "hello"), ("ada", b"\x00\xff")]
    first.channel("shots", None).send(b"\xc1")
    first.channel("shots", None).send(b"\xc1")
    assert [(event.channel, event.peer.name) for event in bob.poll() if isinstance(event, MessageRefused)] == [
        ("shots", "ada")
    ]

    # Shared objects, by the wire of the desktop.
    ship = ada.share(Ship(x=5.0))
    assert list(bob.all(Ship)) == []
    seen: list[Any] = []
    for frame in range(40):
        ship.x += 1.0
        ship.hp = 100 - frame
        ada.poll()
        seen += [event for event in bob.poll() if isinstance(event, SharedAppeared)]
    (theirs,) = bob.all(Ship)
    assert len(seen) == 1
    assert (theirs.owner.name, theirs.is_mine) == ("ada", False)
    assert 60 < theirs.hp < 70
    assert 30 < theirs.x <= 46
    ada.unshare(ship)
    gone = [
        event for _ in range(10) for each in (ada.poll(), bob.poll()) for event in each if isinstance(event, SharedGone)
    ]
    assert len(gone) == 1

    # Away and back, and the end.
    with ada.pause("coffee"):
        assert first.paused == ["coffee"]
    assert first.paused == ["coffee", None]
    second.events.append(SimpleNamespace(type="peerAway", peer=second.seen(first), reason="coffee"))
    second.events.append(
        SimpleNamespace(type="seatsChanged", seats=[], own=None)
    )  # what only a page tells is passed over
    assert [type(event) for event in bob.poll()] == [PeerAway]
    await ada.leave()
    assert [(type(event), event.reason) for event in bob.poll()] == [(PeerLeft, "left")]
    raises(ClosedError, ada.poll)
    raises(ClosedError, lambda: shots.send(Shot(1.0)))
    assert "has no room.request" in raises(AttributeError, lambda: ada.request)
    assert "does not know that" in raises(InvalidConfig, lambda: in_page.join_game_room("arena", party="us"))


if __name__ == "__main__":
    asyncio.ensure_future(story()).add_done_callback(
        lambda done: print("ok" if done.exception() is None else f"failed: {done.exception()!r}", sys.version.split()[0],
                           sorted({"trio", "cryptography"} & set(sys.modules)))
    )  # fmt: skip
