"""The SCTP core alone, two associations back to back in virtual time: no sockets, no DTLS.

outstanding  {count, seconds}: rounds of `count` messages of 100 bytes outstanding at once, each round with its first packet
             lost, for about so long. -> {cpu_us: per message, both sides}
"""

from __future__ import annotations

import platform
import random
import time
from typing import Any

import trio

from benchmarks.stacks.trio_peer import TrioPeer
from psyne_mesh.webrtc.sctp import Association, MessageReceived, SctpConfig

SIZE = 100  # 10,000 of them fit the largest first window, 1000 packets
PPID = 53
HALF_TRIP_S = 0.005
BATCH = 64  # packets that a side takes in before it answers, as the UDP port does


class Core(TrioPeer):
    def versions(self) -> dict[str, str]:
        return {"python": platform.python_version()}

    def connecting(self, **_: Any) -> Any:
        raise NotImplementedError("the core is measured without a network")

    async def do_outstanding(self, *, count: int, seconds: float) -> dict[str, float]:
        Pair(count).round()  # warm
        delivered, spent = 0, 0.0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pair = Pair(count)  # a new one, so that the window is as large again
            began = time.process_time()
            delivered += pair.round()
            spent += time.process_time() - began
        return {"cpu_us": spent / delivered * 1e6}


class Pair:
    """A sender whose first window takes `count` messages, and a receiver, connected."""

    def __init__(self, count: int) -> None:
        config = SctpConfig(packet_bytes_max=1191, initial_window_packets=1000)
        self.count = count
        self.now = 0.0
        self.sender = Association(config, rng=random.Random(1))
        self.receiver = Association(config, rng=random.Random(2))
        self.sender.connect(self.now)
        self._settle(lose_first=False)

    def round(self) -> int:
        """Send `count` messages and see all of them through; how many were delivered."""
        for _ in range(self.count):
            self.sender.send(1, PPID, bytes(SIZE), self.now, unordered=True)
        return self._settle(lose_first=True)

    def _settle(self, *, lose_first: bool) -> int:
        delivered, rounds = 0, 0
        while rounds < 4 or self.sender.outstanding_bytes or self.sender.total_buffered_amount:
            rounds += 1
            for source, target in ((self.sender, self.receiver), (self.receiver, self.sender)):
                self.now += HALF_TRIP_S
                deadline = source.next_timeout()
                if deadline is not None and deadline <= self.now:
                    source.handle_timeout(self.now)
                packets = source.packets_to_send(self.now)
                if lose_first and packets:
                    lose_first = False
                    del packets[0]
                for first in range(0, len(packets), BATCH):
                    for packet in packets[first : first + BATCH]:
                        target.receive(packet, self.now)
                    # an acknowledgement for each batch
                    answers = target.packets_to_send(self.now) if first + BATCH < len(packets) else []
                    for answer in answers:
                        source.receive(answer, self.now)
                source.take_events()
                delivered += sum(type(event) is MessageReceived for event in target.take_events())
        return delivered


if __name__ == "__main__":
    trio.run(Core().main)
