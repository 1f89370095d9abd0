"""Targets below the channels: STUN, DTLS, SCTP. Each takes the fuzzer's bytes and raises only when something is wrong."""

from __future__ import annotations

import binascii
import contextlib
import itertools
import random

from aioice import stun

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.dtls import Certificate, DtlsSession
from psyne_mesh.webrtc.dtls.records import holds_handshake_untrusted, split_untrusted
from psyne_mesh.webrtc.ice.candidates import may_check, parse_candidate_untrusted
from psyne_mesh.webrtc.ice.stun_guard import check_stun_untrusted, is_authentic
from psyne_mesh.webrtc.ice.turn_link import split_frames_untrusted
from psyne_mesh.webrtc.sctp import Association, SctpConfig, State, wire
from tests.fuzz.inputs import Cursor

KEY = b"password of the receiver"
_FINGERPRINT = 0x8028_0004


def run_stun(data: bytes) -> None:
    """What the guard lets pass, aioice must be able to read. First byte: bit 0 mends the length and the fingerprint."""
    cursor = Cursor(data)
    mends, message = cursor.byte() & 1, cursor.rest()
    if mends and len(message) >= 20:
        head = message[:2] + (len(message) - 20 + 8).to_bytes(2, "big")
        message = head + b"\x21\x12\xa4\x42" + message[8:]
        crc = binascii.crc32(message) ^ 0x5354554E
        message += _FINGERPRINT.to_bytes(4, "big") + crc.to_bytes(4, "big")
    try:
        header = check_stun_untrusted(message)
    except ProtocolError:
        return
    is_authentic(message, header, KEY)
    assert header.local_ufrag is not None
    with contextlib.suppress(ValueError):  # aioice's own word for a message that it does not want
        stun.parse_message(message)


