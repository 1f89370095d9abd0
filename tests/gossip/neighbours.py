"""One `Broadcast` and its hand-driven neighbours."""

from __future__ import annotations

from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip.broadcast import Broadcast
from psyne_mesh.gossip.broadcast_wire import Head, Message
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.events import BroadcastReceived
from psyne_mesh.gossip.records import RoomKey
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import CheapIdentity

ROOM = RoomKey.of(b"room")
ORIGIN = CheapIdentity(0)
A, B, C, D = (CheapIdentity(n).peer_id for n in (1, 2, 3, 4))
CONFIG = GossipConfig()


def message(sequence: int, floor: int | None = None, epoch: int = 1, payload: bytes = b"same bytes") -> Message:
    return wire.sign_message(ROOM, ORIGIN, epoch, sequence, floor or max(1, sequence - 20), payload)


def another(sequence: int, origin: int = 9) -> Message:
    """Of another origin."""
    return wire.sign_message(ROOM, CheapIdentity(origin), 1, sequence, 1, b"")


def sign(number: int) -> wire.Keep:
    return wire.sign_keep(ROOM, ORIGIN, number)


def tree(*links: PeerId) -> Broadcast:
    broadcast = Broadcast(CONFIG, Effects())
    for peer in links:
        broadcast.link_up(peer, 0.0)
    return broadcast


def sent(broadcast: Broadcast) -> list[tuple[PeerId, int]]:
    """(to, frame type), drained."""
    frames = [(out.peer, out.frame[1]) for out in broadcast.effects.frames]
    broadcast.effects.frames.clear()
    return frames


def receive(
    broadcast: Broadcast, peer: PeerId, msg: Message, now: float, hops: int = 0, flags: int = 0, *,
    flat: bool = False, age: float = 0.0,
) -> None:  # fmt: skip
    if broadcast.wants(msg):
        broadcast.gossip_received(peer, msg, Head(hops, flags, age), now, flat=flat)
    else:
        broadcast.duplicate_received(peer, msg, flags, now)


def delivered(broadcast: Broadcast) -> list[int]:
    sequences = [event.seq for event in broadcast.effects.events if isinstance(event, BroadcastReceived)]
    broadcast.effects.events.clear()
    return sequences
