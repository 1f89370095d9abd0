"""How links come to be on the wire: offer and answer over the rendezvous or over the mesh itself, then ICE, DTLS and SCTP.

Whether an offer is made or answered is decided by the tables of links at both ends: the product's `mesh/link_table.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from psyne_mesh.identity import PeerId
from psyne_mesh.mesh.link_table import Dialing, TableLink
from psyne_mesh.simulations import trace as tr
from psyne_mesh.simulations.actor import ROOM
from psyne_mesh.simulations.net import Host
from psyne_mesh.webrtc.ladder import TUNNEL_AFTER_S

if TYPE_CHECKING:
    from psyne_mesh.simulations.world import World

_OFFER, _ANSWER = b"\x01sim-offer", b"\x02sim-answer"
_REPEAT_OFFER_S, _OFFERS_OVER_MESH = 1.5, 2  # `mesh/envelopes.py` says it once, and again to who has not heard it
_CHECK_AGAIN_S = 0.5
_ENVELOPE_LIFE_MS = 60_000
_SIGNED_OFFER_BYTES = 900  # a signed envelope with fingerprint, ufrag, password and a handful of candidates
# Pairs of NATs that no candidate pair crosses without a TURN server (RFC 4787 words, RFC 5128 section 3.3).
_INCOMPATIBLE_NATS = {
    ("symmetric", "symmetric"), ("symmetric", "port-restricted"), ("port-restricted", "symmetric"),
}  # fmt: skip


@attrs.define(eq=False)
class _Attempt:
    """An offer on its way to a link. Each end has its own patience, and its own opinion of what became of it."""

    number: int
    caller: Host
    callee: Host
    caller_generation: int
    offered: TableLink
    callee_generation: int = -1
    answered: TableLink | None = None
    is_answered: bool = False  # the caller knows
    is_by_hand: bool = False  # its offer needed no server
    is_in_tunnel: bool = False  # it takes the last rung: frames go over the rendezvous

    @property
    def is_under_way(self) -> bool:
        """Neither side has died or given it up since."""
        return (
            _is_dialing(self.caller, self.caller_generation, self.offered)
            and self.answered is not None
            and _is_dialing(self.callee, self.callee_generation, self.answered)
        )


class Dialer:
    """Drive it so: `offer(host, link)` for each link that a table starts as offerer, `abandon(host, link)` when it hangs up
    before the link is open; `signal_received(...)` for blobs that the mesh carried."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._attempts: dict[int, _Attempt] = {}
        self._number = 0
        self._by_hand: dict[tuple[int, int], None] = {}  # (caller, callee): the offer needs no server
        self.incompatible: dict[tuple[int, int], None] = {}  # pairs (low, high) that never connect
        self.attempts = 0
        self.failures = 0
        self.over_mesh = 0

    def offer(self, caller: Host, link: TableLink) -> None:
        world = self._world
        callee = world.by_peer.get(link.peer)
        self.attempts += 1
        world.trace.add(world.now, tr.DIAL, caller.index, callee.index if callee else -1, 0)
        world.after(world.net.dial_timeout_s, self._fail, caller, caller.generation, link, "timeout")
        if callee is None or callee is caller:
            return
        self._number += 1
        attempt = _Attempt(self._number, caller, callee, caller.generation, link)
        self._attempts[attempt.number] = attempt
        world.after(world.net.dial_timeout_s, self._forget, attempt)
        world.after(world.net.answer_timeout_s, self._check_answer, attempt)
        self._send_offer(attempt)

    def _forget(self, attempt: _Attempt) -> None:
        self._attempts.pop(attempt.number, None)

    def connect_directly(self, caller: Host, callee: Host) -> None:
        """A link whose offer needs no server: an invitation passed by hand."""
        self._by_hand[caller.index, callee.index] = None
        caller.table.dial(ROOM, callee.peer, caller.local(self._world.now))
        self._world.obey(caller)

    def abandon(self, host: Host, link: TableLink, reason: str) -> None:
        """`host` hangs up while it dials. The other side finds out by waiting."""
        host.table.gone(link, reason)

    # ---------------------------------------------------------------------------------------------------------- offers

    def _send_offer(self, attempt: _Attempt) -> None:
        world, caller, callee = self._world, attempt.caller, attempt.callee
        by_hand = self._by_hand.pop((caller.index, callee.index), attempt) is None
        if by_hand or world.rendezvous.takes(caller, callee):
            attempt.is_by_hand = by_hand
            world.after(0.0 if by_hand else 2 * world.net.signaling_s, self._offer_arrives, attempt)
            world.after(world.rng.uniform(*world.net.dial_s), self._finish, attempt)
        else:
            self.over_mesh += 1
            self._offer_over_mesh(attempt)

    def _offer_arrives(self, attempt: _Attempt) -> None:
        """Over the server, or by hand."""
        reached = attempt.is_by_hand or self._world.rendezvous.connects(attempt.caller, attempt.callee)
        if reached and self._answers(attempt):
            self._answer_arrives(attempt)

    def _answers(self, attempt: _Attempt) -> bool:
        """Whether the callee answers, now or once more."""
        callee, now = attempt.callee, self._world.now
        if (
            not callee.up
            or callee.paused
            or not _is_dialing(attempt.caller, attempt.caller_generation, attempt.offered)
        ):
            return False
        if attempt.answered is not None and attempt.callee_generation == callee.generation:
            return True
        expires_ms = attempt.caller.wall_ms(now) + _ENVELOPE_LIFE_MS
        if not callee.table.offer_received(attempt.caller.peer, attempt.offered.session, expires_ms, callee.local(now)):
            return False
        attempt.answered = callee.table.links[attempt.caller.peer]
        attempt.callee_generation = callee.generation
        callee.table.envelope_received(attempt.answered, expires_ms)
        self._world.after(
            self._world.net.dial_timeout_s, self._fail, callee, callee.generation, attempt.answered, "timeout"
        )
        self._world.obey(callee)
        return True

    def _answer_arrives(self, attempt: _Attempt) -> None:
        attempt.is_answered = True
        expires_ms = attempt.callee.wall_ms(self._world.now) + _ENVELOPE_LIFE_MS
        attempt.caller.table.envelope_received(attempt.offered, expires_ms)

    def _check_answer(self, attempt: _Attempt) -> None:
        if not attempt.is_answered:
            self._fail(attempt.caller, attempt.caller_generation, attempt.offered, "no answer")

    def _offer_over_mesh(self, attempt: _Attempt, times: int = _OFFERS_OVER_MESH) -> None:
        """Signals over the mesh may be lost: the offer is said once more if no answer is back."""
        if attempt.is_answered or not _is_dialing(attempt.caller, attempt.caller_generation, attempt.offered):
            return
        if times > 1:
            self._world.after(_REPEAT_OFFER_S, self._offer_over_mesh, attempt, times - 1)
        self._send_signal(attempt.caller, attempt.callee, _OFFER, attempt.number)

    def _send_signal(self, origin: Host, to: Host, kind: bytes, number: int) -> None:
        blob = (kind + number.to_bytes(8, "big")).ljust(_SIGNED_OFFER_BYTES, b"\0")
        origin.actor.send_signal(to.peer, blob, origin.local(self._world.now))
        self._world.after(0.0, self._drain_if_up, origin, origin.generation)

    def _drain_if_up(self, host: Host, generation: int) -> None:
        if host.up and host.generation == generation:
            self._world.drain(host)

    def signal_received(self, host: Host, origin: PeerId, blob: bytes) -> None:
        """The mesh has carried an offer or answer to `host`."""
        for kind in (_OFFER, _ANSWER):
            if blob.startswith(kind):
                attempt = self._attempts.get(int.from_bytes(blob[len(kind) : len(kind) + 8], "big"))
                if attempt is None or not host.table.hears_over_mesh(ROOM, origin):
                    return
                if kind == _OFFER and host is attempt.callee and self._answers(attempt):
                    self._send_signal(host, attempt.caller, _ANSWER, attempt.number)
                elif kind == _ANSWER and host is attempt.caller and not attempt.is_answered:
                    self._answer_arrives(attempt)
                    self._world.after(self._world.rng.uniform(*self._world.net.dial_s), self._finish, attempt)

    # ------------------------------------------------------------------------------------------------------- handshake

    def _finish(self, attempt: _Attempt) -> None:
        world, caller, callee = self._world, attempt.caller, attempt.callee
        if not attempt.is_under_way:
            return  # checks go unanswered: the timeouts speak
        if _pair(caller, callee) in self.incompatible or (caller.nat, callee.nat) in _INCOMPATIBLE_NATS:
            return
        cut_off = not world.links.reachable(caller.index, callee.index)
        if cut_off and world.links.bridges(caller, callee) and not attempt.is_in_tunnel:
            attempt.is_in_tunnel = True  # ICE has found nothing so far, and need not go on alone
            world.after(TUNNEL_AFTER_S, self._finish, attempt)
            return
        if callee.paused or caller.paused or (cut_off and not world.links.bridges(caller, callee)):
            world.after(_CHECK_AGAIN_S, self._finish, attempt)  # ICE keeps checking until the timeout
            return
        if world.net.dial_failure and world.rng.random() < world.net.dial_failure:
            return
        assert attempt.answered is not None
        self._forget(attempt)
        world.links.open(caller, attempt.offered, callee, attempt.answered)

    def _fail(self, host: Host, generation: int, link: TableLink, cause: str) -> None:
        """The patience of one side is at its end."""
        world = self._world
        if _is_dialing(host, generation, link):
            if link.offerer:
                self.failures += 1
            world.trace.add(world.now, tr.DIAL_FAILED, host.index, -1, 0)
            host.table.gone(link, cause)
            world.obey(host)


def _is_dialing(host: Host, generation: int, link: TableLink) -> bool:
    is_current = host.up and host.generation == generation and host.table.links.get(link.peer) is link
    return is_current and isinstance(link.phase, Dialing)


def _pair(a: Host, b: Host) -> tuple[int, int]:
    return (a.index, b.index) if a.index < b.index else (b.index, a.index)
