"""Records made here: vectors, OpenSSL as the judge, the replay window, and the proof that no nonce is used twice."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from psyne_mesh.errors import LocalError
from psyne_mesh.webrtc.dtls import Closed, Failed, record12
from psyne_mesh.webrtc.dtls.protection import OpenSslRecords, PublicOpenSslRecords
from psyne_mesh.webrtc.dtls.record12 import REPLAY_WINDOW, AesGcmRecords, KeyBlock, prf
from psyne_mesh.webrtc.dtls.records import APPLICATION_DATA, HEADER_SIZE, Record, split_untrusted
from psyne_mesh.webrtc.dtls.session12 import Session12
from psyne_mesh.webrtc.sctp import SctpConfig
from tests.dtls.pair import CLIENT, SERVER, Pair, PlainPeer, losing, lossy

KEYS = KeyBlock(b"m" * 48, b"c" * 32, b"s" * 32)


def last_record(number: int = 0, explicit: int = 0x1122334455667788) -> bytes:
    """As much of a record as tells where the numbers stand."""
    return b"\x16\xfe\xfd\0\1" + number.to_bytes(6, "big") + b"\0\x18" + explicit.to_bytes(8, "big") + bytes(16)


def both(number: int = 0, explicit: int = 0x1122334455667788) -> tuple[AesGcmRecords, AesGcmRecords]:
    last = last_record(number, explicit)
    return AesGcmRecords(KEYS, is_client=True, last_sealed=last), AesGcmRecords(KEYS, is_client=False, last_sealed=last)


def test_the_prf_of_tls_1_2() -> None:
    """The vector that was published on the TLS working group's list for P_SHA256."""
    secret = bytes.fromhex("9bbe436ba940f017b17652849a71db35")
    seed = bytes.fromhex("a0ba9f936cda311827a6f796ffd5198c")
    assert prf(secret, b"test label", seed, 100) == bytes.fromhex(
        "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17"
        "abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66"
    )


def test_gcm_of_the_library_against_the_vectors_of_its_authors() -> None:
    """McGrew and Viega, "The Galois/Counter Mode of Operation", test case 4: AES-128, 60 bytes, 20 authenticated."""
    aesgcm = record12.AESGCM(bytes.fromhex("feffe9928665731c6d6a8f9467308308"))
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    plaintext = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    additional = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = bytes.fromhex(
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
        "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47"
    )
    assert aesgcm.encrypt(nonce, plaintext, additional) == sealed
    assert aesgcm.decrypt(nonce, sealed, additional) == plaintext


WYCHEPROOF = json.loads(Path(__file__).with_name("wycheproof_aes_gcm.json").read_text())["tests"]


@pytest.mark.parametrize("vector", WYCHEPROOF, ids=lambda vector: str(vector[0]))
def test_gcm_of_the_library_against_wycheproof(vector: list[Any]) -> None:
    """Edge cases of lengths and counters, and tags with any one bit wrong."""
    _, result, *texts = vector
    key, nonce, additional, plaintext, ciphertext, tag = map(bytes.fromhex, texts)
    aesgcm = record12.AESGCM(key)
    if result == "valid":
        assert aesgcm.encrypt(nonce, plaintext, additional) == ciphertext + tag
        assert aesgcm.decrypt(nonce, ciphertext + tag, additional) == plaintext
    else:
        with pytest.raises(InvalidTag):
            aesgcm.decrypt(nonce, ciphertext + tag, additional)


@pytest.mark.parametrize("vector", [v for v in WYCHEPROOF if v[1] == "valid" and v[5]], ids=lambda v: str(v[0]))
def test_records_under_wycheproofs_keys_and_nonces(vector: list[Any]) -> None:
    """Its key, IV and plaintext as a whole record, opened by another interface to AES."""
    _, _, *texts = vector
    key, nonce, _, plaintext, *_ = map(bytes.fromhex, texts)
    keys = KeyBlock(b"m" * 48, b"c" * 32, b"s" * 32)
    keys.client_key, keys.client_iv = key, nonce[:4]
    explicit = int.from_bytes(nonce[4:], "big")
    last = last_record(6, (explicit - 1) % 2**64)
    [record] = AesGcmRecords(keys, is_client=True, last_sealed=last).seal([plaintext])
    assert record[13:21] == nonce[4:]
    cipher = Cipher(algorithms.AES(key), modes.GCM(nonce, record[-16:])).decryptor()
    cipher.authenticate_additional_data(record[3:11] + b"\x17\xfe\xfd" + len(plaintext).to_bytes(2, "big"))
    assert cipher.update(record[21:-16]) + cipher.finalize() == plaintext
    assert AesGcmRecords(keys, is_client=False, last_sealed=last).open(record) == plaintext


