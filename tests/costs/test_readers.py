"""No reader of outside bytes costs more, for each byte, than its table says. `tests/house/test_costs.py`: each has an entry.

Three tests hold it:
- every day, by count: steps of Python, for every input; exact, and the same on every machine. A message has a few for free, as
  accounts charge for items, too.
- every day, by time: three times what the table says, for what C functions do with an input of 200 bytes and more (a smaller
  one counts as that long). So far beyond is only what grows faster than its bytes do.
- the long one, by time: what the table says, for every input whatever its length.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import get_args

import pytest

from benchmarks.hostile import without_collections
from psyne_mesh.errors import ProtocolError, VersionMismatch
from psyne_mesh.game import host_wire, requests, state_wire, transfer_wire
from psyne_mesh.game.rollback import wire as rollback
from psyne_mesh.room import fairness, playing
from psyne_mesh.signaling import cluster_messages, messages
from tests.costs.measures import MESSAGE_STEPS, ROUGHLY, SMALL_BYTES, STEPS, TURNS, honest_steps, steps_of, time_ratio
from tests.costs.readers import READERS, Reader, Said

HEADER_BYTES = 20  # of an I-DATA chunk, when many share a packet
BYTES = 20_000  # of each input, again and again, until it took so many


KINDS = {
    "signaling/messages.decode_client_untrusted": messages.ClientMessage,
    "signaling/messages.decode_server_untrusted": messages.ServerMessage,
    "signaling/cluster_messages.decode_untrusted": cluster_messages.AnyClusterMessage,
    "game/requests.decode_untrusted": requests._decoder.type,
    "game/state_wire.decode_untrusted": state_wire._decoder.type,
    "game/transfer_wire.decode_untrusted": transfer_wire._decoder.type,
    "room/fairness.word_untrusted": fairness._decoder.type,
    "game/host_wire.decode_untrusted": host_wire._decoder.type,
    "room/playing.control_untrusted": playing._control.type,
    "game/rollback/wire.decode_word_untrusted": rollback._decoder.type,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_message_is_tried(name: str) -> None:
    said = READERS[name].said
    for kind in get_args(KINDS[name]):
        tag = kind.__struct_config__.tag
        tried = [each for each in said if (tag if isinstance(each, str) else tag.encode()) in each]
        assert tried, f"nothing in tests/costs/readers.py is a {tag!r}"


def size_of(said: Said) -> int:
    return len(said.encode() if isinstance(said, str) else said) + HEADER_BYTES


def reading(reader: Reader, said: Said, times: int = 1) -> Callable[[], None]:
    read = reader.make()

    def act() -> None:
        for _ in range(times):
            with contextlib.suppress(ProtocolError, VersionMismatch):
                read(said)

    return act


def ratio(reader: Reader, said: Said, enough: float, size: int) -> float:
    """CPU for each of `size` bytes, in units."""
    times = 1 + BYTES // (TURNS * size_of(said))
    return time_ratio(lambda: reading(reader, said, times), times * size, enough)


@pytest.mark.python_only
def test_a_unit_is_what_it_is_said_to_be() -> None:
    assert 0.75 * STEPS <= honest_steps() <= 1.1 * STEPS


@pytest.mark.parametrize("name", READERS)
def test_no_reader_takes_more_steps_than_its_table_says(name: str) -> None:
    reader = READERS[name]
    for said in reader.said:
        act = reading(reader, said)
        act()  # the first fills what is remembered
        allowed = MESSAGE_STEPS + reader.per_byte * STEPS * size_of(said)
        assert steps_of(act) <= allowed, (size_of(said), said[:60])


@pytest.mark.parametrize("name", READERS)
def test_nor_much_more_time(name: str) -> None:
    reader, enough = READERS[name], ROUGHLY * READERS[name].per_byte
    with without_collections():
        for said in reader.said:
            size = max(SMALL_BYTES, size_of(said))
            assert ratio(reader, said, enough, size) <= enough, (size_of(said), said[:60])


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_nor_more_time_at_all(name: str) -> None:
    reader = READERS[name]
    with without_collections():
        for said in reader.said:
            assert ratio(reader, said, reader.per_byte, size_of(said)) <= reader.per_byte, (size_of(said), said[:60])
