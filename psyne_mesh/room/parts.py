"""The parts of a room that speak through channels of their own. Each is idle until somebody asks for it."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore
from psyne_mesh.room import events as room_events
from psyne_mesh.room.asking import Asking
from psyne_mesh.room.audience import Audience
from psyne_mesh.room.barring import Barring
from psyne_mesh.room.fairness import Fairness
from psyne_mesh.room.files import FileTraffic
from psyne_mesh.room.hosting import Hosting
from psyne_mesh.room.inside import Inside
from psyne_mesh.room.sharing import SharedTraffic, Sharing
from psyne_mesh.room.snapshots import Snapshots
from psyne_mesh.room.states import StateTraffic
from psyne_mesh.room.timekeeper import Timekeeper

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room


@uninterrupted
class Parts:
    """Of one room."""

    def __init__(self, room: Room, core: MeshCore, inside: Inside, rng: Random, hold_s: float) -> None:
        joined, publish = inside.joined, inside.hub.publish
        self._room = room
        self._publish = publish
        self.timekeeper = Timekeeper(room, core.wall_ms)
        self.hosting = Hosting(room, self._host_changed)
        self.states = StateTraffic(room, self.hosting, self.timekeeper, publish, joined, rng)
        self.asking = Asking(room, joined)
        self.file_traffic = FileTraffic(room, joined)
        self.barring = Barring(
            room, core.identity, self.states, self.hosting, publish, joined, inside.barred, core.wall_ms
        )
        self.states.on_barred = self.barring.changed
        self.snapshots = Snapshots(room, core.identity, self.asking, self.file_traffic, joined)
        self.traffic = SharedTraffic(room, self.hosting, rng, hold_s)
        self.audience = Audience(room, core, self.hosting, self.states, self.traffic)
        self.sharing = Sharing(room, self.traffic, publish)
        self.fairness = Fairness(room, core.identity, publish, joined, self.timekeeper)

    def start(self, nursery: trio.Nursery) -> None:
        """Their tasks, which end with the room's."""
        nursery.start_soon(self.sharing.run)
        nursery.start_soon(self.audience.run)
        nursery.start_soon(self.timekeeper.run)
        nursery.start_soon(self.hosting.run)
        nursery.start_soon(self.states.run)
        nursery.start_soon(self.asking.run)
        nursery.start_soon(self.barring.run)
        nursery.start_soon(self.file_traffic.run)
        nursery.start_soon(self.fairness.run)

    def corrections(self) -> dict[PeerId, float | None]:
        """For a door on another thread: what each player, and we, add to their clocks for the room's time."""
        return {player: self.timekeeper.correction(player) for player in (self._room.me, *self._room.peers)}

    def _host_changed(self, term: int, host: PeerId | None) -> None:
        self.states.host_changed(term, host)
        room = self._room
        if host == room.me:
            self.barring.host_changed()
        player = room.player if host == room.me else room.peers.get(host) if host is not None else None
        self._publish(room_events.HostChanged(term, player))
