"""A player's side: what it says to everybody, once more for those who only watch, in signed batches, within a budget.

A player of eight uploads seven copies of what it says; an eighth would be 14 % more. So spectators get it later and together:
one batch four times a second has one head and one signature where a game sent a packet for each message. What is reliable goes
whole; of what is fleeting (positions) as many as the budget leaves room for, the newest first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from psyne_mesh.game.watching.wire import (
    BATCH_BYTES,
    CHANNELS_MAX,
    ENTRIES_MAX,
    EVER,
    FLEETING,
    MORE,
    NUMBER_MAX,
    PIECE_BYTES,
    TEXT,
    Batch,
    Facts,
    Signed,
    Want,
    encode,
)  # fmt: skip
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket

INTERVAL_S = 0.25
"""Between two batches: a quarter of the second that spectators may be behind; two hops among them take another quarter."""
HEARTBEAT_S = 0.5
"""A batch goes out so often though nothing was said, or more than the budget allows: its absence tells that a gate is gone. One
that waits for it costs one head and one signature less."""
SHARE = 0.06
"""Of what goes to players, as much again for spectators. With what keeping the links costs it stays below a tenth: measured in
`tests/room/test_watching.py`."""
FLOOR_BYTES_PER_S = 300.0
"""In a room in which little is said: heartbeats and a chat."""
MESSAGE_OVERHEAD_BYTES = 60
"""What a message to a player costs beside itself, at least: IP and UDP 28, DTLS 22, a short head. Counted low."""
BATCH_OVERHEAD_BYTES = 160
"""What a batch costs beside its body: 64 of signature, 28 of IP and UDP, 29 of DTLS, 28 of SCTP and a few of its own."""
CREDIT_S = 2.0
"""Credit is saved for so long at the rate that it comes at."""
DEBT_BYTES_MAX = 2 * 1024
"""Reliable messages are said on credit up to this each `HEARTBEAT_S`; more waits. What is repeated for another gate is not held
against the player beyond it."""
QUEUE_BYTES_MAX = 2**20
"""Reliable messages that wait; more are lost to spectators, who are told how many."""
FLEETING_MAX = 256
"""Unreliable messages of one turn: a thousand a second; older ones give way."""
LOG_S = 10.0
LOG_BYTES_MAX = 2**19
"""What was said is kept so long for a gate that takes the place of another, which is noticed after two seconds."""
ORPHAN_S = 10.0
"""Without a gate the feed goes on for so long, into the log; then nobody watches any more."""
WHOLE_EVERY_S = 2.0
"""Newcomers ask for all that holds; it is said so often at most, for all who came meanwhile."""
GATES_MAX = 4
"""Members who may ask at all; those of a room's gates that came first."""
CONTESTED_WITHIN_S = 10.0
CONTESTED_S = 30.0
"""A gate whose place another took, and which asks again so soon: one of the two does not pass on what it gets. Both are served
for a while, on the same budget."""
REWINDS_PER_S = 1.0
"""A gate may go back in the log so often."""
REPEATED_BYTES_PER_S = LOG_BYTES_MAX / LOG_S
"""And is given a full log at once, then as much as was said: whoever asks again and again draws no more upload than that."""


class Source(Protocol):
    """What holds in the room, as the words of its parts."""

    def facts(self) -> Facts: ...
    def states(self) -> list[bytes]: ...
    def objects(self, now: float, *, is_whole: bool) -> list[bytes]: ...


class _Said(NamedTuple):
    order: int
    channel: str
    flags: int
    data: bytes

    @property
    def cost(self) -> int:
        return len(self.data) + len(self.channel) + 6


class _Gate:
    def __init__(self, now: float) -> None:
        self.rewinds = TokenBucket(burst=2, per_second=REWINDS_PER_S, now=now)
        self.repeated = TokenBucket(burst=LOG_BYTES_MAX, per_second=REPEATED_BYTES_PER_S, now=now)
        self.replaced_at = -math.inf
        self.serve_until = -math.inf


