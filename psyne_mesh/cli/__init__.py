"""The command line: `psyne-mesh demo | serve | join | sim | doctor`."""

from __future__ import annotations

import sys

from psyne_mesh.cli.app import app
from psyne_mesh.errors import PsyneMeshError

__all__ = ["main"]


def main() -> None:
    """An error of ours is one line with what to do next; anything else is a bug and shows its traceback."""
    try:
        app()
    except PsyneMeshError as error:
        print(f"psyne-mesh: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
