"""Targets below the channels: STUN, candidates, TURN, DTLS, the parsers of SCTP.

Each takes the fuzzer's bytes and raises only when something is wrong.
"""

from __future__ import annotations

import binascii
import contextlib
import itertools

from aioice import stun

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.dtls import Certificate, DtlsSession
from psyne_mesh.webrtc.dtls.handshake13.reassembly import split_fragments_untrusted
from psyne_mesh.webrtc.dtls.records import split_untrusted
from psyne_mesh.webrtc.express import INTERVAL_MAX_S, RECORD_MAX, RECORD_SAFE, Express
from psyne_mesh.webrtc.ice.candidates import may_check, parse_candidate_untrusted
from psyne_mesh.webrtc.ice.stun_guard import check_stun_untrusted, is_authentic
from psyne_mesh.webrtc.ice.turn_link import split_frames_untrusted
from psyne_mesh.webrtc.sctp import wire
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


def run_express(data: bytes) -> None:
    """Records of a hostile peer between those of our own; the lane must go on, within its limits."""
    lane, honest = Express(), Express()
    for number, (_, record) in enumerate(Cursor(data).pieces()):
        now = 1.0 + number / 50
        assert lane.send(1, b"position", False, now, thin=True)
        assert sum(map(len, lane.records_to_send(now))) <= 2 * RECORD_MAX
        try:
            messages = lane.receive_untrusted(record, now)
        except ProtocolError:
            continue
        assert sum(len(message) for _, _, message in messages) <= RECORD_MAX
        assert 0 <= lane.stats.interval_s <= INTERVAL_MAX_S
        assert lane.under_way <= lane.stats.window + 1
        honest.send(2, record[: RECORD_SAFE - 16], False, now, thin=False)
        for sent in honest.records_to_send(now):
            assert len(lane.receive_untrusted(sent, now)) >= 1


def run_dtls(data: bytes) -> None:
    """First byte: a fresh server, a fresh client, or both ends of an open session, which must live on."""
    cursor = Cursor(data)
    mode = cursor.byte() % 3
    datagrams = [datagram for _, datagram in cursor.pieces()]
    for datagram in datagrams:
        for record in split_untrusted(datagram)[0]:
            split_fragments_untrusted(record.data[13:])
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
