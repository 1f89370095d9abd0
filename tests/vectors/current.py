"""All files, and which of the committed ones this stack would write otherwise."""

from __future__ import annotations

from pathlib import Path

from tests.vectors import gossip, shared, words

HERE = Path(__file__).parent


def written() -> dict[str, str]:
    return gossip.files() | words.files() | shared.files()


def stale() -> list[str]:
    made = written()
    there = {path.stem: path.read_text(encoding="ascii") for path in HERE.glob("*.json")}
    return sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
