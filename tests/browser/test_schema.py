"""The message types of a game in TypeScript and in JSON Schema, and how two versions of a game find out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.cli.schema import run_schema, schema_of_module
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.room.codec import MessageCodec
from psyne_mesh.room.described import (
    PROTOCOL,
    PROTOCOL_BYTES_MAX,
    announced_untrusted,
    announcement,
    describe,
    described_types,
)
from psyne_mesh.room.messages import CombatAction, FloatVector, Message, PlayerPosition
from tests.browser import messages

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
JS = ROOT / "js"
WRITTEN = HERE / "messages.ts"


def module_of(*kinds: type[Any]) -> ModuleType:
    module = ModuleType("game.messages")
    vars(module).update({kind.__name__: kind for kind in kinds})
    return module


def test_the_committed_file_is_what_the_classes_say() -> None:
    assert WRITTEN.read_text(encoding="utf-8") == schema_of_module(messages, as_json=False), (
        "psyne-mesh schema --typescript tests.browser.messages > tests/browser/messages.ts"
    )


def test_the_command_checks_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "psyne_mesh.cli", "schema", "tests.browser.messages", "--check", str(WRITTEN)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    other = tmp_path / "other.ts"
    other.write_text("nothing")
    assert run_schema("tests.browser.messages", False, other) == 1
    assert "is not what tests.browser.messages says now" in capsys.readouterr().err
    with pytest.raises(InvalidConfig, match="cannot be read"):
        run_schema("tests.browser.messages", False, tmp_path / "nothing.ts")
    with pytest.raises(InvalidConfig, match=r"tests\.no_such_module cannot be imported: ModuleNotFoundError"):
        run_schema("tests.no_such_module", False, None)


USE = """
import { joinGameRoom } from "psyne-mesh";
import { Everything, Hit, Shot, Team, Action, CombatAction, type Ship } from "./messages.ts";

