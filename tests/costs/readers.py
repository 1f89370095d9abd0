"""What each reader of outside bytes costs. Frames of gossip (`gossip/costs.py`) and chunks of SCTP (`benchmarks/attacks.py`)
have tables of their own.

A unit is what an honest one-byte message costs through SCTP, for each of its bytes: 1 % of a core at 1 Mbit/s. It is told
twice: in steps of Python, which are counted and never waver, and in time, which knows what C functions take.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, TypeAlias, get_args

import attrs
import msgspec

from psyne_mesh.game import (
    attestation,
    bans,
    host_wire,
    requests,
    schema,
    shared_wire,
    state_wire,
    timers,
    transfer_wire,
)
from psyne_mesh.game.rollback import wire as rollback
from psyne_mesh.game.schema import Shared, announcement, schema_of
from psyne_mesh.game.shared_wire import CLASS, DELTA, FULL, REMOVED, Head, varint
from psyne_mesh.game.watching import wire as watching
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh import owed, pause, profile, records, tunnels
from psyne_mesh.room import carried, described, fairness, playing, tagged, timekeeper
from psyne_mesh.room import plain as plain_values
from psyne_mesh.room.codec import MessageCodec
from psyne_mesh.room.messages import Message
from psyne_mesh.signaling import cluster_messages, convert, envelope, events, hall_wire, messages, probe, site
from psyne_mesh.webrtc import dcep, express, sdp
from psyne_mesh.webrtc.dtls import Fingerprint, record13
from psyne_mesh.webrtc.dtls import records as dtls_records
from psyne_mesh.webrtc.dtls.handshake13 import reassembly
from psyne_mesh.webrtc.ice import candidates, stun_guard, turn_link
from tests.game.party import Player

Said: TypeAlias = bytes | str
RNG = random.Random(1)


@attrs.frozen
class Reader:
    """said: made to cost as much as possible, small and large. make: a fresh reader, which may hold something already.
    per_byte: in units, with 20 bytes of headers for each (`test_readers.py`: which test holds it how). why: where it is more
    than 5."""

    said: tuple[Said, ...]
    make: Callable[[], Callable[[Any], object]]
    per_byte: float = 5.0
    why: str = ""


def plain(read: Callable[[Any], object], said: Iterable[Said], per_byte: float = 5.0, why: str = "") -> Reader:
    return Reader(tuple(said), lambda: read, per_byte, why)


# ------------------------------------------------------------------------------------------------------------- MessagePack


class Anything(Message):
    value: Any


class Typed(Message):
    words: dict[str, list[float]] = {}
    where: tuple[float, ...] = ()


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def packs(head: list[object]) -> list[bytes]:
    """An array that begins like that, and then what costs a decoder most."""
    deep: object = 1
    for _ in range(60):
        deep = [deep]
    tails: list[object] = [[[]] * 50_000, [{}] * 50_000, {i: {} for i in range(10_000)}, {i << 40: 0 for i in range(10_000)},
                           deep, [1] * 50_000, [1.5] * 10_000, ["x"] * 50_000, 1, "x", b"\xff" * 1000]  # fmt: skip
    whole = [packed([*head, tail]) for tail in tails] + [packed([*head, tail, tail]) for tail in tails[-4:]]
    return [*whole, whole[0][:-1], packed(head), packed([]), b"", b"\x90", b"\xc1", b"\xdd\xff\xff\xff\xff"]


def channel_messages() -> list[bytes]:
    typed = [packed(["Typed", {str(i): [] for i in range(5_000)}]), packed(["Else", 1]), packed(["Typed", 1])]
    text = packed(["Anything", ["x"] * 50_000])[:-1] + b"\xff"
    return [*packs(["Anything"]), *typed, text, packed(["Anything", [[]] * 50_000 + [float("nan")]])]


def announcements() -> list[str]:
    texts = [
        "[" * 290,
        '["Typed",[' + '["a","b"],' * 27 + '["c","d"]]]',
        '["Typed",["\\ud800"]]',
        '["Typed",[["words","x"]]]',
    ]
    whole = [MessageCodec([Typed]).announcement, *(f"{described.PROTOCOL}\n{'0' * 16} {text}" for text in texts)]
    return [*whole, described.PROTOCOL + ("\n" + "0" * 16) * 18, described.PROTOCOL + "\n" * 300, "x" * 60_000, ""]


# ------------------------------------------------------------------------------------------------------------------- JSON


def jsons(**fields: object) -> list[str]:
    """A message with these fields, and what costs a decoder most beside them or in their place."""
    good = {"v": 1, "ref": 1, **fields}
    whole = json.dumps(good)
    tails = ("[" * 60_000, "[" + "[]," * 20_000 + "[]]", "{" + '"a":{},' * 7_000 + '"b":1}', "1" * 60_000, "1e" + "9" * 1000,
             '"' + "\\u0041" * 10_000 + '"', '"' + "\\ud800" * 10_000 + '"', '"' + "\u202e" * 20_000 + '"')  # fmt: skip
    beside = [whole[:-1] + f', "x": {tail}}}' for tail in tails]
    instead = [json.dumps(good | {name: "?"}).replace('"?"', tail) for name in fields for tail in tails[1::3]]
    return [whole, "{}", "", whole[:-1], '{"v": 2}', *beside, *instead]


def tags(union: object) -> list[str]:
    return [str(kind.__struct_config__.tag) for kind in get_args(union)]


def client_messages() -> list[str]:
    return [
        *jsons(type="join", room="r", record="r" * 2000, metadata={str(i): i for i in range(60)}),
        *jsons(type="signal", to="a" * 32, room="//r", envelope="e" * 60_000),
        *jsons(type="hello", peer_id="a" * 32, nonce="n", signature="s" * 100),
        *(jsons(type=kind, room="//r")[0] for kind in tags(messages.ClientMessage)),
        *jsons(type="nothing"),
    ]


ROOM = {"room": "//r", "name": "r", "app_id": "", "region": "", "players": 1, "max_players": 4, "skill_range": None,
        "state": "waiting", "metadata": {}}  # fmt: skip


def server_messages() -> list[str]:
    members = [{"peer_id": f"{i:032x}", "record": "", "index": i} for i in range(256)]
    return [
        *jsons(type="joined", info=ROOM, peers=members, created=True, index=0),
        *jsons(type="room_list", rooms=[ROOM] * 100, truncated=False),
        *jsons(type="member_joined", room="//r", peer=members[0]),
        *jsons(type="signal_from", sender="a" * 32, room="//r", envelope="e" * 60_000),
        *jsons(type="error", code="x", message="m" * 1000),
        *(jsons(type=kind, room="//r")[0] for kind in tags(messages.ServerMessage)),
    ]


def read_server(frame: str) -> object:
    message = messages.decode_server_untrusted(frame)
    if isinstance(message, messages.JoinedRoom):
        return convert.joined_untrusted(message, PeerId("0" * 32))
    return convert.listing_untrusted(message) if isinstance(message, messages.RoomList) else message


def cluster_said() -> list[bytes]:
    beat = {"type": "alive", "v": 1, "sender": "s", "clock_s": 1.0, "hears": ["x"] * 1000}
    each = [
        packed({"type": kind, "v": 1, "sender": "s", "junk": [[]] * 20_000})
        for kind in tags(cluster_messages.AnyClusterMessage)
    ]
    return [*each, *packs([beat]), packed(beat), packed([beat] * 500), packed([{}] * 20_000)]


# -------------------------------------------------------------------------------------------------------------- envelopes

ME, PEER = Identity.from_seed(bytes(32)), Identity.from_seed(b"p" * 32)


def sealed(body: str) -> str:
    return envelope.seal(
        PEER, kind="offer", recipient=ME.peer_id, room="//r", session="s", sequence=1, now_ms=0, body=body
    )


def envelopes() -> list[str]:
    small, large = sealed(""), sealed("x" * 10_000)
    return [
        small,
        large,
        small[:-3] + "AAA",
        large[:100],
        "." * 60_000,
        "A" * 60_000,
        "",
        "é" * 1000,
        "..",
        small + "." * 100,
    ]


def open_envelope(text: str) -> object:
    return envelope.open_untrusted(text, recipient=ME.peer_id, now_ms=0)


# --------------------------------------------------------------------------------------------------------- shared objects


Wide = type(
    "Wide", (Shared,), {"__annotations__": {f"f{i}": int for i in range(40)}, **{f"f{i}": 0 for i in range(40)}}
)


class Tiny(Shared):
    on: bool = False


class SharedReader:
    """A player who sees 1,000 objects of another, as a room drives it; the other says what was given."""

    def __init__(self) -> None:
        self._player = Player("me", 1)
        self._player.replicas.know(Tiny)
        self._player.wire.peer_joined(PeerId("you"), 0.0)
        self._numbers = count(1)
        class_of = announcement(schema_of(Tiny))
        self(varint(0 << 3 | CLASS) + varint(len(class_of)) + class_of)
        self(b"".join(varint(i << 3 | FULL) + b"\0\0\0" for i in range(1_000)))

    def __call__(self, said: bytes) -> None:
        number = next(self._numbers)
        head = Head(0, 7, number, 0, 0, 0, number / 20, 0.05).encoded()
        self._player.receive(PeerId("you"), head + said, number / 20)
        self._player.events.clear()


def shared_said() -> list[bytes]:
    room = shared_wire.MESSAGE_BYTES_MAX - shared_wire.HEAD.size
    announced = announcement(schema_of(Tiny))
    one_class = varint(1 << 3 | CLASS) + varint(len(announced)) + announced
    return [
        (varint(5 << 3 | DELTA) + b"\0") * (room // 2),  # the same object, of which nothing changed, thousands of times
        (varint(5 << 3 | DELTA) + b"\1\x80") * (room // 3),
        b"".join(varint(i << 3 | DELTA) + b"\1\x80" for i in range(1_000)),
        b"".join(varint(i << 3 | DELTA) + b"\0" for i in range(1_000)),
        varint(5 << 3 | REMOVED) * room,
        b"".join(varint(1000 + i << 3 | REMOVED) for i in range(room // 2)),
        (varint(5 << 3 | FULL) + b"\0\0\0") * (room // 4),
        b"".join(varint(500 + i << 3 | FULL) + b"\0\0\0" for i in range(room // 5)),
        one_class * (room // len(one_class)),
        b"\xff" * room,
        b"",
        b"\x80" * 5,
    ]


# ----------------------------------------------------------------------------------------------------------------- others


def sdps() -> list[str]:
    head = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
    section = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sctp-port:5000\r\n"
    identity = (
        "a=ice-ufrag:abcd\r\na=ice-pwd:"
        + "p" * 24
        + "\r\na=setup:actpass\r\na=fingerprint:sha-256 "
        + ":".join(["AB"] * 32)
    )
    good = head + section + identity + "\r\n"
    candidate = "a=candidate:1 1 udp 2130706431 10.9.9.9 5000 typ host\r\n"
    return [good, good + candidate * 1000, good + "a=x\r\n" * 1_900, head + section * 64, head + "m=x\n" * 1000,
            good + "a=fingerprint:sha-256 AB\r\n" * 1000, "\n" * 60_000, "v=0\n" + "a=" + ":" * 60_000,
            good + "a=max-message-size:" + "9" * 60_000, good + "a=candidate:" + " " * 60_000, ""]  # fmt: skip


def candidate_lines() -> list[str]:
    good = "candidate:1 1 udp 2130706431 10.9.9.9 5000 typ host"
    return [good, good + " x y" * 100, "candidate:" + " " * 500, "candidate:1 1 udp 1 " + "9" * 400 + " 1 typ host", "",
            "candidate:1 1 udp 1 fe80::1%" + "x" * 300 + " 1 typ host", "x" * 512]  # fmt: skip


def stuns() -> list[bytes]:
    head = b"\0\1" + b"%b" + b"\x21\x12\xa4\x42" + bytes(12)

    def message(body: bytes) -> bytes:
        return head.replace(b"%b", len(body).to_bytes(2, "big")) + body

    empty = b"\x80\x99\0\0"
    return [
        message(b""),
        message(empty * 290),
        message(b"\0\6\0\4abcd" * 100),
        message(b"\0\6\xff\xffab"),
        RNG.randbytes(1200),
    ]


def fragments() -> list[bytes]:
    one = b"\1\0\0\0\0\0\0\0\0\0\0\0"  # of an empty message
    return [one, one * 100, b"\1\0\xff\xff\0\0\0\0\0\0\0\1x", RNG.randbytes(1200)]


def dtls_records_said() -> list[bytes]:
    one = b"\x16\xfe\xfd" + bytes(8) + b"\0\0"
    return [one, one * 90, one[:-2] + b"\xff\xff", b"\x2f" * 1200, b"\x2f\0\1" * 400, RNG.randbytes(1200), b""]


def express_said() -> list[bytes]:
    head = express._HEADER.pack(express.EXPRESS, 0, 1, 0, 0, 0, 0)
    empty = express._MESSAGE.pack(1, 0)
    most = express.MESSAGES_MAX
    return [head, head + empty * most, head + empty * (most + 1), head + empty * most + b"x", RNG.randbytes(1000)]


def dcep_said() -> list[bytes]:
    head = b"\3\0\0\0\0\0\0\0"
    return [
        head + b"\xff\xff\0\0" + b"x" * 65_535,
        head + b"\1\xf4\0\0" + b"\xff" * 500,
        b"\2",
        b"",
        head + b"\0\0\0\0",
        b"\7" * 1000,
    ]


def rollback_inputs() -> list[bytes]:
    return [
        b"\1\0\0\0\1" + b"\xff\0",
        b"\1\0\0\0\1" + b"\1\0" * 128,
        b"\1\0\0\0\1" + b"\1\0" * 129,
        b"\x81" + b"\xff" * 50,
        b"",
        b"\1",
    ]


def rollback_words() -> list[bytes]:
    known = [1, 5, 1, [b"x"] * 128]
    return [packed(["cut", [known] * 64, []]), packed(["hashes", 1, [b""] * 128]), packed(["state", 1, bytes(1 << 20)]),
            packed(["rows", 1, [[1, b""]] * 128]), packed(["part", 1, 0, 1, bytes(1000)]), *packs(["cut"]), *packs(["rows", 1]),
            *(packed([kind, 1, 1]) for kind in tags(rollback._decoder.type))]  # fmt: skip


def read_tunnel(data: bytes) -> object:
    return tunnels.frame_untrusted(data)


def _express() -> Callable[[bytes], object]:
    lane, now = express.Express(), count(1)
    return lambda record: lane.receive_untrusted(record, next(now) / 100)


def values() -> list[bytes]:
    return [
        packed(json.loads("[" * 5 + "]" * 5)),
        *packs([]),
        packed([1] * 50_000),
        packed({str(i): 0 for i in range(9_000)}),
    ]


def statements() -> list[bytes]:
    head = owed.OWED_TAG + bytes(owed._HEAD.size - len(owed.OWED_TAG))
    lines = [bytes((2,)) + b"%02x" % i + bytes(owed._COUNT.size) for i in range(256)]
    return [head, *(head + b"".join(lines[:n]) for n in (1, 60, 256)), head + b"\xff" * 1000, owed.OWED_TAG, b""]


READERS: dict[str, Reader] = {
    "room/codec.MessageCodec.decode_untrusted": plain(
        MessageCodec([Anything, Typed]).decode_untrusted, channel_messages(), 6.0, "every value is looked at for NaN"
    ),
    "signaling/site.parts_untrusted": plain(
        site.parts_untrusted,
        ["/" + "a/" * 511, "/" + "%2e" * 340, "/" + "a" * 16_000, "/" + "\u00e9" * 1000, "/%ff", "x"],
    ),
    "room/codec.MessageCodec.difference_untrusted": plain(MessageCodec([Typed]).difference_untrusted, announcements()),
    "room/carried.carried_untrusted": plain(
        carried.carried_untrusted,
        [
            carried.carried("n" * 128, "x"),
            carried.carried("x", "é" * 20_000),
            carried.carried("x", b""),
            b"\1\0\x80" + b"\xff" * 128,
            b"",
        ],
    ),
    "room/carried.lost_untrusted": plain(
        carried.lost_untrusted,
        [carried.lost_word(7), carried.lost_word(7)[:-1], carried.lost_word(7) + bytes(20_000), b"\1\4", b""],
    ),
    "room/fairness.word_untrusted": plain(
        fairness.word_untrusted,
        [*packs(["echo"]), *(packed([kind, [[b"", b""]] * 1000]) for kind in tags(fairness._decoder.type))],
    ),
    "room/plain.decode_plain_untrusted": plain(plain_values.decode_plain_untrusted, values()),
    "room/tagged.decode_tagged_untrusted": plain(
        tagged.decode_tagged_untrusted,
        [
            packed(["tests.costs.readers", name, packed([name, tail])])
            for name in ("Anything", "Typed", "Nobody")
            for tail in (1, [], [[]] * 50_000, [1] * 50_000)
        ],
    ),
    "game/watching/wire.decode_untrusted": plain(
        watching.decode_untrusted,
        [
            watching.encode(watching.Signed(b"x" * 10_000, bytes(64), bytes(32))),
            watching.encode(watching.Need(bytes(16), 1, 1)),
            *(packed([kind, [[]] * 1000]) for kind in tags(watching._words.type)),
            *packs(["want"]),
        ],
    ),
    "game/watching/wire.batch_untrusted": plain(
        watching.batch_untrusted,
        [
            watching.encode(
                watching.Batch(
                    1, 1, 1, True, None, [b""] * 64, [b""] * 64, [(str(i), [(0, b"x")] * 8) for i in range(200)]
                )
            ),
            packed([1, 1, 1, True, ["n", b"", 1, 1, [bytes(16)] * 64, 1, b"", False]]),
            packed([1, 1, 1, True, ["n", b"", 1, 1, [bytes(16)] * 64, 1, b"x", False]]),
            *packs([1, 1, 1, False, None, [], [], []]),
            *packs([1, 1, 1, False, None, [], []]),
        ],
    ),
    "game/state_wire.decode_untrusted": plain(
        state_wire.decode_untrusted,
        [
            *packs(["set", b"", 1]),
            *(packed([kind, b"", 1, 1, 1, [[b"", b""]] * 1000]) for kind in tags(state_wire._decoder.type)),
        ],
    ),
    "game/requests.decode_untrusted": plain(
        requests.decode_untrusted,
        [*packs(["ask", 1]), *(packed([kind, 1, b"x" * 14_000]) for kind in tags(requests._decoder.type))],
    ),
    "game/transfer_wire.decode_untrusted": plain(
        transfer_wire.decode_untrusted,
        [
            *packs(["offer", 1]),
            *packs(["chunk", 1, 1]),
            *(packed([kind, 1, 1, 1.0, b"x" * 4096]) for kind in tags(transfer_wire._decoder.type)),
            *(packed([kind, 1, "x" * 200]) for kind in tags(transfer_wire._decoder.type)),
        ],
    ),
    "game/timers.timer_untrusted": plain(timers.timer_untrusted, [timers.timer_value(1.0, b"x"), *packs([1.0])]),
    "game/attestation.claim_untrusted": plain(
        lambda data: attestation.claim_untrusted(data, b"room"),
        [
            attestation.attested(Identity.from_seed(bytes(32)), attestation.Claim(b"room", 1, 1, bytes(32))),
            packed([b"", bytes(32), bytes(64)]),
            *packs([b""]),
        ],
        9.0,
        "one signature, of four at most in the answer to a question of ours",
    ),
    "game/bans.read_untrusted": plain(
        lambda data: bans.read_untrusted(data, b"room"),
        [
            bans.signed(Identity.from_seed(bytes(32)), bans.Vote(b"room", bytes(16), 1, "")),
            packed([b"", bytes(32), bytes(64)]),
            *packs([b""]),
        ],
        9.0,
        "one signature, at a rate of its own: `VOTES_PER_S`",
    ),
    "mesh/owed.statement_untrusted": plain(owed.statement_untrusted, statements()),
    "room/timekeeper.word_untrusted": plain(timekeeper.word_untrusted, [timekeeper.ask(1.0), bytes(40), b""]),
    "game/host_wire.decode_untrusted": plain(
        host_wire.decode_untrusted,
        [
            *packs(["beat", 1, 1, 1]),
            packed(["beat", 1, 1, 1, [[i, bytes(16)] for i in range(1000)]]),
            *(packed([kind, 1]) for kind in tags(host_wire._decoder.type)),
        ],
    ),
    "room/playing.control_untrusted": plain(
        playing.control_untrusted,
        [
            *packs(["start", 1.0, 1]),
            packed(["running", 1.0, [[i % 60, bytes(16)] for i in range(1000)]]),
            *(packed([kind, 1]) for kind in tags(playing._control.type)),
        ],
    ),
    "mesh/pause.pause_untrusted": plain(
        pause.pause_untrusted,
        [
            pause.pause_frame(bytes(8), "é" * 30),
            pause.pause_frame(bytes(8), None),
            pause.PAUSE_TAG + bytes(60_000),
            b"",
        ],
    ),
    "mesh/profile.Profile.parse_untrusted": plain(profile.Profile.parse_untrusted, packs(["eu", [1.0, 2.0]])),
    "mesh/records.records_untrusted": plain(
        lambda text: records.records_untrusted([text]), ["A" * 2000, "!" * 2000, "", "é"]
    ),
    "signaling/hall_wire.decode_untrusted": plain(
        hall_wire.decode_untrusted,
        [
            hall_wire.encode(hall_wire.Ask(1, b"{}")),
            hall_wire.encode(hall_wire.Answer(1, 0, 1, b"x" * hall_wire.PART_BYTES)),
            hall_wire.encode(hall_wire.Carried("//r", "r" * 2_800, "x" * hall_wire.CARRIED_CHARS_MAX)),
            *(packed([kind, [[]] * 10_000]) for kind in tags(hall_wire.HallWord)),
        ],
    ),
    "mesh/tunnels.frame_untrusted": plain(
        read_tunnel, [tunnels.TUNNEL_TAG + bytes(33), tunnels.TUNNEL_TAG + bytes(1400), b""]
    ),
    "mesh/tunnels.signal_untrusted": plain(
        tunnels.signal_untrusted, [tunnels.signal_of([b"x"] * 5_000), tunnels.SIGNAL_PREFIX + "A" * 60_000, "!" * 1000]
    ),
    "signaling/messages.decode_client_untrusted": plain(messages.decode_client_untrusted, client_messages()),
    "signaling/messages.ref_untrusted": plain(messages.ref_untrusted, client_messages()),
    "signaling/messages.decode_server_untrusted": plain(read_server, server_messages()),
    "signaling/base64.from_base64_untrusted": plain(messages.from_base64_untrusted, ["A" * 60_000, "!" * 60_000, ""]),
    "signaling/cluster_messages.decode_untrusted": plain(cluster_messages.decode_untrusted, cluster_said()),
    "signaling/envelope.open_untrusted": plain(
        open_envelope, envelopes(), 25.0, "a signature, as often as `dial_limits.py` allows"
    ),
    "signaling/events.split_room_key_untrusted": plain(
        events.split_room_key_untrusted, ["/" * 300, "a" * 300, "//r", ""]
    ),
    "signaling/probe.time_untrusted": plain(
        probe.time_untrusted,
        [b"Tue, 01 Dec 2026 06:00:00 GMT", b"9" * 1000, b"Tue, " * 200, b"\xff" * 100, b""],
        15.0,
        "once a probe of ours",
    ),
    "game/shared.SharedObjects.receive": Reader(
        tuple(shared_said()), SharedReader, 11.0, "three bytes update an object that is shown, each once a message"
    ),
    "game/schema.announced_untrusted": plain(
        schema.announced_untrusted, [announcement(schema_of(Wide)), *packs(["n"])]
    ),
    "game/rollback/wire.decode_inputs_untrusted": plain(
        lambda data: rollback.decode_inputs_untrusted(data, 1), rollback_inputs()
    ),
    "game/rollback/wire.decode_word_untrusted": plain(rollback.decode_word_untrusted, rollback_words()),
    "webrtc/sdp.parse_sdp_untrusted": plain(sdp.parse_sdp_untrusted, sdps()),
    "webrtc/dcep.parse_dcep_untrusted": plain(dcep.parse_dcep_untrusted, dcep_said()),
    "webrtc/dcep.parse_credit_untrusted": plain(
        dcep.parse_credit_untrusted, [dcep.encode_credit(1, 5), b"", bytes(1000)]
    ),
    "webrtc/express.Express.receive_untrusted": Reader(tuple(express_said()), _express),
    "webrtc/ice/candidates.parse_candidate_untrusted": plain(candidates.parse_candidate_untrusted, candidate_lines()),
    "webrtc/ice/stun_guard.check_stun_untrusted": plain(stun_guard.check_stun_untrusted, stuns()),
    "webrtc/ice/stun_guard.asked_ufrag_untrusted": plain(stun_guard.asked_ufrag_untrusted, stuns()),
    "webrtc/ice/turn_link.split_frames_untrusted": plain(
        lambda data: turn_link.split_frames_untrusted(bytearray(data)),
        [b"\x40\0\0\0" * 10_000, b"\0\1\0\0" + bytes(16), b"\xff" * 4, b""],
    ),
    "webrtc/dtls/records.split_untrusted": plain(dtls_records.split_untrusted, dtls_records_said()),
    "webrtc/dtls/record13.cut_untrusted": plain(record13.cut_untrusted, dtls_records_said()),
    "webrtc/dtls/record13.newest_spare_untrusted": plain(
        lambda datagram: record13.newest_spare_untrusted([datagram], 1), (b"\x28" + bytes(39), b"\x2c" + bytes(1190))
    ),
    "webrtc/dtls/certificate.Fingerprint.parse_untrusted": plain(
        Fingerprint.parse_untrusted, ["sha-256 " + ":".join(["AB"] * 32), ":" * 500, "x" * 500, ""]
    ),
    "webrtc/dtls/handshake13/reassembly.split_fragments_untrusted": plain(
        reassembly.split_fragments_untrusted, fragments()
    ),
}


# Readers that have their figures elsewhere, by folder or file; and those that are parts of one above, or read what was proved.
ELSEWHERE = {
    "gossip": "tests/gossip/test_costs.py",
    "webrtc/sctp": "tests/sctp/test_hostile_cost.py",
}
PARTS = {
    "room/states.check_values_untrusted": "room/plain.decode_plain_untrusted, once for each value",
    "room/codec.RawCodec.difference_untrusted": "looks at nothing",
    "room/described.announced_untrusted": "room/codec.MessageCodec.difference_untrusted",
    "room/codec.RawCodec.decode_untrusted": "gives the bytes as they are",
    "room/channel.Channel.decode_untrusted": "room/codec.MessageCodec.decode_untrusted",
    "mesh/sealed.Seals.open_untrusted": "gossip's account of signals: `costs.COSTS[SIGNAL]`, and one signature",
    "mesh/membership.Membership.open_carried_untrusted": "mesh/sealed.Seals.open_untrusted",
    "mesh/envelopes.Envelopes.open_untrusted": "signaling/envelope.open_untrusted",
    "game/shared_wire.Head.parse_untrusted": "game/shared.SharedObjects.receive",
    "game/shared_wire.varint_untrusted": "game/shared.SharedObjects.receive",
    "game/shared_wire.fields_untrusted": "game/shared.SharedObjects.receive",
    "game/shared_records.Records.read_untrusted": "game/shared.SharedObjects.receive",
    "game/shared_records.offer_untrusted": "game/shared.SharedObjects.receive",
    "game/schema.Schema.object_untrusted": "game/shared.SharedObjects.receive",
    "mesh/owed.room_untrusted": "mesh/owed.statement_untrusted",
    "mesh/owed.Owed.receive_untrusted": "mesh/owed.statement_untrusted, and a rate of its own",
    "webrtc/dtls/embedding.Embedding.receive_untrusted": "a checksum of what an authentic check of ICE carried",
    "game/transcript.statement_untrusted": "room/fairness.word_untrusted, whose half it is",
    "game/transcript.author_untrusted": "one signature, of the 64 in 256 that are looked at",
    "game/transcript.proof_untrusted": "two signatures, once for each player who is proved to lie",
    "game/evidence.evidence_untrusted": "a file that its reader opened",
    "words.read_untrusted": "what each reader of words makes of it",
    "game/signed.signed_untrusted": "game/bans.read_untrusted",
    "identity.PeerId.parse_untrusted": "32 characters",
    "identity.PeerId.from_raw_untrusted": "16 bytes",
    "identity.verify_untrusted": "a signature: who asks for one counts it (`costs.VERIFY`)",
    "signaling/locks.check_door_untrusted": "a hash, or a signature of a key whose guesses are rationed: `guesses.py`",
    "signaling/locks.Invite.parse_untrusted": "a text of 256 characters that its reader has pasted",
    "signaling/manifest.check_untrusted": "one signature for each room that a player makes or enters",
    "signaling/convert.room_info_untrusted": "signaling/messages.decode_server_untrusted",
    "signaling/convert.joined_untrusted": "signaling/messages.decode_server_untrusted",
    "signaling/convert.listing_untrusted": "signaling/messages.decode_server_untrusted",
    "webrtc/ladder.Ladder.open_untrusted": "one HMAC of what came",
    "webrtc/dtls/handshake13": "once a handshake, in messages of 16 KiB at most: tests/dtls/test_lies13.py",
}
