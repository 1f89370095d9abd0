"""What the mesh needs from signaling. Anything with these methods will do: a WebSocket client, memory, your own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.events import Joined, RoomInfo, RoomListing, SignalingEvent
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery, SeekRequest


class SignalingTransport(Protocol):
    """A connection to a place where players of one room find each other.

    1. Join rooms; each `Joined` names the members that are there now.
    2. Drain `next_event()` (or `async for event in transport.events`) in one task, always: an undrained inbox
       counts as a lost connection once it is full.
    3. Exchange sealed envelopes with `send_signal` and `SignalReceived`.
    4. On `Lost` go on playing. On `Restored` compare the lists. On leaving, `leave`.

    The transport is not trusted: it can delay, drop, repeat, invent and swap what it carries.
    """

    @property
    def peer_id(self) -> PeerId:
        """Whose connection this is."""
        ...

    @property
    def is_connected(self) -> bool:
        """False between `Lost` and `Restored`, and after closing."""
        ...

    async def join(self, request: JoinRequest, *, goodbye: str = "") -> Joined:
        """Enter a room. Joining again a room that we are in refreshes our record there.

        Raises `RoomFull`, `RoomNotFound`, `RoomExists`, `RoomMismatch`, `SignalingLost`, `SignalingError`
        (a limit of the server), `InvalidConfig` (a field out of bounds; nothing was sent).
        Cancelling leaves the room again, as does an answer that never comes; those who have heard of us by then get
        `goodbye`, the record with which to `leave`.
        """
        ...

    async def seek(self, request: SeekRequest) -> RoomInfo:
        """A room of the lobby `request.join.name` that fits, in which a seat is held for us for some seconds: `join` it. It
        may be new and have nobody in it yet.

        Waits for the others if `request.waits`, for ever if need be; cancelling ends that. Raises as `join` does.
        """
        ...

    async def leave(self, room: str, *, record: str = "") -> None:
        """Say goodbye; others see `PeerLeft(reason="left")` with `record`, our last one: it reaches those to whom we have no
        link. A room that we are not in is no error."""
        ...

    async def list_rooms(self, query: RoomQuery | None = None) -> RoomListing:
        """Rooms of one application, ours being "". Raises `SignalingLost`, `SignalingError`, `InvalidConfig`."""
        ...

    def send_signal(self, to: PeerId, room: str, envelope: str) -> None:
        """Hand over one envelope, at once. Raises `SignalingLost` when not connected, `WouldBlock` when the queue to
        the server is full, `MessageTooLarge`; in each case nothing was sent. A peer who is not there is told later by
        `SignalRefused`."""
        ...

    def set_record(self, room: str, record: str) -> None:
        """The record with which we enter `room` again after a loss. Nothing is sent now."""
        ...

    def doubt(self) -> None:
        """Something else has fallen silent, so the network may have changed under this connection, too: find out soon
        instead of at the next keepalive, and connect anew if so. While the connection is lost: somebody needs it, so try
        again within a second. Does nothing where nothing can be asked."""
        ...

    def time_ms(self) -> int | None:
        """What the server's clock says now, Unix milliseconds; None where nobody tells. It goes on by the monotonic clock
        while the connection is lost, and members who share a server share it, however wrong their own clocks are. It is the
        server's word: a lie keeps them from each other, which the server can do anyhow."""
        ...

    @property
    def regions(self) -> Mapping[str, str]:
        """By name, a STUN server in that region, as the server told us; empty where nobody tells."""
        ...

    @property
    def signals_per_s(self) -> float:
        """So many signals of up to 4 KiB are taken in a second, of all our peers together; more wait. Infinite where
        nobody counts."""
        ...

    async def next_event(self) -> SignalingEvent:
        """The next event; cancelling loses none. Raises `ClosedError` after the transport was closed."""
        ...

    @property
    def events(self) -> AsyncIterator[SignalingEvent]:
        """The same events as an iterator, which ends when the transport is closed."""
        ...
