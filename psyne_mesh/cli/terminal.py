"""What somebody else wrote, made fit for a terminal."""

from __future__ import annotations

from rich.markup import escape

from psyne_mesh import names


def plain(text: str) -> str:
    """One piece of a console line: no markup, and no control characters, which would steer the terminal."""
    return escape(names.plain(text))