def test_a_record_is_laid_out_as_the_rfcs_say() -> None:
    """RFC 6347 section 4.1, RFC 5246 section 6.2.3.3, RFC 5288 section 3; checked with another interface to AES."""
    client, _ = both(number=41, explicit=0xAABB)
    [record] = client.seal([b"hello"])
    explicit = (0xAABC).to_bytes(8, "big")
    assert record[:HEADER_SIZE] == b"\x17\xfe\xfd\0\1" + (42).to_bytes(6, "big") + (8 + 5 + 16).to_bytes(2, "big")
    assert record[13:21] == explicit
    cipher = Cipher(algorithms.AES(KEYS.client_key), modes.GCM(KEYS.client_iv + explicit, record[-16:])).decryptor()
    cipher.authenticate_additional_data(record[3:11] + b"\x17\xfe\xfd\0\5")
    assert cipher.update(record[21:-16]) + cipher.finalize() == b"hello"


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20), st.integers(0, 2**40), st.integers(0, 2**64 - 1))
def test_what_is_sealed_is_opened_once(packets: list[bytes], number: int, explicit: int) -> None:
    client, server = both(number, explicit)
    records = client.seal(packets)
    assert [server.open(record) for record in records] == packets
    assert [server.open(record) for record in records] == [None] * len(packets)
    assert [client.open(record) for record in records] == [None] * len(packets)  # reflected
    assert [client.open(record) for record in server.seal(packets)] == packets


@given(st.data())
def test_the_replay_window_against_a_plain_set(data: st.DataObject) -> None:
    client, server = both()
    records = client.seal([b"%d" % k for k in range(3 * REPLAY_WINDOW)])
    order = data.draw(st.lists(st.integers(0, len(records) - 1), max_size=60))
    seen: set[int] = set()
    for k in order:
        too_old = bool(seen) and k <= max(seen) - REPLAY_WINDOW
        expected = None if k in seen or too_old else b"%d" % k
        assert server.open(records[k]) == expected
        if expected is not None:
            seen.add(k)


