"""Packets in pieces, for a path that came to carry less than the smallest packet of ours, and whose ICMP is blocked.

A chunk that was sent cannot be cut again (RFC 9260 section 6.9), and IP does not fragment what forbids it. So between two of
our own the packet is cut, below SCTP: a lost piece is a lost packet. No SCTP packet begins as a piece does, for its ports are
known.
"""

from __future__ import annotations

from struct import Struct

from psyne_mesh.errors import ProtocolError

MARK = 0xF1  # first byte of a piece; SCTP packets begin with the source port, which must not be 61,696 to 61,951
PACKETS_MAX = 64  # of which some pieces are here and others are not; then the oldest goes, as if lost
PIECES_MAX = 40  # of one packet: 16 KiB in pieces of the smallest size
PIECE_BYTES_MAX = 1191  # a path that carries more carries packets as they are; so 3 MB are held at most
_HEADER = Struct("!BHBB")  # mark, number of the packet, index of the piece, how many there are
HEADER_BYTES = _HEADER.size


class Pieces:
    """1. `cut` what is too long for the path. 2. Give each piece that comes to `join_untrusted`, which returns the packet with
    its last piece. Both cost what they are given."""

    __slots__ = ("_number", "_parts")

    def __init__(self) -> None:
        self._number = 0
        self._parts: dict[int, dict[int, bytes]] = {}  # packet -> index -> piece

    def cut(self, packet: bytes, piece_bytes: int) -> list[bytes]:
        """Pieces of at most `piece_bytes` each, header included."""
        step = piece_bytes - HEADER_BYTES
        parts = [packet[at : at + step] for at in range(0, len(packet), step)]
        self._number = (self._number + 1) & 0xFFFF
        return [_HEADER.pack(MARK, self._number, index, len(parts)) + part for index, part in enumerate(parts)]

    def join_untrusted(self, piece: bytes) -> bytes | None:
        """The packet whose last piece this is, or None. Raises ProtocolError."""
        if not HEADER_BYTES < len(piece) <= PIECE_BYTES_MAX:
            raise ProtocolError(f"piece of {len(piece)} bytes")
        _, number, index, count = _HEADER.unpack_from(piece)
        if not index < count <= PIECES_MAX:
            raise ProtocolError(f"piece {index} of {count}")
        parts = self._parts.get(number)
        if parts is None:
            if len(self._parts) >= PACKETS_MAX:
                del self._parts[next(iter(self._parts))]
            parts = self._parts[number] = {}
        parts[index] = piece[HEADER_BYTES:]
        if len(parts) < count:
            return None
        del self._parts[number]
        return b"".join(part for _, part in sorted(parts.items()))
