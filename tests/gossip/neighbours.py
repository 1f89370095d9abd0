"""Hand-driven neighbours of one `Broadcast` or `Overlay`."""

from __future__ import annotations

from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip.broadcast import Broadcast
from psyne_mesh.gossip.broadcast_wire import Head, Message
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.events import BroadcastReceived
from psyne_mesh.gossip.neighbours import Neighbour, Neighbours
from psyne_mesh.gossip.overlay import Overlay
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


def tree(*links: PeerId, config: GossipConfig = CONFIG) -> Broadcast:
    broadcast = Broadcast(config, Neighbours().links, lambda origin: 0, Effects())
    for peer in links:
        link_up(broadcast, peer, 0.0)
    return broadcast


def neighbour(peer: PeerId, now: float = 0.0, *, outbound: bool = True) -> Neighbour:
    return Neighbours().open(peer, now, outbound=outbound)


def link_up(broadcast: Broadcast, peer: PeerId, now: float) -> None:
    broadcast.links[peer] = neighbour(peer, now)
    broadcast.link_up(broadcast.links[peer], now)


def link_down(broadcast: Broadcast, peer: PeerId) -> None:
    del broadcast.links[peer]
    broadcast.link_down(peer)


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
        broadcast.gossip_received(broadcast.links[peer], msg, Head(hops, flags, age), now, flat=flat)
    else:
        broadcast.duplicate_received(broadcast.links[peer], msg, flags, now)


def delivered(broadcast: Broadcast) -> list[int]:
    sequences = [event.seq for event in broadcast.effects.events if isinstance(event, BroadcastReceived)]
    broadcast.effects.events.clear()
    return sequences


def placed(overlay: Overlay, peer: PeerId, now: float, *, outbound: bool) -> None:
    """A link of this peer came up."""
    overlay.links[peer] = neighbour(peer, now, outbound=outbound)
    overlay.link_up(overlay.links[peer], now)


def displaced(overlay: Overlay, peer: PeerId, now: float) -> None:
    if overlay.links.pop(peer, None) is not None:
        overlay.link_down(now)


def heard(overlay: Overlay, peer: PeerId, degree: int, srtt: float, *, audible: bool = True) -> None:
    """What its probes say, and the look at it."""
    if (found := overlay.links.get(peer)) is not None:
        found.degree, found.probe.srtt, found.probe.impaired = degree, srtt, not audible
    overlay.look()
