"""The target that matters most: a whole SCTP association, in any state, against a peer that says anything."""

from __future__ import annotations

import contextlib
import random

from psyne_mesh.errors import LocalError
from psyne_mesh.webrtc.sctp import Association, SctpConfig, State, wire
from psyne_mesh.webrtc.sctp.pieces import MARK
from tests.fuzz.inputs import Cursor

TAG = 0x1234
INITIAL_TSN = 0xFFFF_FFF0
WINDOW = 65_536
MESSAGE_BYTES_MAX = 20_000  # what may come above a full window: one chunk, and what a held-back reset replays
FLUSH_BYTES_MAX = 100_000  # an initial window of 16 KiB packets and answers stay below; a flood would not

# What has happened before (first byte of the input)
INTERLEAVING, WITHOUT_PARTIAL, DATA_IN_FLIGHT, RESETTING, SHUTTING_DOWN, WE_ASK = 1, 2, 4, 8, 16, 32
# Flags of each piece
RAW, WRONG_TAG, WAIT, ZERO_CHECKSUM, FITTING, SEND, LATER = 1, 2, 4, 8, 16, 32, 64


class World:
    """An association and what its peer knows of it, from our packets."""

    def __init__(self, options: int) -> None:
        self.now = 10.0
        config = SctpConfig(
            interleaving=bool(options & INTERLEAVING),
            partial_reliability=not options & WITHOUT_PARTIAL,
            receive_window_bytes=WINDOW,
            packet_bytes_max=4000,
            cuts_packets=True,
        )
        self.association = Association(config, rng=random.Random(1))
        self.tag = self.cookie_tag = 0
        self.cookie = self.heartbeat = b""
        if options & WE_ASK:
            self.association.connect(self.now)
            self.settle()
            return
        extensions = bytes((wire.RE_CONFIG, wire.FORWARD_TSN, wire.I_DATA, wire.I_FORWARD_TSN))
        parameters = [wire.parameter(wire.PARAM_EXTENSIONS, extensions)]
        self.give(0, wire.init_chunk(wire.INIT, TAG, 1 << 20, 20, 20, INITIAL_TSN, parameters))
        self.settle()
        self.give(self.tag, wire.chunk(wire.COOKIE_ECHO, 0, self.cookie))
        if options & DATA_IN_FLIGHT:
            for stream in range(5):
                self.send(stream)
        self.settle()
        if options & RESETTING:
            self.association.reset_streams([1, 2, 9], self.now)
        if options & SHUTTING_DOWN:
            self.association.shutdown(self.now)
        self.settle()

    def send(self, stream: int) -> None:
        with contextlib.suppress(LocalError):  # closing, or the stream is being reset
            self.association.send(
                stream, 51, bytes(3000), self.now, unordered=stream > 2, max_retransmits=stream % 2 or None
            )

    def give(self, tag: int, body: bytes, *, zero_checksum: bool = False) -> None:
        header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(tag)
        seal = wire.seal_without_checksum if zero_checksum else wire.seal
        self.association.receive(seal(header, [body]), self.now)

    def fitting(self, body: bytes) -> tuple[int, bytes]:
        """Tag and bytes, with the numbers of the first chunk taken as relative to what the association really has: no
        fuzzer guesses 32 bits, and a hostile peer need not."""
        table, resets = self.association._outbound.outstanding, self.association._resets
        kind = body[0] if body else 0
        if kind in (wire.SACK, wire.SHUTDOWN) and len(body) >= 8:
            return self.tag, body[:4] + _plus(body[4:8], table.cumulative_tsn) + body[8:]
        if kind == wire.RE_CONFIG and len(body) >= 12:
            is_response = body[5] == wire.PARAM_RECONFIG_RESPONSE
            number = _plus(body[8:12], resets._next_request if is_response else resets._last_request + 1)
            last_tsn = _plus(body[16:20], INITIAL_TSN) if len(body) >= 20 else body[16:20]
            return self.tag, body[:8] + number + body[12:16] + last_tsn + body[20:]
        if kind == wire.COOKIE_ECHO:
            return self.cookie_tag, wire.chunk(kind, 0, self.cookie) + body[4:]
        if kind == wire.HEARTBEAT_ACK:
            return self.tag, wire.chunk(kind, 0, self.heartbeat) + body[4:]
        return self.tag, body

    def settle(self) -> None:
        association = self.association
        packets = association.packets_to_send(self.now)
        assert sum(map(len, packets)) < FLUSH_BYTES_MAX, "one input, and a flood of answers"
        for packet in packets:
            if packet[0] == MARK:
                assert len(packet) <= association.path_mtu
                continue
            chunks = wire.parse_packet_untrusted(packet).chunks
            assert len(packet) <= association.path_mtu or chunks[-1][0] == wire.PAD
            for kind, _, start, end in chunks:
                if kind in (wire.INIT, wire.INIT_ACK):
                    init = wire.parse_init_untrusted(packet, start, end)
                    self.tag = self.tag or init.tag
                    self.cookie, self.cookie_tag = init.cookie, init.tag
                elif kind == wire.HEARTBEAT:
                    self.heartbeat = packet[start + 4 : end]
        association.take_events()
        inbound = association._inbound
        if inbound is not None:
            assert inbound.reassembly.held_bytes <= 2 * WINDOW + MESSAGE_BYTES_MAX
            assert inbound.a_rwnd >= 0
        table = association._outbound.outstanding
        assert table.flight_bytes >= 0 <= table.lost_bytes
        assert table.flight_bytes + table.lost_bytes <= sum(chunk.size for chunk in table.chunks.values())


def _plus(field: bytes, number: int) -> bytes:
    return wire.U32.pack((wire.U32.unpack(field)[0] + number) & 0xFFFFFFFF)


def run_association(data: bytes) -> None:
    cursor = Cursor(data)
    world = World(cursor.byte())
    association = world.association
    for flags, body in cursor.pieces():
        if flags & LATER:
            world.now += 0.01
        if flags & WAIT and (deadline := association.next_timeout()) is not None:
            world.now = max(world.now, deadline)
        deadline = association.next_timeout()
        if deadline is not None and deadline <= world.now:
            association.handle_timeout(world.now)
        if flags & SEND:
            world.send(flags % 5)
        if flags & RAW:
            association.receive(body, world.now)
        else:
            tag, body = world.fitting(body) if flags & FITTING else (world.tag, body)
            if body[:1] == bytes((wire.INIT,)):
                tag = 0
            world.give(tag ^ (flags & WRONG_TAG), body, zero_checksum=bool(flags & ZERO_CHECKSUM))
        world.settle()
    for _ in range(30):
        deadline = association.next_timeout()
        if deadline is None:
            break
        world.now = max(world.now, deadline)
        association.handle_timeout(world.now)
        world.settle()
    if association.state is State.CLOSED:
        assert association.next_timeout() is None
