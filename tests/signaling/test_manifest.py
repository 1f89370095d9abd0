"""What a room's creator signs, and what opens its door."""

from __future__ import annotations

import random
from contextlib import suppress

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import (
    InvalidConfig,
    InviteExpired,
    ManifestRefused,
    NotInvited,
    ProtocolError,
    RoomError,
    WrongPassword,
)
from psyne_mesh.gossip.records import OwnState, RoomKey, verify_record_untrusted
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.convert import room_info_untrusted, room_of
from psyne_mesh.signaling.events import RoomInfo, lobby_of, room_key
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.locks import (
    Invite,
    check_door_untrusted,
    invite_keys,
    is_invite,
    member_proof,
    password_keys,
    unlock,
    verify_of_members,
)
from psyne_mesh.signaling.manifest import Manifest, check_untrusted, code_of, new_code, shown_code, sign
from psyne_mesh.signaling.registry import RoomRegistry
from psyne_mesh.signaling.requests import checked_join

from .worlds import player

HOST, GUEST = player(1), player(2)
NONCE = bytes(16)


def signed(**fields: object) -> JoinRequest:
    manifest = fields.pop("manifest", Manifest(code="K7QM3FHT"))
    request = checked_join(JoinRequest("lobby", **{"skill_range": (1, 2), "metadata": {"map": "dust"}, **fields}))  # type: ignore[arg-type]
    assert isinstance(manifest, Manifest)
    return attrs.evolve(request, manifest=sign(manifest, request, HOST))


def shown(request: JoinRequest) -> RoomInfo:
    """As a list shows it, after the way over the wire and back."""
    info = RoomRegistry().join(HOST.peer_id, request, 0).joined.info
    room = m.decode_server_untrusted(m.encode(m.RoomList(ref=1, rooms=[room_of(info)], truncated=False)))
    assert isinstance(room, m.RoomList)
    return room_info_untrusted(room.rooms[0])


def test_a_room_is_what_its_creator_signed() -> None:
    info = shown(signed(app_id="chess", region="eu", max_players=7))
    check_untrusted(info, info.players)
    assert info.manifest.creator_id == HOST.peer_id
    lies: list[dict[str, object]] = [
        {"max_players": 8}, {"skill_range": None}, {"metadata": {}}, {"name": "other"}, {"app_id": "go"}, {"region": "us"},
        {"instance": "AAAAAAAA"},
        *({"manifest": msgspec.structs.replace(info.manifest, **change)} for change in (
            {"code": "AAAAAAAA"}, {"app_version": "2"}, {"policy": "code"}, {"visible": False}, {"creator": ""},
            {"policy": "password"}, {"lock": "x"}, {"signature": "AAAA"}, {"signature": "", "policy": "invite"},
        )),
    ]  # fmt: skip
    for lie in lies:
        with pytest.raises(ManifestRefused):
            check_untrusted(attrs.evolve(info, **lie))  # type: ignore[arg-type]
    with pytest.raises(ManifestRefused, match="7 players by its manifest, and 8"):
        check_untrusted(info, 8)


def test_a_server_takes_no_manifest_that_nobody_signed_so() -> None:
    registry = RoomRegistry()
    lie = attrs.evolve(signed(), max_players=9)
    with pytest.raises(ManifestRefused):
        registry.join(HOST.peer_id, lie, 0)
    assert registry.list_rooms().rooms == ()


def test_codes_are_read_as_people_write_them() -> None:
    code = new_code(random.Random(1))
    assert code_of(shown_code(code).lower()) == code
    assert code_of(" oil0 1234 ") == "01101234"
    for wrong in ("", "K7QM", "K7QM-3FHTX", "K7QM-3FHU", "ä" * 8):
        with pytest.raises(InvalidConfig, match="code of a room"):
            code_of(wrong)


def test_instances_of_a_lobby_share_what_is_before_the_code() -> None:
    key = room_key("fps", app_id="a", region="eu", instance="K7QM3FHT")
    assert key == "a/eu/fps#K7QM3FHT"
    assert lobby_of(key) == lobby_of(room_key("fps", app_id="a")) == "a/fps"
    with pytest.raises(InvalidConfig, match="instance"):
        checked_join(JoinRequest("fps#K7QM3FHT"))


