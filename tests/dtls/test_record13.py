"""Records of DTLS 1.3: as the RFC lays them out, each opened once, no bit of them without effect."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyne_mesh.errors import LocalError, MessageTooLarge
from psyne_mesh.webrtc.dtls import Closed, Failed, record13, suites13
from psyne_mesh.webrtc.dtls.handshake13 import schedule
from psyne_mesh.webrtc.dtls.record13 import (
    ACK,
    OVERHEAD,
    REPLAY_WINDOW,
    OpeningKeys,
    SealingKeys,
    cut_untrusted,
    newest_spare_untrusted,
    next_secret,
    plaintext_record,
)
from psyne_mesh.webrtc.dtls.suites13 import AES_128_GCM, CHACHA20_POLY1305, SUITES, Suite
from tests.dtls.pair import losing
from tests.dtls.pair13 import Pair13, talk

SECRET = bytes(range(32))
each_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)


def both(suite: Suite = AES_128_GCM, epoch: int = 3) -> tuple[SealingKeys, OpeningKeys]:
    secret = bytes(range(suite.hash_bytes))
    return SealingKeys(suite, secret, epoch), OpeningKeys(suite, secret, epoch)


# ------------------------------------------------------------------------------------------------------------- the keys


def test_the_key_schedule_gives_what_the_rfc_of_tls_1_3_prints() -> None:
    """RFC 8448 section 3, with the prefix of TLS in the place of ours: the secrets up to the handshake's, and keys."""
    tls = b"tls13 "
    suite, empty = AES_128_GCM, AES_128_GCM.digest(b"")
    early = suite.extract(bytes(32), bytes(32))
    assert early.hex() == "33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a"
    derived = suite.expand_label(early, b"derived", empty, 32, tls)
    assert derived.hex() == "6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba"
    shared = bytes.fromhex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d")
    handshake = suite.extract(derived, shared)
    assert handshake.hex() == "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac"
    server = bytes.fromhex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")  # "s hs traffic"
    assert suite.expand_label(server, b"key", b"", 16, tls).hex() == "3fce516009c21727d0f2e4e86ee403bc"
    assert suite.expand_label(server, b"iv", b"", 12, tls).hex() == "5d313eb2671276ee13000b30"


@each_suite
def test_the_labels_of_dtls_have_a_prefix_of_their_own(suite: Suite) -> None:
    """RFC 9147 section 5.9: "dtls13", without the space that TLS has."""
    assert suite.expand_label(SECRET, b"key", b"", 16) == suite.expand_label(SECRET, b"key", b"", 16, b"dtls13")
    assert suite.expand_label(SECRET, b"key", b"", 16) != suite.expand_label(SECRET, b"key", b"", 16, b"tls13 ")


@each_suite
def test_the_schedule_of_each_suite_gives_secrets_of_its_hash(suite: Suite) -> None:
    made = schedule.KeySchedule(suite, b"shared", suite.digest(b"hellos"))
    secrets = [made.client_handshake, made.server_handshake, *made.application(suite.digest(b"all"))]
    assert [len(secret) for secret in secrets] == [suite.hash_bytes] * 4
    assert len(set(secrets)) == 4


VECTORS = json.loads(Path(__file__).with_name("wycheproof_aes_gcm.json").read_text())["tests"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector[0]))
def test_the_aead_of_the_suites_against_wycheproof(vector: list[Any]) -> None:
    _, result, *texts = vector
    key, nonce, additional, plaintext, ciphertext, tag = map(bytes.fromhex, texts)
    aead = AES_128_GCM.aead(key)
    if result == "valid":
        assert aead.encrypt(nonce, plaintext, additional) == ciphertext + tag
    else:
        with pytest.raises(record13.InvalidTag):
            aead.decrypt(nonce, ciphertext + tag, additional)


