"""The bytes on the wire: golden vectors, bounds, and decoders that never raise anything but ProtocolError."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip import codec, exchange, proofs, records, routing, sync, walks
from psyne_mesh.gossip.view_hash import BUCKETS
from psyne_mesh.identity import PeerId

PEER = PeerId("00112233445566778899aabbccddeeff")
OTHER = PeerId("ffeeddccbbaa99887766554433221100")


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (2**32, "8080808010"),
        (2**64 - 1, "ff" * 9 + "01"),
    ],
)
def test_varint_golden(value: int, encoded: str) -> None:
    assert codec.varint(value).hex() == encoded
    reader = codec.Reader(bytes.fromhex(encoded), 0)
    assert reader.varint_untrusted() == value
    reader.done_untrusted()


@pytest.mark.parametrize("bad", ["", "80", "ff" * 9 + "02", "ff" * 10 + "01"])
def test_varint_refuses_what_is_cut_short_or_too_large(bad: str) -> None:
    with pytest.raises(ProtocolError):
        codec.Reader(bytes.fromhex(bad), 0).varint_untrusted()


HASH = bytes(range(16))
KEPT = wire.Keep(
    codec.peer_of_key(b"\xaa" * 32),
    b"\xaa" * 32,
    5,
    7,
    300,
    b"\xaa" * 32 + bytes(7) + b"\x05\x07\xac\x02" + b"\xbb" * 64,
)

GOLDEN = {
    "ping_req": (codec.ping_req(7, PEER), "020300000007" + PEER + "00"),
    "indirect ack": (codec.indirect(7, PEER, alive=True), "020400000007" + PEER + "01"),
    "probe": (
        codec.PROBE.pack(2, codec.PING, 9, b"16 bytes of hash", 251, 8, -1, 2, 3, 4, 5, 6, 7),
        "020100000009" + b"16 bytes of hash".hex() + "00fb08ffff000200030004000500060007",
    ),
    "summary": (sync.summary([bytes(16)] * 15 + [HASH]), "0207" + "00" * 240 + HASH.hex()),
    "digest": (sync.digest(0x8001, [(PEER, 300, 2, 1, HASH)]), "02088001" + PEER + "ac020201" + HASH.hex()),
    "delta": (sync.delta([PEER], [], 100)[0], "020901" + PEER),
    "ihave": (wire.encode_ihave([wire.message_line((PEER, 1, 300), 3)]), "020b" + PEER + "01ac0203"),
    "graft": (wire.encode_graft([(PEER, 1, 2)], 0), "020c00" + PEER + "0102"),
    "haves": (wire.encode_haves([wire.Have(PEER, 1, 9, 8, 2.0)], 1), "020e01" + PEER + "010902c801"),
    "keep": (wire.encode_keep(2, KEPT.body), "021602" + "aa" * 32 + "00" * 7 + "0507" + "ac02" + "bb" * 64),
    "signal": (
        routing.encode_signal(routing.Signal(5, PEER, OTHER, 6, b"hi")),
        "020f0000000000000005" + PEER + OTHER + "066869",
    ),
    "relay": (routing.encode_relay(PEER, b"\x01\x0a"), "0210" + PEER + "010a"),
    "shuffle": (walks.encode_shuffle(codec.SHUFFLE, bytes(8), 3, [walks.Line(b"r", 300)]), "0212" + "00" * 8 + "03ac020172"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_frames(name: str) -> None:
    frame, expected = GOLDEN[name]
    assert frame.hex() == expected


def test_frames_read_back() -> None:
    assert codec.indirect_untrusted(codec.ping_req(7, PEER)) == (7, PEER, False)
    assert codec.indirect_untrusted(codec.indirect(7, PEER, alive=True)) == (7, PEER, True)
    line = (PEER, 300, 2, 1, HASH)
    assert sync.digest_untrusted(sync.digest(3, [line])) == (3, [sync.Entry(*line)])
    assert sync.delta_untrusted(sync.delta([PEER, OTHER], [], 100)[0]) == ([PEER, OTHER], 35)
    assert wire.ihave_untrusted(wire.encode_ihave([wire.message_line((PEER, 1, 2), 300)])) == [((PEER, 1, 2), 255)]
    assert wire.graft_untrusted(wire.encode_graft([(PEER, 1, 2)], wire.REPAIR)) == (wire.REPAIR, [(PEER, 1, 2)])
    assert wire.haves_untrusted(wire.encode_haves([wire.Have(PEER, 1, 9, 10, 0.5)], 0)) == (
        0,
        [wire.Have(PEER, 1, 9, 10, 0.5)],
    )
    assert wire.keep_untrusted(wire.encode_keep(2, KEPT.body)) == (2, KEPT)
    signal = routing.Signal(5, PEER, OTHER, 6, b"hi")
    assert routing.signal_untrusted(routing.encode_signal(signal), 10, 16) == signal
    assert routing.relay_untrusted(routing.encode_relay(PEER, b"\x01\x0a")) == (PEER, b"\x01\x0a")
    lines = [walks.Line(b"r", 300)]
    assert walks.shuffle_untrusted(walks.encode_shuffle(codec.SHUFFLE, bytes(8), 3, lines)) == (bytes(8), 3, lines)


def test_packing_keeps_frames_under_the_limit() -> None:
    items = [codec.item(1, bytes(n)) for n in (400, 400, 400, 2000, 10)]
    frames = codec.pack_items(b"\x01\x05", items, 1000)
    assert [len(frame) for frame in frames] == [808, 405, 2005, 14]
    assert b"".join(frame[2:] for frame in frames) == b"".join(items)
    assert [kind for frame in frames for kind, _ in codec.items_untrusted(frame, 2)] == [1] * 5


def test_lists_have_limits() -> None:
    too_many_items = b"\x01\x05" + codec.item(1, b"") * (codec.ITEMS_MAX + 1)
    with pytest.raises(ProtocolError):
        codec.items_untrusted(too_many_items, 2)
    with pytest.raises(ProtocolError):
        sync.delta_untrusted(b"\x01\x09" + codec.varint(5000))
    with pytest.raises(ProtocolError):
        routing.signal_untrusted(routing.encode_signal(routing.Signal(5, PEER, OTHER, 6, bytes(11))), 10, 16)
    with pytest.raises(ProtocolError):
        codec.frame_type_untrusted(b"\x02\x05" + bytes(codec.FRAME_MAX))
    with pytest.raises(ProtocolError):
        codec.frame_type_untrusted(b"\x01\x05")


DECODERS: list[Callable[[bytes], object]] = [
    codec.frame_type_untrusted,
    codec.probe_untrusted,
    codec.indirect_untrusted,
    lambda data: codec.items_untrusted(data, 2),
    records.record_untrusted,
    records.accusation_untrusted,
    sync.digest_untrusted,
    sync.delta_untrusted,
    lambda data: sync.differing_untrusted(data, 2, [HASH] * BUCKETS),
    exchange.gone_untrusted,
    proofs.proof_untrusted,
    lambda data: wire.gossip_untrusted(data, 1000),
    wire.ihave_untrusted,
    wire.graft_untrusted,
    wire.haves_untrusted,
    wire.keep_untrusted,
    lambda data: routing.signal_untrusted(data, 1000, 16),
    routing.relay_untrusted,
    walks.join_untrusted,
    walks.shuffle_untrusted,
]


def _never_raises_anything_else(data: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(data)
        except ProtocolError:
            continue


@given(st.binary(max_size=300))
def test_decoders_survive_random_bytes(data: bytes) -> None:
    _never_raises_anything_else(data)


@given(st.sampled_from(sorted(GOLDEN)), st.integers(0, 400), st.integers(0, 255), st.integers(0, 40))
def test_decoders_survive_bent_frames(name: str, place: int, value: int, cut: int) -> None:
    frame = bytearray(GOLDEN[name][0])
    frame[place % len(frame)] = value
    _never_raises_anything_else(bytes(frame))
    _never_raises_anything_else(bytes(frame[: max(0, len(frame) - cut)]))
