"""SCTP chunks of a peer that lies, as it would write them itself. Pure: who sends them, and to whom, is decided elsewhere.

Each storm first makes its victim hold something (`stage`), then goes on for ever, or for as long as there is something to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, cycle

import attrs

from psyne_mesh.webrtc.sctp import wire

WORD = 0xFFFFFFFF
WHOLE = wire.FLAG_BEGIN | wire.FLAG_END
PPID_BINARY = 53  # RFC 8831 section 8

Chunks = Iterator[bytes]


class ChunkMaker:
    """Writes the data of one side. interleaving: I-DATA was agreed on. tsn: the next TSN of this side."""

    def __init__(self, *, interleaving: bool, tsn: int) -> None:
        self.interleaving = interleaving
        self.tsn = tsn

    def data(
        self, payload: bytes = b"x", *, stream: int = 1, number: int = 0, flags: int = WHOLE, ppid: int = PPID_BINARY,
        tsn: int = -1,
    ) -> bytes:  # fmt: skip
        """A DATA chunk, or I-DATA where that was agreed on. `ppid` is the FSN where `flags` do not begin a message."""
        if tsn < 0:
            tsn, self.tsn = self.tsn, self.tsn + 1
        if self.interleaving:
            fields = wire.I_DATA_FIELDS.pack(tsn & WORD, stream, 0, number & WORD, ppid)
            return wire.chunk(wire.I_DATA, flags, fields + payload)
        return wire.chunk(wire.DATA, flags, wire.DATA_FIELDS.pack(tsn & WORD, stream, number & 0xFFFF, ppid) + payload)

    def forward(self, tsn: int, skipped: list[tuple[int, bool, int]]) -> bytes:
        return wire.forward_tsn_chunk(tsn, skipped, interleaving=self.interleaving)


def reset_request(number: int, streams: list[int], last_tsn: int) -> bytes:
    """RFC 6525 section 4.1: our streams are to be reset once `last_tsn` is here."""
    body = wire.U32.pack(number & WORD) + bytes(4) + wire.U32.pack(last_tsn & WORD)
    body += b"".join(map(wire.U16.pack, streams))
    return wire.chunk(wire.RE_CONFIG, 0, wire.parameter(wire.PARAM_OUTGOING_RESET, body))


def held_fragments(maker: ChunkMaker, n: int) -> Chunks:
    """Fragments that never become messages. DATA: each a run of its own. I-DATA: each a message of its own."""
    return (
        maker.data(stream=i // 1000, number=i % 1000, flags=0, ppid=1, tsn=maker.tsn + 2 * i + 1)
        for i in range(n)
    )  # fmt: skip


def holes(maker: ChunkMaker, n: int) -> Chunks:
    """Every second TSN: each is a range of its own."""
    flags = WHOLE | wire.FLAG_UNORDERED
    return (maker.data(flags=flags, tsn=maker.tsn + 2 * i + 1) for i in range(n))


@attrs.frozen
class Peer:
    """What an attacker knows of the association: how it writes, the number of its next reset request, and of the victim the
    last TSN that it acknowledged and how many are outstanding after it."""

    maker: ChunkMaker
    request: int
    base: int
    outstanding: int


@attrs.frozen
class Storm:
    """stage: what the victim is made to hold first. chunks: what then comes."""

    stage: Chunks
    chunks: Chunks


def forwards_over_fragments(peer: Peer, held: int) -> Storm:
    """One TSN further each time, over all that is held."""
    maker = peer.maker
    return Storm(held_fragments(maker, held), (maker.forward(maker.tsn + i, []) for i in count()))


def resets_over_fragments(peer: Peer, held: int) -> Storm:
    """Resets of streams on which nothing was ever sent, over all that is held."""
    maker = peer.maker
    last = maker.tsn - 1
    resets = (reset_request(number, [60_000], last) for number in count(peer.request))
    return Storm(held_fragments(maker, held), resets)


def duplicates_behind_holes(peer: Peer, held: int) -> Storm:
    """Many ranges, and duplicates: each makes the victim tell all of them again."""
    maker = peer.maker
    again = maker.data(flags=WHOLE | wire.FLAG_UNORDERED, tsn=maker.tsn + 1)
    return Storm(holes(maker, 2 * held), cycle([again]))


def window_flaps(peer: Peer, held: int) -> Storm:
    """The window closes and opens, and whatever is outstanding is asked for again and again."""
    return Storm(iter(()), cycle([wire.sack_chunk(peer.base, 0, []), wire.sack_chunk(peer.base, 1 << 24, [])]))


def gap_acks(peer: Peer, held: int) -> Storm:
    """Every second chunk that is outstanding, from above, as many as a SACK takes: each a range of its own."""
    blocks = range(peer.outstanding - 2, 2, -2)
    gaps = (sorted((i, i) for i in blocks[at : at + 250]) for at in range(0, len(blocks), 250))
    return Storm(iter(()), (wire.sack_chunk(peer.base, 1 << 24, gap) for gap in gaps))


def empty_messages(peer: Peer, held: int) -> Storm:
    """Honest in every way, but one byte each."""
    maker = peer.maker
    return Storm(iter(()), (maker.data(flags=WHOLE | wire.FLAG_UNORDERED, stream=60_001, number=i) for i in count()))


STORMS: dict[str, Callable[[Peer, int], Storm]] = {
    storm.__name__: storm
    for storm in (
        forwards_over_fragments,
        resets_over_fragments,
        duplicates_behind_holes,
        window_flaps,
        gap_acks,
        empty_messages,
    )
}
