"""WebSocket frames are counted as wsproto reads them, however they are cut."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from psyne_mesh.signaling.frames import FrameCounter


def frame(size: int, opcode: int = 2, *, fin: bool = True, masked: bool = True) -> bytes:
    head = bytes([(0x80 if fin else 0) | opcode])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 2**16:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    return head + (b"mask" if masked else b"") + bytes(size)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000]), max_size=12), st.integers())
def test_however_the_bytes_are_cut(sizes: list[int], seed: int) -> None:
    rng = random.Random(seed)
    data = b"".join(frame(size, masked=rng.random() < 0.8) for size in sizes)
    counter, counted, at = FrameCounter(), 0, 0
    while at < len(data):
        step = rng.choice([1, 2, 3, 7, 1_000, 100_000])
        counted += counter.feed(data[at : at + step])
        at += step
    assert counted == len(sizes)


def test_as_the_library_reads_them() -> None:
    rng = random.Random(3)
    data = frame(1, 1, fin=False) + b"".join(frame(rng.choice([0, 5, 126]), 0, fin=False) for _ in range(50))
    data += frame(0, 0) + frame(4, Opcode.PING)
    protocol = FrameProtocol(client=False, extensions=[])
    protocol.receive_bytes(data)
    assert FrameCounter().feed(data) == sum(event.frame_finished for event in protocol.received_frames()) == 53


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_nonsense_is_counted_too(pieces: list[bytes]) -> None:
    counter = FrameCounter()
    for piece in pieces:
        assert 0 <= counter.feed(piece) <= len(piece)
