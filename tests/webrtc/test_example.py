"""The example in the package's docstring and the file in examples/ run as they stand."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import psyne_mesh.webrtc

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "peer_connection.py"


def _run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_file() -> None:
    output = _run("-W", "error", str(EXAMPLE))
    assert "Bob got: hello, Bob" in output
    assert "Alice got: hello, Alice" in output


def test_the_docstring() -> None:
    code = str(psyne_mesh.webrtc.__doc__).split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    assert "hello, Bob" in _run("-W", "error", "-c", textwrap.dedent(code))


def test_the_pure_half_imports_without_sockets_and_loops() -> None:
    """So that it runs in a browser."""
    code = (
        "import sys; sys.modules['trio'] = sys.modules['aioice'] = sys.modules['trio_asyncio'] = None;"
        "import psyne_mesh.webrtc.sctp, psyne_mesh.webrtc.channel_table, psyne_mesh.webrtc.sdp"
    )
    _run("-c", "import types, sys; p = types.ModuleType('psyne_mesh'); p.__path__ = [sys.argv[1]];"
         "sys.modules['psyne_mesh'] = p;" + code, str(EXAMPLE.parents[1] / "psyne_mesh"))  # fmt: skip


def test_names_come_when_they_are_asked_for() -> None:
    assert all(getattr(psyne_mesh.webrtc, name) for name in psyne_mesh.webrtc.__all__)
    with pytest.raises(AttributeError):
        _ = psyne_mesh.webrtc.nothing  # type: ignore[attr-defined]
