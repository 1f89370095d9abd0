"""Typed messages: what goes through, what is refused, on both sides."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import InvalidConfig, ProtocolError, UnserialisableMessage
from psyne_mesh.room.codec import MessageCodec, RawCodec, codec_for
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.messages import Action, CombatAction, FloatVector, Message, PlayerPosition


class Note(Message):
    text: str
    weights: dict[str, float] = {}


class Plain(Message):
    x: float


class Bag(Message):
    things: frozenset[Any] = frozenset()


@pytest.mark.parametrize(
    "message",
    [
        PlayerPosition(1, 2, x=1.5, vz=-3.0),
        CombatAction(1, 2, Action.ATTACK, target="p", damage=12.5, accuracy=0.8),
        FloatVector((1.0, 2.0)),
        Note("hi", {"a": 1.0}),
    ],
)
def test_messages_come_back_equal(message: Message) -> None:
    codec = MessageCodec([PlayerPosition, CombatAction, FloatVector, Note])
    assert codec.decode_untrusted(codec.encode(message)) == message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_spread_are_refused_on_both_sides(value: float) -> None:
    codec = MessageCodec([PlayerPosition, FloatVector, Note, Plain])
    for message in (PlayerPosition(1, 2, x=value), FloatVector((1.0, value)), Note("", {"a": value}), Plain(value)):
        with pytest.raises(UnserialisableMessage, match=r"holds NaN or an infinite number$"):
            codec.encode(message)
        with pytest.raises(ProtocolError):
            codec.decode_untrusted(msgspec.msgpack.encode(message))


def test_large_finite_numbers_pass() -> None:
    codec = MessageCodec([PlayerPosition])
    assert codec.encode(PlayerPosition(1, 2, x=1.7e308, y=1.7e308))


def test_what_the_channel_does_not_carry_is_refused_by_name() -> None:
    codec = MessageCodec([PlayerPosition])
    for bad in (
        CombatAction(1, 2, Action.BLOCK),
        {"x": 1},
        None,
        b"raw",
        PlayerPosition(1, 2**80),
        PlayerPosition("x", object()),
    ):  # type: ignore[arg-type]
        with pytest.raises(UnserialisableMessage):
            codec.encode(bad)
    with pytest.raises(InvalidConfig):
        MessageCodec([dict])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (PlayerPosition(1, 2, health=300), "Expected `int` <= 255 - at `health`"),
        (PlayerPosition("a", 2), "at `sequence`"),  # type: ignore[arg-type]
        (CombatAction(1, 2, 7), "Invalid enum value 7 - at `action`"),  # type: ignore[arg-type]
        (CombatAction(1, 2, Action.DODGE, direction=("x", 0.0, 0.0)), r"at `direction\[0\]`"),  # type: ignore[arg-type]
        (Note("hi", {"a": "b"}), r"at `weights\[...\]`"),  # type: ignore[dict-item]
    ],
)
def test_what_receivers_would_refuse_is_refused_by_the_sender(message: Message, says: str) -> None:
    codec = MessageCodec([PlayerPosition, CombatAction, Note])
    with pytest.raises(UnserialisableMessage, match=says):
        codec.encode(message)
    with pytest.raises(ProtocolError):
        codec.decode_untrusted(msgspec.msgpack.encode(message))


def test_two_types_with_one_tag_cannot_share_a_channel() -> None:
    class Twin(Message, tag="PlayerPosition"):
        pass

    with pytest.raises(InvalidConfig, match="share"):
        MessageCodec([PlayerPosition, Twin])


@given(st.binary(max_size=200))
def test_only_protocol_error_leaves_the_decoder(data: bytes) -> None:
    codec = MessageCodec([PlayerPosition, CombatAction, FloatVector, Note])
    with contextlib.suppress(ProtocolError):
        codec.decode_untrusted(data)


def test_deep_nesting_and_text_are_protocol_errors() -> None:
    codec = MessageCodec([Note])
    for payload in (b"\x91" * 100_000, "text", b"", msgspec.msgpack.encode(["Nobody", 1])):
        with pytest.raises(ProtocolError):
            codec.decode_untrusted(payload)


def test_what_cannot_be_in_a_set_is_a_protocol_error() -> None:
    for unhashable in ([{}], [[{}]]):
        with pytest.raises(ProtocolError):
            MessageCodec([Bag]).decode_untrusted(msgspec.msgpack.encode(["Bag", unhashable]))


class Shot(Message):
    weapon: int
    again: int = 0

    def __post_init__(self) -> None:
        if self.weapon:
            raise {1: KeyError("$[9] is no field"), 2: ZeroDivisionError(), 3: AttributeError("x")}[self.weapon]


@pytest.mark.parametrize("weapon", [1, 2, 3, 4])
def test_whatever_a_message_of_the_game_raises_is_no_message(weapon: int) -> None:
    codec, shot = MessageCodec([Shot]), Shot(0)
    with pytest.raises(ProtocolError):
        codec.decode_untrusted(msgspec.msgpack.encode(["Shot", weapon]))
    shot.weapon = weapon
    with pytest.raises(UnserialisableMessage):
        codec.encode(shot)
    assert codec.decode_untrusted(codec.encode(Shot(0))) == Shot(0)


def test_a_channel_without_types_carries_bytes_and_text() -> None:
    codec = codec_for(())
    assert isinstance(codec, RawCodec)
    assert codec.encode(bytearray(b"x")) == b"x"
    assert codec.encode("x") == "x"
    with pytest.raises(UnserialisableMessage, match="declare"):
        codec.encode(5)


@pytest.mark.parametrize(
    ("spelling", "ordered", "retransmits", "lifetime"),
    [
        ("reliable", True, None, None),
        ("reliable_unordered", False, None, None),
        ("unreliable_ordered", True, 0, None),
        ("unreliable", False, 0, None),
        ("retransmits(3)", False, 3, None),
        ("ttl(100)", False, None, 100),
    ],
)
def test_the_six_delivery_modes(spelling: str, ordered: bool, retransmits: int | None, lifetime: int | None) -> None:
    mode = DeliveryMode.parse(spelling)
    config = mode.data_channel("label", 256)
    assert (config.ordered, config.max_retransmits, config.max_packet_life_time_ms) == (ordered, retransmits, lifetime)
    assert mode.reliable == (retransmits is None and lifetime is None)


@pytest.mark.parametrize("bad", ["", "fast", "ttl(-1)", "ttl()", "retransmits(x)", True, None])
def test_unknown_modes_show_the_known_ones(bad: str) -> None:
    with pytest.raises(InvalidConfig, match="reliable_unordered"):
        DeliveryMode.parse(bad)
