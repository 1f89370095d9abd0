"""One link: one peer connection to one player, from the first envelope to the last packet.

A link is made for one attempt and never used again; a new attempt is a new link. It knows nothing of rooms: frames of
gossip and messages of room channels pass through it under their labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

import trio

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import (
    ClocksDiffer,
    ClosedError,
    ConnectFailed,
    LocalError,
    PeerGone,
    PsyneMeshError,
    RemoteError,
    WouldBlock,
)
from psyne_mesh.gossip.codec import FRAME_MAX
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.limits import TokenBucket
from psyne_mesh.mesh.link_table import Asleep, TableLink
from psyne_mesh.mesh.owed import Carried
from psyne_mesh.signaling.envelope import Envelope, Kind, Untimely
from psyne_mesh.webrtc.channel import BufferedAmountLow, Channel, ChannelClosed, ChannelOpened, MessageReceived
from psyne_mesh.webrtc.endpoint import Endpoint
from psyne_mesh.webrtc.ice import Path
from psyne_mesh.webrtc.ladder import Tunnel
from psyne_mesh.webrtc.peer import PeerConnection
from psyne_mesh.webrtc.stack import PathRevived, PeerStandsStill, StackEvent
from psyne_mesh.webrtc.stats import PeerStats

# Pre-negotiated on every link, so that gossip flows with the first packet. Ids 0 and 1: one for each parity.
CONTROL = DataChannelConfig(label="psyne-control", negotiated=True, id=0, priority=1024)
GOSSIP = DataChannelConfig(label="psyne-gossip", negotiated=True, id=1, ordered=False, max_retransmits=0, priority=1024)

# Envelopes that wait for the link's task: an offer, an answer and the candidates of a machine with many addresses.
INBOX_MAX = 64
# How long a goodbye may take to be acknowledged; a peer that has gone must not hold us up.
FLUSH_S = 0.5
# A receiver that has so much waiting for it, on all channels together, will not catch up within a game. Below the 16 MiB
# at which SCTP refuses (`SctpConfig.send_buffer_bytes_max`): the rest is for gossip and for what one message adds.
HARD_BUDGET_BYTES = 12 * 2**20
# A frame of no room: whoever hears it over a sleeping link knows that the link carries again, direct or by tunnel.
KNOCK = b"\xff" * 8
# "I have no use for this link, and close it once what was sent over it has come: send no more", and the answer: "all came".
PARTING, PARTED = b"\xff" * 7 + b"\x03", b"\xff" * 7 + b"\x04"
# Why a link is closed like that: its peer lives, and stays in the room.
_IN_GOOD_ORDER = ("surplus", "full")
# So long may nothing more come or be acknowledged meanwhile, and so long may it take: 12 MiB at 3 Mbit/s.
PARTING_QUIET_S, PARTING_MAX_S = 2.0, 30.0
_PARTING_LOOK_S = 0.05
# What every member must take, by its max-message-size: the largest frame of gossip, behind the tag of its room.
MESSAGE_MIN_BYTES = FRAME_MAX + len(KNOCK)

# The old path gets so long to answer before another is looked for, and each search so long before the next.
PATH_PATIENCE_S = 0.5
RESTART_EVERY_S = 3.0
RESTART_PAUSE_MAX_S = 20.0
# So often it is knocked at a silent peer's door through a tunnel.
KNOCK_S = 2.0
# A peer may ask for so many searches in a row, later for one in each pause.
ASKED_RESTARTS = 8.0
# An unreliable message that could not leave for so long is dropped: while a path is dead, or the network too slow. Each
# repetition that its sender allows gives it so long once more.
STALE_S = 0.5
# The same for gossip and for what is carried for others, who have waited before: else a carrier whose own path dies would
# keep positions of theirs until it is back.
STALE_FRAME_S = 0.3
# Below so much waiting on a channel, those who wait to send on it are woken.
LOW_WATER_BYTES = 2**19

Post = Callable[[Kind, int, str], None]


class ChannelRoute(NamedTuple):
    """Whose a channel is, read from its label once: the tag of its room, and its name there."""

    tag: bytes
    name: str


class LinkState(Enum):
    DIALING = "dialing"
    OPEN = "open"
    GONE = "gone"


class LinkOwner(Protocol):
    """Who is told. Called in the packet path: the owner only notes and queues."""

    def on_link_open(self, link: Link) -> None: ...
    def on_frame(self, link: Link, data: bytes) -> None: ...
    def route_of(self, label: str) -> ChannelRoute | None: ...
    def on_channel_types(self, link: Link, route: ChannelRoute, protocol: str) -> None: ...
    def on_channel_message(self, link: Link, route: ChannelRoute, data: bytes | str) -> None: ...
    def on_drained(self, link: Link) -> None: ...
    def on_link_revived(self, link: Link) -> None: ...
    def on_still(self, link: Link, for_s: float) -> None: ...
    def on_turns_again(self, link: Link) -> None: ...
    def on_link_closing(self, link: Link, reason: str) -> None: ...
    def on_link_parting(self, link: Link) -> None: ...
    def on_link_gone(self, link: Link, reason: str, error: RemoteError | None) -> None: ...


@uninterrupted
class Link:
    """1. Construct for a link of the table; 2. give `run()` to a nursery; 3. `hear(envelope)` for what comes of its session;
    4. send once `state` is OPEN; 5. `close(reason)`, or the peer or the network does it: `on_link_gone` comes exactly once.
    """

    def __init__(
        self, entry: TableLink, *, endpoint: Endpoint, post: Post, owner: LinkOwner, tunnel: Tunnel | None
    ) -> None:
        """tunnel: None for a peer that cannot be the end of one, so that nobody waits for it."""
        self.entry = entry
        self.peer_id = entry.peer
        self.session = entry.session
        self.offerer = entry.offerer
        self.born = entry.born
        self.state = LinkState.DIALING
        self.path_proven_at = entry.born  # when the path of its own answered after a break
        self.tampering: str | None = None
        self._still_since: float | None = None  # the peer's loop does not turn, and a thread of it says that it lives
        self.tunnel = tunnel
        self._endpoint = endpoint
        self._post_sealed = post
        self._sequence = 0
        self._newest_offer = self._newest_answer = -1
        self._owner = owner
        self._heard_send, self._heard = trio.open_memory_channel[Envelope](INBOX_MAX)
        self._close_reason: str | None = None
        self._left = trio.Event()  # the peer closes it
        self._is_parted = False  # and has sent all that it had to send on it
        self._closing = trio.Event()
        self._suspected = trio.Event()
        self._search_anew = trio.Event()
        self._restart_wanted = False
        self._searched_at = -math.inf
        self._awaits_answer = self._search_after_answer = False
        self._asked = TokenBucket(burst=ASKED_RESTARTS, per_second=1 / RESTART_EVERY_S, now=entry.born)
        self._untimely: ConnectFailed | None = None
        self._connection: PeerConnection | None = None
        self._control: Channel | None = None
        self._gossip: Channel | None = None
        self._outgoing: dict[str, Channel] = {}
        self._routes: dict[Channel, ChannelRoute | None] = {}  # of all that are open; None: not a channel of a room
        self._incoming: dict[str, Channel] = {}
        self._held: dict[str, int] = {}  # unread bytes of the application, by channel; as many as it has channels
        self._ended: dict[str, Carried] = {}  # by label: what went over channels that have closed

    # ------------------------------------------------------------------------------------------------------- lifetime

    async def run(self) -> None:
        """Connect, stay, and report the end. Remote faults are reported, our own bugs are raised."""
        error: PsyneMeshError | None = None
        try:
            async with self._endpoint.open_peer(
                offerer=self.offerer, name=self.peer_id.short, on_events=self._on_events, tunnel=self.tunnel
            ) as connection:
                self._connection = connection
                self._control = connection.open_channel(CONTROL)
                self._gossip = connection.open_channel(GOSSIP)
                self._gossip.life_time = STALE_FRAME_S
                await self._live(connection)
                error = connection.error
        except* (RemoteError, LocalError) as group:  # a LocalError: its words made us misuse our own stack
            error = _first(group)
        finally:
            self._heard_send.close()
            self._heard.close()
            self.state = LinkState.GONE
            self._owner.on_link_gone(self, self._close_reason or _reason(error), self._explained(error))

    async def _live(self, connection: PeerConnection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._negotiate, connection)
            nursery.start_soon(self._close_when_asked, connection)
            nursery.start_soon(self._find_new_paths, connection)
            nursery.start_soon(self._answer_parting, connection)
            await connection.wait_connected()
            await connection.wait_closed()
            nursery.cancel_scope.cancel()

    async def _close_when_asked(self, connection: PeerConnection) -> None:
        await self._closing.wait()
        if self._untimely is not None:
            raise self._untimely
        if self._close_reason in _IN_GOOD_ORDER and self.state is LinkState.OPEN:
            await self._part(connection)
        with trio.move_on_after(FLUSH_S):
            await self.drain()
        connection.close()

    async def _part(self, connection: PeerConnection) -> None:
        """Until nothing is on its way any more, in either direction, as far as can be seen."""
        self.send_frame(PARTING, reliable=True)
        now = trio.current_time()
        until, quiet_until, before = now + PARTING_MAX_S, now + PARTING_QUIET_S, None
        while (now := trio.current_time()) < min(until, quiet_until) and connection.error is None:
            if self._is_parted and connection.is_drained:
                return
            now_under_way = connection.buffered_amount, sum(one.came for one in self.carried().values())
            if now_under_way != before:
                before, quiet_until = now_under_way, now + PARTING_QUIET_S
            await trio.sleep(_PARTING_LOOK_S)

    async def _answer_parting(self, connection: PeerConnection) -> None:
        await self._left.wait()
        await connection.drain()
        self.send_frame(PARTED, reliable=True)

    def hear_parting(self, frame: bytes) -> None:
        """`PARTING` or `PARTED`."""
        if frame == PARTED:
            self._is_parted = True
        elif not self._left.is_set():
            self._left.set()
            self._owner.on_link_parting(self)

    async def _negotiate(self, connection: PeerConnection) -> None:
        """Offer or answer, and pass candidates both ways. A later offer of this session is an ICE restart."""
        async with trio.open_nursery() as nursery:
            if self.offerer:
                nursery.start_soon(self._offer, connection)
            async for envelope in self._heard:
                if envelope.kind == "offer":
                    if not self._asked.allow(trio.current_time()):
                        continue  # each makes us gather and answer; the one that matters comes again
                    answer = await connection.create_answer(envelope.body, trickle=True)
                    self._check_takes_frames(connection)
                    self._post("answer", answer)
                    nursery.start_soon(self._trickle, connection)
                elif envelope.kind == "answer":
                    # The second answer to an offer that was repeated says nothing new, one to an earlier offer nothing of now
                    if self._awaits_answer and not connection.is_stale_answer(envelope.body):
                        await connection.set_answer(envelope.body)
                        self._check_takes_frames(connection)
                        self._awaits_answer = False
                        if self._search_after_answer:
                            self._search_now()
                elif envelope.kind == "candidate":
                    connection.add_remote_candidate(envelope.body or None)
                elif envelope.kind == "restart":
                    self._restart_asked()
                else:
                    self.close("closed")

    def _check_takes_frames(self, connection: PeerConnection) -> None:
        limit = connection.remote_max_message_size
        if limit is not None and limit < MESSAGE_MIN_BYTES:
            raise ConnectFailed(
                "signaling", f"the peer takes messages of {limit} bytes at most, and gossip needs {MESSAGE_MIN_BYTES}",
                peer=self.peer_id.short, advice="Its max_message_size is too small for a room",
            )  # fmt: skip

    async def _offer(self, connection: PeerConnection) -> None:
        """Offer what the connection has to offer: the first time, or the same once more as it may have been lost."""
        offer = await connection.create_offer(trickle=True)
        self._awaits_answer = True
        self._post("offer", offer)
        await self._trickle(connection)

    async def _find_new_paths(self, connection: PeerConnection) -> None:
        """While the peer is silent, or when one of us has moved, look for another path: the offerer restarts ICE, the
        answerer asks it to."""
        while True:
            await self._suspected.wait()
            self._suspected = trio.Event()
            if not self._restart_wanted:
                self._search_anew = trio.Event()
                if await self._has_just_answered(connection):
                    continue
                connection.distrust_path()
                with trio.move_on_after(PATH_PATIENCE_S):
                    await self._search_anew.wait()
            pause_s = RESTART_EVERY_S
            while self._restart_wanted or connection.state == "disconnected" or self.entry.is_asleep:
                self._restart_wanted = False
                self._search_anew = trio.Event()
                with trio.move_on_after(pause_s):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._knock)
                        nursery.start_soon(self._search_path, connection)
                        await self._search_anew.wait()
                        nursery.cancel_scope.cancel()
                pause_s = min(1.5 * pause_s, RESTART_PAUSE_MAX_S)
            self._suspected = trio.Event()  # what was suspected meanwhile has found its answer

    async def _has_just_answered(self, connection: PeerConnection) -> bool:
        """Whether the path answered a moment ago, after a break, and goes on to bring something: what was missed until
        then says nothing of it."""
        since = trio.current_time()
        with trio.move_on_at(self.path_proven_at + PATH_PATIENCE_S):
            await self._search_anew.wait()
        heard = connection.last_received_at
        return heard is not None and heard > since and not self._restart_wanted and not self.entry.is_asleep

    async def _knock(self) -> None:
        """A tunnel has nothing else that finds out when it carries again, where nothing waits to be repeated."""
        while True:
            self.send_frame(KNOCK, reliable=False)
            await trio.sleep(math.inf if self.is_direct else KNOCK_S)

    async def _search_path(self, connection: PeerConnection) -> None:
        now = trio.current_time()
        # An offer that may be under way still is repeated, not replaced: its answer would be taken for the new one's.
        repeated = self._awaits_answer and now - self._searched_at < RESTART_EVERY_S
        if not repeated:
            self._searched_at = now
        if not self.offerer:
            self._post("restart", "")
            return
        if not repeated:
            await connection.restart_ice(trickle=True)
        await self._offer(connection)

    async def _trickle(self, connection: PeerConnection) -> None:
        async for candidate in connection.local_candidates:
            self._post("candidate", candidate)
        self._post("candidate", "")

    def _post(self, kind: Kind, body: str) -> None:
        self._post_sealed(kind, self._sequence, body)
        self._sequence += 1

    def _explained(self, error: PsyneMeshError | None) -> RemoteError | None:
        """The error for the room: a signaling phase that failed because of tampering says so."""
        if isinstance(error, ConnectFailed) and error.phase == "signaling" and self.tampering is not None:
            return ConnectFailed(
                "signaling", self.tampering, peer=self.peer_id.short, advice="Use another signaling server"
            )
        return error if isinstance(error, RemoteError) else None

    # ---------------------------------------------------------------------------------------------------------- verbs

    def hear(self, envelope: Envelope) -> None:
        """An envelope of this session. When too many wait, the newest is dropped: its sender repeats what matters."""
        if envelope.kind == "offer":
            if envelope.sequence <= self._newest_offer:
                return  # held back on the way: it speaks of a path that its sender has given up
            self._newest_offer = envelope.sequence
        elif envelope.kind == "answer":
            if envelope.sequence <= self._newest_answer:
                return
            self._newest_answer = envelope.sequence
        try:
            self._heard_send.send_nowait(envelope)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def hear_untimely(self, untimely: Untimely) -> None:
        """An envelope of this session that our clock does not let us believe: while we dial there is no use in waiting."""
        if self.state is LinkState.DIALING:
            ahead_s = untimely.ahead_ms / 1000
            self._untimely = ClocksDiffer(
                "signaling", f"its clock is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} ours",
                peer=self.peer_id.short, advice="Set the clocks of both, or use a signaling server that tells the time",
            )  # fmt: skip
            self._closing.set()

    def suspect(self) -> None:
        """The peer has been silent for longer than its path explains. While the table has the link asleep, its DTLS and SCTP
        are kept and it goes on knocking: if the peer comes back, the owner hears `on_link_revived`, and what was sent
        reliably arrives."""
        self._suspected.set()

    def note_signaling(self) -> None:
        """Signaling is back: what was posted while it was gone is lost, so a search for a path starts anew."""
        self._search_anew.set()

    def network_changed(self, gone: bool) -> None:
        """This machine has another address, or (`gone`) has lost one: the peer must hear of it, whether or not it is
        silent. What travels over the old path goes on unless that may have gone with the address."""
        if self._connection is not None and self.entry.was_open:
            if gone:
                self._connection.distrust_path()
            self._search_now()

    def _restart_asked(self) -> None:
        """The peer wants another path and cannot offer one itself. It may know more than we do, but not ask for ever."""
        if not self.entry.was_open:
            return
        if self._asked.allow(trio.current_time()):
            self._search_now()
        else:
            self.suspect()

    def _search_now(self) -> None:
        self._search_after_answer = self._awaits_answer  # what is under way may speak of the network of before
        self._restart_wanted = True
        self._suspected.set()
        self._search_anew.set()

    async def drain(self) -> None:
        """Until the peer has acknowledged what was sent reliably so far; at once where nobody would."""
        if self.state is LinkState.OPEN and not self.entry.is_asleep and self._connection is not None:
            await self._connection.drain()

    def close(self, reason: str) -> None:
        """End it; what was sent reliably so far is flushed as far as the peer answers quickly."""
        if self._close_reason is None:
            self._close_reason = reason
            self._owner.on_link_closing(self, reason)
            if self.is_parting:
                self._owner.on_link_parting(self)
        self._closing.set()

    @property
    def is_superseded(self) -> bool:
        """Open still, for last words, but the peer has begun a new life: nothing that is sent here reaches that."""
        return self._close_reason == "superseded"

    @property
    def is_parting(self) -> bool:
        """Open until all has come that was sent over it; nothing more is sent."""
        return self._left.is_set() or self._close_reason in _IN_GOOD_ORDER

    @property
    def is_closing(self) -> bool:
        return self._close_reason is not None

    def send_frame(self, frame: bytes, *, reliable: bool) -> None:
        channel = self._control if reliable else self._gossip
        if self.state is LinkState.OPEN and channel is not None and self._connection is not None:
            try:
                self._connection.send(channel, frame)
            except (ClosedError, PeerGone):
                return  # it ended a moment ago: `run` is about to say so
            except WouldBlock:
                self.close("overflow")
            except LocalError:  # it does not take what every member must: the task that sends is not of this link
                self.close("misbehaving")

    def send_message(self, config: DataChannelConfig, data: bytes | str) -> None:
        """On our own channel of that label, which is announced with its first message. `WouldBlock` over the hard budget."""
        assert self._connection is not None
        if self.waiting > HARD_BUDGET_BYTES:
            raise WouldBlock(f"{self.waiting} bytes wait for this peer already")
        channel = self._outgoing.get(config.label)
        if channel is None:
            channel = self._outgoing[config.label] = self._connection.open_channel(config)
            self._connection.set_buffered_amount_low_threshold(channel, LOW_WATER_BYTES)
            if config.max_retransmits is not None:
                channel.life_time = STALE_S * (config.max_retransmits + 1)
                channel.thins = not config.max_retransmits
        self._connection.send(channel, data)

    def send_express(self, label: str, data: bytes | str) -> bool:
        """The short way for a message that may be lost, where nothing can wait. False: it was not sent, use `send_message`."""
        channel = self._outgoing.get(label)
        if channel is None or not channel.express or self.state is not LinkState.OPEN or self._close_reason is not None:
            return False
        assert self._connection is not None
        try:
            self._connection.send(channel, data)
        except (LocalError, RemoteError):
            return False  # `send_message` says what is wrong
        return True

    def buffered(self, label: str) -> int:
        """Bytes accepted on that channel and not yet handed to the network."""
        channel = self._outgoing.get(label)
        return 0 if channel is None or self._connection is None else self._connection.channel_buffered_amount(channel)

    @property
    def waiting(self) -> int:
        """The same of all channels together."""
        return 0 if self._connection is None else self._connection.buffered_amount

    @property
    def message_max(self) -> int:
        """Bytes of the largest message that the peer takes."""
        limit = None if self._connection is None else self._connection.remote_max_message_size
        return limit or MESSAGE_MIN_BYTES

    def hold(self, delta: int, label: str) -> None:
        """The application holds `delta` more (or fewer) bytes of this peer unread on a channel: what the peer may send on it
        follows, or else its window. A link that opens is told of what is held by then."""
        self._held[label] = self._held.get(label, 0) + delta
        channel = self._incoming.get(label)
        if channel is not None:
            channel.unread += delta
        if self._connection is not None and self.state is LinkState.OPEN:
            self._connection.note_unread(delta)

    def told_delay_s(self, now: float) -> float:
        """Seconds that what we send has waited before the peer read it, as far as it told a moment ago; else 0."""
        return 0.0 if self._connection is None else self._connection.told_delay_s(now)

    def carried(self) -> dict[str, Carried]:
        """By label: what went over it on reliable channels so far."""
        carried = dict(self._ended)
        for channels in (self._outgoing, self._incoming):
            for channel in channels.values():
                self._note_carried(carried, channel)
        return carried

    def _note_carried(self, carried: dict[str, Carried], channel: Channel) -> None:
        label, config = channel.config.label, channel.config
        if config.negotiated or config.max_retransmits is not None or config.max_packet_life_time_ms is not None:
            return
        sent, came, unacknowledged = carried.get(label, Carried(0, 0, 0))
        if self._outgoing.get(label) is channel:
            carried[label] = Carried(sent + channel.messages_sent, came, unacknowledged + channel.undelivered)
        elif self._incoming.get(label) is channel:
            carried[label] = Carried(sent, came + channel.messages_received, unacknowledged)

    @property
    def last_heard(self) -> float | None:
        """When something came that was proved to be of the peer."""
        return None if self._connection is None else self._connection.last_received_at

    def heartbeat(self, number: int) -> None:
        """Our own loop stands still: tell the peer that we live. Another thread may call it."""
        connection = self._connection
        if connection is not None and self.state is LinkState.OPEN:
            connection.heartbeat(number)

    def deliver_tunnelled(self, datagrams: list[bytes], *, late: bool = False) -> None:
        if self._connection is not None:
            self._connection.deliver_tunnelled(datagrams, late=late)

    @property
    def is_direct(self) -> bool:
        """Open over a path of its own; only such links carry for others, so that no tunnel runs inside a tunnel."""
        path = self.path
        return self.state is LinkState.OPEN and path is not None and path.kind not in ("peer", "signaling")

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
                channel, data = event.channel, event.data
                if self._still_since is not None:
                    self._still_since = None
                    self._owner.on_turns_again(self)
                if type(self.entry.phase) is Asleep:
                    self._owner.on_link_revived(self)
                if (route := self._routes.get(channel)) is not None:
                    self._owner.on_channel_message(self, route, data)
                elif channel.config.negotiated and isinstance(data, bytes):
                    self._owner.on_frame(self, data)
            elif type(event) is PathRevived:
                if type(self.entry.phase) is Asleep:
                    self._owner.on_link_revived(self)
                self.path_proven_at = trio.current_time()
                self._search_anew.set()  # it ends the search, whose pauses have grown: the next break needs one of its own
            elif type(event) is PeerStandsStill:
                now = trio.current_time()
                self._still_since = now if self._still_since is None else self._still_since
                self._owner.on_still(self, now - self._still_since)
            elif type(event) is ChannelOpened:
                if not event.channel.config.negotiated:
                    self._routes[event.channel] = self._owner.route_of(event.channel.label)
                    event.channel.thins = event.channel.max_retransmits == 0
                    if event.by_peer:
                        self._incoming[event.channel.label] = event.channel
                        self._tell_types(event.channel)
                        event.channel.unread = self._held.get(event.channel.label, 0)
                elif self.state is LinkState.DIALING:
                    self.state = LinkState.OPEN
                    self._owner.on_link_open(self)
            elif type(event) is BufferedAmountLow:
                self._owner.on_drained(self)
            elif type(event) is ChannelClosed:
                self._routes.pop(event.channel, None)
                self._note_carried(self._ended, event.channel)
                for channels in (self._outgoing, self._incoming):
                    if channels.get(event.channel.label) is event.channel:
                        del channels[event.channel.label]  # the next message opens a new one

    def _tell_types(self, channel: Channel) -> None:
        if channel.config.protocol and (route := self._routes[channel]) is not None:
            self._owner.on_channel_types(self, route, channel.config.protocol)


def _reason(error: PsyneMeshError | None) -> str:
    """For logs: rooms hear that a link is down, whyever."""
    return "closed" if error is None or isinstance(error, ClosedError | PeerGone) else str(error)


def _first(group: BaseExceptionGroup[PsyneMeshError]) -> PsyneMeshError:
    error: PsyneMeshError | BaseExceptionGroup[PsyneMeshError] = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
