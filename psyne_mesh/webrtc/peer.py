"""One peer connection, as its user sees it: offer and answer, channels, what it measured."""

from __future__ import annotations

import random
from collections.abc import Callable

import trio

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import ClosedError, InvalidConfig, LocalError, PeerGone, PsyneMeshError
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.webrtc import dtls, ice
from psyne_mesh.webrtc.channel import BufferedAmountLow, Channel, ChannelClosed, ChannelOpened, MessageReceived
from psyne_mesh.webrtc.connection import Connection
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.express import VERSION
from psyne_mesh.webrtc.inbox import Inbox
from psyne_mesh.webrtc.ladder import Tunnel
from psyne_mesh.webrtc.link import Scheduler
from psyne_mesh.webrtc.negotiation import Negotiation
from psyne_mesh.webrtc.stack import StackEvent
from psyne_mesh.webrtc.stats import PeerState, PeerStats

_UNCLAIMED_MAX = 1024  # channels of the peer that nobody has taken from `incoming_channels`; later ones are closed


@uninterrupted
class PeerConnection:
    """A connection to one peer, made by `Endpoint.open_peer`: one side with `offerer=True`, the other with False.

    1. `create_channel` for each channel that this side announces; or take them from `incoming_channels`.
    2. Offerer: `create_offer`, send it, `set_answer` with the answer. Answerer: `create_answer(offer)`, send it.
       With `trickle=True` these return at once, and the `local_candidates` are to be sent as they come.
    3. `wait_connected`, then use the channels.

    local_candidates: those that are in no offer or answer yet; ends with the gathering. `restart_ice` makes a new one.
    """

    def __init__(
        self,
        gateway: ice.IceGateway,
        certificate: dtls.Certificate,
        scheduler: Scheduler,
        *,
        offerer: bool,
        rng: random.Random,
        name: str = "",
        on_events: Callable[[list[StackEvent]], None] | None = None,
        tunnel: Tunnel | None = None,
    ) -> None:
        self.name = name
        self.incoming_channels: Inbox[DataChannel] = Inbox()
        self.local_candidates: Inbox[str] = Inbox()
        self._config = gateway.config
        self._on_events = on_events
        self.connection = Connection(
            gateway,
            certificate,
            scheduler,
            controlling=offerer,
            rng=rng,
            name=name,
            on_events=on_events or self._handle_events,
            on_candidate=self._handle_candidate,
            tunnel=tunnel,
        )
        self._stack, self._link = self.connection.stack, self.connection.link
        self._negotiation = Negotiation(
            offerer=offerer,
            fingerprint=str(certificate.fingerprint),
            max_message_size=gateway.config.max_message_size,
            max_datagram_size=gateway.config.path_mtu_max,
            express=VERSION if gateway.config.express_lane else 0,
            sctp_init=self._stack.sctp_init,
            dtls_versions=gateway.config.dtls_versions,
            ice_options=(dtls.EMBEDDING_OPTION,) if gateway.config.dtls_in_stun else (),
            session_id=rng.getrandbits(62),
        )
        self._channels: dict[Channel, DataChannel] = {}
        self._candidates: list[str] = []  # of the newest generation
        self._gathered = trio.Event()  # or ended

    # ------------------------------------------------------------------------------------------------ offer and answer

    async def create_offer(self, *, trickle: bool = False) -> str:
        """The SDP of an offer. Called again: the same credentials, and the candidates known by now."""
        self._negotiation.check_may_offer()
        return await self._describe(self._negotiation.make_offer, trickle)

    async def set_answer(self, sdp: str) -> None:
        """The peer's answer. Raises `ProtocolError` for one that cannot be used, and goes on waiting for a better one."""
        self._check_open()
        remote = self._negotiation.accept_answer(sdp)
        self.connection.set_remote(remote, self._negotiation.negotiated)
        await trio.lowlevel.checkpoint()

    def is_stale_answer(self, sdp: str) -> bool:
        """Whether it answers an offer that a later one of ours has replaced; `set_answer` would refuse it. `ProtocolError` for
        what is no description."""
        return self._negotiation.is_stale(sdp)

    async def create_answer(self, offer: str, *, trickle: bool = False) -> str:
        """The answer to the peer's offer; to a later offer with new ICE credentials, too. Raises `ProtocolError`.

        Raises `LocalError` on the side that offers: then two offers crossed, and one side must answer instead.
        """
        self._check_open()
        known = self._negotiation.remote
        remote = self._negotiation.accept_offer(offer)
        if known is not None and (known.ice_ufrag, known.ice_pwd) != (remote.ice_ufrag, remote.ice_pwd):
            await self._restart()
        self.connection.begin()
        self.connection.set_remote(remote, self._negotiation.negotiated)
        return await self._describe(self._negotiation.make_answer, trickle)

    async def restart_ice(self, *, trickle: bool = False) -> str:
        """A new offer for a new path (RFC 8445 section 9); data goes over the old one for as long as that works.

        For the offerer, when the network has changed or `state` is "disconnected". The answer goes to `set_answer`.
        """
        self._negotiation.check_may_offer()
        self._check_open()
        await self._restart()
        return await self.create_offer(trickle=trickle)

    def distrust_path(self) -> None:
        """The peer has been silent for too long, says a heartbeat above: the path is checked at once, and until it answers
        the tunnel carries, if there is one."""
        self.connection.ice.distrust()

    def heartbeat(self, number: int) -> None:
        """Tell the peer that this process lives though its loop stands still; `number` must grow. Another thread may call it,
        and it reaches the peer over a direct path only."""
        self.connection.ice.heartbeat(number)

    def add_remote_candidate(self, candidate: str | None) -> None:
        """A candidate that the peer trickled ("candidate:..."), `None` after its last. Bad ones are counted, no more."""
        self.connection.ice.add_remote_candidate(candidate)

    def deliver_tunnelled(self, datagrams: list[bytes], *, late: bool = False) -> None:
        """Datagrams of this peer that came through the tunnel given at the opening; of those that come `late`, messages that
        may be lost are dropped."""
        self.connection.deliver_tunnelled(datagrams, late=late)

    # ---------------------------------------------------------------------------------------------------------- waiting

    async def wait_connected(self) -> None:
        """Until channels can carry messages. Raises `ConnectFailed`, which names the phase, at the latest
        `connection_timeout_s` after the offer or answer was begun; `FingerprintMismatch` when someone else answered."""
        await self.connection.connected.wait()
        self._check_open()

    async def wait_closed(self) -> None:
        """Until the connection has ended, whatever ended it; `error` tells."""
        await self.connection.closed.wait()

    async def drain(self) -> None:
        """Until the peer has acknowledged all that was sent, or the connection has ended."""
        await self.connection.drain()

    def close(self) -> None:
        """End it now: what is queued is lost (`drain` first to keep it), and the peer is told."""
        self.connection.close(ClosedError("the connection was closed on this side"))

    # --------------------------------------------------------------------------------------------------------- channels

    def create_channel(self, config: DataChannelConfig | None = None) -> DataChannel:
        """A channel, at any time; it opens with the connection. Raises `InvalidConfig` when its id is in use, and
        for anything but a `DataChannelConfig`."""
        if self._on_events is not None:
            raise LocalError("the owner of on_events uses open_channel: nobody would fill the inbox of a DataChannel")
        return self._adopt(self.open_channel(config))

    def open_channel(self, config: DataChannelConfig | None = None) -> Channel:
        """The same for the owner of `on_events`, without an inbox. `ChannelOpened` comes later, never inside the call."""
        self._check_open()
        if not isinstance(config, DataChannelConfig | None):  # createDataChannel of browsers takes the label
            raise InvalidConfig(
                f'{config!r} is no DataChannelConfig: give one, such as DataChannelConfig(label="chat")'
            )
        channel = self._stack.create_channel(config or self._config.data_channel_config, trio.current_time())
        self._link.turn_soon()
        return channel

    def send(self, channel: Channel, data: str | bytes | bytearray | memoryview) -> None:
        """Queue one message on an open channel, and put it on the wire as the windows allow. Never blocks."""
        self._link.send(channel, data)

    def close_channel(self, channel: Channel) -> None:
        """Close it after what was sent on it."""
        self._link.close_channel(channel)

    def channel_buffered_amount(self, channel: Channel) -> int:
        """Bytes accepted and not yet on the network."""
        return self._stack.channel_buffered_amount(channel)

    def set_buffered_amount_low_threshold(self, channel: Channel, threshold: int) -> None:
        """Bytes; `BufferedAmountLow` comes when what waits on the channel falls to it."""
        self._stack.set_buffered_amount_low_threshold(channel, threshold)

    def note_unread(self, n_bytes: int) -> None:
        """So many bytes more (negative: less) of what came wait to be read; the peer sends more slowly for it.

        For the owner of `on_events`; a `DataChannel` does it by itself.
        """
        self._link.note_unread(n_bytes)

    # --------------------------------------------------------------------------------------------------------- reading

    @property
    def error(self) -> PsyneMeshError | None:
        """Why the connection is over; `None` while it is not."""
        return self.connection.error

    @property
    def state(self) -> PeerState:
        if self.connection.error is not None:
            return "closed"
        if self._stack.phase == "connected":
            return "disconnected" if self.connection.disconnected else "connected"
        return "new" if self._negotiation.turn == "nothing" else "connecting"

    @property
    def path(self) -> ice.Path | None:
        """How the datagrams travel; `None` before there is a way."""
        return self.connection.ladder.path

    @property
    def rtt(self) -> float | None:
        """Seconds: smoothed by SCTP, or STUN's while SCTP has not measured yet."""
        path = self.path
        return self._stack.srtt or (path.rtt_s if path is not None else None)

    @property
    def last_received_at(self) -> float | None:
        """When the last authentic packet came (`trio.current_time`): the sign of life for heartbeats."""
        return self._stack.last_received_at

    def told_delay_s(self, now: float) -> float:
        """How much later than at its best what we send arrives and is read, in seconds, if the peer told a moment ago."""
        return self._stack.told_delay_s(now)

    @property
    def buffered_amount(self) -> int:
        """Bytes over all channels accepted and not yet on the network."""
        return self._stack.buffered_amount

    @property
    def is_drained(self) -> bool:
        """The peer has acknowledged all that was sent, or it was given up."""
        return self._stack.is_drained

    def stats(self) -> PeerStats:
        now = trio.current_time()
        heard, stack = self._stack.last_received_at, self._stack.stats()
        return PeerStats(
            state=self.state,
            path=self.path,
            rtt_s=self.rtt,
            phase_s=dict(self.connection.clock.took_s),
            queue_age_s=stack.sctp.oldest_queued_age_s,
            idle_s=None if heard is None else now - heard,
            dtls=stack.dtls,
            ice=self.connection.ice.stats(),
            stack=stack,
        )

    @property
    def remote_max_message_size(self) -> int | None:
        """Bytes that the peer's description says it takes; None before there is one, and for any size."""
        remote = self._negotiation.remote
        return None if remote is None else remote.max_message_size or None

    # ---------------------------------------------------------------------------------------------------------- inside

    def _check_open(self) -> None:
        if self.connection.error is not None:
            raise self.connection.error

    async def _describe(self, make: Callable[..., str], trickle: bool) -> str:
        self._check_open()
        self.connection.begin()
        if trickle:
            await trio.lowlevel.checkpoint()
        else:
            await self._gathered.wait()
            self._check_open()
        self.local_candidates.clear()  # the text has them
        local = self.connection.ice.local
        return make(local.ufrag, local.password, self._candidates, complete=self._gathered.is_set())

    async def _restart(self) -> None:
        self._gathered = trio.Event()
        self._candidates = []
        self.local_candidates.close()
        self.local_candidates = Inbox()
        await self.connection.ice.restart()

    def _handle_candidate(self, candidate: str | None) -> None:
        if candidate is None:
            self._gathered.set()
            self.local_candidates.close()
        else:
            self._candidates.append(candidate)
            self.local_candidates.put(candidate)

    def _adopt(self, channel: Channel) -> DataChannel:
        adopted = self._channels[channel] = DataChannel(self._link, channel)
        return adopted

    def _handle_events(self, events: list[StackEvent]) -> None:
        channels, unread = self._channels, 0
        for event in events:
            if type(event) is MessageReceived:
                unread += channels[event.channel].deliver(event.data)
            elif type(event) is ChannelOpened:
                self._handle_opened(event)
            elif type(event) is BufferedAmountLow:
                channels[event.channel].handle_low()
            elif type(event) is ChannelClosed and self.error is None:
                error = PeerGone(event.reason or "the peer closed the channel")
                channels.pop(event.channel).end(error, quietly=not event.reason)
        if unread:
            self._link.note_unread(unread)
        if self.error is not None:
            self._end(self.error, quietly=self.connection.ended_quietly)

    def _handle_opened(self, event: ChannelOpened) -> None:
        if event.by_peer:
            channel = self._adopt(event.channel)
            if len(self.incoming_channels) >= _UNCLAIMED_MAX:
                channel.close()
            else:
                self.incoming_channels.put(channel)
        self._channels[event.channel].handle_opened()

    def _end(self, error: PsyneMeshError, *, quietly: bool) -> None:
        for channel in self._channels.values():
            channel.end(error, quietly=quietly)
        self._channels.clear()
        self.incoming_channels.close(None if quietly else error)
