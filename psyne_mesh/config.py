"""What a user may set, as frozen attrs classes that refuse values out of bounds.

Units stand last in every name; each default says where it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import attrs
from attrs import validators as v

from psyne_mesh.errors import InvalidConfig

MAX_LABEL_BYTES = 65535  # RFC 8832 section 5.1: a 16-bit length, counted in bytes of UTF-8


def _within(low: float, high: float) -> Any:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidConfig(f"{type(instance).__name__}.{attribute.name} = {value!r}: must lie in [{low}, {high}]")

    return check


def _whole(low: int, high: int) -> Any:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidConfig(
                f"{type(instance).__name__}.{attribute.name} = {value!r}: a whole number in [{low}, {high}]"
            )

    return check


def _short_utf8(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > MAX_LABEL_BYTES:
        raise InvalidConfig(f"{attribute.name} must be text of at most {MAX_LABEL_BYTES} bytes of UTF-8")


@attrs.frozen(kw_only=True)
class DataChannelConfig:
    """How one data channel delivers (RFC 8832, and RTCDataChannelInit of W3C WebRTC).

    At most one of `max_retransmits` and `max_packet_life_time_ms` may be set; with neither the channel is reliable.
    """

    label: str = attrs.field(default="psyne-channel", validator=_short_utf8)
    ordered: bool = True
    max_retransmits: int | None = attrs.field(default=None, validator=v.optional(_whole(0, 65535)))
    max_packet_life_time_ms: int | None = attrs.field(default=None, validator=v.optional(_whole(0, 65535)))
    protocol: str = attrs.field(default="", validator=_short_utf8)
    negotiated: bool = False
    id: int | None = attrs.field(default=None, validator=v.optional(_whole(0, 65534)))
    priority: int = attrs.field(default=256, validator=_whole(0, 65535))  # RFC 8831 section 6.4: 256 is "normal"

    def __attrs_post_init__(self) -> None:
        if self.max_retransmits is not None and self.max_packet_life_time_ms is not None:
            raise InvalidConfig("set max_retransmits or max_packet_life_time_ms, not both (RFC 8832 section 5.1)")
        if self.negotiated and self.id is None:
            raise InvalidConfig("a negotiated channel needs an id that both sides agreed on")
        if self.id is not None and not self.negotiated:
            raise InvalidConfig("an id is chosen by the user only for a negotiated channel")


@attrs.frozen
class StunServer:
    """One STUN server. `StunServer.parse("stun:host:port")` reads RFC 7064 URIs and bare `host:port`."""

    host: str
    port: int = attrs.field(default=3478, validator=_within(1, 65535))

    @classmethod
    def parse(cls, uri: str | StunServer) -> StunServer:
        if isinstance(uri, StunServer):
            return uri
        host, port, _ = _host_port(uri, ("stun",), default=3478)
        return cls(host, port)


@attrs.frozen
class TurnServer:
    """One TURN server and its credentials; `parse` reads RFC 7065, `turn:host:port?transport=udp|tcp`, `turns:host`.

    max_bytes_per_s: the quota of an allocation there, if it has one (`max-bps` of coturn, which counts bytes). All peers
        reached over it share it: large reliable messages wait, so that positions are not what the server drops.
    """

    host: str
    port: int = attrs.field(default=3478, validator=_within(1, 65535))
    username: str = attrs.field(default="", kw_only=True)
    credential: str = attrs.field(default="", kw_only=True, repr=False)
    transport: Literal["udp", "tcp", "tls"] = attrs.field(
        default="udp", kw_only=True, validator=v.in_(("udp", "tcp", "tls"))
    )
    max_bytes_per_s: float | None = attrs.field(
        default=None, kw_only=True, validator=v.optional(_within(10_000, 2**40))
    )  # 10 kB/s: eight packets

    @classmethod
    def parse(cls, uri: str | TurnServer, username: str = "", credential: str = "") -> TurnServer:
        if isinstance(uri, TurnServer):
            return uri
        secure = uri.startswith("turns:")
        host, port, query = _host_port(uri, ("turn", "turns"), default=5349 if secure else 3478)
        asked = query.get("transport", ["tcp" if secure else "udp"])[0]
        if asked not in ("udp", "tcp"):
            raise InvalidConfig(f"{uri!r}: transport is udp or tcp (RFC 7065)")
        transport: Literal["udp", "tcp", "tls"] = "tls" if secure else ("tcp" if asked == "tcp" else "udp")
        return cls(host, port, username=username, credential=credential, transport=transport)


def _host_port(uri: str, schemes: Sequence[str], default: int) -> tuple[str, int, dict[str, list[str]]]:
    scheme, colon, rest = uri.partition(":")
    if not (colon and scheme in schemes):
        rest = uri
    try:
        parts = urlsplit("//" + rest.removeprefix("//"))
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidConfig(f"{uri!r}: {error}") from error
    if not host:
        raise InvalidConfig(f"{uri!r}: expected {' or '.join(s + ':host[:port]' for s in schemes)}")
    return host, default if port is None else port, parse_qs(parts.query)


def _stun_list(servers: Sequence[str | StunServer]) -> tuple[StunServer, ...]:
    return tuple(StunServer.parse(server) for server in servers)


def _turn_list(servers: Sequence[str | TurnServer]) -> tuple[TurnServer, ...]:
    return tuple(TurnServer.parse(server) for server in servers)


@attrs.frozen(kw_only=True)
class WebRTCConfig:
    """Everything one endpoint needs to reach its peers.

    Defaults touch no server outside this machine: give `stun_servers` and `turn_servers` to cross NATs.
    """

    stun_servers: tuple[StunServer, ...] = attrs.field(default=(), converter=_stun_list)
    turn_servers: tuple[TurnServer, ...] = attrs.field(default=(), converter=_turn_list)
    data_channel_config: DataChannelConfig = attrs.Factory(DataChannelConfig)
    ice_gathering_timeout_s: float = attrs.field(default=5.0, validator=_within(0.01, 60))  # psyne's 5000 ms
    connection_timeout_s: float = attrs.field(default=14.0, validator=_within(0.1, 120))  # told within 15 s, all in all
    relay_only: bool = False  # no address of this player is ever shown to a peer
    use_ipv4: bool = True
    use_ipv6: bool = True
    include_loopback: bool = True  # rooms on one machine work offline; harmless elsewhere: such pairs just fail
    bind_host: str | None = None  # None: all interfaces
    port_range: tuple[int, int] | None = None  # None: any free port
    interfaces: tuple[str, ...] | None = None  # None: all; else only these interface names
    max_message_size: int = attrs.field(default=262_144, validator=_within(1, 2**30))  # what Chromium offers
    receive_window_bytes: int = attrs.field(default=4 * 2**20, validator=_within(65_536, 2**30))  # 100 ms at 40 MB/s
    path_mtu_max: int = attrs.field(default=65_507, validator=_within(1200, 65_507))  # UDP payload; loopback carries it
    # Records of AES-GCM sessions by `cryptography` instead of by OpenSSL's connection, which then is freed with its 100 KiB
    dtls_fast_records: bool = True

    def __attrs_post_init__(self) -> None:
        if self.relay_only and not self.turn_servers:
            raise InvalidConfig("relay_only needs at least one entry in turn_servers")
        if not (self.use_ipv4 or self.use_ipv6):
            raise InvalidConfig("at least one of use_ipv4 and use_ipv6 must be true")
        if self.port_range is not None and not 1 <= self.port_range[0] <= self.port_range[1] <= 65535:
            raise InvalidConfig(f"port_range = {self.port_range}: must be (low, high) within 1-65535")
