"""The signaling client: one WebSocket connection that comes back by itself."""

from __future__ import annotations

import math
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count

import attrs
import msgspec
import trio

from psyne_mesh.errors import (
    ClosedError,
    InvalidUri,
    MessageTooLarge,
    ProtocolError,
    RemoteError,
    RoomError,
    SignalingBusy,
    SignalingError,
    SignalingLost,
    SignalingUnreachable,
    WouldBlock,
)
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.in_trio import check_in_trio
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.convert import joined_untrusted, listing_untrusted, peer_info, room_info_untrusted
from psyne_mesh.signaling.dialing import WebSocketUrl, dial_tcp
from psyne_mesh.signaling.events import (
    Joined,
    Lost,
    PeerJoined,
    PeerLeft,
    Restored,
    RoomInfo,
    RoomListing,
    SignalingEvent,
    SignalReceived,
    SignalRefused,
)
from psyne_mesh.signaling.inbox import EventIterator, Inbox
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery, SeekRequest
from psyne_mesh.signaling.link import Dial, Link, SignalingConfig, Superseded, open_link
from psyne_mesh.signaling.requests import (
    check_record,
    checked_join,
    checked_list,
    checked_seek,
    message_of,
    request_into,
)

_PENDING_MAX = 64  # requests under way at once; one more raises WouldBlock
_GOODBYE_S = 1.0  # how long leaving the block may take to flush the queue and to close


@asynccontextmanager
@uninterrupted
async def connect_signaling(
    url: str | Sequence[str],
    identity: Identity,
    *,
    config: SignalingConfig | None = None,
    ssl_context: ssl.SSLContext | None = None,
    rng: random.Random | None = None,
    dial: Dial | None = None,
) -> AsyncIterator[SignalingClient]:
    """A client at `ws://host[:port][/path]` or `wss://...` for as long as the block; it is connected when this returns.

    url: of one server, or of several that share their rooms: the next is tried when one does not answer.

    Raises `SignalingUnreachable` (nobody answers; a busy server is asked again for `config.connect_timeout_s`),
    `VersionMismatch`, `SignalingError` (refused), `InvalidUri`. Later losses are `Lost` events and never exceptions of the
    block. `rng` shakes the back-off; `dial` opens the stream instead of TCP and TLS (a proxy, a test). Leaving the block
    says goodbye in every room, within a second.
    """
    check_in_trio()
    urls = (url,) if isinstance(url, str) else tuple(url)
    client = SignalingClient(urls, identity, config or SignalingConfig(), ssl_context, rng or random.Random(), dial)
    async with open_background_nursery() as nursery:
        await nursery.start(client._run)
        try:
            yield client
        finally:
            await client._say_goodbye()  # when the block is cancelled, too: so the connection outlives it by a second


