"""A peer made of bytes: it does the handshake by hand and then says whatever a test wants it to say."""

from __future__ import annotations

import random

from psyne_mesh.webrtc.sctp import Association, SctpConfig, SctpEvent, wire

TAG = 0x1234
INITIAL_TSN = 1000
DEFAULT_EXTENSIONS = (wire.RE_CONFIG, wire.FORWARD_TSN)


class RawPeer:
    """The far side of one `Association`, established by hand. Without I-DATA and checksum-less packets by default."""

    def __init__(
        self,
        config: SctpConfig | None = None,
        *,
        extensions: tuple[int, ...] = DEFAULT_EXTENSIONS,
        initial_tsn: int = INITIAL_TSN,
        a_rwnd: int = 1 << 20,
        streams: int = 100,
        parameters: tuple[bytes, ...] = (),
        seed: int = 1,
    ) -> None:
        self.config = config or SctpConfig(path_mtu_discovery=False)
        self.association = Association(self.config, rng=random.Random(seed))
        self.now = 10.0
        self.tsn = initial_tsn
        self.initial_tsn = initial_tsn
        self.events: list[SctpEvent] = []
        self._unread: list[bytes] = []
        self.init = wire.init_chunk(
            wire.INIT,
            TAG,
            a_rwnd,
            streams,
            streams,
            initial_tsn,
            [
                wire.parameter(wire.PARAM_FORWARD_TSN, b""),
                wire.parameter(wire.PARAM_EXTENSIONS, bytes(extensions)),
                *parameters,
            ],
        )
        self.their_tag = 0
        self.their_tsn = 0
        self.establish()

    def establish(self) -> None:
        self.send_packet(0, self.init)
        ((kind, _, body),) = self.read()
        assert kind == wire.INIT_ACK
        self.init_ack = wire.parse_init_untrusted(body, 0, len(body))
        self.their_tag, self.their_tsn = self.init_ack.tag, self.init_ack.initial_tsn
        self.send(wire.chunk(wire.COOKIE_ECHO, 0, self.init_ack.cookie))
        assert self.read()[0][0] == wire.COOKIE_ACK
        assert self.association.is_established

    def send(self, *chunks: bytes) -> None:
        self.send_packet(self.their_tag, *chunks)

    def send_packet(self, tag: int, *chunks: bytes) -> None:
        header = wire.PARAM_HEADER.pack(self.config.remote_port, self.config.local_port) + wire.U32.pack(tag)
        self.association.receive(wire.seal(header, chunks), self.now)

    def read_packets(self) -> list[bytes]:
        packets, self._unread = self._unread + self.association.packets_to_send(self.now), []
        self.events += self.association.take_events()
        return packets

    def read(self) -> list[tuple[int, int, bytes]]:
        """(type, flags, whole chunk) of everything that the association sends now."""
        chunks = []
        for packet in self.read_packets():
            for kind, flags, start, end in wire.parse_packet_untrusted(packet).chunks:
                chunks.append((kind, flags, packet[start:end]))
        return chunks

    def read_kinds(self) -> list[int]:
        return [kind for kind, _, _ in self.read()]

    def wait(self, seconds: float) -> None:
        """Let the clock go on, timer by timer. What is sent meanwhile comes with the next read."""
        end = self.now + seconds
        while (deadline := self.association.next_timeout()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.association.handle_timeout(self.now)
            self._unread = self.read_packets()
        self.now = end

    def data(
        self,
        payload: bytes = b"x",
        *,
        tsn: int | None = None,
        stream: int = 1,
        ssn: int = 0,
        ppid: int = 51,
        flags: int = wire.FLAG_BEGIN | wire.FLAG_END,
    ) -> bytes:
        """A DATA chunk; without `tsn` the next one."""
        if tsn is None:
            tsn, self.tsn = self.tsn, self.tsn + 1
        value = wire.DATA_FIELDS.pack(tsn & 0xFFFFFFFF, stream, ssn, ppid) + payload
        return wire.chunk(wire.DATA, flags, value)

    def sack(self, cumulative: int, *gaps: tuple[int, int], a_rwnd: int = 1 << 20, duplicates: int = 0) -> bytes:
        return wire.sack_chunk(cumulative, a_rwnd, list(gaps), [0] * duplicates)


def data_tsns(chunks: list[tuple[int, int, bytes]]) -> list[int]:
    return [wire.DATA_FIELDS.unpack_from(body, 4)[0] for kind, _, body in chunks if kind == wire.DATA]


def sacks(chunks: list[tuple[int, int, bytes]]) -> list[wire.Sack]:
    return [wire.parse_sack_untrusted(body, 0, len(body)) for kind, _, body in chunks if kind == wire.SACK]
