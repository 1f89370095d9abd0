"""A player that is a member like any other, and lies: what `hostile.member` gives."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import trio

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import InvalidConfig, LocalError, RemoteError
from psyne_mesh.gossip.records import RoomKey
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.link import Link, LinkState
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.room.room import Room, inside
from psyne_mesh.testing.hostile.chunks import ChunkMaker, Peer
from psyne_mesh.testing.hostile.frames import Frames
from psyne_mesh.testing.world import World
from psyne_mesh.webrtc.sctp import wire

HEADERS_BYTES = 93  # of a datagram: IPv4 20, UDP 8, DTLS 37, SCTP 28
PACKET_BYTES = 1_191  # of SCTP, in a datagram that every path takes
_ALONE_S = 0.1  # between two looks whether anybody is there to be lied to


class Behaviour(Protocol):
    """What a hostile member does. `lies` tells one lie, or a few, before each of its values, which is how many bytes that
    took on the way to each victim; it is asked on when they have gone out at `rate_bps` bits a second."""

    @property
    def rate_bps(self) -> float: ...
    def lies(self, liar: Liar) -> Iterator[int]: ...


class Liar:
    """One hostile member. room: its own, which is honest, and in which it sees what the others do to it.

    told_bytes: what it has told each victim so far. parted: when each victim ended the link, in Trio's time, and why as far
    as the link says; a victim that it found again stands there no longer.
    """

    def __init__(self, room: Room, identity: Identity, rng: random.Random) -> None:
        membership = inside(room).joined()
        self.room = room
        self.identity = identity
        self.rng = rng
        self.told_bytes = 0
        self.parted: dict[PeerId, float] = {}
        self.membership: Membership = membership
        self.key = RoomKey(membership.node.own_record.room)
        self.frames = Frames(self.key, identity, rng, self.stranger, self._dated)
        self.began = trio.current_time()
        self._met: dict[PeerId, None] = {}

    def stranger(self) -> Identity:
        """A key that nobody has seen."""
        return Identity.from_seed(self.rng.randbytes(32))

    def _dated(self) -> tuple[int, int]:
        return self.membership.node.own_record.instance, self.room._core.wall_ms() // 1000

    @property
    def victims(self) -> list[PeerId]:
        """Whom it can speak to now."""
        return [peer for peer in self.membership.node.members if self._link(peer) is not None]

    # ------------------------------------------------------------------------------------------------------- speaking

    def say(self, frame: bytes, *, reliable: bool = True) -> int:
        """A frame of gossip to every victim. Returns the bytes that it takes on the way to one, as the others do."""
        for peer in self.victims:
            self.say_to(peer, frame, reliable=reliable)
        return _on_the_way(len(frame))

    def say_to(self, peer: PeerId, frame: bytes, *, reliable: bool = True) -> None:
        link = self._link(peer)
        if link is not None:
            link.send_frame(self.membership.tag + frame, reliable=reliable)

    def message(self, channel: str, payload: bytes, *, reliable: bool = True) -> int:
        """A message on a channel of the room to every victim, whatever is in it."""
        config = DataChannelConfig(
            label=self.membership.label(channel), ordered=reliable, max_retransmits=None if reliable else 0
        )
        for peer in self.victims:
            link = self._link(peer)
            try:
                if link is not None:
                    link.send_message(config, payload)
            except (LocalError, RemoteError):
                continue  # it takes no more
        return _on_the_way(len(payload))

    def association_with(self, victim: PeerId) -> Peer:
        """What SCTP of this side knows of its link to a victim. KeyError without one."""
        link = self._link(victim)
        if link is None:
            raise KeyError(victim)
        stack = _stack(link)
        outbound, inbound = stack._association._outbound, stack._association._inbound
        maker = ChunkMaker(interleaving=outbound.queue.interleaving, tsn=outbound.outstanding.next_tsn)
        request, base = stack._association._resets._next_request, inbound.cumulative_tsn
        return Peer(maker, request, base, outstanding=4_000)

    def inject(self, victim: PeerId, chunks: list[bytes]) -> int:
        """SCTP chunks, written by hand, in one packet. What SCTP of this side thinks of it is not asked."""
        link = self._link(victim)
        if link is None:
            return 0
        stack = _stack(link)
        packet = wire.seal(stack._association._header, chunks)
        link._connection._link._wire.send(stack._dtls.send([packet]))  # type: ignore[union-attr]
        return HEADERS_BYTES + len(packet)

    def _link(self, peer: PeerId) -> Link | None:
        link = self.room._core.link(peer)
        return link if link is not None and link.state is LinkState.OPEN and not link.entry.is_asleep else None

    # ---------------------------------------------------------------------------------------------------------- lying

    async def lie(self, behaviour: Behaviour) -> None:
        """Until it is cancelled, or has nothing to say any more."""
        lies, due = None, trio.current_time()
        while True:
            self._look()
            if not self.victims:
                await trio.sleep(_ALONE_S)
                due = trio.current_time()
                continue
            lies = lies or behaviour.lies(self)
            size = next(lies, None)
            if size is None:
                return
            self.told_bytes += size
            due += 8 * size / behaviour.rate_bps
            await trio.sleep_until(due)

    def _look(self) -> None:
        now, victims = trio.current_time(), self.victims
        for peer in victims:
            self._met[peer] = None
            self.parted.pop(peer, None)
        for peer in self._met.keys() - victims:
            self.parted.setdefault(peer, now)


@asynccontextmanager
async def member(
    world: World, behaviour: Behaviour, *, room: str = "lobby", name: str = "mallory", **options: Any
) -> AsyncIterator[Liar]:
    """A hostile member of that room for as long as the block. It joins as an honest one does (`options` are those of
    `World.join`), and begins to lie as soon as anybody is connected to it. InvalidConfig for anything but a behaviour."""
    rate_bps = getattr(behaviour, "rate_bps", None)
    if not hasattr(behaviour, "lies") or not isinstance(rate_bps, int | float) or not rate_bps > 0:
        raise InvalidConfig(f"behaviour = {behaviour!r}: one of this module, such as hostile.HavesFlood(rate_bps=1e6)")
    async with world.joining(room, name, **options) as joined, open_background_nursery() as nursery:
        liar = Liar(joined, joined._core.identity, random.Random(f"hostile/{name}/{behaviour!r}"))
        nursery.start_soon(liar.lie, behaviour)
        yield liar


def _on_the_way(size: int) -> int:
    return size + HEADERS_BYTES * max(1, -(-size // PACKET_BYTES))


def _stack(link: Link) -> Any:
    """Its parts are nobody's business but an attacker's."""
    assert link._connection is not None
    return link._connection._link.stack
