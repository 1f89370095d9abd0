"""Asks whoever of a hall places, again until there is an answer, and the next one when that one is silent or lies. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from psyne_mesh.errors import ProtocolError, SignalingError, SignalingLost
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.hall_wire import Answer, Ask, encode

RESEND_S = 0.5  # three hops of 50 ms there and back, and then some
RENEW_S = 1.0  # who waits for others says so that often, and so hears of its place soon though a word was lost
SILENT_S = 3.0  # as long as a crash takes to be known
PASSED_OVER_S = 30.0
PLACERS_MAX = 4  # that are asked in vain for one answer
ASKED_MAX = 64  # at once, as of a server
Outcome = messages.ServerMessage | SignalingError


@attrs.frozen
class Answered:
    """What became of the question of that number; `placer` said it, None: nobody did."""

    number: int
    outcome: Outcome
    placer: PeerId | None = None


class Asking:
    """1. `set_order(members, now)`: who of the hall places, the first one first. 2. `ask(number, frame, now)`,
    `forget(number)`. 3. `receive(peer, answer, now)`. 4. `pass_over(peer, now)` for one that lied. 5. `handle_timeout(now)` at
    `next_timeout()`. 6. `take_outputs()`, `take_answers()` after each.
    """

    def __init__(self) -> None:
        self._order: Sequence[PeerId] = ()
        self._asked: dict[int, _Asked] = {}
        self._passed_over: dict[PeerId, float] = {}  # at most as many as are in the hall
        self._outputs: list[tuple[PeerId, bytes]] = []
        self._answers: list[Answered] = []

    def set_order(self, members: Sequence[PeerId], now: float) -> None:
        if members == self._order:
            return
        self._order = members
        present = set(members)
        self._passed_over = {peer: at for peer, at in self._passed_over.items() if peer in present and at > now}
        for number, asked in list(self._asked.items()):
            if asked.placer not in present:
                self._turn_to_next(number, asked, now)

    def placer(self, now: float) -> PeerId | None:
        return next((peer for peer in self._order if self._passed_over.get(peer, now) <= now), None)

    @property
    def asked(self) -> dict[int, PeerId | None]:
        """Numbers without an answer yet, and who was asked."""
        return {number: asked.placer for number, asked in self._asked.items()}

    def ask(self, number: int, frame: bytes, now: float) -> None:
        if len(self._asked) >= ASKED_MAX:
            error = SignalingError(f"{ASKED_MAX} questions to the hall are under way: await some of the answers first")
            self._answers.append(Answered(number, error))
            return
        asked = self._asked[number] = _Asked(frame)
        self._turn_to_next(number, asked, now)

    def tell(self, peer: PeerId, number: int, frame: bytes) -> None:
        """Without waiting for an answer."""
        self._outputs.append((peer, encode(Ask(number, frame))))

    def forget(self, number: int) -> None:
        self._asked.pop(number, None)

    def pass_over(self, peer: PeerId, now: float) -> None:
        self._passed_over[peer] = now + PASSED_OVER_S

    def receive(self, peer: PeerId, answer: Answer, now: float) -> None:
        asked = self._asked.get(answer.number)
        if asked is None or asked.placer != peer:
            return
        asked.heard_at = now
        if asked.n_parts != answer.parts:
            asked.n_parts, asked.parts = answer.parts, {}
        if answer.part < answer.parts:
            asked.parts[answer.part] = answer.frame
        if len(asked.parts) < answer.parts:
            return
        whole = b"".join(asked.parts[part] for part in range(answer.parts))
        try:
            message = messages.decode_server_untrusted(whole)
            if getattr(message, "ref", None) != answer.number:
                raise ProtocolError("an answer to another question")
        except (ProtocolError, SignalingError):
            self.pass_over(peer, now)
            self._turn_to_next(answer.number, asked, now)
            return
        if isinstance(message, messages.Pong):
            asked.is_waiting, asked.parts, asked.again_at = True, {}, now + RENEW_S
            return
        del self._asked[answer.number]
        self._answers.append(Answered(answer.number, message, peer))

    def next_timeout(self) -> float | None:
        return min((asked.again_at for asked in self._asked.values()), default=None)

    def handle_timeout(self, now: float) -> None:
        for number, asked in list(self._asked.items()):
            if asked.again_at > now:
                continue
            is_silent = now - asked.heard_at >= SILENT_S + RENEW_S * asked.is_waiting
            if is_silent and asked.placer is not None:
                self.pass_over(asked.placer, now)
            if is_silent or (asked.is_waiting and asked.placer != self.placer(now)):
                self._turn_to_next(number, asked, now)
            else:
                self._send(number, asked, now)

    def take_outputs(self) -> list[tuple[PeerId, bytes]]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_answers(self) -> list[Answered]:
        answers, self._answers = self._answers, []
        return answers

    def _turn_to_next(self, number: int, asked: _Asked, now: float) -> None:
        if asked.is_waiting:
            asked.n_placers = 0  # it was heard; a match may take longer than many a placer lives
        asked.placer, asked.is_waiting, asked.parts, asked.heard_at = self.placer(now), False, {}, now
        asked.n_placers += 1
        if asked.placer is None or asked.n_placers > PLACERS_MAX:
            del self._asked[number]
            error = SignalingLost(
                "the signaling server is away, and who places in its stead does not answer: try again"
            )
            self._answers.append(Answered(number, error))
        else:
            self._send(number, asked, now)

    def _send(self, number: int, asked: _Asked, now: float) -> None:
        assert asked.placer is not None
        asked.again_at = now + (RENEW_S if asked.is_waiting else RESEND_S)
        self.tell(asked.placer, number, asked.frame)


class _Asked:
    """A question without an answer. heard_at: when it was asked first, or something of the placer came."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.placer: PeerId | None = None
        self.heard_at = self.again_at = 0.0
        self.is_waiting = False
        self.n_placers = 0
        self.n_parts = 0
        self.parts: dict[int, bytes] = {}
