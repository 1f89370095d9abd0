"""The running half of a peer connection: ICE below, the stack above, the phases of connecting, and the end."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import attrs
import trio

from psyne_mesh.errors import ClosedError, ConnectFailed, PeerGone, ProtocolError, PsyneMeshError, RemoteError
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.webrtc import dtls, ice
from psyne_mesh.webrtc.channel import ChannelOpened
from psyne_mesh.webrtc.early_handshake import EarlyHandshake
from psyne_mesh.webrtc.ladder import Ladder, Tunnel
from psyne_mesh.webrtc.link import Link, Scheduler
from psyne_mesh.webrtc.loop_lag import LAGGING_S
from psyne_mesh.webrtc.negotiation import Negotiated
from psyne_mesh.webrtc.patience import Patience
from psyne_mesh.webrtc.sdp import Description
from psyne_mesh.webrtc.stack import (
    DtlsConnected,
    PathRevived,
    PeerStandsStill,
    SctpConnected,
    Stack,
    StackClosed,
    StackConfig,
    StackEvent,
)
from psyne_mesh.webrtc.stats import ConnectPhase, PhaseClock

_SILENT_S = 0.5  # a path that takes over after such a silence replaces a dead one, whether or not that was noticed
# A tunnel has no checks of ICE that find out when it carries again: one lost packet is repeated so often while it is silent.
_PROBE_S = 1.0
# A machine that is behind gives ICE so long once more before the tunnel is tried, which is work for two others.
LATE_TUNNEL_S = 2.0
_ALIVE_NEWS_S = 1.0  # how often ICE hears that authentic data came; consent counts in tens of seconds
_ADVICE: dict[ConnectPhase, str] = {
    "ice-gathering": "Do the STUN and TURN servers answer?",
    "signaling": "The peer's answer never came: is the signaling server up, and the peer there?",
    "ice": "A TURN server (turn_servers) helps where NATs let no direct path through",
    "dtls": "The path works: does something on it drop large UDP packets?",
    "sctp": "The path works: is the other side still running?",
}


@uninterrupted
class Connection:
    """One `Stack` on one `IceTransport`, from the first candidate to the last datagram.

    1. `run` in the peer's nursery.
    2. `begin` when the offer or the answer is made: the deadline runs from here. `set_remote` with the peer's description.
    3. DTLS starts by itself when ICE has a path. `connected` is set then or at the end; `error` tells which.
    4. `handle_timeout` at `next_timeout`, by the endpoint's timer.

    bug: an exception that is nobody's fault but ours or `on_events`'s; `run` raises it.
    on_events: the stack's events. on_candidate: each local candidate, `None` after the last of a generation.
    """

    def __init__(
        self,
        gateway: ice.IceGateway,
        certificate: dtls.Certificate,
        scheduler: Scheduler,
        *,
        controlling: bool,
        rng: random.Random,
        name: str,
        on_events: Callable[[list[StackEvent]], None],
        on_candidate: Callable[[str | None], None],
        tunnel: Tunnel | None = None,
    ) -> None:
        self.error: PsyneMeshError | None = None
        self.connected = trio.Event()  # or ended
        self.closed = trio.Event()
        self.disconnected = False
        self.ended_quietly = False  # one of the two sides closed it
        self.clock = PhaseClock()
        config = gateway.config
        self.ice = ice.IceTransport(
            gateway, controlling=controlling, config=config, deliver=self._deliver, on_event=self._handle_ice, rng=rng,
            gives_up=tunnel is None,
        )  # fmt: skip
        stack_config = attrs.evolve(StackConfig.of(config), gives_up=tunnel is None)
        self.stack = Stack(stack_config, certificate, rng=rng)
        self.ladder = Ladder(self.ice, tunnel)
        self.link = Link(self.stack, self.ladder, scheduler, on_events=self._handle_events, fault=self.fault)
        self._early = EarlyHandshake(self.stack, self.link) if config.dtls_in_stun else None
        self.ice.embedder = self._early
        self._gateway = gateway
        self._name = name
        self._patience = Patience(config.connection_timeout_s)
        self._scheduler = scheduler
        self._on_events = on_events
        self._on_candidate = on_candidate
        self._remote: tuple[Description, Negotiated] | None = None
        self._gathered = False
        self._drained = trio.lowlevel.ParkingLot()
        self._draining = False  # somebody has ever waited there
        self._phase = self.stack.phase
        self._has_channel = False
        self._probe_at = math.inf  # while a tunnel carries
        self._alive_told = 0.0
        self._waited_for_loop = False
        self.bug: Exception | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """ICE, for as long as the connection lives. Raises only what is a bug, of ours or of `on_events`."""
        self.clock.begin("ice-gathering", trio.current_time())
        try:
            await self.ice.run(task_status=task_status)
        except RemoteError as error:
            self.close(error)
        except Exception as bug:
            self.bug = self.bug or bug
            self.close(PeerGone("a bug ended the connection"))
            raise
        except BaseException:
            self.close(ClosedError("the connection was abandoned"))
            raise
        if self.bug is not None:
            raise self.bug

    def deliver_tunnelled(self, datagrams: list[bytes], *, late: bool = False) -> None:
        """Datagrams that came through the tunnel. If the peer tunnels, we answer the same way."""
        authentic = self.ladder.open_untrusted(datagrams)
        if authentic and self.error is None and self.ladder.has_tunnel:
            self._take_tunnel()
            was_silent = self._is_silent
            self.link.deliver(authentic, late=late)  # says nothing of the path of ICE, so ICE does not hear of it
            # While the path of ICE is trusted still, all would go there, where the peer hears nothing: `distrust` comes first.
            if was_silent and not self._is_silent and not self.ladder.is_direct:
                self._hurry()
            self._wake_drained()

    def _take_tunnel(self) -> None:
        self.ladder.use_tunnel()
        if self._probe_at == math.inf:
            self._probe_at = trio.current_time() + _PROBE_S
            self._scheduler.wake_at(self._probe_at)
        self._start_dtls()

    def begin(self) -> None:
        """The offer or answer is being made: from here on the phases count."""
        if self._patience.deadline == math.inf and not self.connected.is_set():
            now = trio.current_time()
            self.clock.begin("signaling", now)
            self._patience.begin(now)
            self._scheduler.wake_at(self._patience.deadline)

    def set_remote(self, remote: Description, negotiated: Negotiated) -> None:
        """The peer's description: ICE gets its share now, DTLS when there is a path."""
        now = trio.current_time()
        self.clock.end("signaling", now)
        self.clock.begin("ice", now)
        self._patience.progress("signaling", now, self._scheduler.lag_s(now))
        self._remote = remote, negotiated
        self._start_early(remote, now)
        self.ice.set_remote(ice.IceParameters(remote.ice_ufrag, remote.ice_pwd, remote.ice_lite))
        for candidate in remote.candidates:
            self.ice.add_remote_candidate(candidate)
        if remote.end_of_candidates:
            self.ice.add_remote_candidate(None)
        self.ladder.note_described(now, self.ice.local.password, remote.ice_pwd)
        self._scheduler.wake_at(self.ladder.deadline)

    async def drain(self) -> None:
        """Until the peer has acknowledged all that was sent, or the connection has ended."""
        await trio.lowlevel.checkpoint()
        while self.error is None and not self.stack.is_drained:
            self._draining = True
            await self._drained.park()

    def close(self, error: PsyneMeshError) -> None:
        """The end, with its reason. The peer is told; what is queued is lost. Does nothing the second time."""
        self.link.close(error)

    def fault(self, bug: Exception) -> None:
        """A bug showed outside this peer's tasks: `run` raises it in the nursery of this peer, and nowhere else."""
        self.bug = self.bug or bug
        self.ice.close()

    def next_timeout(self) -> float:
        """Infinity when there is nothing to wait for. Cheap: the endpoint asks every peer whenever its timer fires."""
        return min(self.link.deadline, self.ladder.deadline, self._probe_at, self._patience.deadline)

    def handle_timeout(self, now: float) -> None:
        if now >= self._patience.deadline and self._patience.has_run_out(now, self._scheduler.lag_s(now)):
            took_s = self._gateway.config.connection_timeout_s + self._patience.stretched_s
            self._patience.end()
            self.close(self._connect_failed(f"not done within {took_s:g} s"))
            return
        if now >= self.ladder.deadline and not self._is_late(now):
            self._take_tunnel()
        if now >= self._probe_at:
            self._probe_at = math.inf if self.ladder.is_direct else now + _PROBE_S
            if self._is_silent and not self.ladder.is_direct:
                self._hurry(carries=False)
        self.link.handle_timeout(now)
        self._wake_drained()

    # ------------------------------------------------------------------------------------------------------ from below

    def _deliver(self, datagrams: list[bytes]) -> None:
        self.link.deliver(datagrams)
        heard = self.stack.last_received_at
        if heard is not None and heard - self._alive_told > _ALIVE_NEWS_S:
            self._alive_told = heard
            self.ice.note_alive()
        self._wake_drained()

    def _wake_drained(self) -> None:
        if self._draining and self.stack.is_drained:
            self._drained.unpark_all()

    def _handle_ice(self, event: ice.IceEvent) -> None:
        match event:
            case ice.LocalCandidate(text):
                self._on_candidate(text)
            case ice.GatheringComplete():
                self._gathered = True
                self.clock.end("ice-gathering", trio.current_time())
                self._on_candidate(None)
            case ice.PathSelected(path):
                self.link.set_quota(self._gateway.quota_of(path))
                self.stack.set_path_fixed(path.stays_on_this_machine)
                revived, self.disconnected = self.disconnected, False
                self.ladder.set_direct(True)
                self._probe_at = math.inf
                self._start_dtls()
                if revived or self._is_silent:
                    self._hurry()
                if revived and self.error is None:
                    self._on_events([PathRevived()])
            case ice.PeerStandsStill():
                self._on_events([PeerStandsStill()])
            case ice.Disconnected():
                self.disconnected = True
                self._leave_path()
            case ice.Failed(error):
                if self.ladder.has_tunnel and self._remote is not None:
                    self._leave_path()
                else:
                    self.close(error if isinstance(error, PsyneMeshError) else PeerGone(str(error)))

    @property
    def _is_silent(self) -> bool:
        heard = self.stack.last_received_at
        return heard is not None and trio.current_time() - heard > _SILENT_S

    def _is_late(self, now: float) -> bool:
        """Our own loop is behind, so checks of ICE may be answered already: another way is tried when they have been read."""
        if self._scheduler.lag_s(now) <= LAGGING_S or self._waited_for_loop:
            return False
        self._waited_for_loop = True
        self.ladder.deadline = now + LATE_TUNNEL_S
        return True

    def _leave_path(self) -> None:
        """The path of ICE is silent or gone: the tunnel carries until there is another."""
        if self.ladder.has_tunnel:
            self.link.set_quota(None)  # the links that carry the tunnel have their own
            self.stack.set_path_fixed(False)
            self.ladder.set_direct(False)
            self._take_tunnel()
            self._hurry()

    def _hurry(self, *, carries: bool = True) -> None:
        """Datagrams go another way now, or arrive again: what was lost must not wait for a timeout that doubled meanwhile."""
        if self.error is None:
            now = trio.current_time()
            self.stack.path_changed(now, carries=carries)
            self.link.turn(now)

    def _start_early(self, remote: Description, now: float) -> None:
        """Before there is a path, inside the checks, if the peer knows how."""
        if self._early is None or self._early.is_over or self.stack.phase != "new":
            return
        if dtls.EMBEDDING_OPTION in remote.ice_options:
            self._start_stack(now, is_embedded=True)
            self._early.begin(now)
        else:
            self.ice.embedder = None
            self._early.abandon(now)

    def _start_dtls(self) -> None:
        """There is a way for datagrams."""
        if self._remote is None:
            return
        now = trio.current_time()
        self._patience.progress("ice", now, self._scheduler.lag_s(now))
        self.clock.end("ice", now)
        if self.stack.phase == "new":
            self._start_stack(now, is_embedded=False)
            self.link.turn(now)
        if self._early is not None:
            self._early.path_found(now)

    def _start_stack(self, now: float, *, is_embedded: bool) -> None:
        assert self._remote is not None
        self.clock.begin("dtls", now)
        remote, negotiated = self._remote
        path = self.ladder.path
        self.stack.start(
            is_client=negotiated.is_dtls_client,
            remote_fingerprints=[dtls.Fingerprint.parse_untrusted(line) for line in remote.fingerprints],
            remote_max_message_size=remote.max_message_size,
            remote_max_datagram_size=remote.max_datagram_size,
            remote_express=remote.express,
            remote_sctp_init=remote.sctp_init,
            dtls_versions=negotiated.dtls_versions,
            leaves_low_ids=negotiated.is_reversed,
            rtt_s=None if path is None else path.rtt_s,
            is_embedded=is_embedded,
            now=now,
        )
        self._phase = self.stack.phase

    # ------------------------------------------------------------------------------------------------------ from above

    def _handle_events(self, events: list[StackEvent]) -> None:
        if not self._has_channel or self._phase != self.stack.phase:
            self._phase = self.stack.phase
            self._note_phases(events)
        self._on_events(events)

    def _note_phases(self, events: list[StackEvent]) -> None:
        now = trio.current_time()
        for event in events:
            if type(event) is DtlsConnected:
                self._patience.progress("dtls", now, self._scheduler.lag_s(now))
                self.clock.end("dtls", now)
                self.clock.begin("sctp", now)
            elif type(event) is SctpConnected:
                self.clock.end("sctp", now)
                self.clock.begin("channel", now)
                self._patience.end()
                self.connected.set()
            elif type(event) is ChannelOpened:
                self.clock.end("channel", now)
                self._has_channel = True
            elif type(event) is StackClosed:
                self._end(event.error, by_peer=event.by_peer)

    def _end(self, error: PsyneMeshError, *, by_peer: bool) -> None:
        self.ended_quietly = by_peer or isinstance(error, ClosedError)
        if not self.connected.is_set() and isinstance(error, PeerGone | ProtocolError):
            failed = self._connect_failed(str(error))
            failed.__cause__ = error
            error = failed
        elif self.connected.is_set() and isinstance(error, ConnectFailed):
            error = PeerGone(error.reason)  # ICE speaks of the path; what was connected is gone
        self.error = error
        self._patience.end()
        self.connected.set()
        self.closed.set()
        self._drained.unpark_all()
        self._on_candidate(None)
        self.ice.close()

    def _connect_failed(self, reason: str) -> ConnectFailed:
        phase = self._connect_phase()
        candidates = []
        if phase == "ice":
            candidates = [f"{_text(p.local)} to {_text(p.remote)} ({p.state})" for p in self.ice.stats().pairs[:10]]
        advice = _ADVICE.get(phase, "")
        if phase in ("ice-gathering", "ice") and (problems := self._gateway.problems):
            advice = "; ".join([advice, *(f"{name}: {problem}" for name, problem in problems.items())])
        return ConnectFailed(phase, reason, peer=self._name or None, candidates=candidates, advice=advice)

    def _connect_phase(self) -> ConnectPhase:
        """What is being waited for."""
        done = self.clock.took_s
        if self._remote is None:
            return "signaling" if self._gathered else "ice-gathering"
        return "ice" if "ice" not in done else "dtls" if "dtls" not in done else "sctp"


def _text(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
