"""A game's loop in a test: frames until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from psyne_mesh import sync

PATIENCE_S = 30
FRAME_S = 0.005


def until(holds: Callable[[], object], *nets: sync.Room, each_frame: Callable[[], object] = lambda: None) -> list[Any]:
    """Poll all of them, frame by frame, until it holds; the events of all meanwhile."""
    events: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        for net in nets:
            events += net.poll()
        each_frame()
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(FRAME_S)
    return events


def meet(*nets: sync.Room) -> list[Any]:
    return until(lambda: all(len(net.connected) == len(nets) - 1 for net in nets), *nets)
