"""What one association may be told, with units, bounds and where each default comes from."""

from __future__ import annotations

from typing import Any

import attrs

from psyne_mesh.errors import InvalidConfig


def _within(low: float, high: float, *, optional: bool = False) -> Any:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidConfig(f"SctpConfig.{attribute.name} = {value!r}: must lie in [{low}, {high}]")

    return check


def _ladder(instance: SctpConfig, attribute: attrs.Attribute[Any], value: tuple[int, ...]) -> None:
    if list(value) != sorted(set(value)):
        raise InvalidConfig(f"SctpConfig.{attribute.name} = {value!r}: must ascend")


@attrs.frozen(kw_only=True)
class SctpConfig:
    """Settings of one `Association`. Bytes of packets are SCTP packets, that is, the plaintext of a DTLS record."""

    local_port: int = attrs.field(default=5000, validator=_within(1, 65535))  # a=sctp-port of every browser
    remote_port: int = attrs.field(default=5000, validator=_within(1, 65535))
    streams_max: int = attrs.field(default=65535, validator=_within(1, 65535))  # RFC 8831 section 6.2
    # 100 ms at 40 MB/s. There is no partial delivery: it must exceed the largest message that the peer may send
    receive_window_bytes: int = attrs.field(default=4 * 2**20, validator=_within(65_536, 2**31))
    send_buffer_bytes_max: int = attrs.field(default=16 * 2**20, validator=_within(1, 2**31))  # Chromium's limit
    packet_bytes_base: int = attrs.field(default=1191, validator=_within(512, 16_384))  # dcSCTP: 1280 less all headers
    # What is left of 576, which every IPv4 path carries (RFC 791), less 28 for IP and UDP, 37 for DTLS and 11 for a relay
    packet_bytes_floor: int = attrs.field(default=500, validator=_within(100, 1191))
    # Sizes below the base that a path is asked for, once even the base does not pass
    packet_bytes_ladder_low: tuple[int, ...] = attrs.field(default=(532, 700, 860, 1032), validator=_ladder)
    cuts_packets: bool = False  # the peer joins pieces, see `pieces.py`: it is one of our own
    packet_bytes_max: int = attrs.field(default=16_384, validator=_within(512, 16_384))  # one DTLS record
    # Sizes that path MTU discovery tries, between base and max: Ethernet with tunnels, Ethernet under IPv6 and under IPv4
    # (1500 less 40 or 20 for IP, 8 for UDP, 37 for a DTLS record of AES-GCM), jumbo frames, loopback
    packet_bytes_ladder: tuple[int, ...] = attrs.field(default=(1400, 1415, 1435, 8900, 16_384), validator=_ladder)
    path_mtu_raise_s: float = attrs.field(default=600.0, validator=_within(1, 86_400))  # RFC 8899 PMTU_RAISE_TIMER
    path_mtu_return_s: float = attrs.field(
        default=30.0, validator=_within(1, 86_400)
    )  # the same while it was larger before
    rto_initial_s: float = attrs.field(default=0.5, validator=_within(0.01, 60))  # dcSCTP
    rto_min_s: float = attrs.field(default=0.2, validator=_within(0.001, 60))  # libdatachannel
    rto_max_s: float = attrs.field(default=60.0, validator=_within(0.01, 600))  # RFC 9260 section 16
    # An RTO below RTT + the peer's ack delay (up to 200 ms) resends what has arrived: dcSCTP's floor for 4 * RTTVAR
    rtt_variance_min_s: float = attrs.field(default=0.22, validator=_within(0, 60))
    ack_delay_max_s: float = attrs.field(default=0.2, validator=_within(0, 0.5))  # RFC 9260 section 6.2
    initial_window_packets: int = attrs.field(default=10, validator=_within(1, 1000))  # dcSCTP, RFC 6928
    window_packets_min: int = attrs.field(default=4, validator=_within(1, 1000))  # RFC 9260 section 7.2.3
    association_retransmits_max: int | None = attrs.field(default=10, validator=_within(1, 1000, optional=True))
    init_retransmits_max: int | None = attrs.field(default=8, validator=_within(1, 1000, optional=True))
    heartbeat_interval_s: float = attrs.field(default=30.0, validator=_within(0.1, 86_400))  # RFC 9260 section 16
    cookie_lifetime_s: float = attrs.field(default=60.0, validator=_within(1, 3600))  # RFC 9260 section 16
    interleaving: bool = True  # offer RFC 8260 I-DATA
    partial_reliability: bool = True  # offer RFC 3758
    zero_checksum: bool = True  # offer RFC 9653; right only above DTLS, which is where this class lives
    path_mtu_discovery: bool = True

    def __attrs_post_init__(self) -> None:
        if self.packet_bytes_max < self.packet_bytes_base:
            raise InvalidConfig("packet_bytes_max must not be less than packet_bytes_base")
        if not self.rto_min_s <= self.rto_initial_s <= self.rto_max_s:
            raise InvalidConfig("rto_min_s <= rto_initial_s <= rto_max_s must hold")
