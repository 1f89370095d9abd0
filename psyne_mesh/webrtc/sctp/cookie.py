"""The state cookie: all that an association needs to begin, kept by the peer until its COOKIE-ECHO (RFC 9260 5.1.3)."""

from __future__ import annotations

import hmac
from struct import Struct

import attrs

from psyne_mesh.errors import ProtocolError

_LAYOUT = Struct("!dIIIIIHHIIB")
_MAC_BYTES = 32


class StaleCookie(ProtocolError):
    """A genuine cookie of the peer with `peer_tag`, older than its lifetime by `age_s`."""

    def __init__(self, age_s: float, peer_tag: int) -> None:
        super().__init__(f"state cookie is {age_s:.1f} s too old")
        self.age_s = age_s
        self.peer_tag = peer_tag


@attrs.frozen(kw_only=True)
class StateCookie:
    """What both sides said in INIT and INIT-ACK, already negotiated."""

    created_at: float
    local_tag: int
    peer_tag: int
    local_initial_tsn: int
    peer_initial_tsn: int
    a_rwnd: int
    outbound_streams: int
    inbound_streams: int
    local_tie_tag: int = 0  # tags of the association that stood when this cookie was made (section 5.2.2), or 0
    peer_tie_tag: int = 0
    forward_tsn: bool = False
    interleaving: bool = False
    zero_checksum: bool = False  # may our packets go without a checksum
    re_config: bool = False

    def seal(self, secret: bytes) -> bytes:
        flags = self.forward_tsn | self.interleaving << 1 | self.zero_checksum << 2 | self.re_config << 3
        body = _LAYOUT.pack(
            self.created_at,
            self.local_tag,
            self.peer_tag,
            self.local_initial_tsn,
            self.peer_initial_tsn,
            self.a_rwnd,
            self.outbound_streams,
            self.inbound_streams,
            self.local_tie_tag,
            self.peer_tie_tag,
            flags,
        )
        return body + hmac.digest(secret, body, "sha256")


def open_cookie_untrusted(data: bytes, secret: bytes, now: float, lifetime_s: float) -> StateCookie:
    """The cookie, if we made it and it is fresh. Raises ProtocolError, or StaleCookie of that kind."""
    if len(data) != _LAYOUT.size + _MAC_BYTES:
        raise ProtocolError(f"state cookie of {len(data)} bytes")
    body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, hmac.digest(secret, body, "sha256")):
        raise ProtocolError("state cookie that we did not sign")
    created_at, local, peer, local_tsn, peer_tsn, a_rwnd, out, inn, tie_l, tie_p, flags = _LAYOUT.unpack(body)
    cookie = StateCookie(
        created_at=created_at,
        local_tag=local,
        peer_tag=peer,
        local_initial_tsn=local_tsn,
        peer_initial_tsn=peer_tsn,
        a_rwnd=a_rwnd,
        outbound_streams=out,
        inbound_streams=inn,
        local_tie_tag=tie_l,
        peer_tie_tag=tie_p,
        forward_tsn=bool(flags & 1),
        interleaving=bool(flags & 2),
        zero_checksum=bool(flags & 4),
        re_config=bool(flags & 8),
    )
    age = now - created_at - lifetime_s
    if age > 0:
        raise StaleCookie(age, peer)
    return cookie
