"""Sealed envelopes: nobody between two peers can change, invent, redirect or repeat one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import InvalidConfig, MessageTooLarge, ProtocolError, TamperedSignaling
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.signaling import envelope as e
from psyne_mesh.signaling.envelope import Envelope, EnvelopeRefused, ReplayGuard, open_untrusted, seal, tampering_in

from .worlds import player

ALICE, BOB, MALLORY = player(1), player(2), player(3)
NOW = 1_800_000_000_000


def sealed(identity: Identity = ALICE, **changes: object) -> str:
    fields: dict[str, object] = {
        "kind": "offer",
        "recipient": BOB.peer_id,
        "room": "//lobby",
        "session": "s1",
        "sequence": 0,
        "now_ms": NOW,
        "body": "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n",
    }
    return seal(identity, **{**fields, **changes})  # type: ignore[arg-type]


def opened(text: str, **changes: object) -> Envelope:
    fields: dict[str, object] = {"recipient": BOB.peer_id, "now_ms": NOW, "expected_sender": ALICE.peer_id}
    return open_untrusted(text, **{**fields, **changes})  # type: ignore[arg-type]


def test_what_was_sealed_is_opened() -> None:
    envelope = opened(sealed(), room="//lobby")
    assert envelope == Envelope(
        kind="offer",
        sender=ALICE.peer_id,
        public_key=ALICE.public_key,
        recipient=BOB.peer_id,
        room="//lobby",
        session="s1",
        sequence=0,
        expires_at_ms=NOW + e.LIFETIME_MS,
        body="v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n",
    )
    assert isinstance(envelope.sender, PeerId)


def test_it_needs_no_escapes_inside_json() -> None:
    text = sealed()
    assert json.dumps(text) == f'"{text}"'


def rewritten(text: str, **changes: object) -> str:
    """The payload changed by somebody who has no key."""
    payload, key, signature = text.split(".")
    fields = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert set(changes) <= set(fields)
    fields.update(changes)
    raw = json.dumps(fields, separators=(",", ":")).encode()
    return ".".join([base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), key, signature])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "answer"},
        {"sender": MALLORY.peer_id},
        {"recipient": MALLORY.peer_id},
        {"room": "//other"},
        {"session": "s2"},
        {"sequence": 1},
        {"expires_at_ms": NOW + 60_000},
        {"body": "v=0\r\no=- 1 1 IN IP4 0.0.0.1\r\n"},
        {"v": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_any_field_is_tampering(change: dict[str, object]) -> None:
    with pytest.raises(EnvelopeRefused) as caught:
        opened(rewritten(sealed(), **change))
    tampering = tampering_in(caught.value)
    assert isinstance(tampering, TamperedSignaling)
    assert "signature" in str(tampering)


def test_nobody_can_put_his_own_signature_under_the_words_of_another() -> None:
    payload = sealed().split(".")[0]
    raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    signature = MALLORY.sign(e.SIGNAL_DOMAIN, raw)
    forged = ".".join(
        [payload, *(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in (MALLORY.public_key, signature))]
    )
    with pytest.raises(EnvelopeRefused, match="but it names"):
        opened(forged, expected_sender=None)


@pytest.mark.parametrize(
    ("changes", "tampered", "text"),
    [
        ({"expected_sender": MALLORY.peer_id}, True, "handed over as"),
        ({"recipient": MALLORY.peer_id}, True, "meant for"),
        ({"room": "//other"}, True, "meant for room"),
        ({"now_ms": NOW + e.LIFETIME_MS + e.CLOCK_SKEW_MS + 1}, False, "clock"),
        ({"now_ms": NOW + e.LIFETIME_MS - e.LIFETIME_MAX_MS - e.CLOCK_SKEW_MS - 1}, False, "clock"),
    ],
)
def test_a_true_envelope_in_the_wrong_place_or_time(changes: dict[str, object], tampered: bool, text: str) -> None:
    with pytest.raises(EnvelopeRefused, match=text) as caught:
        opened(sealed(), **changes)
    assert (tampering_in(caught.value) is not None) is tampered


@pytest.mark.parametrize("skew_ms", [-e.CLOCK_SKEW_MS, 0, e.LIFETIME_MS + e.CLOCK_SKEW_MS])
def test_clocks_may_be_wrong_by_ten_minutes(skew_ms: int) -> None:
    assert opened(sealed(), now_ms=NOW + skew_ms).kind == "offer"


def test_a_signature_made_for_another_purpose_is_none() -> None:
    payload = sealed().split(".")[0]
    raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    other = base64.urlsafe_b64encode(ALICE.sign(b"psyne-record", raw)).rstrip(b"=").decode()
    key = sealed().split(".")[1]
    with pytest.raises(EnvelopeRefused, match="signature"):
        opened(f"{payload}.{key}.{other}")


def test_signed_nonsense_is_garbage_but_no_tampering() -> None:
    raw = b'{"kind":"invitation"}'
    parts = (raw, ALICE.public_key, ALICE.sign(e.SIGNAL_DOMAIN, raw))
    text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    with pytest.raises(EnvelopeRefused, match="not an envelope") as caught:
        opened(text)
    assert tampering_in(caught.value) is None
    assert tampering_in(ProtocolError("something else")) is None


@given(st.integers(0, 10_000), st.integers(1, 127))
def test_one_changed_character_is_always_noticed(position: int, value: int) -> None:
    text = sealed()
    position %= len(text)
    changed = text[:position] + chr(value) + text[position + 1 :]
    if changed == text:
        return
    with pytest.raises(EnvelopeRefused):
        opened(changed)


@given(st.text(max_size=200) | st.text(alphabet="aA0-_.=", max_size=200))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(EnvelopeRefused):
        opened(text)


def test_size_is_bounded_on_both_sides() -> None:
    with pytest.raises(InvalidConfig):
        sealed(body="x" * (e.MAX_BODY_CHARS + 1))
    with pytest.raises(MessageTooLarge):
        sealed(body="\r" * e.MAX_BODY_CHARS)
    assert opened(sealed(body="x" * e.MAX_BODY_CHARS)).body == "x" * e.MAX_BODY_CHARS
    with pytest.raises(EnvelopeRefused, match="over"):
        opened("x" * (e.MAX_TEXT_CHARS + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "invitation"},
        {"recipient": "bob"},
        {"session": ""},
        {"session": "x" * 65},
        {"sequence": -1},
        {"lifetime_ms": 0},
        {"lifetime_ms": e.LIFETIME_MAX_MS + 1},
        {"body": "\ud800"},
    ],
    ids=str,
)
def test_a_bad_field_is_refused_before_it_is_sealed(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        sealed(**change)


# --------------------------------------------------------------------------------------------------------------- replay


def numbered(sequence: int, *, session: str = "s1", sender: PeerId = ALICE.peer_id, expires: int = NOW) -> Envelope:
    return Envelope(
        kind="candidate",
        sender=sender,
        public_key=ALICE.public_key,
        recipient=BOB.peer_id,
        room="//lobby",
        session=session,
        sequence=sequence,
        expires_at_ms=expires,
        body="",
    )


def test_each_envelope_passes_once_in_any_order() -> None:
    guard = ReplayGuard()
    order = [0, 2, 1, 5, 3, 63, 4, 60]
    assert [guard.accept(numbered(n), NOW) for n in order] == [True] * len(order)
    assert [guard.accept(numbered(n), NOW) for n in order] == [False] * len(order)
    assert guard.replays == len(order)


def test_what_is_older_than_the_window_is_refused() -> None:
    guard = ReplayGuard()
    assert guard.accept(numbered(1_000), NOW)
    assert guard.accept(numbered(1_000 - ReplayGuard.WINDOW + 1), NOW)
    assert not guard.accept(numbered(1_000 - ReplayGuard.WINDOW), NOW)


@given(st.lists(st.integers(0, 200), max_size=60))
def test_the_window_never_lets_one_pass_twice(order: list[int]) -> None:
    guard = ReplayGuard()
    passed = [n for n in order if guard.accept(numbered(n), NOW)]
    assert len(passed) == len(set(passed))


def test_sessions_and_senders_are_apart() -> None:
    guard = ReplayGuard()
    assert guard.accept(numbered(0), NOW)
    assert guard.accept(numbered(0, session="s2"), NOW)
    assert guard.accept(numbered(0, sender=MALLORY.peer_id), NOW)


def test_a_flood_of_sessions_does_not_open_the_door_for_old_ones() -> None:
    guard = ReplayGuard(sessions_per_sender_max=4)
    assert guard.accept(numbered(0, session="first", expires=NOW), NOW)
    for n in range(10):
        assert guard.accept(numbered(0, session=f"flood {n}", expires=NOW + 1 + n), NOW)
    assert not guard.accept(numbered(0, session="first", expires=NOW), NOW)


def test_a_window_is_forgotten_when_its_envelopes_can_no_longer_be_opened() -> None:
    guard = ReplayGuard(sessions_per_sender_max=1)
    later = NOW + e.CLOCK_SKEW_MS + 1
    assert guard.accept(numbered(0, session="old", expires=NOW), NOW)
    assert guard.accept(numbered(0, session="new", expires=NOW - 1), later), "nothing had to give way"


def test_senders_are_bounded() -> None:
    guard = ReplayGuard(senders_max=2)
    senders = [PeerId(digit * 32) for digit in "abc"]
    assert all(guard.accept(numbered(0, sender=sender), NOW) for sender in senders)
    assert not guard.accept(numbered(0, sender=senders[2]), NOW)
    assert guard.accept(numbered(0, sender=senders[0]), NOW), "heard of longest ago, so forgotten"
