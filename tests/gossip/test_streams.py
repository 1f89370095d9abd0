"""Per-origin order: gaps, floors, new lives, limits."""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.events import BroadcastReceived
from psyne_mesh.gossip.streams import Stream, Streams
from psyne_mesh.identity import PeerId
from tests.gossip.neighbours import (
    CONFIG,
    A,
    B,
    C,
    D,
)


@attrs.frozen
class Numbered:
    origin: PeerId
    epoch: int
    sequence: int
    floor: int
    payload: bytes = b""


def stranger(origin: PeerId) -> int:
    return 0


def accept(streams: Streams, origin: PeerId, epoch: int, sequence: int, floor: int, now: float) -> Stream | None:
    return streams.accept(Numbered(origin, epoch, sequence, floor), now, now)


def sequences(streams: Streams) -> list[int]:
    return [event.seq for event in streams.effects.events if isinstance(event, BroadcastReceived)]


def test_fifo_steps_over_what_nobody_can_give() -> None:
    streams = Streams(GossipConfig(gap_timeout_s=3.0), stranger, Effects())
    for sequence in (1, 4, 5):
        accept(streams, A, 1, sequence, 1, 10.0)
    assert sequences(streams) == [1]
    assert streams.deadline == 13.0
    streams.handle_timeout(13.0)
    assert sequences(streams) == [1, 4, 5]
    assert streams.skipped == 2
    assert streams.deadline == float("inf")


def test_the_floor_ends_hopeless_waits() -> None:
    streams = Streams(CONFIG, stranger, Effects())
    accept(streams, A, 1, 1, 1, 0.0)
    accept(streams, A, 1, 3, 1, 0.0)
    accept(streams, A, 1, 1000, 1000, 60.0)
    assert sequences(streams) == [1, 3, 1000]
    assert streams.skipped == 997


def test_a_new_life_starts_anew_and_the_old_one_is_over() -> None:
    streams = Streams(CONFIG, stranger, Effects())
    accept(streams, A, 1, 9, 9, 0.0)
    accept(streams, A, 2, 1, 1, 0.0)
    assert not streams.is_new(A, 1, 10)
    assert accept(streams, A, 1, 10, 10, 0.0) is None
    assert sequences(streams) == [9, 1]


def test_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.streams._STREAMS_MAX", 2)
    monkeypatch.setattr("psyne_mesh.gossip.streams._PENDING_MAX", 3)
    streams = Streams(CONFIG, stranger, Effects())
    for peer in (A, B, C):
        accept(streams, peer, 1, 1, 1, 0.0)
    assert streams.get(A) is None
    for sequence in range(3, 20):
        accept(streams, C, 1, sequence, 1, 0.0)
    stream = streams.get(C)
    assert stream is not None
    assert len(stream.pending) == 3


def test_strangers_take_no_place_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.streams._STREAMS_MAX", 2)
    streams = Streams(CONFIG, lambda origin: {A: 2, B: 1, C: 2}.get(origin, 0), Effects())
    accept(streams, A, 1, 1, 1, 0.0)
    for peer in (D, B, D):  # of those who are gone no more than of members
        accept(streams, peer, 1, 1, 1, 0.0)
    assert [streams.get(peer) is not None for peer in (A, B, C, D)] == [True, True, False, False]
    assert streams.refused == 1
    accept(streams, C, 1, 1, 1, 0.0)
    assert [streams.get(peer) is not None for peer in (A, B, C, D)] == [True, False, True, False]


@given(st.permutations(range(1, 13)), st.sets(st.integers(1, 12), max_size=4), st.integers(0, 2**32))
def test_any_order_with_any_losses_is_delivered_in_order_once(order: list[int], lost: set[int], seed: int) -> None:
    streams, rng, now = Streams(GossipConfig(gap_timeout_s=3.0), stranger, Effects()), random.Random(seed), 0.0
    streams.position(A, 1, 1)
    for sequence in order:
        now += rng.random() / 10
        for _ in range(rng.randint(1, 2)):
            if sequence not in lost and streams.is_new(A, 1, sequence):
                accept(streams, A, 1, sequence, 1, now)
    while streams.deadline < float("inf"):
        streams.handle_timeout(streams.deadline)
    assert sequences(streams) == [s for s in range(1, 13) if s not in lost]


def test_the_stream_that_was_silent_for_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.streams._STREAMS_MAX", 2)
    streams = Streams(GossipConfig(), stranger, Effects())
    for origin, sequence in ((A, 1), (B, 1), (A, 2), (C, 1)):
        accept(streams, origin, 1, sequence, 1, 10.0)
    assert streams.get(B) is None
    assert streams.get(A) is not None
    streams.forget(A)
    assert streams.get(A) is None
