"""The core is pure: nothing forbidden is imported, and the same seed gives the same trace whatever Python's hash seed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import psyne_mesh.gossip

SOURCE = Path(psyne_mesh.gossip.__file__).parent
ROOT = SOURCE.parents[1]
FORBIDDEN = {"trio", "asyncio", "socket", "time", "random", "threading", "os", "secrets", "datetime", "uuid", "psyne_mesh.room",
             "psyne_mesh.mesh", "psyne_mesh.webrtc", "psyne_mesh.signaling"}  # fmt: skip
# Which machine may know which: all work on values, only parents know machines.
PARENTS = {"node", "core", "inbound", "outcome", "census", "exchange", "broadcast", "__init__"}
MACHINES = {"detector", "suspicion", "membership", "overlay", "broadcast", "streams", "sync", "rumours", "seats", "routing",
            "healing", "coordinates", "walks", "dialer", "census", "exchange"}  # fmt: skip


def imports(tree: ast.AST, *, with_type_checking: bool) -> set[str]:
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not with_type_checking:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            if node.module == "psyne_mesh.gossip":
                found |= {f"psyne_mesh.gossip.{alias.name}" for alias in node.names}
        else:
            found |= imports(node, with_type_checking=with_type_checking)
    return found


def test_the_core_imports_nothing_that_is_not_pure() -> None:
    for path in sorted(SOURCE.glob("*.py")):
        for name in imports(ast.parse(path.read_text()), with_type_checking=False):
            assert not any(name == bad or name.startswith(bad + ".") for bad in FORBIDDEN), (path.name, name)


def test_machines_do_not_know_each_other() -> None:
    for path in sorted(SOURCE.glob("*.py")):
        if path.stem not in PARENTS:
            known = imports(ast.parse(path.read_text()), with_type_checking=True)
            siblings = {name.removeprefix("psyne_mesh.gossip.") for name in known} & MACHINES
            assert siblings - {path.stem} == set(), path.name


def test_nothing_iterates_over_a_set() -> None:
    """Sets of ids are ordered by Python's hash seed. They may be built and asked, not walked."""
    for path in sorted(SOURCE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            walked = []
            if isinstance(node, ast.For):
                walked = [node.iter]
            elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp):
                walked = [generator.iter for generator in node.generators]
            for what in walked:
                text = ast.unparse(what)
                assert not isinstance(what, ast.Set | ast.SetComp), (path.name, text)
                assert not text.startswith(("set(", "frozenset(")), (path.name, text)


STORY = """
import hashlib
from tests.gossip.cluster import Cluster
from psyne_mesh.gossip.config import GossipConfig

room = Cluster(7, GossipConfig(full_mesh_max=8, full_mesh_hysteresis=2, max_players=12), loss=0.05)
trace = hashlib.sha256()
arrive = room._arrive
def noted(sender, receiver, frame):
    trace.update(f"{room.now!r} {sender} {receiver} ".encode() + frame)
    arrive(sender, receiver, frame)
room._arrive = noted
first = room.add(0).peer_id
for index in range(1, 14):
    room.add(index, knows=[first])
    room.run(0.3)
room.run(6.0)
room.crash(room.ids()[4])
side = dict.fromkeys(room.ids()[::2])
for tick in range(10):
    room.say(room.ids()[tick % 5], b"%d" % tick)
    room.run(0.3)
room.blocked = lambda a, b: (a in side) != (b in side)
room.run(8.0)
room.mend()
room.run(8.0)
for when, who, event in room.log:
    trace.update(f"{when!r} {who} {event!r}".encode())
print(trace.hexdigest(), room.frames, len(room.log))
"""


@pytest.mark.slow
def test_the_same_seed_gives_the_same_trace_under_any_hash_seed() -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", STORY],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "1", "random")
    ]
    traces = [process.communicate(timeout=100)[0] for process in running]
    assert len(traces[0]) > 64
    assert traces == [traces[0]] * 3
