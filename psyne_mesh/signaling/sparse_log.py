"""Log lines that strangers can cause: now and then one, and how many like it were left out."""

from __future__ import annotations

import logging

import trio

_EVERY_S = 10.0


class SparseLog:
    """`say(kind, ...)` as often as you like. `kind`: one of a few words of ours, never a word of a stranger's."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last: dict[str, tuple[float, int]] = {}  # when it was said, and how many were left out since

    def say(self, kind: str, text: str, error: BaseException | None = None, level: int = logging.WARNING) -> None:
        now = trio.current_time()
        last_at, left_out = self._last.get(kind, (-_EVERY_S, 0))
        if now - last_at < _EVERY_S:
            self._last[kind] = (last_at, left_out + 1)
            return
        self._last[kind] = (now, 0)
        more = f" (and {left_out} more like it before)" if left_out else ""
        self._logger.log(level, "%s%s", text, more, exc_info=error)
