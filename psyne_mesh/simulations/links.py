"""Links on the wire: how they open, break, sleep and heal, and the cuts that lie across them. What becomes of a link is
decided in the product's own `mesh/link_table.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from psyne_mesh.mesh.link_table import CLOSED, Dialing, TableLink
from psyne_mesh.simulations import trace as tr
from psyne_mesh.simulations.actor import ROOM
from psyne_mesh.simulations.cuts import SIGNALING, Cut
from psyne_mesh.simulations.net import RTO_MAX_S, RTO_MIN_S, Host, Lane

if TYPE_CHECKING:
    from psyne_mesh.simulations.world import World


# How often a silent path is checked, before and after RFC 7675's consent ran out: `webrtc/ice/consent.py`.
CHECK_S, CHECK_EXPIRED_S, EXPIRY_S = 1.0, 2.0, 30.0
# A path that died is left for the rendezvous after that: in real rooms of 8 all were heard again 1.2 to 1.6 s after the cut.
BRIDGE_S = (0.9, 1.2)


class Links:
    """Drive it so: `open`, `close`, `sleep` and `lose` make and end links; `cut` and `mend` partitions; `refresh(hosts)` after
    anything about hosts or the net changed that lanes sum up. Tell the table of a host through it, then `world.obey(host)`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cuts: list[Cut] = []

    def reachable(self, a: int, b: int) -> bool:
        """Whether frames pass between two hosts, both ways, as far as the cuts go."""
        return not any(cut.blocks(a, b) or cut.blocks(b, a) for cut in self.cuts)

    @property
    def bridging(self) -> bool:
        """Whether the rendezvous carries what a cut keeps from its path."""
        return self._world.net.bridged and self._world.rendezvous.up

    def bridges(self, a: Host, b: Host) -> bool:
        return self._world.net.bridged and self._world.rendezvous.connects(a, b) and not self._is_plain(a)

    def make_lanes(self, a: Host, b: Host) -> Lane:
        base_s = self._world.latency.one_way_s(a.index, b.index)
        there, back = Lane(a, b, base_s), Lane(b, a, base_s)
        there.twin, back.twin = back, there
        # Made while a cut lies there, it was made over the rendezvous.
        bridged = not self.reachable(a.index, b.index) and self.bridges(a, b)
        for lane in (there, back):
            lane.bridged = bridged
            self._refresh_lane(lane)
        return there

    def _refresh_lane(self, lane: Lane) -> None:
        world = self._world
        cut = any(cut.blocks(lane.src.index, lane.dst.index) for cut in self.cuts)
        lane.blocked = cut and not lane.bridged
        direct_s = world.latency.one_way_s(lane.src.index, lane.dst.index)
        lane.base_s = 2 * world.net.signaling_s if lane.bridged else direct_s
        lane.refresh(world.net)

    def _look_for_bridge(self, lane: Lane) -> None:
        """Both directions of a link take the same rung."""
        cut = not self.reachable(lane.src.index, lane.dst.index)
        if not (cut and self.bridges(lane.src, lane.dst)):
            for side in (lane, lane.twin):
                side.bridged, side.bridge_due = False, -1.0
        elif not lane.bridged and lane.bridge_due < 0:
            lane.bridge_due = lane.twin.bridge_due = self._world.now
            self._world.after(self._world.rng.uniform(*BRIDGE_S), self._bridge, lane, self._world.now)

    def _bridge(self, lane: Lane, since: float) -> None:
        if lane.bridge_due == since and not lane.void and self.bridges(lane.src, lane.dst):
            lane.bridged = lane.twin.bridged = True
            self.refresh([lane.src])

    def connect(self, a: Host, b: Host) -> None:
        """A link on the spot, as if `a` had dialled and all had gone well."""
        now = self._world.now
        a.table.dial(ROOM, b.peer, a.local(now))
        offered = a.table.links[b.peer]
        if isinstance(offered.phase, Dialing) and b.table.offer_received(
            a.peer, offered.session, b.wall_ms(now), b.local(now)
        ):
            self.open(a, offered, b, b.table.links[a.peer])

    def open(self, a: Host, offered: TableLink, b: Host, answered: TableLink) -> None:
        """Both sides have a link from now on. It replaces an older one, without a `link_down`."""
        lane = self.make_lanes(a, b)
        lane.entry, lane.twin.entry = offered, answered
        for host, side in ((a, lane), (b, lane.twin)):
            stale = host.lanes.get(side.dst.peer) or host.asleep.pop(side.dst.peer, None)
            if stale is not None:
                stale.void = stale.twin.void = True
            host.lanes[side.dst.peer] = side
        self._world.trace.add(self._world.now, tr.LINK_UP, a.index, b.index, 0)
        self._world.watcher.on_link(lane)
        for host, entry in ((a, offered), (b, answered)):
            if host.up:
                host.table.opened(entry)
                self._world.obey(host)

    def close(self, host: Host, entry: TableLink, reason: str) -> None:
        """`host` hangs up. What it sent before still arrives; then the other side learns of it, unless a cut lies between."""
        lane = self._lane_of(host, entry)
        if lane is None:
            return
        self._remove(lane)
        lane.twin.void = True
        if not lane.void and not lane.blocked:
            self._world.at(max(self._world.now + lane.base_s, lane.fifo_at), self.lose, lane.twin, CLOSED)
        self.refresh_consent(lane.twin)
        self._world.watcher.on_unlink(lane, reason)
        host.table.gone(entry, reason)

    def lose(self, lane: Lane, reason: str) -> None:
        """The side `lane.src` finds that its link is gone. Harmless when it has another one by now."""
        host = lane.src
        if host.lanes.get(lane.dst.peer) is not lane and host.asleep.get(lane.dst.peer) is not lane:
            return
        if host.paused and host.inbox is not None:
            host.inbox.append((lane, reason))  # it learns of it when it goes on, after what was sent before
            return
        lane.void = lane.twin.void = True
        self._remove(lane)
        self._world.trace.add(self._world.now, tr.LINK_DOWN, host.index, lane.dst.index, 0)
        self._world.watcher.on_unlink(lane, reason)
        if host.up and lane.entry is not None:
            host.table.gone(lane.entry, reason)
            self._world.obey(host)

    def sleep(self, host: Host, entry: TableLink) -> None:
        """The peer is silent: `host` keeps the link, and checks its path until it carries again."""
        lane = self._lane_of(host, entry)
        if lane is not None:
            self._remove(lane)
            host.asleep[lane.dst.peer] = lane
            self._world.watcher.on_unlink(lane, "asleep")
            self._check_path(lane, CHECK_S)

    def revive(self, lane: Lane) -> None:
        """The side `lane.src` hears its peer again."""
        host = lane.src
        if host.asleep.get(lane.dst.peer) is lane and lane.entry is not None:
            del host.asleep[lane.dst.peer]
            host.lanes[lane.dst.peer] = lane
            self._world.watcher.on_link(lane)
            host.table.revived(lane.entry)
            self._world.obey(host)

    def _check_path(self, lane: Lane, every_s: float) -> None:
        """The next check of a path that carries again answers; one that does not is looked at when something changes."""
        if self._carries(lane):
            delay_s = every_s * (0.5 + self._world.rng.random()) + 2 * lane.base_s  # one may be under way in vain
            self._world.after(delay_s, self._check_answered, lane, lane.src.generation)

    def _check_answered(self, lane: Lane, generation: int) -> None:
        if lane.src.generation == generation and self._carries(lane):
            self.revive(lane)

    def _carries(self, lane: Lane) -> bool:
        ends_up = lane.src.up and lane.dst.up and not lane.src.paused and not lane.dst.paused
        return ends_up and not (lane.void or lane.twin.void or lane.blocked or lane.twin.blocked)

    @staticmethod
    def _is_plain(host: Host) -> bool:
        """Its connections have one path, and nothing but consent that looks after it."""
        return getattr(host.actor, "ends_silent_links", False)

    def _lane_of(self, host: Host, entry: TableLink) -> Lane | None:
        for lane in (host.lanes.get(entry.peer), host.asleep.get(entry.peer)):
            if lane is not None and lane.entry is entry:
                return lane
        return None

    def _remove(self, lane: Lane) -> None:
        for lanes in (lane.src.lanes, lane.src.asleep):
            if lanes.get(lane.dst.peer) is lane:
                del lanes[lane.dst.peer]

    # ------------------------------------------------------------------------------------------------------- cuts

    def cut(self, cut: Cut) -> None:
        self.cuts.append(cut)
        self.refresh(self._world.hosts)
        self._world.watcher.on_cuts(self.cuts, self.bridging)

    def mend(self, cut: Cut) -> None:
        if cut in self.cuts:
            self.cuts.remove(cut)
            self.refresh(self._world.hosts)
            self._world.watcher.on_cuts(self.cuts, self.bridging)

    def set_signaling(self, up: bool) -> None:
        """The rendezvous server dies or comes back, and with it what it bridges."""
        self._world.rendezvous.up = up
        self.refresh(self._world.hosts)
        self._world.watcher.on_cuts(self.cuts, self.bridging)

    def refresh(self, hosts: Iterable[Host]) -> None:
        """Recomputes what lies across the links of these hosts, after cuts, losses or rates changed."""
        for host in self._world.hosts:
            host.sees_signaling = not any(
                cut.blocks(host.index, SIGNALING) or cut.blocks(SIGNALING, host.index) for cut in self.cuts
            )
        hosts = list(hosts)
        lanes = [side for host in hosts for lane in host.every_lane() for side in (lane, lane.twin)]
        mended = []
        for lane in lanes:
            was_blocked = lane.blocked
            self._look_for_bridge(lane)
            self._refresh_lane(lane)
            if was_blocked and not lane.blocked:
                mended.append(lane)
        for lane in mended:
            self._release(lane)
        for lane in lanes:
            self.refresh_consent(lane)

    def _release(self, lane: Lane) -> None:
        """What waited for the cut to heal goes out with the next retransmission, whose timeout has grown with the outage; or
        as soon as a check of the path is answered: SCTP is told so (`webrtc/connection.py`)."""
        outage_s = self._world.now - lane.broken_since if lane.broken_since >= 0 else RTO_MIN_S
        latest_s = RTO_MAX_S if self._is_plain(lane.src) else _check_every_s(outage_s)
        at = self._world.now + lane.base_s + self._world.rng.random() * min(latest_s, max(RTO_MIN_S, outage_s))
        for frame in lane.held:
            at = lane.fifo_at = max(at, lane.fifo_at)
            self._world.push_frame(at, lane, frame)
        lane.held, lane.held_bytes = [], 0

    def refresh_consent(self, lane: Lane) -> None:
        """Since when the path of the side `lane.src` is dead: a sleeping link wakes when it is not, and RFC 7675 ends those of
        baselines after `consent_s`."""
        broken = lane.void or lane.blocked or lane.twin.blocked or not lane.dst.up or lane.dst.paused
        if not broken:
            outage_s = self._world.now - lane.broken_since if lane.broken_since >= 0 else 0.0
            lane.broken_since = -1.0
            if outage_s and lane.src.asleep.get(lane.dst.peer) is lane:
                self._check_path(lane, _check_every_s(outage_s))
        elif lane.broken_since < 0:
            lane.broken_since = self._world.now
            if self._is_plain(lane.src):
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


def _check_every_s(outage_s: float) -> float:
    return CHECK_S if outage_s < EXPIRY_S else CHECK_EXPIRED_S
