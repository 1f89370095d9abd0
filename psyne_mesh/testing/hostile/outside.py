"""Who is no member and lies: the signaling server, and strangers who know an address."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import attrs
import trio

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.gossip.records import OwnState, RoomKey
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.signaling.events import PeerInfo, PeerJoined, PeerLeft
from psyne_mesh.testing.world import World

_ENVELOPES_KEPT = 64


class ServerLie(Protocol):
    """What a hostile signaling server does: `pass_on` with each envelope, and `tell` every `every_s` seconds."""

    @property
    def every_s(self) -> float: ...
    def pass_on(self, server: LyingServer, sender: PeerId, to: PeerId, room: str, envelope: str) -> str | None: ...
    def tell(self, server: LyingServer) -> None: ...


class LyingServer:
    """The signaling server of a world, as long as it lies. `lies` counts what it did."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.lies = 0

    @property
    def players(self) -> list[tuple[str, PeerId]]:
        """Who is in which room, as the server has it."""
        registry = self.world.hub.registry
        return [
            (room.room, peer)
            for room in registry.list_rooms().rooms
            for peer in self.world.hub._clients
            if registry.is_member(peer, room.room)
        ]

    def tell(self, to: PeerId, event: PeerJoined | PeerLeft) -> None:
        self.lies += 1
        self.world.hub._clients[to]._inbox.put(event)


@attrs.frozen(kw_only=True)
class TamperedEnvelopes:
    """Changes a character of such a share of the offers, answers and candidates, or passes them to somebody else."""

    share: float = 0.5
    every_s: float = 1.0

    def pass_on(self, server: LyingServer, sender: PeerId, to: PeerId, room: str, envelope: str) -> str | None:
        rng = server.rng
        if rng.random() >= self.share:
            return envelope
        server.lies += 1
        if rng.random() < 0.2:
            others = [peer for _, peer in server.players if peer not in (sender, to)]
            if others:
                server.world.hub.inject(sender, rng.choice(others), room, envelope)
        at = rng.randrange(len(envelope))
        return envelope[:at] + rng.choice("aA0._") + envelope[at + 1 :]

    def tell(self, server: LyingServer) -> None:
        return


@attrs.frozen(kw_only=True)
class DroppedEnvelopes:
    """Passes on all but such a share."""

    share: float = 0.5
    every_s: float = 1.0

    def pass_on(self, server: LyingServer, sender: PeerId, to: PeerId, room: str, envelope: str) -> str | None:
        if server.rng.random() >= self.share:
            return envelope
        server.lies += 1
        return None

    def tell(self, server: LyingServer) -> None:
        return


@attrs.define(kw_only=True)
class ReplayedEnvelopes:
    """Passes everything on, and all of it again and again."""

    every_s: float = 0.1
    _kept: list[tuple[PeerId, PeerId, str, str]] = attrs.field(factory=list, init=False)

    def pass_on(self, server: LyingServer, sender: PeerId, to: PeerId, room: str, envelope: str) -> str | None:
        self._kept = [*self._kept[1 - _ENVELOPES_KEPT :], (sender, to, room, envelope)]
        return envelope

    def tell(self, server: LyingServer) -> None:
        for sender, to, room, envelope in self._kept:
            server.lies += 1
            server.world.hub.inject(sender, to, room, envelope)


