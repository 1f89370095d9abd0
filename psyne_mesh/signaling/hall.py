"""A room in which players find each other while the signaling server is away: its eldest seat places the others. Pure.

Whoever has the lowest seat does what the server would, with the same tables; the others ask it by gossip. Nothing needs a
vote: two who place at once are two servers that do not know of each other, and no room takes more players than it has seats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psyne_mesh.errors import ProtocolError, SignalingError, VersionMismatch
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.hall_asking import Answered, Asking
from psyne_mesh.signaling.hall_placer import HallPlacer
from psyne_mesh.signaling.hall_wire import Answer, Ask, Carried, HallWord, News, decode_untrusted, encode

# Words of one member: a match of 16 is a few answers and some forty envelopes to each; a guess, twice that.
WORDS_BURST = 200.0
WORDS_PER_S = 20.0
_NEWS = messages.MemberJoined | messages.MemberLeft


class Hall:
    """1. `set_members(members, now)`: those who are in it, by seat, ourselves among them. 2. `ask(make, now)` a question, which
    `make` writes with its number; `withdraw(number, lobby, now)` when nobody waits for the answer; `carry(...)` an envelope. 3.
    `receive(peer, data, now)` for what the member has signed. 4. `handle_timeout(now)` at `next_timeout()`. 5. After each
    `take_outputs()`: words for members; `take_answers()`, `take_news()`, `take_carried()`.
    """

    def __init__(self, me: PeerId, wall_ms: Callable[[], int], draw: Callable[[], int]) -> None:
        """draw: a number below 2**53, at random."""
        self._me = me
        self._wall_ms = wall_ms
        self._draw = draw
        self._members: Sequence[PeerId] = ()
        self._asking = Asking()
        self._placer: HallPlacer | None = None
        self._meters: dict[PeerId, TokenBucket] = {}
        self._outputs: list[tuple[PeerId, bytes]] = []
        self._news: list[messages.MemberJoined | messages.MemberLeft] = []
        self._carried: list[tuple[PeerId, Carried]] = []

    def set_members(self, members: Sequence[PeerId], now: float) -> None:
        if members == self._members:
            return
        self._members, present = members, set(members)
        self._meters = {peer: meter for peer, meter in self._meters.items() if peer in present}
        self._asking.set_order(members, now)
        if self._placer is not None:
            self._placer.keep(present, now)
        self._drain(now)

    def placer(self, now: float) -> PeerId | None:
        """Whom we would ask."""
        return self._asking.placer(now)

    def ask(self, make: Callable[[int], messages.Message], now: float) -> int:
        number = self._draw()
        self._asking.ask(number, messages.encode(make(number)).encode(), now)
        self._drain(now)
        return number

    def withdraw(self, number: int, lobby: str, now: float) -> None:
        """Nobody waits for the answer any more."""
        placer = self._asking.asked.get(number)
        self._asking.forget(number)
        if placer is not None:
            withdrawal = messages.Withdraw(seek_ref=number, lobby=lobby)
            self._asking.tell(placer, self._draw(), messages.encode(withdrawal).encode())
            self._drain(now)

    def pass_over(self, peer: PeerId, now: float) -> None:
        """It placed somebody in what is no room; others are asked for a while."""
        self._asking.pass_over(peer, now)

    def carry(self, peer: PeerId, room: str, record: str, envelope: str) -> None:
        """For a member of `room`, in which `record` is ours."""
        self._outputs.append((peer, encode(Carried(room, record, envelope))))

    def receive(self, peer: PeerId, data: bytes, now: float) -> None:
        """`ProtocolError` for what is no word."""
        if peer not in self._members:
            return
        if peer not in self._meters:
            self._meters[peer] = TokenBucket(burst=WORDS_BURST, per_second=WORDS_PER_S, now=now)
        if self._meters[peer].allow(now):
            self._hear(peer, decode_untrusted(data), now)
            self._drain(now)

    def next_timeout(self) -> float | None:
        due = [self._asking.next_timeout(), None if self._placer is None else self._placer.next_timeout()]
        return min((at for at in due if at is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        self._asking.handle_timeout(now)
        if self._placer is not None and self._placer.next_timeout() <= now:
            self._placer.handle_timeout(now)
        self._drain(now)

    def take_outputs(self) -> list[tuple[PeerId, bytes]]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_answers(self) -> list[Answered]:
        return self._asking.take_answers()

    def take_news(self) -> list[messages.MemberJoined | messages.MemberLeft]:
        news, self._news = self._news, []
        return news

    def take_carried(self) -> list[tuple[PeerId, Carried]]:
        carried, self._carried = self._carried, []
        return carried

    def _hear(self, peer: PeerId, word: HallWord, now: float) -> None:
        match word:
            case Ask():
                if self._placer is None:
                    self._placer = HallPlacer(self._wall_ms, now)
                self._placer.receive(peer, word, now)
            case Answer():
                self._asking.receive(peer, word, now)
            case Carried():
                self._carried.append((peer, word))
            case News() if peer == self._asking.placer(now):
                self._hear_news(word)

    def _hear_news(self, word: News) -> None:
        try:
            message = messages.decode_server_untrusted(word.frame)
        except (VersionMismatch, SignalingError) as error:
            raise ProtocolError(str(error)) from error
        if isinstance(message, _NEWS):
            self._news.append(message)

    def _drain(self, now: float) -> None:
        """What we say to ourselves is heard at once."""
        while True:
            outputs = self._asking.take_outputs() + ([] if self._placer is None else self._placer.take_outputs())
            if not outputs:
                return
            for peer, data in outputs:
                if peer == self._me:
                    self._hear(peer, decode_untrusted(data), now)
                else:
                    self._outputs.append((peer, data))
