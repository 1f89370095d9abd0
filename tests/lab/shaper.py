"""Delay, jitter, reordering and rate for the links of a lab, without netem: a forwarder on packet sockets.

Runs in the `wire` namespace, where each shaped link has two ends: `e-NAME` towards the site and `i-NAME` towards the
internet. Frames go from one to the other after their time; "up" is from the site to the internet.
Settings arrive on stdin, one JSON object a line: {"link": "a", "up": {...}, "down": {...}}, fields as in `Shape`;
each is answered with one line of counters on stdout. The interpreter's floor is 0.1 ms a frame, up to 20,000 frames a
second. Standard library only (the bare interpreter starts in 20 ms).
"""

from __future__ import annotations

import gc
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass, field

ETH_P_ALL, SOL_PACKET, PACKET_IGNORE_OUTGOING = 0x0003, 263, 23
BATCH = 64
MAX_FRAME = 65_600  # offloads are off, so 1514 in fact


@dataclass
class Shape:
    """One direction of one link."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0  # standard deviation, normal distribution, never below zero delay
    reorder: bool = False  # False: a late frame holds back the ones behind it, as a queue does
    rate_kbit: float = 0.0  # 0: no limit
    queue_packets: int = 1000  # a full queue drops the newest


@dataclass
class Counters:
    forwarded: int = 0
    dropped: int = 0
    late_ms_max: float = 0.0  # how far behind its plan the forwarder ever was: tells a disturbed run


class Direction:
    """Frames waiting to go from one interface to another."""

    def __init__(self, source: socket.socket, target: socket.socket, rng: random.Random) -> None:
        self.source, self.target = source, target
        self.shape, self.counters = Shape(), Counters()
        self._rng = rng
        self._waiting: list[tuple[float, int, bytes]] = []
        self._serial = 0
        self._line_free = self._last_due = 0.0

    def take_in(self, now: float) -> None:
        for _ in range(BATCH):
            try:
                frame = self.source.recv(MAX_FRAME)
            except BlockingIOError:
                return
            if is_neighbour_discovery(frame):
                self._write(frame)
            elif len(self._waiting) >= self.shape.queue_packets:
                self.counters.dropped += 1
            else:
                self._serial += 1
                heapq.heappush(self._waiting, (self._due(len(frame), now), self._serial, frame))

    def give_out(self, now: float) -> float | None:
        """Sends what is due; returns when the next one is."""
        while self._waiting and self._waiting[0][0] <= now:
            due, _, frame = heapq.heappop(self._waiting)
            self.counters.late_ms_max = max(self.counters.late_ms_max, (now - due) * 1000)
            self._write(frame)
        return self._waiting[0][0] if self._waiting else None

    def _due(self, size: int, now: float) -> float:
        shape = self.shape
        if shape.rate_kbit:
            self._line_free = max(self._line_free, now) + size * 8 / (shape.rate_kbit * 1000)
            now = self._line_free
        due = now + shape.delay_ms / 1000
        if shape.jitter_ms:
            due = max(now, due + self._rng.gauss(0, shape.jitter_ms / 1000))
        if not shape.reorder:
            due = self._last_due = max(due, self._last_due)
        return due

    def _write(self, frame: bytes) -> None:
        try:
            self.target.send(frame)
            self.counters.forwarded += 1
        except OSError:  # the link is down or its buffer full: a wire loses the frame too
            self.counters.dropped += 1


@dataclass
class Link:
    up: Direction
    down: Direction
    ends: tuple[socket.socket, socket.socket] = field(repr=False)


def is_neighbour_discovery(frame: bytes) -> bool:
    """ARP and IPv6 neighbour discovery pass at once: resolving a lab's own plumbing is not the path being tested."""
    ether_type = frame[12:14]
    if ether_type == b"\x08\x06":
        return True
    return ether_type == b"\x86\xdd" and len(frame) > 54 and frame[20] == 58 and 133 <= frame[54] <= 137


def open_end(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, struct.pack("i", 1))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    sock.bind((interface, ETH_P_ALL))
    return sock


def open_link(name: str, rng: random.Random) -> Link:
    site, internet = open_end(f"e-{name}"), open_end(f"i-{name}")
    return Link(Direction(site, internet, rng), Direction(internet, site, rng), (site, internet))


class Shaper:
    def __init__(self, names: list[str], seed: int) -> None:
        rng = random.Random(seed)
        self.links = {name: open_link(name, rng) for name in names}
        self._directions = [d for link in self.links.values() for d in (link.up, link.down)]
        self._by_socket = {d.source: d for d in self._directions}
        self._commands = b""

    def serve(self) -> None:
        inputs: list[socket.socket | int] = [*self._by_socket, 0]
        while True:
            now = time.monotonic()
            dues = [due for d in self._directions if (due := d.give_out(now)) is not None]
            timeout = max(min(dues) - time.monotonic(), 0) if dues else None
            ready, _, _ = select.select(inputs, [], [], timeout)
            now = time.monotonic()
            for source in ready:
                if isinstance(source, socket.socket):
                    self._by_socket[source].take_in(now)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        piece = os.read(0, 65536)
        *lines, self._commands = (self._commands + piece).split(b"\n")
        for line in lines:
            command = json.loads(line)
            link = self.links[command["link"]]
            for way in ("up", "down"):
                if way in command:
                    getattr(link, way).shape = Shape(**command[way])
            print(json.dumps({"up": asdict(link.up.counters), "down": asdict(link.down.counters)}), flush=True)
        return bool(piece)


if __name__ == "__main__":
    gc.disable()  # nothing here makes cycles, and a collection would be a delay of its own
    shaper = Shaper(sys.argv[2:], int(sys.argv[1]))
    print("ready", flush=True)
    shaper.serve()
