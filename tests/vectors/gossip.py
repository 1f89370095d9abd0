"""Records, accusations, proofs, view hashes, seatings, and a frame of every kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip import codec, costs, exchange, proofs, records, routing, sync, walks
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.effects import Effects
from psyne_mesh.gossip.records import OwnState, Record, RoomKey
from psyne_mesh.gossip.seats import Claim, Seats, assign, vote_of
from psyne_mesh.gossip.view_hash import ViewHash
from psyne_mesh.identity import Identity, PeerId, verify_untrusted
from tests.vectors.shape import document

ROOM = RoomKey.of(b"//arena/1")
INSTANCE, AT = 0x0123456789ABCDEF, 1_796_000_000
PEOPLE = [Identity.from_seed(bytes([number]) * 32) for number in range(1, 7)]
ADA, BOB, CID = PEOPLE[:3]
PAYLOAD_MAX, BLOB_MAX, TTL_MAX = 16_384, 16_384, 16


def own(number: int = 0, **changes: Any) -> OwnState:
    state = {"epoch": 1_796_000_000_123, "joined_at": 1_796_000_000_123, "name": f"player {number}"}
    return OwnState(**(state | changes))


def signed(person: Identity = ADA, **changes: Any) -> Record:
    return own(**changes).sign(ROOM, person, INSTANCE, AT)


RECORDS: dict[str, Record] = {
    "plain": signed(),
    "of no instance yet": own().sign(ROOM, ADA),
    "seated, with a ballot": signed(
        BOB, seat=3, ballot=((0, vote_of(ADA.peer_id)), (3, vote_of(BOB.peer_id))), incarnation=7
    ),
    "seat 0": signed(seat=0),
    "the last seat": signed(seat=records.SEATS_MAX - 1),
    "leaving": signed(CID, state=records.LEAVING, reason=0, incarnation=300),
    "kicked": signed(CID, state=records.LEAVING, reason=2),
    "coordinates": signed(coordinates=(-32768, 0, 32767, 65535, 1000)),
    "text of all kinds": signed(name="Ada \U0001f680 é ß", metadata=bytes(range(256)) * 2),
    "no name": signed(name=""),
    "the highest numbers": own(epoch=2**64 - 1, incarnation=2**64 - 1, joined_at=2**64 - 1, lifetime=86_400).sign(
        ROOM, ADA, 2**64 - 1, records.AT_MAX - 1
    ),
    "numbers where a byte is added": signed(epoch=127, incarnation=128, joined_at=16_383, lifetime=16_384),
}


def check(reader: Callable[[bytes], Any], data: bytes) -> dict[str, Any]:
    """What Python says of these bytes."""
    try:
        return {"bytes": data, "read": reader(data)}
    except ProtocolError:
        return {"bytes": data, "refused": True}


def verdict(verify: Callable[[], object]) -> bool:
    try:
        verify()
    except ProtocolError:
        return False
    return True


def spoilt(data: bytes, at: int = -1) -> bytes:
    bent = bytearray(data)
    bent[at] ^= 1
    return bytes(bent)


def record_cases() -> Iterator[dict[str, Any]]:
    for name, record in RECORDS.items():
        yield {"name": name, **check(records.record_untrusted, record.encoded), "signed": True}
    plain = RECORDS["plain"].encoded
    other = own().sign(RoomKey.of(b"another"), ADA, INSTANCE, AT).encoded
    made = {
        "its last byte": spoilt(plain),
        "its signature": spoilt(plain, -40),
        "its epoch": spoilt(plain, 70),
        "of another room": other,
    }
    for name, data in made.items():
        case = check(records.record_untrusted, data)
        if "read" in case:
            read = case["read"]
            case["signed"] = verdict(lambda read=read: records.verify_record_untrusted(read, ROOM, verify_untrusted))  # type: ignore[misc]
        yield {"name": name, **case}
    for name, data in (
        ("empty", b""),
        ("version 1", b"\x01" + plain[1:]),
        ("a byte more", plain + b"\0"),
        ("a byte less", plain[:-1]),
        ("too long", plain + bytes(2000)),
        ("a signature alone", plain[-64:]),
    ):
        yield {"name": name, **check(records.record_untrusted, data)}


def accusation_cases() -> Iterator[dict[str, Any]]:
    for name, verdict_said, incarnation in (("suspect", records.SUSPECT, 0), ("down", records.DOWN, 2**40)):
        made = records.accuse(ROOM, BOB, ADA.peer_id, 1_796_000_000_123, incarnation, verdict_said, INSTANCE)
        yield {"name": name, **check(records.accusation_untrusted, made.encoded), "key": BOB.public_key, "signed": True}
        yield {
            "name": f"{name}, bent",
            **check(records.accusation_untrusted, spoilt(made.encoded)),
            "key": BOB.public_key,
            "signed": False,
        }
        yield {
            "name": f"{name}, another key",
            **check(records.accusation_untrusted, made.encoded),
            "key": CID.public_key,
            "signed": False,
        }
    own_word = records.accuse(ROOM, BOB, BOB.peer_id, 1, 1, 0, INSTANCE).encoded
    yield {"name": "of oneself", **check(records.accusation_untrusted, own_word)}
    yield {
        "name": "an unknown verdict",
        **check(records.accusation_untrusted, records.accuse(ROOM, BOB, ADA.peer_id, 1, 1, 2, INSTANCE).encoded),
    }


def proof_cases() -> Iterator[dict[str, Any]]:
    one, other = signed(name="one"), signed(name="two")
    for name, pair in (
        ("two names", (one, other)),
        ("the other way", (other, one)),
        ("the same twice", (one, one)),
        ("two versions", (one, signed(incarnation=1))),
        ("two players", (one, signed(BOB))),
        ("two goodbyes", (signed(state=1), signed(state=1, name="x"))),
    ):
        data = b"".join(codec.sized(record.encoded) for record in pair)
        yield {"name": name, **check(lambda data: proofs.proof_untrusted(data).encoded, data)}


def view_hashes() -> Iterator[dict[str, Any]]:
    people = [Identity.from_seed(bytes([100 + number]) * 32) for number in range(20)]
    for count in (0, 1, 2, 5, 20):
        view, there = ViewHash(), []
        for number, person in enumerate(people[:count]):
            record = signed(person, incarnation=number)
            view.put(record.peer, record.version_hash)
            there.append({"peer": record.peer, "version_hash": record.version_hash})
        yield {"records": there, "buckets": list(view.buckets), "whole": view.whole}


def seatings() -> Iterator[dict[str, Any]]:
    """The pure choice, and the machine with its memory, step by step."""
    rng = random.Random(27)
    people = [PeerId(rng.randbytes(16).hex()) for _ in range(8)]
    for number in range(40):
        count = rng.choice((1, 2, 4, 8))
        claims = [
            Claim(
                peer,
                rng.randrange(count),
                rng.random() < 0.8,
                tuple((rng.randrange(count), vote_of(rng.choice(people))) for _ in range(rng.randrange(4))),
            )
            for peer in rng.sample(people, rng.randrange(1, 8))
        ]
        held = {rng.randrange(count): rng.choice(people) for _ in range(number % 3)}
        seats = assign(ROOM.raw, count, claims, [claim.ballot for claim in claims if claim.proven], held)
        yield {"count": count, "claims": claims, "held": held, "seats": seats}


def seat_stories() -> Iterator[dict[str, Any]]:
    """`Seats` of an onlooker that wants none: what it shows after each view, in order."""
    for seed in range(12):
        rng = random.Random(seed)
        people = [PeerId(rng.randbytes(16).hex()) for _ in range(6)]
        count, now = rng.choice((2, 4)), 100.0
        seats = Seats(GossipConfig(max_players=count), ROOM.raw, people[0], random.Random(0), Effects(), wanted=False)
        steps = []
        seats.start(now)
        for _ in range(10):
            now += rng.choice((0.5, 2.0, 4.0, 8.0))
            claims = [
                Claim(
                    peer,
                    rng.randrange(count),
                    rng.random() < 0.9,
                    tuple((seat, vote_of(holder)) for seat, holder in enumerate(seats.seats) if holder),
                )
                for peer in people[1:]
                if rng.random() < 0.7
            ]
            if not steps:
                seats.met_others(now)
            seats.view(claims, now)
            steps.append({"now": now, "claims": claims, "seats": seats.seats, "contested": seats.contested})
        yield {"max_players": count, "own": people[0], "met_at_first": True, "steps": steps}


# ---------------------------------------------------------------------------------------------------------- frames


def hello(flags: int, items: list[bytes]) -> bytes:
    head = (
        codec.head(codec.HELLO)
        + bytes((flags,))
        + INSTANCE.to_bytes(8, "big")
        + AT.to_bytes(exchange.WALL_BYTES, "big")
    )
    return head + b"".join(bytes([number]) * codec.HASH_BYTES for number in range(16)) + b"".join(items)


def read_hello(frame: bytes) -> dict[str, Any]:
    if len(frame) < exchange.HELLO_BYTES:
        raise ProtocolError("hello too short")
    at = 3 + 8
    return {
        "flags": frame[2],
        "instance": int.from_bytes(frame[3:at], "big"),
        "wall_s": int.from_bytes(frame[at : at + exchange.WALL_BYTES], "big"),
        "buckets": [frame[at + exchange.WALL_BYTES + 16 * n :][:16] for n in range(16)],
        "items": codec.items_untrusted(frame, exchange.HELLO_BYTES),
    }


def read_probe(frame: bytes) -> dict[str, Any]:
    names = (
        "version",
        "type",
        "sequence",
        "view_hash",
        "srtt",
        "links",
        "x",
        "y",
        "z",
        "height",
        "error",
        "sent",
        "got",
    )
    return dict(zip(names, codec.probe_untrusted(frame), strict=True)) | {
        "items": codec.items_untrusted(frame, codec.PROBE.size)
    }


def read_delta(frame: bytes) -> dict[str, Any]:
    wants, offset = sync.delta_untrusted(frame)
    return {"wants": wants, "items": codec.items_untrusted(frame, offset)}


def named(*names: str) -> Callable[[Any], dict[str, Any]]:
    return lambda values: dict(zip(names, values, strict=True))


def gossip_read(frame: bytes) -> dict[str, Any]:
    head, message = wire.gossip_untrusted(frame, PAYLOAD_MAX)
    return {"head": head, "message": message}


def ids(pairs: Any) -> list[dict[str, Any]]:
    return [dict(zip(("origin", "epoch", "sequence"), each, strict=True)) for each in pairs]


READERS: dict[int, Callable[[bytes], Any]] = {
    codec.PING: read_probe,
    codec.ACK: read_probe,
    codec.PING_REQ: lambda frame: named("sequence", "target", "alive")(codec.indirect_untrusted(frame)),
    codec.INDIRECT: lambda frame: named("sequence", "target", "alive")(codec.indirect_untrusted(frame)),
    codec.HELLO: read_hello,
    codec.RUMOURS: lambda frame: {"items": codec.items_untrusted(frame, 2)},
    codec.TOLD: lambda frame: {"items": codec.items_untrusted(frame, 2)},
    codec.SUMMARY: lambda frame: {"mask": sync.differing_untrusted(frame, 2, [bytes(16)] * 16)},
    codec.DIGEST: lambda frame: named("mask", "entries")(sync.digest_untrusted(frame)),
    codec.DELTA: read_delta,
    codec.GOSSIP: gossip_read,
    codec.IHAVE: lambda frame: [{"id": ids([one])[0], "hops": hops} for one, hops in wire.ihave_untrusted(frame)],
    codec.GRAFT: lambda frame: (lambda flags, wanted: {"flags": flags, "ids": ids(wanted)})(
        *wire.graft_untrusted(frame)
    ),
    codec.PRUNE: lambda frame: {},
    codec.HAVES: lambda frame: named("flags", "entries")(wire.haves_untrusted(frame)),
    codec.SIGNAL: lambda frame: routing.signal_untrusted(frame, BLOB_MAX, TTL_MAX),
    codec.RELAY: lambda frame: named("to", "frame")(routing.relay_untrusted(frame)),
    codec.FORWARD_JOIN: lambda frame: named("ttl", "record")(walks.join_untrusted(frame)),
    codec.SHUFFLE: lambda frame: named("number", "ttl", "lines")(walks.shuffle_untrusted(frame)),
    codec.SHUFFLE_REPLY: lambda frame: named("number", "ttl", "lines")(walks.shuffle_untrusted(frame)),
    codec.DISCONNECT: lambda frame: {"items": codec.items_untrusted(frame, 2)},
    codec.KEEP: lambda frame: named("hops", "keep")(wire.keep_untrusted(frame)),
}
KINDS = {
    number: name
    for name, number in vars(codec).items()
    if name.isupper()
    and number in READERS
    and name not in ("VERSION", "ID_BYTES", "HASH_BYTES", "ITEM_RECORD", "ITEM_ACCUSATION", "ITEM_GONE", "ITEM_PROOF")
}


def read_frame(frame: bytes) -> Any:
    """As a node reads it: version and length first. An unknown type is passed over."""
    reader = READERS.get(codec.frame_type_untrusted(frame))
    return {"unknown": True} if reader is None else reader(frame)


def frames() -> Iterator[tuple[str, bytes]]:
    accusation = records.accuse(ROOM, BOB, ADA.peer_id, 1_796_000_000_123, 1, records.DOWN, INSTANCE)
    record, proof = RECORDS["plain"], proofs.prove(signed(name="one"), signed(name="two"))
    items = [exchange.encoded(record), exchange.encoded(accusation)]
    gone = codec.item(codec.ITEM_GONE, codec.varint(300) + record.encoded)
    message = wire.sign_message(ROOM, ADA, 1_796_000_000_123, 300, 290, b"hello \xff", INSTANCE, AT)
    ids_ = [(ADA.peer_id, 1_796_000_000_123, 300), (BOB.peer_id, 0, 1)]
    for kind, name in ((codec.PING, "ping"), (codec.ACK, "ack")):
        probe = codec.PROBE.pack(
            codec.VERSION, kind, 9, bytes(range(16)), 251, 8 | codec.LARGE_ROOM, -1, 2, -32768, 65535, 500, 65535, 6
        )
        yield name, probe
        yield f"{name} with items", probe + b"".join(items)
    yield "ping_req", codec.ping_req(2**32 - 1, BOB.peer_id)
    yield "indirect ack", codec.indirect(7, BOB.peer_id, alive=True)
    yield "indirect nack", codec.indirect(7, BOB.peer_id, alive=False)
    yield "hello", hello(exchange.OUTBOUND | exchange.NEWCOMER, items)
    yield "hello with the gone", hello(exchange.ISOLATED, [gone])
    yield "rumours", codec.head(codec.RUMOURS) + b"".join(items)
    yield "told", exchange.told(record)
    yield "told of two faces", exchange.told(proof)
    yield "told of what is unknown", codec.head(codec.TOLD) + codec.item(99, b"later") + items[0]
    yield "summary", sync.summary([bytes(16)] * 15 + [bytes(range(16))])
    yield (
        "digest",
        sync.digest(0x8001, [(ADA.peer_id, 300, 2, 1, record.version_hash), (BOB.peer_id, 2**63, 0, 0, bytes(16))]),
    )
    yield "delta", sync.delta([ADA.peer_id, BOB.peer_id], [], 1000)[0]
    yield "delta with items", sync.delta([], items, 16_384)[0]
    yield "nothing", sync.nothing()
    yield "gossip", wire.encode_gossip(wire.Head(2, wire.FLAT, 1.5), message.body)
    yield "gossip, old", wire.encode_gossip(wire.Head(300, wire.REPAIR, 5000.0), message.body)
    yield "gossip, empty", wire.encode_gossip(wire.Head(0, 0), wire.sign_message(ROOM, BOB, 1, 1, 1, b"").body)
    yield "ihave", wire.encode_ihave([wire.message_line(each, hops) for hops, each in enumerate(ids_)])
    yield "graft", wire.encode_graft(ids_, wire.REPAIR)
    yield "prune", codec.head(codec.PRUNE)
    yield (
        "haves",
        wire.encode_haves([wire.Have(ADA.peer_id, 5, 900, 801, 2.25), wire.Have(BOB.peer_id, 1, 0, 1, 0.0)], wire.ASK),
    )
    yield "signal", routing.encode_signal(routing.Signal(2**63, ADA.peer_id, BOB.peer_id, 255, b"\x00offer"))
    yield "relay", routing.encode_relay(BOB.peer_id, codec.ping_req(1, ADA.peer_id))
    yield "forward_join", codec.head(codec.FORWARD_JOIN) + b"\x06" + record.encoded
    lines = [walks.Line(record.encoded, 300), walks.Line(RECORDS["seat 0"].encoded, 0)]
    yield "shuffle", walks.encode_shuffle(codec.SHUFFLE, bytes(range(8)), 3, lines)
    yield "shuffle_reply", walks.encode_shuffle(codec.SHUFFLE_REPLY, bytes(range(8)), 0, [])
    yield "disconnect", codec.head(codec.DISCONNECT) + items[0]
    yield "keep", wire.encode_keep(2, wire.sign_keep(ROOM, ADA, 300, INSTANCE, AT).body)
    yield "of a later kind", codec.head(99) + b"whatever"
    yield "of another version", b"\x01\x01" + bytes(40)
    yield "told of as much as a frame holds", codec.head(codec.TOLD) + codec.item(99, b"") * codec.ITEMS_MAX
    yield "told of more", codec.head(codec.TOLD) + codec.item(99, b"") * (codec.ITEMS_MAX + 1)


def frame_cases() -> list[dict[str, Any]]:
    return [{"name": name, **check(read_frame, frame)} for name, frame in frames()]


def signature_cases() -> Iterator[dict[str, Any]]:
    """Of broadcasts and keeper's signs: the frame is well made, and its signature is or is not what it should be."""
    for name, frame in frames():
        if name not in ("gossip", "keep"):
            continue
        for what, data in (
            (name, frame),
            (f"{name}, bent", spoilt(frame)),
            (f"{name}, bent inside", spoilt(frame, 50)),
        ):
            case = check(read_frame, data)
            if "read" in case:
                if name == "gossip":
                    message = case["read"]["message"]
                    signed_well = verdict(lambda m=message: wire.verify_message_untrusted(m, ROOM, verify_untrusted))  # type: ignore[misc]
                else:
                    keep = case["read"]["keep"]
                    signed_well = verdict(lambda k=keep: wire.verify_keep_untrusted(k, ROOM, verify_untrusted))  # type: ignore[misc]
                case["signed"] = signed_well
            yield {"name": what, **case}


