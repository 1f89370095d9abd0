"""The host of a room: the pure lease on an unreliable channel of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import trio

from psyne_mesh.errors import ClosedError, MessageTooLarge, PeerGone, ProtocolError
from psyne_mesh.game import host
from psyne_mesh.game.host import Answer, Ask, Beat, Grant, HostLease, HostWord, Place, Resign
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.words import read_untrusted

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

CHANNEL = "psyne.host"
FOUND_AFTER_S = 2.0
"""The member with the lowest seat becomes the first host, if no other said for so long that there is one."""
WAKE_S = 0.5
"""Who wants a host and hears of none asks everybody this often whether they know one: they may not be looking after
it yet.
"""
LOOK_S = 0.05
"""So often seats and links are looked at."""
SHORTEST_LOOK_S = 0.005
"""What is due is done to within this."""

_Raw = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Number = Annotated[int, msgspec.Meta(ge=-1, lt=1 << 53)]


class _Wake(msgspec.Struct, frozen=True, array_like=True, tag="wake"):
    """Is there a host?"""


class _Beat(msgspec.Struct, frozen=True, array_like=True, tag="beat"):
    term: _Number
    sequence: _Number
    version: _Number
    roster: Annotated[list[tuple[_Number, _Raw]], msgspec.Meta(max_length=host.MEMBERS_MAX)]


class _Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    term: _Number
    sequence: _Number
    version: _Number


class _Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    term: _Number
    known_term: _Number
    known_version: _Number
    is_trial: bool


class _Grant(msgspec.Struct, frozen=True, array_like=True, tag="grant"):
    term: _Number
    is_granted: bool
    is_trial: bool


class _Resign(msgspec.Struct, frozen=True, array_like=True, tag="resign"):
    term: _Number


_decoder = msgspec.msgpack.Decoder(_Wake | _Beat | _Answer | _Ask | _Grant | _Resign)


def encode(word: HostWord | None) -> bytes:
    """None asks whether there is a host."""
    match word:
        case Beat():
            roster = [(place.seat, place.member.raw) for place in word.roster if isinstance(place.member, PeerId)]
            return msgspec.msgpack.encode(_Beat(word.term, word.sequence, word.version, roster))
        case Answer():
            return msgspec.msgpack.encode(_Answer(word.term, word.sequence, word.version))
        case Ask():
            return msgspec.msgpack.encode(_Ask(word.term, word.known_term, word.known_version, word.is_trial))
        case Grant():
            return msgspec.msgpack.encode(_Grant(word.term, word.is_granted, word.is_trial))
        case Resign():
            return msgspec.msgpack.encode(_Resign(word.term))
        case _:
            return msgspec.msgpack.encode(_Wake())


def decode_untrusted(data: bytes | str) -> HostWord | None:
    """None: somebody asks whether there is a host. Raises ProtocolError."""
    match word := read_untrusted(_decoder, data, "a word about the host"):
        case _Beat():
            roster = tuple([Place(seat, PeerId.from_raw_untrusted(raw)) for seat, raw in word.roster])
            return Beat(word.term, word.sequence, word.version, roster)
        case _Answer():
            return Answer(word.term, word.sequence, word.version)
        case _Ask():
            return Ask(word.term, word.known_term, word.known_version, word.is_trial)
        case _Grant():
            return Grant(word.term, word.is_granted, word.is_trial)
        case _Resign():
            return Resign(word.term)
        case _:
            return None


@uninterrupted
class Hosting:
    """1. The room's task is in `run()`; it is idle until `start()`, or until another player looks for a host. 2.
    `host()`, `term`, `is_host()`. 3. `resign()` before leaving. What was given as `changed` is called for each change.
    """

    def __init__(self, room: Room, changed: Callable[[int, PeerId | None], None]) -> None:
        self._room = room
        self._changed = changed
        self._lease: HostLease | None = None
        self._started = trio.Event()
        self._wake = trio.Event()
        self._channel: Any = None
        self._quiet_since = 0.0
        self.refused = 0

    def start(self) -> None:
        if self._lease is None:
            self._lease = HostLease(self._room.me, trio.current_time())
            self._quiet_since = trio.current_time()
            self._started.set()

    @property
    def is_on(self) -> bool:
        """Somebody in the room has asked for the host."""
        return self._lease is not None

    @property
    def term(self) -> int:
        return self._lease.term if self._lease is not None else 0

    def host(self) -> PeerId | None:
        self.start()
        assert self._lease is not None
        known = self._lease.host(trio.current_time())
        return known if isinstance(known, PeerId) else None

    def is_host(self) -> bool:
        self.start()
        assert self._lease is not None
        return self._lease.is_host(trio.current_time())

    def accepts(self, peer: PeerId, term: int) -> bool:
        """Whether what this player decided as the host of `term` counts."""
        return self._lease is not None and self._lease.accepts(peer, term)

    def voters(self) -> frozenset[PeerId]:
        """Whose votes make the host: the roster."""
        places = self._lease.roster if self._lease is not None else ()
        return frozenset([place.member for place in places if isinstance(place.member, PeerId)])

    def peer_left(self, peer: PeerId) -> None:
        """It said goodbye: if it was the host, its last word may be lost."""
        if self._lease is not None:
            self._lease.left(peer, trio.current_time())
            self._flush()
            self._hurry()

    def resign(self) -> None:
        if self._lease is not None:
            self._lease.resign(trio.current_time())
            self._flush()

    async def run(self) -> None:
        try:
            self._channel = self._room.channel(CHANNEL, mode="unreliable")
        except ClosedError:
            return  # the room ended before its task began
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            await self._started.wait()
            woke_at = -WAKE_S
            while True:
                self._wake = trio.Event()
                now = trio.current_time()
                assert self._lease is not None
                try:
                    seats = self._seats()
                except ClosedError:
                    return  # the room has ended, and its task is about to
                self._lease.set_members(seats, now)  # type: ignore[arg-type]
                if self._lease.next_timeout() <= now and self._lease.roster:
                    self._lease.handle_timeout(now)
                self._flush()
                if not self._lease.roster and self._may_found(seats, now):
                    self._lease.start(now)
                    self._flush()
                if not self._lease.roster and now - woke_at >= WAKE_S:
                    woke_at = now
                    for peer in self._room.connected:
                        self._send(peer.id, None)
                due = max(self._lease.next_timeout(), now + SHORTEST_LOOK_S) if self._lease.roster else math.inf
                with trio.move_on_at(min(due, now + LOOK_S)):
                    await self._wake.wait()

    def _seats(self) -> dict[PeerId, int]:
        """Who has a seat and a link with us, and we ourselves."""
        here = {self._room.me, *(peer.id for peer in self._room.connected)}
        return {peer: seat for seat, peer in enumerate(self._room.seats) if peer in here and peer is not None}

    def _may_found(self, seats: dict[PeerId, int], now: float) -> bool:
        """We have the lowest seat, and nobody whom we can ask knows a host; all can be asked, or have been waited for."""
        is_lowest = bool(seats) and min(seats, key=lambda peer: seats[peer]) == self._room.me
        all_asked = len(self._room.connected) == len(self._room.peers)
        return is_lowest and now - self._quiet_since >= (FOUND_AFTER_S if all_asked else 4 * FOUND_AFTER_S)

    async def _read(self) -> None:
        async for sender, data in self._channel:
            try:
                word = decode_untrusted(data)
            except ProtocolError:
                self.refused += 1
                continue
            self.start()
            assert self._lease is not None
            if word is not None:
                if not isinstance(word, Ask):
                    self._quiet_since = trio.current_time()
                self._lease.receive(sender.id, word, trio.current_time())
            self._flush()
            self._hurry()

    def _hurry(self) -> None:
        """A host that resigns is followed at once."""
        assert self._lease is not None
        if self._lease.roster and self._lease.next_timeout() <= trio.current_time():
            self._wake.set()

    def _flush(self) -> None:
        assert self._lease is not None
        for target, word in self._lease.take_outputs():
            if isinstance(target, PeerId):
                self._send(target, word)
        for event in self._lease.take_events():
            self._changed(event.term, event.host if isinstance(event.host, PeerId) else None)

    def _send(self, peer: PeerId, word: HostWord | None) -> None:
        with suppress(PeerGone, ClosedError, MessageTooLarge):  # it is said again
            self._channel.send_nowait(encode(word), to=peer)
