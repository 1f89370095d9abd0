"""No reader of outside bytes costs more, for each byte, than its table says. `tests/house/test_costs.py`: each has an entry."""

from __future__ import annotations

import contextlib
import math
import time
from typing import get_args

import pytest

from benchmarks.attacks import tiny_messages
from benchmarks.hostile import PACKINGS, Meter, without_collections
from psyne_mesh.errors import ProtocolError, VersionMismatch
from psyne_mesh.game import requests, state_wire, transfer_wire
from psyne_mesh.game.rollback import wire as rollback
from psyne_mesh.room import fairness, hosting, playing
from psyne_mesh.signaling import cluster_messages, messages
from tests.costs.readers import READERS, Said

HEADER_BYTES = 20  # of an I-DATA chunk, when many share a packet
BYTES = 20_000  # of each input, again and again, until it took so many
TURNS = 5
TRIES = 6


KINDS = {
    "signaling/messages.decode_client_untrusted": messages.ClientMessage,
    "signaling/messages.decode_server_untrusted": messages.ServerMessage,
    "signaling/cluster_messages.decode_untrusted": cluster_messages.AnyClusterMessage,
    "game/requests.decode_untrusted": requests._decoder.type,
    "game/state_wire.decode_untrusted": state_wire._decoder.type,
    "game/transfer_wire.decode_untrusted": transfer_wire._decoder.type,
    "room/fairness.word_untrusted": fairness._decoder.type,
    "room/hosting.decode_untrusted": hosting._decoder.type,
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


def ratio(name: str, said: Said, allowed: float) -> float:
    """CPU for each byte to that of honest one-byte messages, by turns in one thread; the least of some tries."""
    best = math.inf
    size = len(said.encode() if isinstance(said, str) else said) + HEADER_BYTES
    times = 1 + BYTES // TURNS // size
    for _ in range(TRIES):
        read, honest, spent = READERS[name].make(), Meter(tiny_messages(), PACKINGS["bundled"]), 0
        with without_collections():
            for _ in range(TURNS):
                honest.turn(2_000)
                began = time.thread_time_ns()
                for _ in range(times):
                    with contextlib.suppress(ProtocolError, VersionMismatch):
                        read(said)
                spent += time.thread_time_ns() - began
        best = min(best, spent / (TURNS * times * size) / honest.cost.ns_per_byte)
        if best <= allowed:
            break
    return best


@pytest.mark.parametrize("name", READERS)
def test_no_reader_costs_more_than_its_table_says(name: str) -> None:
    reader = READERS[name]
    for said in reader.said:
        assert ratio(name, said, reader.per_byte) <= reader.per_byte, (len(said), said[:60])
