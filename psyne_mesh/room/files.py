"""Files from player to player: the pure core on a reliable channel of its own, behind everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from psyne_mesh.errors import (
    ClosedError,
    InvalidConfig,
    MessageTooLarge,
    PeerGone,
    ProtocolError,
    PsyneMeshError,
    RequestRefused,
    WouldBlock,
)
from psyne_mesh.frozen import Frozen
from psyne_mesh.game import transfer_wire
from psyne_mesh.game.transfer_wire import FILE_BYTES_MAX, NAME_MAX
from psyne_mesh.game.transfers import Arrived, Progress, Sent, Transfers, digest_of
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import interruptible, uninterrupted
from psyne_mesh.names import is_plain, plain
from psyne_mesh.room.peer import Peer
from psyne_mesh.webrtc.inbox import Inbox

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

CHANNEL = "psyne.files"
PRIORITY = 16
"""A sixteenth of the weight of other channels (RFC 8831 section 6.4: 256 is normal, 128 the lowest name)."""
KEPT_WAITING_MAX = 64
"""Files that the game has not taken; their bytes have a limit of their own (`INCOMING_BYTES_MAX`)."""

To = Peer | PeerId | Iterable[Peer | PeerId] | None
Results = dict[PeerId, PsyneMeshError | None]
OnProgress = Callable[[PeerId, int, int], object]


@attrs.frozen
class ReceivedFile:
    """A whole file whose hash was right. `name` is what the sender calls it, without any path: a label, never a place to write
    to."""

    peer: Peer
    name: str
    data: bytes = attrs.field(repr=False)


class ArrivingFile(Frozen):
    """`done` of `size` bytes are here."""

    peer: PeerId
    name: str
    done: int
    size: int


class Files:
    """`async for file in room.files()`: files as they have come, whole. `arriving` shows what is on its way."""

    def __init__(self, traffic: FileTraffic) -> None:
        self._traffic = traffic
        self.inbox: Inbox[ReceivedFile] = Inbox()

    @property
    def arriving(self) -> list[ArrivingFile]:
        return self._traffic.arriving()

    async def receive(self) -> ReceivedFile:
        """The next file; cancelling it loses nothing. `ClosedError` after the room was left."""
        while True:
            await self.inbox.wait()
            with suppress(WouldBlock):
                return self.receive_nowait()

    def receive_nowait(self) -> ReceivedFile:
        """The next file, or `WouldBlock`."""
        try:
            file = self.inbox.get_nowait()
        except StopAsyncIteration:
            raise ClosedError("the room was left") from None
        self._traffic.taken(len(file.data))
        return file

    def __aiter__(self) -> Files:
        return self

    async def __anext__(self) -> ReceivedFile:
        try:
            return await self.receive()
        except ClosedError:
            raise StopAsyncIteration from None


class Expected:
    """A file that we have asked one player for: 1. `wait()` until it is here, or will not come. 2. `came()` bytes are here."""

    def __init__(self, came: Callable[[], int]) -> None:
        self.came = came
        self._end: tuple[bytes | None] | None = None
        self._ended = trio.Event()

    def note(self, data: bytes | None) -> None:
        self._end = (data,)
        self._ended.set()

    async def wait(self) -> bytes | None:
        """None: the player left, or what it sent was something else."""
        await self._ended.wait()
        assert self._end is not None
        return self._end[0]


@uninterrupted
class FileTraffic:
    """1. The room's task is in `run()`. 2. `begin(peer, name, data, digest, done, progress)`; `stop(numbers)`. 3. Files of
    others arrive at `expect(bytes_max)`. 4. `peer_joined(peer)`, `peer_left(peer, is_for_good=...)`, `end(why)`
    as they happen.
    """

    def __init__(self, room: Room, check_open: Callable[[], object]) -> None:
        self._room = room
        self._check_open = check_open
        self._core = Transfers()
        self._done: dict[int, Callable[[PeerId, PsyneMeshError | None], None]] = {}
        self._progress: dict[int, OnProgress] = {}
        self._files: Files | None = None
        self._expected: dict[tuple[PeerId, bytes], Expected] = {}
        self._wake = trio.Event()
        self._channel: Any = None
        self.refused = 0

    # ------------------------------------------------------------------------------------------------------- sending

    async def send(self, to: To, data: bytes | str | Path, name: str | None, progress: OnProgress | None) -> Results:
        self._check_open()
        name, loaded, digest = await loaded_file(data, name)
        results: Results = {}
        all_done = trio.Event()
        whom = self.targets(to)

        def done(peer: PeerId, error: PsyneMeshError | None) -> None:
            results[peer] = error
            if len(results) == len(whom):
                all_done.set()

        numbers = [self.begin(peer, name, loaded, digest, done, progress) for peer in whom]
        try:
            if whom:
                await all_done.wait()
        finally:
            self.stop(numbers)
        if isinstance(to, Peer | PeerId) and (error := results[whom[0]]) is not None:
            raise error
        return results

    def targets(self, to: To) -> list[PeerId]:
        if to is None:
            return list(self._room.peers)
        several = [to] if isinstance(to, Peer | PeerId) else to
        if isinstance(several, str) or not isinstance(several, Iterable):
            raise InvalidConfig(
                f"send_file(to={to!r}): must be a Peer, a PeerId or several of these, or None for everybody"
            )
        ids = [each.id if isinstance(each, Peer) else each for each in several]
        if not all(isinstance(each, PeerId) for each in ids):
            raise InvalidConfig(
                f"send_file(to={to!r}): must be a Peer, a PeerId or several of these, or None for everybody"
            )
        return list(dict.fromkeys(ids))

    def begin(
        self, peer: PeerId, name: str, data: bytes, digest: bytes, done: Callable[[PeerId, PsyneMeshError | None], None],
        progress: OnProgress | None,
    ) -> int:  # fmt: skip
        """`done` is called once for the peer, not before this returns. The number is for `stop`; 0 for who cannot get it."""
        there = self._room.peers.get(peer)
        if there is None or (there.relayed and not there.connected):
            error = (
                f"{peer.short} is not in the room" if there is None else f"files need a link, and {there.name} has none"
            )
            trio.lowlevel.current_trio_token().run_sync_soon(done, peer, PeerGone(error))
            return 0
        number = self._core.send(peer, name, data, digest, trio.current_time())
        self._done[number] = done
        if progress is not None:
            self._progress[number] = progress
        self._flush()
        self._wake.set()
        return number

    def stop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if self._done.pop(number, None) is not None:
                self._core.stop(number)
            self._progress.pop(number, None)
        self._flush()

    # ----------------------------------------------------------------------------------------------------- receiving

    def expect(self, bytes_max: int) -> Files:
        if not isinstance(bytes_max, int) or not 0 < bytes_max <= FILE_BYTES_MAX:
            raise InvalidConfig(f"bytes_max = {bytes_max!r}: must be 1 to {FILE_BYTES_MAX} (64 MiB)")
        if self._files is None:
            self._files = Files(self)
        self._core.accept(bytes_max)
        return self._files

    def arriving(self) -> list[ArrivingFile]:
        return [ArrivingFile(*each) for each in self._core.arriving()]

    def taken(self, size: int) -> None:
        self._core.taken(size)

    @contextmanager
    def expecting(self, peer: PeerId, digest: bytes, size: int) -> Iterator[Expected]:
        """A file of that player with that hash is taken, whether or not the game expects files, and goes to who asked."""
        self._core.expect(peer, digest, size)
        expected = self._expected[peer, digest] = Expected(lambda: self._core.came(peer, digest))
        try:
            yield expected
        finally:
            self._core.expect_no_more(peer, digest)
            self._expected.pop((peer, digest), None)
            self._flush()

    # ------------------------------------------------------------------------------------------------------- the task

    def peer_joined(self, peer: PeerId) -> None:
        """Or its link is back."""
        self._core.peer_joined(peer, trio.current_time())
        self._flush()

    def peer_left(self, peer: PeerId, *, is_for_good: bool) -> None:
        self._core.peer_left(peer, trio.current_time(), is_for_good=is_for_good)
        self._will_not_come(peer)
        self._flush()

    def end(self, why: ClosedError) -> None:
        waiting, self._done = self._done, {}
        for number, done in waiting.items():
            outgoing = self._core.receiver_of(number)
            if outgoing is not None:
                done(outgoing, why)
        if self._files is not None:
            self._files.inbox.close()

    async def run(self) -> None:
        try:
            self._channel = self._room.channel(CHANNEL, mode="reliable", priority=PRIORITY)
        except ClosedError:
            return  # the room ended before its task began
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
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
                self._core.receive(sender.id, transfer_wire.decode_untrusted(data), trio.current_time())
            except ProtocolError:
                self.refused += 1
                self._will_not_come(sender.id)  # a hash that is not what it said
            self._flush()
            self._wake.set()

    def _will_not_come(self, peer: PeerId) -> None:
        for key, expected in self._expected.items():
            if key[0] == peer:
                expected.note(None)

    def _flush(self) -> None:
        if self._channel is None:
            return  # it goes out once the room's task has begun
        for event in self._core.take_events():
            match event:
                case Progress(number=number, peer=peer, done=done, size=size):
                    if (progress := self._progress.get(number)) is not None:
                        interruptible(progress, peer, done, size)
                case Sent(number=number, peer=peer, reason=reason):
                    self._progress.pop(number, None)
                    if (told := self._done.pop(number, None)) is not None:
                        told(peer, _error(reason))
                case Arrived(peer=peer_id, data=data, digest=digest) if (peer_id, digest) in self._expected:
                    self._core.taken(len(data))
                    self._expected[peer_id, digest].note(data)
                case Arrived(peer=peer_id, name=name, data=data):
                    self._arrived(peer_id, name, data)
        for target, word in self._core.take_outputs():
            with suppress(PeerGone, ClosedError, MessageTooLarge):  # the receiver asks again
                self._channel.send_nowait(transfer_wire.encode(word), to=target)

    def _arrived(self, peer_id: PeerId, name: str, data: bytes) -> None:
        peer = self._room.peers.get(peer_id)
        if peer is None or self._files is None or len(self._files.inbox) >= KEPT_WAITING_MAX:
            self._core.taken(len(data))
        else:
            self._files.inbox.put(ReceivedFile(peer, plain(name).replace("/", "_").replace("\\", "_"), data))


async def loaded_file(data: bytes | str | Path, name: str | None) -> tuple[str, bytes, bytes]:
    """Its name, its bytes and their hash. Read and hashed on a thread: 64 MiB take a good part of a second."""
    if not isinstance(data, bytes | bytearray | memoryview | str | Path):
        raise InvalidConfig(f"send_file({type(data).__name__}): must be bytes, or the path of a file")
    is_path = isinstance(data, str | Path)
    name = (Path(data).name if is_path else "data") if name is None else name  # type: ignore[arg-type]
    if not isinstance(name, str) or not is_plain(name) or not 1 <= len(name) <= NAME_MAX or {"/", "\\"} & set(name):
        raise InvalidConfig(f"name = {name!r}: must be 1 to {NAME_MAX} characters without slashes and controls")

    def load() -> tuple[bytes, bytes]:
        if isinstance(data, str | Path):
            try:
                size = Path(data).stat().st_size
                if size > FILE_BYTES_MAX:
                    raise MessageTooLarge(size, FILE_BYTES_MAX)
                loaded = Path(data).read_bytes()
            except OSError as error:
                raise InvalidConfig(f"send_file({str(data)!r}): cannot be read: {error}") from error
        else:
            loaded = bytes(data)
        if len(loaded) > FILE_BYTES_MAX:
            raise MessageTooLarge(len(loaded), FILE_BYTES_MAX)
        return loaded, digest_of(loaded)

    loaded, digest = await trio.to_thread.run_sync(load)
    return name, loaded, digest


def _error(reason: str) -> PsyneMeshError | None:
    if not reason:
        return None
    return PeerGone(reason) if "left" in reason or "minute" in reason else RequestRefused(reason)
