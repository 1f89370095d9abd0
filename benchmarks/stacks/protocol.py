"""What the runner and a peer process say to each other, and what every Python peer needs for it.

One JSON object a line on stdin and stdout, one reply for each command, in order: `{"do": "ping", ...}` is answered by
`{"result": ...}` or `{"error": "..."}`. The first line of a peer is `{"result": {"signaling": PORT, "versions": {...}}}`.

    dial       {port, count, reliable, mine, theirs, from, to, settings}: open `count` connections, one after the other, to the
               peer process whose signaling port it is. -> [{setup_ns, created_ns}]: from the first line of the offer, and
               from nothing, to a channel that is open on both sides
    hang_up    {}: close all connections that this process knows. -> null
    ping       {count, size}: so many round trips on the first connection; a lost one is repeated. -> {times_ns: [...], lost}
    flood      {size, seconds}: send on every connection as fast as its back-pressure allows. -> {sent}
    sink       {warm_s}: count anew on the connections in mode "sink"; the rate counts after so many seconds. -> null
    sunk       {}: what the connections in mode "sink" received. -> see `Sink.report`
    tick       {size, hz, seconds, start_ns, phases: {player: fraction of a tick}}: every player sends one message a tick
               on each of its connections. -> {sent, late}
    latencies  {}: what the connections in mode "latency" received. -> see `Latencies.report`
    usage      {tidy}: -> {cpu_s, rss_kib}; tidy: collect garbage first
    quit       {}: close everything and end.

`mine` and `theirs` are the modes of the two ends: "echo", "sink", "latency", or "ping" (nobody listens by itself).
`from` and `to` name players: one process can host several, and each has what a player of this stack would have. Without
`to` each connection leads to a player of its own, as in a mesh.

Signaling between two peers is a TCP connection on loopback, so the runner is never in the way of what is measured. Clocks
are CLOCK_MONOTONIC, which all processes of one machine share.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

STAMP_BYTES = 8
CELL_NS = 20_000  # width of a latency cell
LOST_AFTER_S = 0.5  # a ping without an answer for so long is lost

now_ns = time.monotonic_ns


class Sink:
    """Counts what comes."""

    def __init__(self) -> None:
        self.reset(0)

    def reset(self, warm_s: float) -> None:
        self._warm_ns = int(warm_s * 1e9)
        self.messages = self.bytes = 0
        self._start_ns = self._last_ns = 0
        self._warm: tuple[int, int, int] | None = None

    def add(self, message: str | bytes) -> None:
        now = now_ns()
        self.messages += 1
        self.bytes += len(message)
        self._last_ns = now
        if self._warm is None:
            self._start_ns = self._start_ns or now
            if now - self._start_ns >= self._warm_ns:
                self._warm = now, self.messages, self.bytes

    def report(self) -> dict[str, Any]:
        """`messages`, `bytes`: all. `span_ns`, `span_messages`, `span_bytes`: after the warm-up."""
        warm_ns, messages, size = self._warm or (self._start_ns, 1, 0)
        return {
            "messages": self.messages,
            "bytes": self.bytes,
            "span_ns": self._last_ns - warm_ns,
            "span_messages": self.messages - messages,
            "span_bytes": self.bytes - size,
        }


class Latencies:
    """A histogram of one-way times, from the stamp in a message to its arrival in user code."""

    def __init__(self) -> None:
        self._cells: Counter[int] = Counter()
        self._begin_ns = 0

    def begin(self, start_ns: int) -> None:
        """Count anew, and only messages stamped later: the ticks before were the warm-up."""
        self._begin_ns = start_ns
        self._cells.clear()

    def add(self, message: str | bytes) -> None:
        stamp = int.from_bytes(message[:STAMP_BYTES], "little")  # type: ignore[arg-type]  # stamped messages are bytes
        if stamp >= self._begin_ns:
            self._cells[(now_ns() - stamp) // CELL_NS] += 1

    def report(self) -> dict[str, Any]:
        return {"received": self._cells.total(), "cells": dict(self._cells)}


def stamped(stamp_ns: int, size: int) -> bytes:
    return stamp_ns.to_bytes(STAMP_BYTES, "little").ljust(size, b"\0")


def usage(*, tidy: bool) -> dict[str, float]:
    """CPU seconds of the whole process with all its threads, and what it holds in memory; tidy: after a collection."""
    if tidy:
        gc.collect()
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if sys.platform == "linux" else 0
    return {"cpu_s": used.ru_utime + used.ru_stime, "rss_kib": pages * os.sysconf("SC_PAGE_SIZE") / 1024}


def signaling_socket() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.setblocking(False)
    return listener
