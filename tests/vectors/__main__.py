"""`python -m tests.vectors write` writes the files; without a word it says which are no longer current."""

from __future__ import annotations

import sys

from tests.vectors.current import HERE, stale, written


def main(words: list[str]) -> int:
    if words == ["write"]:
        for name, text in written().items():
            (HERE / f"{name}.json").write_text(text, encoding="ascii")
        return 0
    found = stale()
    print("\n".join(f"{name}.json is not what this stack writes" for name in found) or "all vectors are current")
    return 1 if found else 0


sys.exit(main(sys.argv[1:]))