@given(st.binary(min_size=1, max_size=40), st.data())
def test_any_changed_bit_is_found_and_moves_nothing(packet: bytes, data: st.DataObject) -> None:
    client, server = both()
    [record] = client.seal([packet])
    position = data.draw(st.integers(0, 8 * len(record) - 1).filter(lambda bit: bit // 8 not in (11, 12)))
    changed = bytearray(record)  # but for the length, which the session checks before
    changed[position // 8] ^= 1 << position % 8
    before = (server._highest, server._seen)
    assert server.open(bytes(changed)) is None
    assert (server._highest, server._seen) == before
    assert server.open(record) == packet


@pytest.mark.parametrize("epoch", [0, 2, 3, 65535])
def test_records_of_another_epoch_are_refused(epoch: int) -> None:
    """There is one epoch: renegotiation is off. What another one claims is not authentic."""
    client, server = both()
    [record] = client.seal([b"x"])
    assert server.open(record[:3] + epoch.to_bytes(2, "big") + record[5:]) is None
    assert server.open(record) == b"x"


@given(st.binary(max_size=100))
def test_no_bytes_break_open(tail: bytes) -> None:
    _, server = both()
    for head in (b"", b"\x17", b"\x17\xfe\xfd\0\1", b"\x17\xfe\xfd\0\1\0\0\0\0\0\1\0\x40", b"\x15\xfe\xfd\xff\xff"):
        assert server.open(head + tail) is None
        assert server.open_alert(head + tail) is None


def test_alerts() -> None:
    client, server = both()
    assert server.open_alert(client.close_notify()) == "close notify"
    assert client.seal([b"x"]) == []
    client, server = both()
    for alert, meaning in (
        (b"\1\144", None),
        (b"\2\50", "alert handshake failure"),
        (b"\2\377", "alert 255"),
        (b"\2", None),
    ):
        [record] = client.seal([alert])
        assert server.open_alert(record) == meaning
        assert server.open_alert(record) is None  # a replay


def test_numbers_are_used_up_rather_than_used_twice() -> None:
    client, server = both(number=2**48 - 4)
    assert [server.open(record) for record in client.seal([b"last"])] == [b"last"]
    assert client.seal([b"one too many", b"and another"]) == []


def test_a_session_that_can_send_no_more_fails_and_does_not_raise() -> None:
    pair = Pair(way="fast").connect()
    last = last_record(number=2**48 - 3)
    pair.client._protection = AesGcmRecords(KEYS, is_client=True, last_sealed=last)
    assert pair.client.send([b"x", b"y"]) == []
    [failed] = pair.client.take_events()
    assert isinstance(failed, Failed)
    assert pair.client.state == "failed"


def test_a_refused_packet_leaves_the_records_usable() -> None:
    client, server = both()
    with pytest.raises(LocalError):
        client.seal([b"fine", b""])
    assert server.open(client.seal([b"next"])[0]) == b"next"


def test_the_explicit_nonce_wraps_where_openssl_would_wrap_it() -> None:
    client, server = both(explicit=2**64 - 1)
    records = client.seal([b"a", b"b"])
    assert [record[13:21] for record in records] == [bytes(8), (1).to_bytes(8, "big")]
    assert [server.open(record) for record in records] == [b"a", b"b"]


# ------------------------------------------------------------------------------------------------------------- nonces


def encrypted(pair: Pair, side: str) -> list[Record]:
    records = [record for sender, datagram in pair.sent if sender == side for record in split_untrusted(datagram)[0]]
    return [record for record in records if record.epoch == 1]


def assert_no_nonce_twice(records: list[Record]) -> None:
    by_nonce: dict[bytes, bytes] = {}
    by_number: dict[int, bytes] = {}
    for record in records:
        explicit = record.data[13:21]
        assert by_nonce.setdefault(explicit, record.data) == record.data, "two records under one nonce"
        assert by_number.setdefault(record.sequence, record.data) == record.data, "two records under one number"


@pytest.mark.parametrize("way", ["short", "fast"])
@pytest.mark.parametrize("seed", range(20))
def test_no_nonce_is_used_twice_on_the_wire(seed: int, way: str) -> None:
    """Through lost and repeated flights, data both ways and the goodbyes; a Finished goes again only byte for byte."""
    pair = Pair(lossy(seed, 0.4, jitter=0.05), way=way, mtu=300).connect(limit=100)
    rng = random.Random(seed)
    for _ in range(20):
        for side in ("client", "server"):
            pair.send(side, *(rng.randbytes(rng.randint(1, 300)) for _ in range(rng.randint(0, 40))))
        pair.run(0.01)
    pair.client.close(pair.now)
    pair.run()
    pair.server.close(pair.now)
    pair.run()
    for side in ("client", "server"):
        records = encrypted(pair, side)
        assert len(records) > 200
        assert_no_nonce_twice(records)


def test_the_counter_goes_on_where_openssl_stopped() -> None:
    pair = Pair(way="fast").connect()
    pair.send("client", b"a", b"b")
    pair.client.close(pair.now)
    pair.run()
    finished, first, second, goodbye = encrypted(pair, "client")
    start = int.from_bytes(finished.data[13:21], "big")
    for k, record in enumerate((finished, first, second, goodbye)):
        assert record.sequence == k
        assert int.from_bytes(record.data[13:21], "big") == (start + k) % 2**64


def test_openssl_starts_its_explicit_nonces_at_random() -> None:
    """The reason why ours go on from its last one. Were they epoch and number, as in other libraries, it would fit too."""
    starts = {encrypted(Pair().connect(), "client")[0].data[13:21] for _ in range(3)}
    assert len(starts) == 3


def test_openssl_is_gone_once_its_records_are_taken_over() -> None:
    pair = Pair(way="fast").connect()
    for session in (pair.client, pair.server):
        assert isinstance(session._protection, AesGcmRecords)
        assert session._handshake is None


def test_a_cipher_that_is_not_made_here_stays_with_openssl() -> None:
    session = Pair(way="fast").server
    PlainPeer(CLIENT, is_client=True, ciphers="ECDHE-ECDSA-CHACHA20-POLY1305").exchange(session)
    assert isinstance(session._protection, PublicOpenSslRecords)


def test_records_are_made_here_unless_asked_otherwise() -> None:
    usual = Session12(CLIENT, is_client=False, remote_fingerprints=[CLIENT.fingerprint])
    PlainPeer(CLIENT, is_client=True).exchange(usual)
    assert isinstance(usual._protection, AesGcmRecords)
    assert isinstance(Pair(way="short").connect().client._protection, OpenSslRecords)


def test_a_fast_side_and_an_openssl_side_understand_each_other() -> None:
    for fast in ("client", "server"):
        pair = Pair(**{fast: {"fast_records": True}}).connect()
        packets = [random.Random(size).randbytes(size) for size in (1, 15, 16, 17, 1191, 16384)]
        pair.send("client", *packets)
        pair.send("server", *packets)
        pair.run()
        assert pair.packets == {"client": packets, "server": packets}


def test_a_lost_finished_after_the_takeover_is_repeated_byte_for_byte() -> None:
    n_datagrams = len(Pair().connect().sent)
    pair = Pair(losing(n_datagrams - 1), way="fast").connect()
    finished = [record.data for record in encrypted(pair, "server") if record.content_type != APPLICATION_DATA]
    assert len(finished) >= 2
    assert len(set(finished)) == 1


@pytest.mark.parametrize("way", ["short", "fast"])
@pytest.mark.parametrize(("cipher", "overhead"), [("AES128-GCM-SHA256", 37), ("CHACHA20-POLY1305", 29)])
@pytest.mark.parametrize(("packet", "ip_header"), [(1435, 20), (1415, 40)])
def test_the_largest_packets_fit_ethernet(way: str, cipher: str, overhead: int, packet: int, ip_header: int) -> None:
    """The rungs of path MTU discovery, as datagrams of IPv4 and IPv6 under the records that were really negotiated."""
    assert packet in SctpConfig().packet_bytes_ladder
    session = Pair(way=way).server
    PlainPeer(CLIENT, is_client=True, ciphers=f"ECDHE-ECDSA-{cipher}").exchange(session)
    [record] = session.send([bytes(packet)])
    assert len(record) - packet == session.overhead == overhead
    in_all = ip_header + 8 + len(record)
    assert in_all <= 1500
    assert overhead < 37 or in_all == 1500  # not a byte is left over under the usual cipher


@pytest.mark.parametrize("is_client", [True, False])
@given(
    lengths=st.lists(st.one_of(st.integers(1, 60), st.integers(1180, 1440), st.integers(16_300, 16_384)), max_size=12),
    rng=st.integers(0, 2**32).map(random.Random),  # not `st.randoms`: megabytes of drawn bytes
)
@settings(max_examples=40, deadline=None)
def test_openssl_at_the_other_end_takes_and_makes_any_records(is_client: bool, lengths: list[int], rng: Any) -> None:
    """Any sizes, in any order, some twice, some never; then goodbyes."""
    certificate, peer_certificate = (CLIENT, SERVER) if is_client else (SERVER, CLIENT)
    session = Session12(certificate, is_client=is_client, remote_fingerprints=[peer_certificate.fingerprint])
    session.start(0.0)
    peer = PlainPeer(peer_certificate, is_client=not is_client)
    peer.exchange(session)
    assert isinstance(session._protection, AesGcmRecords)
    packets = [rng.randbytes(length) for length in lengths]
    for sealed, opened in (
        (session.send(packets), peer.receive),
        ([peer.send(packet) for packet in packets], lambda record: (session.receive(record, 1.0) or [None])[0]),
    ):
        order = [number for number in range(len(packets)) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        rng.shuffle(order)
        arrived: set[int] = set()
        for number in order:
            assert opened(sealed[number]) == (None if number in arrived else packets[number])
            arrived.add(number)
    session.close(2.0)
    [goodbye] = session.datagrams_to_send(2.0)
    peer.connection.bio_write(goodbye)
    with pytest.raises(SSL.ZeroReturnError):
        peer.connection.recv(100)


@pytest.mark.parametrize("is_client", [True, False])
def test_openssls_goodbye_is_understood(is_client: bool) -> None:
    certificate, peer_certificate = (CLIENT, SERVER) if is_client else (SERVER, CLIENT)
    session = Session12(certificate, is_client=is_client, remote_fingerprints=[peer_certificate.fingerprint])
    session.start(0.0)
    peer = PlainPeer(peer_certificate, is_client=not is_client)
    peer.exchange(session)
    session.take_events()
    peer.connection.shutdown()
    session.receive(peer.connection.bio_read(1000), 1.0)
    assert session.take_events() == [Closed(by_peer=True)]
