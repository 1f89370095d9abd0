"""Questions and answers in a room: the pure core on a reliable channel of its own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from psyne_mesh.errors import (
    ClosedError,
    DeadlineExceeded,
    InvalidConfig,
    MessageTooLarge,
    PeerGone,
    ProtocolError,
    PsyneMeshError,
    RequestRefused,
    WouldBlock,
)
from psyne_mesh.game import requests
from psyne_mesh.game.requests import Asked, Ended, Requests
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import interruptible, uninterrupted
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Peer, Player
from psyne_mesh.room.tagged import decode_tagged_untrusted, encode_tagged

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

CHANNEL = "psyne.requests"
TIMEOUT_S = 5.0
"""Of a question, unless the call says otherwise: a round trip over a bad path and a second of thought. A guess."""

Someone = Peer | Player | PeerId
Outcome = Message | PsyneMeshError
Handler = Callable[[Any, Any], Any]
OnAsked = Callable[[Peer | Player, Message, "Reply"], None]


class Reply:
    """How a question ends here, once: `answer(message)` or `refuse(reason)`."""

    def __init__(self, end: Callable[[Message | str], None]) -> None:
        self._end = end

    def answer(self, message: Any) -> None:
        """`InvalidConfig` for what is no `Message`."""
        encode_tagged(message)
        self._end(message)

    def refuse(self, reason: str) -> None:
        self._end(reason)


def no_handler(message: Message) -> str:
    return f"nobody there answers {type(message).__name__}"


@uninterrupted
class Asking:
    """1. The room's task is in `run()`. 2. `begin(someone, message, timeout, done)` asks; `done` is called once with what came
    of it. 3. `on_asked` is called with each question, and a `Reply`. 4. `peer_left(peer)` as it happens, and `end(why)`.
    """

    def __init__(self, room: Room, check_open: Callable[[], object]) -> None:
        self._room = room
        self._check_open = check_open
        self._nursery: trio.Nursery | None = None
        self._core = Requests()
        self._done: dict[int, Callable[[Outcome], None]] = {}
        self._handlers: dict[type[Message], Handler] = {}
        self._own: dict[type[Message], Callable[[Peer | Player, Message], Message]] = {}
        self._wake = trio.Event()
        self._channel: Any = None
        self.on_asked: OnAsked = self._call_handler
        self.refused = 0

    # --------------------------------------------------------------------------------------------------------- asking

    def begin(
        self, someone: Someone, message: Message, timeout: float, done: Callable[[Outcome], None]
    ) -> Callable[[], None]:
        """Returns how to give it up. Raises what is wrong with the call."""
        self._check_open()
        if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise InvalidConfig(f"timeout = {timeout!r}: must be a number of seconds above 0")
        _checked(someone)
        payload = encode_tagged(message)
        if len(payload) > requests.PAYLOAD_BYTES_MAX:
            raise MessageTooLarge(len(payload), requests.PAYLOAD_BYTES_MAX)
        who = someone if isinstance(someone, PeerId) else someone.id
        if who == self._room.me:
            return self._ask_ourselves(payload, done)
        if self._core.is_full:
            raise WouldBlock(f"{requests.PENDING_MAX} questions wait for their answers; nothing was sent")
        if who not in self._room.peers:
            raise PeerGone(f"{who.short} is not in the room")
        number = self._core.ask(who, payload, trio.current_time() + timeout)
        self._done[number] = done
        self._flush()
        self._wake.set()
        return lambda: self._give_up(number)

    async def request(self, someone: Someone, message: Message, timeout: float) -> Message:
        (outcome,) = (await self.request_each([someone], message, timeout)).values()
        if isinstance(outcome, PsyneMeshError):
            raise outcome
        return outcome

    async def request_each(self, who: Iterable[Someone], message: Message, timeout: float) -> dict[PeerId, Outcome]:
        await trio.lowlevel.checkpoint()
        outcomes: dict[PeerId, Outcome] = {}
        all_done = trio.Event()
        players = {each if isinstance(each, PeerId) else each.id: each for each in map(_checked, who)}
        give_up: list[Callable[[], None]] = []

        def note(player: PeerId, outcome: Outcome) -> None:
            outcomes[player] = outcome
            if len(outcomes) == len(players):
                all_done.set()

        try:
            for player, someone in players.items():
                try:
                    give_up.append(self.begin(someone, message, timeout, partial(note, player)))
                except PeerGone as gone:
                    note(player, gone)
            if not players:
                all_done.set()
            await all_done.wait()
        finally:
            for each in give_up:
                each()
        return {player: outcomes[player] for player in players}

    def _ask_ourselves(self, payload: bytes, done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Who asks the host may be the host."""

        def end(answer: Message | str) -> None:
            done(RequestRefused(answer) if isinstance(answer, str) else answer)

        self.on_asked(self._room.player, decode_tagged_untrusted(payload), Reply(end))
        return lambda: None

    def _give_up(self, number: int) -> None:
        self._core.give_up(number)
        self._done.pop(number, None)

    # ------------------------------------------------------------------------------------------------------- answering

    def respond(self, kind: type[Message], handler: Handler) -> None:
        if not (isinstance(kind, type) and issubclass(kind, Message)):
            raise InvalidConfig(f"respond({kind!r}): must be a class of yours that subclasses Message")
        if kind in self._handlers:
            raise InvalidConfig(f"{kind.__name__} is answered by another function already")
        self._handlers[kind] = handler

    def answer_ourselves(self, kind: type[Message], answer: Callable[[Peer | Player, Message], Message]) -> None:
        """Questions of the library's own, answered where they are read."""
        self._own[kind] = answer

    def _call_handler(self, peer: Peer | Player, message: Message, reply: Reply) -> None:
        handler = self._handlers.get(type(message))
        if handler is None or self._nursery is None:
            reply.refuse(no_handler(message))
        else:
            self._nursery.start_soon(self._handle, handler, peer, message, reply)

    async def _handle(self, handler: Handler, peer: Peer | Player, message: Message, reply: Reply) -> None:
        try:
            answer = interruptible(handler, peer, message)
            if inspect.isawaitable(answer):
                answer = await _awaited(answer)
            reply.answer(answer)
        except RequestRefused as refusal:
            reply.refuse(str(refusal))
        except ClosedError:
            return

    # ---------------------------------------------------------------------------------------------------------- the task

    def peer_left(self, peer: PeerId) -> None:
        self._core.peer_left(peer)
        self._flush()

    def end(self, why: ClosedError) -> None:
        """The room has ended: nobody waits for an answer."""
        waiting, self._done = self._done, {}
        for done in waiting.values():
            done(why)

    async def run(self) -> None:
        try:
            self._channel = self._room.channel(CHANNEL, mode="reliable")
        except ClosedError:
            return  # the room ended before its task began
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._read)
            self._flush()
            while True:
                self._wake = trio.Event()
                with trio.move_on_at(self._core.next_timeout()):
                    await self._wake.wait()
                self._core.handle_timeout(trio.current_time())
                self._flush()

    async def _read(self) -> None:
        async for sender, data in self._channel:
            try:
                self._core.receive(sender.id, requests.decode_untrusted(data))
            except ProtocolError:
                self.refused += 1
                continue
            self._flush()

    def _flush(self) -> None:
        if self._channel is None:
            return  # it goes out once the room's task has begun
        for event in self._core.take_events():
            if isinstance(event, Ended):
                self._ended(event)
            else:
                self._asked(event)
        for target, word in self._core.take_outputs():
            with suppress(PeerGone, ClosedError, MessageTooLarge):  # it ends by its deadline, or the player is leaving
                self._channel.send_nowait(requests.encode(word), to=target)

    def _ended(self, event: Ended) -> None:
        done = self._done.pop(event.number, None)
        if done is None:
            return
        if event.payload is not None:
            try:
                done(decode_tagged_untrusted(event.payload))
            except ProtocolError as error:
                done(error)
        elif event.is_refused:
            done(RequestRefused(event.reason))
        elif event.reason == "gone":
            done(PeerGone("the player left before it answered"))
        else:
            done(DeadlineExceeded("no answer came in time"))

    def _asked(self, event: Asked) -> None:
        peer = self._room.peers.get(event.peer)

        def end(answer: Message | str) -> None:
            if isinstance(answer, str):
                self._core.refuse(event.peer, event.number, answer)
            else:
                self._core.answer(event.peer, event.number, encode_tagged(answer))
            self._flush()

        try:
            message = decode_tagged_untrusted(event.payload)
        except ProtocolError as error:
            self.refused += 1
            end(str(error))
            return
        if peer is None:
            return
        if (own := self._own.get(type(message))) is not None:
            try:
                Reply(end).answer(own(peer, message))
            except RequestRefused as refusal:
                end(str(refusal))
            return
        self.on_asked(peer, message, Reply(end))


def _checked(someone: Someone) -> Someone:
    if not isinstance(someone, Peer | Player | PeerId):
        raise InvalidConfig(f"request({someone!r}, ...): must be a player, such as room.host or one of room.peers")
    return someone


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer
