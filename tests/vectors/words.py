"""What travels beside gossip: envelopes, messages of channels, what links say of pauses and losses, signaling, clocks."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import msgspec

from psyne_mesh.errors import ProtocolError, PsyneMeshError
from psyne_mesh.game.room_clock import Reading, RoomClock
from psyne_mesh.gossip.records import RoomKey
from psyne_mesh.mesh import owed, pause
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.sealed import Seals
from psyne_mesh.room import described, timekeeper
from psyne_mesh.room.carried import carried, carried_untrusted, lost_untrusted, lost_word
from psyne_mesh.room.codec import MessageCodec
from psyne_mesh.room.messages import Action, CombatAction, FloatVector, Message, PlayerPosition
from psyne_mesh.signaling import envelope, manifest, messages
from psyne_mesh.signaling.convert import room_of
from psyne_mesh.signaling.events import RoomInfo
from tests.browser import messages as game
from tests.vectors.gossip import ADA, BOB, CID, check, signed, spoilt
from tests.vectors.shape import document

NOW_MS = 1_796_000_000_000
ROOM = "//arena/K7QM3FHT"
TAG = bytes(range(8))


def envelope_cases() -> Iterator[dict[str, Any]]:
    def sealed(**changes: Any) -> str:
        fields: dict[str, Any] = {
            "kind": "offer",
            "recipient": BOB.peer_id,
            "room": ROOM,
            "session": "s1",
            "sequence": 0,
            "now_ms": NOW_MS,
            "body": "v=0\r\n",
        }
        return envelope.seal(ADA, **(fields | changes))

    def case(
        name: str, text: str, *, now_ms: int = NOW_MS, sender: Any = ADA.peer_id, room: str = ROOM
    ) -> dict[str, Any]:
        told = {"name": name, "text": text, "recipient": BOB.peer_id, "now_ms": now_ms, "sender": sender, "room": room}
        try:
            return told | {
                "read": envelope.open_untrusted(
                    text, recipient=BOB.peer_id, now_ms=now_ms, expected_sender=sender, room=room
                )
            }
        except envelope.Untimely as error:
            return told | {"refused": True, "untimely_ahead_ms": error.ahead_ms}
        except envelope.EnvelopeRefused as error:
            return told | {"refused": True, "tampered": error.tampered}

    good = sealed()
    for kind, body in (
        ("offer", "v=0\r\n"),
        ("answer", "v=0\r\n"),
        ("candidate", "candidate:1"),
        ("candidate", ""),
        ("restart", ""),
        ("bye", "é \U0001f680"),
    ):
        yield case(f"{kind} {body!r}", sealed(kind=kind, body=body, sequence=2**31 - 1))
    yield case("late, and in time", good, now_ms=NOW_MS + 600_000)
    yield case("too late", good, now_ms=NOW_MS + 600_001)
    yield case("early, and in time", good, now_ms=NOW_MS - 570_000)
    yield case("from the future", good, now_ms=NOW_MS - 570_001)
    yield case("of another", good, sender=CID.peer_id)
    yield case("in another room", good, room="//other")
    yield case("to another", sealed(recipient=CID.peer_id))
    payload, key, signature = good.split(".")
    yield case("another signature", f"{payload}.{key}.{sealed(sequence=1).split('.')[2]}")
    yield case("another payload", f"{sealed(sequence=1).split('.')[0]}.{key}.{signature}")
    for text in (
        "",
        ".",
        "..",
        "a.b.c",
        f"{payload}.{key}",
        f"{good}.x",
        f"{payload}=.{key}.{signature}",
        f" {good}",
        "é.é.é",
    ):
        yield case(f"not an envelope: {text[:20]!r}", text)

    def signed_json(value: object) -> str:
        raw = json.dumps(value).encode() if not isinstance(value, bytes) else value
        parts = (raw, ADA.public_key, ADA.sign(envelope.SIGNAL_DOMAIN, raw))
        return ".".join(envelope._to_base64url(part) for part in parts)

    whole = json.loads(_payload_of(good))
    yield case("a later field is passed over", signed_json(whole | {"later": [1, 2]}))
    for name, value in (
        ("no version", {k: v for k, v in whole.items() if k != "v"}),
        ("another version", whole | {"v": 2}),
        ("an unknown kind", whole | {"kind": "shout"}),
        ("a negative sequence", whole | {"sequence": -1}),
        ("text for a number", whole | {"sequence": "0"}),
        ("a list", [1]),
        ("nothing", b""),
        ("half", b'{"v": 1'),
        ("the id of another", whole | {"sender": CID.peer_id}),
        ("no id", whole | {"recipient": "bob"}),
        ("bad UTF-8", b'{"v": 1, "kind": "\xff"}'),
        ("a long room", whole | {"room": "r" * 259}),
        ("a long session", whole | {"session": "s" * 100}),
    ):
        yield case(name, signed_json(value))


def _payload_of(text: str) -> bytes:
    part = text.split(".")[0]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def replay_cases() -> Iterator[dict[str, Any]]:
    """Sequences of one session, in the order in which they came, and whether each was new."""
    rng = random.Random(5)
    for seed in range(4):
        guard, said = envelope.ReplayGuard(), []
        order = [rng.randrange(0, 30 if seed < 2 else 200) for _ in range(60)]
        for sequence in order:
            text = envelope.seal(
                ADA,
                kind="candidate",
                recipient=BOB.peer_id,
                room=ROOM,
                session=f"s{seed}",
                sequence=sequence,
                now_ms=NOW_MS,
            )
            said.append(guard.accept(envelope.open_untrusted(text, recipient=BOB.peer_id, now_ms=NOW_MS), NOW_MS))
        yield {"sequences": order, "new": said}


# --------------------------------------------------------------------------------------------- messages of channels


EVERYTHING = game.Everything(
    flag=True,
    small=-8,
    at_ns=2**62,
    ratio=0.5,
    word="abc",
    blob=b"\x00\xff",
    team=game.Team.BLUE,
    which="right",
    point=game.Point(1.5, -2.0),
    path=[game.Point(0.0), game.Point(1e-300, 1e300)],
    loot=game.Item("rope", 2),
    look=game.Look("hat"),
    span=game.Span(1, 2),
    scores={"é": -1, "b": 2**40},
    pair=(-(2**53) + 1, "x"),
    trail=(0.1, -0.0, 5.0),
    seen=frozenset({3}),
    owner="",
    anything=[1, "a", None, {"k": 2.5}],
)
MESSAGES: list[Message] = [
    EVERYTHING,
    msgspec.structs.replace(EVERYTHING, loot=None, which=0, at_ns=-1, big=-(2**63), owner=None, seen=frozenset()),
    msgspec.structs.replace(EVERYTHING, loot=game.Coin(7), big=2**63 - 1, anything=None),
    game.Shot(1.0, -2.5),
    game.Shot(1e308, 5e-324, -(2**53) + 1),
    game.Hit("a" * 32, 1000.0),
    PlayerPosition(1, 2**60, x=1.5, vz=-3.0, health=0, weapon=255, flags=65535),
    CombatAction(2, 3, Action.USE_ITEM, target="b" * 32, direction=(1.0, 0.0, 0.0), damage=12.25, item="potion é"),
    FloatVector(()),
    FloatVector((1.0, 2.5, -1e-9)),
]
KINDS = [game.Everything, game.Shot, game.Hit, PlayerPosition, CombatAction, FloatVector]


def in_page(value: Any) -> Any:
    """As a page holds it: by the names of the fields, and numbers of a `bigint` field are text here."""
    if isinstance(value, msgspec.Struct | game.Look | game.Span):
        names = getattr(value, "__struct_fields__", None) or getattr(value, "_fields", None) or list(vars(value))
        return {name: in_page(getattr(value, name)) for name in names}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, game.Team | Action):
        return value.value
    if isinstance(value, dict):
        return {key: in_page(each) for key, each in value.items()}
    if isinstance(value, list | tuple | frozenset):
        return [in_page(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53 - 1:
        return {"$bigint": str(value)}
    return value


def codec_cases() -> Iterator[dict[str, Any]]:
    for message in MESSAGES:
        encoded = MessageCodec([type(message)]).encode(message)
        yield {"type": type(message).__name__, "value": in_page(message), "bytes": encoded}


def refused_payloads() -> Iterator[dict[str, Any]]:
    """What must not be read on a channel of `Shot` and `Hit`, and what may."""
    codec = MessageCodec([game.Shot, game.Hit])
    packed = msgspec.msgpack.encode
    nan = packed(["Shot", 1.0, 2.0])[:-8] + b"\x7f\xf8" + bytes(6)
    infinite = packed(["Shot", 1.0, 2.0])[:-8] + b"\x7f\xf0" + bytes(6)
    deep = b"\x91" * 5000
    made = {
        "a field less, which has a default": packed(["Shot", 1.0, 2.0]),
        "whole numbers for floats": packed(["Shot", 1, 2, 3]),
        "a field more": packed(["Shot", 1.0, 2.0, 3, "later"]),
        "two fields less": packed(["Shot", 1.0]),
        "a float for a whole number": packed(["Shot", 1.0, 2.0, 3.5]),
        "text for a float": packed(["Shot", "1", 2.0]),
        "nothing for a float": packed(["Shot", None, 2.0]),
        "a flag for a float": packed(["Shot", True, 2.0]),
        "an unknown tag": packed(["Miss", 1.0]),
        "no tag": packed([1.0, 2.0]),
        "a map": packed({"x": 1.0, "y": 2.0}),
        "a number": packed(1),
        "empty": b"",
        "an empty array": b"\x90",
        "NaN": nan,
        "infinite": infinite,
        "cut off": packed(["Shot", 1.0, 2.0])[:-1],
        "bytes after it": packed(["Shot", 1.0, 2.0]) + b"\x01",
        "deep": deep,
        "a size that is not there": b"\xdd\xff\xff\xff\xff",
        "a reserved byte": b"\xc1",
        "bad UTF-8": b"\x93\xa4Shot\xa1\xff\x01",
        "over its bound": packed(["h", "a", 1000.5]),
        "at its bound": packed(["h", "a", 0.0]),
        "within": packed(["h", "a", 0.5]),
        "a whole number of 64 bits": packed(["Shot", 2**63, 1.0]),
    }
    for name, data in made.items():
        case = check(codec.decode_untrusted, data)
        if "read" in case:
            case["type"], case["read"] = type(case["read"]).__name__, in_page(case["read"])
        yield {"name": name, **case}
    rng = random.Random(11)
    for number in range(60):
        data = bytearray(codec.encode(game.Shot(1.5, -2.0, 7) if number % 2 else game.Hit("abc", 2.0)))
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0x90, 0xA1, 0xC0, 0xC4, 0xDC, 0xFF))
        case = check(codec.decode_untrusted, bytes(data))
        if "read" in case:
            case["type"], case["read"] = type(case["read"]).__name__, in_page(case["read"])
        yield {"name": f"bent {number}", **case}


def announcement_cases() -> Iterator[dict[str, Any]]:
    """Two versions of a class: `ours` reads what `said` announces."""
    ours = MessageCodec([game.Shot])
    [mine] = described.described_types([game.Shot])

    def said(*fields: list[Any], tag: str = "Shot") -> str:
        return f"{described.PROTOCOL}\n{'0' * 16} {msgspec.json.encode([tag, fields]).decode()}"

    for name, text in (
        ("the same", ours.announcement),
        ("older", said(["x", "float"], ["y", "float"])),
        ("newer", said(["x", "float"], ["y", "float"], ["weapon", "int", 1], ["z", "str"])),
        ("another type", said(["x", "str"], ["y", "float"])),
        ("another order", said(["y", "float"], ["x", "float"])),
        ("too few", said(["x", "float"])),
        ("another message", said(["q", "str"], tag="Other")),
        ("none", ""),
        ("another protocol", "chat"),
        ("hashes alone", f"{described.PROTOCOL}\n{'1' * 16}\n{mine.hash}"),
        ("no hash", f"{described.PROTOCOL}\n"),
        ("no text", f"{described.PROTOCOL}\n{'0' * 16} "),
        ("bad text", f"{described.PROTOCOL}\n{'0' * 16} [1"),
        ("unprintable", said(["x", "int\u202e"])),
        ("too long", f"{described.PROTOCOL}\n" + "\n".join(["0" * 16] * 30)),
    ):
        try:
            yield {"name": name, "said": text, "difference": ours.difference_untrusted(text)}
        except ProtocolError:
            yield {"name": name, "said": text, "refused": True}


# ------------------------------------------------------------------------------------------------- between links


def as_read(read: Callable[[bytes], Any], names: tuple[str, ...]) -> Callable[[bytes], Any]:
    return lambda data: dict(zip(names, read(data), strict=True))


def carried_cases() -> Iterator[dict[str, Any]]:
    read = as_read(carried_untrusted, ("channel", "payload", "reliable"))
    for name, payload, reliable in (
        ("shots", b"\x00\xff", True),
        ("é", "text \U0001f680", False),
        ("n" * 128, b"", True),
    ):
        yield {
            "name": name,
            "is_text": isinstance(payload, str),
            **check(read, carried(name, payload, reliable=reliable)),
        }
    good = carried("shots", "text")
    for name, data in (
        ("empty", b""),
        ("cut in its name", good[:5]),
        ("no name", b"\x01\x00\x00"),
        ("a long name", b"\x01\x00\x81" + b"n" * 129),
        ("an unknown kind", b"\x01\x04\x01n"),
        ("bad UTF-8", b"\x01\x00\x01n\xff"),
        ("another beginning", b"\x02\x00\x01n"),
    ):
        yield {"name": name, "is_text": False, **check(read, data)}


def lost_cases() -> Iterator[dict[str, Any]]:
    """How many broadcasts never came; None: it is a message."""
    for count in (0, 1, 2**32 - 1, 2**40):
        yield {"name": f"{count}", "count": count, **check(lost_untrusted, lost_word(count))}
    word = lost_word(7)
    for name, data in (
        ("a message", carried("shots", "text")),
        ("short", word[:5]),
        ("long", word + b"\0"),
        ("empty", b""),
    ):
        yield {"name": name, **check(lost_untrusted, data)}


def seal_cases() -> dict[str, Any]:
    """Messages that others carry to one player: sealed for a stay, each believed once."""
    stay, tag = 5_000, TAG
    to, sender = signed(BOB, joined_at=stay), signed(ADA, epoch=77)
    seals, opening = Seals(ADA, tag, 1), Seals(BOB, tag, stay)
    blobs = [seals.seal(to, 77, f"message {number}".encode()) for number in range(4)]
    steps = []
    for name, blob in (
        ("first", blobs[0]),
        ("third", blobs[2]),
        ("second", blobs[1]),
        ("again", blobs[1]),
        ("bent", spoilt(blobs[3])),
        ("fourth", blobs[3]),
        ("of another stay", Seals(ADA, tag, 1).seal(to, 78, b"x")),
        ("short", blobs[3][:50]),
    ):
        steps.append({"name": name, **check(lambda data: opening.open_untrusted(sender, data), blob)})
    return {
        "tag": tag,
        "recipient": BOB.peer_id,
        "recipient_joined_at": stay,
        "sender": ADA.peer_id,
        "sender_key": ADA.public_key,
        "sender_epoch": 77,
        "sender_seed": ADA.seed,
        "steps": steps,
    }


def link_words() -> dict[str, Any]:
    pauses = [
        {
            "name": reason or "back",
            **check(as_read(pause.pause_untrusted, ("room", "reason")), pause.pause_frame(TAG, reason)),
        }
        for reason in ("loading a level", None, "é" * 64)
    ]
    head = pause.PAUSE_TAG + TAG
    pauses += [
        {"name": name, **check(as_read(pause.pause_untrusted, ("room", "reason")), data)}
        for name, data in (
            ("short", head[:-1]),
            ("long", head + b"x" * 129),
            ("bad UTF-8", head + b"\xff"),
            ("unprintable", head + b"\x07"),
            ("another tag", b"\xff" * 7 + b"\x09" + TAG),
        )
    ]
    ledger = owed.Owed(TAG, 1000)
    ledger.meet(BOB.peer_id, 2000, {}, 0.0)
    for _ in range(3):
        ledger.missed(BOB.peer_id, "shots", 0.0, told=False)
    ledger.missed(BOB.peer_id, "é", 0.0, told=False)
    frames = [*ledger.statement(BOB.peer_id, []), *ledger.dropped(BOB.peer_id, {"shots": 2**40})]
    losses = [
        {"name": f"frame {number}", **check(owed.statement_untrusted, frame)} for number, frame in enumerate(frames)
    ]
    good = frames[0]
    losses += [
        {"name": name, **check(owed.statement_untrusted, data)}
        for name, data in (
            ("cut", good[:-1]),
            ("short", good[:20]),
            ("an unknown kind", good[:16] + b"\x09" + good[17:]),
            ("no name", good[:33] + b"\x00" + bytes(8)),
            ("twice", good + good[33:]),
        )
    ]
    words = [
        {"name": "ask", **check(as_read(timekeeper.word_untrusted, ("sent", "reading")), timekeeper.ask(1.25))},
        {
            "name": "answer",
            **check(
                as_read(timekeeper.word_untrusted, ("sent", "reading")),
                timekeeper.answer(1.25, Reading(2.5, -1e9, 0.0625)),
            ),
        },
        *(
            {"name": f"not a word {number}", **check(as_read(timekeeper.word_untrusted, ("sent", "reading")), data)}
            for number, data in enumerate((b"", b"\x00", bytes(9) + b"\0", b"\x02" + bytes(8), b"\x01" + bytes(27)))
        ),
    ]
    profiles = [
        {"name": str(number), **check(Profile.parse_untrusted, data)}
        for number, data in enumerate(
            (
                Profile.make("us-west", (1200.0, 1400.0), {"rank": "é"}).encode(),
                Profile.make("", None, None).encode(),
                Profile(proof=b"\x01" * 16).encode(),
                b"",
                b"\x90",
                b"\xff",
                msgspec.msgpack.encode({"region": 1}),
                msgspec.msgpack.encode({"later": 1}),
                msgspec.msgpack.encode({"skill": [float("nan"), 1.0]}),
            )
        )
    ]
    return {"pauses": pauses, "losses": losses, "clock_words": words, "profiles": profiles}


def clocks() -> Iterator[dict[str, Any]]:
    """A member's clock, answer by answer: what it shows after each, and by how much it may be off."""
    for seed in range(6):
        rng = random.Random(seed)
        founded = seed % 2 == 0
        clock, now, steps = RoomClock(10.0, 5_000.0 if founded else None), 10.0, []
        ahead = {member: rng.uniform(-1e4, 1e4) for member in ("a", "b", "c")}
        for number in range(30):
            now = round(now + rng.uniform(0.05, 2.0), 6)
            member = rng.choice(list(ahead))
            if number == 20:
                clock.forget(member)
                step: dict[str, Any] = {"forget": member, "now": now}
            else:
                sent = round(now - rng.uniform(0.001, 0.3), 6)
                raw = round((sent + now) / 2 + ahead[member], 6)
                reading = Reading(
                    raw,
                    round(5_000.0 - 10.0 - ahead[member] + rng.uniform(-0.2, 0.2), 6),
                    rng.choice((0.0, 0.02, -0.5)),
                )
                clock.sample(member, sent, reading, now)
                step = {"member": member, "sent": sent, "theirs": reading, "received": now}
            steps.append(step | {"is_set": clock.is_set, "time": clock.time(now), "error": clock.error(now)})
        yield {"now": 10.0, "founded_at": 5_000.0 if founded else None, "steps": steps}


# ------------------------------------------------------------------------------------------------------- signaling


def room_info() -> RoomInfo:
    info = RoomInfo(
        room=ROOM,
        name="arena",
        app_id="chess",
        region="eu",
        players=1,
        max_players=8,
        skill_range=(1.0, 2.5),
        state="waiting",
        metadata={"b": 1, "a": "é"},
        instance="K7QM3FHT",
        manifest=manifest.Manifest(code="K7QM3FHT", app_version="1.2"),
    )
    return attrs.evolve(info, manifest=manifest.sign(info.manifest, info, ADA))


def signaling_cases() -> dict[str, Any]:
    info = room_of(room_info())
    member = messages.Member(peer_id=BOB.peer_id, record="AAAA", index=3)
    client: list[messages.Message] = [
        messages.Hello(
            ref=1,
            peer_id=ADA.peer_id,
            public_key=messages.to_base64(ADA.public_key),
            audience="play.example",
            signature=messages.to_base64(
                ADA.sign(messages.HELLO_DOMAIN, messages.hello_payload("bm9uY2U=", "play.example"))
            ),
        ),
        messages.Join(
            ref=2,
            name="arena",
            app_id="chess",
            region="eu",
            max_players=8,
            skill_range=(1.0, 2.5),
            record="AAAA",
            metadata={"a": 1},
        ),
        messages.Seek(ref=3, join=messages.Join(ref=3, name="arena"), party="", rtt_ms={"eu": 12.5}),
        messages.Leave(ref=4, room=ROOM, record="AAAA"),
        messages.Withdraw(seek_ref=3, lobby="//arena"),
        messages.ListRooms(ref=5, name="arena"),
        messages.Signal(to=BOB.peer_id, room=ROOM, envelope="a.b.c"),
        messages.Ping(ref=6),
    ]
    server: list[messages.Message] = [
        messages.Challenge(nonce="bm9uY2U="),
        messages.Welcome(ref=1, peer_id=ADA.peer_id, keepalive_s=10.0, time_ms=NOW_MS, messages_per_s=200.0, burst=500),
        messages.JoinedRoom(ref=2, info=info, peers=[member], created=False, index=4),
        messages.Placed(ref=3, info=info),
        messages.LeftRoom(ref=4, room=ROOM),
        messages.MemberJoined(room=ROOM, peer=member),
        messages.MemberLeft(room=ROOM, peer_id=BOB.peer_id, reason="left"),
        messages.RoomList(ref=5, rooms=[info], truncated=False),
        messages.SignalFrom(sender=BOB.peer_id, room=ROOM, envelope="a.b.c"),
        messages.Pong(ref=6),
        messages.Error(code="room_full", message="no seat", ref=2),
    ]
    return {
        "client": [{"type": type(each).__name__, "text": messages.encode(each)} for each in client],
        "server": [{"type": type(each).__name__, "text": messages.encode(each)} for each in server],
        "hello": {
            "seed": ADA.seed,
            "nonce": "bm9uY2U=",
            "audience": "play.example",
            "payload": messages.hello_payload("bm9uY2U=", "play.example"),
        },
        "refused_by_the_server": list(refused_frames()),
    }


def refused_frames() -> Iterator[dict[str, Any]]:
    for text in (
        "",
        "{",
        "[]",
        '{"v":1}',
        '{"v":2,"type":"pong","ref":1}',
        '{"v":1,"type":"nothing"}',
        '{"v":1,"type":"pong","ref":-1}',
        '{"v":1,"type":"pong","ref":"1"}',
        '{"v":1,"type":"welcome","ref":1,"peer_id":"bob","keepalive_s":10}',
        '{"v":1,"type":"welcome","ref":1,"peer_id":"' + "a" * 32 + '","keepalive_s":0}',
    ):
        try:
            messages.decode_server_untrusted(text)
        except PsyneMeshError as error:
            yield {"text": text, "error": type(error).__name__}


def manifest_cases() -> Iterator[dict[str, Any]]:
    good = room_info()
    for name, info in (
        ("as signed", good),
        ("another name", attrs.evolve(good, name="other")),
        ("more seats", attrs.evolve(good, max_players=9)),
        ("other metadata", attrs.evolve(good, metadata={"a": "é"})),
        ("another code", attrs.evolve(good, instance="ZZZZZZZZ")),
        ("nobody signed", attrs.evolve(good, manifest=manifest.Manifest(code="K7QM3FHT"))),
        ("a policy that nobody signed", attrs.evolve(good, manifest=manifest.Manifest(code="K7QM3FHT", policy="code"))),
        ("no skill", attrs.evolve(good, skill_range=None)),
    ):
        try:
            manifest.check_untrusted(info)
            refused = False
        except PsyneMeshError:
            refused = True
        yield {"name": name, "info": json.loads(msgspec.json.encode(room_of(info))), "refused": refused}


def files() -> dict[str, str]:
    keys = [{"room": text, "key": RoomKey.of(text.encode()).raw} for text in ("//arena", ROOM, "x" * 16, "é")]
    codes = [{"typed": text, "code": manifest.code_of(text)} for text in ("K7QM-3FHT", "k7qm 3fht", "O1IL-0000")]
    return {
        "envelopes": document(
            "Each opened as `recipient`, handed over as of `sender`, in `room`, at `now_ms`.",
            cases=list(envelope_cases()),
            replays=list(replay_cases()),
        ),
        "messages": document(
            "Of tests/browser/messages.py; $bytes and $bigint mark what JSON has not. `refused`: on a channel of Shot and Hit.",
            cases=list(codec_cases()),
            refused=list(refused_payloads()),
            announcements=list(announcement_cases()),
            types=[
                {"tag": each.tag, "hash": each.hash, "text": each.text} for each in described.described_types(KINDS)
            ],
        ),
        "links": document(
            "What links say beside gossip.",
            carried=list(carried_cases()),
            never_came=list(lost_cases()),
            seals=seal_cases(),
            **link_words(),
        ),
        "clocks": document("The room's clock.", cases=list(clocks())),
        "signaling": document(
            "Both sides' words, keys of rooms, and manifests.",
            **signaling_cases(),
            keys=keys,
            codes=codes,
            manifests=list(manifest_cases()),
        ),
    }
