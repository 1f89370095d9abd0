"""DTLS, SCTP and data channels joined into one sans-IO object: the one file that knows both DTLS and SCTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import attrs

from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.errors import ClosedError, PeerGone, ProtocolError, PsyneMeshError
from psyne_mesh.webrtc import dtls, sctp
from psyne_mesh.webrtc.channel import (
    Channel,
    ChannelEvent,
    ChannelStats,
    MessageReceived,
)
from psyne_mesh.webrtc.channel_table import ChannelLimits, ChannelTable
from psyne_mesh.webrtc.credit import Credits
from psyne_mesh.webrtc.express import (
    EXPRESS,
    LATE_S,
    PHASE_MASK,
    PHASES,
    TEXT,
    VERSION,
    WINDOW_MIN,
    Express,
    ExpressStats,
    is_next,
)

if TYPE_CHECKING:
    import random

Phase: TypeAlias = Literal["new", "dtls", "sctp", "connected", "closed"]

_EARLY_DATAGRAMS_MAX = 16  # kept before `start`, newest dropped: a ClientHello with post-quantum keys takes 2
# aiortc sends a message when the last one is acknowledged, so RFC 9260's 200 ms let it send five a second, of any size.
# 20 ms is libdatachannel's; it is above the tick of a game at 60 Hz, whose acknowledgements travel with its data.
_ACK_DELAY_S = 0.02
_RTO_MAX_S = 3.0  # Pion's RTO cap for WebRTC
# Of UDP payload: what every path carries (RFC 791: 576 bytes, less 28 of headers and 8 of a relay)
_HANDSHAKE_BYTES_MAX = 540
_PATH_BYTES = 1200  # of UDP payload: what nearly every path carries (RFC 8831 section 5)
_RECORD_OVERHEAD = 37  # bytes: record header 13, explicit nonce 8, tag 16 (RFC 6347 section 4.1, RFC 5288)
_RECORD_MAX = 16_384  # bytes of plaintext in one record (RFC 6347 section 4.1.1), whatever the path carries
_LIMITS = ChannelLimits()
# While the peer is silent for longer than this, SCTP carries all but one message in as much time: it knows how to find out
# whether somebody is there, and gives up when it must.
_SILENT_S = 1.0


@attrs.frozen(kw_only=True)
class StackConfig:
    """What a stack is built from. Sizes in bytes; `path_mtu_max` counts the payload of UDP.

    gives_up: end when the peer acknowledges nothing through ten retransmissions (RFC 9260 section 8.1). Without it, whether
        the peer is still there is for the heartbeats above to say, as in libwebrtc, and a long silence loses nothing.
    """

    max_message_size: int = 262_144
    receive_window_bytes: int = 4 * 2**20
    path_mtu_max: int = 65_507
    limits: ChannelLimits = _LIMITS
    gives_up: bool = True
    dtls_versions: tuple[dtls.Version, ...] = ("1.3", "1.2")
    dtls_fast_records: bool = True
    express_lane: bool = True

    @classmethod
    def of(cls, config: WebRTCConfig) -> StackConfig:
        return cls(
            max_message_size=config.max_message_size,
            receive_window_bytes=config.receive_window_bytes,
            path_mtu_max=config.path_mtu_max,
            dtls_versions=config.dtls_versions,
            dtls_fast_records=config.dtls_fast_records,
            express_lane=config.express_lane,
        )


class DtlsConnected(NamedTuple):
    """The handshake is through and the peer's certificate has the signaled fingerprint. SCTP starts now."""

    cipher: str
    version: str


class SctpConnected(NamedTuple):
    """The association stands; the channels created so far open with the events that follow."""


class PathRevived(NamedTuple):
    """The path below has come back after a silence: what waited goes out with the next retransmission."""


class PeerStandsStill(NamedTuple):
    """The peer's loop does not turn, and its process lives."""


class StackClosed(NamedTuple):
    """The last event. `error` says why: `ClosedError` after our own close, `PeerGone` when the peer closed or fell silent,
    `FingerprintMismatch` or `ProtocolError` when DTLS failed. Every channel has been closed before."""

    error: PsyneMeshError
    by_peer: bool


