"""Names in any writing; none that steers a terminal."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.identity import PeerId
from psyne_mesh.names import PLAIN_PATTERN, is_plain, normal, plain
from psyne_mesh.room.options import entry_of
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.events import room_key
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.registry import RoomRegistry

GOOD = {
    "Japanese": "さくらの部屋",
    "Persian with a joiner": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "a family of emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "NBSP": "salle\u00a0à\u00a0manger",
    "right to left mark": "אב\u200f!",
    "ideographic space": "東京\u3000大阪",
    "soft hyphen": "a\u00adb",
    "Devanagari": "क्\u200dष",
}
BAD = {
    "newline": "a\nb",
    "escape": "\x1b[2J",
    "C1": "a\x9bb",
    "NUL": "\0",
    "line separator": "a\u2028b",
    "bidi override": "\u202ecod.exe",
    "bidi isolate": "a\u2066b",
    "surrogate": "a\ud800",
}


def read_back(name: str) -> m.ClientMessage:
    return m.decode_client_untrusted(m.encode(m.Join(ref=0, name=name, region=name, app_id=name)))


@pytest.mark.parametrize("name", GOOD.values(), ids=GOOD.keys())
def test_every_writing_is_a_name(name: str) -> None:
    assert plain(name) == name
    assert entry_of(name, region=name, app_id=name).request.name == name
    assert read_back(name) == m.Join(ref=0, name=name, region=name, app_id=name)


@pytest.mark.parametrize("name", BAD.values(), ids=BAD.keys())
def test_what_steers_a_terminal_is_none(name: str) -> None:
    assert not is_plain(name)
    assert is_plain(plain(name))
    with pytest.raises(InvalidConfig):
        entry_of(name)
    with pytest.raises(InvalidConfig):
        entry_of("r", region=name)
    with pytest.raises(InvalidConfig):
        entry_of("r", app_id=name)
    with pytest.raises((ProtocolError, UnicodeEncodeError)):
        read_back(name)


@given(st.text(max_size=50))
def test_the_pattern_of_the_wire_and_the_function_agree(text: str) -> None:
    assert is_plain(text) is (re.match(PLAIN_PATTERN, text) is not None)


def test_a_name_is_one_room_however_a_keyboard_makes_it() -> None:
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    assert room_key(composed) == room_key(decomposed)
    registry = RoomRegistry()
    for number, name in enumerate((composed, decomposed)):
        registry.join(PeerId(f"{number:032x}"), JoinRequest(name=name), 0)
    assert [room.players for room in registry.list_rooms().rooms] == [2]


def test_a_name_that_grows_in_its_normal_form_stays_within_the_bounds_of_the_wire() -> None:
    grows = "\U0001d160"
    assert len(normal(grows)) == 3
    assert unicodedata.is_normalized("NFC", normal(grows))
    read_back(grows * 21)
    with pytest.raises((ProtocolError, ValueError)):
        read_back(grows * 60)
