"""How much CPU the SCTP core costs: two associations back to back in one process, no sockets, no DTLS.

Run `python benchmarks/sctp_core.py`. Times are CPU seconds of one core for both sides; the split between them is
measured by timing the calls of each side. Take ratios from the figures, not promises.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from psyne_mesh.webrtc.sctp import Association, MessageReceived, SctpConfig

BATCH = 64  # packets that the receiver drains before it answers, as the UDP port does


class Pair:
    """A sender and a receiver, and the CPU time that each has used."""

    def __init__(self, packet_bytes_max: int, *, interleaving: bool = True, zero_checksum: bool = True) -> None:
        config = SctpConfig(packet_bytes_max=packet_bytes_max, interleaving=interleaving, zero_checksum=zero_checksum)
        self.sender = Association(config, rng=random.Random(1))
        self.receiver = Association(config, rng=random.Random(2))
        self.now = 0.0
        self.sender_s = self.receiver_s = 0.0
        self.packets = self.messages = 0
        self.sender.connect(self.now)
        for _ in range(50):
            self.round()
        self.reset()

    def reset(self) -> None:
        self.sender_s = self.receiver_s = 0.0
        self.packets = self.messages = 0

    def round(self) -> bool:
        """One exchange: the sender's packets in batches, an acknowledgement per batch. False when nothing moved."""
        clock = time.process_time
        self.now += 0.0002
        start = clock()
        packets = self.sender.packets_to_send(self.now)
        self.sender.take_events()
        self.sender_s += clock() - start
        self.packets += len(packets)
        moved = bool(packets)
        for first in range(0, max(1, len(packets)), BATCH):
            start = clock()
            receive = self.receiver.receive
            for packet in packets[first : first + BATCH]:
                receive(packet, self.now)
            answers = self.receiver.packets_to_send(self.now)
            for event in self.receiver.take_events():
                self.messages += isinstance(event, MessageReceived)
            middle = clock()
            for answer in answers:
                self.sender.receive(answer, self.now)
            self.sender_s += clock() - middle
            self.receiver_s += middle - start
            moved = moved or bool(answers)
        return moved


def bulk(packet_bytes_max: int, *, total_bytes: int = 60_000_000, interleaving: bool = True, zero: bool = True) -> str:
    pair = Pair(packet_bytes_max, interleaving=interleaving, zero_checksum=zero)
    message = bytes(65_536)
    count = total_bytes // len(message)
    sent = 0
    while pair.messages < count:
        while sent < count and pair.sender.total_buffered_amount < 1_000_000:
            start = time.process_time()
            pair.sender.send(1, 53, message, pair.now)
            pair.sender_s += time.process_time() - start
            sent += 1
        pair.round()
    return _figures(pair, total_bytes / 1e6, "MB")


def small(packet_bytes_max: int, *, count: int = 200_000, interleaving: bool = True) -> str:
    pair = Pair(packet_bytes_max, interleaving=interleaving)
    message = bytes(100)
    sent = 0
    while sent < count or pair.sender.outstanding_bytes:
        start = time.process_time()
        send = pair.sender.send
        for _ in range(min(500, count - sent)):
            send(1, 53, message, pair.now, unordered=True, max_retransmits=0)
            sent += 1
        pair.sender_s += time.process_time() - start
        pair.round()
    return _figures(pair, pair.messages / 1e3, "k msgs")


def sack_cost(outstanding: int) -> str:
    """Cost of a SACK that newly reports one packet of three chunks behind a hole, while `outstanding` further chunks
    are in flight."""
    sacks_wanted = 300
    pair = Pair(1191)
    pair.sender._outbound.congestion.cwnd = 1 << 30  # all at once; slow start is not what is measured
    for _ in range(3 * (1 + sacks_wanted) + outstanding):
        pair.sender.send(1, 53, bytes(300), pair.now)
    packets = pair.sender.packets_to_send(pair.now)
    pair.now += 0.0001
    sacks = []
    for packet in packets[1 : 1 + sacks_wanted]:  # the first one is lost, the others arrive one by one
        pair.receiver.receive(packet, pair.now)
        sacks += pair.receiver.packets_to_send(pair.now)
    start = time.process_time()
    for sack in sacks:
        pair.sender.receive(sack, pair.now)
    return f"{(time.process_time() - start) / len(sacks) * 1e6:6.2f} us per SACK"


def _figures(pair: Pair, amount: float, unit: str) -> str:
    total = pair.sender_s + pair.receiver_s
    return (
        f"sender {amount / pair.sender_s:8.1f} {unit}/s ({pair.sender_s / pair.packets * 1e6:5.2f} us/packet)   "
        f"receiver {amount / pair.receiver_s:8.1f} {unit}/s ({pair.receiver_s / pair.packets * 1e6:5.2f} us/packet)   "
        f"both on one core {amount / total:8.1f} {unit}/s"
    )


def main() -> None:
    rows: list[tuple[str, Callable[[], str]]] = [
        ("64 KiB, 1191 B packets, I-DATA", lambda: bulk(1191)),
        ("64 KiB, 1191 B packets, DATA, CRC32c", lambda: bulk(1191, interleaving=False, zero=False)),
        ("64 KiB, 16 KiB packets, I-DATA", lambda: bulk(16_384)),
        ("64 KiB, 16 KiB packets, DATA, CRC32c", lambda: bulk(16_384, interleaving=False, zero=False)),
        ("100 B unreliable, 1191 B packets", lambda: small(1191)),
        ("100 B unreliable, 16 KiB packets", lambda: small(16_384)),
        ("SACK of one packet, 1 outstanding", lambda: sack_cost(1)),
        ("SACK of one packet, 100 outstanding", lambda: sack_cost(100)),
        ("SACK of one packet, 10,000 outstanding", lambda: sack_cost(10_000)),
    ]
    for name, measure in rows:
        print(f"{name:40s} {measure()}", flush=True)


if __name__ == "__main__":
    main()
