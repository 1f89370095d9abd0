"""The command line: `psyne-mesh demo | serve | rooms | create | join | sim | doctor | verify`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from psyne_mesh.errors import PsyneMeshError

__all__ = ["main"]


def main() -> None:
    """An error of ours is one line with what to do next; anything else is a bug and shows its traceback."""
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        print(f"psyne-mesh: {' and '.join(missing)} missing: pip install 'psyne-mesh[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    from psyne_mesh.cli.app import app

    try:
        app()
    except PsyneMeshError as error:
        print(f"psyne-mesh: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
