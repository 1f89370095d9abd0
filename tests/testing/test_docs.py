"""The test in psyne_mesh/testing/README.md is what it says: one to paste."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trio.testing import MockClock

from psyne_mesh.testing.plugin import OpenWorld

PAGE = Path(__file__).resolve().parents[2] / "psyne_mesh" / "testing" / "README.md"


async def test_the_partition_test_of_the_page_passes(autojump_clock: MockClock, psyne_world: OpenWorld) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 1
    assert len(blocks[0].splitlines()) <= 24
    names: dict[str, Any] = {"__name__": "pasted"}
    exec(blocks[0], names)  # noqa: S102 - our own page
    await names["test_my_game_survives_a_partition"](autojump_clock, psyne_world)
