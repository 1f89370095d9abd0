"""What a member's messages may cost the room that reads them, for each byte: every day counted in steps, and three times as
much in time (`tests/costs/measures.py`); the long test holds the time itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, cycle, islice, product
from typing import Any

import msgspec
import pytest

from benchmarks.hostile import without_collections
from psyne_mesh import Message
from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.link_driver import LABEL_CHARS_MAX
from psyne_mesh.room.codec import MessageCodec
from psyne_mesh.room.heaviest import Heaviest
from psyne_mesh.room.undeclared import MESSAGES_MAX, Undeclared
from tests.costs.measures import MESSAGE_STEPS, ROUGHLY, SMALL_BYTES, STEPS, TURNS, steps_of, time_ratio

RATIO_MAX = 6.0  # to one-byte messages through SCTP; those take a fifth of what is allowed
MESSAGE_OVERHEAD_BYTES = 20  # of an I-DATA chunk, when many share a packet


class Anything(Message):
    value: Any


class Typed(Message):
    words: dict[str, list[float]] = {}
    where: tuple[float, ...] = ()


def _packed(kind: type[Message], value: object) -> bytes:
    return msgspec.msgpack.encode([kind.__name__, value])


def _map_of(n: int, key: Callable[[int], object], value: object) -> bytes:
    return _packed(Anything, {key(i): value for i in range(n)})


MESSAGES = {
    "lists of nothing": _packed(Anything, [[]] * 50_000),
    "maps of nothing": _packed(Anything, [{}] * 50_000),
    "maps of maps": _map_of(10_000, lambda i: i, {}),
    "numbers": _packed(Anything, [1] * 50_000),
    "floats": _packed(Anything, [1.5] * 10_000),
    "maps of one": _packed(Anything, [{0: 0}] * 20_000),
    "deep": _packed(Anything, [[[[[[[[1]]]]]]]] * 5_000),
    "same low bits": _map_of(10_000, lambda i: i << 40, 0),
    "the last is NaN": _packed(Anything, [[]] * 50_000 + [float("nan")]),
    "no message": b"\x90",
    "another type": msgspec.msgpack.encode(["Else", 1]),
    "wrong field": _packed(Typed, 1),
    "typed lists of nothing": _packed(Typed, {str(i): [] for i in range(5_000)}),
    "cut short": _packed(Anything, [[]] * 50_000)[:-1],
    "not UTF-8": _packed(Anything, ["x"] * 50_000)[:-1] + b"\xff",
}


def reading(payload: bytes, times: int = 1) -> Callable[[], None]:
    codec = MessageCodec([Anything, Typed])

    def work() -> None:
        for _ in range(times):
            try:
                codec.decode_untrusted(payload)
            except ProtocolError:
                continue

    return work


def time_of_reading(payload: bytes, size: int, enough: float) -> float:
    times = 1 + 20_000 // (TURNS * size)
    with without_collections():
        return time_ratio(lambda: reading(payload, times), times * size, enough)


@pytest.mark.parametrize("name", MESSAGES)
def test_of_reading_them(name: str) -> None:
    payload = MESSAGES[name]
    size = len(payload) + MESSAGE_OVERHEAD_BYTES
    assert steps_of(reading(payload)) <= MESSAGE_STEPS + RATIO_MAX * STEPS * size
    assert time_of_reading(payload, max(SMALL_BYTES, size), ROUGHLY * RATIO_MAX) <= ROUGHLY * RATIO_MAX


@pytest.mark.slow
@pytest.mark.parametrize("name", MESSAGES)
def test_of_reading_them_to_the_last(name: str) -> None:
    payload = MESSAGES[name]
    assert time_of_reading(payload, len(payload) + MESSAGE_OVERHEAD_BYTES, RATIO_MAX) <= RATIO_MAX


@pytest.mark.parametrize("payload", [MESSAGES["lists of nothing"], MESSAGES["the last is NaN"]], ids=["finite", "NaN"])
def test_nothing_inside_is_overlooked(payload: bytes) -> None:
    codec = MessageCodec([Anything])
    if payload is MESSAGES["the last is NaN"]:
        with pytest.raises(ProtocolError, match="NaN"):
            codec.decode_untrusted(payload)
    else:
        codec.decode_untrusted(payload)


def _names() -> Iterator[tuple[PeerId, str]]:
    """One author and ever new channels."""
    author = Identity.generate().peer_id
    return ((author, str(i)) for i in count())


def _authors() -> Iterator[tuple[PeerId, str]]:
    """Ever new authors, as far as keys are cheap."""
    return cycle([(Identity.generate().peer_id, "x") for _ in range(2 * MESSAGES_MAX)])


def _both() -> Iterator[tuple[PeerId, str]]:
    authors = [Identity.generate().peer_id for _ in range(64)]
    return ((authors[i % 64], str(i)) for i in count())


def keeping(who: Callable[[], Iterator[tuple[PeerId, str]]], size: int, n: int) -> Callable[[], None]:
    """`n` more messages for a table that is full; so many again each time."""
    kept, words = Undeclared(), who()
    for author, name in islice(words, MESSAGES_MAX):
        kept.put(author, name, bytes(size), 0.0)

    def work() -> None:
        for author, name in islice(words, n):
            kept.put(author, name, bytes(size), 0.0)

    return work


KEPT = pytest.mark.parametrize(("who", "size"), list(product((_names, _authors, _both), (1, 10_000))))
NAME_BYTES = 17  # a name of one letter would be announced again and again


@KEPT
def test_of_keeping_what_nobody_declared(who: Callable[[], Iterator[tuple[PeerId, str]]], size: int) -> None:
    whole = size + MESSAGE_OVERHEAD_BYTES + NAME_BYTES
    assert steps_of(keeping(who, size, 500)) <= 500 * RATIO_MAX * STEPS * whole
    with without_collections():
        assert time_ratio(lambda: keeping(who, size, 100), 100 * whole, ROUGHLY * RATIO_MAX) <= ROUGHLY * RATIO_MAX


@pytest.mark.slow
@KEPT
def test_of_keeping_it_to_the_last(who: Callable[[], Iterator[tuple[PeerId, str]]], size: int) -> None:
    whole = size + MESSAGE_OVERHEAD_BYTES + NAME_BYTES
    with without_collections():
        assert time_ratio(lambda: keeping(who, size, 100), 100 * whole, RATIO_MAX) <= RATIO_MAX


def test_the_heaviest_is_found_whatever_was_added_and_taken() -> None:
    weights: Heaviest[str] = Heaviest()
    expected: dict[str, int] = {}
    for i in range(3000):
        key, weight = str(i * 7919 % 37), (i * 31) % 5 - 2
        if expected.get(key, 0) + weight < 0:
            continue
        weights.add(key, weight)
        expected[key] = expected.get(key, 0) + weight
        expected = {key: total for key, total in expected.items() if total}
        assert weights.weights == expected
        if expected:
            assert expected[weights.heaviest()] == max(expected.values())
    assert len(weights._heap) < 300


def test_a_label_that_no_room_has_is_not_read() -> None:
    assert LABEL_CHARS_MAX < 200
