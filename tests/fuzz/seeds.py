"""The first inputs of every target: honest ones, as our own code and the standards write them.

`python -m tests.fuzz --write-seeds` puts them into the corpus as `seed-*`; what fuzzing found stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.node import Node
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.room.carried import carried
from psyne_mesh.signaling import cluster_messages, envelope
from psyne_mesh.signaling import messages as signals
from psyne_mesh.webrtc.dcep import ACK, encode_open
from psyne_mesh.webrtc.express import EXPRESS, Express
from psyne_mesh.webrtc.sctp import SctpConfig, wire
from tests.dtls.pair import Pair
from tests.fuzz.association import FITTING, INITIAL_TSN, LATER, SEND, TAG, WAIT
from tests.fuzz.inputs import pieces
from tests.fuzz.messages import ME, PEER, ROOM, Inventory, Move
from tests.fuzz.targets import CORPUS
from tests.gossip.cluster import Cluster
from tests.ice.test_stun_guard import SAMPLE, check, signed
from tests.sctp.link import LinkConfig, LossyLink, chunk_types
from tests.signaling.test_messages import CLIENT, SERVER
from tests.webrtc.test_channel_table import BINARY, DCEP, STRING
from tests.webrtc.test_sdp import CHROMIUM_OFFER, FIREFOX_OFFER, WITH_MEDIA

SEED_BYTES_MAX = 2048
SEEDS_PER_TARGET_MAX = 16


def write_seeds() -> None:
    makers = {
        name.removeprefix("seeds_of_"): maker for name, maker in globals().items() if name.startswith("seeds_of_")
    }
    for target, maker in makers.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        small = (seed for seed in maker() if len(seed) <= SEED_BYTES_MAX)
        for number, seed in enumerate(islice(small, SEEDS_PER_TARGET_MAX)):
            (folder / f"seed-{number:02}").write_bytes(seed)


def seeds_of_stun() -> Iterator[bytes]:
    yield b"\0" + SAMPLE
    yield b"\1" + SAMPLE[:-8]
    yield b"\0" + signed(check())
    yield b"\1" + signed(check(**{"ICE-CONTROLLING": "absent", "ICE-CONTROLLED": 5, "USE-CANDIDATE": None}))
    for kind, attribute in ((0x0101, "002000080001a147e112a643"), (0x0111, "000900100000040155")):
        body = bytes.fromhex(attribute)
        body += bytes(-len(body) % 4)
        yield b"\1" + kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + SAMPLE[4:20] + body


def seeds_of_candidate() -> Iterator[bytes]:
    yield b"candidate:1 1 udp 2130706431 192.0.2.1 50000 typ host ufrag abcd"
    yield b"candidate:2 1 UDP 1694498815 2001:db8::1 50001 typ srflx raddr 10.0.0.1 rport 5000 generation 0"
    yield b"a=candidate:3 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active"
    yield b"candidate:4 1 udp 2113937151 0b1c2d3e-0000-4000-8000-000000000000.local 51000 typ host"


def seeds_of_turn_stream() -> Iterator[bytes]:
    channel_data = b"\x40\x01\x00\x05hello\0\0\0"
    yield pieces(SAMPLE, channel_data)
    yield pieces(SAMPLE[:3], SAMPLE[3:] + channel_data[:6], channel_data[6:])


def seeds_of_dtls() -> Iterator[bytes]:
    pair = Pair().connect()
    from_client = [datagram for sender, datagram in pair.sent if sender == "client"]
    from_server = [datagram for sender, datagram in pair.sent if sender == "server"]
    yield b"\0" + pieces(*from_client)
    yield b"\1" + pieces(*from_server)
    yield b"\2" + pieces(*from_client[-1:], *pair.client.send([b"a packet"]))
    yield b"\2" + pieces(bytes.fromhex("15fefd000000000000000100020100"))  # a close_notify that nobody signed
    yield b"\2" + pieces(bytes.fromhex("17fefd0001000000000005000401020304"))


def _conversation() -> dict[str, bytes]:
    """Packets of a lossy conversation, one for each combination of chunks."""
    found: dict[str, bytes] = {}
    for interleaving in (False, True):
        config = SctpConfig(interleaving=interleaving, packet_bytes_max=1450, zero_checksum=False)
        link = LossyLink(LinkConfig(latency_s=0.02, jitter_s=0.02, loss=0.1), seed=3, config_a=config)
        link.a.keep_packets = link.b.keep_packets = True
        link.connect()
        for number in range(20):
            for side in (link.a, link.b):
                side.association.send(
                    number % 3, 51, bytes(300), link.now, unordered=number % 2 == 0, max_retransmits=0
                )
            link.run(0.01)
        link.a.association.reset_streams([1], link.now)
        link.run(2)
        link.b.association.shutdown(link.now)
        link.run(5)
        for packet in link.a.sent_packets + link.b.sent_packets:
            found.setdefault(f"{interleaving}{chunk_types(packet)}", packet)
    return found


def seeds_of_sctp() -> Iterator[bytes]:
    yield from _conversation().values()


def _data(tsn: int, flags: int = 3, ssn: int = 0) -> bytes:
    fields = wire.DATA_FIELDS.pack((INITIAL_TSN + tsn) & 0xFFFFFFFF, 1, ssn, 51)
    return wire.chunk(wire.DATA, flags, fields + bytes(20))


def _i_data(tsn: int, flags: int = 3, mid: int = 0) -> bytes:
    fields = wire.I_DATA_FIELDS.pack((INITIAL_TSN + tsn) & 0xFFFFFFFF, 1, 0, mid, 51)
    return wire.chunk(wire.I_DATA, flags, fields + bytes(20))


def _reset(kind: int, *numbers: int, streams: bytes = b"\0\1") -> bytes:
    value = b"".join(wire.U32.pack(number) for number in numbers) + streams
    return wire.chunk(wire.RE_CONFIG, 0, wire.parameter(kind, value))


def seeds_of_association() -> Iterator[bytes]:
    """First the story so far, then pieces; numbers under FITTING are relative."""
    forward = wire.forward_tsn_chunk(INITIAL_TSN + 6, [(1, False, 1)], interleaving=False)
    init = wire.init_chunk(wire.INIT, 9, 1 << 20, 5, 5, 7, [wire.parameter(0xC00C, b"?")])
    cookie = wire.parameter(wire.PARAM_STATE_COOKIE, b"c")
    ack = wire.init_chunk(wire.INIT_ACK, TAG, 1 << 20, 5, 5, INITIAL_TSN, [cookie])
    echo, cookie_ack = wire.chunk(wire.COOKIE_ECHO, 0, b""), wire.chunk(wire.COOKIE_ACK, 0, b"")
    yield b"\0" + pieces(_data(0), _data(2, ssn=2), _data(1, ssn=1), _data(1, ssn=1))
    yield b"\0" + pieces(_data(0, 2), _data(2, 1), _data(1, 0)) + pieces(_data(4, 2)) + pieces(forward, flags=WAIT)
    yield b"\1" + pieces(_i_data(0), _i_data(3, mid=2), _i_data(1, 2, 1))
    yield b"\1" + pieces(wire.forward_tsn_chunk(INITIAL_TSN + 9, [(1, True, 3), (2, False, 7)], interleaving=True))
    yield b"\0" + pieces(_data(0), flags=SEND) + pieces(_reset(13, 0, 0, 1), _data(1, ssn=1), flags=FITTING)
    held_back = pieces(_data(0), _data(9)) + pieces(_reset(13, 0, 0, 6), flags=FITTING) + pieces(_data(8), _data(7))
    yield b"\0" + held_back + pieces(_reset(13, 1, 0, 0), flags=FITTING) + pieces(forward)
    yield b"\0" + held_back + pieces(*(_data(tsn) for tsn in range(1, 7)))
    yield b"\x0c" + pieces(_reset(14, 0), _reset(16, 0, 1), _reset(16, 0, 6), flags=FITTING | WAIT)
    sacks = [wire.sack_chunk(1, 5000, [(2, 3), (5, 5)], [1, 2]), wire.sack_chunk(3, 0, [(2, 2)])]
    yield (
        b"\4"
        + pieces(*sacks, wire.sack_chunk(2, 90_000, []), flags=FITTING | LATER | SEND)
        + pieces(b"", flags=WAIT) * 3
    )
    yield b"\x10" + pieces(wire.chunk(wire.SHUTDOWN, 0, bytes(4)), wire.chunk(wire.SHUTDOWN_ACK, 0, b""), flags=FITTING)
    beat = wire.chunk(wire.HEARTBEAT, 0, wire.parameter(1, b"info"))
    yield (
        b"\0" + pieces(beat, wire.chunk(0xC9, 0, b"??")) + pieces(wire.chunk(wire.HEARTBEAT_ACK, 0, b""), flags=FITTING)
    )
    yield b"\0" + pieces(wire.error_chunk(wire.ERROR, [wire.parameter(3, bytes(4))]), wire.chunk(wire.ABORT, 0, b""))
    unacceptable = wire.init_chunk(wire.INIT, 9, 1, 0, 5, 7, [wire.parameter(wire.PARAM_HOST_NAME, b"a.b")])
    yield b"\4" + pieces(init, unacceptable) + pieces(echo, flags=FITTING) + pieces(echo, cookie_ack, init)
    yield b"\x20" + pieces(ack, cookie_ack, _data(0), init, wire.error_chunk(wire.ERROR, [wire.parameter(3, bytes(4))]))


CHANNELS = (
    DataChannelConfig(label="game"),
    DataChannelConfig(label="Ünïcode", protocol="p", ordered=False, max_retransmits=0),
    DataChannelConfig(label="", max_packet_life_time_ms=100, priority=1024),
)


def seeds_of_express() -> Iterator[bytes]:
    lane = Express()
    for number in range(4):
        for stream in range(number):
            lane.send(stream, bytes(range(10 * stream)), text=False, now=number / 10, thin=True)
        yield pieces(*lane.records_to_send(number / 10))
    yield pieces(bytes((EXPRESS, 255)) + bytes(10), bytes((EXPRESS,)) + b"\xff" * 11)


def seeds_of_dcep() -> Iterator[bytes]:
    yield ACK
    yield from map(encode_open, CHANNELS)


def seeds_of_channels() -> Iterator[bytes]:
    opens = [bytes((DCEP,)) + encode_open(config) for config in CHANNELS]
    text, binary = bytes((STRING,)) + b"hello", bytes((BINARY,)) + b"\0\1"
    yield b"\1" + pieces(opens[0], text, binary, flags=1) + pieces(b"", flags=0x21) + pieces(b"", flags=0x41)
    yield (
        b"\0" + pieces(text, opens[1], flags=3) + pieces(bytes((DCEP,)) + ACK, text, flags=0) + pieces(b"", flags=0x80)
    )
    yield b"\1" + pieces(binary, flags=7) + pieces(opens[2], opens[2], flags=5) + pieces(b"", flags=0xA5) * 2


def seeds_of_sdp() -> Iterator[bytes]:
    for text in (CHROMIUM_OFFER, FIREFOX_OFFER, WITH_MEDIA):
        yield text.encode()


def seeds_of_signaling() -> Iterator[bytes]:
    chosen = [*CLIENT[:1], *CLIENT[2:5], *SERVER[2:3], *SERVER[4:7], *SERVER[9:]]
    yield from (signals.encode(message).encode() for message in chosen)
    yield cluster_messages.encode(
        cluster_messages.AskRooms(sender="server", question=1, wanted=signals.ListRooms(ref=1))
    )


def seeds_of_envelope() -> Iterator[bytes]:
    sealed = envelope.seal(
        PEER, kind="offer", recipient=ME.peer_id, room=ROOM, session="s", sequence=1, now_ms=1000, body="v=0"
    )
    yield b"\0" + sealed.encode()
    yield b"\1" + envelope._from_base64url(sealed.split(".")[0])


def _gossip() -> dict[int, bytes]:
    """One frame of each type that a member of a busy room hears."""
    heard: dict[int, bytes] = {}
    receive = Node.receive

    def listen(node: Node, peer: object, frame: bytes, now: float) -> None:
        if frame[1] not in heard or len(frame) < len(heard[frame[1]]):
            heard[frame[1]] = frame
        receive(node, peer, frame, now)  # type: ignore[arg-type]

    Node.receive = listen  # type: ignore[method-assign, assignment]
    try:
        for config in (GossipConfig(), GossipConfig(full_mesh_max=8, full_knowledge_max=16)):
            cluster = Cluster(5, config, loss=0.05)
            first = cluster.add(0).peer_id
            for index in range(1, 20):
                cluster.add(index, knows=[first])
            for second in range(20):
                cluster.run(1.0)
                peer = cluster.ids()[second % 4]
                cluster.tell(peer, lambda node: node.broadcast(b"hello", cluster.now))  # noqa: B023
                cluster.tell(peer, lambda node: node.send_signal(cluster.ids()[-1], b"sdp", cluster.now))  # noqa: B023
            cluster.crash(cluster.ids()[5])
            cluster.tell(cluster.ids()[6], lambda node: node.leave(cluster.now))  # noqa: B023
            cluster.run(10.0)
    finally:
        Node.receive = receive  # type: ignore[method-assign]
    return heard


def seeds_of_gossip_frames() -> Iterator[bytes]:
    yield from (frame for _, frame in sorted(_gossip().items(), key=lambda entry: len(entry[1])))


def seeds_of_gossip() -> Iterator[bytes]:
    frames = [frame for _, frame in sorted(_gossip().items()) if len(frame) < 700]
    for at in range(0, len(frames), 2):
        yield bytes((at,)) + pieces(*frames[at : at + 2], flags=8 * (at % 4 == 0))


def seeds_of_room() -> Iterator[bytes]:
    encoder = msgspec.msgpack.Encoder()
    yield encoder.encode(Move(1.5, -2.0, "name"))
    yield encoder.encode(Inventory({"sword": [1.0, 2.0]}, b"me"))
    yield carried("chat", "hello")
    yield carried("moves", b"\0\1\2")
    yield Profile.make("eu", (1.0, 2.0), {"colour": "red"}).encode()
