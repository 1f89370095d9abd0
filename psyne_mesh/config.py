"""What a user may set, as frozen attrs classes that refuse values out of bounds.

Units stand last in every name; each default says where it comes from.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
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


def _flag(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):  # "no" is true
        raise InvalidConfig(f"{type(instance).__name__}.{attribute.name} = {value!r}: must be True or False")


def _text(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """The message does not show the value, which may be a secret."""
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidConfig(f"{type(instance).__name__}.{attribute.name} must be text without lone surrogates")


def _host(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """A name that a resolver can be asked for, or an address: one with an empty label, or with one of more than 63 bytes
    (RFC 1035 section 2.3.4), would be a UnicodeError there."""
    if isinstance(value, str) and value and value.isprintable() and " " not in value:
        with suppress(ValueError):
            ipaddress.ip_address(value)  # its zone may be long
            return
        with suppress(UnicodeError):
            value.encode("idna")
            return
    raise InvalidConfig(f"{type(instance).__name__}.{attribute.name} = {value!r}: must be a host name or an IP address")


def without_zone(host: str) -> str:
    """An IPv6 address without its zone ("%eth0"), unless it is link-local: elsewhere a zone means nothing (RFC 4007 section 6),
    and no system sends to or binds an address with a named one."""
    address, percent, _ = host.partition("%")
    if not percent:
        return host
    try:
        return host if ipaddress.ip_address(address).is_link_local else address
    except ValueError:
        return host


def _checked_host(host: Any) -> Any:
    return without_zone(host) if isinstance(host, str) else host


def _short_utf8(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > MAX_LABEL_BYTES:
        raise InvalidConfig(f"{attribute.name} must be text of at most {MAX_LABEL_BYTES} bytes of UTF-8")


@attrs.frozen(kw_only=True)
class DataChannelConfig:
    """How one data channel delivers (RFC 8832, and RTCDataChannelInit of W3C WebRTC).

    At most one of `max_retransmits` and `max_packet_life_time_ms` may be set; with neither the channel is reliable.
    """

    label: str = attrs.field(default="psyne-channel", validator=_short_utf8)
    ordered: bool = attrs.field(default=True, validator=_flag)
    max_retransmits: int | None = attrs.field(default=None, validator=v.optional(_whole(0, 65535)))
    max_packet_life_time_ms: int | None = attrs.field(default=None, validator=v.optional(_whole(0, 65535)))
    protocol: str = attrs.field(default="", validator=_short_utf8)
    negotiated: bool = attrs.field(default=False, validator=_flag)
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

    host: str = attrs.field(converter=_checked_host, validator=_host)
    port: int = attrs.field(default=3478, validator=_whole(1, 65535))

    @classmethod
    def parse(cls, uri: str | StunServer) -> StunServer:
        if isinstance(uri, StunServer):
            return uri
        _, host, port, _ = _split(uri, {"stun": 3478})
        return cls(host, port)


@attrs.frozen
class TurnServer:
    """One TURN server and its credentials; `parse` reads RFC 7065, `turn:host:port?transport=udp|tcp`, `turns:host`.

    max_bytes_per_s: the quota of an allocation there, if it has one (`max-bps` of coturn, which counts bytes). All peers
        reached over it share it: large reliable messages wait, so that positions are not what the server drops.
    """

    host: str = attrs.field(converter=_checked_host, validator=_host)
    port: int = attrs.field(default=3478, validator=_whole(1, 65535))
    username: str = attrs.field(default="", kw_only=True, validator=_text)
    credential: str = attrs.field(default="", kw_only=True, repr=False, validator=_text)
    transport: Literal["udp", "tcp", "tls"] = attrs.field(default="udp", kw_only=True)
    max_bytes_per_s: float | None = attrs.field(
        default=None, kw_only=True, validator=v.optional(_within(10_000, 2**40))
    )  # 10 kB/s: eight packets

    @classmethod
    def parse(cls, uri: str | TurnServer, username: str = "", credential: str = "") -> TurnServer:
        if isinstance(uri, TurnServer):
            return uri
        scheme, host, port, query = _split(uri, {"turn": 3478, "turns": 5349})
        secure = scheme == "turns"
        asked = query.get("transport", ["tcp" if secure else "udp"])[0]
        if asked not in ("udp", "tcp"):
            raise InvalidConfig(f"{uri!r}: transport is udp or tcp (RFC 7065)")
        transport: Literal["udp", "tcp", "tls"] = "tls" if secure else ("tcp" if asked == "tcp" else "udp")
        return cls(host, port, username=username, credential=credential, transport=transport)

    @transport.validator
    def _check_transport(self, attribute: attrs.Attribute[str], value: Any) -> None:
        if value not in ("udp", "tcp", "tls"):
            raise InvalidConfig(f"TurnServer.transport = {value!r}: must be 'udp', 'tcp' or 'tls'")


def _split(uri: object, ports: Mapping[str, int]) -> tuple[str, str, int, dict[str, list[str]]]:
    """Scheme, host, port and query. `ports` are the schemes with their default ports; a bare `host:port` has the first."""
    expected = " or ".join(f"{scheme}:host[:port]" for scheme in ports)
    if not isinstance(uri, str):  # not shown: it may hold a credential
        raise InvalidConfig(f"a server's URI is text, {expected}, not {type(uri).__name__}")
    scheme, colon, rest = uri.partition(":")
    if not (colon and scheme in ports):
        scheme, rest = next(iter(ports)), uri
    try:
        parts = urlsplit("//" + rest.removeprefix("//"))
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidConfig(f"{uri!r}: expected {expected}: {error}") from error
    if not host or parts.path not in ("", "/"):  # "https://host" would be the host "https"
        raise InvalidConfig(f"{uri!r}: expected {expected}")
    return scheme, host, ports[scheme] if port is None else port, parse_qs(parts.query)


def _listed(field: str, values: object, of: str) -> Sequence[Any]:
    """A string is a sequence, too: of hosts of one letter each; and a mapping one of its keys."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidConfig(f"WebRTCConfig.{field} must be a list of {of}, even of one, not {type(values).__name__}")
    return tuple(values)


