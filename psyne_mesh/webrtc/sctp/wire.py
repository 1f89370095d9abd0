"""The bytes of SCTP: numbers, layouts, builders, and the parsers that face the network.

Layouts follow RFC 9260 section 3, RFC 3758 (FORWARD-TSN), RFC 6525 (RE-CONFIG), RFC 8260 (I-DATA), RFC 4820 (PAD) and
RFC 9653 (zero checksum). DATA and I-DATA are packed and unpacked in place by `outbound` and `inbound`: they are the
only chunks that come by the hundred thousand, so none of them gets a Python object here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple

import google_crc32c

from psyne_mesh.errors import ProtocolError

# Chunk types
DATA = 0
INIT = 1
INIT_ACK = 2
SACK = 3
HEARTBEAT = 4
HEARTBEAT_ACK = 5
ABORT = 6
SHUTDOWN = 7
SHUTDOWN_ACK = 8
ERROR = 9
COOKIE_ECHO = 10
COOKIE_ACK = 11
SHUTDOWN_COMPLETE = 14
I_DATA = 64
RE_CONFIG = 130
PAD = 132
FORWARD_TSN = 192
I_FORWARD_TSN = 194

# Flags of DATA and I-DATA; T is that of ABORT and SHUTDOWN-COMPLETE
FLAG_END = 1
FLAG_BEGIN = 2
FLAG_UNORDERED = 4
FLAG_IMMEDIATE = 8
FLAG_T = 1

# Parameter types
PARAM_HEARTBEAT_INFO = 1
PARAM_STATE_COOKIE = 7
PARAM_UNRECOGNIZED = 8
PARAM_HOST_NAME = 11
PARAM_OUTGOING_RESET = 13
PARAM_INCOMING_RESET = 14
PARAM_TSN_RESET = 15
PARAM_RECONFIG_RESPONSE = 16
PARAM_ADD_OUTGOING = 17
PARAM_ADD_INCOMING = 18
PARAM_ZERO_CHECKSUM = 0x8001
PARAM_EXTENSIONS = 0x8008
PARAM_FORWARD_TSN = 0xC000
# Known, and of no use over DTLS: addresses, cookie preservative, address types, random, algorithms
IGNORED_INIT_PARAMS = frozenset((5, 6, 9, 12, 0x8000, 0x8002, 0x8003, 0x8004, 0xC006))

ZERO_CHECKSUM_DTLS = 1  # RFC 9653 section 4: error detection method "SCTP over DTLS"

# Error causes (RFC 9260 section 3.3.10)
CAUSE_INVALID_STREAM = 1
CAUSE_MISSING_PARAMETER = 2
CAUSE_STALE_COOKIE = 3
CAUSE_OUT_OF_RESOURCE = 4
CAUSE_UNRESOLVABLE_ADDRESS = 5
CAUSE_UNRECOGNIZED_CHUNK = 6
CAUSE_INVALID_PARAMETER = 7
CAUSE_UNRECOGNIZED_PARAMETERS = 8
CAUSE_NO_USER_DATA = 9
CAUSE_COOKIE_IN_SHUTDOWN = 10
CAUSE_USER_ABORT = 12
CAUSE_PROTOCOL_VIOLATION = 13

COMMON_HEADER = Struct("!HHIL")  # ports, verification tag, checksum
CHUNK_HEADER = Struct("!BBH")
PARAM_HEADER = Struct("!HH")
DATA_HEADER = Struct("!BBHIHHI")  # ..., TSN, stream, SSN, PPID
DATA_FIELDS = Struct("!IHHI")
I_DATA_HEADER = Struct("!BBHIHHII")  # ..., TSN, stream, reserved, MID, PPID or FSN
I_DATA_FIELDS = Struct("!IHHII")
INIT_FIELDS = Struct("!IIHHI")  # initiate tag, a_rwnd, outbound streams, inbound streams, initial TSN
SACK_FIELDS = Struct("!IIHH")  # cumulative TSN, a_rwnd, gap blocks, duplicates
CHECKSUM = Struct("<I")  # RFC 9260 appendix A: the CRC32c is the one little-endian field
U16 = Struct("!H")
U32 = Struct("!I")

HEADER_BYTES = 12
_ZEROES = b"\0\0\0\0"
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by length & 3
_WORD = 0xFFFFFFFF

# Shortest chunk by type, header included. DATA without user data is refused where its TSN is read.
_CHUNK_BYTES_MIN = {
    DATA: 16,
    I_DATA: 20,
    INIT: 20,
    INIT_ACK: 20,
    SACK: 16,
    SHUTDOWN: 8,
    COOKIE_ECHO: 5,
    RE_CONFIG: 8,
    FORWARD_TSN: 8,
    I_FORWARD_TSN: 8,
}


class NoUserData(ProtocolError):
    """A DATA or I-DATA chunk that carries nothing, and its TSN as on the wire."""

    def __init__(self, tsn: int) -> None:
        super().__init__(f"DATA chunk {tsn} is empty")
        self.tsn = tsn


class Packet(NamedTuple):
    """A packet taken apart. `chunks` holds (type, flags, start of the chunk, end without padding) per chunk."""

    source_port: int
    destination_port: int
    tag: int
    checksum: int
    chunks: list[tuple[int, int, int, int]]


class Init(NamedTuple):
    """An INIT or INIT-ACK chunk. `unrecognized` holds whole parameters that RFC 9260 section 3.2.1 wants reported."""

    tag: int
    a_rwnd: int
    outbound_streams: int
    inbound_streams: int
    initial_tsn: int
    cookie: bytes
    extensions: frozenset[int]
    forward_tsn: bool
    zero_checksum: bool
    host_name: bytes  # the whole parameter, or b""
    unrecognized: tuple[bytes, ...]


class Sack(NamedTuple):
    """A SACK chunk. `gaps` are (start, end) offsets from the cumulative TSN, ascending and disjoint."""

    cumulative_tsn: int
    a_rwnd: int
    gaps: list[tuple[int, int]]
    duplicates: tuple[int, ...]


# -------------------------------------------------------------------------------------------------------------- parsers


def parse_packet_untrusted(packet: bytes) -> Packet:
    """Take a packet apart into chunk bounds, checking that every chunk lies within it. Raises ProtocolError."""
    size = len(packet)
    if size < HEADER_BYTES + 4:
        raise ProtocolError(f"packet of {size} bytes holds no chunk")
    source, destination, tag, checksum = COMMON_HEADER.unpack_from(packet)
    chunks: list[tuple[int, int, int, int]] = []
    unpack = CHUNK_HEADER.unpack_from
    minimum = _CHUNK_BYTES_MIN.get
    start = HEADER_BYTES
    while start + 4 <= size:
        kind, flags, length = unpack(packet, start)
        end = start + length
        if end > size or length < minimum(kind, 4):
            raise ProtocolError(f"chunk of type {kind} with length {length} at byte {start} of {size}")
        chunks.append((kind, flags, start, end))
        start = (end + 3) & ~3
    if start < size:
        raise ProtocolError(f"{size - start} stray bytes after the last chunk")
    return tuple.__new__(Packet, (source, destination, tag, checksum, chunks))  # twice as fast as Packet(...)


def checksum_is_right(packet: bytes) -> bool:
    """Whether the CRC32c of the packet is the one it carries (RFC 9260 section 6.8)."""
    crc: int = google_crc32c.extend(google_crc32c.value(packet[:8] + _ZEROES), packet[12:])
    return CHECKSUM.pack(crc) == packet[8:12]


def parse_parameters_untrusted(packet: bytes, start: int, end: int) -> list[tuple[int, bytes]]:
    """(type, value) of each parameter between two offsets. Raises ProtocolError."""
    parameters: list[tuple[int, bytes]] = []
    while start + 4 <= end:
        kind, length = PARAM_HEADER.unpack_from(packet, start)
        if length < 4 or start + length > end:
            raise ProtocolError(f"parameter {kind:#x} with length {length} at byte {start}")
        parameters.append((kind, packet[start + 4 : start + length]))
        start = (start + length + 3) & ~3
    return parameters


def parse_init_untrusted(packet: bytes, start: int, end: int) -> Init:
    """Read an INIT or INIT-ACK chunk. Raises ProtocolError."""
    tag, a_rwnd, outbound, inbound, tsn = INIT_FIELDS.unpack_from(packet, start + 4)
    cookie = host_name = b""
    extensions: frozenset[int] = frozenset()
    forward_tsn = zero_checksum = False
    unrecognized: list[bytes] = []
    for kind, value in parse_parameters_untrusted(packet, start + 20, end):
        if kind == PARAM_STATE_COOKIE:
            cookie = value
        elif kind == PARAM_EXTENSIONS:
            extensions = frozenset(value)
        elif kind == PARAM_FORWARD_TSN:
            forward_tsn = True
        elif kind == PARAM_ZERO_CHECKSUM:
            zero_checksum = value == U32.pack(ZERO_CHECKSUM_DTLS)
        elif kind == PARAM_HOST_NAME:
            host_name = parameter(kind, value)
        elif kind not in IGNORED_INIT_PARAMS and kind != PARAM_UNRECOGNIZED:
            # RFC 9260 section 3.2.1: bit 14 says report, bit 15 says go on with the next parameter
            if kind & 0x4000:
                unrecognized.append(parameter(kind, value))
            if not kind & 0x8000:
                break
    return Init(
        tag, a_rwnd, outbound, inbound, tsn, cookie, extensions, forward_tsn, zero_checksum, host_name,
        tuple(unrecognized),
    )  # fmt: skip


def parse_sack_untrusted(packet: bytes, start: int, end: int) -> Sack:
    """Read a SACK chunk. Raises ProtocolError when its counts exceed it or its gap blocks are not ascending."""
    cumulative, a_rwnd, n_gaps, n_duplicates = SACK_FIELDS.unpack_from(packet, start + 4)
    if start + 16 + 4 * (n_gaps + n_duplicates) > end:
        raise ProtocolError(f"SACK of {end - start} bytes claims {n_gaps} gap blocks and {n_duplicates} duplicates")
    gaps: list[tuple[int, int]] = []
    if n_gaps:
        bounds = Struct(f"!{2 * n_gaps}H").unpack_from(packet, start + 16)
        gaps = list(zip(bounds[::2], bounds[1::2], strict=True))
        last = 0
        for first, final in gaps:
            if first <= last or final < first:
                raise ProtocolError(f"gap block {first}-{final} after {last}")
            last = final
    duplicates: tuple[int, ...] = ()
    if n_duplicates:
        duplicates = Struct(f"!{n_duplicates}I").unpack_from(packet, start + 16 + 4 * n_gaps)
    return Sack(cumulative, a_rwnd, gaps, duplicates)


def parse_forward_tsn_untrusted(packet: bytes, start: int, end: int) -> tuple[int, list[tuple[int, bool, int]]]:
    """Read FORWARD-TSN (RFC 3758 section 3.2): the new cumulative TSN and (stream, False, SSN) of each skipped one."""
    (tsn,) = U32.unpack_from(packet, start + 4)
    skipped = [
        (stream, False, ssn) for stream, ssn in PARAM_HEADER.iter_unpack(packet[start + 8 : end - (end - start) % 4])
    ]
    return tsn, skipped


def parse_i_forward_tsn_untrusted(packet: bytes, start: int, end: int) -> tuple[int, list[tuple[int, bool, int]]]:
    """Read I-FORWARD-TSN (RFC 8260 section 2.3.1): the new cumulative TSN and (stream, unordered, MID)."""
    (tsn,) = U32.unpack_from(packet, start + 4)
    body = packet[start + 8 : end - (end - start) % 8]
    return tsn, [(stream, bool(flags & 1), mid) for stream, flags, mid in _I_SKIP.iter_unpack(body)]


_I_SKIP = Struct("!HHI")

# ------------------------------------------------------------------------------------------------------------- builders


def chunk(kind: int, flags: int, value: bytes) -> bytes:
    """One chunk, padded to four bytes."""
    return CHUNK_HEADER.pack(kind, flags, 4 + len(value)) + value + _PADDING[len(value) & 3]


def parameter(kind: int, value: bytes) -> bytes:
    """One parameter (or error cause: they share a layout), padded to four bytes."""
    return PARAM_HEADER.pack(kind, 4 + len(value)) + value + _PADDING[len(value) & 3]


def init_chunk(
    kind: int, tag: int, a_rwnd: int, outbound: int, inbound: int, initial_tsn: int, parameters: Iterable[bytes]
) -> bytes:
    """INIT or INIT-ACK."""
    return chunk(kind, 0, INIT_FIELDS.pack(tag, a_rwnd, outbound, inbound, initial_tsn) + b"".join(parameters))


def sack_chunk(
    cumulative_tsn: int, a_rwnd: int, gaps: Sequence[tuple[int, int]], duplicates: Sequence[int] = ()
) -> bytes:
    """SACK. `gaps` are offsets from the cumulative TSN."""
    value = SACK_FIELDS.pack(cumulative_tsn & _WORD, a_rwnd, len(gaps), len(duplicates))
    if gaps or duplicates:
        bounds = [bound for gap in gaps for bound in gap]
        value += Struct(f"!{len(bounds)}H{len(duplicates)}I").pack(*bounds, *duplicates)
    return chunk(SACK, 0, value)


def forward_tsn_chunk(tsn: int, skipped: Iterable[tuple[int, bool, int]], *, interleaving: bool) -> bytes:
    """FORWARD-TSN, or I-FORWARD-TSN under interleaving. `skipped` is (stream, unordered, SSN or MID)."""
    head = U32.pack(tsn & _WORD)
    if interleaving:
        entries = (_I_SKIP.pack(stream, unordered, mid) for stream, unordered, mid in skipped)
        return chunk(I_FORWARD_TSN, 0, head + b"".join(entries))
    # RFC 3758 section 3.2: unordered messages carry no SSN and are not listed
    ordered = (PARAM_HEADER.pack(stream, ssn) for stream, unordered, ssn in skipped if not unordered)
    return chunk(FORWARD_TSN, 0, head + b"".join(ordered))


def error_chunk(kind: int, causes: Iterable[bytes], *, flags: int = 0) -> bytes:
    """ERROR or ABORT with the causes, each built by `parameter`."""
    return chunk(kind, flags, b"".join(causes))


def seal(header: bytes, chunks: Iterable[bytes]) -> bytes:
    """A packet with its CRC32c, from the eight bytes of ports and tag and the chunks."""
    body = b"".join(chunks)
    crc = google_crc32c.extend(google_crc32c.value(header + _ZEROES), body)
    return b"".join((header, CHECKSUM.pack(crc), body))


def seal_without_checksum(header: bytes, chunks: Iterable[bytes]) -> bytes:
    """A packet whose checksum field is zero (RFC 9653 section 5.2)."""
    return b"".join((header, _ZEROES, *chunks))


def describe_cause(cause: int, value: bytes) -> str:
    """An error cause of the peer, for people."""
    text = value[:100].decode("utf-8", "replace") if cause in (CAUSE_USER_ABORT, CAUSE_PROTOCOL_VIOLATION) else ""
    return f"cause {cause}: {text}" if text else f"cause {cause}"


def unwrap(reference: int, wire: int) -> int:
    """The integer nearest to `reference` whose low 32 bits are `wire` (serial arithmetic of RFC 1982)."""
    return reference + ((wire - reference + 0x80000000) & _WORD) - 0x80000000
