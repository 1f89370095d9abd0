"""What players ask of each other, for a game's loop: asking never waits, and answering happens inside `poll()`."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from psyne_mesh.errors import InvalidConfig, PeerGone, PsyneMeshError, RequestRefused, WouldBlock
from psyne_mesh.game.transfer_wire import FILE_BYTES_MAX
from psyne_mesh.identity import PeerId
from psyne_mesh.room import files as room_files
from psyne_mesh.room import room as trio_room
from psyne_mesh.room.asking import TIMEOUT_S, Outcome, Reply, Someone, no_handler
from psyne_mesh.room.callbacks import checked_callback
from psyne_mesh.room.files import ArrivingFile, OnProgress, ReceivedFile, Results
from psyne_mesh.room.files import To as Receivers
from psyne_mesh.room.messages import Message
from psyne_mesh.room.parts import Parts
from psyne_mesh.room.peer import Peer, Player
from psyne_mesh.room.snapshots import Snapshot
from psyne_mesh.room.tagged import encode_tagged
from psyne_mesh.sync.handover import Outbox
from psyne_mesh.sync.thread import NetworkThread

C = TypeVar("C", bound=Callable[..., Any])

# Questions that wait for the next `poll()`; more are refused, as the game does not come to answer them.
WAITING_MAX = 1024


R = TypeVar("R")


class Pending(Generic[R]):
    """Something under way: `is_done`, then `result()`."""

    _WAITS: ClassVar[str]

    def __init__(self) -> None:
        self._result: R | None = None
        self._error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self._result is not None or self._error is not None

    def result(self) -> R:
        """What came of it. Raises what the same call raises under Trio; and `WouldBlock` before it is done."""
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise WouldBlock(f"{self._WAITS}: ask is_done in a later frame")
        return self._result

    async def settle(self, work: Callable[[], Awaitable[R]]) -> None:
        """On the network's thread: what comes of `work` is the result."""
        try:
            self._result = await work()
        except PsyneMeshError as error:
            self._error = error


class Request(Pending[Message]):
    """A question under way: `is_done`, then `result()`, which raises `DeadlineExceeded`, `PeerGone`, `RequestRefused`."""

    _WAITS = "no answer has come yet"

    def note(self, outcome: Outcome) -> None:
        """Called on the network's thread."""
        if isinstance(outcome, PsyneMeshError):
            self._error = outcome
        else:
            self._result = outcome


class Requests:
    """A question to several players under way: `is_done`, and `results` so far: what each answered, or its error."""

    def __init__(self, players: Iterable[PeerId]) -> None:
        self.results: dict[PeerId, Outcome] = {}
        self._players = tuple(players)

    @property
    def is_done(self) -> bool:
        return len(self.results) == len(self._players)

    def note(self, player: PeerId, outcome: Outcome) -> None:
        """Called on the network's thread; `results` is replaced, so that who reads it is not disturbed."""
        self.results = self.results | {player: outcome}


class FileSending(Pending[Results]):
    """A file under way: `is_done`, then `result()`: of each player None, or why it has no file. `progress` has, of each player,
    the bytes that are there and all bytes."""

    _WAITS = "the file is still under way"

    def __init__(self, told: Callable[[PeerId, int, int], object] | None) -> None:
        super().__init__()
        self.progress: dict[PeerId, tuple[int, int]] = {}
        self._told = told
        self._shown: dict[PeerId, tuple[int, int]] = {}

    def tell(self) -> None:
        """Inside `poll()`."""
        progress = self.progress
        if self._told is not None:
            for peer in [peer for peer, shown in progress.items() if self._shown.get(peer) != shown]:
                self._told(peer, *progress[peer])
        self._shown = progress

    def note(self, peer: PeerId, done: int, size: int) -> None:
        """Called on the network's thread; `progress` is replaced, so that who reads it is not disturbed."""
        self.progress = self.progress | {peer: (done, size)}


class SnapshotRequest(Pending[Snapshot]):
    """A snapshot under way: `is_done`, then `result()`."""

    _WAITS = "the snapshot is still under way"


class Files:
    """`for file in net.files():` files as they have come, whole; ends when there is no more, and does not wait."""

    def __init__(self, thread: NetworkThread[Any], files: room_files.Files) -> None:
        self._thread = thread
        self._files = files

    @property
    def arriving(self) -> list[ArrivingFile]:
        """What is on its way."""
        return self._thread.call(lambda: self._files.arriving)

    def receive_nowait(self) -> ReceivedFile:
        """The next file, or `WouldBlock`; `ClosedError` once the room was left."""
        return self._thread.call(self._files.receive_nowait)

    def __iter__(self) -> Iterator[ReceivedFile]:
        while len(self._files.inbox):
            yield self.receive_nowait()