export async function play(): Promise<number> {
  const room = await joinGameRoom("arena", { maxPlayers: 8 });
  const shots = room.channel("shots", Shot, { mode: "unreliable" });
  shots.send(Shot.make({ x: 1, y: 2 }));
  // @ts-expect-error: a number is wanted
  Shot.make({ x: "1", y: 2 });
  // @ts-expect-error: y has no default
  Shot.make({ x: 1 });
  const both = room.channel("both", [Shot, Hit]);
  for await (const [sender, message] of both) if (Hit.is(message)) return message.damage + sender.name.length;
  const action: Action = Action.BLOCK;
  CombatAction.make({ sequence: 1, timestamp_ns: 5n, action });
  for (const [, message] of room.channel("all", Everything).poll()) {
    const team: "red" | "blue" = message.team;
    const loot: { name: string } | { value: number } | null = message.loot;
    if (team === Team.RED && loot !== null) return message.first.weapon + Number(message.at_ns) + (message.path[0]?.x ?? 0);
  }
  const ship: Ship = { x: 0, turret: 0, hp: 1, team: "blue" };
  return ship.hp;
}
"""


@pytest.mark.skipif(not (JS / "node_modules/typescript").is_dir(), reason="no TypeScript here: .ci/install-browsers")
def test_the_file_is_typescript_that_a_game_can_use(tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node is not None
    (tmp_path / "messages.ts").write_text(WRITTEN.read_text(encoding="utf-8"))
    (tmp_path / "use.ts").write_text(USE)
    options = {
        "target": "ES2022", "module": "ESNext", "moduleResolution": "Bundler", "lib": ["ES2022", "DOM", "DOM.Iterable"],
        "strict": True, "noUncheckedIndexedAccess": True, "noEmit": True, "allowImportingTsExtensions": True,
        "skipLibCheck": True, "verbatimModuleSyntax": True, "types": [], "paths": {"psyne-mesh": [str(JS / "src/index.ts")]},
    }  # fmt: skip
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["use.ts"]}))
    tsc = JS / "node_modules/typescript/bin/tsc"
    done = subprocess.run([node, str(tsc), "-p", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_json_schema_describes_what_travels() -> None:
    document = json.loads(schema_of_module(messages, as_json=True))
    shot = document["$defs"]["Shot"]
    assert shot["prefixItems"][0] == {"enum": ["Shot"]}
    assert shot["x-psyne-hash"] == describe([messages.Shot]).types["Shot"].hash
    assert document["$defs"]["Ship"]["x-psyne-fields"]["turret"] == "quantised to 10 bits from -3.2 to 3.2"
    assert {"$ref": "#/$defs/Everything"} in document["oneOf"]


class Tree(Message):
    children: list[Tree] = []


class Dated(Message):
    at: datetime


class Keyed(Message):
    by_number: dict[int, str] = {}


class Renamed(msgspec.Struct, rename="camel"):
    long_name: int


class HoldsRenamed(Message):
    inner: Renamed


class Delete(Message):
    pass


Delete.__name__ = "delete"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Tree, "Tree.children: Tree holds itself"),
        (Dated, "Dated.at is of DateTime"),
        (Keyed, "Keyed.by_number: the keys of a dict are text"),
        (HoldsRenamed, "Renamed.long_name is called longName on the wire"),
        (Delete, "a class delete cannot be called so"),
    ],
)
def test_what_has_no_form_there_is_named(kind: type[Any], why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        schema_of_module(module_of(kind), as_json=False)


def test_two_classes_of_one_name_are_named() -> None:
    class Point(msgspec.Struct):
        z: int

    Where = version(("here", messages.Point), ("there", Point))
    with pytest.raises(InvalidConfig, match="two classes are called Point"):
        schema_of_module(module_of(Where), as_json=False)


def test_a_module_without_messages_says_so() -> None:
    with pytest.raises(InvalidConfig, match=r"has no message types: write `class Shot"):
        schema_of_module(module_of(), as_json=False)


# ---------------------------------------------------------------------------------------------------- two versions


def version(*fields: tuple[str, Any] | tuple[str, Any, Any], tag: str = "Shot") -> type[Any]:
    names = {field[0]: field[2] for field in fields if len(field) > 2}
    body = {"__annotations__": {field[0]: field[1] for field in fields}, "__module__": __name__, **names}
    made: type[Any] = type(Message)("Shot", (Message,), body, tag=tag)
    return made


OURS = version(("x", float), ("y", float), ("hp", int, 100))


@pytest.mark.parametrize(
    ("theirs", "difference"),
    [
        (OURS, None),
        (version(("x", float), ("y", float)), None),  # an older one, and hp has a default
        (
            version(("x", float), ("y", float), ("hp", int, 1), ("team", str, "")),
            None,
        ),  # a newer one: what is more is ignored
        (version(("x", float), ("y", str), ("hp", int, 100)), "Shot.y is float here and str there"),
        (version(("y", float), ("x", float), ("hp", int, 1)), "field 1 of Shot is x here and y there"),
        (version(("x", float)), "Shot has y here and not there"),
        (version(("z", int), tag="Other"), None),  # one more type on the channel: refused if it ever comes
    ],
)
def test_another_version_is_told_by_its_field(theirs: type[Any], difference: str | None) -> None:
    found = MessageCodec([OURS]).difference_untrusted(MessageCodec([theirs]).announcement)
    assert found == difference if difference is None else found is not None and difference in found


def test_what_is_long_goes_by_its_hash() -> None:
    long = version(*[(f"field_{i}", int) for i in range(64)])
    said = MessageCodec([long]).announcement
    assert said == f"{PROTOCOL}\n{described_types([long])[0].hash}"
    assert MessageCodec([long]).difference_untrusted(said) is None
    assert MessageCodec([OURS]).difference_untrusted(said) is None  # nobody can say where, so the first message will
    for kind in (PlayerPosition, CombatAction, FloatVector):
        assert describe([kind]).types[kind.__name__].text in MessageCodec([kind]).announcement
        assert len(MessageCodec([kind]).announcement) <= PROTOCOL_BYTES_MAX


def test_what_cannot_be_described_announces_nothing() -> None:
    assert MessageCodec([Dated]).announcement == ""
    assert announced_untrusted("") is None
    assert announced_untrusted("chat") is None


@pytest.mark.parametrize(
    "said",
    ["", "0", "xyz", "0" * 16 + " ", "0" * 16 + " [", "0" * 16 + ' ["a",[["b"]]]', "A" * 16, "0" * 400,
     "0" * 16 + ' ["a",[["b","int\\u202e"]]]', "\n" * 70],
)  # fmt: skip
def test_what_is_no_announcement_is_refused(said: str) -> None:
    with pytest.raises(ProtocolError):
        announced_untrusted(f"{PROTOCOL}\n{said}")


@given(st.one_of(st.text(), st.lists(st.text()).map("\n".join), st.text().map(lambda text: f"{'0' * 16} {text}")))
def test_nothing_but_the_declared_error_leaves(said: str) -> None:
    codec = MessageCodec([OURS])
    try:
        codec.difference_untrusted(f"{PROTOCOL}\n{said}")
    except ProtocolError:
        return


def test_the_hash_is_of_the_text_alone() -> None:
    """Anything that changes it changes it for every player of the game: the page holds it in its generated file."""
    assert describe([messages.Shot]).types["Shot"].text == '["Shot",[["x","float"],["y","float"],["weapon","int",1]]]'
    assert announcement(described_types([messages.Shot])).startswith(f"{PROTOCOL}\n2ecffe075e51a189 [")
