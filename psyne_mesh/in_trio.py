"""Whoever enters us from asyncio, or from no event loop at all, is told what to write instead."""

from __future__ import annotations

import sys

import trio

from psyne_mesh.errors import OutsideTrio


def check_in_trio() -> None:
    """The first thing in what users enter. Raises `OutsideTrio` where Trio would speak of an internal error."""
    if trio.lowlevel.in_trio_task():
        return
    asyncio = sys.modules.get("asyncio")  # whoever runs it has imported it
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise OutsideTrio(
            "psyne_mesh runs in Trio, and this is asyncio.\n"
            "Write trio.run(main) in the place of asyncio.run(main), and trio.sleep for asyncio.sleep."
        )
    raise OutsideTrio(
        "psyne_mesh runs in Trio, and Trio does not run here.\n"
        "Write trio.run(main); from another thread, trio.from_thread.run(function, trio_token=token)."
    )
