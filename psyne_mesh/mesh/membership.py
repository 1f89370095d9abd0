"""One room as the mesh sees it: its gossip node, and the links of its members."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from enum import Enum
from typing import Protocol, TypeVar

import trio

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import (
    ClosedError,
    ConnectFailed,
    InvalidConfig,
    LocalError,
    MessageTooLarge,
    ProtocolError,
    RemoteError,
    UnserialisableMessage,
    WouldBlock,
)
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.node import Node
from psyne_mesh.gossip.views import Topology
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.heartbeat import Heartbeat
from psyne_mesh.mesh.link import HARD_BUDGET_BYTES, Link, LinkState
from psyne_mesh.mesh.owed import Carried, Losses, Owed
from psyne_mesh.mesh.pause import pause_frame
from psyne_mesh.mesh.records import records_untrusted
from psyne_mesh.mesh.sealed import CHANNEL_MESSAGE, ENVELOPE, HALL_WORD, SEAL_BYTES, Seals, is_hall_word
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.webrtc.ice import Path
from psyne_mesh.webrtc.stats import PeerStats

TAG_BYTES = 8
# Many channels, each within its own budget, together stay below what ends a link.
LINK_BUDGET_BYTES = HARD_BUDGET_BYTES * 2 // 3
# What others carry goes on from each of them at the pace of their own links. With more on the way, queues grow beyond what a
# heartbeat waits for: 1 MB/s, seven members: half of what one sent was lost, and living members were called gone.
CARRIED_BUDGET_BYTES = 2**18
# What others carry is everywhere after nine hops at most, in a room of 1,000; so much for 50 ms each.
CARRIED_S = 0.5
_LOOK_AGAIN_S = 0.1
# Broadcasts of one player that wait until what it sent over a link that it gives up has come. A guess; more come at once.
HELD_BACK_MAX = 4096
# Why a player has left whose stay is over; after the others it may be discovered again, and is owed what it was.
_FOR_GOOD = ("left", "superseded", "kicked", "two-faced")
CHANNEL_NAME_BYTES_MAX = 128
# A pause may last so long without a sign of the loop: a coffee, not a night.
PAUSE_MAX_S = 900.0
# A player whose loop stands still is shown as away after that: a busy machine stops for half a second now and then.
STILL_SHOWN_S = 1.0


L = TypeVar("L")


class SendOutcome(Enum):
    """What became of one message for one peer."""

    SENT = "sent"
    NOT_CONNECTED = "not connected"
    CONGESTED = "congested"
    TOO_LARGE = "too large for this peer"
    OVERFLOW = "overflow"


class RoomSink(Protocol):
    """The room above. Called in the packet path: it only notes and queues."""

    def on_admitted(self, membership: Membership) -> None: ...
    def on_leaving(self) -> None: ...
    def on_goodbye(self) -> None: ...
    def on_ended(self) -> None: ...
    def on_gossip(self, event: gossip_events.Event) -> None: ...
    def on_link_open(self, peer: PeerId) -> None: ...
    def on_link_failed(self, peer: PeerId, error: RemoteError) -> None: ...
    def on_link_gone(self, peer: PeerId) -> None: ...
    def on_peer_still(self, peer: PeerId, still: bool) -> None: ...
    def on_pause(self, peer: PeerId, reason: str | None) -> None: ...
    def on_types(self, peer: PeerId, channel: str, protocol: str) -> None: ...
    def on_message(self, peer: PeerId, channel: str, data: bytes | str) -> None: ...
    def on_lost(self, peer: PeerId, losses: Losses, *, ours: bool) -> None: ...
    def on_tampering(self, carrier: str, peer: PeerId, reason: str) -> None: ...
    def on_signaling(self, down: str | None) -> None: ...
    def on_server_refused(self, server: str, reason: str) -> None: ...


class Reading(Protocol):
    def __call__(self, look: Callable[[], L], /) -> L: ...


class MembershipOwner(Protocol):
    """What a membership needs of the mesh around it."""

    def now(self) -> float: ...
    def link(self, peer: PeerId) -> Link | None: ...
    def ending(self, peer: PeerId) -> list[Link]: ...
    def dial(self, room: str, peer: PeerId) -> None: ...
    def unwant(self, room: str, peer: PeerId, reason: str) -> None: ...
    def suspect(self, peer: PeerId) -> None: ...
    def rearm(self) -> None: ...
    def on_mesh_envelope(self, room: str, origin: PeerId, envelope: str, carrier: PeerId) -> None: ...
    def on_hall_word(self, room: str, origin: PeerId, word: bytes) -> None: ...


@uninterrupted
class Membership:
    """Drives one `Node`: every call into it is followed by `pump()`, which carries its orders out and its news up."""

    def __init__(
        self, info: RoomInfo, tag: bytes, node: Node, gossip: GossipConfig, owner: MembershipOwner, sink: RoomSink,
        max_message_size: int, seals: Seals, secret: bytes = b"",
    ) -> None:  # fmt: skip
        """secret: that members of a locked room prove to each other to know."""
        self.info = info
        self.room = info.room
        self.secret = secret
        # From so many members on, the overlay may be partial: having no link to somebody is then no fault.
        self._full_mesh_max = gossip.full_mesh_max
        self.partial_from = gossip.full_mesh_max - gossip.full_mesh_hysteresis + 1
        self._silence_s = gossip.seat_hold_s
        self._partial_until = self._broadcast_at = -math.inf
        self._was_linked = False
        self.broadcast_max = gossip.broadcast_max_bytes
        self.signal_max = gossip.signal_max_bytes - SEAL_BYTES
        self._seals = seals
        self.tag = tag
        self.node = node
        self.sink = sink
        self.max_message_size = max_message_size
        self.max_players = gossip.max_players
        self._owner = owner
        self._drained = trio.lowlevel.ParkingLot()
        self._pumping = False
        # Bytes that the room holds of each author, by label of the channel, whichever link they came by
        self._unread: dict[PeerId, dict[str, int]] = {}
        self._held_back: dict[PeerId, list[gossip_events.Event]] = {}
        self._to_state: dict[
            PeerId, None
        ] = {}  # players of the room for whom there was no link, and who do not know it
        self._owed = Owed(tag, node.own_record.joined_at)
        self.closed = False
        # How what takes more than a look is read: by a call, or by a door on another thread over there.
        self.reading: Reading = lambda look: look()
        self.paused: str | None = None  # why, as we told the others

    # ------------------------------------------------------------------------------------------------- from the mesh

    def tell(self, act: Callable[[Node, float], object]) -> None:
        """One input for the node, then its consequences."""
        if not self.closed:
            act(self.node, self._owner.now())
            self.pump()

    def learn(self, encoded: Iterable[str]) -> None:
        """Records of members, as signaling carries them."""
        records = records_untrusted(encoded)
        self.tell(lambda node, now: node.learn(records, now))

    def pump(self) -> None:
        """Carry out what the node wants. Not re-entrant: a consequence that feeds the node is taken up by the loop."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while True:
                outputs = self.node.take_outputs()
                events = self.node.take_events()
                if not outputs and not events:
                    break
                for output in outputs:
                    self._carry_out(output)
                for event in events:
                    self._tell(event)
        finally:
            self._pumping = False
        self._owner.rearm()

    def _tell(self, event: gossip_events.Event) -> None:
        match event:
            case gossip_events.PeerSuspected(peer=peer):
                self._owner.suspect(peer)
            case gossip_events.PeerDiscovered(record=record):
                self._take_up_link(record.peer)
                self._meet(record.peer, record.joined_at)
            case gossip_events.PeerLeft(peer=peer, reason=reason) if reason in _FOR_GOOD:
                self._part(peer, superseded=reason == "superseded")
            case gossip_events.SignalReceived(origin=origin, blob=blob, carrier=carrier) if blob[:1] == ENVELOPE:
                self._owner.on_mesh_envelope(self.room, origin, blob[1:].decode("utf-8", "replace"), carrier)
                return
            case gossip_events.SignalReceived(origin=origin, blob=blob) if is_hall_word(blob):
                with suppress(ProtocolError):
                    self._owner.on_hall_word(self.room, origin, self.open_carried_untrusted(origin, blob)[1:])
                return
            case gossip_events.BroadcastReceived(origin=origin) if self._is_parting(origin):
                held = self._held_back.setdefault(origin, [])
                if len(held) < HELD_BACK_MAX:
                    held.append(event)
                    return
        if not self.closed:  # an eviction may have ended the room
            self.sink.on_gossip(event)
        if isinstance(event, gossip_events.PeerDiscovered):
            self._settle(event.record.peer)

    def _take_up_link(self, peer: PeerId) -> None:
        """Another room has a link to who was discovered: in a small room it is this one's, too, at once, whoever is to dial.
        The player may not have heard of us yet, and the room will speak to it."""
        if self.is_linked(peer) and not self.is_large and not self._has_in_node(peer):
            link = self._owner.link(peer)
            self.node.link_up(peer, self._owner.now(), None if link is None else link.rtt)

    def _has_in_node(self, peer: PeerId) -> bool:
        return any(view.peer == peer for view in self.topology().links)

    def _carry_out(self, output: gossip_events.Output) -> None:
        match output:
            case gossip_events.SendFrame(peer=peer, frame=frame, reliable=reliable):
                link = self._owner.link(peer)
                if link is not None:
                    link.send_frame(self.tag + frame, reliable=reliable)
            case gossip_events.Dial(peer=peer):
                self._owner.dial(self.room, peer)
            case gossip_events.CloseLink(peer=peer, reason=reason):
                self._owner.unwant(self.room, peer, reason)
                if (link := self._owner.link(peer)) is not None and link.entry.is_asleep:
                    self.link_parting(peer)

    # What the table of links tells this room.

    def link_up(self, peer: PeerId) -> None:
        link = self._owner.link(peer)
        self._was_linked = True
        self.tell(lambda node, now: node.link_up(peer, now, None if link is None else link.rtt))
        if self.paused is not None:
            self._tell_pause(peer)
        self.state_owed(peer)
        self.sink.on_link_open(peer)

    def pause(self, reason: str | None) -> None:
        """Tell everybody to whom we are linked that we are away, or (None) back; and who is linked later."""
        self.paused = reason
        for peer in self.node.members:
            self._tell_pause(peer)

    @contextmanager
    def pausing(self, reason: str, heartbeat: Heartbeat | None) -> Iterator[None]:
        """Away for as long as the block, though our loop stands still. `InvalidConfig` for a pause in a pause."""
        if self.paused is not None:
            raise InvalidConfig(f"the room is paused already: {self.paused!r}")
        self.pause(reason)
        try:
            with nullcontext() if heartbeat is None else heartbeat.patient(PAUSE_MAX_S):
                yield
        finally:
            if not self.closed:
                self.pause(None)

    def _tell_pause(self, peer: PeerId) -> None:
        if (link := self._owner.link(peer)) is not None:
            link.send_frame(pause_frame(self.tag, self.paused), reliable=True)

    def link_parting(self, peer: PeerId) -> None:
        """What was sent over it still comes, nothing more is sent: others carry that."""
        self.sink.on_link_gone(peer)
        self._drained.unpark_all()

    def link_down(self, peer: PeerId, reason: str) -> None:
        self.sink.on_link_gone(peer)
        self._drained.unpark_all()
        self.tell(lambda node, now: node.link_down(peer, reason, now))

    def peer_still(self, peer: PeerId, for_s: float) -> None:
        """The peer's loop stands still, for so long, and its process lives. Where its link sleeps the room has given it up:
        there it is gone until it speaks itself."""
        self.tell(lambda node, now: node.note_alive(peer, now))
        if for_s >= STILL_SHOWN_S:
            self.sink.on_peer_still(peer, True)

    def dial_failed(self, peer: PeerId, cause: str, error: Exception | None) -> None:
        if isinstance(error, RemoteError):
            self.sink.on_link_failed(peer, error)
        phase = error.phase if isinstance(error, ConnectFailed) else cause
        self.tell(lambda node, now: node.dial_failed(peer, phase, now))

    # What was sent, and did not come.

    def note_running(self, links: Iterable[Link]) -> None:
        """We enter the room while other rooms, or an earlier stay of ours, have these links: what they carried is not of it."""
        now = self._owner.now()
        for peer in {link.peer_id for link in links}:
            self._owed.part(peer, self._carried_by([link for link in links if link.peer_id == peer]), now)

    def _meet(self, peer: PeerId, stay: int) -> None:
        live = self._carried_by(self._links_of(peer, earlier=True))
        self._tell_lost(peer, self._owed.meet(peer, stay, live, self._owner.now()), ours=True)

    def _part(self, peer: PeerId, *, superseded: bool) -> None:
        self._to_state.pop(peer, None)
        live = self._carried_by(self._links_of(peer, earlier=superseded))
        self._tell_lost(peer, self._owed.part(peer, live, self._owner.now()), ours=True)

    def _links_of(self, peer: PeerId, *, earlier: bool) -> list[Link]:
        """earlier: only those that are not of a new stay."""
        newest = self._owner.link(peer)
        links = self._owner.ending(peer)
        return links if newest is None or (earlier and not newest.is_closing) else [newest, *links]

    def _is_parting(self, peer: PeerId) -> bool:
        """What it sent before over that link comes first."""
        link = self._owner.link(peer)
        return link is not None and link.is_parting

    def link_ended(self, link: Link) -> None:
        if not self.closed:
            for event in self._held_back.pop(link.peer_id, ()):
                self.sink.on_gossip(event)
            self._owed.link_ended(link.peer_id, self._carried_by([link]), self._owner.now())
            self._settle(link.peer_id)

    def missed(self, peer: PeerId, channel: str, *, told: bool) -> None:
        """A reliable message for a player of the room that goes by no link; `told`: our application knows."""
        self._owed.missed(peer, channel, self._owner.now(), told=told)
        self._to_state[peer] = None

    def state_owed(self, peer: PeerId) -> None:
        """What the player should have had by now from earlier links, so that it knows what it lacks."""
        self._to_state.pop(peer, None)
        ending = [self._carried_by([link]) for link in self._owner.ending(peer)]
        self._send_frames(peer, self._owed.statement(peer, ending))

    def owed_received(self, peer: PeerId, frame: bytes) -> None:
        """`ProtocolError` for what is not understood."""
        live = self._carried_by(self._links_of(peer, earlier=False))
        self._tell_lost(peer, self._owed.receive_untrusted(peer, frame, self._owner.now(), live), ours=True)
        self._settle(peer)

    def tell_dropped(self, peer: PeerId, losses: Losses) -> None:
        """Messages of the player came and found no room here: its side counts them, too."""
        self._send_frames(peer, self._owed.dropped(peer, losses))

    def tell_overdue(self) -> None:
        """Once a second: what is lost for good by now, and of what no link took, those who lack it."""
        for peer in [peer for peer in self._to_state if self.is_linked(peer)]:
            self.state_owed(peer)
        now = self._owner.now()
        if now >= self._owed.unsure_until:
            for peer, losses in self._owed.overdue(now):
                self._tell_lost(peer, losses, ours=True)

    def _settle(self, peer: PeerId) -> None:
        if self.knows(peer) and not self._owner.ending(peer):  # else the player, or last words, may still come
            losses, answer = self._owed.settle(peer)
            self._tell_lost(peer, losses, ours=False)
            self._send_frames(peer, answer)

    def _tell_lost(self, peer: PeerId, losses: Losses, *, ours: bool) -> None:
        if losses:
            self.sink.on_lost(peer, losses, ours=ours)

    def _send_frames(self, peer: PeerId, frames: Iterable[bytes]) -> None:
        if (link := self._owner.link(peer)) is not None:
            for frame in frames:
                link.send_frame(frame, reliable=True)

    def _carried_by(self, links: Iterable[Link]) -> dict[str, Carried]:
        """What they carried of this room, by channel."""
        prefix, carried = self.label(""), dict[str, Carried]()
        for link in links:
            for label, one in link.carried().items():
                if label.startswith(prefix):
                    name = label.removeprefix(prefix)
                    sent, came, unacknowledged = carried.get(name, Carried(0, 0, 0))
                    carried[name] = Carried(sent + one.sent, came + one.came, unacknowledged + one.unacknowledged)
        return carried

    # What the table of links asks.

    def knows(self, peer: PeerId) -> bool:
        return self.node.record(peer) is not None

    @property
    def knows_all(self) -> bool:
        return self.node.knows_all

    def end(self) -> None:
        """The room was left: what it holds is nobody's business on links that other rooms go on using."""
        self.closed = True
        self._drained.unpark_all()
        for peer, unread in self._unread.items():
            if (link := self._owner.link(peer)) is not None:
                for label, n_bytes in unread.items():
                    link.hold(-n_bytes, label)

    def drained(self) -> None:
        self._drained.unpark_all()

    # ------------------------------------------------------------------------------------------------- from the room

    def label(self, channel: str) -> str:
        return f"{self.tag.hex()}/{channel}"

    def send(
        self, peer: PeerId, config: DataChannelConfig, payload: bytes | str, *, reliable: bool, parts: bool = True
    ) -> SendOutcome:
        """Hand one message to the link of `peer`, at once. `config.label` is the full label of the channel. `parts`: who is
        too far behind loses its link, else only the message."""
        link = self._owner.link(peer)
        if link is None or link.state is not LinkState.OPEN or link.is_superseded or link.is_parting:
            return SendOutcome.NOT_CONNECTED
        if not reliable and link.entry.is_asleep:
            return SendOutcome.NOT_CONNECTED  # what is reliable waits in it
        if not reliable and link.buffered(config.label) > UNRELIABLE_BUDGET_BYTES:
            return SendOutcome.CONGESTED  # a late position is worth nothing, so it is not queued behind others
        try:
            link.send_message(config, payload)
        except WouldBlock:
            if not reliable:
                return SendOutcome.CONGESTED
            if parts:
                link.close("overflow")
            return SendOutcome.OVERFLOW
        except MessageTooLarge:
            return SendOutcome.TOO_LARGE
        except (ClosedError, RemoteError):  # it ended a moment ago: its task is about to say so
            return SendOutcome.NOT_CONNECTED
        except (InvalidConfig, UnserialisableMessage):
            raise  # the caller's doing, whoever the peer is
        except LocalError:  # the peer takes no more streams: its link serves no room
            link.close("misbehaving")
            return SendOutcome.NOT_CONNECTED
        return SendOutcome.SENT

    def send_to_each(
        self, peers: Iterable[PeerId], config: DataChannelConfig, payload: bytes | str, *, reliable: bool
    ) -> dict[PeerId, SendOutcome]:
        """One pass over the links, which is what a tick of a game is; why it was not sent to whom."""
        link_of, label = self._owner.link, config.label
        skipped: dict[PeerId, SendOutcome] = {}
        for peer in peers:
            link = None if reliable else link_of(peer)
            if link is not None and not link.entry.is_asleep and link.send_express(label, payload):
                continue
            outcome = self.send(peer, config, payload, reliable=reliable)
            if outcome is not SendOutcome.SENT:
                skipped[peer] = outcome
        return skipped

    def broadcast(self, payload: bytes) -> None:
        """To every member over the overlay, linked or not, in order; at most `broadcast_max` bytes."""
        self._broadcast_at = self._owner.now()
        self._owed.broadcasts += 1
        self.tell(lambda node, now: node.broadcast(payload, now))

    @property
    def broadcasts_sent(self) -> int:
        """In this stay: nobody can lack more of them, whatever it says."""
        return self._owed.broadcasts

    def send_signal(self, peer: PeerId, blob: bytes) -> None:
        """To one member, through others where there is no link; it may be lost. At most `signal_max` bytes. An envelope is
        sealed already, a message or a word of a hall is sealed here."""
        if blob[:1] in (CHANNEL_MESSAGE, HALL_WORD):
            record = self.node.record(peer)
            if record is None:
                return  # it left a moment ago, and what is sealed for this stay of it is of no use to a later one
            blob = self._seals.seal(record, self.node.own_record.epoch, blob)
            self._owed.carried += 1
        self.tell(lambda node, now: node.send_signal(peer, blob, now))

    def open_carried_untrusted(self, origin: PeerId, blob: bytes) -> bytes:
        """What a member sent us alone through others, or `ProtocolError` when it did not."""
        record = self.node.record(origin)
        if record is None:
            raise ProtocolError("a message of nobody here")
        return self._seals.open_untrusted(record, blob)

    @property
    def last_words_s(self) -> float:
        """Until what was broadcast so far is at the last hop, about. A goodbye takes shorter ways and would overtake it."""
        return self._broadcast_at + CARRIED_S - self._owner.now()

    def topology(self) -> Topology:
        return self.node.topology(self._owner.now())

    def has_room(
        self, peers: Iterable[PeerId], silent: Iterable[PeerId], label: str, budget: int, *, carried: bool
    ) -> bool | None:
        """Whether at least one of the peers that are linked has no more than `budget` bytes waiting on that channel, and no
        more than the link's share on all of them; None: nobody is linked. While all are silent it is they who count: what is
        sent waits in their links. If others carry it on (`carried`) the share is smaller, and half of our branches of the
        tree must be ready: the rest of the room hangs on them."""
        most = CARRIED_BUDGET_BYTES if carried else LINK_BUDGET_BYTES
        links = self._branches() if carried else self._open_links(peers) or self._open_links(silent)
        ready = sum(link.buffered(label) <= budget and link.waiting <= most for link in links)
        return ready >= (len(links) / 2 if carried else 1) if links else None

    async def wait_drained(self) -> None:
        """Until there may be room. A channel tells when it has drained; all together do not."""
        with trio.move_on_after(_LOOK_AGAIN_S):
            await self._drained.park()

    def is_congested(self, *, reliable: bool) -> bool:
        """So much waits on every branch of ours that what others carry would come far too late."""
        links = self._branches()
        most = LINK_BUDGET_BYTES if reliable else 2 * CARRIED_BUDGET_BYTES
        return bool(links) and all(link.waiting > most for link in links)

    def message_limit(self, peer: PeerId) -> int | None:
        """Bytes of the largest message that this peer takes over a link; None without one."""
        links = self._open_links([peer])
        return min(self.max_message_size, links[0].message_max) if links else None

    def _branches(self) -> list[Link]:
        return self._open_links(view.peer for view in self.topology().links if view.eager)

    def _open_links(self, peers: Iterable[PeerId]) -> list[Link]:
        return [link for link in map(self._owner.link, peers) if link and link.state is LinkState.OPEN]

    @property
    def is_partial(self) -> bool:
        """The room is so large that others carry what we send, and we are linked to some of them. Or it was, not long ago:
        who is silent beyond a cut gets all of it in one stream, or the words of the cut would come by other ways, or never."""
        now = self._owner.now()
        if self.is_large:
            self._partial_until = now + self._silence_s
        return now < self._partial_until and self.has_links

    @property
    def is_large(self) -> bool:
        """There may be members at this moment whom we are not meant to have a link to."""
        n_members = self.node.n_members
        return n_members >= self.partial_from and (n_members > self._full_mesh_max or not self.node.links_all)

    @property
    def is_cut_off(self) -> bool:
        """In a large room, we have lost every link: who comes back carries to all."""
        return self._was_linked and not self.node.has_links and self.is_large

    def impaired(self) -> list[PeerId]:
        """Whose links do not carry now, perhaps one way only, whoever else may reach them."""
        return [view.peer for view in self.topology().links if view.impaired]

    @property
    def has_links(self) -> bool:
        """Anybody to carry what we send."""
        return self.node.has_links

    def is_linked(self, peer: PeerId) -> bool:
        link = self._owner.link(peer)
        if link is None or link.state is not LinkState.OPEN:
            return False
        return not (link.entry.is_asleep or link.is_superseded or link.is_parting)

    def is_heard(self, peer: PeerId) -> bool:
        """More may come from it over a link of ours."""
        return self.is_linked(peer) and not self.node.is_suspected(peer)

    def hold(self, peer: PeerId, label: str, size: int) -> None:
        """The room holds `size` bytes more (or fewer) of this peer on the channel of that label that nobody has read."""
        unread = self._unread.setdefault(peer, {})
        unread[label] = unread.get(label, 0) + size
        if not unread[label]:
            del unread[label]
        if not unread:
            del self._unread[peer]
        link = self._owner.link(peer)
        if link is not None and not self.closed:
            link.hold(size, label)

    def release(self, peer: PeerId, label: str, size: int) -> None:
        self.hold(peer, label, -size)

    def unread(self, peer: PeerId) -> int:
        """Bytes of this peer that nobody has read."""
        return sum(self.unread_of(peer).values())

    def unread_of(self, peer: PeerId) -> Mapping[str, int]:
        """The same by label of the channel."""
        return self._unread.get(peer, {})

    def waiting(self, peer: PeerId) -> int:
        """Bytes that were sent to this peer and have not left, on all channels of its link."""
        link = self._owner.link(peer)
        return 0 if link is None else link.waiting

    def buffered(self, peer: PeerId, label: str) -> int:
        """The same of one channel."""
        link = self._owner.link(peer)
        return 0 if link is None else link.buffered(label)

    def path(self, peer: PeerId) -> Path | None:
        link = self._owner.link(peer)
        return None if link is None else link.path

    def rtt(self, peer: PeerId) -> float | None:
        """Seconds. The probes of gossip are answered at once, SCTP's acknowledgements may be held back to save packets."""
        rtt = self.node.rtt(peer)
        if rtt is not None:
            return rtt
        link = self._owner.link(peer)
        return None if link is None else link.rtt

    def link_stats(self, peer: PeerId) -> PeerStats | None:
        def looked_up() -> PeerStats | None:
            link = self._owner.link(peer)
            return None if link is None else link.stats

        return self.reading(looked_up)


# Unreliable messages are dropped at the sender once so much waits: 50 ms at 40 Mbit/s.
UNRELIABLE_BUDGET_BYTES = 256 * 1024
