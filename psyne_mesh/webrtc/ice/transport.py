"""ICE with one peer: the Trio shell around agents (one a generation) and consent."""

from __future__ import annotations

import math
import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import ClosedError, ConnectFailed, LocalError, ProtocolError, Superseded
from psyne_mesh.webrtc.ice.agent import Agent
from psyne_mesh.webrtc.ice.candidates import Found, parse_candidate_untrusted
from psyne_mesh.webrtc.ice.checks import Pings
from psyne_mesh.webrtc.ice.consent import INTERVAL_MIN_S, Consent
from psyne_mesh.webrtc.ice.events import (
    Address,
    Disconnected,
    Embedder,
    Failed,
    GatheringComplete,
    IceEvent,
    IceParameters,
    IceStats,
    LocalCandidate,
    Path,
    PathSelected,
    PeerStandsStill,
)
from psyne_mesh.webrtc.ice.generation import Generation
from psyne_mesh.webrtc.ice.library import ice
from psyne_mesh.webrtc.ice.port import Base
from psyne_mesh.webrtc.ice.report import connect_failure, describe_pair, describe_path, gathering_failure, protocol_of

if TYPE_CHECKING:
    from psyne_mesh.webrtc.ice.gateway import IceGateway

EARLY_MAX: Final = 16  # datagrams kept until our own selection; the newest is dropped
CLOSE_S: Final = 2.0  # the longest that letting go of a peer may take
SEEK_EVERY: Final = 6  # consent checks, so each half minute: whether a better pair works again


