"""The public names: few at the top, one short home for each of the others, and docs/api.md lists them all."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import psyne_mesh
from tests.house.test_classes import CLASSES, bases_of, of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
# What a game writes daily. A name that comes in here puts another one out.
TOP = {
    "Channel", "CombatAction", "Identity", "Message", "Peer", "PlayerPosition", "PsyneMeshError", "Room", "RoomFull",
    "Shared", "StunServer", "TurnServer", "WebRTCConfig", "create_channel", "create_gaming_channel", "create_room",
    "events", "join_game_room", "join_room", "list_rooms", "open_mesh", "quantised", "quick_match", "smooth", "sync",
}  # fmt: skip
# Homes that the page lists name by name.
WHOLE = (
    "psyne_mesh",
    "psyne_mesh.sync",
    "psyne_mesh.room",
    "psyne_mesh.events",
    "psyne_mesh.errors",
    "psyne_mesh.signaling",
)
PARTS = (
    "psyne_mesh.config", "psyne_mesh.gossip", "psyne_mesh.identity", "psyne_mesh.uri", "psyne_mesh.webrtc",
    "psyne_mesh.room.options", "psyne_mesh.room.listing", "psyne_mesh.game.rollback",
)  # fmt: skip
# What the house itself calls, and no game.
INNER = {"deliver_into", "registry"}


def names_in(home: str) -> set[str]:
    module = import_module(home)
    own = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == home}
    return set(getattr(module, "__all__", own))


def told_of(home: str) -> set[str]:
    """The names in backticks: of the home's section, there in the first column of tables, or of its row in the last section."""
    section = re.search(rf"^## `{re.escape(home)}`\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    row = re.search(rf"^\| `{re.escape(home)}` \|(.*)\|$", PAGE, re.M)
    assert section or row, f"docs/api.md does not name {home}"
    if section is None:
        text = row.group(1) if row else ""
    else:
        text = re.sub(r"^(\|[^|]*\|).*$", r"\1", section.group(1), flags=re.M)
    return set(re.findall(r"`(\w+)`", text))


def test_few_names_are_at_the_top() -> None:
    assert len(psyne_mesh.__all__) == 25
    assert set(psyne_mesh.__all__) == TOP


@pytest.mark.parametrize("home", WHOLE)
def test_the_page_lists_every_name_of_a_home(home: str) -> None:
    assert told_of(home) == names_in(home)


@pytest.mark.parametrize("home", [home for home in PARTS if home != "psyne_mesh.game.rollback"])
def test_what_the_page_says_is_there(home: str) -> None:
    names = told_of(home)
    assert names
    assert not [name for name in names if not hasattr(import_module(home), name)]


def test_a_name_has_one_home() -> None:
    """A name of the top is in no other home of the page; the other door has its own `Room`, `Mesh` and `Channel`."""
    homes = [home for home in WHOLE if home != "psyne_mesh.sync"]
    for name in {name for home in homes for name in names_in(home)} - {"PsyneMeshError", "RoomFull"}:
        assert len([home for home in homes if name in names_in(home)]) == 1, name


def shown_by(key: str) -> set[str]:
    """The public names that an object of this class has, those of its bases counted."""
    parts = [of(CLASSES[each][1]) for each in (key, *bases_of(key))]
    return {name for part in parts for names in part for name in names if not name.startswith("_")}


def test_a_room_shows_what_is_for_users_and_nothing_else() -> None:
    """What the mesh, the parts of a room and other doors need of it is behind the door."""
    section = re.search(r"^## What a room shows\n(.*?)^The room of", PAGE, re.M | re.S)
    assert section
    told = set(re.findall(r"`(\w+)`", section.group(1).partition(":")[2]))
    assert shown_by("room/room.Room") == told
    assert shown_by("sync/room.Room") == told | {"poll"}


def calls(owner: Any) -> Iterator[tuple[str, Any]]:
    """The public functions of an object: itself, or its methods and the getters of its properties."""
    if inspect.isfunction(owner):
        yield owner.__name__, inspect.unwrap(owner)
    elif inspect.isclass(owner):
        for name in dir(owner):
            if name.startswith("_") or name in INNER:
                continue
            member = inspect.getattr_static(owner, name)
            member = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if inspect.isfunction(member):
                yield f"{owner.__name__}.{name}", inspect.unwrap(member)


def types_in(said: Any, within: dict[str, Any]) -> Iterator[type]:
    """Classes of ours that an annotation names."""
    for word in re.findall(r"[A-Za-z_]\w*", said if isinstance(said, str) else repr(said)):
        value = within.get(word)
        if inspect.isclass(value) and value.__module__.startswith("psyne_mesh"):
            yield value


@pytest.mark.parametrize("home", ["psyne_mesh", "psyne_mesh.sync", "psyne_mesh.room", "psyne_mesh.signaling"])
def test_what_a_public_call_takes_or_returns_is_public(home: str) -> None:
    public = {id(getattr(import_module(place), name)) for place in (*WHOLE, *PARTS) for name in names_in(place)}
    for name in sorted(names_in(home)):
        for call, function in calls(getattr(import_module(home), name)):
            for said in typing.cast("dict[str, Any]", getattr(function, "__annotations__", {})).values():
                hidden = [kind.__name__ for kind in types_in(said, function.__globals__) if id(kind) not in public]
                assert not hidden, f"{home}.{call} speaks of {hidden}"
