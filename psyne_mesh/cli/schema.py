"""`psyne-mesh schema MODULE`: the message types of a game for the page it is played in."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.schema import Shared, schema_of
from psyne_mesh.room.described import Description, describe
from psyne_mesh.room.messages import Message
from psyne_mesh.room.typescript import typescript


def run_schema(module: str, as_json: bool, check: Path | None) -> int:
    """To stdout; or with `check` the exit status: 1 if that file holds something else."""
    found = schema_of_module(_imported(module), as_json)
    if check is None:
        sys.stdout.write(found)
        return 0
    try:
        there = check.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{check} cannot be read: {error}") from error
    if there == found:
        return 0
    form = "--json" if as_json else "--typescript"
    sys.stderr.write(f"{check} is not what {module} says now: psyne-mesh schema {form} {module} > {check}\n")
    return 1


def schema_of_module(module: ModuleType, as_json: bool) -> str:
    """All message classes that the module has, those it imported as well. `InvalidConfig` when there are none, or one has a
    field that only Python knows."""
    kinds = _classes(module, Message)
    shared = _classes(module, Shared)
    if not kinds and not shared:
        raise InvalidConfig(f"{module.__name__} has no message types: write `class Shot(Message): x: float` in it")
    description = describe([*kinds, *shared])
    if as_json:
        return _json_schema(kinds, shared, description)
    return typescript(description, module.__name__, [schema_of(kind) for kind in shared])


def _imported(name: str) -> ModuleType:
    """Of this directory, as `python -m` would find it."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except Exception as error:  # the game's own module may raise anything
        raise InvalidConfig(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)


def _classes(module: ModuleType, base: type[Any]) -> list[type[Any]]:
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]
    return [kind for kind in dict.fromkeys(found) if kind is not base]


def _json_schema(kinds: list[type[Any]], shared: list[type[Any]], description: Description) -> str:
    """JSON Schema 2020-12 by msgspec, of the same values in JSON, with our hash of each message."""
    try:
        references, definitions = msgspec.json.schema_components([*kinds, *shared])
    except TypeError as error:
        raise InvalidConfig(f"not every type has a form in JSON: {error}") from error
    for kind in kinds:
        definitions[kind.__name__]["x-psyne-hash"] = description.types[kind.__name__].hash
    for kind in shared:
        fields = schema_of(kind).fields
        definitions[kind.__name__]["x-psyne-fields"] = {field.name: field.code for field in fields}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "oneOf": list(references),
        "$defs": definitions,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
