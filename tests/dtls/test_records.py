"""Records as bytes: cutting, checking, packing, numbering."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.webrtc.dtls.flight import Flight
from psyne_mesh.webrtc.dtls.records import (
    MAX_CIPHERTEXT,
    pack,
    renumber,
    split_untrusted,
)


def plaintext(content_type: int, body: bytes, number: int = 0) -> bytes:
    return bytes([content_type]) + b"\xfe\xfd\0\0" + number.to_bytes(6, "big") + len(body).to_bytes(2, "big") + body


def message(length: int, at: int, size: int, *, seq: int = 0, body: bytes | None = None) -> bytes:
    head = b"\1" + length.to_bytes(3, "big") + seq.to_bytes(2, "big") + at.to_bytes(3, "big") + size.to_bytes(3, "big")
    return head + (bytes(size) if body is None else body)


@given(st.binary(max_size=400))
def test_any_bytes_are_cut_into_records_and_a_rest(datagram: bytes) -> None:
    records, whole = split_untrusted(datagram)
    joined = b"".join(record.data for record in records)
    assert datagram.startswith(joined)
    assert whole == (joined == datagram)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50), st.integers(0, 2**48 - 1)), max_size=5))
def test_records_come_back_as_they_were_joined(parts: list[tuple[int, bytes, int]]) -> None:
    records, whole = split_untrusted(b"".join(plaintext(*part) for part in parts))
    assert whole
    assert [(record.content_type, record.data[13:], record.sequence) for record in records] == parts
    assert all(record.epoch == 0 for record in records)


def test_a_record_longer_than_any_cipher_makes_is_refused() -> None:
    assert split_untrusted(plaintext(23, bytes(MAX_CIPHERTEXT)))[1]
    assert split_untrusted(plaintext(23, bytes(MAX_CIPHERTEXT + 1))) == ([], False)


@given(st.lists(st.binary(min_size=1, max_size=120), max_size=30), st.integers(100, 400))
def test_packing_keeps_the_order_and_the_mtu(records: list[bytes], mtu: int) -> None:
    datagrams = pack(records, mtu)
    assert b"".join(datagrams) == b"".join(records)
    assert all(len(datagram) <= max(mtu, *map(len, records)) for datagram in datagrams)


def test_renumbering_changes_the_number_only() -> None:
    record = plaintext(22, b"body", 7)
    assert renumber(record, 2**48 - 1) == plaintext(22, b"body", 2**48 - 1)


def test_openssls_own_repetition_backs_off_and_a_new_flight_starts_afresh() -> None:
    flight = Flight(1200)
    hello = plaintext(22, message(4, 0, 4, seq=0))
    assert flight.datagrams(hello, 0.0) == [hello]
    assert flight.deadline == 0.15
    assert flight.datagrams(plaintext(22, message(4, 0, 4, seq=0), 1), 0.1) == [renumber(hello, 1)]
    assert flight.deadline == 0.1 + 0.3
    assert flight.n_retransmitted == 1
    assert flight.datagrams(plaintext(22, message(4, 0, 4, seq=1)), 1.0)
    assert flight.deadline == 1.0 + 0.15


def test_an_alert_is_sent_once_and_never_repeated() -> None:
    flight = Flight(1200)
    assert len(flight.datagrams(plaintext(21, b"\2\50"), 0.0)) == 1
    assert flight.deadline is None
    assert flight.resend(1.0) == []


def test_the_last_sealed_record_is_the_latest_that_openssl_wrote() -> None:
    flight = Flight(1200)
    finished = [b"\x16\xfe\xfd\0\1" + k.to_bytes(6, "big") + b"\0\4" + b"seal" for k in range(3)]
    flight.datagrams(plaintext(20, b"\1") + finished[0], 0.0)
    flight.datagrams(plaintext(20, b"\1") + finished[1] + finished[2], 0.0)
    assert flight.last_sealed == finished[2]
