"""One link: one peer connection to one player, from the first envelope to the last packet.

A link is made for one attempt and never used again; a new attempt is a new link. It knows nothing of rooms: frames of
gossip and messages of room channels pass through it under their labels.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Literal, Protocol

import trio

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import ConnectFailed, FingerprintMismatch, LocalError, PsyneMeshError, RemoteError
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.envelope import Envelope
from psyne_mesh.webrtc import (
    BufferedAmountLow,
    ChannelClosed,
    ChannelOpened,
    DataChannel,
    Endpoint,
    MessageReceived,
    Path,
    PeerConnection,
    PeerStats,
    StackEvent,
)

# Pre-negotiated on every link, so that gossip flows with the first packet. Ids 0 and 1: one for each parity.
CONTROL = DataChannelConfig(label="psyne-control", negotiated=True, id=0, priority=1024)
GOSSIP = DataChannelConfig(label="psyne-gossip", negotiated=True, id=1, ordered=False, max_retransmits=0, priority=1024)

# Envelopes that wait for the link's task: an offer, an answer and the candidates of a machine with many addresses.
INBOX_MAX = 64
# Channels that one peer may open towards us; more are refused, since each costs memory here.
CHANNELS_MAX = 256
# A receiver that has so much waiting for it will not catch up within a game.
HARD_BUDGET_BYTES = 16 * 2**20

Body = Literal["offer", "answer", "candidate", "bye"]
Post = Callable[[Body, int, str], None]


class LinkState(Enum):
    DIALING = "dialing"
    OPEN = "open"
    GONE = "gone"


class LinkOwner(Protocol):
    """Who is told. Called in the packet path: the owner only notes and queues."""

    def on_link_open(self, link: Link) -> None: ...
    def on_frame(self, link: Link, data: bytes) -> None: ...
    def on_channel_message(self, link: Link, label: str, data: bytes | str) -> None: ...
    def on_drained(self, link: Link) -> None: ...
    def on_link_gone(self, link: Link, reason: str, error: RemoteError | None) -> None: ...


class Link:
    """1. Construct with `offerer` and a session id; 2. give `run()` to a nursery; 3. `hear()` envelopes of that session;
    4. send once `state` is OPEN; 5. `close()`, or the peer or the network does it: `on_link_gone` comes exactly once.
    """

    def __init__(
        self, peer_id: PeerId, session: str, *, offerer: bool, endpoint: Endpoint, post: Post, owner: LinkOwner,
        timeout_s: float, born: float,
    ) -> None:  # fmt: skip
        self.peer_id = peer_id
        self.session = session
        self.offerer = offerer
        self.state = LinkState.DIALING
        self.born = born
        self.was_open = False
        self.tampering: str | None = None
        self.signaling_refused = False
        self._endpoint = endpoint
        self._post_sealed = post
        self._sequence = 0
        self._owner = owner
        self._timeout_s = timeout_s
        self._heard_send, self._heard = trio.open_memory_channel[Envelope](INBOX_MAX)
        self._remote_known = False
        self._close_reason: str | None = None
        self._closing = trio.Event()
        self._connection: PeerConnection | None = None
        self._control: DataChannel | None = None
        self._gossip: DataChannel | None = None
        self._outgoing: dict[str, DataChannel] = {}
        self._unread = 0

    # ------------------------------------------------------------------------------------------------------- lifetime

    async def run(self) -> None:
        """Connect, stay, and report the end. Remote faults are reported, our own bugs are raised."""
        reason, error = "closed", None
        try:
            async with self._endpoint.open_peer(offerer=self.offerer, on_events=self._on_events) as connection:
                self._connection = connection
                self._control = connection.create_channel(CONTROL)
                self._gossip = connection.create_channel(GOSSIP)
                await self._live(connection)
                reason = self._close_reason or connection.close_reason or "closed"
        except* RemoteError as group:
            error = _first(group)
            reason = str(error)
        except* LocalError as group:  # bytes of the peer made us misuse our own stack: the peer's link pays, no other
            error = ConnectFailed("signaling", str(_first_of(group)), peer=self.peer_id.short)
            reason = str(error)
        finally:
            self._heard_send.close()
            self._heard.close()
            if self.state is not LinkState.GONE:
                self.state = LinkState.GONE
                self._owner.on_link_gone(self, reason, error)

    async def _live(self, connection: PeerConnection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._negotiate, connection)
            nursery.start_soon(self._end_when_closed, connection, nursery.cancel_scope)
            with trio.move_on_after(self._timeout_s) as deadline:
                await connection.wait_connected()
            if deadline.cancelled_caught:
                raise self._no_connection()
            await trio.sleep_forever()

    async def _end_when_closed(self, connection: PeerConnection, scope: trio.CancelScope) -> None:
        async with trio.open_nursery() as nursery:

            async def first(wait: Callable[[], object]) -> None:
                await wait()  # type: ignore[misc]
                nursery.cancel_scope.cancel()

            nursery.start_soon(first, self._closing.wait)
            nursery.start_soon(first, connection.wait_closed)
        scope.cancel()

    async def _negotiate(self, connection: PeerConnection) -> None:
        """Offer or answer, and pass candidates both ways. A later offer of this session is an ICE restart."""
        if self.offerer:
            self._post("offer", await connection.create_offer())
        async with trio.open_nursery() as nursery:
            if self.offerer:
                nursery.start_soon(self._trickle, connection)
            async for envelope in self._heard:
                if envelope.kind == "offer":
                    self._post("answer", await connection.create_answer(envelope.body))
                    if not self._remote_known:
                        nursery.start_soon(self._trickle, connection)
                    self._remote_known = True
                elif envelope.kind == "answer":
                    await connection.set_answer(envelope.body)
                    self._remote_known = True
                elif envelope.kind == "candidate":
                    connection.add_remote_candidate(envelope.body or None)
                else:
                    self._close_reason = envelope.body or "closed by peer"
                    self._closing.set()

    async def _trickle(self, connection: PeerConnection) -> None:
        async for candidate in connection.local_candidates():
            self._post("candidate", candidate)
        self._post("candidate", "")

    def _post(self, kind: Body, body: str) -> None:
        self._post_sealed(kind, self._sequence, body)
        self._sequence += 1

    def _no_connection(self) -> ConnectFailed:
        who = self.peer_id.short
        if self.tampering is not None:
            return ConnectFailed("signaling", f"signaling was tampered with: {self.tampering}", peer=who,
                                 advice="use another signaling server")  # fmt: skip
        if not self._remote_known:
            reason = "no answer to our offer" if self.offerer else "no offer came"
            return ConnectFailed("signaling", f"{reason} within {self._timeout_s:g} s", peer=who,
                                 advice="the peer may have gone, or not reach the signaling server")  # fmt: skip
        return ConnectFailed("ice", f"no connection within {self._timeout_s:g} s", peer=who)

    # ---------------------------------------------------------------------------------------------------------- verbs

    def hear(self, envelope: Envelope) -> None:
        """An envelope of this session. When too many wait, the newest is dropped: its sender repeats what matters."""
        try:
            self._heard_send.send_nowait(envelope)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def close(self, reason: str) -> None:
        """End it; what was sent reliably so far is flushed as far as the peer answers quickly."""
        if self._close_reason is None:
            self._close_reason = reason
        self._closing.set()

    def supersede(self) -> None:
        """A newer session takes this one's place: it ends without a word to its owner's rooms."""
        self.close("superseded")

    def send_frame(self, frame: bytes, *, reliable: bool) -> None:
        channel = self._control if reliable else self._gossip
        if self.state is LinkState.OPEN and channel is not None:
            self._send(channel, frame)

    def send_message(self, config: DataChannelConfig, data: bytes | str) -> None:
        """On our own channel of that label, which is announced with its first message."""
        assert self._connection is not None
        channel = self._outgoing.get(config.label)
        if channel is None:
            channel = self._outgoing[config.label] = self._connection.create_channel(config)
            channel.buffered_amount_low_threshold = HARD_BUDGET_BYTES // 32
        self._send(channel, data)

    def _send(self, channel: DataChannel, data: bytes | str) -> None:
        channel.send_nowait(data)

    def buffered(self, label: str) -> int:
        """Bytes accepted on that channel and not yet handed to the network."""
        channel = self._outgoing.get(label)
        return 0 if channel is None else channel.buffered_amount

    def hold(self, delta: int) -> None:
        """The application holds `delta` more (or fewer) bytes of this peer unread: its send window follows."""
        self._unread += delta
        if self._connection is not None and self.state is LinkState.OPEN:
            self._connection.set_unread(self._unread)

    @property
    def path(self) -> Path | None:
        return None if self._connection is None else self._connection.path

    @property
    def rtt(self) -> float | None:
        return None if self._connection is None else self._connection.rtt

    @property
    def stats(self) -> PeerStats | None:
        return None if self._connection is None else self._connection.stats()

    # ----------------------------------------------------------------------------------------------------- packet path

    def _on_events(self, events: list[StackEvent]) -> None:
        for event in events:
            if type(event) is MessageReceived:
                channel = event.channel
                if channel.config.negotiated:
                    if isinstance(event.data, bytes):
                        self._owner.on_frame(self, event.data)
                else:
                    self._owner.on_channel_message(self, channel.label, event.data)
            elif type(event) is ChannelOpened:
                if event.channel.config.negotiated and self.state is LinkState.DIALING:
                    self.state = LinkState.OPEN
                    self.was_open = True
                    self._owner.on_link_open(self)
            elif type(event) is BufferedAmountLow:
                self._owner.on_drained(self)
            elif type(event) is ChannelClosed:
                self._outgoing.pop(event.channel.label, None)


def _first(group: BaseExceptionGroup[RemoteError]) -> RemoteError:
    """The most telling of several: a fingerprint that does not match explains every failure around it."""
    errors = list(_leaves(group))
    for error in errors:
        if isinstance(error, FingerprintMismatch):
            return error
    return errors[0]


def _first_of(group: BaseExceptionGroup[PsyneMeshError]) -> PsyneMeshError:
    return next(_leaves(group))


def _leaves(group):  # type: ignore[no-untyped-def]
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
