"""The signaling server's place is taken by a room while it is away: the same calls, answered by whoever places there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import attrs
import msgspec
import trio

from psyne_mesh.errors import ClosedError, ManifestRefused, ProtocolError, RoomError, SignalingError, SignalingLost
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.halls import Halls
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.convert import joined_untrusted, listing_untrusted, room_info_untrusted
from psyne_mesh.signaling.events import Joined, Lost, Restored, RoomInfo, RoomListing, SignalingEvent, lobby_of
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery, SeekRequest
from psyne_mesh.signaling.manifest import check_untrusted
from psyne_mesh.signaling.requests import checked_join, checked_list, checked_seek, message_of, request_into
from psyne_mesh.signaling.transport import SignalingTransport

if TYPE_CHECKING:
    from psyne_mesh.signaling.hall import Hall
    from psyne_mesh.signaling.hall_asking import Outcome

_T = TypeVar("_T")

MATCHES_FAILED_MAX = 2  # in a row of one placer; one is somebody's crash
LIES_MAX = 4  # of as many placers, for one question


@uninterrupted
class StandIn:
    """A `SignalingTransport`: that of the server while it stands, else a hall of ours, where there is one. Whoever drains the
    events drains them here."""

    def __init__(self, server: SignalingTransport, halls: Halls) -> None:
        self._server = server
        self._halls = halls
        self._seeking: set[trio.CancelScope] = set()
        self._failed: dict[PeerId, int] = {}  # matches that came to nothing, by who placed us, in a row
        self._placed_by: tuple[str, Hall, PeerId] | None = None

    @property
    def peer_id(self) -> PeerId:
        return self._server.peer_id

    @property
    def is_connected(self) -> bool:
        return self._server.is_connected

    async def join(self, request: JoinRequest, *, goodbye: str = "") -> Joined:
        joined = await self._at_server(request.app_id, lambda: self._server.join(request, goodbye=goodbye))
        if joined is None:
            joined = await self._join_in_hall(checked_join(request), goodbye)
        self._halls.entered[joined.room] = attrs.evolve(request_into(joined.info, request), record="")
        return joined

    async def seek(self, request: SeekRequest) -> RoomInfo:
        while True:
            info = await self._at_server(request.join.app_id, lambda: self._server.seek(request))
            if info is not None:
                return info
            with trio.CancelScope() as scope:  # who waits in the hall goes to the server, once that is there
                self._seeking.add(scope)
                try:
                    return await self._seek_in_hall(request)
                finally:
                    self._seeking.discard(scope)

    async def leave(self, room: str, *, record: str = "") -> None:
        entered = self._halls.entered.pop(room, None)
        if entered is not None and not self._server.is_connected:
            self._halls.say(entered.app_id, lambda ref: messages.Leave(ref=ref, room=room, record=record), besides=room)
        await self._server.leave(room, record=record)

    async def list_rooms(self, query: RoomQuery | None = None) -> RoomListing:
        query = query or RoomQuery()
        listing = await self._at_server(query.app_id, lambda: self._server.list_rooms(query))
        if listing is not None:
            return listing
        question = checked_list(query)
        answer, _ = await self._halls.ask(query.app_id, lambda ref: msgspec.structs.replace(question, ref=ref))
        if not isinstance(answer, messages.RoomList):
            raise _refusal(answer)
        return _read(lambda: listing_untrusted(answer))

    def send_signal(self, to: PeerId, room: str, envelope: str) -> None:
        self._server.send_signal(to, room, envelope)

    def set_record(self, room: str, record: str) -> None:
        self._server.set_record(room, record)

    def doubt(self) -> None:
        self._server.doubt()

    def time_ms(self) -> int | None:
        return self._server.time_ms()

    @property
    def regions(self) -> Mapping[str, str]:
        return self._server.regions

    @property
    def signals_per_s(self) -> float:
        return self._server.signals_per_s

    async def next_event(self) -> SignalingEvent:
        event = await self._server.next_event()
        match event:
            case Lost():
                self._halls.lost()
            case Restored():
                self._halls.restored()
                for scope in self._seeking:
                    scope.cancel()
        return event

    @property
    def events(self) -> AsyncIterator[SignalingEvent]:
        return _Events(self)

    def note_match(self, room: str, *, failed: bool) -> None:
        """What became of a match: who places players with nobody is passed over."""
        if self._placed_by is None or self._placed_by[0] != room:
            return
        _, hall, placer = self._placed_by
        failures = self._failed.pop(placer, 0) + 1
        if failed and failures >= MATCHES_FAILED_MAX:
            hall.pass_over(placer, trio.current_time())
        elif failed:
            self._failed = {placer: failures}

    # ------------------------------------------------------------------------------------------------------- helpers

    async def _at_server(self, app_id: str | None, ask: Callable[[], Awaitable[_T]]) -> _T | None:
        """The server's answer, or None where a hall is to be asked."""
        if not self._server.is_connected and self._halls.hall_for(app_id) is not None:
            return None
        try:
            return await ask()
        except SignalingLost:
            if self._halls.hall_for(app_id) is None:
                raise
            return None

    async def _join_in_hall(self, request: JoinRequest, goodbye: str) -> Joined:
        try:
            answer, _ = await self._halls.ask(request.app_id, lambda ref: message_of(request, ref))
        except trio.Cancelled:
            self._halls.say(request.app_id, lambda ref: messages.Leave(ref=ref, room=request.key, record=goodbye))
            raise
        if not isinstance(answer, messages.JoinedRoom):
            raise _refusal(answer)
        joined = _read(lambda: joined_untrusted(answer, self._server.peer_id))
        if joined.room != request.key:
            raise SignalingError("who places in the hall answered a join with something else")
        return joined

    async def _seek_in_hall(self, request: SeekRequest) -> RoomInfo:
        question = checked_seek(request)

        def asked(ref: int) -> messages.Message:
            return msgspec.structs.replace(question, ref=ref, join=msgspec.structs.replace(question.join, ref=ref))

        for _ in range(LIES_MAX):
            answer, waiting = await self._halls.ask(request.join.app_id, asked, request.join.key)
            if not isinstance(answer, messages.Placed):
                raise _refusal(answer)
            try:
                info = room_info_untrusted(answer.info)
                check_untrusted(info, info.players)
                is_honest = bool(info.manifest.signature) and lobby_of(info.room) == lobby_of(request.join.key)
            except (ProtocolError, ManifestRefused):
                is_honest = False
            assert waiting.placer is not None
            if is_honest:
                self._placed_by = info.room, waiting.hall, waiting.placer
                return info
            waiting.hall.pass_over(waiting.placer, trio.current_time())
        raise ManifestRefused(f"{LIES_MAX} members of the hall in a row show what nobody signed: enter another room")


class _Events(AsyncIterator[SignalingEvent]):
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    async def __anext__(self) -> SignalingEvent:
        try:
            return await self._stand_in.next_event()
        except ClosedError:
            raise StopAsyncIteration from None


def _refusal(answer: Outcome) -> Exception:
    """What is no answer to the question, as an error."""
    if isinstance(answer, SignalingError):
        return answer
    if isinstance(answer, messages.Error):
        error = messages.exception_of(answer)
        return error if isinstance(error, SignalingError | RoomError) else SignalingError(str(error))
    return SignalingError("who places in the hall answered with something else")


def _read(read: Callable[[], _T]) -> _T:
    try:
        return read()
    except ProtocolError as error:
        raise SignalingError(f"who places in the hall answered with nonsense: {error}") from error
