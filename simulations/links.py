"""Links: how they come, break and heal, and the cuts that lie across them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from psyne_mesh.identity import PeerId
from simulations import trace as tr
from simulations.actor import CLOSED
from simulations.cuts import SIGNALING, Cut
from simulations.net import RTO_MAX_S, RTO_MIN_S, Host, Lane

if TYPE_CHECKING:
    from simulations.world import World


class Links:
    """Drive it so: `connect`, `close` and `lose` make and end links; `cut` and `mend` partitions; `refresh(hosts)` after
    anything about hosts or the net changed that lanes sum up."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cuts: list[Cut] = []

    def reachable(self, a: int, b: int) -> bool:
        """Whether frames pass between two hosts, both ways, as far as the cuts go."""
        return not any(cut.blocks(a, b) or cut.blocks(b, a) for cut in self.cuts)

    def make_lanes(self, a: Host, b: Host) -> Lane:
        base_s = self._world.latency.one_way_s(a.index, b.index)
        there, back = Lane(a, b, base_s), Lane(b, a, base_s)
        there.twin, back.twin = back, there
        for lane in (there, back):
            lane.blocked = any(cut.blocks(lane.src.index, lane.dst.index) for cut in self.cuts)
            lane.refresh(self._world.net)
        return there

    def connect(self, a: Host, b: Host) -> None:
        """Both sides have a link from now on. It replaces an older one, without a `link_down`."""
        for stale in (a.lanes.get(b.peer), b.lanes.get(a.peer)):
            if stale is not None:
                stale.void = stale.twin.void = True
        if not (a.up and b.up):
            return
        lane = self.make_lanes(a, b)
        a.lanes[b.peer] = lane
        b.lanes[a.peer] = lane.twin
        self._world.trace.add(self._world.now, tr.LINK_UP, a.index, b.index, 0)
        self._world.watcher.on_link(lane)
        rtt = 2 * lane.base_s
        for one, other in ((a, b), (b, a)):
            if one.up and other.peer in one.lanes:
                one.actor.link_up(other.peer, one.local(self._world.now), rtt)
                self._world.drain(one)

    def close(self, host: Host, peer: PeerId, reason: str) -> None:
        """`host` hangs up. What it sent before still arrives; then the other side learns of it. `host` itself knows."""
        lane = host.lanes.get(peer)
        if lane is None:
            return
        lane.twin.void = True
        del host.lanes[peer]
        if not lane.void:
            self._world.at(max(self._world.now + lane.base_s, lane.fifo_at), self.lose, lane.twin, CLOSED)
        self._world.watcher.on_unlink(lane, reason)

    def lose(self, lane: Lane, reason: str) -> None:
        """The side `lane.src` finds that its link is gone. Harmless when it has another one by now."""
        host = lane.src
        if host.lanes.get(lane.dst.peer) is not lane:
            return
        if host.paused and host.inbox is not None:
            host.inbox.append((lane, reason))  # it learns of it when it goes on, after what was sent before
            return
        lane.void = lane.twin.void = True
        del host.lanes[lane.dst.peer]
        self._world.trace.add(self._world.now, tr.LINK_DOWN, host.index, lane.dst.index, 0)
        self._world.watcher.on_unlink(lane, reason)
        if host.up:
            host.actor.link_down(lane.dst.peer, reason, host.local(self._world.now))
            self._world.drain(host)

    # ------------------------------------------------------------------------------------------------------- cuts

    def cut(self, cut: Cut) -> None:
        self.cuts.append(cut)
        self.refresh(self._world.hosts)
        self._world.watcher.on_cuts(self.cuts)

    def mend(self, cut: Cut) -> None:
        if cut in self.cuts:
            self.cuts.remove(cut)
            self.refresh(self._world.hosts)
            self._world.watcher.on_cuts(self.cuts)

    def refresh(self, hosts: Iterable[Host]) -> None:
        """Recomputes what lies across the links of these hosts, after cuts, losses or rates changed."""
        lanes = [side for host in hosts for lane in host.lanes.values() for side in (lane, lane.twin)]
        mended = []
        for lane in lanes:
            was_blocked = lane.blocked
            lane.blocked = any(cut.blocks(lane.src.index, lane.dst.index) for cut in self.cuts)
            lane.refresh(self._world.net)
            if was_blocked and not lane.blocked:
                mended.append(lane)
        for lane in mended:
            self._release(lane)
        for lane in lanes:
            self.refresh_consent(lane)
        for host in self._world.hosts:
            host.sees_signaling = not any(
                cut.blocks(host.index, SIGNALING) or cut.blocks(SIGNALING, host.index) for cut in self.cuts
            )

    def _release(self, lane: Lane) -> None:
        """What waited for the cut to heal goes out with the next retransmission, whose timeout has grown with the outage."""
        outage = self._world.now - lane.broken_since if lane.broken_since >= 0 else RTO_MIN_S
        at = self._world.now + lane.base_s + self._world.rng.random() * min(RTO_MAX_S, max(RTO_MIN_S, outage))
        for frame in lane.held:
            at = lane.fifo_at = max(at, lane.fifo_at)
            self._world.push_frame(at, lane, frame)
        lane.held, lane.held_bytes = [], 0

    def refresh_consent(self, lane: Lane) -> None:
        """RFC 7675: the side `lane.src` gives the path up when no answer has come for `consent_s`."""
        broken = lane.void or lane.blocked or lane.twin.blocked or not lane.dst.up or lane.dst.paused
        if not broken:
            lane.broken_since = -1.0
        elif lane.broken_since < 0:
            lane.broken_since = self._world.now
            self._world.after(self._world.net.consent_s, self._check_consent, lane, self._world.now)

    def _check_consent(self, lane: Lane, since: float) -> None:
        if lane.broken_since != since:
            return
        if lane.src.paused:
            self._world.after(1.0, self._check_consent, lane, since)
            return
        far = lane.twin
        void_before = lane.void
        self.lose(lane, "consent")
        if not void_before and far.src.up and not far.blocked and not lane.blocked:
            self._world.after(lane.base_s, self.lose, far, CLOSED)
