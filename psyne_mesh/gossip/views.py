"""What a node shows of itself: counters, links, the shape of the mesh."""

from __future__ import annotations

import attrs

from psyne_mesh.frozen import Frozen
from psyne_mesh.identity import PeerId


@attrs.define
class Stats:
    """Counters since the start; read them, never write."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    frames_dropped: int = 0  # of unknown links, broken, or of an unknown type
    frames_over_budget: int = 0  # dropped unread: their senders cost too much
    items_refused: int = 0  # records and accusations that were broken or badly signed
    records_refused: int = 0  # table full, or too many lives of one member in a short time
    accusations_refused: int = 0  # above the highest signed incarnation, or by strangers
    suspicions_raised: int = 0  # by our own detector
    verdicts: int = 0  # members that we took to be down by silence
    refutations: int = 0  # accusations against ourselves that we answered
    broadcasts_sent: int = 0
    broadcasts_delivered: int = 0
    broadcast_duplicates: int = 0
    broadcasts_skipped: int = 0  # gaps that nobody could fill
    broadcasts_refused: int = 0  # of strangers, for want of a place
    broadcasts_repaired: int = 0  # messages that came because we asked
    repairs_refused: int = 0  # ids that a neighbour asked for twice in one frame, or beyond its budget
    grafts: int = 0
    prunes: int = 0
    syncs: int = 0  # deltas received
    signals_passed_on: int = 0
    signals_dropped: int = 0
    relayed: int = 0  # frames carried one hop for a pair without a link
    knocks: int = 0


class LinkView(Frozen):
    """One link, for people and pictures. `srtt` is in seconds, None while unknown; `eager`: it is part of the broadcast
    tree; `outbound`: we dialled; `impaired`: frames on it do not come through now."""

    peer: PeerId
    srtt: float | None
    eager: bool
    outbound: bool
    impaired: bool


class Topology(Frozen):
    """What this node sees of the mesh. `mode`: "full", "partial" or "lobby". `local_health`: 0 is good, 7 is deaf.
    `coordinates`: (x, y, z, height) of Vivaldi in seconds."""

    own: PeerId
    mode: str
    links: tuple[LinkView, ...]
    passive: tuple[PeerId, ...]
    members: int
    suspected: tuple[PeerId, ...]
    local_health: int
    coordinates: tuple[float, float, float, float]
