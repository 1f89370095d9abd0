"""Records and accusations: what is signed, what is refused, which is newer."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.gossip import records as r
from psyne_mesh.gossip.codec import PROBE
from psyne_mesh.identity import Identity
from tests.gossip.cluster import CheapIdentity

ROOM, ELSEWHERE = r.RoomKey.of(b"room"), r.RoomKey.of(b"elsewhere")
ME = Identity.from_seed(bytes(32))
FULL = r.OwnState(
    epoch=1_700_000_000_000, incarnation=3, state=r.ALIVE, joined_at=1_600_000_000_000, seat=0, lifetime=300,
    ballot=((0, b"abcdef"), (31, b"ghijkl")), coordinates=(-5, 6, 7, 8, 1500), name="Zoë", metadata=b"\0m",
)  # fmt: skip


def test_a_record_says_what_was_put_in() -> None:
    record = FULL.sign(ROOM, ME)
    again = r.record_untrusted(record.encode())
    assert again == record
    assert (again.peer, again.room, again.order) == (ME.peer_id, ROOM.raw, (FULL.epoch, 3, r.ALIVE))
    for field in ("epoch", "joined_at", "seat", "ballot", "lifetime", "coordinates", "name", "metadata"):
        assert getattr(again, field) == getattr(FULL, field)
    r.verify_record_untrusted(again, ROOM, r.Verifier())


def test_golden_record() -> None:
    record = r.OwnState(epoch=300, name="a").sign(ROOM, CheapIdentity(1), 5, 300)
    body = record.encode()[:-64].hex()
    head = "02" + ROOM.raw.hex() + "0000000000000005" + "ac02" + CheapIdentity(1).public_key.hex()
    # epoch, incarnation, state and reason, joined_at, seat, ballot, lifetime, coordinates, name, metadata
    assert body == head + "ac02000000000000ac0200016100"


def test_the_largest_record_fits_into_one_unreliable_frame_behind_a_probe() -> None:
    state = attrs.evolve(
        FULL, epoch=2**63, incarnation=2**31, joined_at=2**63, seat=1023, lifetime=86_400, name="x" * 64,
        metadata=bytes(512), ballot=tuple((1000 + seat, bytes(6)) for seat in range(r.BALLOT_MAX)),
    )  # fmt: skip
    record = state.sign(ROOM, ME, 2**64 - 1, r.AT_MAX - 1)
    assert len(record.encode()) <= r.RECORD_MAX_BYTES <= 1100 - PROBE.size - 3


def test_another_room_another_key_and_bent_bytes_are_refused() -> None:
    record = FULL.sign(ROOM, ME)
    with pytest.raises(ProtocolError):
        r.verify_record_untrusted(record, ELSEWHERE, r.Verifier())
    bent = r.record_untrusted(record.encode()[:-1] + bytes([record.encode()[-1] ^ 1]))
    with pytest.raises(ProtocolError):
        r.verify_record_untrusted(bent, ROOM, r.Verifier())
    with pytest.raises(ProtocolError):
        r.record_untrusted(record.encode() + b"\0")


def test_names_and_metadata_have_limits() -> None:
    with pytest.raises(InvalidConfig):
        r.OwnState(epoch=1, name="ö" * 33)
    with pytest.raises(InvalidConfig):
        r.OwnState(epoch=1, metadata=bytes(513))


def test_newer_means_epoch_then_incarnation_then_goodbye() -> None:
    states = [(1, 0, r.ALIVE), (1, 0, r.LEAVING), (1, 1, r.ALIVE), (2, 0, r.ALIVE)]
    orders = [r.OwnState(epoch=e, incarnation=i, state=s).sign(ROOM, ME).order for e, i, s in states]
    assert orders == sorted(orders)


def test_an_accusation_is_bound_to_room_accuser_and_version() -> None:
    subject = CheapIdentity(9).peer_id
    accusation = r.accuse(ROOM, ME, subject, 5, 6, r.DOWN)
    again = r.accusation_untrusted(accusation.encoded)
    assert again == accusation
    r.verify_accusation_untrusted(again, ROOM, ME.public_key, r.Verifier())
    with pytest.raises(ProtocolError):
        r.verify_accusation_untrusted(again, ELSEWHERE, ME.public_key, r.Verifier())
    with pytest.raises(ProtocolError):
        r.verify_accusation_untrusted(again, ROOM, Identity.generate().public_key, r.Verifier())
    raised = r.accuse(ROOM, ME, subject, 5, 7, r.DOWN)
    forged = r.accusation_untrusted(raised.encoded[:-64] + accusation.signature)
    with pytest.raises(ProtocolError):
        r.verify_accusation_untrusted(forged, ROOM, ME.public_key, r.Verifier())


def test_nobody_accuses_itself() -> None:
    with pytest.raises(ProtocolError):
        r.accusation_untrusted(r.accuse(ROOM, ME, ME.peer_id, 1, 0, r.DOWN).encoded)


@given(
    epoch=st.integers(0, 2**64 - 1), incarnation=st.integers(0, 2**64 - 1), state=st.sampled_from([r.ALIVE, r.LEAVING]),
    seat=st.none() | st.integers(0, 1023), name=st.text(max_size=16), metadata=st.binary(max_size=512),
    coordinates=st.none() | st.tuples(*[st.integers(-32768, 32767)] * 3, *[st.integers(0, 65535)] * 2),
)  # fmt: skip
def test_any_record_reads_back(epoch, incarnation, state, seat, name, metadata, coordinates) -> None:  # type: ignore[no-untyped-def]
    own = r.OwnState(epoch=epoch, incarnation=incarnation, state=state, seat=seat, name=name, metadata=metadata,
                     coordinates=coordinates)  # fmt: skip
    record = own.sign(ROOM, CheapIdentity(0))
    assert (record.order, record.seat, record.name) == ((epoch, incarnation, state), seat, name)
    assert (record.metadata, record.coordinates) == (metadata, coordinates)
