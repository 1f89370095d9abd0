"""Which stacks there are, how their peer processes are started, and why one cannot be measured here."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import attrs

from run import COMPILED, hash_of_sources, missing_extras, python_of

NODE = Path(__file__).resolve().parents[1] / "node"


@attrs.frozen
class Stack:
    """command: starts a peer process that obeys `protocol.py`. needs: a Python module, or a package of `node/`. is_ours:
    the stack that the targets are for, in one of its builds."""

    name: str
    command: Sequence[str]
    needs: str = ""
    is_ours: bool = False

    def missing(self) -> str:
        """Why it cannot run; empty when it can."""
        if self.command[0] == "node":
            if shutil.which("node") is None:
                return "Node.js is not installed"
            if not (NODE / "node_modules" / self.needs).is_dir():
                return f"run `npm install` in {NODE}"
        elif self.command[0] == str(python_of(COMPILED)):
            if missing_extras(COMPILED, hash_of_sources(), set()) is not None:
                return "there is no compiled build of the sources as they are now; `python3 run.py --compiled bench` makes it"
        elif self.needs and not _is_there(self.needs):
            return f"the Python package that provides `{self.needs}` is not installed"
        return ""


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def _python(module: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.stacks.{module}")


def _compiled(module: str) -> tuple[str, ...]:
    # -P: the working directory holds the sources as well, and must not come before what is installed
    return (str(python_of(COMPILED)), "-P", "-m", f"benchmarks.stacks.{module}")


def _node(package: str) -> tuple[str, ...]:
    return ("node", str(NODE / "peer.mjs"), package)


STACKS = {
    stack.name: stack
    for stack in (
        Stack("ours", _python("ours"), is_ours=True),
        Stack("compiled", _compiled("ours"), is_ours=True),
        Stack("rooms", _python("rooms")),
        Stack("aiortc", _python("aiortc"), "aiortc"),
        Stack("wrtc", _python("wrtc"), "webrtc"),
        Stack("node-datachannel", _node("node-datachannel"), "node-datachannel"),
        Stack("werift", _node("werift"), "werift"),
        Stack("udp", _python("udp")),
        Stack("core", _python("core")),
        Stack("simulator", _python("simulator"), "psyne_mesh.simulations.run"),
        Stack("simulator-compiled", _compiled("simulator")),
    )
}
