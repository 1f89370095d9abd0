"""Short ways for tests to use `probe.py` in a lab."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab
from tests.lab.namespaces import Process

PROBE = [sys.executable, "-I", "-S", str(Path(__file__).with_name("probe.py"))]
STUN_PORT, ECHO_PORT = "3478", "7"
LINE_DEADLINE_S = 10.0


def read_line(process: Process) -> Any:
    """The next line of a process, as JSON; its stderr is in the error when none comes."""
    assert process.stdout is not None
    line, deadline = b"", time.monotonic() + LINE_DEADLINE_S
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
        piece = os.read(process.stdout, 1) if ready else b""
        if not piece:
            raise AssertionError(f"{process.argv} said nothing more: {process.errors()}")
        line += piece
    return json.loads(line)


def start_echo(lab: Lab, host: str, address: str) -> None:
    assert read_line(lab.namespaces.spawn(host, [*PROBE, "echo", address, ECHO_PORT])) == "ready"


def start_ping(lab: Lab, player: str, address: str, count: int, interval_ms: float) -> Process:
    """Its result is the next line: see `probe.ping`."""
    return lab.namespaces.spawn(player, [*PROBE, "ping", address, ECHO_PORT, str(count), str(interval_ms)])


def ping(lab: Lab, player: str, address: str, count: int = 60, interval_ms: float = 3.0) -> dict[str, Any]:
    answer: dict[str, Any] = read_line(start_ping(lab, player, address, count, interval_ms))
    return answer


def start_watch(lab: Lab, player: str) -> Process:
    """Its lines tell the addresses of a socket of that player, inside and outside, at every change."""
    return lab.namespaces.spawn(player, [*PROBE, "watch", lab.plan.servers["turn"].addresses4[0], STUN_PORT])


def nat_of(lab: Lab, player: str) -> tuple[str | None, str | None]:
    """(mapping, filtering) over IPv4."""
    server = lab.plan.servers["turn"].addresses4[0]
    found = json.loads(lab.namespaces.run(player, [*PROBE, "nat", server, STUN_PORT]))
    return found["mapping"], found["filtering"]
