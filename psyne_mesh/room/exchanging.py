"""What players of a room ask of each other, one to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from psyne_mesh.game.transfer_wire import FILE_BYTES_MAX
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.room.asking import TIMEOUT_S, Outcome, Someone
from psyne_mesh.room.callbacks import checked_callback
from psyne_mesh.room.files import Files, OnProgress, Results
from psyne_mesh.room.files import To as Receivers
from psyne_mesh.room.messages import Message
from psyne_mesh.room.parts import Parts
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.snapshots import Snapshot

C = TypeVar("C", bound=Callable[..., Any])


@uninterrupted
class Exchanging:
    """A part of `Room`."""

    _parts: Parts

    def _joined(self) -> Any:
        raise NotImplementedError

    @property
    def peers(self) -> Mapping[PeerId, Peer]:
        """The other players."""
        raise NotImplementedError

    async def request(self, to: Someone, message: Message, *, timeout: float = TIMEOUT_S) -> Message:
        """`taken = await room.request(room.host, TakeItem(3), timeout=2.0)`: what the function answers that `to` has given to
        `respond`. Cancelled, it is given up.

        Raises `DeadlineExceeded`, `PeerGone`, `RequestRefused` (also when nobody there answers such messages), `WouldBlock`
        when 1,024 wait, `UnserialisableMessage`, `MessageTooLarge` above 14 kB, `InvalidConfig` for a `to` that is no player.
        """
        self._joined()
        return await self._parts.asking.request(to, message, timeout)

    async def request_each(
        self, message: Message, to: Iterable[Someone] | None = None, *, timeout: float = TIMEOUT_S
    ) -> dict[PeerId, Outcome]:
        """The same of several players at once, of all others if `to` is left out: what each answered, or the error that
        `request` would have raised. It takes no longer than `timeout`."""
        self._joined()
        return await self._parts.asking.request_each(list(self.peers) if to is None else to, message, timeout)

    def respond(self, kind: type[Message]) -> Callable[[C], C]:
        """`@room.respond(TakeItem)` above `def take(peer, message): return Taken(...)`, plain or async: it answers what others
        `request`. It raises `RequestRefused(why)` to refuse; any other error ends the room's block.

        `InvalidConfig` for a class that is no `Message`, and for a second function of one class.
        """
        self._joined()

        def registered(handler: C) -> C:
            checked_callback(f"room.respond({getattr(kind, '__name__', kind)})", handler, "peer", "message")
            self._parts.asking.respond(kind, handler)
            return handler

        return registered

    async def send_file(
        self, to: Receivers, data: bytes | str | Path, *, name: str | None = None, progress: OnProgress | None = None
    ) -> Results:
        """`await room.send_file(None, "level.json")`: the bytes, or the file at that path, up to 64 MiB, to a player, to
        several, or (None) to everybody; returns once all have it, with None or an error for each. To one player that error
        is raised.

        It travels beside play, as fast as that bears, and goes on after a break of up to a minute. Its hash is checked there.
        progress: called with (player, bytes there, all bytes). Cancelled, it stops. There is no timeout argument: put it into
        `trio.fail_after`.

        Raises `InvalidConfig` for what cannot be read or sent, `MessageTooLarge`; and for one player `RequestRefused` (its game
        expects no files, or has no room) and `PeerGone`.
        """
        self._joined()
        return await self._parts.file_traffic.send(to, data, name, progress)

    def files(self, bytes_max: int = FILE_BYTES_MAX) -> Files:
        """`async for file in room.files():` `file.peer`, `file.name`, `file.data`. Until this is called the files of others are
        refused; `bytes_max` is the largest that is taken. The same object when asked again."""
        self._joined()
        return self._parts.file_traffic.expect(bytes_max)

    def offer_snapshot(self, version: int, data: bytes) -> None:
        """What the game's state is at `version`, such as the tick, for who joins later; up to 16 MiB, the last four are kept.
        Nothing is sent until somebody asks. Members who say the same of one version attest each other's.

        `InvalidConfig` for what is no version or no bytes, `MessageTooLarge`."""
        self._joined()
        self._parts.snapshots.offer(version, data)

    async def fetch_snapshot(self, *, signers: int = 2, timeout: float = 10.0) -> Snapshot:
        """The newest snapshot whose hash so many members of different keys have signed (one, if only one other is here); it
        comes as a file, while the others play on. `signers` of what it returns says who they are.

        Raises `SnapshotDisputed`, which names the players, when no `signers` of them agree or one sends something else than it
        signed; `PeerGone` when nobody holds one, `DeadlineExceeded`.
        """
        self._joined()
        return await self._parts.snapshots.fetch(signers, timeout)
