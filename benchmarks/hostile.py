"""What a hostile peer costs, without sockets or DTLS: CPU for each byte that it sends, what goes out for it, the longest call.

    python -m benchmarks.hostile [ATTACK ...] [--quick]

The bytes of DTLS, UDP and IP count though: an attacker pays for them. The attacks are in `attacks.py`.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import attrs

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.testing.hostile.chunks import ChunkMaker, Chunks
from psyne_mesh.webrtc.channel_table import ChannelLimits, ChannelTable
from psyne_mesh.webrtc.credit import Credits
from psyne_mesh.webrtc.sctp import Association, SctpConfig, wire

WIRE_OVERHEAD_BYTES = 65  # of a packet: IPv4 20, UDP 8, DTLS 37
PACKINGS = {"alone": 0, "bundled": 1191, "large": 16_384}  # one chunk a packet, or as many as fit so many bytes
TURNS, HONEST_BYTES = 20, 20_000  # of a comparison
TAG, INITIAL_TSN = 0x1234, 1000


class Victim(ChunkMaker):
    """An established association with its channels, and what its peer needs to know to lie to it.

    interleaving: I-DATA was agreed on. streams: how many either side may use.
    """

    def __init__(self, *, interleaving: bool = False, streams: int = 65_535) -> None:
        super().__init__(interleaving=interleaving, tsn=INITIAL_TSN)
        self.now = 10.0
        self.association = Association(SctpConfig(path_mtu_discovery=False), rng=random.Random(1))
        self.table = ChannelTable(ChannelLimits())
        self.table.start(
            self.association, is_dtls_client=True, max_message_size=2**18, credits=Credits(4 * 2**20, 2**18)
        )
        extensions = [wire.RE_CONFIG, wire.FORWARD_TSN] + interleaving * [wire.I_DATA, wire.I_FORWARD_TSN]
        parameters = [
            wire.parameter(wire.PARAM_FORWARD_TSN, b""),
            wire.parameter(wire.PARAM_ZERO_CHECKSUM, wire.U32.pack(wire.ZERO_CHECKSUM_DTLS)),
            wire.parameter(wire.PARAM_EXTENSIONS, bytes(extensions)),
        ]
        self.init = wire.init_chunk(wire.INIT, TAG, 1 << 24, streams, streams, INITIAL_TSN, parameters)
        (packet,) = self.take(self.sealed(0, self.init))
        init_ack = wire.parse_init_untrusted(packet, wire.HEADER_BYTES, len(packet))
        self.tag, self.their_tsn, self.cookie = init_ack.tag, init_ack.initial_tsn, init_ack.cookie
        self.take(self.sealed(self.tag, wire.chunk(wire.COOKIE_ECHO, 0, self.cookie)))
        assert self.association.is_established

    def sealed(self, tag: int, *chunks: bytes) -> bytes:
        header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(tag)
        zero = self.association.is_established and chunks[0][0] not in (wire.INIT, wire.COOKIE_ECHO)
        return (wire.seal_without_checksum if zero else wire.seal)(header, chunks)

    def take(self, packet: bytes) -> list[bytes]:
        """One packet in, everything that it sets off, and what goes out because of it."""
        self.association.receive(packet, self.now)
        self.table.handle_events(self.association.take_events(), self.now)
        packets = self.association.packets_to_send(self.now)
        self.table.handle_events(self.association.take_events(), self.now)
        self.table.take_events()
        return packets

    def give(self, *chunks: bytes) -> None:
        """Chunks that set the stage, in packets as large as they may be."""
        for packed in packed_up(iter(chunks), 16_384):
            self.take(self.sealed(self.tag, *packed))

    def open_channels(self, n: int, **options: object) -> None:
        """Channels of ours, and a peer that has acknowledged all that went out so far."""
        for i in range(n):
            self.table.create(DataChannelConfig(label=f"channel {i}", **options), self.now)  # type: ignore[arg-type]
        self.acknowledge()

    def acknowledge(self) -> None:
        self.association.packets_to_send(self.now)
        table = self.association._outbound.outstanding
        self.give(wire.sack_chunk(table.next_tsn - 1, 1 << 24, []))

    def outstanding(self, n: int, size: int = 20) -> int:
        """So many small messages are on their way to the attacker. Returns the TSN before the first."""
        outbound = self.association._outbound
        window, outbound.congestion.cwnd = outbound.congestion.cwnd, 1 << 30
        before = outbound.outstanding.next_tsn - 1
        for _ in range(n):
            self.association.send(2, 53, bytes(size), self.now)
        self.association.packets_to_send(self.now)
        outbound.congestion.cwnd = window
        return before


@attrs.frozen
class Cost:
    """ns_per_byte: CPU; 10 ns a byte are 1.25 % of a core at 1 Mbit/s. longest_ns: CPU of the dearest single packet. ended: the
    victim ended the association, which is one way out.

    came, went: bytes in and out, with all headers. acked: bytes of the victim's messages that were acknowledged meanwhile.
    """

    ns_per_byte: float
    longest_ns: int
    ended: bool
    came: int
    went: int
    acked: int

    @property
    def out_per_byte(self) -> float:
        """Bytes that go out for one that comes in."""
        return self.went / self.came

    @property
    def longest_ms(self) -> float:
        return self.longest_ns / 1e6

    @property
    def percent_per_mbit(self) -> float:
        return self.ns_per_byte * 125_000 / 1e7


def packed_up(chunks: Chunks, packet_bytes: int) -> Iterator[list[bytes]]:
    """Chunks in lists that fit a packet."""
    packed: list[bytes] = []
    size = wire.HEADER_BYTES
    for chunk in chunks:
        if packed and size + len(chunk) > packet_bytes:
            yield packed
            packed, size = [], wire.HEADER_BYTES
        packed.append(chunk)
        size += len(chunk)
    if packed:
        yield packed


class Meter:
    """1. `turn(n_bytes)` gives so many bytes more of what the attack says; False: that was all. 2. `cost` has the sums.

    CPU is that of this thread. The clock of the victim goes on by `step_s` a packet.
    """

    def __init__(self, attack: tuple[Victim, Chunks], packet_bytes: int, step_s: float = 1e-3) -> None:
        self.victim, chunks = attack
        self._packets = packed_up(chunks, packet_bytes)
        self._step_s = step_s
        self._spent = self._longest = self._came = self._went = 0
        self._acked_before = acknowledged(self.victim)

    def turn(self, n_bytes: int) -> bool:
        end = self._came + n_bytes
        while self._came < end:
            packed = next(self._packets, None)
            if packed is None or not self.victim.association.state.is_up:
                return False
            self._give(packed)
        return True

    def _give(self, packed: list[bytes]) -> None:
        victim = self.victim
        packet = victim.sealed(0 if packed[0][0] == wire.INIT else victim.tag, *packed)
        victim.now += self._step_s
        start = time.thread_time_ns()
        deadline = victim.association.next_timeout()
        if deadline is not None and deadline <= victim.now:
            victim.association.handle_timeout(victim.now)
        packets = victim.take(packet)
        took = time.thread_time_ns() - start
        self._spent += took
        self._longest = max(self._longest, took)
        self._came += len(packet) + WIRE_OVERHEAD_BYTES
        self._went += sum(map(len, packets)) + WIRE_OVERHEAD_BYTES * len(packets)

    @property
    def came(self) -> int:
        return self._came

    @property
    def cost(self) -> Cost:
        acked = acknowledged(self.victim) - self._acked_before
        ended = not self.victim.association.state.is_up
        return Cost(self._spent / self._came, self._longest, ended, self._came, self._went, acked)


def acknowledged(victim: Victim) -> int:
    """User bytes that the peer has acknowledged so far."""
    table = victim.association._outbound.outstanding
    return victim.association.stats.user_bytes_sent - table.flight_bytes - table.lost_bytes


@contextmanager
def without_collections() -> Iterator[None]:
    """A collection of the whole heap is not the packet's fault."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def cost(attack: tuple[Victim, Chunks], packet_bytes: int, n_bytes: int) -> Cost:
    """Give about `n_bytes` of what the attack says."""
    meter = Meter(attack, packet_bytes)
    with without_collections():
        meter.turn(n_bytes)
    return meter.cost


