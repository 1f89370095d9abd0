"""What importing the package costs, told by the modules it loads: times would be those of this machine."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

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
    assert {name for name in loaded if name.startswith("psyne_mesh")} == {"psyne_mesh", "psyne_mesh.lazy"}


@pytest.mark.parametrize(
    ("statement", "not_loaded"),
    [
        ("from psyne_mesh import WebRTCConfig, RoomFull", SERVER | ASYNCIO | {"trio", "cryptography", "OpenSSL"}),
        (
            "from psyne_mesh import events; from psyne_mesh.room import DeliveryMode",
            SERVER | ASYNCIO,
        ),
        ("from psyne_mesh import join_game_room, PlayerPosition", SERVER | ASYNCIO | {"typer", "rich"}),
        ("from psyne_mesh.signaling import open_server", ASYNCIO | {"psyne_mesh.room", "aioice"}),
        ("import psyne_mesh.cli", SERVER | ASYNCIO | HEAVY),
    ],
)
def test_a_name_loads_what_it_needs(statement: str, not_loaded: set[str]) -> None:
    assert loaded_by(statement) & not_loaded == set()


@pytest.mark.parametrize(
    "package", ["psyne_mesh", "psyne_mesh.room", "psyne_mesh.signaling", "psyne_mesh.webrtc", "psyne_mesh.webrtc.ice"]
)
def test_every_public_name_is_there_and_where_type_checkers_see_it(package: str) -> None:
    """The imports that type checkers read and the table that Python uses say the same."""
    module = import_module(package)
    tree = ast.parse(Path(module.__file__ or "").read_text())
    seen = {
        alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("psyne_mesh")
        for alias in node.names
        if alias.name != "exports"
    }
    assert set(seen) == set(module.__all__)
    for name, home in seen.items():
        theirs = import_module(f"{home}.{name}") if home == package else getattr(import_module(home), name)
        assert getattr(module, name) is theirs, name
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


# What a plain join may load of ours; the rest waits until a game asks for it.
OF_A_JOIN = {
    "psyne_mesh": {
        "base64", "blocks", "config", "errors", "events", "frozen", "game", "gossip", "identity", "in_trio", "interrupts",
        "key_file", "lazy", "limits", "mesh", "names", "nurseries", "room", "signaling", "streams", "webrtc", "words",
    },
    "psyne_mesh.signaling": {
        "base64", "client", "convert", "dialing", "envelope", "events", "inbox", "joining", "link", "locks", "manifest",
        "messages", "requests", "transport",
    },
}  # fmt: skip
THIRD_PARTY = {
    "OpenSSL", "_cffi_backend", "_openssl", "attr", "attrs", "cryptography", "google_crc32c", "idna", "msgspec", "outcome",
    "psyne_mesh", "sniffio", "sortedcontainers", "trio", "typing_extensions", "exceptiongroup", "cffi", "pycparser",
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


def test_multicast_dns_is_loaded_when_a_local_name_comes() -> None:
    """A link needs aioice, and aioice's part for `.local` names needs dnspython: both ways of getting at it end at the same."""
    loads = "import psyne_mesh.webrtc.ice.gateway"
    assert not {name for name in loaded_by(loads) if name.partition(".")[0] == "dns" or name == "aioice.mdns"}
    uses = (
        "from aioice import ice; assert ice.mdns.is_mdns_hostname; from aioice import mdns; "
        "assert ice.mdns.MDnsProtocol is mdns.MDnsProtocol"
    )
    assert "dns" in loaded_by(f"{loads}; {uses}")
    assert "dns" in loaded_by(f"import aioice; {loads}; from aioice import ice, mdns; assert ice.mdns is mdns")
