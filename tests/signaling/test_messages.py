"""The words on the wire: what goes out comes in again, and nothing else does."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from psyne_mesh import errors
from psyne_mesh.errors import ProtocolError, VersionMismatch
from psyne_mesh.identity import PeerId
from psyne_mesh.signaling import cluster_messages as c
from psyne_mesh.signaling import messages as m

PEER = "0123456789abcdef" * 2

CLIENT = [
    m.Hello(ref=0, peer_id=PEER, public_key="a", signature="b", audience="host:1"),
    m.Join(ref=1, name="lobby"),
    m.Join(ref=1, name="a/b c", app_id="chess", region="eu", max_players=2, skill_range=(1.0, 2.0), create="only",
           record="r" * 2800, metadata={"map": "dust", "round": 3, "ranked": True, "note": None, "speed": 1.5}),
    m.Leave(ref=2, room="//lobby"),
    m.ListRooms(ref=3, app_id="x", region="", skill_range=(0.0, 0.0), only_open=True, limit=1),
    m.Signal(to=PEER, room="//lobby", envelope="e"),
    m.Ping(ref=2**53 - 1),
]  # fmt: skip
ROOM = m.Room(
    room="//r", name="r", app_id="", region="", players=1, max_players=2, skill_range=None, state="waiting", metadata={}
)
SERVER = [
    m.Challenge(nonce="n"),
    m.Welcome(ref=0, peer_id=PEER, keepalive_s=10.0),
    m.JoinedRoom(ref=1, info=ROOM, peers=[m.Member(PEER, "record", 0)], created=False, index=1),
    m.LeftRoom(ref=1, room="//r"),
    m.MemberJoined(room="//r", peer=m.Member(PEER, "", 1), rejoined=True),
    m.MemberLeft(room="//r", peer_id=PEER, reason="left"),
    m.RoomList(ref=1, rooms=[ROOM], truncated=True),
    m.SignalFrom(sender=PEER, room="//r", envelope="e"),
    m.Pong(ref=1),
    m.Error(code="room_full", message="full", ref=3),
    m.Error(code="peer_gone", message="gone", room="//r", peer_id=PEER),
]


@pytest.mark.parametrize("message", CLIENT, ids=lambda message: type(message).__name__)
def test_client_messages_survive_the_wire(message: m.ClientMessage) -> None:
    assert m.decode_client_untrusted(m.encode(message)) == message
    assert m.decode_client_untrusted(m.encode(message).encode()) == message


@pytest.mark.parametrize("message", SERVER, ids=lambda message: type(message).__name__)
def test_server_messages_survive_the_wire(message: m.ServerMessage) -> None:
    assert m.decode_server_untrusted(m.encode(message)) == message


def test_the_shape_on_the_wire_is_what_a_browser_expects() -> None:
    assert json.loads(m.encode(m.Signal(to=PEER, room="//lobby", envelope="e"))) == {
        "v": 1,
        "type": "signal",
        "to": PEER,
        "room": "//lobby",
        "envelope": "e",
    }
    assert json.loads(m.encode(m.SignalFrom(sender=PeerId(PEER), room="//lobby", envelope="e")))["from"] == PEER


def test_another_version_is_told_apart_from_garbage() -> None:
    with pytest.raises(VersionMismatch) as caught:
        m.decode_client_untrusted('{"v":2,"type":"teleport","whither":"moon"}')
    assert (caught.value.ours, caught.value.theirs) == (1, 2)
    with pytest.raises(VersionMismatch):
        m.decode_server_untrusted('{"v":0,"type":"challenge"}')


GARBAGE = {
    "empty": "",
    "not json": "hello",
    "binary": b"\xff\x00\x01",
    "array": "[]",
    "number": "1",
    "null": "null",
    "no version": '{"type":"ping","ref":1}',
    "no type": '{"v":1,"ref":1}',
    "version is text": '{"v":"1","type":"ping","ref":1}',
    "unknown type": '{"v":1,"type":"teleport"}',
    "missing field": '{"v":1,"type":"ping"}',
    "ref too large": f'{{"v":1,"type":"ping","ref":{2**53}}}',
    "ref negative": '{"v":1,"type":"ping","ref":-1}',
    "ref is a float": '{"v":1,"type":"ping","ref":1.5}',
    "huge": '{"v":1,"type":"ping","ref":1,"x":"' + "x" * 65_536 + '"}',
    "huge in bytes": '{"v":1,"type":"ping","ref":1,"x":"' + "é" * 33_000 + '"}',
    "deep": '{"v":1,"type":"ping","ref":1,"x":' + "[" * 30_000 + "]" * 30_000 + "}",
    "a lone surrogate": "\ud800",
    "no name": '{"v":1,"type":"join","ref":1,"room":""}',
    "a name with a line break": '{"v":1,"type":"join","ref":1,"room":"a\\nb"}',
    "a name that ends in one": '{"v":1,"type":"join","ref":1,"room":"a\\n"}',
    "a long name": json.dumps({"v": 1, "type": "join", "ref": 1, "room": "a" * 129}),
    "a slash in the application": '{"v":1,"type":"join","ref":1,"room":"a","app_id":"x/y"}',
    "a slash in the region": '{"v":1,"type":"join","ref":1,"room":"a","region":"x/y"}',
    "nobody may play": '{"v":1,"type":"join","ref":1,"room":"a","max_players":0}',
    "everybody may play": '{"v":1,"type":"join","ref":1,"room":"a","max_players":10001}',
    "a band upside down": '{"v":1,"type":"join","ref":1,"room":"a","skill_range":[2,1]}',
    "an endless band": '{"v":1,"type":"join","ref":1,"room":"a","skill_range":[0,1e999]}',
    "half a band": '{"v":1,"type":"join","ref":1,"room":"a","skill_range":[0]}',
    "another policy": '{"v":1,"type":"join","ref":1,"room":"a","create":"maybe"}',
    "a large record": json.dumps({"v": 1, "type": "join", "ref": 1, "room": "a", "record": "x" * 2801}),
    "a record of control characters": json.dumps({"v": 1, "type": "join", "ref": 1, "room": "a", "record": "\x01"}),
    "a record with a quote": json.dumps({"v": 1, "type": "leave", "ref": 1, "room": "//a", "record": '"'}),
    "a record beyond ASCII": json.dumps({"v": 1, "type": "join", "ref": 1, "room": "a", "record": "\u00e9"}),
    "a record and a line": json.dumps({"v": 1, "type": "join", "ref": 1, "room": "a", "record": "a\n"}),
    "metadata that is inexact": f'{{"v":1,"type":"join","ref":1,"room":"a","metadata":{{"x":{2**53}}}}}',
    "metadata far below zero": f'{{"v":1,"type":"join","ref":1,"room":"a","metadata":{{"x":{-(2**70)}}}}}',
    "large metadata": json.dumps({"v": 1, "type": "join", "ref": 1, "room": "a", "metadata": {"x": "y" * 2048}}),
    "nested metadata": '{"v":1,"type":"join","ref":1,"room":"a","metadata":{"x":[1]}}',
    "a peer id in capitals": json.dumps({"v": 1, "type": "signal", "to": "A" * 32, "room": "//r", "envelope": "e"}),
    "a peer id and a line": json.dumps({"v": 1, "type": "signal", "to": PEER + "\n", "room": "//r", "envelope": "e"}),
    "no envelope": json.dumps({"v": 1, "type": "signal", "to": PEER, "room": "//r", "envelope": ""}),
    "too many rooms": '{"v":1,"type":"list","ref":1,"limit":101}',
    "what servers say": '{"v":1,"type":"pong","ref":1}',
}


@pytest.mark.parametrize("frame", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused(frame: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        m.decode_client_untrusted(frame)


def test_what_is_unknown_inside_a_known_message_is_left_aside() -> None:
    assert m.decode_client_untrusted('{"v":1,"type":"ping","ref":1,"mood":"good"}') == m.Ping(ref=1)


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_no_bytes_raise_anything_else(frame: bytes | str) -> None:
    for decode in (m.decode_client_untrusted, m.decode_server_untrusted):
        with pytest.raises((ProtocolError, VersionMismatch)):
            decode(frame)
    assert m.ref_untrusted(frame) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
FIELDS = sorted({name for message in [*CLIENT, *SERVER] for name in message.__struct_fields__})
TAGS = ["hello", "join", "leave", "list", "signal", "ping", "challenge", "joined", "peer_joined", "error", "x"]


@given(st.sampled_from(TAGS), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8), st.sampled_from([1, 1, 1, 2]))
def test_no_json_raises_anything_else(tag: str, fields: dict[str, object], version: int) -> None:
    frame = json.dumps({**fields, "type": tag, "v": version})
    for decode in (m.decode_client_untrusted, m.decode_server_untrusted):
        try:
            message = decode(frame)
        except (ProtocolError, VersionMismatch):
            continue
        assert decode(m.encode(message)) == message, "what was let in can be passed on"


@given(st.sampled_from(CLIENT), st.integers(0, 10_000), st.integers(0, 255))
def test_one_wrong_byte_raises_nothing_else(message: m.Message, position: int, value: int) -> None:
    frame = bytearray(m.encode(message).encode())
    frame[position % len(frame)] = value
    try:
        decoded = m.decode_client_untrusted(bytes(frame))
    except (ProtocolError, VersionMismatch):
        return
    assert isinstance(decoded, m.Message)


def test_the_largest_room_fits_into_a_frame_and_between_servers() -> None:
    letters = [chr(code) for code in range(0x3000) if m.is_record(chr(code))]
    assert {len(m.encode(m.Leave(ref=1, room="//r", record=letter))) for letter in letters} == {
        len(m.encode(m.Leave(ref=1, room="//r", record="r")))
    }, "no letter takes more room than another"
    record = letters[0] * m.MAX_RECORD_CHARS
    members = [m.Member(PEER, record, 2**40 + number) for number in range(m.MAX_MEMBERS_LISTED)]
    room = m.JoinedRoom(ref=1, info=ROOM, peers=members, created=False, index=2**40)
    frame = m.encode(room)
    assert len(frame) < m.MAX_SERVER_FRAME_BYTES
    assert m.decode_server_untrusted(frame) == room
    assert c.decode_untrusted(c.encode(c.Deliver(sender="s", peers=[PEER], frame=frame)))


@pytest.mark.parametrize("letter", ["a", '"', "\\", "\u00e9", "\U0001f600"])
def test_the_largest_list_fits_into_a_frame_and_between_servers(letter: str) -> None:
    name, part = letter * 128, letter * 64
    room = m.Room(
        room=f"{part}/{part}/{name}", name=name, app_id=part, region=part, players=9_999, max_players=9_999,
        skill_range=(-1e300 / 3, 1e300 / 3), state="waiting", metadata={"x": "y" * (m.MAX_METADATA_BYTES - 8)},
    )  # fmt: skip
    rooms = [room] * m.MAX_LISTED
    listing = m.RoomList(ref=1, rooms=rooms, truncated=True)
    assert m.decode_server_untrusted(m.encode(listing)) == listing
    answer = c.HaveRooms(sender="s", question=1, rooms=rooms, truncated=True)
    assert c.decode_untrusted(c.encode(answer)) == [answer]


@given(st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.floats() | st.text()))
def test_metadata_that_is_let_in_can_be_passed_on_between_servers(metadata: dict[str, m.Scalar]) -> None:
    frame = json.dumps({"v": 1, "type": "join", "ref": 1, "room": "r", "metadata": metadata})
    try:
        join = m.decode_client_untrusted(frame)
    except ProtocolError:
        return
    assert isinstance(join, m.Join)
    answer = c.HaveRooms(sender="s", question=1, rooms=[replace(ROOM, metadata=join.metadata)], truncated=False)
    assert c.decode_untrusted(c.encode(answer)) == [answer]


def test_the_largest_signal_fits_into_a_frame() -> None:
    message = m.Signal(to=PEER, room="/" * 258, envelope="e" * m.MAX_ENVELOPE_CHARS)
    assert m.decode_client_untrusted(m.encode(message)) == message


@pytest.mark.parametrize(
    "kind", [errors.RoomFull, errors.RoomExists, errors.RoomNotFound, errors.RoomMismatch, errors.PeerGone]
)
def test_exceptions_travel_as_codes(kind: type[errors.RemoteError]) -> None:
    error = m.Error(code=m.code_of(kind("why")), message="why")
    assert type(m.exception_of(error)) is kind
    assert str(m.exception_of(error)) == "why"


def test_unknown_codes_become_the_general_refusal() -> None:
    assert type(m.exception_of(m.Error(code="tired", message=""))) is errors.SignalingError
    assert m.code_of(errors.SignalingError("too many")) == "limit"


def test_ref_of_a_bad_message_is_found() -> None:
    assert m.ref_untrusted('{"v":1,"type":"join","ref":7,"room":""}') == 7
    assert m.ref_untrusted('{"ref":"7"}') is None


def test_base64_refuses_what_is_not() -> None:
    assert m.from_base64_untrusted(m.to_base64(b"\x00\xff")) == b"\x00\xff"
    for text in ("a", "äöü", "a b=", "====", "\ud800"):
        with pytest.raises(ProtocolError):
            m.from_base64_untrusted(text)


def test_messages_hold_only_what_json_has() -> None:
    with pytest.raises(TypeError):
        m.encode(m.Join(ref=1, name="r", metadata={"x": object()}))  # type: ignore[dict-item]
    assert msgspec.json.decode(m.encode(m.Ping(ref=1))) == {"type": "ping", "v": 1, "ref": 1}
