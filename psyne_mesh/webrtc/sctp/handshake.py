"""What is said in INIT and INIT-ACK, and what a COOKIE-ECHO means (RFC 9260 sections 5.1 and 5.2)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.sctp import wire
from psyne_mesh.webrtc.sctp.config import SctpConfig
from psyne_mesh.webrtc.sctp.cookie import StateCookie, open_cookie_untrusted

if TYPE_CHECKING:
    from random import Random

INIT_BYTES_MAX = 2048  # of an INIT that came with a description, as sctp-proto has it; browsers write 28 to 40
UNRECOGNIZED_BYTES_MAX = 512  # of an INIT's unknown parameters that are named in the answer, which must fit a packet


class CookieVerdict(enum.Enum):
    """RFC 9260 section 5.2.4, table 12."""

    ESTABLISH = "B, or no association stood: take up the peer's tag"
    REPEATED = "D: the association stands; its COOKIE-ACK may have been lost"
    RESTART = "A: the peer began anew"
    DISCARD = "C, or none of the actions: ignore"


def read_init_untrusted(chunk: bytes) -> wire.Init:
    """One whole INIT chunk, without a packet around it, as a description carries it (draft-hancke-tsvwg-snap).
    Raises `ProtocolError` for any other, and for one that could not be answered."""
    if not 20 <= len(chunk) <= INIT_BYTES_MAX:
        raise ProtocolError(f"an INIT of {len(chunk)} bytes")
    kind, _, length = wire.CHUNK_HEADER.unpack_from(chunk)
    if kind != wire.INIT or length < 20 or len(chunk) not in (length, length + 3 & ~3):
        raise ProtocolError("not exactly one INIT chunk")
    init = wire.parse_init_untrusted(chunk, 0, length)
    if fault_of(init) is not None:
        raise ProtocolError("an INIT with which no association can begin")
    return init


def fault_of(init: wire.Init) -> tuple[int, bytes] | None:
    """Cause and value for an INIT or INIT-ACK that must be refused (sections 3.3.2 and 3.3.3), or None."""
    if init.tag == 0 or init.inbound_streams == 0 or init.outbound_streams == 0:
        return wire.CAUSE_INVALID_PARAMETER, b""
    if init.host_name:
        return wire.CAUSE_UNRESOLVABLE_ADDRESS, init.host_name[:512]
    return None


class Handshake:
    """Our side's tag and initial TSN, the cookie secret, and the T1 timer. The state machine is the association's.

    One tag serves our INIT and every INIT-ACK sent before an association stands, as section 5.2.1 asks for when
    both sides open at once.
    """

    __slots__ = ("_config", "_rng", "_secret", "initial_tsn", "tag")

    def __init__(self, config: SctpConfig, rng: Random) -> None:
        self._config = config
        self._rng = rng
        self._secret = rng.randbytes(32)
        self.tag = rng.randrange(1, 2**32)
        self.initial_tsn = rng.randrange(2**32)

    def init_chunk(self) -> bytes:
        return self._init(wire.INIT, self.tag, self.initial_tsn, self._config.streams_max, ())

    def cookie_from(self, init: wire.Init, now: float) -> StateCookie:
        """What an INIT or INIT-ACK of the peer agrees on with our own offer."""
        config = self._config
        forward = config.partial_reliability and (init.forward_tsn or wire.FORWARD_TSN in init.extensions)
        # RFC 8260 section 2.2.1: only when both sides offer it, and with I-FORWARD-TSN where FORWARD-TSN is used
        interleaving = config.interleaving and wire.I_DATA in init.extensions
        interleaving = interleaving and (not forward or wire.I_FORWARD_TSN in init.extensions)
        return StateCookie(
            created_at=now,
            local_tag=self.tag,
            peer_tag=init.tag,
            local_initial_tsn=self.initial_tsn,
            peer_initial_tsn=init.initial_tsn,
            a_rwnd=init.a_rwnd,
            outbound_streams=min(config.streams_max, init.inbound_streams),
            inbound_streams=min(config.streams_max, init.outbound_streams),
            forward_tsn=forward,
            interleaving=interleaving,
            zero_checksum=config.zero_checksum and init.zero_checksum,
            re_config=wire.RE_CONFIG in init.extensions,
        )

    def init_ack_chunk(self, init: wire.Init, now: float, standing: tuple[int, int] | None) -> bytes:
        """INIT-ACK to an INIT. `standing`: our and the peer's tag of the association that stands already, for which
        section 5.2.2 wants a fresh tag and tie-tags. Changes nothing here: all state goes into the cookie."""
        cookie = self.cookie_from(init, now)
        if standing is not None:
            cookie = attrs.evolve(
                cookie,
                local_tag=self._rng.randrange(1, 2**32),
                local_initial_tsn=self._rng.randrange(2**32),
                local_tie_tag=standing[0],
                peer_tie_tag=standing[1],
            )
        extra = [wire.parameter(wire.PARAM_STATE_COOKIE, cookie.seal(self._secret))]
        room = UNRECOGNIZED_BYTES_MAX
        for whole in init.unrecognized:
            room -= len(whole)
            if room < 0:
                break
            extra.append(wire.parameter(wire.PARAM_UNRECOGNIZED, whole))
        return self._init(wire.INIT_ACK, cookie.local_tag, cookie.local_initial_tsn, cookie.outbound_streams, extra)

    def open_cookie_untrusted(self, data: bytes, now: float) -> StateCookie:
        return open_cookie_untrusted(data, self._secret, now, self._config.cookie_lifetime_s)

    def judge(self, cookie: StateCookie, peer_tag: int) -> CookieVerdict:
        """What a genuine cookie means. `peer_tag` is 0 as long as we know none."""
        local_matches = cookie.local_tag == self.tag
        peer_matches = cookie.peer_tag == peer_tag
        if local_matches:
            return CookieVerdict.REPEATED if peer_matches else CookieVerdict.ESTABLISH
        if not peer_matches and peer_tag and (cookie.local_tie_tag, cookie.peer_tie_tag) == (self.tag, peer_tag):
            return CookieVerdict.RESTART
        return CookieVerdict.DISCARD

    def _init(self, kind: int, tag: int, initial_tsn: int, outbound: int, extra: list[bytes] | tuple[()]) -> bytes:
        config = self._config
        extensions = [wire.RE_CONFIG, wire.PAD]
        parameters: list[bytes] = []
        if config.partial_reliability:
            extensions.append(wire.FORWARD_TSN)
            parameters.append(wire.parameter(wire.PARAM_FORWARD_TSN, b""))
        if config.interleaving:
            extensions.append(wire.I_DATA)
            if config.partial_reliability:
                extensions.append(wire.I_FORWARD_TSN)
        if config.zero_checksum:
            value = wire.U32.pack(wire.ZERO_CHECKSUM_DTLS)
            parameters.append(wire.parameter(wire.PARAM_ZERO_CHECKSUM, value))
        parameters.append(wire.parameter(wire.PARAM_EXTENSIONS, bytes(extensions)))
        return wire.init_chunk(
            kind, tag, config.receive_window_bytes, outbound, config.streams_max, initial_tsn, [*parameters, *extra]
        )