def test_a_password_opens_its_own_room_and_a_wrong_one_is_found_out_here() -> None:
    keys = password_keys("sword\u00e9", NONCE)
    manifest = Manifest(policy="password", lock=keys.lock)
    assert unlock("sworde\u0301", manifest) == keys, "however a keyboard makes it"
    with pytest.raises(WrongPassword):
        unlock("swordf", manifest)
    with pytest.raises(WrongPassword, match="has a password"):
        unlock(None, manifest)
    check_door_untrusted(manifest, GUEST.peer_id, keys.door, 0)
    for door in ("", "AAAA", keys.lock, "!"):
        with pytest.raises(WrongPassword):
            check_door_untrusted(manifest, GUEST.peer_id, door, 0)
    assert password_keys("sword\u00e9", bytes([1]) * 16).door != keys.door, "of one room only"
    for wrong in ("", "fish" * 100, b"fish"):
        with pytest.raises(InvalidConfig) as told:
            password_keys(wrong, NONCE)  # type: ignore[arg-type]
        assert "fish" not in str(told.value)


def test_keys_and_requests_show_no_secret() -> None:
    keys = password_keys("swordfish", NONCE)
    request = JoinRequest("lobby", door=keys.door)
    for thing in (keys, request, Invite.make("K7QM3FHT", bytes(32), 5, HOST)):
        assert keys.door not in repr(thing)
        assert repr(keys.secret) not in repr(thing)
        assert "swordfish" not in repr(thing)


def test_an_invitation_is_signed_and_ends() -> None:
    secret = bytes(range(32))
    invite = Invite.make("K7QM3FHT", secret, 5_000, HOST)
    text = f" {invite}\n"
    assert is_invite(text)
    assert Invite.parse_untrusted(text) == invite
    manifest = signed(manifest=Manifest(code="K7QM3FHT", policy="invite", lock=invite_keys(secret).lock)).manifest
    check_door_untrusted(manifest, GUEST.peer_id, invite.door, 5_000)
    check_door_untrusted(manifest, HOST.peer_id, "", 9_000)
    with pytest.raises(InviteExpired):
        check_door_untrusted(manifest, GUEST.peer_id, invite.door, 5_001)
    forged = Invite.make("K7QM3FHT", secret, 9_000, GUEST)
    later = attrs.evolve(invite, expires_ms=9_000)
    elsewhere = Invite.make("AAAAAAAA", secret, 9_000, HOST)
    for bad in (forged.door, later.door, elsewhere.door, "", "x", "5000.", "5000.!", "9" * 40 + ".AAAA"):
        with pytest.raises(NotInvited):
            check_door_untrusted(manifest, GUEST.peer_id, bad, 0)


@given(st.text(max_size=300), st.sampled_from(["", "psyne-invite-"]))
def test_what_is_no_invitation_is_refused_by_one_error(text: str, prefix: str) -> None:
    with suppress(NotInvited):
        Invite.parse_untrusted(prefix + text)


@given(st.text(max_size=140), st.sampled_from(["open", "code", "password", "invite"]), st.text(max_size=60))
def test_nothing_but_room_errors_comes_from_a_door(door: str, policy: str, creator: str) -> None:
    with suppress(RoomError):
        check_door_untrusted(Manifest(policy=policy, creator=creator, lock="a.b"), GUEST.peer_id, door, 1)  # type: ignore[arg-type]


def test_members_of_a_locked_room_prove_its_secret_in_their_records() -> None:
    room, secret = RoomKey.of(b"room"), bytes(32)
    verify = verify_of_members(secret, "//r", lambda metadata: metadata)
    good = OwnState(epoch=1, metadata=member_proof(secret, "//r", GUEST.peer_id)).sign(room, GUEST)
    verify_record_untrusted(good, room, verify)
    for proof in (b"", member_proof(secret, "//r", HOST.peer_id), member_proof(secret, "//s", GUEST.peer_id),
                  member_proof(bytes([1]) * 32, "//r", GUEST.peer_id)):  # fmt: skip
        with pytest.raises(ProtocolError):
            verify_record_untrusted(OwnState(epoch=1, metadata=proof).sign(room, GUEST), room, verify)
