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
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import attrs

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.webrtc.channel_table import ChannelLimits, ChannelTable
from psyne_mesh.webrtc.credit import Credits
from psyne_mesh.webrtc.sctp import Association, SctpConfig, wire

WIRE_OVERHEAD_BYTES = 65  # of a packet: IPv4 20, UDP 8, DTLS 37
PACKINGS = {"alone": 0, "bundled": 1191, "large": 16_384}  # one chunk a packet, or as many as fit so many bytes
TAG, INITIAL_TSN = 0x1234, 1000
WORD = 0xFFFFFFFF
WHOLE = wire.FLAG_BEGIN | wire.FLAG_END

Chunks = Iterator[bytes]


class Victim:
    """An established association with its channels, and what its peer needs to know to lie to it.

    interleaving: I-DATA was agreed on. streams: how many either side may use.
    """

    def __init__(self, *, interleaving: bool = False, streams: int = 65_535) -> None:
        self.interleaving = interleaving
        self.now = 10.0
        self.tsn = INITIAL_TSN
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

    def data(
        self,
        payload: bytes = b"x",
        *,
        stream: int = 1,
        number: int = 0,
        flags: int = WHOLE,
        ppid: int = 53,
        tsn: int = -1,
    ) -> bytes:
        """A DATA chunk, or I-DATA where that was agreed on. `ppid` is the FSN where `flags` do not begin a message."""
        if tsn < 0:
            tsn, self.tsn = self.tsn, self.tsn + 1
        if self.interleaving:
            fields = wire.I_DATA_FIELDS.pack(tsn & WORD, stream, 0, number & WORD, ppid)
            return wire.chunk(wire.I_DATA, flags, fields + payload)
        return wire.chunk(wire.DATA, flags, wire.DATA_FIELDS.pack(tsn & WORD, stream, number & 0xFFFF, ppid) + payload)

    def forward(self, tsn: int, skipped: list[tuple[int, bool, int]]) -> bytes:
        return wire.forward_tsn_chunk(tsn, skipped, interleaving=self.interleaving)

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
    """ns_per_byte: CPU; 10 ns a byte are 1.25 % of a core at 1 Mbit/s. out_per_byte: bytes that go out for one that comes in.
    longest_ms: CPU of the dearest single packet. ended: the victim ended the association, which is one way out."""

    ns_per_byte: float
    out_per_byte: float
    longest_ms: float
    ended: bool

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


def cost(attack: Callable[[], tuple[Victim, Chunks]], packet_bytes: int, n_bytes: int, step_s: float = 1e-3) -> Cost:
    """Give about `n_bytes` of what the attack says. The clock of the victim goes on by `step_s` a packet."""
    victim, chunks = attack()
    clock = time.process_time
    spent = longest = 0.0
    came = went = 0
    gc.collect()
    gc.disable()  # a collection of the whole heap is not the packet's fault
    for packed in packed_up(chunks, packet_bytes):
        alone = packed[0][0] in (wire.INIT,)
        packet = victim.sealed(0 if alone else victim.tag, *packed)
        victim.now += step_s
        start = clock()
        deadline = victim.association.next_timeout()
        if deadline is not None and deadline <= victim.now:
            victim.association.handle_timeout(victim.now)
        packets = victim.take(packet)
        took = clock() - start
        spent += took
        longest = max(longest, took)
        came += len(packet) + WIRE_OVERHEAD_BYTES
        went += sum(map(len, packets)) + WIRE_OVERHEAD_BYTES * len(packets)
        ended = not victim.association.state.is_up
        if came >= n_bytes or ended:
            break
    gc.enable()
    return Cost(spent * 1e9 / came, went / came, longest * 1e3, ended)


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
            found = cost(partial(attack, interleaving, HELD), packet_bytes, 20_000 if chosen.quick else 200_000)
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
