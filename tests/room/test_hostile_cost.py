"""What a member's messages may cost the room that reads them, for each byte: see `tests/sctp/test_hostile_cost.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice
from typing import Any

import msgspec
import pytest

from benchmarks.attacks import tiny_messages
from benchmarks.hostile import PACKINGS, Meter, without_collections
from psyne_mesh import Message
from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.link_driver import LABEL_CHARS_MAX
from psyne_mesh.room.codec import MessageCodec
from psyne_mesh.room.heaviest import Heaviest
from psyne_mesh.room.undeclared import MESSAGES_MAX, Undeclared

RATIO_MAX = 6.0  # to one-byte messages through SCTP; those take a fifth of what is allowed
TRIES = 4
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


def ratio(work: Callable[[], int]) -> float:
    """CPU for each byte, of which `work` returns how many it took, to that of honest one-byte messages before and after it."""
    best = math.inf
    for _ in range(TRIES):
        honest = Meter(tiny_messages(), PACKINGS["bundled"])
        with without_collections():
            honest.turn(10_000)
            start = time.thread_time_ns()
            taken = work()
            spent = time.thread_time_ns() - start
            honest.turn(10_000)
        best = min(best, spent / taken / honest.cost.ns_per_byte)
        if best <= RATIO_MAX:
            break
    return best


@pytest.mark.parametrize("name", MESSAGES)
def test_of_reading_them(name: str) -> None:
    codec = MessageCodec([Anything, Typed])
    payload = MESSAGES[name]
    times = 1 + 20_000 // len(payload)

    def work() -> int:
        for _ in range(times):
            try:
                codec.decode_untrusted(payload)
            except ProtocolError:
                continue
        return times * (len(payload) + MESSAGE_OVERHEAD_BYTES)

    assert ratio(work) <= RATIO_MAX


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


@pytest.mark.parametrize("who", [_names, _authors, _both])
@pytest.mark.parametrize("size", [1, 10_000])
def test_of_keeping_what_nobody_declared(who: Callable[[], Iterator[tuple[PeerId, str]]], size: int) -> None:
    kept = Undeclared()
    words = who()
    for author, name in islice(words, MESSAGES_MAX):
        kept.put(author, name, bytes(size), 0.0)

    def work() -> int:
        for author, name in islice(words, 500):
            kept.put(author, name, bytes(size), 0.0)
        return 500 * (size + MESSAGE_OVERHEAD_BYTES + 17)  # a name of one letter would be announced again and again

    assert ratio(work) <= RATIO_MAX


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
