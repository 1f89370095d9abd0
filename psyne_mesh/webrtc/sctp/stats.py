"""What an association has counted, and the snapshot that it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh.frozen import Frozen

if TYPE_CHECKING:
    from psyne_mesh.webrtc.sctp.outbound import Outbound


class Counters:
    """Running totals. Plain attributes: they are raised on the hot path."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "chunks_received",
        "discarded",
        "duplicates_received",
        "fast_retransmissions",
        "messages_abandoned_sent",
        "messages_abandoned_unsent",
        "messages_received",
        "messages_sent",
        "packets_received",
        "packets_sent",
        "retransmissions",
        "tail_probes",
        "timeouts",
        "user_bytes_received",
        "user_bytes_sent",
    )

    def __init__(self) -> None:
        self.bytes_received = self.bytes_sent = self.packets_received = self.packets_sent = 0
        self.user_bytes_received = self.user_bytes_sent = self.messages_received = self.messages_sent = 0
        self.chunks_received = self.duplicates_received = 0
        self.retransmissions = self.fast_retransmissions = self.tail_probes = self.timeouts = 0
        self.messages_abandoned_sent = self.messages_abandoned_unsent = 0
        self.discarded: dict[str, int] = {}  # by reason; the reasons are ours, so their number is fixed

    def dropped(self, reason: str) -> None:
        self.discarded[reason] = self.discarded.get(reason, 0) + 1


class SctpStats(Frozen, kw_only=True):
    """A snapshot of one association. Bytes and packets are those of SCTP packets, user bytes those of messages."""

    state: str
    srtt_s: float | None
    rto_s: float
    cwnd_bytes: int
    ssthresh_bytes: int
    flight_bytes: int
    a_rwnd_local_bytes: int  # what we offer now
    a_rwnd_remote_bytes: int  # what the peer offered last
    path_mtu: int
    interleaving: bool
    zero_checksum_out: bool
    zero_checksum_in: bool
    packets_sent: int
    packets_received: int
    bytes_sent: int
    bytes_received: int
    messages_sent: int
    messages_received: int
    user_bytes_sent: int
    user_bytes_received: int
    chunks_received: int
    duplicates_received: int
    retransmissions: int
    fast_retransmissions: int  # of those, how many RACK found
    tail_probes: int
    timeouts: int
    messages_abandoned_unsent: int  # RFC 7496 section 4.4
    messages_abandoned_sent: int
    discarded: dict[str, int]  # packets and chunks that were dropped, by reason
    buffered_bytes: int
    oldest_queued_age_s: float  # 0 when nothing waits


def snapshot(
    counters: Counters,
    outbound: Outbound,
    now: float,
    *,
    state: str,
    a_rwnd_local_bytes: int,
    path_mtu: int,
    zero_checksum_out: bool,
    zero_checksum_in: bool,
) -> SctpStats:
    """Put the figures of the parts together."""
    oldest = outbound.queue.oldest_queued_at()
    totals = {name: getattr(counters, name) for name in Counters.__slots__ if name != "discarded"}
    return SctpStats(
        state=state,
        srtt_s=outbound.rto.srtt,
        rto_s=outbound.rto.rto,
        cwnd_bytes=outbound.congestion.cwnd,
        ssthresh_bytes=outbound.congestion.ssthresh,
        flight_bytes=outbound.outstanding.flight_bytes,
        a_rwnd_local_bytes=a_rwnd_local_bytes,
        a_rwnd_remote_bytes=outbound.peer_a_rwnd,
        path_mtu=path_mtu,
        interleaving=outbound.queue.interleaving,
        zero_checksum_out=zero_checksum_out,
        zero_checksum_in=zero_checksum_in,
        discarded=dict(counters.discarded),
        buffered_bytes=outbound.queue.buffered,
        oldest_queued_age_s=0.0 if oldest is None else max(0.0, now - oldest),
        **totals,
    )
