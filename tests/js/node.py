"""Node.js and the packages that `js/` needs: where they are, or why they are not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JS = ROOT / "js"


def needs_node() -> None:
    """Skips, and says how to get it, where Node.js or its packages are missing; CI installs both."""
    if not shutil.which("node"):
        pytest.skip("node is not installed: .ci/install-browsers does that on Debian")
    if not (JS / "node_modules/esbuild").is_dir():
        pytest.skip("the packages of js/ are not installed: .ci/install-browsers, or `npm install` in js/")


def run_node(*command: str, timeout_s: float = 240.0, **environment: str) -> str:
    """What it printed; the test fails with it if it failed. The timeout is a net under hangs, not a measure."""
    done = subprocess.run(
        command,
        cwd=JS,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=os.environ | {"NO_COLOR": "1"} | environment,
    )
    if done.returncode:
        pytest.fail(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}", False
        )
    return done.stdout
