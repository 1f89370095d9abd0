"""One member of a hall gives out rooms to the others, as a server would: the same switchboard, fed by gossip. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection

from psyne_mesh.errors import ManifestRefused, ProtocolError, VersionMismatch
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket, forget_oldest
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.hall_wire import Ask, News, encode, parts_of
from psyne_mesh.signaling.registry import RegistryLimits
from psyne_mesh.signaling.switchboard import Switchboard

ANSWERED_MAX = 16  # answers for each asker, in case one was lost on the way
ANSWER_KEPT_BYTES = 16_384  # longer ones are lists, which are made anew
UNHEARD_S = 10.0  # who waits says so every other second; a few of these may be lost
EXPIRE_S = 5.0
# In the switchboard's tokens: an evening's start is a seek, a join and a list or two. A member's machine is not a server.
TOKENS_BURST = 100.0
TOKENS_PER_S = 10.0
LIMITS = RegistryLimits(rooms_max=2_048, told_max=64)  # twice as many as a hall has members; answers below 200 KiB


class HallPlacer:
    """1. `receive(peer, ask, now)` for each `Ask` of a member; 2. `keep(members, now)` when members have left; 3.
    `handle_timeout(now)` at `next_timeout()`; 4. `take_outputs()` after each.

    Who asks too much is not heard. It asks again.
    """

    def __init__(self, wall_ms: Callable[[], int], now: float) -> None:
        self._switchboard = Switchboard(LIMITS, wall_ms=lambda now: wall_ms())
        self._askers: dict[PeerId, _Asker] = {}
        self._outputs: list[tuple[PeerId, bytes]] = []
        self._expire_at = now + EXPIRE_S

    def receive(self, peer: PeerId, ask: Ask, now: float) -> None:
        asker = self._askers.setdefault(peer, _Asker(now))
        if not asker.meter.allow(now):
            return
        known = asker.answers.get(ask.number)
        if known is not None:
            asker.heard(ask.number, now)
            self._outputs += [(peer, word) for word in known]
            return
        try:
            message = messages.decode_client_untrusted(ask.frame)
        except (ProtocolError, VersionMismatch) as error:
            self._answer(peer, messages.Error(code="bad_message", message=str(error)[:500], ref=ask.number))
            return
        if isinstance(message, messages.Withdraw):
            asker.forget(message.seek_ref)
            self._switchboard.receive(peer, message, now)
        elif not isinstance(message, messages.Join | messages.Seek | messages.Leave | messages.ListRooms):
            return  # here nobody proves who it is, and envelopes go from member to member
        elif message.ref != ask.number or not asker.meter.allow(now, Switchboard.cost(message) - 1):
            return
        elif isinstance(message, messages.Join | messages.Seek) and not _is_signed(message):
            refusal = ManifestRefused("nobody signed that room, and a hall has no others")
            self._answer(peer, messages.refusal_of(refusal, message.ref))
        else:
            self._switchboard.receive(peer, message, now)
            self._pass_on(now)
            if isinstance(message, messages.Seek) and ask.number not in asker.answers:
                self._answer(peer, messages.Pong(ref=message.ref))
                asker.waiting[ask.number] = now
        self._pass_on(now)

    def keep(self, members: Collection[PeerId], now: float) -> None:
        """Whoever else has left the hall, and its rooms as far as we know."""
        for peer in [peer for peer in self._askers if peer not in members]:
            del self._askers[peer]
            self._switchboard.depart(peer, "lost", now)
        self._pass_on(now)

    def next_timeout(self) -> float:
        due = self._switchboard.next_timeout()
        return self._expire_at if due is None else min(due, self._expire_at)

    def handle_timeout(self, now: float) -> None:
        if now >= self._expire_at:
            self._expire_at = now + EXPIRE_S
            self._switchboard.expire(now)
            for peer, asker in self._askers.items():
                for ref in [ref for ref, at in asker.waiting.items() if now - at >= UNHEARD_S]:
                    asker.forget(ref)
                    self._switchboard.receive(peer, messages.Withdraw(seek_ref=ref, lobby="///"), now)
        self._switchboard.handle_timeout(now)
        self._pass_on(now)

    def take_outputs(self) -> list[tuple[PeerId, bytes]]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def _pass_on(self, now: float) -> None:
        for delivery in self._switchboard.take_outputs():
            for peer in delivery.peers:
                if isinstance(delivery.message, messages.MemberJoined | messages.MemberLeft):
                    self._outputs.append((peer, encode(News(messages.encode(delivery.message).encode()))))
                else:
                    self._answer(peer, delivery.message)
                    if delivery.cost and (asker := self._askers.get(peer)) is not None:
                        asker.meter.charge(delivery.cost, now, TOKENS_BURST)

    def _answer(self, peer: PeerId, message: messages.Message) -> None:
        number, frame = getattr(message, "ref", None), messages.encode(message).encode()
        asker = self._askers.get(peer)
        if asker is None or number is None:
            return
        words = parts_of(number, frame)
        asker.waiting.pop(number, None)
        if len(frame) <= ANSWER_KEPT_BYTES:
            asker.answers[number] = words
            forget_oldest(asker.answers, ANSWERED_MAX)
        self._outputs += [(peer, word) for word in words]


class _Asker:
    """A member that has asked."""

    def __init__(self, now: float) -> None:
        self.meter = TokenBucket(burst=TOKENS_BURST, per_second=TOKENS_PER_S, now=now)
        self.answers: OrderedDict[int, list[bytes]] = OrderedDict()  # to the numbers that were asked last
        self.waiting: dict[
            int, float
        ] = {}  # seeks without a place, and when they were asked last; `Placing` bounds them

    def heard(self, number: int, now: float) -> None:
        if number in self.waiting:
            self.waiting[number] = now

    def forget(self, number: int) -> None:
        self.waiting.pop(number, None)
        self.answers.pop(number, None)


def _is_signed(message: messages.Join | messages.Seek) -> bool:
    join = message.join if isinstance(message, messages.Seek) else message
    return bool(join.manifest.signature)