class Exchanging:
    """A part of `Room`."""

    _thread: NetworkThread[Any]
    _room: trio_room.Room
    _parts: Parts
    _outbox: Outbox

    def __init__(self) -> None:
        self._sendings: list[FileSending] = []
        self._files: Files | None = None
        self._questions: deque[tuple[Peer | Player, Message, Reply]] = deque()
        self._answering: dict[type[Message], Callable[[Any, Any], Any]] = {}

    def request(self, to: Someone, message: Message, *, timeout: float = TIMEOUT_S) -> Request:
        """`asked = net.request(net.host, TakeItem(3), timeout=2.0)`; in a later frame `asked.is_done` and `asked.result()`.
        What is wrong with the call is raised here, what became of it by `result()`, as under Trio."""
        request = Request()
        self._thread.call(self._parts.asking.begin, to, message, timeout, request.note)
        return request

    def request_each(
        self, message: Message, to: Iterable[Someone] | None = None, *, timeout: float = TIMEOUT_S
    ) -> Requests:
        """The same of several players at once, of all others if `to` is left out: what it returns has `is_done` and
        `results`."""
        whom = list(self._room.peers) if to is None else list(to)
        requests = Requests(each if isinstance(each, PeerId) else each.id for each in whom)
        for player in requests._players:
            try:
                self._thread.call(self._parts.asking.begin, player, message, timeout, partial(requests.note, player))
            except PeerGone as gone:
                requests.note(player, gone)
        return requests

    def respond(self, kind: type[Message]) -> Callable[[C], C]:
        """`@net.respond(TakeItem)` above `def take(peer, message): return Taken(...)`: called inside `poll()`. It raises
        `RequestRefused(why)` to refuse; any other error leaves `poll()`."""
        if not (isinstance(kind, type) and issubclass(kind, Message)):
            raise InvalidConfig(f"respond({kind!r}): must be a class of yours that subclasses Message")

        def registered(handler: C) -> C:
            checked_callback(f"net.respond({kind.__name__})", handler, "peer", "message", is_async=False)
            if kind in self._answering:
                raise InvalidConfig(f"{kind.__name__} is answered by another function already")
            self._answering[kind] = handler
            return handler

        return registered

    def send_file(
        self, to: Receivers, data: bytes | str | Path, *, name: str | None = None, progress: OnProgress | None = None
    ) -> FileSending:
        """`sending = net.send_file(None, "level.json")`: the bytes, or the file at that path, up to 64 MiB, to a player, to
        several, or (None) to everybody. It never waits: `is_done`, then `result()`. progress: called inside `poll()` with
        (player, bytes there, all bytes)."""
        self._thread.call(self._parts.file_traffic.targets, to)  # a wrong call is told here
        sending = FileSending(progress)
        self._sendings.append(sending)
        send = partial(self._parts.file_traffic.send, to, data, name, sending.note)
        self._thread.call(self._thread.spawn, partial(sending.settle, send))
        return sending

    def files(self, bytes_max: int = FILE_BYTES_MAX) -> Files:
        """`for file in net.files():` `file.peer`, `file.name`, `file.data`. Until this is called the files of others are
        refused; `bytes_max` is the largest that is taken."""
        files = self._thread.call(self._room.files, bytes_max)
        if self._files is None:
            self._files = Files(self._thread, files)
        return self._files

    def offer_snapshot(self, version: int, data: bytes) -> None:
        """What the game's state is at `version`, such as the tick, for who joins later. Nothing is sent until somebody asks."""
        self._thread.call(self._room.offer_snapshot, version, data)

    def fetch_snapshot(self, *, signers: int = 2, timeout: float = 10.0) -> SnapshotRequest:
        """The newest snapshot whose hash so many members have signed. It never waits: `is_done`, then `result()`."""
        request = SnapshotRequest()
        fetch = partial(self._room.fetch_snapshot, signers=signers, timeout=timeout)
        self._thread.call(self._thread.spawn, partial(request.settle, fetch))
        return request

    def _tell_progress(self) -> None:
        for sending in list(self._sendings):
            is_done = sending.is_done
            sending.tell()
            if is_done:
                self._sendings.remove(sending)

    def _answer_questions(self) -> None:
        while self._questions:
            peer, message, reply = self._questions.popleft()
            handler = self._answering.get(type(message))
            try:
                if handler is None:
                    raise RequestRefused(no_handler(message))
                answer = handler(peer, message)
                encode_tagged(answer)
            except RequestRefused as refusal:
                self._outbox.run(partial(reply.refuse, str(refusal)))
            else:
                self._outbox.run(partial(reply.answer, answer))

    # --------------------------------------------------------------------------------------------- on the network's thread

    def _asked(self, peer: Peer | Player, message: Message, reply: Reply) -> None:
        if len(self._questions) >= WAITING_MAX:
            reply.refuse("busy: its game does not come to answer")
        else:
            self._questions.append((peer, message, reply))