class Feed:
    """1. `want(gate, word, now)` and `gate_gone(gate, now)`. 2. `say(...)` for each message to everybody; `say_state` for words
    of replicated maps; `sent(n_bytes, n_messages)` for all that goes to players. 3. `handle_timeout(now)` at
    `next_timeout()`. 4. After each: `take_outputs()`, reliably and in order. 5. `end(now)`: the last words, before leaving.

    sign: gives the signature of a batch. session: grows with each feed of this player.
    """

    def __init__(self, source: Source, sign: Callable[[bytes], bytes], session: int) -> None:
        self._source = source
        self._sign = sign
        self._session = session
        self._gates: dict[PeerId, _Gate] = {}
        self._on_until = -math.inf
        self._number = 0
        self._log: deque[tuple[int, float, Signed]] = deque()
        self._queue = _Queue()
        self._fleeting: deque[_Said] = deque()
        self._spoken = 0  # pieces in order
        self._states: list[bytes] = []
        self._facts: Facts | None = None
        self._wants_whole = False
        self._whole_at = -math.inf
        self._credit = _Credit()
        self._due = math.inf
        self._spoke_at = -math.inf
        self._outputs: list[tuple[PeerId, Signed]] = []

    # ---------------------------------------------------------------------------------------------------------- inputs

    def is_on(self, now: float) -> bool:
        """Somebody watches."""
        return now < self._on_until

    @property
    def gates(self) -> list[PeerId]:
        """Who has asked, and is linked as far as we were told."""
        return list(self._gates)

    def want(self, gate: PeerId, word: Want, now: float) -> None:
        known = self._gates.get(gate)
        if known is None:
            if len(self._gates) >= GATES_MAX:
                return
            known = self._gates[gate] = _Gate(now)
        is_lacking = word.until != EVER
        if is_lacking and not self.is_on(now):
            return
        if not self.is_on(now):
            self._begin(now)
        is_served = now < known.serve_until
        if word.is_new or word.session != self._session:
            self._wants_whole = True
        if word.session == self._session and known.rewinds.allow(now):
            for number, _, signed in self._log:
                size = len(signed.body) + BATCH_OVERHEAD_BYTES
                if word.next <= number < word.until and known.repeated.allow(now, size):
                    self._outputs.append((gate, signed))
                    self._credit.pay(size)
        if is_lacking:
            return
        self._on_until = math.inf
        if is_served:
            return
        is_contested = now - known.replaced_at < CONTESTED_WITHIN_S
        for other in self._gates.values():
            if other is not known and now < other.serve_until:
                other.replaced_at = now
                other.serve_until = now + CONTESTED_S if is_contested else -math.inf
        known.serve_until = math.inf

    def gate_gone(self, gate: PeerId, now: float) -> None:
        if self._gates.pop(gate, None) is not None and not any(now < each.serve_until for each in self._gates.values()):
            self._on_until = min(self._on_until, now + ORPHAN_S)

    def say(self, channel: str, data: bytes, now: float, *, is_text: bool, is_reliable: bool) -> None:
        """A message to everybody. It is forgotten at once while nobody watches."""
        if not self.is_on(now):
            return
        flags = (TEXT if is_text else 0) | (0 if is_reliable else FLEETING)
        if not is_reliable:
            self._fleet(channel, flags, data)
            return
        self._spoken = self._queue.put(self._spoken, channel, flags, data)

    def say_state(self, word: bytes, now: float) -> None:
        """A word about a replicated map that goes to everybody."""
        if self.is_on(now) and len(self._states) < 64:
            self._states.append(word)

    def sent(self, n_bytes: int, n_messages: int) -> None:
        self._credit.earn(n_bytes + n_messages * MESSAGE_OVERHEAD_BYTES)

    def next_timeout(self) -> float:
        return self._due

    def handle_timeout(self, now: float) -> None:
        if not self.is_on(now):
            self._forget()
            return
        if now < self._due:
            return
        self._due = now + INTERVAL_S
        self._credit.pass_time(now)
        self._forget_old(now)
        for _ in range(4):
            if not self._speak(now):
                break

    def end(self, now: float) -> None:
        """The player leaves: what waits is said, and that."""
        if self.is_on(now):
            facts, states = self._source.facts(), self._states
            while self._queue:
                self._close(now, None, states, [], BATCH_BYTES)
                states = []
            gone = Facts(facts.name, facts.metadata, facts.stay, facts.seat, [], is_leaving=True)
            self._close(now, gone, states, [], BATCH_BYTES)
            self._on_until = -math.inf

    def take_outputs(self) -> list[tuple[PeerId, Signed]]:
        outputs, self._outputs = self._outputs, []
        return outputs

    # --------------------------------------------------------------------------------------------------------- helpers

    @property
    def _waiting_bytes(self) -> int:
        return self._queue.size + sum([each.cost for each in self._fleeting])

    def _begin(self, now: float) -> None:
        self._session += 1
        self._number = 0
        self._log.clear()
        self._wants_whole, self._whole_at = True, -math.inf
        self._due = now
        self._credit.begin(now)

    def _forget(self) -> None:
        self._due = math.inf
        self._log.clear()
        self._states.clear()
        self._fleeting.clear()
        while self._queue:
            self._queue.take()
        self._facts = None

    def _forget_old(self, now: float) -> None:
        size = sum(len(signed.body) for _, _, signed in self._log)
        while self._log and (self._log[0][1] < now - LOG_S or size > LOG_BYTES_MAX):
            size -= len(self._log.popleft()[2].body)

    def _fleet(self, channel: str, flags: int, data: bytes) -> None:
        if len(data) > PIECE_BYTES:
            return  # it would be stale before it was said
        self._fleeting.append(_Said(self._spoken, channel, flags, data))
        self._spoken += 1
        while len(self._fleeting) > FLEETING_MAX:
            self._fleeting.popleft()

    def _speak(self, now: float) -> bool:
        """One batch, if there is anything to say; whether there is more that the budget allows now."""
        is_whole = self._wants_whole and now >= self._whole_at + WHOLE_EVERY_S
        is_due = is_whole or now >= self._spoke_at + HEARTBEAT_S
        if not is_due and self._credit.left < BATCH_OVERHEAD_BYTES + min(self._waiting_bytes, BATCH_BYTES):
            return False
        facts = self._source.facts()
        has_news = is_whole or facts != self._facts
        objects = self._source.objects(now, is_whole=is_whole)
        states = self._source.states() if is_whole else self._states
        if not (is_due or has_news or objects or states or self._queue or self._fleeting):
            return False
        if is_whole:
            self._wants_whole, self._whole_at = False, now
        self._states = []
        allowance = max(self._credit.left - BATCH_OVERHEAD_BYTES, DEBT_BYTES_MAX if is_due else 0.0)
        if sum(map(len, states)) + sum(map(len, objects)) <= BATCH_BYTES:
            self._close(now, facts if has_news else None, states, objects, allowance, is_whole=is_whole)
        else:  # what holds is more than fits: it begins here, and the rest follows at once
            self._close(now, facts, [], [], 0, is_whole=is_whole)
            for is_object, group in _groups(states, objects):
                self._close(now, None, [] if is_object else group, group if is_object else [], 0)
        return bool(self._queue) and self._credit.left > 0

    def _close(
        self, now: float, facts: Facts | None, states: list[bytes], objects: list[bytes], allowance: float, *,
        is_whole: bool = False,
    ) -> None:  # fmt: skip
        """allowance: bytes of messages. A reliable one begins though it is larger."""
        room = BATCH_BYTES - sum(map(len, states)) - sum(map(len, objects)) - (2048 if facts is not None else 0)
        self._queue.settle()
        said_before, taken, spent = self._queue.said, list[_Said](), 0
        while self._queue and allowance > 0 and len(taken) < ENTRIES_MAX // 2:
            first = self._queue[0]
            if taken and (not first.channel or first.cost > room or spent + first.cost > allowance):
                break  # or messages are missing here: the next batch says from where on
            if first.channel:
                taken.append(first)
                spent, room = spent + first.cost, room - first.cost
            else:
                said_before += first.flags
            self._queue.take()
        for each in reversed(self._fleeting):
            if each.cost > room or spent + each.cost + BATCH_OVERHEAD_BYTES > self._credit.left:
                break
            taken.append(each)
            room, spent = room - each.cost, spent + each.cost
        self._fleeting.clear()
        self._send(
            now, Batch(self._session, self._number, said_before, is_whole, facts, states, objects, _by_channel(taken))
        )
        if facts is not None:
            self._facts = facts

    def _send(self, now: float, batch: Batch) -> None:
        body = encode(batch)
        signed = Signed(body, self._sign(body))
        self._log.append((self._number, now, signed))
        self._number += 1
        self._spoke_at = now
        served = [gate for gate, each in self._gates.items() if now < each.serve_until]
        self._outputs += [(gate, signed) for gate in served]
        self._credit.pay(max(1, len(served)) * (len(body) + BATCH_OVERHEAD_BYTES))