@uninterrupted
class SignalingClient:
    """A `SignalingTransport` over a WebSocket. Made by `connect_signaling`."""

    def __init__(
        self,
        urls: tuple[str, ...],
        identity: Identity,
        config: SignalingConfig,
        ssl_context: ssl.SSLContext | None,
        rng: random.Random,
        dial: Dial | None,
    ) -> None:
        if not urls:
            raise InvalidUri("a signaling server has at least one URL")
        self.reconnects = 0
        self._urls = urls
        self._addresses = [WebSocketUrl.parse(url) for url in urls]
        self._at = 0  # which of them we are at, or try next
        self._identity = identity
        self._config = config
        self._rng = rng
        self._dials = [dial or partial(dial_tcp, address, ssl_context) for address in self._addresses]
        self._needed = trio.Event()  # somebody cannot wait until we are back
        self._clock: tuple[int, float] | None = None  # what the server's clock said, and when, on ours
        self._signals_per_s = math.inf
        self.regions: Mapping[str, str] = {}
        self._inbox = Inbox(config.inbox_max)
        self._rooms: dict[str, JoinRequest] = {}  # how to enter again
        self._pending: dict[int, _Pending] = {}
        self._next_ref = 0
        self._link: Link | None = None
        self._is_ready = False
        self._held: list[SignalingEvent] | None = None  # what came while we were entering again
        self._is_lost = False  # a Lost was told and no Restored since
        self._is_closing = False
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    @property
    def url(self) -> str:
        """Of the server that we are at, or try next."""
        return self._urls[self._at]

    @property
    def peer_id(self) -> PeerId:
        return self._identity.peer_id

    @property
    def is_connected(self) -> bool:
        return self._is_ready

    async def join(self, request: JoinRequest, *, goodbye: str = "") -> Joined:
        """See `SignalingTransport.join`."""
        request = checked_join(request)
        check_record(goodbye)
        self._check_connected()
        return await self._join(request, goodbye)

    async def seek(self, request: SeekRequest) -> RoomInfo:
        """See `SignalingTransport.seek`."""
        question = checked_seek(request)
        self._check_connected()
        lobby, refs = request.join.key, []

        def asked(ref: int) -> messages.Message:
            refs.append(ref)
            join = msgspec.structs.replace(question.join, ref=ref)
            return msgspec.structs.replace(question, ref=ref, join=join)

        try:
            answer = await self._ask(asked, patience_s=math.inf if request.waits else self._config.request_timeout_s)
        except trio.Cancelled:
            if refs and request.waits:
                self._say_unasked(messages.Withdraw(seek_ref=refs[0], lobby=lobby))
            raise
        if not isinstance(answer, messages.Placed):
            raise SignalingError("the server answered a search for a room with something else")
        try:
            return room_info_untrusted(answer.info)
        except ProtocolError as error:
            raise SignalingError(f"the server answered a search for a room with nonsense: {error}") from error

    async def leave(self, room: str, *, record: str = "") -> None:
        """See `SignalingTransport.leave`. While the connection is lost it is enough that we do not come back."""
        self._rooms.pop(room, None)
        for pending in self._pending.values():
            pending.is_left |= pending.joining is not None and pending.joining.key == room
        if self._is_ready:
            try:
                await self._ask(lambda ref: messages.Leave(ref=ref, room=room, record=record))
            except SignalingLost:
                return  # the server takes us out of every room by itself
        await trio.lowlevel.checkpoint()

    async def list_rooms(self, query: RoomQuery | None = None) -> RoomListing:
        """See `SignalingTransport.list_rooms`."""
        question = checked_list(query or RoomQuery())
        self._check_connected()
        answer = await self._ask(lambda ref: msgspec.structs.replace(question, ref=ref))
        if not isinstance(answer, messages.RoomList):
            raise SignalingError("the server answered a list with something else")
        try:
            return listing_untrusted(answer)
        except ProtocolError as error:
            raise SignalingError(f"the server answered a list with nonsense: {error}") from error

    def send_signal(self, to: PeerId, room: str, envelope: str) -> None:
        """See `SignalingTransport.send_signal`."""
        self._check_connected()
        if len(envelope) > messages.MAX_ENVELOPE_CHARS:
            raise MessageTooLarge(len(envelope), messages.MAX_ENVELOPE_CHARS)
        self._push(messages.Signal(to=to, room=room, envelope=envelope))

    def set_record(self, room: str, record: str) -> None:
        """See `SignalingTransport.set_record`."""
        check_record(record)
        if room in self._rooms:
            self._rooms[room] = attrs.evolve(self._rooms[room], record=record)

    def doubt(self) -> None:
        """See `SignalingTransport.doubt`."""
        if self._link is not None:
            self._link.doubt()
        else:
            self._needed.set()

    def time_ms(self) -> int | None:
        """See `SignalingTransport.time_ms`."""
        if self._clock is None:
            return None
        told_ms, at = self._clock
        return told_ms + int(1000 * (trio.current_time() - at))

    @property
    def signals_per_s(self) -> float:
        """See `SignalingTransport.signals_per_s`."""
        return self._signals_per_s

    async def next_event(self) -> SignalingEvent:
        """See `SignalingTransport.next_event`."""
        return await self._inbox.get()

    @property
    def events(self) -> AsyncIterator[SignalingEvent]:
        return EventIterator(self._inbox)

    # ------------------------------------------------------------------------------------------------------- requests

    async def _join(self, request: JoinRequest, goodbye: str = "") -> Joined:
        key = request.key
        was_in = key in self._rooms
        try:
            answer = await self._ask(partial(message_of, request), request)
        except (trio.Cancelled, SignalingError):  # the server may have let us in
            if not was_in:
                self._rooms.pop(key, None)
                self._leave_unasked(key, goodbye)
            raise
        if not isinstance(answer, Joined) or answer.room != key:
            raise SignalingError("the server answered a join with something else")
        return answer

    async def _ask(
        self, message: Callable[[int], messages.Message], joining: JoinRequest | None = None,
        patience_s: float | None = None,
    ) -> object:  # fmt: skip
        """The answer, within `patience_s`. For a join it was taken note of when it came in, before any event that followed
        it."""
        enters = joining is not None or patience_s is not None
        if len(self._pending) >= _PENDING_MAX:
            raise WouldBlock(f"{_PENDING_MAX} requests to the signaling server are under way")
        ref = self._next_ref
        self._next_ref += 1
        pending = self._pending[ref] = _Pending(joining)
        try:
            self._push(message(ref))
            with trio.move_on_after(self._config.request_timeout_s if patience_s is None else patience_s):
                await pending.done.wait()
        finally:
            del self._pending[ref]
        if pending.error is not None:
            if not isinstance(pending.error, SignalingError | RoomError if enters else SignalingError):
                raise SignalingError(f"the server refused with what is no answer: {pending.error}") from pending.error
            raise pending.error
        if pending.answer is None:
            raise SignalingError(f"the signaling server gave no answer within {self._config.request_timeout_s} s")
        return pending.answer

    def _push(self, message: messages.Message) -> None:
        if self._link is None:
            raise SignalingLost("not connected to the signaling server")
        self._link.push(messages.encode(message))

    def _leave_unasked(self, key: str, goodbye: str = "") -> None:
        if self._link is not None:
            self._say_unasked(messages.Leave(ref=self._next_ref, room=key, record=goodbye))
            self._next_ref += 1

    def _say_unasked(self, message: messages.Message) -> None:
        with suppress(WouldBlock, SignalingLost):  # then the connection is as good as gone, and we with it
            self._push(message)

    def _check_connected(self) -> None:
        if self._inbox.is_closed:
            raise ClosedError("this signaling client was closed")
        if not self._is_ready:
            raise SignalingLost(f"not connected to {self.url} at the moment")

    # ----------------------------------------------------------------------------------------------------- connection

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._scope:
                await self._stay_connected(task_status)
        finally:
            self._ended.set()

    async def _stay_connected(self, task_status: trio.TaskStatus[None]) -> None:
        """Connect, and connect again, until the goodbye or until another process takes our identity."""
        cause = await self._connect_first(task_status)
        failures = 0
        began = trio.current_time()
        while cause is not None:
            self._lose(cause)
            if isinstance(cause, Superseded):
                return
            if trio.current_time() - began > self._config.backoff_max_s:
                failures = 0  # it stood for a while: this is a new trouble
            await self._rest(cause, failures)
            failures += 1
            began = trio.current_time()
            cause = await self._connect_again()

    async def _connect_first(self, task_status: trio.TaskStatus[None]) -> SignalingError | None:
        """What ended the first connection. Each server is tried once, a busy one for as long as we may."""
        give_up_at = trio.current_time() + self._config.connect_timeout_s
        for attempt in count(1):
            try:
                async with self._connected() as link:
                    self._is_ready = True
                    task_status.started()
                    self._scope.shield = True  # from now on `_say_goodbye` ends it
                    return await self._converse(link)
            except SignalingBusy as busy:
                back_at = trio.current_time() + self._when_not_busy(busy)
                if back_at > give_up_at or self._is_ready:
                    raise
                await trio.sleep_until(back_at)
            except SignalingUnreachable:
                if attempt >= len(self._addresses) or self._is_ready:
                    raise
        raise AssertionError("unreachable")

    async def _rest(self, cause: SignalingError, failures: int) -> None:
        """Before the next attempt. Not for long while somebody needs us, though never in step with the others; a server
        that is busy says itself how long."""
        if isinstance(cause, SignalingBusy):
            await trio.sleep(self._when_not_busy(cause))
            return
        deadline = trio.current_time() + self._backoff(failures, self._config.backoff_max_s)
        with trio.move_on_at(deadline):
            await self._needed.wait()
            short = self._backoff(failures, self._config.backoff_needed_s)
            await trio.sleep_until(min(deadline, trio.current_time() + short))
        self._needed = trio.Event()

    def _backoff(self, failures: int, longest_s: float) -> float:
        ceiling = min(longest_s, self._config.backoff_first_s * 2.0 ** min(failures, 30))
        return ceiling * self._rng.uniform(0.5, 1.0)

    def _when_not_busy(self, busy: SignalingBusy) -> float:
        """Not before the server says, and spread behind that: all the others heard the same."""
        wait_s = min(busy.retry_after_s, self._config.retry_after_max_s)
        return wait_s * self._rng.uniform(1.0, 1.5)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Link]:
        """Whoever does not let us in, or is lost, is followed by the next server."""
        at = self._at
        try:
            async with open_link(self._addresses[at], self._dials[at], self._identity, self._config) as link:
                self._link = link
                self._note_welcome(link.welcome)
                try:
                    yield link
                finally:
                    self._link = None
        except SignalingError:
            self._at = (at + 1) % len(self._addresses)
            raise

    def _note_welcome(self, welcome: messages.Welcome) -> None:
        if welcome.time_ms is not None:
            self._clock = welcome.time_ms, trio.current_time()
        self._signals_per_s = welcome.messages_per_s or math.inf
        self.regions = welcome.regions

    async def _connect_again(self) -> SignalingError | None:
        """What ended it, or None after the goodbye."""
        try:
            async with self._connected() as link:
                self.reconnects += 1
                self._held = []
                return await self._converse(link, self._restore)
        except SignalingError as error:  # still unreachable, or refused
            return error

    async def _converse(self, link: Link, *alongside: Callable[[], Awaitable[None]]) -> SignalingError | None:
        if self._is_closing:
            return None
        try:
            await link.converse(self._deliver, *alongside)
        except SignalingLost as error:
            self._fail_pending(error)
            return error
        return None

    def _lose(self, cause: SignalingError) -> None:
        """Say so once, however many attempts fail until we are back."""
        is_final = isinstance(cause, Superseded)
        if not self._is_lost or is_final:
            if not self._inbox.put(Lost(cause, retrying=not is_final)):
                self._inbox.put(Lost(cause, retrying=not is_final))  # the first put emptied it
            self._is_lost = True
        self._is_ready = False
        self._held = None
        if is_final:
            self._inbox.end()

    def _fail_pending(self, error: SignalingLost) -> None:
        for pending in self._pending.values():
            pending.error = error
            pending.done.set()

    async def _restore(self) -> None:
        """Enter every room again, and only then tell: events that came meanwhile follow the lists that they change."""
        rooms: list[Joined] = []
        refused: list[tuple[str, RoomError | SignalingError]] = []
        for key, request in list(self._rooms.items()):
            try:
                joined = await self._join(request)
            except SignalingLost:
                raise  # once more; the next connection starts from the beginning
            except WouldBlock as error:
                raise SignalingLost(f"could not enter room {key!r} again: {error}") from error
            except (RoomError, SignalingError) as error:
                self._rooms.pop(key, None)
                if isinstance(error, SignalingError):
                    self._leave_unasked(key)  # the answer may be merely late, and the server have let us in
                refused.append((key, error))
                continue
            if key in self._rooms:
                rooms.append(joined)
        held, self._held = self._held or [], None
        self._is_ready, self._is_lost = True, False
        for event in (Restored(tuple(rooms), tuple(refused)), *held):
            self._emit(event)

    # ------------------------------------------------------------------------------------------------------ messages

    def _deliver(self, message: messages.ServerMessage) -> None:
        match message:
            case messages.JoinedRoom():
                self._entered(message)
            case messages.RoomList() | messages.LeftRoom() | messages.Placed():
                self._answer(message.ref, message)
            case messages.Error(ref=int() as ref):
                self._answer(ref, messages.exception_of(message))
            case messages.Error(room=room, peer_id=peer_id):
                to = None if peer_id is None else PeerId(peer_id)
                self._emit(SignalRefused(to, room, messages.exception_of(message)))
            case messages.MemberJoined(room=room) if room in self._rooms:
                self._emit(PeerJoined(room, peer_info(message.peer), message.rejoined))
            case messages.MemberLeft(room=room) if room in self._rooms:
                self._emit(PeerLeft(room, PeerId(message.peer_id), message.reason, message.record))
            case messages.SignalFrom(room=room) if room in self._rooms:
                self._emit(SignalReceived(PeerId(message.sender), room, message.envelope))

    def _entered(self, message: messages.JoinedRoom) -> None:
        pending = self._pending.get(message.ref)
        if pending is None or pending.joining is None:
            return  # cancelled meanwhile; a leave is on its way
        try:
            joined = joined_untrusted(message, self.peer_id)
        except ProtocolError as error:
            self._answer(message.ref, SignalingError(f"the server answered a join with nonsense: {error}"))
            raise  # the link counts it
        if joined.room != pending.joining.key:
            self._answer(message.ref, joined)  # `_join` refuses it, and nothing is kept of a room that nobody asked for
            return
        if self._held is not None and joined.room not in self._rooms:
            self._leave_unasked(joined.room)  # left while we were on the way back in
        elif not pending.is_left:  # else a leave follows behind the join, and perhaps another join behind that
            self._rooms[joined.room] = request_into(joined.info, pending.joining)
        self._answer(message.ref, joined)

    def _answer(self, ref: int, answer: object) -> None:
        pending = self._pending.get(ref)
        if pending is None:
            return  # nobody waits for it any more
        if isinstance(answer, RemoteError):
            pending.error = answer
        else:
            pending.answer = answer
        pending.done.set()

    def _emit(self, event: SignalingEvent) -> None:
        if self._held is not None:
            self._held.append(event)
            fits = len(self._held) <= self._config.inbox_max
        else:
            fits = self._inbox.put(event)
        if not fits:
            raise SignalingLost(f"{self._config.inbox_max} events were waiting; the lists will come anew")

    async def _say_goodbye(self) -> None:
        self._is_closing = True
        self._is_ready = False
        self._inbox.close()
        if self._link is not None:
            self._link.finish()
            with trio.move_on_after(_GOODBYE_S, shield=True):
                await self._ended.wait()
        self._scope.cancel()


class _Pending:
    """A question under way."""

    __slots__ = ("answer", "done", "error", "is_left", "joining")

    def __init__(self, joining: JoinRequest | None) -> None:
        self.joining = joining
        self.is_left = False  # the room that it joins was left meanwhile
        self.done = trio.Event()
        self.answer: object = None
        self.error: RemoteError | None = None
