"""The page's member as Python in the page sees it, without a page: two rooms of one process, joined by queues."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class NotConnected(Exception):
    """As an error of the member: its name says what it is."""

    name, message = "PeerGone", "it is not connected"


class FakeChannel:
    def __init__(self, room: FakeRoom, name: str) -> None:
        self.room, self.name, self.queue = room, name, []

    def send(self, payload: Any, to: str | None = None) -> None:
        if to is not None and to in self.room.unreachable:
            raise NotConnected(f"{to[:8]} is not connected")
        for other in self.room.others:
            if to is None or other.me == to:
                other.channel(self.name, None).queue.append([other.seen(self.room), payload])

    def poll(self) -> list[Any]:
        found, self.queue = self.queue, []
        return found


class FakeRoom:
    """1. Make several. 2. `meet(...)` them. 3. Give each to `in_page.Room`."""

    def __init__(self, number: int, name: str) -> None:
        self.me = f"{number:032x}"
        self.player = SimpleNamespace(id=self.me, name=name)
        self.name, self.code, self.region, self.maxPlayers, self.closed, self.seats = (
            "arena",
            "K7QM-3FHT",
            "",
            8,
            False,
            [],
        )
        self.others: list[FakeRoom] = []
        self.events: list[Any] = []
        self.channels: dict[str, FakeChannel] = {}
        self.modes: dict[str, str] = {}
        self.paused: list[str | None] = []
        self.unreachable: set[str] = set()

    def seen(self, other: FakeRoom) -> Any:
        path = SimpleNamespace(kind="host", protocol="udp", rttMs=1.5)
        return SimpleNamespace(id=other.me, name=other.player.name, region="", metadata={}, connected=True, relayed=False,
                               suspected=False, away=None, path=path, rttMs=1.5, seat=0, waitingBytes=0)  # fmt: skip

    def channel(self, name: str, options: Any) -> FakeChannel:
        if options is not None:
            self.modes[name] = (
                options["mode"] if isinstance(options, dict) else options.mode
            )  # in a page: its own object
        return self.channels.setdefault(name, FakeChannel(self, name))

    def poll(self) -> list[Any]:
        found, self.events = self.events, []
        return found

    def pause(self, reason: str | None) -> None:
        self.paused.append(reason)

    async def leave(self) -> None:
        self.closed = True
        for other in self.others:
            other.others.remove(self)
            other.events.append(SimpleNamespace(type="peerLeft", peer=other.seen(self), reason="left"))
        self.others.clear()


def meet(*rooms: FakeRoom) -> None:
    for room in rooms:
        for other in rooms:
            if other is not room:
                room.others.append(other)
                for kind in ("peerDiscovered", "peerConnected"):
                    room.events.append(SimpleNamespace(type=kind, peer=room.seen(other)))