StackEvent: TypeAlias = DtlsConnected | SctpConnected | PathRevived | PeerStandsStill | StackClosed | ChannelEvent


@attrs.frozen(kw_only=True)
class StackStats:
    """A snapshot. `unread_bytes` is what the application has not taken yet, as it told with `set_unread`; `express` is
    None where SCTP carries everything."""

    phase: Phase
    dtls: dtls.DtlsStats | None
    sctp: sctp.SctpStats
    channels: tuple[ChannelStats, ...]
    messages_discarded: int
    express: ExpressStats | None
    unread_bytes: int
    buffered_bytes: int
    outstanding_bytes: int


class Stack:
    """Everything of one peer connection above ICE.

    1. `create_channel` at any time.
    2. When ICE has a path and the peer's description is known: `start`.
    3. Any input: `receive` with a batch of datagrams, `handle_timeout`, `send`, `close_channel`, `set_unread`, `close`.
    4. After an input, or after several: send what `datagrams_to_send` returns, then drain `take_events`, then arm the timer
       with `next_timeout`. Once per batch: acknowledgements and small messages share datagrams.
    5. `StackClosed` is the end; send the last datagrams, and drop the stack.

    Bytes from outside never raise; what is wrong with them is dropped and counted, or ends in `StackClosed`.
    """

    def __init__(self, config: StackConfig, certificate: dtls.Certificate, *, rng: random.Random) -> None:
        self.config = config
        self.phase: Phase = "new"
        self.last_received_at: float | None = None  # when an authentic packet came last
        self._certificate = certificate
        self._dtls: dtls.Session | None = None
        sctp_config = _sctp_config(config, 0)
        self._sctp_handshake = sctp.Handshake(sctp_config, rng)
        self._association = sctp.Association(sctp_config, rng=rng, handshake=self._sctp_handshake)
        self._channels = ChannelTable(config.limits)
        self._rng = rng
        self._events: list[StackEvent] = []
        self._early: list[bytes | memoryview] = []
        self._farewell: list[bytes] = []
        self._unread = self._early_told = 0
        self._path_is_fixed = False
        self._express: Express | None = None
        self._express_refused = 0
        self._knocked_at = 0.0

    def start(
        self,
        *,
        is_client: bool,
        remote_fingerprints: Sequence[dtls.Fingerprint],
        remote_max_message_size: int,
        remote_max_datagram_size: int = 0,
        remote_express: int = 0,
        remote_sctp_init: bytes = b"",
        dtls_versions: Sequence[dtls.Version] = (),
        rtt_s: float | None = None,
        leaves_low_ids: bool = False,
        is_embedded: bool = False,
        now: float,
    ) -> None:
        """Begins DTLS; the client's ClientHello is ready to send.

        remote_max_message_size: bytes; 0 means any size.
        remote_max_datagram_size: bytes of UDP payload that the peer says it can take; 0 when it says nothing.
        remote_express: the version of the express lane that the peer knows, 0 for none.
        remote_sctp_init: the INIT chunk of the peer's description, if ours went with our own: then the association stands
            as soon as DTLS does. It has passed `read_init_untrusted`.
        dtls_versions: those that the descriptions leave; none: those of the configuration. A client speaks the highest only.
        rtt_s: of the path, as far as ICE knows it. leaves_low_ids: see `ChannelTable.start`. is_embedded: the handshake travels
            inside checks of ICE, which are small.
        """
        if self.phase != "new":
            raise ClosedError("a stack is started once, before it is closed")
        self.phase = "dtls"
        if remote_express == VERSION and self.config.express_lane:
            self._express = Express()
        sctp_config = _sctp_config(self.config, remote_max_datagram_size)
        self._association = sctp.Association(sctp_config, rng=self._rng, handshake=self._sctp_handshake)
        self._association.set_path_fixed(self._path_is_fixed)
        if rtt_s is not None:
            self._association.note_rtt(rtt_s)
        if remote_sctp_init:
            self._association.agree(sctp.read_init_untrusted(remote_sctp_init), now)
        credits = Credits(self.config.receive_window_bytes, self.config.max_message_size)
        self._channels.start(
            self._association,
            is_dtls_client=is_client,
            max_message_size=min(self.config.max_message_size, remote_max_message_size or 2**63),
            leaves_low_ids=leaves_low_ids,
            credits=credits if remote_max_datagram_size else None,  # who says that is one of us
        )
        self._dtls = dtls.DtlsSession(
            self._certificate,
            is_client=is_client,
            remote_fingerprints=remote_fingerprints,
            versions=dtls_versions or self.config.dtls_versions,
            fast_records=self.config.dtls_fast_records,
            mtu=_HANDSHAKE_BYTES_MAX,
            mtu_13=dtls.EMBEDDED_MTU if is_embedded else _PATH_BYTES,
            rtt_s=rtt_s,
        )
        self._dtls.start(now)
        early, self._early = self._early, []
        self.receive(early, now)

    # ----------------------------------------------------------------------------------------------------------- input

    def drop_spare(self, datagrams: list[bytes]) -> list[bytes]:
        """We are behind: those that are left when the newest spare one stands for all before it, none of which is opened."""
        kept = dtls.newest_spare_untrusted(datagrams)
        self._channels.messages_discarded += len(datagrams) - len(kept)  # of one message each, as a rule
        return kept

    def receive(self, datagrams: Sequence[bytes | memoryview], now: float) -> bool:
        """A batch of datagrams from the path. What comes before `start` is kept, within bounds. True: nothing but express
        records came, so there is nothing to send but what `express_to_send` has."""
        session = self._dtls
        if session is None:
            room = _EARLY_DATAGRAMS_MAX - len(self._early)
            self._early += [bytes(datagram) for datagram in datagrams[:room]]
            return False
        if self.phase == "closed":
            return False
        deliver, express = self._association.receive, self._express
        packets = session.receive(datagrams[0], now) if len(datagrams) == 1 else session.receive_many(datagrams, now)
        newest = n_express = 0
        express_only = len(packets) == len(datagrams)
        for packet in packets:
            self.last_received_at = now
            if express is not None and packet and packet[0] == EXPRESS:
                newest = len(self._events)
                self._receive_express(express, packet, now)
                n_express += 1
            else:
                express_only = False
                deliver(packet, now)
        if n_express > 1 and express is not None and express.excess_s > LATE_S:
            self._drop_late(newest)
        if express_only:
            return True
        self._collect(now)
        return False

    def handle_timeout(self, now: float) -> None:
        if self._dtls is not None and self.phase != "closed":
            self._dtls.handle_timeout(now)
            self._association.handle_timeout(now)
            if self._express is not None:
                self._express.handle_timeout(now)
            self._collect(now)

    def set_bulk_allowance(self, n_bytes: float | None) -> None:
        """Bytes of bulk that the next `datagrams_to_send` may hold; None for no limit but the windows."""
        self._association.set_bulk_allowance(n_bytes)

    def set_path_fixed(self, fixed: bool) -> None:
        """Whether what carries the datagrams can never come to carry only smaller ones."""
        self._path_is_fixed = fixed
        self._association.set_path_fixed(fixed)

    def path_changed(self, now: float, *, carries: bool = True) -> None:
        """Datagrams go another way from now on, or arrive again: what was lost is repeated at once. `carries`: else it is only
        asked whether they do."""
        if self._dtls is not None and self.phase == "connected":
            self._association.path_changed(now, carries=carries)
            if self._express is not None:
                self._express.path_changed(now)
            self.handle_timeout(now)

    def create_channel(self, config: DataChannelConfig, now: float) -> Channel:
        """A channel in state "connecting", or "open" when the association stands. Raises `InvalidConfig`."""
        if self.phase == "closed":
            raise ClosedError("the connection is closed")
        return self._channels.create(config, now)

    def send(self, channel: Channel, data: str | bytes | bytearray | memoryview, now: float) -> bool:
        """Queues one message. Raises a `LocalError` and changes nothing when it cannot. True: `express_to_send` has it, and
        there is nothing else to send because of it."""
        if channel.max_retransmits == 0 and self._express is not None:
            if self._send_express(self._express, channel, data, now):
                return True
            # The two ways know no order among each other; and what was too much for the lane stays where there is back-pressure
            channel.express = channel.express and channel.unordered and channel.thins
        self._channels.send(channel, data, now)
        return False

    def close_channel(self, channel: Channel, now: float) -> None:
        """Closes after what is queued on it has gone out. `ChannelClosed` tells when the peer has closed too."""
        self._channels.close(channel, now)

    def set_unread(self, n_bytes: int, now: float) -> None:
        """How many bytes of `MessageReceived` events the application still holds, of all channels; `Channel.unread` has those
        of each. They shrink the window we offer, as far as they are not within their channel's credit."""
        self._unread = n_bytes
        self._early_told = self._channels.early_bytes
        self._association.set_unread(max(0, n_bytes - self._channels.note_unread()) + self._early_told, now)

    def close(self, now: float, error: PsyneMeshError | None = None) -> None:
        """Ends everything at once: what is queued is lost, and the peer is told by ABORT and close_notify."""
        if self.phase != "closed":
            self._finish(error or ClosedError("the connection was closed on this side"), by_peer=False, now=now)

    # ---------------------------------------------------------------------------------------------------------- output

    def datagrams_to_send(self, now: float) -> list[bytes]:
        session = self._dtls
        if session is None:
            return []
        datagrams = session.datagrams_to_send(now)
        if self._farewell:
            datagrams = self._farewell + datagrams
            self._farewell = []
        self._channels.send_credits(now)
        packets = self._association.packets_to_send(now) if self.phase in ("connected", "sctp") else []
        if self._express is not None and self.phase == "connected":
            packets += self._express.records_to_send(now)
        if packets:
            sealed = session.send(packets)
            self._collect(now)  # handing data to the network can bring a buffer to its low-water mark
            return session.joined(datagrams, sealed) if datagrams else sealed
        return datagrams

    def handshake_to_send(self, now: float) -> list[bytes]:
        """What DTLS alone has to say, of `datagrams_to_send`: before there is a path that could carry more."""
        return [] if self._dtls is None else self._dtls.datagrams_to_send(now)

    def set_express_interval(self, seconds: float) -> None:
        """Between the frames of a game that may leave, as our own loop is behind; 0 for none."""
        if self._express is not None:
            self._express.own_interval_s = seconds

    def express_to_send(self, now: float) -> list[bytes]:
        """The datagrams of the express lane alone; `datagrams_to_send` has them, too."""
        if self._express is None or self._dtls is None or self.phase != "connected":
            return []
        records = self._express.records_to_send(now)
        return self._dtls.send(records, spare=self._express.is_spare) if records else records

    @property
    def express_timeout(self) -> float | None:
        """When the express lane has something to do, or None; `next_timeout` counts it, too."""
        return None if self._express is None else self._express.next_timeout()

    def take_events(self) -> list[StackEvent]:
        events: list[StackEvent] = self._channels.take_events()  # type: ignore[assignment]  # narrower, and given away
        if self._events:
            events = self._events + events
            self._events = []
        return events

    def next_timeout(self) -> float | None:
        if self._dtls is None or self.phase == "closed":
            return None
        earliest = self._association.next_timeout()
        for other in (self._dtls.next_timeout(), self.express_timeout):
            if other is not None and (earliest is None or other < earliest):
                earliest = other
        return earliest

    # --------------------------------------------------------------------------------------------------------- reading

    @property
    def sctp_init(self) -> bytes:
        """The INIT chunk for our description, the same for as long as the stack lives (draft-hancke-tsvwg-snap)."""
        return self._sctp_handshake.init_chunk()

    @property
    def max_message_size(self) -> int:
        """Bytes: the smaller of what the peer takes and what we send."""
        return self._channels.max_message_size

    @property
    def srtt(self) -> float | None:
        """Seconds, smoothed (RFC 9260 section 6.3.1)."""
        return self._association.srtt

    def told_delay_s(self, now: float) -> float:
        """What the peer told last in the express lane of how late our messages come to it, in seconds; 0 if long ago."""
        return 0.0 if self._express is None else self._express.told_delay_s(now)

    @property
    def buffered_amount(self) -> int:
        """Bytes over all channels accepted by `send` that have not gone out for the first time."""
        return self._association.total_buffered_amount

    @property
    def is_drained(self) -> bool:
        """Everything that was sent has been acknowledged or given up."""
        return not (self._association.total_buffered_amount or self._association.outstanding_bytes)

    def channel_buffered_amount(self, channel: Channel) -> int:
        return self._channels.buffered_amount(channel)

    def set_buffered_amount_low_threshold(self, channel: Channel, threshold: int) -> None:
        self._channels.set_buffered_amount_low_threshold(channel, threshold)

    def stats(self) -> StackStats:
        return StackStats(
            phase=self.phase,
            dtls=None if self._dtls is None else self._dtls.stats,
            sctp=self._association.stats,
            channels=tuple(self._channels.stats()),
            messages_discarded=self._channels.messages_discarded,
            express=None if self._express is None else self._express.stats,
            unread_bytes=self._unread,
            buffered_bytes=self._association.total_buffered_amount,
            outstanding_bytes=self._association.outstanding_bytes,
        )

    # ------------------------------------------------------------------------------------------------------ express lane

    def _send_express(
        self, express: Express, channel: Channel, data: str | bytes | bytearray | memoryview, now: float
    ) -> bool:
        """False leaves the message to SCTP, and so does whatever is wrong with it."""
        if channel.state != "open" or not (channel.express or self._enters_express(channel)):
            return False
        if express.under_way >= WINDOW_MIN and self._is_silent(now):
            return False
        if type(data) is bytes:
            payload, text = data, False
        elif isinstance(data, str):
            try:
                payload, text = data.encode(), True
            except UnicodeEncodeError:
                return False
        elif isinstance(data, bytearray | memoryview | bytes):
            payload, text = bytes(data), False
        else:
            return False
        assert channel.id is not None
        size = len(payload)
        if size > self._channels.max_message_size:
            return False
        if not express.send(channel.id, payload, text, now, thin=channel.thins, phase=channel.express_phase):
            return False
        channel.messages_sent += 1
        channel.bytes_sent += size
        return True

    def _enters_express(self, channel: Channel) -> bool:
        """Once the peer is known to have the channel, and all that went before, where order or back-pressure ask for it."""
        if not channel.confirmed or self.phase != "connected":
            return False
        if channel.config.negotiated and not channel.messages_received:
            return False
        if not (channel.unordered and channel.thins) and not self._association.is_all_acknowledged:
            return False
        if not channel.unordered:
            channel.express_phase = (channel.express_phase + 1) % PHASES
        channel.express = True
        return True

    def _is_silent(self, now: float) -> bool:
        heard = self.last_received_at
        if heard is None or now - heard < _SILENT_S:
            return False
        if now - self._knocked_at < _SILENT_S:
            return True
        self._knocked_at = now
        return False

    def _receive_express(self, express: Express, record: bytes, now: float) -> None:
        try:
            messages = express.receive_untrusted(record, now)
        except ProtocolError:
            self._express_refused += 1
            return
        channels, events, number = self._channels, self._events, express.number_heard
        for stream, flags, data in messages:
            channel = channels.channel(stream)
            if (
                channel is None
                or channel.max_retransmits != 0
                or not (channel.unordered or is_next(channel, flags & PHASE_MASK, number))
                or self._unread > self.config.receive_window_bytes  # a full receiver drops, as it does SCTP's data
            ):
                channels.messages_discarded += 1
                continue
            message: bytes | str = data
            if flags & TEXT:
                try:
                    message = data.decode()
                except UnicodeDecodeError:
                    channels.messages_discarded += 1
                    continue
            channel.messages_received += 1
            channel.bytes_received += len(data)
            events.append(MessageReceived(channel, message))

    def drop_perishable(self) -> None:
        """What came just now was under way for too long: only what would be repeated counts."""
        events = self.take_events()
        self._events = [
            event for event in events if not (isinstance(event, MessageReceived) and event.channel.may_lose)
        ]
        self._channels.messages_discarded += len(events) - len(self._events)

    def _drop_late(self, newest: int) -> None:
        """We are behind: of what came in this batch only the newest record counts, where newer makes older worthless."""
        kept = [
            event
            for at, event in enumerate(self._events)
            if at >= newest or not isinstance(event, MessageReceived) or not event.channel.thins
        ]
        self._channels.messages_discarded += len(self._events) - len(kept)
        self._events = kept

    # --------------------------------------------------------------------------------------------------------- joining

    def _collect(self, now: float) -> None:
        assert self._dtls is not None
        for event in self._dtls.take_events():
            self._handle_dtls(event, now)
        while self.phase != "closed":
            events = self._association.take_events()
            if not events:
                break
            if self.phase == "sctp" and self._association.is_established:
                self.phase = "connected"
                self._events.append(SctpConnected())
            end = self._channels.handle_events(events, now)
            if end is not None:
                self._handle_end(end, now)
        if self._early_told != self._channels.early_bytes:
            self.set_unread(self._unread, now)

    def _handle_dtls(self, event: dtls.DtlsEvent, now: float) -> None:
        if self.phase == "closed":
            return
        if isinstance(event, dtls.HandshakeCompleted):
            self.phase = "sctp"
            self.last_received_at = now
            self._events.append(DtlsConnected(event.cipher, event.version))
            if isinstance(self._dtls, dtls.DtlsSession):
                self._dtls = self._dtls.settled
            if event.is_path_small:
                self._association.begin_in_pieces(now)
            self._channels.announce(now)
            self._association.connect(now)  # both sides do: RFC 8831 section 6.2 leaves SCTP's roles open
        elif isinstance(event, dtls.Failed):
            self._finish(event.error, by_peer=False, now=now)
        else:
            self._finish(PeerGone("the peer closed the connection"), by_peer=event.by_peer, now=now)

    def _handle_end(self, event: sctp.SctpEvent, now: float) -> None:
        if isinstance(event, sctp.Closed):
            self._finish(PeerGone(event.reason), by_peer=event.by_peer, now=now)
        else:  # the streams of a restarted association know nothing of our channels (RFC 9260 section 5.2.4)
            self._finish(PeerGone("the peer began its SCTP association anew"), by_peer=True, now=now)

    def _finish(self, error: PsyneMeshError, *, by_peer: bool, now: float) -> None:
        if self._dtls is not None:
            if self.phase in ("connected", "sctp"):
                self._association.abort(now, "the connection is closed")
                self._farewell += self._dtls.send(self._association.packets_to_send(now))
            self._dtls.close(now)
        self.phase = "closed"
        self._early.clear()
        self._channels.close_all(str(error), by_peer=by_peer)
        self._events += self._channels.take_events()
        self._events.append(StackClosed(error, by_peer))


def _sctp_config(config: StackConfig, remote_max_datagram_size: int) -> sctp.SctpConfig:
    # Probes of the path MTU go only to peers that say what they take. Others read records into buffers of 1500 (aiortc) or
    # 2048 bytes (Chromium) and make a mess of larger ones, and the PAD chunk of a probe ends the process of werift 0.25.
    datagram = min(config.path_mtu_max, remote_max_datagram_size or config.path_mtu_max)
    largest = min(datagram - _RECORD_OVERHEAD, _RECORD_MAX)
    base = min(largest, sctp.SctpConfig().packet_bytes_base)
    return sctp.SctpConfig(
        receive_window_bytes=config.receive_window_bytes,
        packet_bytes_base=base,
        packet_bytes_max=largest if remote_max_datagram_size else base,
        ack_delay_max_s=_ACK_DELAY_S,
        association_retransmits_max=sctp.SctpConfig().association_retransmits_max if config.gives_up else None,
        cuts_packets=bool(remote_max_datagram_size),  # who says that is one of us, and joins them
        # Once a silent peer is back, the wait for the next retransmission is part of the break: seconds, not a minute.
        rto_max_s=_RTO_MAX_S,
    )
