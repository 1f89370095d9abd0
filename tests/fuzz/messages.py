"""Targets above the packets: data channels, session descriptions, signaling, gossip, rooms."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from psyne_mesh.errors import ProtocolError, VersionMismatch
from psyne_mesh.gossip import broadcast_wire, codec, proofs, records, routing, sync, walks
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.node import Node
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.tunnels import frame_untrusted, signal_untrusted
from psyne_mesh.room.carried import carried, carried_untrusted
from psyne_mesh.room.codec import MessageCodec
from psyne_mesh.room.messages import Message
from psyne_mesh.signaling import cluster_messages, envelope, hall_wire
from psyne_mesh.signaling import messages as signals
from psyne_mesh.signaling.convert import joined_untrusted, listing_untrusted
from psyne_mesh.signaling.events import split_room_key_untrusted
from psyne_mesh.webrtc import sctp
from psyne_mesh.webrtc.channel import ChannelOpened
from psyne_mesh.webrtc.credit import CREDIT_STREAM
from psyne_mesh.webrtc.dcep import encode_credit, encode_open, parse_credit_untrusted, parse_dcep_untrusted
from psyne_mesh.webrtc.dtls import Fingerprint
from psyne_mesh.webrtc.sdp import Description, answer_setup, make_answer, parse_sdp_untrusted
from tests.fuzz.inputs import Cursor
from tests.gossip.cluster import ROOM as GOSSIP_ROOM
from tests.gossip.cluster import CheapIdentity
from tests.webrtc.test_channel_table import World

ME = Identity.from_seed(bytes(32))
PEER = Identity.from_seed(b"p" * 32)
ROOM = "a room"


def refused(parse: Callable[[], Any]) -> bool:
    """Whether the bytes were refused, in the only way that is allowed."""
    try:
        parse()
    except ProtocolError:
        return True
    return False


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# ------------------------------------------------------------------------------------------------------------- channels


def run_dcep(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        stream_id, limit = parse_credit_untrusted(data)
        assert encode_credit(stream_id, limit) == data
    try:
        config = parse_dcep_untrusted(data)
    except ProtocolError:
        return
    if config is not None:
        assert parse_dcep_untrusted(encode_open(config)) == config


def run_channels(data: bytes) -> None:
    """A peer with an association may say anything on any stream, and reset any. Flags: low bits the stream; 0x20 a
    reset of it by the peer, 0x40 our reset is through, 0x80 we close its channel. First byte of a piece: the PPID."""
    cursor = Cursor(data)
    world = World(established=bool(cursor.byte() & 1), channels_max=8, peer_channels_max=8)
    created = [world.create(), world.create(negotiated=True, id=7)]
    if not world.association.is_established:
        world.establish()
    for flags, piece in cursor.pieces():
        stream = flags & 0x1F
        if flags & 0x20:
            world.feed(sctp.StreamsResetByPeer((stream,)))
        elif flags & 0x40:
            if stream in world.association.resets:
                world.association.resets = [s for s in world.association.resets if s != stream]
                world.feed(sctp.StreamsReset((stream,)))
        elif flags & 0x80:
            for channel in created:
                if channel.id == stream:
                    world.table.close(channel, 0.0)
        elif piece[1:]:
            world.message(CREDIT_STREAM if stream == 0x1F else stream, piece[0], piece[1:])
            world.table.send_credits(0.0)
        for event in world.table.take_events():
            if isinstance(event, ChannelOpened) and event.channel not in created:
                created.append(event.channel)
        world.table.stats()
    world.table.close_all("the end", by_peer=False)
    assert all(channel.state == "closed" for channel in created)


# ------------------------------------------------------------------------------------------------- session descriptions

_LOCAL = Description(
    ice_ufrag="ufrag", ice_pwd="p" * 22, fingerprints=("sha-256 " + ":".join(["AB"] * 32),), setup="active"
)


def run_sdp(data: bytes) -> None:
    """What can be read can be answered, and our answer can be read."""
    try:
        offer = parse_sdp_untrusted(text_of(data))
    except ProtocolError:
        return
    for text in offer.fingerprints:
        refused(partial(Fingerprint.parse_untrusted, text))
    local = attrs.evolve(_LOCAL, setup=answer_setup(offer.setup))
    answer = parse_sdp_untrusted(make_answer(local, offer, session_id=1))
    assert (answer.setup, answer.fingerprints, answer.mid) == (local.setup, local.fingerprints, offer.mid)


# ------------------------------------------------------------------------------------------------------------ signaling


def run_signaling(data: bytes) -> None:
    """Every reader of a frame, from both sides. A frame of another version may say so."""
    with contextlib.suppress(ProtocolError, VersionMismatch):
        signals.decode_client_untrusted(data)
    signals.ref_untrusted(data)
    with contextlib.suppress(ProtocolError, VersionMismatch):
        message = signals.decode_server_untrusted(data)
        if isinstance(message, signals.JoinedRoom):
            refused(lambda: joined_untrusted(message, ME.peer_id))
        if isinstance(message, signals.RoomList):
            refused(lambda: listing_untrusted(message))
    refused(lambda: cluster_messages.decode_untrusted(data))
    refused(lambda: hall_wire.decode_untrusted(data))
    refused(lambda: signals.from_base64_untrusted(text_of(data)))
    refused(lambda: split_room_key_untrusted(text_of(data)))
    refused(lambda: PeerId.parse_untrusted(text_of(data)))


def run_envelope(data: bytes) -> None:
    """First byte even: the text of an envelope. Odd: a payload that the peer itself signed."""
    cursor = Cursor(data)
    mode, rest = cursor.byte(), cursor.rest()
    text = text_of(rest)
    if mode & 1:
        parts = (rest, PEER.public_key, PEER.sign(envelope.SIGNAL_DOMAIN, rest))
        text = ".".join(envelope._to_base64url(part) for part in parts)
    guard = envelope.ReplayGuard()
    try:
        opened = envelope.open_untrusted(
            text, recipient=ME.peer_id, now_ms=1_000, expected_sender=PEER.peer_id, room=ROOM
        )
    except ProtocolError as error:
        envelope.tampering_in(error)
        return
    assert opened.sender == PEER.peer_id
    assert opened.room == ROOM
    if guard.accept(opened, 1_000):
        assert not guard.accept(opened, 1_000)


# --------------------------------------------------------------------------------------------------------------- gossip


def run_gossip_parsers(data: bytes) -> None:
    parsers: tuple[Callable[[bytes], Any], ...] = (
        codec.frame_type_untrusted, codec.probe_untrusted, codec.indirect_untrusted, sync.digest_untrusted,
        sync.delta_untrusted, routing.relay_untrusted, walks.join_untrusted, walks.shuffle_untrusted,
        broadcast_wire.ihave_untrusted, broadcast_wire.graft_untrusted, broadcast_wire.keep_untrusted,
        broadcast_wire.haves_untrusted, records.record_untrusted, records.accusation_untrusted,
        lambda frame: codec.items_untrusted(frame, 2), lambda frame: broadcast_wire.gossip_untrusted(frame, 4096),
        lambda frame: routing.signal_untrusted(frame, 4096, 8), proofs.proof_untrusted,
    )  # fmt: skip
    for parse in parsers:
        refused(partial(parse, data))


def believe(public_key: bytes, domain: bytes, payload: bytes, signature: bytes) -> PeerId:
    """The fuzzer cannot forge signatures, so every one holds: more than a hostile member could ever say."""
    return PeerId.of(public_key)


def run_gossip(data: bytes) -> None:
    """A node with two links. Flags of a piece: 1 it comes from the second peer; 2 wait for a timer first; 4 the link
    ends afterwards; 8 the node broadcasts first; 16 it is a record from signaling."""
    cursor = Cursor(data)
    now = 100.0
    node = Node(
        GossipConfig(), CheapIdentity(0), GOSSIP_ROOM, rng=random.Random(cursor.byte()), verify=believe, epoch=5
    )
    peers = [CheapIdentity(1).peer_id, CheapIdentity(2).peer_id]
    node.start(now)
    for peer in peers:
        node.link_up(peer, now, 0.02)
    drain(node)
    for flags, piece in cursor.pieces():
        if flags & 2 and (deadline := node.next_timeout()) is not None:
            now = max(now, deadline)
            node.handle_timeout(now)
        if flags & 8:
            node.broadcast(b"hello", now)
        if flags & 16:
            node.learn([piece], now)
        else:
            node.receive(peers[flags & 1], piece, now)
        if flags & 4:
            node.link_down(peers[flags & 1], "lost", now)
            node.link_up(peers[flags & 1], now)
        drain(node)
    for _ in range(20):
        deadline = node.next_timeout()
        if deadline is None:
            break
        now = max(now, deadline)
        node.handle_timeout(now)
        drain(node)
    node.leave(now)
    drain(node)


def drain(node: Node) -> None:
    outputs = node.take_outputs()
    assert len(outputs) < 2_000, "one input, and a flood of frames"
    for output in outputs:
        frame = getattr(output, "frame", b"")
        assert len(frame) <= codec.FRAME_MAX
        codec.frame_type_untrusted(frame or codec.head(codec.PING))
    node.take_events()


# ---------------------------------------------------------------------------------------------------------------- rooms


class Move(Message):
    x: float
    y: float
    name: str = ""


class Inventory(Message):
    items: dict[str, list[float]]
    owner: bytes | None = None


_CODEC = MessageCodec([Move, Inventory])


def run_room(data: bytes) -> None:
    """Typed messages come back equal; carried ones, tunnels and profiles are read or refused."""
    with contextlib.suppress(ProtocolError):
        message = _CODEC.decode_untrusted(data)
        assert _CODEC.decode_untrusted(_CODEC.encode(message)) == message
    with contextlib.suppress(ProtocolError):
        name, payload, reliable = carried_untrusted(data)
        assert carried(name, payload, reliable=reliable) == data
    refused(lambda: frame_untrusted(data))
    refused(lambda: signal_untrusted(text_of(data)))
    refused(lambda: Profile.parse_untrusted(data))
