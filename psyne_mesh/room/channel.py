"""A broadcast channel of a room: typed messages to everybody or to some, and an inbox that a slow reader cannot burst."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import get_ident
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import attrs
import trio

from psyne_mesh.errors import (
    ClosedError,
    InvalidConfig,
    MessageTooLarge,
    OutsideTrio,
    PeerGone,
    ProtocolError,
    WouldBlock,
)
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import interruptible, uninterrupted
from psyne_mesh.mesh.membership import CHANNEL_NAME_BYTES_MAX, Membership, SendOutcome
from psyne_mesh.room.callbacks import NO_CALLBACK, checked_callback
from psyne_mesh.room.carried import carried
from psyne_mesh.room.codec import MessageCodec, Payload, RawCodec
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.events import MessageRefused
from psyne_mesh.room.fairness import Referee
from psyne_mesh.room.losses import Losses
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.silent import Silent
from psyne_mesh.room.waiting import Waiting
from psyne_mesh.webrtc.data_channel import UNREAD_OVERHEAD_BYTES
from psyne_mesh.webrtc.inbox import Inbox

M = TypeVar("M")
C = TypeVar("C")
To = Peer | PeerId | Iterable[Peer | PeerId] | None

# Messages, not bytes: at 60 Hz from 15 players this is more than a second of positions.
INBOX_MAX = 1024
# One bulk sender may run this far ahead of a receiver before `send` waits for it: a second at 8 Mbit/s.
SOFT_BUDGET_BYTES = 2**20
# Of one author through others, whom no receive window holds back; as much as the window of a link lets through.
CARRIED_UNREAD_BYTES_MAX = 4 * 2**20
# In a small room others carry so many unreliable messages to one who cannot be linked to: each is three datagrams or more.
CARRIED_EVERY_S = 0.05
# Peers of whom a refused message was told; who comes and goes under new keys is told of so often, and counted beyond.
REFUSED_TOLD_MAX = 1024
_OTHER_THREAD = (
    "a channel of a Trio room was used on another thread.\n"
    "Write trio.from_thread.run_sync(channel.send_nowait, message, trio_token=token); psyne_mesh.sync is made for threads."
)
_NOT_SENT = (SendOutcome.NOT_CONNECTED, SendOutcome.TOO_LARGE)  # of one alone: raised, and nothing was sent
_TO = "must be a Peer, a PeerId or several of these; room.peers has those who are here"


class Overhear(Protocol):
    """What spectators are told, too."""

    def __call__(self, channel: str, payload: Payload, n_peers: int, *, to_all: bool, is_reliable: bool) -> None: ...


@attrs.frozen
class SendReport:
    """What became of one message: how many peers it was handed to the network for, and why not for the others. Among the
    former are those in `waiting`, to whom a link is being made: a reliable message waits for it.

    behind: on a reliable channel, the peers for whom more than 1 MiB wait on it now, this message included, and how many bytes:
        they do not read it, or their network is too slow. `Peer.waiting_bytes` has what waits on all channels.
    """

    sent: int
    skipped: Mapping[PeerId, SendOutcome]
    waiting: tuple[PeerId, ...] = ()
    behind: Mapping[PeerId, int] = attrs.Factory(dict)


@attrs.define
class ChannelStats:
    """Counts since the channel was made, in messages; `dropped` went for want of room in the inbox, or, of a reliable
    channel, while it was not declared here yet; `refused` were not messages of this channel, or broke a rule of their type;
    `skipped` were not handed to a peer that was too slow or not connected."""

    sent: int = 0
    skipped: int = 0
    received: int = 0
    dropped: int = 0
    refused: int = 0


@uninterrupted
class Channel(Generic[M]):
    """Made by `room.channel(name, *types, mode=...)`. Sending and receiving may go on in any number of tasks.

    The inbox holds `inbox_max` messages. When it is full, an unreliable channel drops the oldest (a newer position is
    worth more) and counts it; a reliable one keeps everything and shrinks the senders' receive windows, so that they wait
    and nothing is lost. Only what comes through other members has no window: while 4 MiB of its author wait to be read, it
    is dropped and counted.
    """

    def __init__(
        self,
        membership: Membership,
        peers: Mapping[PeerId, Peer],
        silent: Silent,
        losses: Losses,
        name: str,
        codec: RawCodec | MessageCodec,
        mode: DeliveryMode,
        priority: int,
        inbox_max: int,
        fault: Callable[[BaseException], None],
        on_refused: Callable[[MessageRefused], None] = lambda refused: None,
        waiting: Waiting | None = None,
        referee: Referee | None = None,
        overhear: Overhear | None = None,
    ) -> None:
        self.name = name
        self.mode = mode
        self._reliable = mode.reliable
        self.stats = ChannelStats()
        self._membership = membership
        self._peers = peers
        self._silent = silent
        self._losses = losses
        self._codec = codec
        self._config = mode.data_channel(membership.label(name), priority, codec.announcement)
        self._inbox: Inbox[tuple[Peer, Payload]] = Inbox()
        self._inbox_max = inbox_max
        self._callback: Callable[[Peer, Any], object] | None = None
        self._fault = fault
        self._kept: dict[PeerId, list[Payload]] = {}  # of those who were taken for gone
        self._on_refused = on_refused
        self._refused: set[PeerId] = set()
        self._thread = get_ident()
        self._waiting = Waiting() if waiting is None else waiting
        self._referee = referee
        self._overhear = overhear
        self._end = "the room was left"
        # Of peers without a link: when others carry the next unreliable message to them.
        self._carried_next: dict[PeerId, float] = {}

    def asked_again(
        self, kinds: tuple[type[Any], ...], mode: DeliveryMode | None, priority: int | None, inbox_max: int | None
    ) -> Channel[M]:
        """Itself, if that is what was asked for: whoever wanted another mode must not get this one without a word."""
        given = (kinds or None, mode, priority, inbox_max)
        has = (self._codec.kinds, self.mode, self._config.priority, self._inbox_max)
        for name, asked, here in zip(("types", "mode", "priority", "inbox_max"), given, has, strict=True):
            if asked is not None and asked != here:
                raise InvalidConfig(f"channel {self.name!r} exists with {name} = {here!r}, not {asked!r}")
        return self

    async def send(self, message: M, to: To = None) -> SendReport:
        """Hand `message` to everybody in the room, or to the peer or peers in `to`. Those without a link of ours get it
        through other members, up to 16 KiB with the channel's name: to everybody in order, to a single one as far as nothing
        is lost on the way. In a room so large that everybody depends on others, a larger broadcast is refused.

        A broadcast waits only while every receiver is over its budget (1 MiB on this channel, 8 MiB on all together), so it
        goes at the pace of the fastest; those who stay behind are skipped on an unreliable channel, and on a reliable one
        lose their link, with all that waits on it, once 12 MiB wait for them on all channels together: the report says
        "overflow". Cancelling it while it waits sends nothing.

        A reliable message to a player to whom a link is being made waits for it, up to 1 MiB for each.

        Raises `UnserialisableMessage`, `MessageTooLarge` (nothing was sent to anybody), `ClosedError`; `InvalidConfig` when
        `to` names no peers; and `PeerGone` when it is one peer who is not here, or whom an unreliable message cannot reach.
        """
        await trio.lowlevel.checkpoint()
        return await self.send_payload(self.encode(message), to)

    async def send_payload(self, payload: Payload, to: To) -> SendReport:
        """What `encode` gave: `send` behind it, for a door that encodes on another thread."""
        targets = self._targets(to)
        if self.mode.reliable:
            await self._wait_for_room(payload, to)
            self._check_open()
            if to is None:
                targets = self._targets(to)  # who came or went meanwhile: each of them gets it once
        return self._hand_over(payload, targets, to)

    async def _wait_for_room(self, payload: Payload, to: To) -> None:
        membership, size = self._membership, _size(payload)
        while not membership.closed:
            carried = to is None and self._blob_for_all(payload) is not None
            targets = self._targets(to)
            silent = self._silent.hoped_for(trio.current_time()) if to is None else []
            has_room = membership.has_room(targets, silent, self._config.label, SOFT_BUDGET_BYTES, carried=carried)
            if has_room or (has_room is None and not self._is_dialing_full(targets, size)):
                return
            await membership.wait_drained()

    def _is_dialing_full(self, targets: list[PeerId], size: int) -> bool:
        """Nobody is linked, links are being made, and as much waits for each of them as may."""
        here = [peer for peer in map(self._peers.get, targets) if peer is not None]
        if not here or any(peer.relayed or peer.dial_failed for peer in here):
            return False
        return not any(self._waiting.has_room(peer.id, size) for peer in here)

    def send_nowait(self, message: M, to: To = None) -> SendReport:
        """Like `send`, but never waits. Those who are too far behind are named in the report: on an unreliable channel they are
        skipped, on a reliable one they lose their link at 12 MiB ("overflow"); of what others would carry nothing is sent while
        8 MiB wait on every link ("congested")."""
        if get_ident() != self._thread:
            raise OutsideTrio(_OTHER_THREAD)
        return self.send_payload_nowait(self.encode(message), to)

    def send_payload_nowait(self, payload: Payload, to: To) -> SendReport:
        return self._hand_over(payload, self._targets(to), to)

    def on_message(self, callback: Callable[[Peer, M], C] = NO_CALLBACK) -> Callable[[Peer, M], C]:
        """`@channel.on_message`: `callback(peer, message)` for every message, those that wait already first.

        It is called as the message comes, in the network's own turn, without a task between: the quickest way, for plain
        functions that do little, as the next message waits for them. An error in it ends the room's block with that error.
        From then on nobody else gets the messages of this channel: `receive` and iterating raise `InvalidConfig`, as does
        a second callback.
        """
        self._check_open()
        checked_callback("channel.on_message", callback, "peer", "message", is_async=False)
        self._check_nobody_is_called()
        while (item := self._take()) is not None:
            self._call(callback, *item)
        self._callback = callback
        self._inbox.wake()
        return callback

    async def receive(self) -> tuple[Peer, M]:
        """The next message and who sent it. Cancelling it loses nothing. `ClosedError` after the room was left."""
        while True:
            await self._inbox.wait()
            if (item := self._take()) is not None:
                return item
            if self._inbox.closed or self._callback is not None:
                self._raise_nothing()

    def receive_nowait(self) -> tuple[Peer, M]:
        """The next message, or `WouldBlock`."""
        if get_ident() != self._thread:
            raise OutsideTrio(_OTHER_THREAD)
        return self._take() or self._raise_nothing()

    def _take(self) -> tuple[Peer, M] | None:
        """The next that is a message of this channel. It is decoded here and not before: what newer ones have replaced
        never is."""
        inbox = self._inbox
        while inbox:
            peer, payload = inbox.get_nowait()
            if self._reliable:
                self._membership.release(peer.id, self._config.label, held_size(payload))
            try:
                return peer, self.decode_untrusted(peer, payload)
            except ProtocolError:
                continue
        return None

    def _raise_nothing(self) -> NoReturn:
        if self._inbox.closed:
            raise ClosedError(f"channel {self.name!r}: {self._end}")
        self._check_nobody_is_called()
        raise WouldBlock(f"channel {self.name!r}: nothing has come")

    def _check_nobody_is_called(self) -> None:
        if self._callback is not None:
            raise InvalidConfig(f"channel {self.name!r}: its messages go to its callback")

    def _call(self, callback: Callable[[Peer, Any], object], peer: Peer, message: Any) -> None:
        try:
            interruptible(callback, peer, message)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - we are inside a packet handler: the room raises it in its block
            self._fault(error)

    async def wait(self) -> None:
        """Until `receive_nowait` would say anything but `WouldBlock`; another task may be quicker."""
        await self._inbox.wait()

    def __aiter__(self) -> Channel[M]:
        return self

    async def __anext__(self) -> tuple[Peer, M]:
        try:
            return await self.receive()
        except ClosedError:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        return f"<Channel {self.name!r} {self.mode.name} {len(self._inbox)} waiting>"

    # ------------------------------------------------------------------------------------------- called by the room

    def deliver(self, peer: Peer, payload: Payload, *, carried: bool = False) -> None:
        """A message came, `carried` through others or over a link; called inside the packet handler, so it only queues, or
        calls who asked for that. What breaks a rule of its type goes no further."""
        if self._referee is not None and not self._passes(self._referee, peer, payload):
            return
        if self._callback is not None:
            try:
                message = self.decode_untrusted(peer, payload)
            except ProtocolError:
                return
            self._call(self._callback, peer, message)
            return
        if self._reliable:
            size = held_size(payload)
            if carried and self._membership.unread(peer.id) + size > CARRIED_UNREAD_BYTES_MAX:
                self.dropped(peer, 1)
                return
            self._membership.hold(peer.id, self._config.label, size)
        elif len(self._inbox) >= self._inbox_max:
            self._inbox.get_nowait()
            self.stats.dropped += 1
        self._inbox.put((peer, payload))

    def _passes(self, referee: Referee, peer: Peer, payload: Payload) -> bool:
        try:
            passes = referee.passes(peer, payload)
        except Exception as error:  # noqa: BLE001 - a rule of the game's own; the room raises it in its block
            self._fault(error)
            return False
        self.stats.refused += not passes
        return passes

    def compare_types(self, peer: Peer, protocol: str) -> None:
        """The player has opened its channel of this name, and says what it will send. What cannot be read here is told now, as
        its first message would be."""
        try:
            difference = self._codec.difference_untrusted(protocol)
        except ProtocolError as error:
            difference = str(error)
        if difference is not None:
            self._tell_refused(peer, difference)

    def keep(self, peer_id: PeerId, payload: Payload, *, carried: bool) -> None:
        """A message of a player who was taken for gone: it is given when the player is discovered again. It counts as unread,
        so that its sender waits. An unreliable one speaks of a player who is not here."""
        if self._reliable:
            size = held_size(payload)
            if carried and self._membership.unread(peer_id) + size > CARRIED_UNREAD_BYTES_MAX:
                self.dropped(self._silent.get(peer_id), 1)
                return
            self._membership.hold(peer_id, self._config.label, size)
            self._kept.setdefault(peer_id, []).append(payload)

    def dropped(self, peer: Peer | None, count: int) -> None:
        """So many reliable messages of the player came, and found no room; None: of whom nobody will ask any more."""
        self.stats.dropped += count
        if peer is not None:
            self._losses.lost(peer, self.name, count, here=True)

    def give_kept(self, peer_id: PeerId, peer: Peer | None) -> None:
        """The player is back; None: it is another stay, or we have waited for too long."""
        for payload in self._kept.pop(peer_id, ()):
            self._membership.release(peer_id, self._config.label, held_size(payload))
            if peer is None:
                self.stats.dropped += 1
            else:
                self.deliver(peer, payload)

    def send_waiting(self, peer_id: PeerId, payload: Payload) -> bool:
        """A message that has waited: False when there is still no way, and it must wait on."""
        if peer_id == self._membership.node.peer_id:  # it is for all
            if self._membership.has_links:
                self._membership.broadcast(self._carried(payload))
            return self._membership.has_links
        outcome = self._membership.send(peer_id, self._config, payload, reliable=True)
        if outcome is SendOutcome.NOT_CONNECTED:
            outcome = self._through_others(peer_id, payload, thinned=False)
        if outcome is SendOutcome.NOT_CONNECTED:
            return False
        if outcome is not SendOutcome.SENT and (peer := self._peers.get(peer_id)) is not None:
            self.waited_in_vain(peer)
        return True

    def waited_in_vain(self, peer: Peer) -> None:
        """What had waited was of no use: the player has gone, or takes no message of that size."""
        self.stats.sent -= 1
        self.stats.skipped += 1
        self._membership.missed(peer.id, self.name, told=True)
        self._losses.undelivered(peer, self.name, 1)

    def tell_skipped(self, skipped: Iterable[PeerId]) -> None:
        """For a door that gives no reports: who did not get a reliable message is told as an event."""
        for peer in map(self._peers.get, skipped):
            if peer is not None and self._reliable:
                self._losses.undelivered(peer, self.name, 1)

    def close(self, why: str) -> None:
        self._end = why
        self._inbox.close()

    # ------------------------------------------------------------------------ called by a door on another thread

    def deliver_into(self, inbox: Inbox[tuple[Peer, Payload]], on_refused: Callable[[MessageRefused], None]) -> None:
        """What has come and what comes goes there undecoded; of a reliable channel, `release` what was read. Who decodes it
        there is told what was refused."""
        self._on_refused = on_refused
        for item in self._inbox.clear():
            inbox.put(item)
        if self._inbox.closed:
            inbox.close()
        self._inbox = inbox

    def release(self, peer: Peer, size: int) -> None:
        self._membership.release(peer.id, self._config.label, size)

    def encode(self, message: M) -> Payload:
        """`UnserialisableMessage`, `MessageTooLarge` or `ClosedError` for what cannot be sent."""
        self._check_open()
        payload = self._codec.encode(message)
        size = _size(payload)
        if size > self._membership.max_message_size:
            raise MessageTooLarge(size, self._membership.max_message_size)
        return payload

    def decode_untrusted(self, peer: Peer, payload: Payload) -> M:
        """The message, counted as received; or `ProtocolError`, and it is counted as refused, and told once for each peer."""
        try:
            message: Any = self._codec.decode_untrusted(payload)
        except ProtocolError as error:
            self.stats.refused += 1
            self._tell_refused(peer, str(error))
            raise
        self.stats.received += 1
        return message  # type: ignore[no-any-return]

    def _tell_refused(self, peer: Peer, reason: str) -> None:
        if peer.id not in self._refused and len(self._refused) < REFUSED_TOLD_MAX:
            self._refused.add(peer.id)
            self._on_refused(MessageRefused(peer, self.name, reason))

    def checked_to(self, to: To) -> To:
        """The same as can be kept, or `InvalidConfig` when it names no peers."""
        return to if to is None or isinstance(to, Peer | PeerId) else self._targets(to)

    # -------------------------------------------------------------------------------------------------------- helpers

    def _check_open(self) -> None:
        if self._inbox.closed:
            raise ClosedError(f"channel {self.name!r}: {self._end}")

    def _targets(self, to: To) -> list[PeerId]:
        if to is None:
            return list(self._peers)
        if isinstance(to, Peer):
            return [to.id]
        if isinstance(to, PeerId):
            return [to]
        if isinstance(to, str) or not isinstance(to, Iterable):
            raise InvalidConfig(f"to = {to!r}: {_TO}")
        return list(dict.fromkeys(map(_id_of, to)))

    def _carried(self, payload: Payload) -> bytes:
        return carried(self.name, payload, reliable=self.mode.reliable)

    def _through_others(self, peer_id: PeerId, payload: Payload, *, thinned: bool) -> SendOutcome:
        peer = self._peers.get(peer_id)
        if peer is None or not peer.relayed:
            return SendOutcome.NOT_CONNECTED
        if self._reliable and peer.was_linked and not self._membership.is_partial:
            return SendOutcome.NOT_CONNECTED  # it waits: what others carry may be lost, and may overtake
        now = trio.current_time()
        if thinned and now < self._carried_next.get(peer_id, now):
            return SendOutcome.CONGESTED
        blob = self._carried(payload)
        if len(blob) > self._membership.signal_max:
            return SendOutcome.TOO_LARGE
        if thinned:  # those whose time has come need no entry, so it holds the last twentieth of a second only
            self._carried_next = {other: due for other, due in self._carried_next.items() if due > now}
            self._carried_next[peer_id] = now + CARRIED_EVERY_S
        self._membership.send_signal(peer_id, blob)
        return SendOutcome.SENT

    def _hand_over(self, payload: Payload, targets: list[PeerId], to: To) -> SendReport:
        if self._referee is not None:
            self._referee.said(payload)
        alone, everybody = isinstance(to, Peer | PeerId), to is None
        if self._overhear is not None:
            self._overhear(self.name, payload, len(targets), to_all=everybody, is_reliable=self._reliable)
        skipped: dict[PeerId, SendOutcome] = {}
        waiting: list[PeerId] = []
        blob = self._blob_for_all(payload) if everybody else None
        if blob is not None:
            if self._membership.is_congested(reliable=self.mode.reliable):
                skipped = dict.fromkeys(targets, SendOutcome.CONGESTED)
            else:
                self._membership.broadcast(blob)
            return self._reported(targets, skipped)
        if everybody and self._reliable and (held := self._held_for_all(payload, targets)) is not None:
            return held
        if everybody and self._reliable and self._silent:
            self._hand_to_silent(payload)
        # Who is not here: a link that another room shares would take it
        here = targets if everybody else [peer_id for peer_id in targets if self._is_here(peer_id)]
        if self._reliable and self._waiting:
            here = [peer_id for peer_id in here if not self._waiting.is_waiting(peer_id)]  # behind what waits already
        missed = self._membership.send_to_each(here, self._config, payload, reliable=self._reliable)
        if len(here) < len(targets):
            missed |= {peer_id: SendOutcome.NOT_CONNECTED for peer_id in targets if peer_id not in here}
        for peer_id, outcome in missed.items():
            if outcome is SendOutcome.NOT_CONNECTED and not (self._reliable and self._waiting.is_waiting(peer_id)):
                outcome = self._through_others(peer_id, payload, thinned=everybody and not self._reliable)
            if outcome is SendOutcome.NOT_CONNECTED and self._may_wait(peer_id, payload):
                waiting.append(peer_id)
            elif outcome is not SendOutcome.SENT:
                skipped[peer_id] = outcome
        if self._reliable:  # in a link that is asleep it waits, too
            waiting += [
                peer_id
                for peer_id in here
                if (peer := self._peers.get(peer_id)) is not None and not (peer.connected or peer_id in missed)
            ]
        if self._reliable and not (alone and skipped.get(targets[0]) in _NOT_SENT):
            for peer_id in skipped:  # it will see a gap, and be told so with the next link
                if peer_id in self._peers:
                    self._membership.missed(peer_id, self.name, told=True)
        if alone and skipped:
            if skipped[targets[0]] is SendOutcome.NOT_CONNECTED:
                raise PeerGone(f"{targets[0].short} is not connected")
            if skipped[targets[0]] is SendOutcome.TOO_LARGE:
                limit = self._membership.message_limit(targets[0])
                raise (
                    self._too_large(payload, self._membership.signal_max)
                    if limit is None
                    else MessageTooLarge(_size(payload), limit)
                )
        return self._reported(targets, skipped, waiting)

    def _hand_to_silent(self, payload: Payload) -> None:
        """Silent, perhaps only for seconds: it waits in their links. Who comes back later is told how much it missed."""
        now, membership = trio.current_time(), self._membership
        back = [
            peer_id for peer_id in self._silent.given_up(now) if membership.is_linked(peer_id)
        ]  # the room hears it soon
        for peer_id in self._silent.hoped_for(now) + back:
            outcome = membership.send(peer_id, self._config, payload, reliable=True, parts=False)
            if outcome is not SendOutcome.SENT:
                membership.missed(peer_id, self.name, told=False)
        for peer_id in self._silent.given_up(now):
            if peer_id not in back:
                membership.missed(peer_id, self.name, told=False)

    def _may_wait(self, peer_id: PeerId, payload: Payload) -> bool:
        """To a player of this room, whose link is being made."""
        return self.mode.reliable and peer_id in self._peers and self._waiting.put(peer_id, self.name, payload)

    def _reported(
        self, targets: list[PeerId], skipped: dict[PeerId, SendOutcome], waiting: Iterable[PeerId] = ()
    ) -> SendReport:
        self.stats.sent += len(targets) - len(skipped)
        self.stats.skipped += len(skipped)
        behind = {}
        if self.mode.reliable:
            buffered = ((peer_id, self._membership.buffered(peer_id, self._config.label)) for peer_id in targets)
            behind = {peer_id: n_bytes for peer_id, n_bytes in buffered if n_bytes > SOFT_BUDGET_BYTES}
        return SendReport(len(targets) - len(skipped), skipped, tuple(waiting), behind)

    def _is_here(self, peer_id: PeerId) -> bool:
        return peer_id in self._peers or peer_id in self._silent.hoped_for(trio.current_time())

    def _blob_for_all(self, payload: Payload) -> bytes | None:
        """What goes to everybody through others, in a room so large that some depend on them: those without a link, and those
        who are silent beyond a cut and will ask for it. None: each gets it from us.
        A small room stays with its links though one member cannot be linked to: it would change the way, and the order, of
        everybody's messages."""
        if not self._membership.is_partial:
            return None
        if not any(peer.relayed for peer in self._peers.values()) and not self._silent.hoped_for(trio.current_time()):
            return None
        blob = self._carried(payload)
        if len(blob) <= self._membership.broadcast_max:
            return blob
        if self._membership.is_large:
            raise self._too_large(payload, self._membership.broadcast_max)
        return None

    def _held_for_all(self, payload: Payload, targets: list[PeerId]) -> SendReport | None:
        """In a large room whose every link we have lost: it waits for the first to come back, and goes to all in one stream."""
        if not self._membership.is_cut_off or len(self._carried(payload)) > self._membership.broadcast_max:
            return None
        if self._waiting.put(self._membership.node.peer_id, self.name, payload):
            return self._reported(targets, {}, targets)
        return self._reported(targets, dict.fromkeys(targets, SendOutcome.CONGESTED))

    def _too_large(self, payload: Payload, limit: int) -> MessageTooLarge:
        """`limit`: of what others carry, which is the payload with its channel's name."""
        size = _size(payload)
        return MessageTooLarge(size, limit - (len(self._carried(payload)) - size))


def _size(payload: Payload) -> int:
    return len(payload if isinstance(payload, bytes) else payload.encode())


def _id_of(peer: Peer | PeerId) -> PeerId:
    if isinstance(peer, Peer):
        return peer.id
    if isinstance(peer, PeerId):
        return peer
    raise InvalidConfig(f"to = [... {peer!r} ...]: {_TO}")


def held_size(payload: Payload) -> int:
    return _size(payload) + UNREAD_OVERHEAD_BYTES


def is_channel_name(value: object) -> bool:
    """1 to CHANNEL_NAME_BYTES_MAX bytes of UTF-8."""
    try:
        return isinstance(value, str) and 1 <= len(value.encode()) <= CHANNEL_NAME_BYTES_MAX
    except UnicodeEncodeError:
        return False
