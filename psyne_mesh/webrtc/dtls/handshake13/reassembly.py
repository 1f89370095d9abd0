"""Handshake fragments in, whole messages out, in their order (RFC 9147 section 5.5)."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from psyne_mesh.webrtc.dtls.handshake13.messages import Message
from psyne_mesh.webrtc.dtls.handshake13.wire import HANDSHAKE_HEADER_BYTES

# A post-quantum hello has 1.4 kB, a certificate of RSA-4096 1.5 kB. In plaintext anybody may write, so less is held there.
MESSAGE_BYTES_MAX = 16_384
PLAINTEXT_MESSAGE_BYTES_MAX = 8_192
AHEAD_MAX = 8  # messages after the next that are held; a server's flight has five under its keys
PIECES_MAX = 16  # holes in one message: whoever cuts finer than any network needs is not served
VARIANTS_MAX = 3  # of one plaintext message: what an outsider wrote must not keep out what the peer writes
_header = Struct("!BBHHBHBH")  # type, length (8 + 16), message_seq, fragment offset (8 + 16), fragment length (8 + 16)


class Fragment(NamedTuple):
    kind: int
    length: int
    sequence: int
    offset: int
    data: bytes


def split_fragments_untrusted(content: bytes) -> list[Fragment] | None:
    """The fragments in a handshake record; None if it is not made of whole, coherent ones."""
    fragments = []
    at, end = 0, len(content)
    while at < end:
        if end - at < HANDSHAKE_HEADER_BYTES:
            return None
        kind, length_high, length, sequence, offset_high, offset, size_high, size = _header.unpack_from(content, at)
        length, offset, size = length_high << 16 | length, offset_high << 16 | offset, size_high << 16 | size
        at += HANDSHAKE_HEADER_BYTES
        if offset + size > length or at + size > end or (size == 0 < length):
            return None
        fragments.append(Fragment(kind, length, sequence, offset, content[at : at + size]))
        at += size
    return fragments or None


def encode_fragment(kind: int, length: int, sequence: int, offset: int, data: bytes) -> bytes:
    size = len(data)
    return (
        _header.pack(
            kind, length >> 16, length & 0xFFFF, sequence, offset >> 16, offset & 0xFFFF, size >> 16, size & 0xFFFF
        )
        + data
    )


class _Partial:
    """A message of which not all has come. The latest bytes count: who repeats itself mends what others have spoiled."""

    __slots__ = ("data", "kind", "missing")

    def __init__(self, kind: int, length: int) -> None:
        self.kind = kind
        self.data = bytearray(length)
        self.missing = [(0, length)] if length else []  # disjoint, ascending

    def add(self, offset: int, data: bytes) -> bool:
        end = offset + len(data)
        left: list[tuple[int, int]] = []
        for start, stop in self.missing:
            if start < offset:
                left.append((start, min(stop, offset)))
            if stop > end:
                left.append((max(start, end), stop))
        left = [(start, stop) for start, stop in left if start < stop]
        if len(left) > PIECES_MAX:
            return False
        self.data[offset:end] = data
        self.missing = left
        return True

    @property
    def is_whole(self) -> bool:
        return not self.missing


def plaintext_reassembly(sequence: int) -> Reassembly:
    """For a hello: nothing is known of who writes, so only the message that is waited for is collected."""
    return Reassembly(sequence, bytes_max=PLAINTEXT_MESSAGE_BYTES_MAX, ahead_max=0, variants_max=VARIANTS_MAX)


class Reassembly:
    """The messages of one direction from `sequence` on.

    1. `add` each fragment; it says whether it was kept.
    2. `take` until it gives None.

    variants_max: of one message how many versions that differ in type or length are collected side by side; the oldest gives
    way. Everything beyond the bounds is dropped: the peer repeats it.
    """

    __slots__ = ("_ahead_max", "_bytes_max", "_partials", "_variants_max", "_whole", "sequence")

    def __init__(
        self, sequence: int, *, bytes_max: int = MESSAGE_BYTES_MAX, ahead_max: int = AHEAD_MAX, variants_max: int = 1
    ) -> None:
        self.sequence = sequence  # of the message that comes next
        self._bytes_max = bytes_max
        self._ahead_max = ahead_max
        self._variants_max = variants_max
        self._partials: dict[int, dict[tuple[int, int], _Partial]] = {}
        self._whole: dict[int, Message] = {}  # those that came in one piece, which is nearly all

    def add(self, fragment: Fragment) -> bool:
        if fragment.length > self._bytes_max or not 0 <= fragment.sequence - self.sequence <= self._ahead_max:
            return False
        if len(fragment.data) == fragment.length:
            self._whole[fragment.sequence] = Message(fragment.kind, fragment.data)
            return True
        variants = self._partials.setdefault(fragment.sequence, {})
        shape = fragment.kind, fragment.length
        partial = variants.get(shape)
        if partial is None:
            if len(variants) >= self._variants_max:
                if self._variants_max == 1:
                    return False
                del variants[next(iter(variants))]
            partial = variants[shape] = _Partial(fragment.kind, fragment.length)
        return partial.add(fragment.offset, fragment.data)

    def take(self) -> Message | None:
        """The next message, if it is whole."""
        whole = self._whole.pop(self.sequence, None)
        if whole is not None:
            self._partials.pop(self.sequence, None)
            self.sequence += 1
            return whole
        for shape, partial in self._partials.get(self.sequence, {}).items():
            if partial.is_whole:
                del self._partials[self.sequence]
                self.sequence += 1
                return Message(shape[0], bytes(partial.data))
        return None

    @property
    def has_gap(self) -> bool:
        """Something has come of a message that is not whole, or of a later one."""
        return bool(self._partials or self._whole)
