"""Obeys the table of links: makes the links that it starts, tells it what became of them, and the rooms what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

import trio

from psyne_mesh.errors import ProtocolError, RemoteError
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.alarms import Carrier
from psyne_mesh.mesh.envelopes import Envelopes, Tampering
from psyne_mesh.mesh.link import PARTED, PARTING, ChannelRoute, Link, LinkState
from psyne_mesh.mesh.link_table import DialFailed, HangUp, LinkDown, LinkTable, LinkUp, SleepLink, StartLink, TableLink
from psyne_mesh.mesh.membership import CHANNEL_NAME_BYTES_MAX, TAG_BYTES, Membership
from psyne_mesh.mesh.owed import OWED_TAG, room_untrusted
from psyne_mesh.mesh.pause import PAUSE_TAG, pause_untrusted
from psyne_mesh.mesh.profile import takes_tunnels
from psyne_mesh.mesh.signaling_rung import SignalingRung
from psyne_mesh.mesh.tunnels import SIGNAL_PREFIX, TUNNEL_TAG, PeerTunnel, Tunnels, signal_of, signal_untrusted
from psyne_mesh.mesh.turns import Speaker, Turns
from psyne_mesh.signaling.envelope import Envelope, Untimely
from psyne_mesh.webrtc.endpoint import Endpoint

LABEL_CHARS_MAX = 2 * TAG_BYTES + 1 + CHANNEL_NAME_BYTES_MAX  # of a room's channel: tag, slash and name
_CLOSE_S = 2.0  # so long may all links together take to say goodbye; more than `link.FLUSH_S`, which each takes


@uninterrupted
class LinkDriver:
    """The owner of all links. 1. `turn()` after every word to `table`; 2. `deliver(...)` for what signaling or members bring;
    3. `links` are the links that there are; `close()` ends them. Its tasks, one a link, are `nursery`'s;
    `on_turned` is called after each turn.
    """

    def __init__(
        self, me: PeerId, table: LinkTable, endpoint: Endpoint, envelopes: Envelopes, rooms: Mapping[str, Membership],
        by_tag: Mapping[bytes, Membership], nursery: trio.Nursery, on_turned: Callable[[], None],
    ) -> None:  # fmt: skip
        self.links: dict[PeerId, Link] = {}
        self._ended = trio.lowlevel.ParkingLot()
        self._me = me
        self._table = table
        self._endpoint = endpoint
        self._envelopes = envelopes
        self._rooms = rooms
        self._by_tag = by_tag
        self._nursery = nursery
        self._on_turned = on_turned
        self._tunnels = Tunnels(me, self.links, trio.current_time)
        self._rung = SignalingRung(trio.current_time())
        self._draining_rung = False
        self._turns = Turns()
        self._hearing_on = False
        self._running: dict[TableLink, Link] = {}  # those that were superseded, too, until they are gone
        self._turning = False

    def turn(self) -> None:
        """Carry out what the table wants. What a room does in answer is taken up by the same loop."""
        self._obey_all()
        if self._turning:
            return
        self._turning = True
        try:
            while events := self._table.take_events():
                for event in events:
                    self._tell(event)
                self._obey_all()
        finally:
            self._turning = False
        self._on_turned()

    def _obey_all(self) -> None:
        for output in self._table.take_outputs():
            self._obey(output)

    def _obey(self, output: StartLink | HangUp | SleepLink) -> None:
        match output:
            case StartLink(link=entry):
                self._start(entry)
            case HangUp(link=entry, reason=reason):
                if (link := self._running.get(entry)) is not None:
                    link.close(reason)
            case SleepLink(link=entry):
                if (link := self._running.get(entry)) is not None:
                    link.suspect()

    def _tell(self, event: LinkUp | LinkDown | DialFailed) -> None:
        membership = self._rooms.get(event.room)
        if membership is None:
            return  # it has ended since
        match event:
            case LinkUp(peer=peer):
                membership.link_up(peer)
            case LinkDown(peer=peer, reason=reason):
                membership.link_down(peer, reason)
            case DialFailed(peer=peer, cause=cause, error=error):
                membership.dial_failed(peer, cause, error)

    def _start(self, entry: TableLink) -> None:
        peer, session = entry.peer, entry.session
        tunnel = PeerTunnel(
            peer, self._me, now=trio.current_time, signal=self._send_by_signaling,
            signals_per_s=lambda: self._rung.rate_of(trio.current_time()),
            links=lambda: [link for link in self.links.values() if link.peer_id != peer],
        )  # fmt: skip
        can_tunnel = all(
            takes_tunnels(room.node.record(peer) or room.node.hinted(peer)) for room in self._rooms.values()
        )
        link = Link(
            entry, endpoint=self._endpoint, owner=self, tunnel=tunnel if can_tunnel else None,
            post=lambda kind, sequence, body: self._envelopes.post(peer, kind, session, sequence, body),
        )  # fmt: skip
        self.links[peer] = self._running[entry] = link
        self._nursery.start_soon(link.run, name=f"link to {peer.short}")

    @property
    def running(self) -> Collection[Link]:
        return self._running.values()

    def ending(self, peer: PeerId) -> list[Link]:
        """Links of the peer that were superseded and still flush."""
        return [link for link in self._running.values() if link.peer_id == peer and self.links.get(peer) is not link]

    async def drain(self, peers: Collection[PeerId]) -> None:
        """Until these have acknowledged what was sent reliably so far."""
        async with trio.open_nursery() as nursery:
            for peer, link in list(self.links.items()):
                if peer in peers:
                    nursery.start_soon(link.drain)

    async def close(self) -> None:
        """Each link flushes its goodbye; a peer that does not answer must not hold us."""
        self._table.hang_up_all()
        self.turn()
        with trio.move_on_after(_CLOSE_S):
            while self.links:
                await self._ended.park()

    def suspect(self, peer: PeerId) -> None:
        """Perhaps it is only the path that has gone."""
        if (link := self.links.get(peer)) is not None:
            link.suspect()

    def heartbeat(self, number: int) -> None:
        """Our loop stands still: tell all peers that we live. Called in another thread, while nobody changes anything here."""
        for link in list(self.links.values()):
            link.heartbeat(number)

    def note_signaling(self) -> None:
        """Signaling is back: what was posted while it was gone is lost."""
        for link in self.links.values():
            link.note_signaling()

    def network_changed(self, gone: bool) -> None:
        """This machine has other addresses, or (`gone`) has lost one."""
        for link in list(self.links.values()):
            link.network_changed(gone)

    def refused(self, room: str | None, peer: PeerId | None) -> None:
        """The server did not pass on what we said to the peer."""
        self._envelopes.refused(room, peer)

    def _send_by_signaling(self, peer: PeerId, datagrams: Sequence[bytes]) -> None:
        """The last rung of the ladder, at the pace that the server told."""
        now = trio.current_time()
        self._rung.set_rate(self._envelopes.signals_per_s, now)
        self._rung.add(peer, datagrams, now)
        self._post_rung(now)
        if self._rung.next_timeout() < math.inf and not self._draining_rung:
            self._draining_rung = True
            self._nursery.start_soon(self._drain_rung)

    async def _drain_rung(self) -> None:
        """While anything waits: at most for as long as it would be in time."""
        while (due := self._rung.next_timeout()) < math.inf:
            await trio.sleep_until(due)
            self._post_rung(trio.current_time())
        self._draining_rung = False

    def _post_rung(self, now: float) -> None:
        for peer, datagrams in self._rung.take(now):
            self._envelopes.post_tunnelled(peer, signal_of(datagrams, self._envelopes.told_ms()))

    # ------------------------------------------------------------------------------------------ from signaling or members

    def deliver(self, membership: Membership, claimed: PeerId, text: str, carrier: Carrier) -> None:
        """A signal of `claimed`, or so `carrier` says (None: the server; `claimed` itself, where that is proved): an envelope,
        or datagrams of a tunnel."""
        is_hearsay = carrier not in (None, claimed)
        if claimed == self._me or (is_hearsay and not self._table.hears_over_mesh(membership.room, claimed)):
            return
        if text.startswith(SIGNAL_PREFIX):
            with suppress(ProtocolError):
                datagrams, sent_ms = signal_untrusted(text)
                now_ms = self._envelopes.told_ms()
                age_s = None if sent_ms is None or now_ms is None else (now_ms - sent_ms) / 1000
                self._tunnels.deliver(claimed, datagrams, None, age_s)
            return
        opened = self._envelopes.open_untrusted(membership, claimed, text, carrier)
        if isinstance(opened, Tampering):
            if carrier is None and (link := self.links.get(claimed)):
                link.tampering = opened.reason
        elif isinstance(opened, Untimely):
            link = self.links.get(claimed)
            if link is not None and link.session == opened.envelope.session:
                link.hear_untimely(opened)
            else:
                self._envelopes.answer_untimely(opened)
        elif opened is not None:
            self._route(opened)
            self.turn()

    def _route(self, envelope: Envelope) -> None:
        link = self.links.get(envelope.sender)
        if link is not None and link.session == envelope.session:
            self._table.envelope_received(link.entry, envelope.expires_at_ms)
            link.hear(envelope)
        elif envelope.kind == "offer":
            now = trio.current_time()
            if self._table.offer_received(envelope.sender, envelope.session, envelope.expires_at_ms, now):
                self._obey_all()
                link = self.links[envelope.sender]
                self._table.envelope_received(link.entry, envelope.expires_at_ms)
                link.hear(envelope)
            elif link is not None and link.offerer and link.state is LinkState.DIALING:
                self._envelopes.repeat(envelope.sender)  # our offer stands (glare), if only the peer hears it

    # ------------------------------------------------------------------------------------------ LinkOwner, for links

    def on_link_open(self, link: Link) -> None:
        for membership in self._rooms.values():
            for label, n_bytes in membership.unread_of(link.peer_id).items():
                link.hold(n_bytes, label)
        self._table.opened(link.entry)
        self.turn()
        self._envelopes.link_opened(link.peer_id)

    def on_link_revived(self, link: Link) -> None:
        self._table.revived(link.entry)
        self.turn()

    def on_still(self, link: Link, for_s: float) -> None:
        for room in self._table.rooms_of(link.peer_id):
            self._rooms[room].peer_still(link.peer_id, for_s)

    def on_turns_again(self, link: Link) -> None:
        for room in self._table.rooms_of(link.peer_id):
            self._rooms[room].sink.on_peer_still(link.peer_id, False)

    def on_link_closing(self, link: Link, reason: str) -> None:
        self._table.closing(link.entry, reason)

    def on_link_parting(self, link: Link) -> None:
        for room in self._table.rooms_of(link.peer_id):
            self._rooms[room].link_parting(link.peer_id)

    def on_link_gone(self, link: Link, reason: str, error: RemoteError | None) -> None:
        del self._running[link.entry]
        if self.links.get(link.peer_id) is link:
            self._hear_rest(link.peer_id)
            del self.links[link.peer_id]
            self._ended.unpark_all()
        for membership in self._rooms.values():
            membership.link_ended(link)
        self._table.gone(link.entry, reason, error)
        self.turn()

    def on_drained(self, link: Link) -> None:
        for membership in self._rooms.values():
            membership.drained()

    def on_frame(self, link: Link, data: bytes) -> None:
        if data.startswith(TUNNEL_TAG):
            self._tunnels.receive(link, data)
            return
        membership = self._by_tag.get(data[:TAG_BYTES])
        if membership is not None:
            speaker, frame = (data[:TAG_BYTES], link.peer_id), data[TAG_BYTES:]
            if self._turns.may_hear(speaker, frame):
                self._hear(speaker, frame)
        elif data.startswith(PAUSE_TAG):
            with suppress(ProtocolError):
                tag, reason = pause_untrusted(data)
                if (paused := self._by_tag.get(tag)) is not None:
                    paused.sink.on_pause(link.peer_id, reason)
        elif data in (PARTING, PARTED):
            link.hear_parting(data)
        elif data.startswith(OWED_TAG):
            with suppress(ProtocolError):
                if (concerned := self._by_tag.get(room_untrusted(data))) is not None:
                    concerned.owed_received(link.peer_id, data)

    def _hear(self, speaker: Speaker, frame: bytes) -> None:
        tag, peer = speaker
        if (membership := self._by_tag.get(tag)) is None:
            return  # left since
        before = membership.node.work
        membership.tell(lambda node, now: node.receive(peer, frame, now))
        if units := membership.node.work - before:
            self._turns.spend(units)
            if not self._hearing_on:
                self._hearing_on = True
                self._nursery.start_soon(self._hear_on)

    async def _hear_on(self) -> None:
        """From turn to turn of the loop, for as long as anything waits."""
        try:
            await trio.lowlevel.checkpoint()
            while self._turns.begin():
                for speaker, frame in self._turns.waiting():
                    self._hear(speaker, frame)
                await trio.lowlevel.checkpoint()
        finally:
            self._hearing_on = False

    def _hear_rest(self, peer: PeerId) -> None:
        """Its link is gone; what it said by it comes before that."""
        for tag in list(self._by_tag):
            for frame in self._turns.rest((tag, peer)):
                self._hear((tag, peer), frame)

    def route_of(self, label: str) -> ChannelRoute | None:
        """None: not a channel of a room, so nobody here reads it."""
        if len(label) > LABEL_CHARS_MAX:
            return None  # of 64 KiB
        tag, _, name = label.partition("/")
        try:
            route = ChannelRoute(bytes.fromhex(tag), name)
        except ValueError:
            return None
        return route if 1 <= len(name.encode()) <= CHANNEL_NAME_BYTES_MAX else None

    def on_channel_types(self, link: Link, route: ChannelRoute, protocol: str) -> None:
        membership = self._by_tag.get(route.tag)
        if membership is not None:
            membership.sink.on_types(link.peer_id, route.name, protocol)

    def on_channel_message(self, link: Link, route: ChannelRoute, data: bytes | str) -> None:
        membership = self._by_tag.get(route.tag)
        if membership is not None:
            membership.sink.on_message(link.peer_id, route.name, data)