def _stun_list(servers: Sequence[str | StunServer]) -> tuple[StunServer, ...]:
    return tuple(StunServer.parse(server) for server in _listed("stun_servers", servers, "URIs or StunServers"))


def _turn_list(servers: Sequence[str | TurnServer]) -> tuple[TurnServer, ...]:
    return tuple(TurnServer.parse(server) for server in _listed("turn_servers", servers, "URIs or TurnServers"))


def _name_list(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    listed = tuple(_listed("interfaces", names, "names"))
    if not all(isinstance(name, str) for name in listed):
        raise InvalidConfig(f"WebRTCConfig.interfaces = {listed}: must be names of interfaces, or None for all")
    return listed


def _port_pair(ports: Sequence[int] | None) -> tuple[int, int] | None:
    match ports:
        case None:
            return None
        case [int(low), int(high)] if 1 <= low <= high <= 65535:
            return low, high
    raise InvalidConfig(f"WebRTCConfig.port_range = {ports!r}: must be (low, high), whole numbers within 1-65535")


def _version_list(versions: Sequence[str]) -> tuple[str, ...]:
    listed = tuple(_listed("dtls_versions", versions, 'versions, "1.3" and "1.2"'))
    if not listed or len(set(listed)) < len(listed) or not set(listed) <= {"1.3", "1.2"}:
        raise InvalidConfig(f'WebRTCConfig.dtls_versions = {listed}: must be of "1.3" and "1.2", each at most once')
    return listed


def _all_of_none(host: str | None) -> str | None:
    return None if host == "" else _checked_host(host)


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
    relay_only: bool = attrs.field(default=False, validator=_flag)  # no address of this player is ever shown to a peer
    use_ipv4: bool = attrs.field(default=True, validator=_flag)
    use_ipv6: bool = attrs.field(default=True, validator=_flag)
    # Rooms on one machine work offline; harmless elsewhere: such pairs just fail
    include_loopback: bool = attrs.field(default=True, validator=_flag)
    bind_host: str | None = attrs.field(  # None, or "" as for sockets: all interfaces
        default=None, converter=_all_of_none, validator=v.optional(_host)
    )
    port_range: tuple[int, int] | None = attrs.field(default=None, converter=_port_pair)  # None: any free port
    interfaces: tuple[str, ...] | None = attrs.field(default=None, converter=_name_list)  # None: all; else only these
    max_message_size: int = attrs.field(default=262_144, validator=_whole(1, 2**30))  # what Chromium offers
    receive_window_bytes: int = attrs.field(default=4 * 2**20, validator=_whole(65_536, 2**30))  # 100 ms at 40 MB/s
    path_mtu_max: int = attrs.field(default=65_507, validator=_whole(1200, 65_507))  # UDP payload; loopback carries it
    # Which a peer may choose from. 1.3 has the key exchange that resists a quantum computer and takes a round trip less; 1.2 is
    # for peers that have no other: aiortc, werift, libdatachannel
    dtls_versions: tuple[Literal["1.3", "1.2"], ...] = attrs.field(default=("1.3", "1.2"), converter=_version_list)
    # Of 1.2: records of AES-GCM sessions by `cryptography` instead of by OpenSSL's connection, which is freed with its 100 KiB
    dtls_fast_records: bool = attrs.field(default=True, validator=_flag)
    # Handshakes travel inside ICE's checks (SPED), to peers that know how: a round trip less. Off while the draft's text moves
    dtls_in_stun: bool = attrs.field(default=False, validator=_flag)
    # Messages that may be lost travel beside SCTP, to peers that know how; False gives everything to SCTP
    express_lane: bool = attrs.field(default=True, validator=_flag)

    def __attrs_post_init__(self) -> None:
        if self.relay_only and not self.turn_servers:
            raise InvalidConfig("relay_only needs at least one entry in turn_servers")
        if not (self.use_ipv4 or self.use_ipv6):
            raise InvalidConfig("at least one of use_ipv4 and use_ipv6 must be true")
        if not isinstance(self.data_channel_config, DataChannelConfig):
            raise InvalidConfig(f"data_channel_config = {self.data_channel_config!r}: must be a DataChannelConfig")
