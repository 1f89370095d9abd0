"""The network as data: hosts, the lanes between them, and what a lane does to one frame."""

from __future__ import annotations

import math
import random
from collections import deque
from typing import Any

import attrs

from psyne_mesh.identity import PeerId
from psyne_mesh.mesh.link_table import LinkTable, TableLink

# Retransmission on a reliable lane, as our SCTP does it: the first timeout is 200 ms plus the round trip, doubling, capped.
RTO_MIN_S = 0.2
RTO_MAX_S = 10.0
# What one direction of a link holds while it is cut or choked. Beyond it an unreliable frame is lost and a reliable link
# breaks: a sender that cannot deliver in order has nothing better to do.
LANE_QUEUE_BYTES_MAX = 4 * 2**20
# Frames that wait in front of a stalled process; beyond it the socket buffer drops (208 KiB at some 200 B a frame).
INBOX_FRAMES_MAX = 1024


@attrs.define(kw_only=True)
class NetModel:
    """What holds for every link unless a fault says otherwise. Probabilities are per frame and direction."""

    jitter_s: float = 0.0  # added to each frame, uniform in [0, jitter_s]
    jitter_mean_s: float = 0.0  # added to each frame, exponential with this mean
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # this share of unreliable frames is held back by up to `reorder_s`
    reorder_s: float = 0.05
    dial_s: tuple[float, float] = (
        0.3,
        1.5,
    )  # offer, answer, ICE, DTLS and SCTP together: measured range on the internet
    dial_failure: float = 0.0
    dial_timeout_s: float = 15.0  # WebRTCConfig.connection_timeout_s
    answer_timeout_s: float = 4.0  # an offer that nobody has answered by then failed: long before ICE would say so
    # RFC 7675: a path that is dead for so long ends the connection of a baseline. Ours has more rungs than one path, so
    # it is the room's verdict that ends a link, and puts it to sleep.
    consent_s: float = 30.0
    instant_notice: bool = False  # a crash is told to the neighbours after one latency, as PeerSim's TCP does
    signaling_s: float = 0.05  # one way between a node and the rendezvous
    # Whom a cut parts and who both reach the rendezvous go on over it, as the last rung of a connection does
    # (`webrtc/ladder.py`). False: each side of a cut has a server of its own.
    bridged: bool = True


class Lane:
    """One direction of a link: everything that sending a frame needs, gathered so that the fast path is short."""

    __slots__ = (
        "base_s", "blocked", "bridge_due", "bridged", "broken_since", "dst", "entry", "fifo_at", "held", "held_bytes", "loss",
        "own_loss", "plain", "rate", "src", "twin", "void", "wire_free_at",
    )  # fmt: skip

    def __init__(self, src: Host, dst: Host, base_s: float) -> None:
        self.src = src
        self.dst = dst
        self.base_s = base_s
        self.twin: Lane = self
        self.entry: TableLink | None = None  # what `src` has of it in its table of links; None: it needs none
        self.plain = True  # nothing but delay and uniform jitter applies: the fast path may be taken
        self.void = False  # frames go nowhere: closed, or the far side is gone
        self.blocked = False  # a cut lies across it, and nothing bridges it
        self.bridged = False  # a cut lies across it, and frames go over the rendezvous
        self.bridge_due = -1.0  # when it was cut off, and is to be bridged in a moment; negative: it is not
        self.broken_since = -1.0  # since when consent checks of this side fail; negative: they do not
        self.own_loss = 0.0  # loss of this direction alone, beside the network's and the hosts'
        self.loss = 0.0  # all of them together
        self.rate = 0.0  # bytes/s; 0: no limit
        self.wire_free_at = 0.0
        self.fifo_at = 0.0  # when the last reliable frame arrives: nothing overtakes it
        self.held: list[bytes] = []  # reliable frames that wait for a cut to heal
        self.held_bytes = 0

    def refresh(self, net: NetModel) -> None:
        """Recomputes what `plain` and `loss` sum up, after something about the lane, its hosts or the net changed."""
        src, dst = self.src, self.dst
        self.loss = 1 - (1 - net.loss) * (1 - self.own_loss) * (1 - src.loss_out) * (1 - dst.loss_in)
        self.plain = not (
            self.blocked or self.loss or self.rate or src.uplink or dst.downlink
            or net.duplicate or net.reorder or net.jitter_mean_s
        )  # fmt: skip