def run_candidate(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        candidate, _ = parse_candidate_untrusted(text)
    except ProtocolError:
        return
    may_check(candidate.host, loopback=False)
    candidate.to_sdp()


def run_turn_stream(data: bytes) -> None:
    """Frames do not depend on how the stream was cut."""
    cursor = Cursor(data)
    parts = [part for _, part in cursor.pieces()]
    whole, buffer = bytearray(b"".join(parts)), bytearray()
    frames: list[bytes] = []
    try:
        for part in parts:
            buffer += part
            frames += split_frames_untrusted(buffer)
    except ProtocolError:
        return
    assert split_frames_untrusted(whole) == frames
    assert whole == buffer


# ----------------------------------------------------------------------------------------------------------------- DTLS

_CERTIFICATES = (Certificate.generate(), Certificate.generate())
_RUNS_PER_PAIR = 500  # then new sessions, so that what one input leaves behind is not blamed on another for ever
_open_pairs: list[tuple[DtlsSession, DtlsSession]] = []  # one, from the first run on
_runs = itertools.count()


def _session(is_client: bool) -> DtlsSession:
    ours, theirs = _CERTIFICATES if is_client else reversed(_CERTIFICATES)
    session = DtlsSession(ours, is_client=is_client, remote_fingerprints=[theirs.fingerprint])
    session.start(0.0)
    return session


def _connected() -> tuple[DtlsSession, DtlsSession]:
    client, server = _session(True), _session(False)
    for _ in range(10):
        for sender, receiver in ((client, server), (server, client)):
            for datagram in sender.datagrams_to_send(0.0):
                receiver.receive(datagram, 0.0)
    assert client.state == server.state == "established"
    client.take_events()
    server.take_events()
    return client, server


def run_dtls(data: bytes) -> None:
    """First byte: a fresh server, a fresh client, or both ends of an open session, which must live on."""
    cursor = Cursor(data)
    mode = cursor.byte() % 3
    datagrams = [datagram for _, datagram in cursor.pieces()]
    for datagram in datagrams:
        for record in split_untrusted(datagram)[0]:
            holds_handshake_untrusted(record)
    if mode < 2:
        session = _session(is_client=mode == 1)
        session.datagrams_to_send(0.0)
        for number, datagram in enumerate(datagrams):
            assert session.receive(datagram, number / 10) == []
            assert all(len(sent) <= 1200 for sent in session.datagrams_to_send(number / 10))
        session.handle_timeout(100.0)
        assert len(session.take_events()) <= 1
        return
    if next(_runs) % _RUNS_PER_PAIR == 0:
        _open_pairs[:] = [_connected()]
    client, server = _open_pairs[0]
    for end in (client, server):
        for datagram in datagrams:
            assert end.receive(datagram, 1.0) == []
            assert sum(map(len, end.datagrams_to_send(1.0))) < 200
    for sender, receiver in ((client, server), (server, client)):
        (sealed,) = sender.send([b"still here"])
        assert receiver.receive(sealed, 1.0) == [b"still here"]
        assert not sender.take_events()


# ----------------------------------------------------------------------------------------------------------------- SCTP


def run_sctp_parsers(data: bytes) -> None:
    """Every parser of the wire, each on the whole input."""
    with contextlib.suppress(ProtocolError):
        for _, _, start, end in wire.parse_packet_untrusted(data).chunks:
            assert wire.HEADER_BYTES <= start < end <= len(data)
    with contextlib.suppress(ProtocolError):
        wire.parse_parameters_untrusted(data, 0, len(data))
    parsers = (
        wire.parse_init_untrusted,
        wire.parse_sack_untrusted,
        wire.parse_forward_tsn_untrusted,
        wire.parse_i_forward_tsn_untrusted,
    )
    if len(data) >= 20:
        for parse in parsers:
            with contextlib.suppress(ProtocolError):
                parse(data, 0, len(data))


class _World:
    """An association that the fuzzer's peer has established by hand."""

    TAG = 0x1234
    INITIAL_TSN = 0xFFFF_FFF0

    def __init__(self, options: int) -> None:
        self.now = 10.0
        config = SctpConfig(
            interleaving=bool(options & 1), partial_reliability=not options & 2, receive_window_bytes=65_536
        )
        self.association = Association(config, rng=random.Random(1))
        self.tag = 0
        extensions = bytes((wire.RE_CONFIG, wire.FORWARD_TSN, wire.I_DATA, wire.I_FORWARD_TSN))
        parameters = [wire.parameter(wire.PARAM_EXTENSIONS, extensions)]
        self.give(0, wire.init_chunk(wire.INIT, self.TAG, 1 << 20, 20, 20, self.INITIAL_TSN, parameters))
        (packet,) = self.association.packets_to_send(self.now)
        ack = wire.parse_init_untrusted(packet, *wire.parse_packet_untrusted(packet).chunks[0][2:])
        self.tag = ack.tag
        self.give(ack.tag, wire.chunk(wire.COOKIE_ECHO, 0, ack.cookie))
        if options & 4:  # data of ours on its way
            for stream in range(5):
                self.association.send(stream, 51, bytes(3000), self.now, max_retransmits=stream % 2 or None)
        self.settle()
        if options & 8:
            self.association.reset_streams([1, 2, 9], self.now)
        if options & 16:
            self.association.shutdown(self.now)
        self.settle()

    def give(self, tag: int, body: bytes, *, zero_checksum: bool = False) -> None:
        header = wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(tag)
        seal = wire.seal_without_checksum if zero_checksum else wire.seal
        self.association.receive(seal(header, [body]), self.now)

    def settle(self) -> None:
        association = self.association
        packets = association.packets_to_send(self.now)
        assert sum(map(len, packets)) < 60_000, "one input, and a flood of answers"
        for packet in packets:
            kinds = [chunk[0] for chunk in wire.parse_packet_untrusted(packet).chunks]
            assert len(packet) <= association.path_mtu or wire.PAD in kinds
        association.take_events()
        inbound = association._inbound
        if inbound is not None:
            assert inbound.reassembly.held_bytes <= 2 * 65_536 + 20_000
            assert inbound.a_rwnd >= 0
        table = association._outbound.outstanding
        assert table.flight_bytes >= 0 <= table.lost_bytes


def run_association(data: bytes) -> None:
    """First byte: what has happened before. Flags of a piece: 1 as it is, without header; 2 another tag; 4 wait for a
    timer first; 8 no checksum."""
    cursor = Cursor(data)
    world = _World(cursor.byte())
    association = world.association
    for flags, body in cursor.pieces():
        if flags & 4 and (deadline := association.next_timeout()) is not None:
            world.now = max(world.now, deadline)
            association.handle_timeout(world.now)
        if flags & 1:
            association.receive(body, world.now)
        else:
            world.give(world.tag ^ (flags & 2), body, zero_checksum=bool(flags & 8))
        world.settle()
    for _ in range(30):
        deadline = association.next_timeout()
        if deadline is None:
            break
        assert deadline >= world.now - 1e-9
        world.now = deadline
        association.handle_timeout(world.now)
        world.settle()
    if association.state is State.CLOSED:
        assert association.next_timeout() is None
