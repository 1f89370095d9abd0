"""What the README shows is run, not only written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import trio

from psyne_mesh.signaling.server import open_server

README = Path(__file__).resolve().parents[2] / "README.md"


async def test_the_room_in_fifteen_lines(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert code is not None
    heard: list[bytes] = []
    with trio.fail_after(60):
        async with open_server("127.0.0.1", 0) as server:
            program = tmp_path / "player.py"
            program.write_text(code[1].replace(
                "skill_range=(1200, 1400))", f"skill_range=(1200, 1400), signaling={server.url!r})"
            ), encoding="utf-8")  # fmt: skip
            async with trio.open_nursery() as nursery:

                async def player(name: str) -> None:
                    process = await trio.lowlevel.open_process([sys.executable, "-u", str(program)], stdout=-1)
                    assert process.stdout is not None
                    try:
                        heard.append(await process.stdout.receive_some())
                    finally:
                        process.kill()
                        with trio.CancelScope(shield=True):
                            await process.wait()
                            await process.stdout.aclose()

                nursery.start_soon(player, "one")
                nursery.start_soon(player, "two")
    assert len(heard) == 2
    assert all(b"is here" in line for line in heard)
