"""What importing the package costs, told by the modules it loads: times would be those of this machine."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import psyne_mesh

SERVER = {"psyne_mesh.signaling.server", "psyne_mesh.signaling.cluster", "psyne_mesh.signaling.switchboard", "coredis"}
ASYNCIO = {"asyncio", "aioice", "trio_asyncio"}
HEAVY = {"trio", "cryptography", "OpenSSL", "msgspec", "attr", "trio_websocket", "h11", "typer", "rich", "matplotlib"}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_loads_nothing_that_takes_time() -> None:
    loaded = loaded_by("import psyne_mesh")
    assert not loaded & (SERVER | ASYNCIO | HEAVY)
    assert {name for name in loaded if name.startswith("psyne_mesh")} == {"psyne_mesh"}


@pytest.mark.parametrize(
    ("statement", "not_loaded"),
    [
        ("from psyne_mesh import WebRTCConfig, ClosedError", SERVER | ASYNCIO | {"trio", "cryptography", "OpenSSL"}),
        ("from psyne_mesh import parse_uri, DeliveryMode, events", SERVER | ASYNCIO),
        ("from psyne_mesh import join_game_room, PlayerPosition", SERVER | ASYNCIO | {"typer", "rich"}),
        ("from psyne_mesh import open_server", ASYNCIO | {"psyne_mesh.room", "aioice"}),
        ("import psyne_mesh.cli", SERVER | ASYNCIO | HEAVY),
    ],
)
def test_a_name_loads_what_it_needs(statement: str, not_loaded: set[str]) -> None:
    assert loaded_by(statement) & not_loaded == set()


def test_every_public_name_is_there_and_where_type_checkers_see_it() -> None:
    """The imports that type checkers read and the table that Python uses say the same."""
    source = Path(psyne_mesh.__file__ or "").with_suffix(".py").read_text()
    seen = {
        alias.name: (node.module or "").removeprefix("psyne_mesh.")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("psyne_mesh.")
        for alias in node.names
    }
    modules = {"events", "sync"}
    for name in set(psyne_mesh.__all__) - modules:
        value = getattr(psyne_mesh, name)
        home = psyne_mesh._HOME_OF.get(name)
        assert seen[name] == home, name
        assert value is getattr(psyne_mesh, name)
    assert set(seen) | modules == set(psyne_mesh.__all__)
    assert all(getattr(psyne_mesh, name).__name__ == f"psyne_mesh.{name}" for name in modules)
    assert set(psyne_mesh.__all__) <= set(dir(psyne_mesh))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = psyne_mesh.nothing


# What a plain join may load of ours; the rest waits until a game asks for it.
OF_A_JOIN = {
    "psyne_mesh": {
        "base64", "blocks", "config", "errors", "events", "game", "gossip", "identity", "in_trio", "interrupts", "key_file",
        "limits", "mesh", "names", "nurseries", "room", "signaling", "streams", "webrtc",
    },
    "psyne_mesh.signaling": {
        "base64", "client", "convert", "envelope", "events", "inbox", "joining", "link", "locks", "manifest", "messages",
        "requests", "transport", "websocket",
    },
}  # fmt: skip
THIRD_PARTY = {
    "OpenSSL", "_cffi_backend", "_openssl", "attr", "attrs", "cryptography", "google_crc32c", "h11", "idna", "msgspec",
    "outcome", "psyne_mesh", "sniffio", "sortedcontainers", "trio", "trio_websocket", "typing_extensions", "wsproto",
    "exceptiongroup", "cffi", "pycparser",
}  # fmt: skip


def test_a_plain_join_loads_what_it_uses() -> None:
    loaded = loaded_by("from psyne_mesh import join_game_room") - loaded_by("pass")
    assert {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) <= THIRD_PARTY
    for package, parts in OF_A_JOIN.items():
        inside = {
            name.removeprefix(f"{package}.").partition(".")[0] for name in loaded if name.startswith(f"{package}.")
        }
        assert inside <= parts, package
    assert not {name for name in loaded if name.startswith(("psyne_mesh.game.rollback", "psyne_mesh.room.playing"))}