def hostile_frames() -> Iterator[dict[str, Any]]:
    """Bent, cut and lengthened frames with the verdict: most are refused, some are read as something else."""
    rng = random.Random(2027)
    for name, frame in frames():
        for number in range(8):
            bent = bytearray(frame)
            for _ in range(rng.randrange(1, 4)):
                bent[rng.randrange(len(bent))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            if number % 4 == 1:
                del bent[rng.randrange(len(bent)) :]
            elif number % 4 == 2:
                bent += rng.randbytes(rng.randrange(1, 9))
            yield {"name": f"{name} {number}", **check(read_frame, bytes(bent))}
    varints = ("80", "8080", "ff" * 9 + "01", "ff" * 9 + "02", "ff" * 10, "8000", "7f", "00")
    for text in varints:
        yield {"name": f"delta that wants {text}", **check(read_frame, codec.head(codec.DELTA) + bytes.fromhex(text))}


def neighbour() -> dict[str, Any]:
    """What a neighbour may cost, in the numbers that both stacks count with."""
    budget = {name: getattr(costs.NEIGHBOUR, name) for name in costs.NEIGHBOUR.__slots__}
    answers = {"bytes": costs.ANSWERS_BYTES, "per_byte": costs.ANSWERS_PER_BYTE, "per_s": costs.ANSWERS_PER_S}
    return {"budget": budget, "answers": answers, "verify": costs.VERIFY, "asked_line": costs.ASKED_LINE}


def files() -> dict[str, str]:
    keys = [{"seed": person.seed, "public_key": person.public_key, "peer_id": person.peer_id} for person in PEOPLE]
    signatures = [
        {"seed": ADA.seed, "domain": domain.decode(), "payload": payload, "signature": ADA.sign(domain, payload)}
        for domain, payload in ((b"psyne-record", b""), (b"psyne-offer", bytes(range(256))))
    ]
    limits = {
        "PAYLOAD_MAX": PAYLOAD_MAX,
        "BLOB_MAX": BLOB_MAX,
        "TTL_MAX": TTL_MAX,
        "FRAME_MAX": codec.FRAME_MAX,
        "ITEMS_MAX": codec.ITEMS_MAX,
        "RECORD_MAX_BYTES": records.RECORD_MAX_BYTES,
    }
    ranks = [{"peer": person.peer_id, "rank": records.rank(ROOM.raw, person.peer_id)} for person in PEOPLE]
    return {
        "identity": document("Keys, ids and signatures.", keys=keys, signatures=signatures),
        "records": document(
            "`signed`: whether its own key signed it for this room.",
            room=ROOM.raw,
            cases=list(record_cases()),
            ranks=ranks,
        ),
        "accusations": document(
            "`key`: the accuser's, as its record has it.", room=ROOM.raw, cases=list(accusation_cases())
        ),
        "proofs": document(
            "Two records of one version; read: the bytes that travel, whoever found it.", cases=list(proof_cases())
        ),
        "views": document("The hash of a view and of its sixteen buckets.", cases=list(view_hashes())),
        "seats": document(
            "`assign`, a pure function; and an onlooker's seats, step by step.",
            room=ROOM.raw,
            cases=list(seatings()),
            stories=list(seat_stories()),
        ),
        "frames": document(
            "A frame of every kind.",
            room=ROOM.raw,
            kinds={name: kind for kind, name in KINDS.items()},
            limits=limits,
            cases=frame_cases(),
            signatures=list(signature_cases()),
        ),
        "costs": document(
            "What a frame costs, for itself and for each byte; the largest that is read; what a neighbour may cost.",
            frames={kind: [*cost, costs.SIZES[kind]] for kind, cost in sorted(costs.COSTS.items())},
            neighbour=neighbour(),
            items_max=codec.ITEMS_MAX,
        ),
        "hostile": document("Bent frames, with the verdict.", limits=limits, cases=list(hostile_frames())),
    }
