"""The discrete-event world: virtual time, hosts, links and faults around pure gossip nodes.

Same seed, same world: every random draw comes from generators seeded with the world's seed, every queue entry has a
sequence number, and nothing iterates over a set.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from psyne_mesh.gossip.events import CloseLink, Dial, SendFrame, SignalReceived
from psyne_mesh.identity import PeerId
from psyne_mesh.mesh import link_table
from psyne_mesh.mesh.link_table import LinkTable
from psyne_mesh.simulations import trace as tr
from psyne_mesh.simulations.actor import ROOM, Actor, ActorView
from psyne_mesh.simulations.agenda import Agenda, grained
from psyne_mesh.simulations.dialing import Dialer
from psyne_mesh.simulations.latency import Latency
from psyne_mesh.simulations.links import Links
from psyne_mesh.simulations.net import (
    INBOX_FRAMES_MAX,
    LANE_QUEUE_BYTES_MAX,
    Host,
    Lane,
    LaneOverflow,
    NetModel,
    arrival_times,
)
from psyne_mesh.simulations.rendezvous import Rendezvous
from psyne_mesh.simulations.trace import Trace
from psyne_mesh.simulations.watcher import Watcher

_FRAME: Final = 0
_TIMER: Final = 1
_CALL: Final = 2
_NEVER: Final = math.inf
_TIMER_SPINS_MAX: Final = 10_000

MakeActor = Callable[["World", Host], Actor]


class World:
    """Drive it so:

    1. `World(seed, net, latency, make_actor)`, then `add_host(...)` for each machine. A room of `partial_from` members has
       no full mesh: what `GossipConfig` says, 13 by default.
    2. `start(host)` now, or by `at(time, call, ...)` later; likewise `crash`, `pause`, `links.cut`, `links.mend`, ...
    3. `run(until)`, as often as wanted; look at hosts and actors in between.
    4. `trace.digest()` is the fingerprint of all that happened.
    """

    def __init__(
        self, seed: int, net: NetModel, latency: Latency, make_actor: MakeActor, watcher: Watcher | None = None,
        partial_from: int = 13,
    ) -> None:  # fmt: skip
        self.seed = seed
        self.net = net
        self.latency = latency
        self.rng = random.Random(f"world/{seed}")
        self.now = 0.0
        self.events = 0
        self.frames_lost = 0
        self.hosts: list[Host] = []
        self.by_peer: dict[PeerId, Host] = {}
        self.trace = Trace()
        self.watcher = watcher or Watcher()
        self.links = Links(self)
        self.dialer = Dialer(self)
        self.rendezvous = Rendezvous(self)
        self.partial_from = partial_from
        self._make_actor = make_actor
        self._agenda = Agenda()

    # ------------------------------------------------------------------------------------------------------- time

    def at(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        """Has `call(*arguments)` happen at `time` (not before now)."""
        self._agenda.push(max(time, self.now), _CALL, call, arguments)

    def after(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        self._agenda.push(self.now + delay, _CALL, call, arguments)

    def run(self, until: float) -> None:
        """Lets everything happen that is due by `until`; afterwards `now == until`."""
        agenda = self._agenda
        while (entry := agenda.pop(until)) is not None:
            self.now, _, kind, target, data = entry
            self.events += 1
            if kind == _FRAME:
                self._deliver(target, data)
            elif kind == _TIMER:
                self._fire(target, data)
            else:
                target(*data)
        self.now = max(self.now, until)

    def push_frame(self, time: float, lane: Lane, frame: bytes) -> None:
        self._agenda.push(time, _FRAME, lane, frame)

    # ------------------------------------------------------------------------------------------------------ hosts

    def add_host(self, peer: PeerId) -> Host:
        host = Host(len(self.hosts), peer)
        self.hosts.append(host)
        self.by_peer[peer] = host
        return host

    def start(self, host: Host, *, signaling: bool = True) -> None:
        """Switches the machine on: a new node with the old name. It registers with the rendezvous if that can be reached."""
        if host.up:
            return
        host.generation += 1
        host.rng = random.Random(f"node/{self.seed}/{host.index}/{host.generation}")
        host.actor = self._make_actor(self, host)
        sessions = itertools.count(1)
        host.table = LinkTable(host.peer, lambda: f"{host.index}.{host.generation}.{next(sessions)}")
        host.table.enter(ROOM, ActorView(host.actor, self.partial_from))
        host.table_at = _NEVER
        host.up, host.paused, host.waking = True, False, False
        host.busy_until = 0.0
        host.inbox = deque() if host.processing_s else None
        host.joined_at = self.now
        self.trace.add(self.now, tr.SCRIPT, host.index, 1, host.generation)
        self.watcher.on_up(host)
        host.actor.start(host.local(self.now))
        self.drain(host)
        if signaling:
            self.rendezvous.join(host)

    def crash(self, host: Host) -> None:
        """The machine is gone without a word. Its links stay, for the others, until consent runs out."""
        if not host.up:
            return
        self._switch_off(host, "crash")
        for lane in host.every_lane():
            lane.twin.void = True  # what it has sent still travels; what comes for it falls on the floor
            if self.net.instant_notice:
                self.after(lane.base_s, self.links.lose, lane.twin, "lost")
            else:
                self.links.refresh_consent(lane.twin)
        host.lanes.clear()
        host.asleep.clear()
        self.rendezvous.notice_gone(host)

    def leave(self, host: Host) -> None:
        """The player quits: the node says goodbye, what it sent still travels, then the machine is off."""
        if not host.up:
            return
        host.actor.leave(host.local(self.now))
        self.drain(host)
        host.table.close()
        host.table.depart(ROOM, host.local(self.now))
        host.table.hang_up_all()
        self.obey(host)
        if host.up:
            self._switch_off(host, "leave")
            self.rendezvous.leave(host)

    def _switch_off(self, host: Host, how: str) -> None:
        host.up, host.inbox, host.timer_at, host.deadline = False, None, _NEVER, _NEVER
        self.trace.add(self.now, tr.SCRIPT, host.index, 0, host.generation)
        self.watcher.on_down(host, how)

    def pause(self, host: Host, seconds: float) -> None:
        """The process stands still (a debugger, a suspended laptop, a starved core) and then goes on where it was."""
        if not host.up or host.paused:
            return
        host.paused, host.paused_since = True, self.now
        if host.inbox is None:
            host.inbox = deque()
        self._refresh_consents_of(host)
        self.after(seconds, self._resume, host, host.generation)

    def _resume(self, host: Host, generation: int) -> None:
        if not host.up or host.generation != generation:
            return
        host.paused = False
        self._refresh_consents_of(host)
        # The shell measures how late its own deadline fired, before it handles anything that queued up meanwhile.
        host.actor.note_loop_lag(self.now - host.paused_since, host.local(self.now))
        self.drain(host)
        # An event loop that wakes finds timers overdue and frames waiting, and takes them in no promised order.
        if self.rng.random() < 0.5 and host.timer_at == self.now:
            self._fire(host, generation)
        self._wake(host, generation)

    def _refresh_consents_of(self, host: Host) -> None:
        for lane in host.every_lane():
            self.links.refresh_consent(lane.twin)

    def slow(self, host: Host, processing_s: float) -> None:
        """From now on each frame and timer costs `processing_s` of one processor (0: as fast as the world)."""
        host.processing_s = processing_s
        if processing_s and host.inbox is None and host.up:
            host.inbox = deque()

    def set_clock(self, host: Host, offset: float, rate: float = 1.0) -> None:
        host.clock_offset, host.clock_rate = grained(offset), rate
        host.true_clock = offset == 0.0 and rate == 1.0

    # ---------------------------------------------------------------------------------------------------- traffic

    def _send(self, host: Host, peer: PeerId, frame: bytes, reliable: bool) -> None:
        lane = host.lanes.get(peer)
        if lane is None:
            lane = self._connectionless(host, peer)
            if lane is None:
                return
        host.msgs_out += 1
        host.bytes_out += len(frame)
        if lane.plain:
            at = self.now + lane.base_s
            if self.net.jitter_s:
                at += self.net.jitter_s * self.rng.random()
            if reliable:
                if at < lane.fifo_at:
                    at = lane.fifo_at
                lane.fifo_at = at
            self._agenda.push(at, _FRAME, lane, frame)
        else:
            self._send_impaired(lane, frame, reliable)

    def _send_impaired(self, lane: Lane, frame: bytes, reliable: bool) -> None:
        size = len(frame)
        if lane.blocked and reliable:
            if lane.held_bytes + size <= LANE_QUEUE_BYTES_MAX:
                lane.held.append(frame)
                lane.held_bytes += size
                return
            self.after(0.0, self.links.lose, lane, "overflow")
            return
        try:
            times = () if lane.blocked else arrival_times(lane, size, reliable, self.now, self.net, self.rng)
        except LaneOverflow:
            self.after(0.0, self.links.lose, lane, "overflow")
            return
        if not times:
            self._note_lost(lane, size)
        for at in times:
            self._agenda.push(at, _FRAME, lane, frame)

    def _connectionless(self, host: Host, peer: PeerId) -> Lane | None:
        """A lane on the spot for baselines that assume free datagrams; others may send only over links."""
        other = self.by_peer.get(peer)
        if other is None or not getattr(host.actor, "connectionless", False):
            return None
        lane = self.links.make_lanes(host, other)
        host.lanes[peer] = lane
        other.lanes[host.peer] = lane.twin
        return lane

    def _note_lost(self, lane: Lane, size: int) -> None:
        self.frames_lost += 1
        self.trace.add(self.now, tr.LOST, lane.src.index, lane.dst.index, size)

    def _deliver(self, lane: Lane, frame: bytes) -> None:
        host = lane.dst
        if lane.void or not host.up:
            self._note_lost(lane, len(frame))
        elif host.inbox is None:
            size = len(frame)
            host.msgs_in += 1
            host.bytes_in += size
            now = self.now
            self.trace.add(now, tr.FRAME, lane.src.index, host.index, size)
            if self.watcher.watches_frames:
                self.watcher.on_frame(lane, frame)
            if host.asleep and lane.src.peer in host.asleep:
                self.links.revive(lane.twin)
            host.actor.receive(lane.src.peer, frame, now if host.true_clock else host.local(now))
            self.drain(host)
        elif len(host.inbox) < INBOX_FRAMES_MAX:
            host.inbox.append((lane, frame))
            self._wake_later(host)
        else:
            host.inbox_dropped += 1
            self._note_lost(lane, len(frame))

    def _fire(self, host: Host, generation: int) -> None:
        if host.timer_at != self.now or host.generation != generation or not host.up:
            return  # a newer entry took over
        host.timer_at = _NEVER
        if host.paused or host.busy_until > self.now:
            self._wake_later(host)
            return
        deadline, local = host.deadline, self.now if host.true_clock else host.local(self.now)
        if deadline == _NEVER:
            return
        if deadline > local + 1e-9:  # it moved later since this entry was made
            self._arm(host, deadline)
            return
        self.trace.add(self.now, tr.TIMER, host.index, host.index, 0)
        host.busy_until = self.now + host.processing_s
        # Rounding between the clocks must not leave the timer a hair in the future: that would loop for ever.
        host.actor.handle_timeout(max(local, deadline))
        self.drain(host)

    def drain(self, host: Host) -> None:
        """Steps 3 of driving an actor: outputs, events, timer. To be called after every input."""
        actor = host.actor
        ordered = True
        while ordered:
            ordered = False
            for output in actor.take_outputs():
                if output.__class__ is SendFrame:
                    self._send(host, output.peer, output.frame, output.reliable)
                elif output.__class__ is Dial:
                    host.table.dial(ROOM, output.peer, host.local(self.now))
                    ordered = True
                elif output.__class__ is CloseLink:
                    host.table.unwant(ROOM, output.peer, output.reason, host.local(self.now))
                    ordered = True
            for event in actor.take_events():
                if event.__class__ is SignalReceived:
                    self.dialer.signal_received(host, event.origin, event.blob)
                self.watcher.on_event(host, event)
            if ordered:
                self._obey(host)
        deadline = actor.next_timeout()
        if deadline is None:
            host.deadline = _NEVER
        else:
            host.deadline = deadline
            if deadline < host.timer_at or not host.true_clock:
                self._arm(host, deadline)

    def obey(self, host: Host) -> None:
        """Carries out what the host's table of links wants, and lets its node know. To be called after every word to it."""
        self._obey(host)
        self.drain(host)

    def _obey(self, host: Host) -> None:
        table = host.table
        while True:
            outputs, events = table.take_outputs(), table.take_events()
            if not outputs and not events:
                break
            for output in outputs:
                self._carry_out(host, output)
            for event in events:
                self._tell(host, event)
        if table.next_timeout() < host.table_at:
            host.table_at = table.next_timeout()
            self.at(host.true(host.table_at), self._table_due, host, host.generation)

    def _carry_out(self, host: Host, output: link_table.Output) -> None:
        link = output.link
        match output:
            case link_table.StartLink():
                if link.offerer and isinstance(link.phase, link_table.Dialing):
                    self.dialer.offer(host, link)
            case link_table.HangUp(reason=reason):
                if link.was_open:
                    self.links.close(host, link, reason)
                else:
                    self.dialer.abandon(host, link, reason)
            case link_table.SleepLink():
                self.links.sleep(host, link)

    def _tell(self, host: Host, event: link_table.Event) -> None:
        now = host.local(self.now)
        match event:
            case link_table.LinkUp(peer=peer):
                if (lane := host.lanes.get(peer)) is not None:
                    host.actor.link_up(peer, now, 2 * lane.base_s)
            case link_table.LinkDown(peer=peer, reason=reason):
                host.actor.link_down(peer, reason, now)
            case link_table.DialFailed(peer=peer, cause=cause):
                host.actor.dial_failed(peer, cause, now)

    def _table_due(self, host: Host, generation: int) -> None:
        if host.up and host.generation == generation:
            host.table_at = _NEVER
            host.table.handle_timeout(host.local(self.now))
            self.obey(host)

    def _arm(self, host: Host, deadline: float) -> None:
        at = deadline if host.true_clock else host.true(deadline)
        at = self.now if at < self.now else grained(at)
        if at < host.timer_at:
            host.timer_spins = host.timer_spins + 1 if at == self.now else 0
            if host.timer_spins > _TIMER_SPINS_MAX:
                raise RuntimeError(
                    f"node {host.index} asks for its timer again and again at {self.now}: time stands still"
                )
            host.timer_at = at
            self._agenda.push(at, _TIMER, host, host.generation)

    def broadcast(self, host: Host, payload: bytes) -> None:
        """The application on `host` sends `payload` to the room."""
        if host.up:
            self.watcher.on_broadcast(host, payload)
            host.actor.broadcast(payload, host.local(self.now))
            self.drain(host)

    # ------------------------------------------------------------------------------------- stalled and slow hosts

    def _wake_later(self, host: Host) -> None:
        if not (host.waking or host.paused):
            host.waking = True
            self._agenda.push(max(self.now, host.busy_until), _CALL, self._wake, (host, host.generation))

    def _wake(self, host: Host, generation: int) -> None:
        """One unit of work for a process that queues: the next frame, or else the timer."""
        if not host.up or host.generation != generation or host.paused or host.inbox is None:
            host.waking = False
            return
        host.waking = False
        if host.busy_until > self.now:
            self._wake_later(host)
            return
        if host.inbox:
            lane, what = host.inbox.popleft()
            inbox, host.inbox = host.inbox, None
            if isinstance(what, bytes):
                self._deliver(lane, what)
            else:
                self.links.lose(lane, what)
            if host.up:
                host.inbox = inbox
        if not host.up:
            return
        host.busy_until = self.now + host.processing_s
        if host.inbox:
            self._wake_later(host)
        elif not host.processing_s:
            host.inbox = None  # caught up: back to the fast path
        if host.deadline < _NEVER:
            self._arm(host, max(host.deadline, host.local(host.busy_until)))