@attrs.frozen(kw_only=True)
class MadeUpPlayers:
    """Names `n` players that do not exist, with records of keys that the server made."""

    n: int = 240
    every_s: float = 1.0

    def pass_on(self, server: LyingServer, sender: PeerId, to: PeerId, room: str, envelope: str) -> str | None:
        return envelope

    def tell(self, server: LyingServer) -> None:
        for room, peer in server.players:
            key = RoomKey.of(room.encode())
            for index in range(self.n // 20):
                stranger = Identity.from_seed(server.rng.randbytes(32))
                record = OwnState(epoch=1, joined_at=1, seat=index).sign(
                    key, stranger, 0, server.world.wall_ms() // 1000
                )
                info = PeerInfo(stranger.peer_id, b64encode(record.encoded).decode(), 1000 + index)
                server.tell(peer, PeerJoined(room, info))


@attrs.frozen(kw_only=True)
class MadeUpGoodbyes:
    """Says of everybody to everybody that it has left."""

    every_s: float = 1.0

    def pass_on(self, server: LyingServer, sender: PeerId, to: PeerId, room: str, envelope: str) -> str | None:
        return envelope

    def tell(self, server: LyingServer) -> None:
        players = server.players
        for room, peer in players:
            for elsewhere, other in players:
                if room == elsewhere and other != peer:
                    server.tell(peer, PeerLeft(room, other, server.rng.choice(("left", "lost", "timeout"))))


SERVER_LIES: tuple[Callable[[], ServerLie], ...] = (
    TamperedEnvelopes, DroppedEnvelopes, ReplayedEnvelopes, MadeUpPlayers, MadeUpGoodbyes,
)  # fmt: skip
"""One of each, at their defaults."""


@asynccontextmanager
async def server(world: World, lie: ServerLie) -> AsyncIterator[LyingServer]:
    """The signaling server of that world lies for as long as the block, and is honest again after it."""
    if not hasattr(lie, "pass_on"):
        raise InvalidConfig(f"lie = {lie!r}: what a server does, such as hostile.MadeUpPlayers(n=100)")
    lying = LyingServer(world, random.Random(f"hostile server/{lie!r}"))
    before = world.hub.intercept
    world.hub.intercept = lambda sender, to, room, envelope: lie.pass_on(lying, sender, to, room, envelope)
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(_tell, lying, lie)
            yield lying
    finally:
        world.hub.intercept = before


async def _tell(lying: LyingServer, lie: ServerLie) -> None:
    while True:
        lie.tell(lying)
        await trio.sleep(lie.every_s)


# ------------------------------------------------------------------------------------------------------------- strangers


@attrs.define
class Stranger:
    """Somebody who is in no room and writes other people's addresses on its datagrams. `sent` counts them."""

    world: World
    victim: str
    spoofing: str
    rng: random.Random
    sent: int = 0

    def spoof(self, datagram: bytes) -> None:
        """One datagram to the victim that says it comes from the other player."""
        source, destination = (self.world.net.named(name) for name in (self.spoofing, self.victim))
        for port in destination._sockets:
            for other in source._sockets:
                self.sent += 1
                self.world.net._schedule(0.001, (source.public, other), (destination.public, port), datagram)


_DTLS_KINDS = (20, 21, 22, 23, 25, 26)  # change_cipher_spec, alert, handshake, data, connection id, ack


def spoofed_datagrams(rng: random.Random) -> list[bytes]:
    """One of each kind that says something before a connection stands, or about one that does: alerts, hellos and data of
    DTLS in plaintext, unified headers, STUN of all classes, TURN, noise."""
    bodies = (b"\x02\x28", b"\x01\x00", b"\x02\x00", b"\x01", bytes(12), rng.randbytes(60))
    datagrams = [
        bytes((kind,)) + b"\xfe\xfd" + epoch.to_bytes(2, "big") + number.to_bytes(6, "big") + len(body).to_bytes(2, "big")
        + body
        for kind in _DTLS_KINDS
        for body in bodies
        for epoch, number in ((0, rng.randrange(8)), (1, rng.getrandbits(40)))
    ]  # fmt: skip
    datagrams += [bytes((0x20 | rng.randrange(32),)) + rng.randbytes(40)]
    stun = [0x0001, 0x0101, 0x0111, 0x0011, 0x0016, 0x0003]  # binding of each class, DATA indication, allocate
    datagrams += [kind.to_bytes(2, "big") + b"\0\0\x21\x12\xa4\x42" + rng.randbytes(12) for kind in stun]
    return [*datagrams, b"\x40\x01\x00\x04abcd", rng.randbytes(200), b"", b"\xff" * 4]


@asynccontextmanager
async def stranger(world: World, victim: str, spoofing: str, *, per_s: float = 200.0) -> AsyncIterator[Stranger]:
    """Spoofs `per_s` datagrams a second to the player `victim`, in the name of the player `spoofing`, for as long as the block:
    while they connect, and in play. It knows addresses and ports, and no keys."""
    one = Stranger(world, victim, spoofing, random.Random(f"stranger/{victim}/{spoofing}"))

    async def spoof() -> None:
        while True:
            for datagram in spoofed_datagrams(one.rng):
                if {victim, spoofing} <= world.hosts.keys():
                    one.spoof(datagram)
                await trio.sleep(1 / per_s)

    async with open_background_nursery() as nursery:
        nursery.start_soon(spoof)
        yield one