class IceTransport:
    """The path to one peer.

    1. Start `run` in the peer's nursery. Send `local` and every `LocalCandidate` to the peer.
    2. `set_remote` and `add_remote_candidate` with what the peer sends, in any order.
    3. After `PathSelected`, `send`; `deliver` gets what comes. A better path may be selected later.
    4. Call `note_alive` when data decrypted: it keeps the path alive where the answers to checks are lost.
    5. Call `check_path` when the peer is suspiciously silent.
    6. `restart` makes new credentials on the same port; data flows over the old path until the new one is selected.
    7. `close`; then `run` returns.

    deliver: gets all datagrams of the peer in one drained batch, synchronously.
    on_event: called synchronously. What these two raise, `run` raises.
    rng: spreads the consent checks (RFC 7675 section 5.1).
    gives_up: without a first path in time `run` raises. Else there is another way for the datagrams: `Failed` says so, and
        the transport waits for a `restart`.
    """

    def __init__(
        self,
        gateway: IceGateway,
        *,
        controlling: bool,
        config: WebRTCConfig,
        deliver: Callable[[list[bytes]], None],
        on_event: Callable[[IceEvent], None],
        rng: random.Random | None = None,
        gives_up: bool = True,
    ) -> None:
        self.embedder: Embedder | None = None  # what checks carry besides
        self._path: Path | None = None
        self._rtt_s: float | None = None  # newer than the path's, if any
        self._gateway = gateway
        self._port = gateway.port
        self._config = config
        self._controlling = controlling
        self._gives_up = gives_up
        self._deliver = deliver
        self._on_event = on_event
        self._rng = rng or random.Random(secrets.randbits(64))
        self._newest = Generation(0)
        self._current: Generation | None = None  # the one whose pair carries data
        self._retired: list[Agent] = []
        self._route = self._port.open_route(self._receive_early, self._fault, self._route_moved)
        self._early: list[bytes] = []
        self._send_batch: Callable[[Sequence[bytes], Address], int] | None = None
        self._remote_address: Address = ("", 0)
        self._pair: ice.CandidatePair | None = None
        self._consent: Consent | None = None
        self._heartbeat = 0  # the number of the newest one of the peer
        self._pings: Pings | None = None  # together with `_pair` and `_consent`
        self._failed = False
        self._superseded = False  # what comes from the peer's address goes to a newer transport
        self._closed = False
        self._error: Exception | None = None
        self._wake = trio.Event()
        self._counts: Counter[str] = Counter()
        self.datagrams_dropped = 0
        self._datagrams_sent = self._bytes_sent = self._datagrams_received = self._bytes_received = 0

    @property
    def local(self) -> IceParameters:
        """Our credentials of the newest generation."""
        return self._newest.local

    @property
    def path(self) -> Path | None:
        """The selected path, also while it is silent; `None` before there is one."""
        if self._rtt_s is not None and self._path is not None:
            self._path, self._rtt_s = msgspec.structs.replace(self._path, rtt_s=self._rtt_s), None
        return self._path

    # ------------------------------------------------------------------------------------------------------- the data

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Send over the selected pair, at once; what the network does not take is dropped and counted."""
        send_batch = self._send_batch
        if send_batch is None:
            self.datagrams_dropped += len(datagrams)
            return
        count = len(datagrams)
        sent = send_batch(datagrams, self._remote_address)
        self.datagrams_dropped += count - sent
        self._datagrams_sent += sent
        self._bytes_sent += len(datagrams[0]) if count == 1 else sum(map(len, datagrams))

    def _receive(self, datagrams: list[bytes]) -> None:
        count = len(datagrams)
        self._datagrams_received += count
        self._bytes_received += len(datagrams[0]) if count == 1 else sum(map(len, datagrams))
        self._deliver(datagrams)

    def _receive_early(self, datagrams: list[bytes]) -> None:
        """The peer has nominated and we have not seen it yet: keep its ClientHello, its repeat comes a second later."""
        room = EARLY_MAX - len(self._early)
        self._early += datagrams[:room]
        self._counts["early-dropped"] += max(0, len(datagrams) - room)

    # ----------------------------------------------------------------------------------------------------- the control

    def set_remote(self, parameters: IceParameters) -> None:
        """The peer's credentials for the newest generation; the checks begin, and their deadline runs.

        Others replace them while they have led to no path: what came first was the late answer to an earlier restart of ours.
        Raises `LocalError` when they have: an ICE restart of the peer needs our `restart()`.
        """
        generation = self._newest
        if self._closed:
            return
        if generation.remote is not None:
            if generation.remote == parameters:
                return
            if generation is self._current:
                raise LocalError("the peer has new ICE credentials: call restart() before set_remote()")
        generation.remote = parameters
        self._controlling = self._controlling or parameters.lite
        generation.deadline = trio.current_time() + self._config.connection_timeout_s
        if generation.agent is not None:
            self._gateway.loop.call_soon(self._start_checks, generation)
        self._kick()

    def add_remote_candidate(self, candidate: str | None) -> None:
        """A candidate of the peer as SDP text, or None: no more will come. What we cannot use is counted and dropped.

        The end is not needed to connect or to fail: a peer-reflexive path may open until the deadline (RFC 8863).
        """
        if candidate is None or self._closed:
            return
        try:
            parsed, ufrag = parse_candidate_untrusted(candidate)
        except ProtocolError:
            self._counts["remote-refused"] += 1
            return
        generation = self._newest
        if not generation.add_remote(parsed, ufrag):
            self._counts["remote-refused"] += 1
        elif generation.remote is not None and generation.agent is not None:
            self._gateway.loop.call_soon(self._flush_remote, generation)

    def note_alive(self) -> None:
        """The layer above has authenticated data of the peer."""
        if self._consent is not None:
            self._alive(self._consent.note_alive(trio.current_time()))

    def heartbeat(self, number: int) -> None:
        """Tell the peer that we live; `number` must grow. Another thread may call it: see `Pings.heartbeat`."""
        pings = self._pings
        if pings is not None and not self._closed:
            pings.heartbeat(number)

    def heartbeat_received(self, number: int) -> None:
        if self._consent is not None and number > self._heartbeat:  # else it is an older one, played again
            self._heartbeat = number
            self._alive(self._consent.note_alive(trio.current_time()))
            self._emit(PeerStandsStill())

    def check_path(self) -> None:
        """The layer above misses its heartbeats: check the path now. When it is dead, `Disconnected` comes after 1.5 s
        instead of 7, and all other pairs are checked at once: a path that lives takes over without signaling."""
        if self._consent is not None and not self._consent.expired:
            self._consent.suspect(trio.current_time())
            self._arm()

    async def restart(self) -> IceParameters:
        """Begin a new generation and return its credentials for the peer (RFC 8445 section 9).

        Raises `ClosedError` after `close`. When cancelled, call it again: data goes on over the old path meanwhile.
        """
        if self._closed:
            raise ClosedError("this ICE transport is closed")
        self._failed = False
        abandoned = self._newest if self._newest is not self._current else None
        self._newest = Generation(self._newest.number + 1)
        if abandoned is not None and abandoned.agent is not None:
            self._retire(abandoned)
        self._gateway.regather()
        await self._open(self._newest)
        return self._newest.local

    def close(self) -> None:
        self._closed = True
        self._send_batch = None
        self._port.deadlines.drop(self)
        if self._pings is not None:
            self._pings.close()
        self._kick()

    def stats(self) -> IceStats:
        generation = self._current or self._newest
        agent = generation.agent
        pairs = (
            [describe_pair(self._gateway, agent, pair, selected=pair is self._pair) for pair in agent.pairs]
            if agent is not None
            else []
        )
        return IceStats(
            generation=generation.number,
            controlling=self._role(),
            pairs=tuple(pairs),
            datagrams_sent=self._datagrams_sent,
            bytes_sent=self._bytes_sent,
            datagrams_received=self._datagrams_received,
            bytes_received=self._bytes_received,
            datagrams_dropped=self.datagrams_dropped,
            consent_checks_sent=self._consent.checks_sent if self._consent else 0,
            consent_checks_answered=self._consent.answered if self._consent else 0,
            remote_candidates_refused=self._counts["remote-refused"] + (agent.refused.total() if agent else 0),
            early_dropped=self._counts["early-dropped"],
        )

    # ------------------------------------------------------------------------------------------------------- the task

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Gather, check, keep consent; returns after `close`.

        Raises `ConnectFailed` when no path was found by the deadline (phase "ice", or "ice-gathering" without any
        candidate of our own) and it `gives_up`, after the `Failed` event. A path that is lost later gives `Failed` only,
        and a `restart` may follow. Raises what `deliver` or `on_event` raised.
        """
        try:
            self._gateway.subscribe(self)
            await self._open(self._newest)
            task_status.started()
            while not self._closed:
                await self._step()
        finally:
            self.close()
            self._gateway.unsubscribe(self)
            try:
                with trio.move_on_after(CLOSE_S, shield=True):
                    await self._close_agents()
            finally:
                self._port.release(self._route)

    async def _step(self) -> None:
        if self._error is not None:
            raise self._error
        while self._retired:
            await self._gateway.close_in_loop(self._retired.pop().close)
        self._check_deadline(trio.current_time())
        due = math.inf if self._failed or self._newest is self._current else self._newest.deadline
        with trio.move_on_at(due):  # nothing wakes a connected transport but news: consent runs on the port's deadlines
            await self._wake.wait()
        if self._wake.is_set():
            self._wake = trio.Event()

    async def _open(self, generation: Generation) -> None:
        await self._gateway.run_in_loop(self._make_agent, generation)
        for found, _ in self._gateway.found:
            self._tell_candidate(generation, found)
        generation.introduced = True
        if self._gateway.gathered:
            self.gathering_completed()

    async def _make_agent(self, generation: Generation) -> None:
        agent = Agent(
            self._port,
            generation.local,
            self,
            names=self._gateway.names,
            controlling=self._role(),
            loop=self._gateway.loop,
            check_life_s=self._config.connection_timeout_s,
            loopback=self._config.include_loopback,
            now=trio.current_time(),
        )
        generation.agent = agent
        for found, base in self._gateway.found:
            self._add_base(agent, found, base)
        self._port.listen(generation.local.ufrag, agent)
        if generation.remote is not None:
            self._start_checks(generation)

    def _role(self) -> bool:
        """Whether we are controlling: as given, or as a role conflict has settled it."""
        agent = (self._current or self._newest).agent
        return agent.ice_controlling if agent is not None else self._controlling

    def _start_checks(self, generation: Generation) -> None:
        if generation.agent is not None and generation.remote is not None:
            self._flush_remote(generation)
            generation.agent.start(generation.remote)

    def _flush_remote(self, generation: Generation) -> None:
        self._counts["remote-refused"] += generation.flush_remote()

    def _add_base(self, agent: Agent, found: Found, base: Base) -> None:
        if self._config.relay_only and base.kind != "relay":
            return
        if found.kind in ("host", "relay") and agent.receiver_on(base) is None:
            agent.add_base(base, found.candidate())

    def _check_deadline(self, now: float) -> None:
        generation = self._newest
        if generation is self._current or self._failed:
            return
        nothing = self._gateway.gathered and not any(self._shows(found) for found, _ in self._gateway.found)
        if now < generation.deadline and not nothing:
            return
        if self._current is not None and self._consent is not None and not self._consent.expired:
            # A restart that came to nothing while the old path still works: keep that.
            self._counts["restarts-failed"] += 1
            self._newest = self._current
            self._retire(generation)
            if self.path is not None:
                self._emit(PathSelected(self.path))
            return
        problems = self._gateway.problems
        error = gathering_failure(problems) if nothing else connect_failure(generation.agent, self._config, problems)
        self._failed = True
        self._emit(Failed(error))
        if self._current is None and self._gives_up:
            raise error

    async def _close_agents(self) -> None:
        for generation in (self._newest, self._current or self._newest):
            self._port.unlisten(generation.local.ufrag)
        for agent in (*self._retired, *self._agents()):
            await self._gateway.close_in_loop(agent.close)

    def _agents(self) -> list[Agent]:
        generations = [self._newest] if self._current in (None, self._newest) else [self._newest, self._current]
        return [generation.agent for generation in generations if generation and generation.agent]

    def _retire(self, generation: Generation) -> None:
        self._port.unlisten(generation.local.ufrag)
        if generation.agent is not None:
            self._retired.append(generation.agent)
            generation.agent = None
        self._kick()

    # ----------------------------------------------------------------------------------------------------- the gateway

    def candidate_found(self, found: Found, base: Base) -> None:
        for agent in self._agents():
            self._gateway.loop.call_soon(self._add_base, agent, found, base)
        self._tell_candidate(self._newest, found)

    def base_lost(self, base: Base) -> None:
        for agent in self._agents():
            self._gateway.spawn_in_loop(agent.remove_base(base))
        if self._pair is not None and protocol_of(self._pair).base is base:
            self._lose_path()

    def gathering_completed(self) -> None:
        if self._newest.introduced and not self._newest.complete:
            self._newest.complete = True
            self._emit(GatheringComplete())
        self._kick()

    def _shows(self, found: Found) -> bool:
        return found.kind == "relay" or not self._config.relay_only

    def _tell_candidate(self, generation: Generation, found: Found) -> None:
        # After the end of gathering, peers hear of nothing new in this generation. A new relay still serves it: its
        # checks show the peer where they come from.
        if self._shows(found) and not generation.complete and found not in generation.told:
            generation.told.add(found)
            self._emit(LocalCandidate(found.text(generation.local.ufrag, hide_base=self._config.relay_only)))

    # ------------------------------------------------------------------------------------------------------- the agent

    def address_seen(self, base: Base, address: Address) -> None:
        if self._closed:
            return
        self._port.claim(self._route, base, address, proven=False)
        # A relay of ours may see the peer at the very address that we reach it at directly: the base tells them apart.
        if self._consent is not None and self._pair is not None and (base, address) == self._place_of(self._pair):
            self._alive(self._consent.note_alive(trio.current_time()))

    @staticmethod
    def _place_of(pair: ice.CandidatePair) -> tuple[Base, Address]:
        return protocol_of(pair).base, pair.remote_addr

    def address_proven(self, base: Base, address: Address) -> None:
        if not self._closed:
            self._port.claim(self._route, base, address, proven=True)

    def _route_moved(self, base: Base, address: Address, ours: bool) -> None:
        if self._closed or self._pair is None or (base, address) != self._place_of(self._pair):
            return
        self._superseded = not ours
        if not ours:
            self._yield_path(address)
        elif self._consent is not None and not self._consent.expired:
            self._alive(True)

    def _yield_path(self, address: Address) -> None:
        """The answers to what we send would go to the other transport, as DTLS has no name for its connections."""
        self._send_batch = None
        self._failed = True
        where = f"{address[0]}, port {address[1]}"
        reason = f"a newer connection to {where} has taken over: there can be one at a time between two endpoints"
        self._emit(Failed(Superseded(reason)))

    def pair_selected(self, agent: Agent, pair: ice.CandidatePair) -> None:
        if self._closed:
            return
        if agent is self._newest.agent:
            if self._current is not None and self._current is not self._newest:
                self._retire(self._current)
            self._current = self._newest
        elif self._current is None or agent is not self._current.agent:
            return
        base, self._remote_address = self._place_of(pair)
        owner = base.routes.get(self._remote_address)
        self._superseded = owner is not None and owner is not self._route
        self._failed = False
        self._pair = pair
        self._send_batch = base.send_batch
        path = self._path = describe_path(self._gateway, pair)
        self._rtt_s = None
        self._consent = Consent(trio.current_time(), self._rng, path.rtt_s)
        if self._pings is not None:
            self._pings.close()
        assert agent.remote_password is not None  # a pair was selected, so the checks had it
        self._pings = Pings(agent, pair, agent.remote_password.encode(), self._answered)
        self._route.deliver = self._receive
        self._arm()
        if self._superseded:
            self._yield_path(self._remote_address)
            return
        self._emit(PathSelected(path))
        if self._early:
            early, self._early = self._early, []
            self._guarded_receive(early)
        self._kick()

    def _guarded_receive(self, early: list[bytes]) -> None:
        try:
            self._receive(early)
        except Exception as error:  # noqa: BLE001 - `run` raises it, as it does what comes through the port
            self._fault(error)

    # --------------------------------------------------------------------------------------------------------- consent

    def handle_timeout(self, now: float) -> None:
        """By the port's deadlines: what consent wants at this time."""
        try:
            self._keep_consent(now)
        except Exception as error:  # noqa: BLE001 - `run` raises it; the other peers have their deadlines, too
            self._port.deadlines.drop(self)
            self._fault(error)

    def _keep_consent(self, now: float) -> None:
        consent, pings, deadlines = self._consent, self._pings, self._port.deadlines
        if consent is None or pings is None:
            return
        for verdict in consent.handle_timeout(now):
            if verdict == "disconnected":
                self._lose_path()
            elif verdict == "expired":
                self._send_batch = None  # RFC 7675 section 5.1: no more data without consent
                self._failed = True
                silent = ConnectFailed("ice", "the path has been silent for 30 s, so consent to send expired")
                self._emit(Failed(silent))
            else:
                due = consent.check_sent(now, deadlines.appointment)
                if due >= now + INTERVAL_MIN_S:
                    deadlines.appointment = due
                if consent.checks_sent % SEEK_EVERY == 0 and not consent.disconnected:
                    self._seek_better()
                pings.send(now)
        self._arm()

    def _arm(self) -> None:
        if self._consent is not None and not self._closed:
            self._port.deadlines.set(self, self._consent.next_timeout())

    def distrust(self) -> None:
        """A heartbeat above has missed the peer for too long: check the path now. `Disconnected` comes at once, and
        `PathSelected` as soon as the path answers."""
        if self._consent is not None and not self._closed and self._consent.distrust(trio.current_time()):
            self._lose_path()
            self._arm()

    def _lose_path(self) -> None:
        self._emit(Disconnected())
        if self._current is not None and self._current.agent is not None:
            self._gateway.loop.call_soon(self._current.agent.reopen)

    def _seek_better(self) -> None:
        agent = self._current.agent if self._current is not None else None
        if agent is not None and agent.may_improve:
            self._gateway.loop.call_soon(agent.seek_better)

    def _answered(self, now: float, rtt_s: float) -> None:
        consent = self._consent
        if consent is not None and not self._closed:
            revived = consent.check_answered(now, rtt_s)
            self._rtt_s = consent.srtt_s
            self._alive(revived)
            self._arm()

    def _alive(self, revived: bool) -> None:
        if revived and self.path is not None and self._pair is not None and not self._superseded:
            if self._current is not None and self._current.agent is not None:
                self._current.agent.settle(self._pair)
            self._send_batch = protocol_of(self._pair).base.send_batch
            self._failed = False
            self._emit(PathSelected(self.path))
            self._kick()

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _emit(self, event: IceEvent) -> None:
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - `run` raises it in the peer's nursery, not in the shared loop
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        self._error = self._error or error
        self._kick()

    def _kick(self) -> None:
        self._wake.set()
