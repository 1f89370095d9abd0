"""Questions to single players, and their answers: each has a number, a deadline and exactly one end."""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias

import msgspec

from psyne_mesh.identity import PeerId
from psyne_mesh.words import read_untrusted

PENDING_MAX = 1024
"""Questions of ours that wait for their answer; more are refused at once."""
UNANSWERED_MAX = 64
"""Of one player's questions that wait for us; more are refused: "busy"."""
REASON_MAX = 200
PAYLOAD_BYTES_MAX = 14_000
"""So that others can carry it to who has no link with us."""

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
_Payload: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=PAYLOAD_BYTES_MAX)]


class Question(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    number: _Number
    payload: _Payload


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    number: _Number
    payload: _Payload


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag="refusal"):
    number: _Number
    reason: Annotated[str, msgspec.Meta(max_length=REASON_MAX)]


RequestWord: TypeAlias = Question | Answer | Refusal
_decoder: msgspec.msgpack.Decoder[RequestWord] = msgspec.msgpack.Decoder(Question | Answer | Refusal)


def encode(word: RequestWord) -> bytes:
    return msgspec.msgpack.encode(word)


def decode_untrusted(data: bytes | str) -> RequestWord:
    """Raises ProtocolError."""
    return read_untrusted(_decoder, data, "a question or an answer")


class Ended:
    """Our question `number` is over. payload: the answer, None without one; then `reason` says why: "gone", "deadline", or what
    the other player said (`is_refused`).
    """

    def __init__(self, number: int, payload: bytes | None, reason: str = "", *, is_refused: bool = False) -> None:
        self.number = number
        self.payload = payload
        self.reason = reason
        self.is_refused = is_refused


class Asked:
    """A player asks; answer with `answer` or `refuse`."""

    def __init__(self, peer: PeerId, number: int, payload: bytes) -> None:
        self.peer = peer
        self.number = number
        self.payload = payload


class Requests:
    """1. `ask(peer, payload, deadline)` gives the number of a question; `give_up(number)`. 2. `receive(peer, word)` and
    `peer_left(peer)`. 3. `handle_timeout(now)` at `next_timeout()`. 4. `answer(peer, number, payload)` or
    `refuse(peer, number, reason)` once for each `Asked`. 5. After each: send `take_outputs()`, reliably; `take_events()`.
    """

    def __init__(self) -> None:
        self._next = 1
        self._pending: dict[int, tuple[PeerId, float]] = {}
        self._theirs: dict[PeerId, set[int]] = {}
        self._outputs: list[tuple[PeerId, RequestWord]] = []
        self._events: list[Ended | Asked] = []

    @property
    def is_full(self) -> bool:
        return len(self._pending) >= PENDING_MAX

    def ask(self, peer: PeerId, payload: bytes, deadline: float) -> int:
        number, self._next = self._next, self._next + 1
        self._pending[number] = peer, deadline
        self._outputs.append((peer, Question(number, payload)))
        return number

    def give_up(self, number: int) -> None:
        """Nobody waits for it any more."""
        self._pending.pop(number, None)

    def receive(self, peer: PeerId, word: RequestWord) -> None:
        """Answers count once, from who was asked."""
        if isinstance(word, Question):
            waiting = self._theirs.setdefault(peer, set())
            if len(waiting) >= UNANSWERED_MAX:
                self._outputs.append((peer, Refusal(word.number, "busy: too many questions wait")))
            elif word.number not in waiting:
                waiting.add(word.number)
                self._events.append(Asked(peer, word.number, word.payload))
        elif self._pending.get(word.number, (None,))[0] == peer:
            del self._pending[word.number]
            if isinstance(word, Answer):
                self._events.append(Ended(word.number, word.payload))
            else:
                self._events.append(Ended(word.number, None, word.reason, is_refused=True))

    def answer(self, peer: PeerId, number: int, payload: bytes) -> None:
        if self._is_open(peer, number):
            self._outputs.append((peer, Answer(number, payload)))

    def refuse(self, peer: PeerId, number: int, reason: str) -> None:
        if self._is_open(peer, number):
            self._outputs.append((peer, Refusal(number, reason[:REASON_MAX])))

    def _is_open(self, peer: PeerId, number: int) -> bool:
        waiting = self._theirs.get(peer, set())
        if number not in waiting:
            return False  # it left meanwhile
        waiting.discard(number)
        return True

    def peer_left(self, peer: PeerId) -> None:
        self._theirs.pop(peer, None)
        self._end([number for number, (asked, _) in self._pending.items() if asked == peer], "gone")

    def next_timeout(self) -> float:
        return min((deadline for _, deadline in self._pending.values()), default=math.inf)

    def handle_timeout(self, now: float) -> None:
        self._end([number for number, (_, deadline) in self._pending.items() if deadline <= now], "deadline")

    def _end(self, numbers: list[int], reason: str) -> None:
        for number in numbers:
            del self._pending[number]
            self._events.append(Ended(number, None, reason))

    def take_outputs(self) -> list[tuple[PeerId, RequestWord]]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_events(self) -> list[Ended | Asked]:
        events, self._events = self._events, []
        return events
