"""The rules of the house, checked on the source itself: import direction, pure files, length of files and functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "psyne_mesh"
FILES = sorted(PACKAGE.rglob("*.py"))

# Lower numbers may import higher ones only. The order is the way of a message: application down to the socket.
FLOORS = {
    "__init__": 0,
    "__main__": -2,
    "cli": -1,
    "events": 1,
    "sync": 1,
    "testing": 1,
    "simulations": 0,
    "room": 2,
    "mesh": 3,
    "signaling": 4,
    "gossip": 5,
    "webrtc": 5,
    "game": 5,
    "identity": 6,
    "in_trio": 7,
    "blocks": 7,
    "key_file": 7,
    "nurseries": 8,
    "interrupts": 9,
    "frozen": 9,
    "streams": 7,
    "config": 7,
    "uri": 7,
    "limits": 8,
    "names": 8,
    "errors": 8,
    "lazy": 8,
    "words": 7,
}
# Inside webrtc: Trio shells, then the pure stack, then its parts, which never meet.
WEBRTC_FLOORS = {
    "__init__": 0,
    "endpoint": 1,
    "peer": 2,
    "data_channel": 3,
    "stack": 4,
    "ice": 5,
    "dtls": 5,
    "sctp": 5,
    "sdp": 5,
}
IMPURE = {"trio", "trio_asyncio", "asyncio", "socket", "time", "random", "threading", "select", "secrets", "uuid"}
PURE = ["gossip", "game", "webrtc/sctp", "webrtc/dtls", "webrtc/sdp.py", "webrtc/dcep.py", "webrtc/stack.py",
        "webrtc/channel.py",
        "signaling/messages.py", "signaling/registry.py", "signaling/envelope.py",
        "signaling/events.py", "signaling/joining.py", "signaling/convert.py", "signaling/requests.py",
        "signaling/switchboard.py", "signaling/placing.py", "signaling/matching.py", "signaling/manifest.py",
        "signaling/locks.py", "signaling/hall.py", "signaling/hall_asking.py", "signaling/hall_placer.py",
        "signaling/hall_wire.py",
        "signaling/limits.py", "signaling/frames.py", "signaling/audience.py", "signaling/churn.py", "signaling/doors.py",
        "signaling/cluster.py", "signaling/cluster_messages.py", "signaling/transport.py",
        "mesh/link_table.py", "mesh/signaling_rung.py", "mesh/dial_limits.py", "mesh/restarts.py", "mesh/alarms.py",
        "room/codec.py", "room/described.py", "room/typescript.py", "room/announced.py",
        "room/messages.py", "room/delivery.py", "room/events.py",
        "testing/hostile/frames.py", "testing/hostile/chunks.py",
        "errors.py", "frozen.py", "limits.py", "names.py", "words.py", "identity.py", "config.py", "uri.py"]  # fmt: skip


def module_parts(path: Path) -> list[str]:
    return list(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every imported module, and whether only for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for node in ast.walk(branch)
    }
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "psyne_mesh" else []
            found += [(name, id(node) in typing_only) for name in names or [str(node.module)]]
    return found


def floor(parts: list[str], floors: dict[str, int]) -> int:
    return floors.get(parts[0], 0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module_parts(path)))
def test_imports_go_one_direction(path: Path) -> None:
    here = module_parts(path)
    for name, typing_only in imports(path):
        there = name.split(".")[1:]
        if not name.startswith("psyne_mesh") or typing_only or not there or here[0] == there[0]:
            continue
        assert there[0] in FLOORS, f"{name} has no floor in FLOORS"
        assert floor(here, FLOORS) < floor(there, FLOORS), f"{'/'.join(here)} must not import {name}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if module_parts(p)[0] == "webrtc"], ids=lambda path: "/".join(module_parts(path))
)
def test_siblings_inside_webrtc_never_meet(path: Path) -> None:
    here = module_parts(path)[1:]
    if here[0] not in WEBRTC_FLOORS:
        return
    for name, typing_only in imports(path):
        there = name.split(".")[2:]
        if not name.startswith("psyne_mesh.webrtc") or typing_only or not there or there[0] not in WEBRTC_FLOORS:
            continue
        if here[0] != there[0]:
            low, high = WEBRTC_FLOORS[here[0]], WEBRTC_FLOORS[there[0]]
            assert low < high, f"webrtc/{'/'.join(here)} must not import {name}"


@pytest.mark.parametrize("place", PURE)
def test_pure_files_import_no_clock_no_dice_no_sockets(place: str) -> None:
    root = PACKAGE / place
    files = sorted(root.rglob("*.py")) if root.is_dir() else [root]
    assert files, f"nothing at {place}"
    for path in files:
        for name, typing_only in imports(path):
            assert typing_only or name.split(".")[0] not in IMPURE, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module_parts(path)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 800, "one idea a file: split it"  # what a class may be says test_classes.py
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 90, f"{node.name} has {length} lines"


def test_the_core_of_the_mesh_is_its_tasks() -> None:
    """What is decided has a place of its own: links in the table, rooms in `stays.py`, members in gossip."""
    assert (PACKAGE / "mesh" / "core.py").read_text(encoding="utf-8").count("\n") < 250


def test_nothing_names_a_package_registry() -> None:
    hosts = [
        ".".join(words)
        for words in (("pypi", "org"), ("registry", "npmjs"), ("deb", "debian"), ("files", "pythonhosted"))
    ]
    for path in ROOT.rglob("*"):
        if path.suffix not in (".py", ".md", ".toml", ".json", ".js", ".sh", ".yml", ".html") or not path.is_file():
            continue
        if {".venv", ".venv-compiled", "node_modules", ".git", "results"} & set(path.relative_to(ROOT).parts):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [host for host in hosts if host in text], path


# Where msgspec's errors mean something else: fields that convert, the packed part of an object, JSON.
READ_THEMSELVES = {"words", "game/schema", "game/replicas", "game/shared_wire", "room/described"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(module_parts(path)))
def test_words_from_outside_are_read_in_one_place(path: Path) -> None:
    """`words.read_untrusted` knows what decoding may raise; a list of its own at each reader had gaps."""
    if "/".join(module_parts(path)) in READ_THEMSELVES:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            assert "msgspec." not in ast.unparse(node.type), f"line {node.lineno}: use psyne_mesh.words.read_untrusted"
