"""What a `Node` says: outputs are orders to the shell, events are facts for the room. All frozen, all by value."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from psyne_mesh.frozen import Frozen
from psyne_mesh.gossip.proofs import Proof
from psyne_mesh.gossip.records import Record
from psyne_mesh.identity import PeerId

LeaveReason: TypeAlias = Literal["left", "timeout", "kicked", "capacity", "superseded", "two-faced"]
EvictionReason: TypeAlias = Literal["capacity", "superseded", "kicked"]

# ---------------------------------------------------------------------------------------------------------- outputs


class SendFrame(Frozen):
    """Send `frame` to `peer` over the link that is up. An unreliable frame is <= 1100 bytes and may be lost freely."""

    peer: PeerId
    frame: bytes
    reliable: bool


class Dial(Frozen):
    """Open a link to `peer`. Answer with `link_up` or `dial_failed`; until then no second `Dial` for it comes."""

    peer: PeerId
    record: Record


class CloseLink(Frozen):
    """Close the link to `peer` once what was sent to it is flushed. `link_down` may, but need not, follow."""

    peer: PeerId
    reason: str


Output: TypeAlias = SendFrame | Dial | CloseLink

# ----------------------------------------------------------------------------------------------------------- events


class PeerDiscovered(Frozen):
    """A member is known for the first time, or again after its `PeerLeft`. No link to it need exist yet."""

    record: Record


class PeerRenamed(Frozen):
    """A discovered member's record has another name or other metadata."""

    record: Record


class PeerSuspected(Frozen):
    """A discovered member fell silent. `PeerResumed` or `PeerLeft` follows."""

    peer: PeerId


class PeerResumed(Frozen):
    """A suspected member was heard again, or refuted the suspicion with a newer record."""

    peer: PeerId


class PeerLeft(Frozen):
    """A discovered member is gone. Comes exactly once for each `PeerDiscovered`.

    reason: "left" (it said so), "timeout" (silence), "kicked" (`expel`), "capacity" (it gave up its
    place because the room was full; or a lobby, whose members follow a few only, has no place for it, no way to it or no
    news of it, and may discover it again),
    "superseded" (it restarted; the `PeerDiscovered` of its new life follows at once), "two-faced" (see `TwoFaced`).
    """

    peer: PeerId
    reason: LeaveReason


@attrs.frozen
class TwoFaced:
    """`peer` told members different things of itself under one version, and signed both: `proof`. It is barred for ten minutes
    after the younger of the two; its `PeerLeft` comes before, if it was a member here."""

    peer: PeerId
    proof: Proof = attrs.field(repr=False)


class LetGo(Frozen):
    """A member of `record` said `PeerLeft` of us while we stood still or were not heard, and takes us back now. We never lost
    it, and would know nothing of that. In a room above the full mesh neighbours say so, and it holds for all members."""

    record: Record


@attrs.frozen
class BroadcastReceived:
    """One broadcast of `origin`, in the order of its sending (per origin), each at most once. `seq` counts from 1. `age_s`
    is how long it took, as those who carried it say: a repaired one may be half a minute old."""

    origin: PeerId
    payload: bytes
    seq: int
    age_s: float = attrs.field(default=0.0, eq=False)


class BroadcastsSkipped(Frozen):
    """So many broadcasts of `origin`, before the next one that comes, are gone from every neighbour's cache, or nobody gave
    them in time. Only of an origin of whom something had come before."""

    origin: PeerId
    count: int


class SignalReceived(Frozen):
    """An opaque blob that `origin` sent with `send_signal`. The origin is not proved: the blob must be signed. `carrier`
    is the neighbour that handed it over."""

    origin: PeerId
    blob: bytes
    carrier: PeerId


class PartitionSuspected(Frozen):
    """Three or more members were lost within one second: one event for the whole cut.

    `majority`: this side holds more than half of the members known before the cut.
    """

    lost: tuple[PeerId, ...]
    remaining: tuple[PeerId, ...]
    majority: bool


class PartitionHealed(Frozen):
    """Members lost in a `PartitionSuspected` came back; `missing` are those of the same cut that did not."""

    returned: tuple[PeerId, ...]
    missing: tuple[PeerId, ...]


class SeatsChanged(Frozen):
    """Who holds which seat; the index is the seat number. `own` is our seat, or None without one."""

    seats: tuple[PeerId | None, ...]
    own: int | None


class Evicted(Frozen):
    """We lost our place. "capacity": our seat claim lost and no seat is free; we stay in the mesh without a seat.
    "superseded": the same key started elsewhere; this node has stopped. "kicked": the room expelled us; stopped."""

    reason: EvictionReason


Event: TypeAlias = (
    PeerDiscovered
    | PeerRenamed
    | PeerSuspected
    | PeerResumed
    | PeerLeft
    | TwoFaced
    | LetGo
    | BroadcastReceived
    | BroadcastsSkipped
    | SignalReceived
    | PartitionSuspected
    | PartitionHealed
    | SeatsChanged
    | Evicted
)