class Host:
    """One simulated machine: its node, its links, its clock and its troubles."""

    __slots__ = (
        "actor", "asleep", "busy_until", "bytes_in", "bytes_out", "clock_offset", "clock_rate", "deadline", "down_free_at",
        "downlink", "generation", "inbox", "inbox_dropped", "index", "joined_at", "lanes", "loss_in", "loss_out", "msgs_in",
        "msgs_out", "nat", "paused", "paused_since", "peer", "processing_s", "queued_bytes_max", "registered", "rng",
        "sees_signaling", "table", "table_at", "timer_at", "timer_spins", "true_clock", "up", "up_free_at", "uplink",
        "waking", "wall_offset",
    )  # fmt: skip

    def __init__(self, index: int, peer: PeerId) -> None:
        self.index = index
        self.peer = peer
        self.actor: Any = None
        self.rng: random.Random | None = None
        self.up = False
        self.joined_at = -1.0
        self.generation = 0  # how often it was started
        self.lanes: dict[PeerId, Lane] = {}
        self.table: LinkTable  # of this start
        self.table_at = math.inf  # when it wants to be asked again, by its own clock
        self.asleep: dict[PeerId, Lane] = {}  # kept for silent peers: see `mesh/link_table.py`
        self.timer_at = math.inf  # the live timer entry in the queue
        self.deadline = math.inf  # what the node last asked for, by its own clock
        self.timer_spins = 0  # timers in a row at one and the same moment
        # Clock: what the node reads is `clock_offset + t * clock_rate`.
        self.true_clock = True
        self.clock_offset = 0.0
        self.clock_rate = 1.0
        self.wall_offset = 0.0  # how wrong the calendar is; nodes read it once, for their epoch
        # Troubles.
        self.loss_in = 0.0
        self.loss_out = 0.0
        self.uplink = 0.0  # bytes/s; 0: no limit
        self.downlink = 0.0
        self.up_free_at = 0.0
        self.down_free_at = 0.0
        self.processing_s = 0.0  # for each frame and timer
        self.paused = False
        self.paused_since = 0.0
        self.busy_until = 0.0
        # In front of a stalled or slow process: frames, and why a link was lost.
        self.inbox: deque[tuple[Lane, bytes | str]] | None = None
        self.waking = False  # a wake entry is in the queue
        self.nat = "open"
        self.registered = False  # with the rendezvous
        self.sees_signaling = True
        # Counters.
        self.msgs_out = 0
        self.bytes_out = 0
        self.msgs_in = 0
        self.bytes_in = 0
        self.inbox_dropped = 0
        self.queued_bytes_max = 0.0  # the most that ever waited for this host's downlink

    def every_lane(self) -> list[Lane]:
        return [*self.lanes.values(), *self.asleep.values()]

    def wall_ms(self, now: float) -> int:
        """What this host's calendar shows, in ms since an hour that is the same for all."""
        return int((now + self.wall_offset) * 1000)

    def local(self, now: float) -> float:
        """What this host's clock shows at the true time `now`."""
        return now if self.true_clock else self.clock_offset + now * self.clock_rate

    def true(self, local: float) -> float:
        """The true time at which this host's clock shows `local`."""
        return local if self.true_clock else (local - self.clock_offset) / self.clock_rate


class LaneOverflow(Exception):
    """A reliable frame found the lane's queue full."""


def arrival_times(
    lane: Lane, size: int, reliable: bool, now: float, net: NetModel, rng: random.Random
) -> tuple[float, ...]:
    """When a frame of `size` bytes that is sent `now` arrives: never, once, or (unreliable, duplicated) twice.

    A reliable frame always arrives: each loss costs one retransmission timeout, and it never overtakes its predecessor.
    Raises `LaneOverflow` when a reliable frame finds `LANE_QUEUE_BYTES_MAX` waiting before it.
    """
    leaves = _through_the_wires(lane, size, now)
    if leaves < 0:
        if reliable:
            raise LaneOverflow
        return ()
    if not reliable and rng.random() < lane.loss:
        return ()
    at = leaves + lane.base_s + _jitter(net, rng)
    if reliable:
        rto = RTO_MIN_S + 2 * lane.base_s
        while lane.loss and rng.random() < lane.loss:
            at += rto
            rto = min(2 * rto, RTO_MAX_S)
        at = lane.fifo_at = max(at, lane.fifo_at)
        return (at,)
    if net.reorder and rng.random() < net.reorder:
        at += net.reorder_s * rng.random()
    if net.duplicate and rng.random() < net.duplicate:
        return (at, at + _jitter(net, rng) + lane.base_s * rng.random())
    return (at,)


def _through_the_wires(lane: Lane, size: int, now: float) -> float:
    """When the last byte leaves the narrowest wire (uplink, the lane's own, downlink), or -1 when a queue is full."""
    src, dst = lane.src, lane.dst
    leaves = now
    if src.uplink:
        leaves = max(leaves, src.up_free_at) + size / src.uplink
        if (leaves - now) * src.uplink > LANE_QUEUE_BYTES_MAX:
            return -1.0
        src.up_free_at = leaves
    if lane.rate:
        entered = leaves
        leaves = max(leaves, lane.wire_free_at) + size / lane.rate
        if (leaves - entered) * lane.rate > LANE_QUEUE_BYTES_MAX:
            return -1.0
        lane.wire_free_at = leaves
    if dst.downlink:
        entered = leaves
        leaves = max(leaves, dst.down_free_at) + size / dst.downlink
        waiting = (leaves - entered) * dst.downlink
        if waiting > LANE_QUEUE_BYTES_MAX:
            return -1.0
        dst.queued_bytes_max = max(dst.queued_bytes_max, waiting)
        dst.down_free_at = leaves
    return leaves


def _jitter(net: NetModel, rng: random.Random) -> float:
    jitter = net.jitter_s * rng.random() if net.jitter_s else 0.0
    if net.jitter_mean_s:
        jitter += rng.expovariate(1 / net.jitter_mean_s)
    return jitter