def test_chacha20_poly1305_against_its_rfc() -> None:
    """RFC 8439 section 2.8.2 for the AEAD, section 2.4.2 for the key stream that hides numbers."""
    key = bytes(range(0x80, 0xA0))
    nonce = bytes.fromhex("070000004041424344454647")
    text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    sealed = CHACHA20_POLY1305.aead(key).encrypt(nonce, text, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"))
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
    # Block counter 1, nonce 00 00 00 00 00 00 00 4a 00 00 00 00
    sample = b"\1\0\0\0" + bytes.fromhex("000000000000004a00000000")
    stream = bytes(a ^ b for a, b in zip(bytes.fromhex("6e2e359a2568f980"), b"Ladies a"))
    assert suites13.chacha20_mask(bytes(range(32)))(sample)[:8] == stream


def test_the_aes_mask_against_fips_197() -> None:
    mask = suites13.aes_mask(bytes(range(16)))
    assert mask(bytes.fromhex("00112233445566778899aabbccddeeff")).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


# -------------------------------------------------------------------------------------------------------------- layout


@each_suite
def test_many_records_at_once_are_those_of_one_at_a_time(suite: Suite) -> None:
    at_once, one_by_one = both(suite)[0], both(suite)[0]
    packets = [bytes((k,)) * (1 + 300 * k) for k in range(9)]
    assert at_once.seal(packets) == [record for packet in packets for record in one_by_one.seal([packet])]
    assert at_once.number == one_by_one.number == len(packets)
    with pytest.raises(LocalError):
        at_once.seal([*packets, b""])
    assert at_once.number == 2 * len(packets) + 1  # none of them is used a second time


@each_suite
def test_a_record_is_laid_out_as_the_rfc_says(suite: Suite) -> None:
    """RFC 9147 section 4: 001 C=0 S=1 L=1 EE, number, length, ciphertext; what is hidden is the number alone."""
    sealing, _ = both(suite, epoch=3)
    [record] = sealing.seal([b"content"])
    assert record[0] == 0b00101111
    assert int.from_bytes(record[3:5], "big") == len(record) - 5 == len(b"content") + 1 + 16
    assert len(record) == len(b"content") + OVERHEAD == len(b"content") + 22
    number_key = suite.expand_label(bytes(range(suite.hash_bytes)), b"sn", b"", suite.key_bytes)
    mask = suite.mask(number_key)(record[5:21])
    assert bytes(a ^ b for a, b in zip(record[1:3], mask)) == b"\0\0"
    key = suite.expand_label(bytes(range(suite.hash_bytes)), b"key", b"", suite.key_bytes)
    iv = suite.expand_label(bytes(range(suite.hash_bytes)), b"iv", b"", 12)
    assert suite.aead(key).decrypt(iv, record[5:], record[:1] + b"\0\0" + record[3:5]) == b"content\x17"


@each_suite
@pytest.mark.parametrize("size", [1, 15, 16, 17, 1191, 4095, 4096, 16_384])
def test_packets_of_any_size_come_back(suite: Suite, size: int) -> None:
    sealing, opening = both(suite)
    for packet in (bytes(size), random.Random(size).randbytes(size)):
        [record] = sealing.seal([packet])
        assert opening.open_usual(record) == packet + b"\x17"


@pytest.mark.parametrize("packet", [b"", bytes(16_385)])
def test_packets_of_no_size_or_too_large_are_refused(packet: bytes) -> None:
    sealing, _ = both()
    with pytest.raises(LocalError if not packet else MessageTooLarge):
        sealing.seal([b"good", packet])
    assert sealing.number >= 1  # what was sealed before is lost, and its number is never used again


@pytest.mark.parametrize("epoch", range(2, 8))
def test_the_epoch_shows_in_two_bits(epoch: int) -> None:
    sealing, opening = both(epoch=epoch)
    [record] = sealing.seal([b"x"])
    assert record[0] & 3 == epoch & 3
    assert opening.first == record[0]


def reshaped(suite: Suite, content: bytes, number: int, *, long: bool, with_length: bool, pad: int = 0) -> bytes:
    """A record in another shape than ours, as others may write it."""
    secret = bytes(range(suite.hash_bytes))
    key, iv, number_key = (
        suite.expand_label(secret, label, b"", size)
        for label, size in ((b"key", suite.key_bytes), (b"iv", 12), (b"sn", suite.key_bytes))
    )
    shown = (number & 0xFFFF).to_bytes(2, "big") if long else bytes((number & 0xFF,))
    text = content + b"\x17" + bytes(pad)
    head = bytes((0x23 | 8 * long | 4 * with_length,))
    length = (len(text) + 16).to_bytes(2, "big") if with_length else b""
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    body = suite.aead(key).encrypt(nonce, text, head + shown + length)
    mask = suite.mask(number_key)(body[:16])
    return head + bytes(a ^ b for a, b in zip(shown, mask)) + length + body


@each_suite
@pytest.mark.parametrize("long", [True, False])
@pytest.mark.parametrize("with_length", [True, False])
def test_short_numbers_and_records_without_a_length_are_read(suite: Suite, long: bool, with_length: bool) -> None:
    _, opening = both(suite)
    for number in (0, 1, 5, 3, 100, 200, 300, 290):
        record = reshaped(suite, b"content", number, long=long, with_length=with_length)
        [cut], whole = cut_untrusted(record)
        assert whole
        assert opening.open(cut.data, cut.body_at) == b"content\x17"
        assert opening.number == number


@pytest.mark.parametrize("pad", [1, 2, 100])
def test_padding_is_taken_off(pad: int) -> None:
    pair = Pair13().connect()
    sealing = pair.client._write
    assert sealing is not None
    record = sealing.seal_one(0, b"content\x17" + bytes(pad - 1))
    assert pair.server.receive(record, 1.0) == [b"content"]


def test_a_record_of_padding_alone_is_an_error_of_the_peer() -> None:
    """RFC 8446 section 5.4: unexpected_message."""
    pair = Pair13().connect()
    assert pair.client._write is not None
    pair.server.receive(pair.client._write.seal_one(0, bytes(20)), 1.0)
    assert isinstance(pair.server.take_events()[-1], Failed)


def test_a_connection_id_that_was_not_agreed_on_is_dropped() -> None:
    assert cut_untrusted(bytes((0x3F,)) + bytes(60)) == ([], False)


def test_a_record_too_short_to_be_hidden_is_dropped() -> None:
    assert cut_untrusted(b"\x2f\0\0\0\x10" + bytes(16)) == ([], False)
    assert len(cut_untrusted(b"\x2f\0\0\0\x11" + bytes(17))[0]) == 1


def test_several_records_in_one_datagram_and_one_bad_one_between_them() -> None:
    pair = Pair13().connect()
    first, second, third = pair.client.send([b"first", b"second", b"third"])
    damaged = second[:-1] + bytes((second[-1] ^ 1,))
    assert pair.server.receive(first + damaged + third, 1.0) == [b"first", b"third"]
    assert pair.server.receive(second, 1.0) == [b"second"]


def test_a_plaintext_record_between_others_is_passed_over() -> None:
    pair = Pair13().connect()
    first, second = pair.client.send([b"first", b"second"])
    alert = plaintext_record(21, 5, b"\2\x28")
    assert pair.server.receive(first + alert + second, 1.0) == [b"first", b"second"]
    assert pair.server.state == "established"


@given(st.binary(max_size=200))
def test_any_bytes_are_cut(datagram: bytes) -> None:
    records, whole = cut_untrusted(datagram)
    assert sum(len(record.data) for record in records) <= len(datagram)
    assert whole or len(records) < 20


# ------------------------------------------------------------------------------------------------- each once, and exact


@given(st.lists(st.integers(0, 1500), max_size=120), st.sampled_from(SUITES))
@settings(max_examples=60, deadline=None)
def test_the_replay_window_against_a_plain_set(numbers: list[int], suite: Suite) -> None:
    sealing, opening = both(suite)
    records = sealing.seal([b"x"] * 1501)
    seen: set[int] = set()
    for number in numbers:
        fresh = number not in seen and (not seen or number > max(seen) - REPLAY_WINDOW)
        opened = opening.open_usual(records[number])
        assert (opened is not None) is fresh
        if fresh:
            seen.add(number)
            assert opening.number == number


@pytest.mark.parametrize("start", [0xFFF0, 0x1FFF0, 2**24 - 100])
def test_numbers_go_on_past_what_two_bytes_tell(start: int) -> None:
    sealing, opening = both()
    sealing.number = start
    opening._highest = start - 1
    records = sealing.seal([b"%d" % k for k in range(60)])
    order = list(range(60))
    random.Random(start).shuffle(order)
    for k in order:
        assert opening.open_usual(records[k]) == b"%d\x17" % k
        assert opening.open_usual(records[k]) is None


@each_suite
def test_every_flipped_bit_of_a_record_is_noticed(suite: Suite) -> None:
    sealing, opening = both(suite)
    [record] = sealing.seal([b"content"])
    for bit in range(8 * len(record)):
        changed = bytearray(record)
        changed[bit // 8] ^= 1 << bit % 8
        cut, _ = cut_untrusted(bytes(changed))
        assert all(r.content_type or opening.open(r.data, r.body_at) is None for r in cut)
    assert opening.open_usual(record) == b"content\x17"


def test_no_number_is_used_twice_under_one_key() -> None:
    sealing, _ = both()
    records = [*sealing.seal([b"same"] * 300), sealing.seal_one(ACK, b"same"), *sealing.seal([b"same"] * 10)]
    assert len({record[5:] for record in records}) == len(records)
    assert sealing.number == 311


def test_keys_that_are_used_up_seal_nothing_more() -> None:
    pair = Pair13().connect()
    assert pair.client._write is not None
    pair.client._write.number = record13.RECORDS_MAX - 1
    assert len(pair.client.send([b"last"])) == 1
    assert pair.client.send([b"too many"]) == []
    assert isinstance(pair.client.take_events()[-1], Failed)


def test_so_many_forgeries_end_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9147 section 4.5.3."""
    monkeypatch.setattr("psyne_mesh.webrtc.dtls.session13.FORGERIES_MAX", 10)
    pair = Pair13().connect()
    [record] = pair.client.send([b"x"])
    for number in range(10):
        assert pair.server.state == "established"
        pair.server.receive(record[:-1] + bytes((record[-1] ^ (number + 1),)), 1.0)
    assert pair.server.state == "failed"


# ---------------------------------------------------------------------------------------------------------- key updates


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("ask", [True, False])
def test_keys_are_renewed_many_times(who: str, ask: bool) -> None:
    pair = Pair13().connect().run(1)
    for round_ in range(6):
        pair.side(who).update_keys(pair.now, ask=ask)
        pair.run(0.2)
        talk(pair)
        assert pair.side(who)._write.epoch == 4 + round_
    other = pair.server if who == "client" else pair.client
    assert other._read.epoch == 9
    assert other._write.epoch == (9 if ask else 3)


def test_both_sides_renew_at_once() -> None:
    pair = Pair13().connect().run(1)
    for _ in range(5):
        pair.client.update_keys(pair.now, ask=True)
        pair.server.update_keys(pair.now, ask=True)
        pair.run(0.3)
        talk(pair)
    assert pair.client._read.epoch == pair.server._write.epoch
    assert pair.server._read.epoch == pair.client._write.epoch


def test_new_keys_count_after_the_ack_only() -> None:
    """RFC 9147 section 8."""
    pair = Pair13().connect().run(1)
    pair.client.update_keys(pair.now)
    assert pair.client._write.epoch == 3
    [before] = pair.client.send([b"under the old keys"])
    [update] = pair.client.datagrams_to_send(pair.now)
    pair.server.receive(update, pair.now)
    assert pair.server.receive(before, pair.now) == [b"under the old keys"]
    [ack] = pair.server.datagrams_to_send(pair.now)
    pair.client.receive(ack, pair.now)
    assert pair.client._write.epoch == 4


def test_a_second_update_waits_for_the_ack_of_the_first() -> None:
    pair = Pair13().connect().run(1)
    for _ in range(3):
        pair.client.update_keys(pair.now)
    assert len(pair.client.datagrams_to_send(pair.now)) == 1


@pytest.mark.parametrize("lost", range(4))
def test_a_lost_update_or_ack_is_made_good(lost: int) -> None:
    pair = Pair13().connect().run(1)
    pair.wire = losing(lost)
    pair.client.update_keys(pair.now, ask=True)
    pair.run(3)
    pair.wire = losing()
    talk(pair)
    assert (pair.client._write.epoch, pair.server._write.epoch) == (4, 4)


def test_stragglers_of_the_epoch_before_are_still_read() -> None:
    pair = Pair13().connect().run(1)
    [straggler, again] = pair.client.send([b"late", b"later"])
    pair.client.update_keys(pair.now)
    pair.run(0.2)
    talk(pair)
    assert pair.server.receive(straggler, pair.now) == [b"late"]
    assert pair.server.receive(straggler, pair.now) == []
    pair.client.update_keys(pair.now)
    pair.run(0.2)
    talk(pair)
    assert pair.server.receive(again, pair.now) == []  # two epochs ago


def test_keys_are_renewed_by_themselves_long_before_they_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.webrtc.dtls.session13.UPDATE_AFTER_RECORDS", 50)
    pair = Pair13().connect().run(1)
    for _ in range(10):
        pair.send("client", *[b"x"] * 20)
        pair.run(0.1)
    assert pair.client._write.epoch >= 6
    assert pair.packets["server"] == [b"x"] * 200
    assert record13.UPDATE_AFTER_RECORDS <= 2**24 // 2


def test_the_secret_of_the_next_epoch_says_nothing_of_the_one_before() -> None:
    secret = SECRET
    assert len({secret := next_secret(AES_128_GCM, secret) for _ in range(5)}) == 5


# -------------------------------------------------------------------------------------------------------- closes, alerts


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_close_is_told_and_answered(who: str) -> None:
    pair = Pair13().connect().run(1)
    other = "server" if who == "client" else "client"
    pair.side(who).close(pair.now)
    pair.run(1)
    assert pair.events[who][-1] == Closed(by_peer=False)
    assert pair.events[other][-1] == Closed(by_peer=True)
    assert pair.side(other).send([b"x"]) == []


@pytest.mark.parametrize("alert", [b"\1\x5a", b"\2", b"", b"\1\0\0"])
def test_alerts_that_mean_nothing(alert: bytes) -> None:
    """user_canceled, and those of a wrong size (RFC 8446 section 6.1)."""
    pair = Pair13().connect().run(1)
    pair.server.receive(pair.client._write.seal_one(21, alert), pair.now)
    talk(pair)


@pytest.mark.parametrize("level", [1, 2])
def test_all_other_alerts_are_fatal_whatever_their_level(level: int) -> None:
    pair = Pair13().connect().run(1)
    pair.server.receive(pair.client._write.seal_one(21, bytes((level, 80))), pair.now)
    [*_, failed] = pair.server.take_events()
    assert "internal error" in str(failed.error)


def test_after_the_end_nothing_is_opened_and_nothing_sealed() -> None:
    pair = Pair13().connect().run(1)
    [late] = pair.client.send([b"late"])
    pair.server.close(pair.now)
    assert pair.server.receive(late, pair.now) == []
    assert pair.server.send([b"x"]) == []
    assert pair.server.next_timeout() is None


# --------------------------------------------------------------------------------------------- records without a length


@each_suite
def test_a_record_without_a_length_is_opened_once_in_any_order(suite: Suite) -> None:
    seal, keys = both(suite)
    short = seal.seal_short([b"one", b"two", b"three"])
    assert [record[0] for record in short] == 3 * [keys.first_short]
    assert len(short[0]) + 2 == len(b"one") + OVERHEAD
    assert [record.body_at for record in cut_untrusted(short[0])[0]] == [3]
    opened = [keys.open_short(short[number]) for number in (0, 2, 1, 1)]
    assert opened == [b"one\x17", b"three\x17", b"two\x17", None]
    forged = bytearray(seal.seal_short([b"four"])[0])
    forged[-1] ^= 1
    assert keys.open_short(bytes(forged)) is None
    assert keys.n_forged == 1
    assert seal.seal([b"with a length"])[0][0] == keys.first


def test_of_spare_datagrams_the_newest_are_left_and_all_others_stay_in_order() -> None:
    seal, _ = both()
    a, b, c, d = seal.seal_short([b"a", b"b", b"c", b"d"])
    kept = seal.seal([b"kept"])[0]
    assert newest_spare_untrusted([a, kept, b, c, b"", d], 2) == [kept, c, b"", d]
    assert newest_spare_untrusted([a, kept, b], 2) == [a, kept, b]
