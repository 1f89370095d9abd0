"""Candidates: our own as SDP text, the peer's from SDP text, and the priorities of both (RFC 8445 section 5.1.2)."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final

import attrs

from psyne_mesh.config import without_zone
from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.ice.events import Address, CandidateKind
from psyne_mesh.webrtc.ice.library import Candidate, candidate_priority

CANDIDATE_CHARACTERS_MAX: Final = 512  # browsers send about 150
COMPONENT: Final = 1  # data channels have no other (RFC 8841)


@attrs.frozen
class Found:
    """A local transport address that gathering found, the same for every peer of the endpoint.

    base: the address that datagrams leave from, as far as peers may know it; the address itself for host and relay.
    preference: RFC 8445's local preference, 0 to 65535, unique within the endpoint.
    server: what it was learnt from, so that candidates of different origin have different foundations.
    """

    kind: CandidateKind
    address: Address
    base: Address
    preference: int
    server: str = ""

    def candidate(self, *, hide_base: bool = False) -> Candidate:
        host, port = self.address
        related: Address | None = None
        if self.kind != "host":
            # RFC 8839 section 5.1: a hidden related address is written 0.0.0.0 (or ::) and port 9.
            related = ("::" if ":" in host else "0.0.0.0", 9) if hide_base else self.base
        key = f"{self.kind}|{self.base[0] if self.kind == 'srflx' else host}|{self.server}"
        return Candidate(
            foundation=str(int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")),
            component=COMPONENT,
            transport="udp",
            priority=candidate_priority(COMPONENT, self.kind, self.preference),
            host=host,
            port=port,
            type=self.kind,
            related_address=related[0] if related else None,
            related_port=related[1] if related else None,
        )

    def text(self, ufrag: str, *, hide_base: bool = False) -> str:
        """The SDP form. The ufrag tells the generation, so that a late one is not taken for one of a newer restart."""
        return f"candidate:{self.candidate(hide_base=hide_base).to_sdp()} ufrag {ufrag}"


def parse_candidate_untrusted(text: str) -> tuple[Candidate, str | None]:
    """The candidate, and the ufrag it belongs to if it says so. Raises `ProtocolError`."""
    if len(text) > CANDIDATE_CHARACTERS_MAX or not text.isascii():
        raise ProtocolError("candidate: too long or not ASCII")
    words = text.strip().removeprefix("a=").removeprefix("candidate:").split()
    if len(words) < 8 or words[6] != "typ":
        raise ProtocolError("candidate: expected 'foundation component transport priority address port typ kind'")
    try:
        candidate = Candidate.from_sdp(" ".join(words))
    except ValueError as error:
        raise ProtocolError(f"candidate: {error}") from error
    candidate.host = without_zone(candidate.host)
    if not 0 < candidate.port < 65536 or not 0 < candidate.priority < 2**32:
        raise ProtocolError("candidate: port or priority out of range")
    if candidate.type not in ("host", "srflx", "prflx", "relay"):
        raise ProtocolError(f"candidate: unknown type {candidate.type!r}")
    ufrag = next((value for name, value in zip(words[8::2], words[9::2]) if name == "ufrag"), None)
    return candidate, ufrag


def may_check(host: str, *, loopback: bool) -> bool:
    """Whether a check may be sent to this numeric address: a peer must not aim us at groups or at everybody."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_multicast or address.is_unspecified or host == "255.255.255.255":
        return False
    # A link-local IPv6 address means nothing without the interface, which a candidate cannot name.
    if address.version == 6 and (address.is_link_local or address.ipv4_mapped is not None):
        return False
    return loopback or not address.is_loopback
