"""How links come to be: offer and answer over the rendezvous or over the mesh itself, then ICE, DTLS and SCTP.

This stands in for mesh.py: a `Dial` output goes in, `link_up` or `dial_failed` comes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from psyne_mesh.identity import PeerId
from simulations import trace as tr
from simulations.net import Host

if TYPE_CHECKING:
    from simulations.world import World

_OFFER, _ANSWER = b"\x01sim-offer", b"\x02sim-answer"
_REPEAT_OFFER_S = 1.5
_CHECK_AGAIN_S = 0.5
_SIGNED_OFFER_BYTES = 900  # a signed envelope with fingerprint, ufrag, password and a handful of candidates
# Pairs of NATs that no candidate pair crosses without a TURN server (RFC 4787 words, RFC 5128 section 3.3).
_INCOMPATIBLE_NATS = {
    ("symmetric", "symmetric"), ("symmetric", "port-restricted"), ("port-restricted", "symmetric"),
}  # fmt: skip


@attrs.define(eq=False)
class _Dialing:
    """A pair that is on its way to a link. Who else dials the same pair meanwhile waits for the same end."""

    number: int
    caller: Host
    callee: Host
    caller_generation: int
    callee_generation: int
    waiting: list[tuple[Host, int]]  # who asked, and as which generation
    answered: bool = False
    settled: bool = False

    def is_current(self) -> bool:
        """Neither side has died since. A side that restarts knows nothing of the offer."""
        return (
            self.caller.up and self.caller.generation == self.caller_generation
            and self.callee.up and self.callee.generation == self.callee_generation
        )  # fmt: skip


class Dialer:
    """Drive it so: `dial(host, peer)` for each `Dial` output; `signal_received(...)` for blobs that the mesh carried."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._under_way: dict[tuple[int, int], _Dialing] = {}
        self._by_number: dict[int, _Dialing] = {}
        self._number = 0
        self.incompatible: dict[tuple[int, int], None] = {}  # pairs (low, high) that never connect
        self._met: dict[tuple[int, int], tuple[int, int]] = {}  # pairs that had a link, and in which lives
        self.attempts = 0
        self.failures = 0
        self.over_mesh = 0

    def dial(self, caller: Host, peer: PeerId) -> None:
        world = self._world
        callee = world.by_peer.get(peer)
        self.attempts += 1
        world.trace.add(world.now, tr.DIAL, caller.index, callee.index if callee else -1, 0)
        if callee is None or callee is caller:
            world.after(world.net.dial_timeout_s, self._tell_failed, caller, caller.generation, peer, "unknown peer")
            return
        pair = _pair(caller, callee)
        if peer in caller.lanes:
            return  # `link_up` has been said already: the two crossed
        under_way = self._under_way.get(pair)
        if under_way is not None:
            if under_way.is_current():
                under_way.waiting.append((caller, caller.generation))
                return
            self._fail(under_way, "superseded")  # one side has restarted since
        self._number += 1
        asked = (caller, caller.generation)
        dialing = _Dialing(self._number, caller, callee, caller.generation, callee.generation, [asked])
        self._under_way[pair] = self._by_number[dialing.number] = dialing
        world.after(world.net.dial_timeout_s, self._fail, dialing, "timeout")
        self._offer(dialing)

    def connect_directly(self, caller: Host, callee: Host) -> None:
        """A link that needs no offer in the room: an invitation passed by hand. It costs one dial."""
        low, high = self._world.net.dial_s
        self._world.after(self._world.rng.uniform(low, high), self._world.links.connect, caller, callee)

    def _offer(self, dialing: _Dialing) -> None:
        world, caller, callee = self._world, dialing.caller, dialing.callee
        world.after(world.net.answer_timeout_s, self._check_answer, dialing)
        if world.rendezvous.connects(caller, callee):
            world.after(2 * world.net.signaling_s, self._answer, dialing)
            world.after(world.rng.uniform(*world.net.dial_s), self._finish, dialing)
        elif world.rendezvous.knows_absent(caller, callee):
            world.after(2 * world.net.signaling_s, self._fail, dialing, "not registered")
        else:
            if self._is_direct(caller, callee):
                world.after(world.rng.uniform(*world.net.dial_s), self._finish, dialing)
            self.over_mesh += 1
            self._offer_over_mesh(dialing)

    def _answer(self, dialing: _Dialing) -> None:
        dialing.answered = dialing.is_current() and not dialing.callee.paused

    def _check_answer(self, dialing: _Dialing) -> None:
        """Nobody answered the offer: give up, unless checks on a remembered address are still under way."""
        if not dialing.answered and not self._is_direct(dialing.caller, dialing.callee):
            self._fail(dialing, "no answer")

    def _is_direct(self, caller: Host, callee: Host) -> bool:
        met = self._met.get(_pair(caller, callee))
        return self._world.net.direct_redial and met == _lives(caller, callee)

    def _offer_over_mesh(self, dialing: _Dialing) -> None:
        """Signals over the mesh may be lost: the offer is repeated until an answer is back."""
        if dialing.settled or dialing.answered or not dialing.is_current():
            return
        self._world.after(_REPEAT_OFFER_S, self._offer_over_mesh, dialing)
        self._send_signal(dialing.caller, dialing.callee, _OFFER, dialing.number)

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
                dialing = self._by_number.get(int.from_bytes(blob[len(kind) : len(kind) + 8], "big"))
                if dialing is None or dialing.settled:
                    return
                if kind == _OFFER and host is dialing.callee:
                    self._send_signal(host, dialing.caller, _ANSWER, dialing.number)
                elif kind == _ANSWER and host is dialing.caller and not dialing.answered:
                    dialing.answered = True
                    low, high = self._world.net.dial_s
                    self._world.after(self._world.rng.uniform(low, high), self._finish, dialing)

    def _finish(self, dialing: _Dialing) -> None:
        world, caller, callee = self._world, dialing.caller, dialing.callee
        if dialing.settled:
            return
        if not dialing.is_current():
            return  # checks go unanswered: the timeout speaks
        if _pair(caller, callee) in self.incompatible or (caller.nat, callee.nat) in _INCOMPATIBLE_NATS:
            return
        if callee.paused or caller.paused or not world.links.reachable(caller.index, callee.index):
            world.after(_CHECK_AGAIN_S, self._finish, dialing)  # ICE keeps checking until the timeout
            return
        if world.net.dial_failure and world.rng.random() < world.net.dial_failure:
            return
        self._settle(dialing)
        self._met[_pair(caller, callee)] = _lives(caller, callee)
        world.links.connect(caller, callee)

    def _fail(self, dialing: _Dialing, cause: str) -> None:
        if not dialing.settled:
            self._settle(dialing)
            self.failures += 1
            other = {dialing.caller.index: dialing.callee.peer, dialing.callee.index: dialing.caller.peer}
            for host, generation in dialing.waiting:
                self._tell_failed(host, generation, other[host.index], cause)

    def _settle(self, dialing: _Dialing) -> None:
        dialing.settled = True
        self._under_way.pop(_pair(dialing.caller, dialing.callee), None)
        self._by_number.pop(dialing.number, None)

    def _tell_failed(self, host: Host, generation: int, peer: PeerId, cause: str) -> None:
        world = self._world
        if host.up and host.generation == generation:
            world.trace.add(world.now, tr.DIAL_FAILED, host.index, -1, 0)
            host.actor.dial_failed(peer, cause, host.local(world.now))
            world.drain(host)


def _pair(a: Host, b: Host) -> tuple[int, int]:
    return (a.index, b.index) if a.index < b.index else (b.index, a.index)


def _lives(a: Host, b: Host) -> tuple[int, int]:
    return (a.generation, b.generation) if a.index < b.index else (b.generation, a.generation)
