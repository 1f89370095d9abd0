"""The host of a room: the pure lease on an unreliable channel of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from psyne_mesh.errors import ClosedError, MessageTooLarge, PeerGone, ProtocolError
from psyne_mesh.game.host import HostWord, Member
from psyne_mesh.game.host_duty import HostDuty
from psyne_mesh.game.host_wire import decode_untrusted, encode
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

CHANNEL = "psyne.host"


@uninterrupted
class Hosting:
    """1. The room's task is in `run()`; it is idle until `start()`, or until another player looks for a host. 2.
    `host()`, `term`, `is_host()`. 3. `resign()` before leaving. What was given as `changed` is called for each change.
    """

    def __init__(self, room: Room, changed: Callable[[int, PeerId | None], None]) -> None:
        self._room = room
        self._changed = changed
        self._duty: HostDuty | None = None
        self._started = trio.Event()
        self._wake = trio.Event()
        self._channel: Any = None
        self.refused = 0

    def start(self) -> None:
        if self._duty is None:
            self._duty = HostDuty(self._room.me, trio.current_time())
            self._started.set()

    @property
    def is_on(self) -> bool:
        """Somebody in the room has asked for the host."""
        return self._duty is not None

    @property
    def term(self) -> int:
        return self._duty.lease.term if self._duty is not None else 0

    def host(self) -> PeerId | None:
        self.start()
        assert self._duty is not None
        known = self._duty.lease.host(trio.current_time())
        return known if isinstance(known, PeerId) else None

    def is_host(self) -> bool:
        self.start()
        assert self._duty is not None
        return self._duty.lease.is_host(trio.current_time())

    def accepts(self, peer: PeerId, term: int) -> bool:
        """Whether what this player decided as the host of `term` counts."""
        return self._duty is not None and self._duty.lease.accepts(peer, term)

    def voters(self) -> frozenset[PeerId]:
        """Whose votes make the host: the roster."""
        places = self._duty.lease.roster if self._duty is not None else ()
        return frozenset([place.member for place in places if isinstance(place.member, PeerId)])

    def peer_left(self, peer: PeerId) -> None:
        """It said goodbye: if it was the host, its last word may be lost."""
        if self._duty is not None:
            self._duty.lease.left(peer, trio.current_time())
            self._flush()
            self._hurry()

    def resign(self) -> None:
        if self._duty is not None:
            self._duty.lease.resign(trio.current_time())
            self._flush()

    async def run(self) -> None:
        try:
            self._channel = self._room.channel(CHANNEL, mode="unreliable")
        except ClosedError:
            return  # the room ended before its task began
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            await self._started.wait()
            duty = self._duty
            assert duty is not None
            while True:
                self._wake = trio.Event()
                now = trio.current_time()
                try:
                    seats = self._seats()
                except ClosedError:
                    return  # the room has ended, and its task is about to
                linked = [peer.id for peer in self._room.connected]
                for peer in duty.look(seats, linked, now, all_linked=len(linked) == len(self._room.peers)):
                    self._send(peer, None)
                self._flush()
                with trio.move_on_at(duty.next_look(now)):
                    await self._wake.wait()

    def _seats(self) -> dict[Member, int]:
        """Who has a seat and a link with us, and we ourselves."""
        here = {self._room.me, *(peer.id for peer in self._room.connected)}
        return {peer: seat for seat, peer in enumerate(self._room.seats) if peer in here and peer is not None}

    async def _read(self) -> None:
        async for sender, data in self._channel:
            try:
                word = decode_untrusted(data)
            except ProtocolError:
                self.refused += 1
                continue
            self.start()
            assert self._duty is not None
            self._duty.receive(sender.id, word, trio.current_time())
            self._flush()
            self._hurry()

    def _hurry(self) -> None:
        """A host that resigns is followed at once."""
        assert self._duty is not None
        if self._duty.is_overdue(trio.current_time()):
            self._wake.set()

    def _flush(self) -> None:
        assert self._duty is not None
        for target, word in self._duty.lease.take_outputs():
            if isinstance(target, PeerId):
                self._send(target, word)
        for event in self._duty.lease.take_events():
            self._changed(event.term, event.host if isinstance(event.host, PeerId) else None)

    def _send(self, peer: Member, word: HostWord | None) -> None:
        with suppress(PeerGone, ClosedError, MessageTooLarge):  # it is said again
            self._channel.send_nowait(encode(word), to=peer)