class _Queue(deque[_Said]):
    """Reliable messages that wait, in pieces; said: how many were said before the first of them. One without a channel
    stands for so many (`flags`) that found no room."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.said = 0
        self._lost = 0

    def put(self, order: int, channel: str, flags: int, data: bytes) -> int:
        """The next order."""
        if self.size + len(data) > QUEUE_BYTES_MAX:
            self._lost += 1
            return order
        if self._lost:
            self.append(_Said(order, "", self._lost, b""))
            self._lost = 0
        self.size += len(data)
        for at in range(0, len(data) or 1, PIECE_BYTES):
            more = MORE if at + PIECE_BYTES < len(data) else 0
            self.append(_Said(order, channel, flags | more, data[at : at + PIECE_BYTES]))
            order += 1
        return order

    def take(self) -> _Said:
        first = self.popleft()
        self.size -= len(first.data)
        if not first.channel:
            self.said += first.flags
        elif not first.flags & MORE:
            self.said += 1
        return first

    def settle(self) -> None:
        """Nothing waits: what found no room is missing before whatever comes next."""
        if not self:
            self.said, self._lost = self.said + self._lost, 0


class _Credit:
    """Bytes that spectators may cost now."""

    def __init__(self) -> None:
        self.left = 0.0
        self._earned = 0.0
        self._at = 0.0

    def begin(self, now: float) -> None:
        self.left, self._earned, self._at = 0.0, 0.0, now

    def earn(self, n_bytes: float) -> None:
        self._earned = min(self._earned + SHARE * n_bytes, NUMBER_MAX)

    def pass_time(self, now: float) -> None:
        elapsed = max(now - self._at, 1e-3)
        earned = max(self._earned, FLOOR_BYTES_PER_S * elapsed)
        self.left = min(self.left + earned, max(earned / elapsed * CREDIT_S, BATCH_OVERHEAD_BYTES * 2))
        self._earned, self._at = 0.0, now

    def pay(self, n_bytes: float) -> None:
        self.left = max(self.left - n_bytes, -DEBT_BYTES_MAX)


def _by_channel(taken: list[_Said]) -> list[tuple[str, list[tuple[int, bytes]]]]:
    channels: dict[str, list[tuple[int, bytes]]] = {}
    for each in sorted(taken, key=lambda each: each.order):
        if each.channel in channels or len(channels) < CHANNELS_MAX:
            channels.setdefault(each.channel, []).append((each.flags, each.data))
    return list(channels.items())


def _groups(states: list[bytes], objects: list[bytes]) -> list[tuple[bool, list[bytes]]]:
    """In pieces that fit into a batch."""
    groups: list[tuple[bool, list[bytes]]] = []
    for is_object, words in ((False, states), (True, objects)):
        size = BATCH_BYTES
        for word in words:
            if size + len(word) > BATCH_BYTES:
                groups.append((is_object, []))
                size = 0
            groups[-1][1].append(word)
            size += len(word)
    return groups