def cost_beside(
    attack: tuple[Victim, Chunks], packet_bytes: int, n_bytes: int, honest: tuple[Victim, Chunks]
) -> tuple[Cost, Cost]:
    """The same, and what honest chunks cost, bundled, by turns in the same moments: a machine that is busy is so for both."""
    meter, beside = Meter(attack, packet_bytes), Meter(honest, PACKINGS["bundled"])
    share = max(1, n_bytes // TURNS)
    with without_collections():
        for _ in range(TURNS):
            beside.turn(HONEST_BYTES // TURNS)
            if not meter.turn(share):
                break
    return meter.cost, beside.cost


def main() -> None:
    from benchmarks.attacks import ATTACKS, HELD

    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("attack", nargs="*", help="its name; without one all of them")
    parser.add_argument("--quick", action="store_true", help="fewer bytes")
    parser.add_argument("--json", action="store_true", help="the worst figures only, for the benchmark")
    chosen = parser.parse_args()
    worst = {"percent_per_mbit": 0.0, "longest_ms": 0.0}
    if not chosen.json:
        print(f"{'attack':24s} {'chunks':6s} {'packing':8s} {'%/Mbit/s':>9s} {'out/in':>8s} {'longest ms':>10s}")
    for attack in ATTACKS:
        if chosen.attack and attack.__name__ not in chosen.attack:
            continue
        for interleaving, (packing, packet_bytes) in product((False, True), PACKINGS.items()):
            found = cost(attack(interleaving, HELD), packet_bytes, 20_000 if chosen.quick else 200_000)
            if not found.ended:
                worst["percent_per_mbit"] = max(worst["percent_per_mbit"], found.percent_per_mbit)
            worst["longest_ms"] = max(worst["longest_ms"], found.longest_ms)
            if not chosen.json:
                print(
                    f"{attack.__name__:24s} {'I-DATA' if interleaving else 'DATA':6s} {packing:8s} "
                    f"{found.percent_per_mbit:9.2f} {found.out_per_byte:8.2f} {found.longest_ms:10.2f}"
                    f"{'  ended' if found.ended else ''}",
                    flush=True,
                )
    print(json.dumps(worst))


if __name__ == "__main__":
    main()
