"""Handshakes of DTLS 1.3 in virtual time: roles, losses, orders, fragments, ACKs (RFC 9147 sections 5 and 7)."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyne_mesh.errors import LocalError
from psyne_mesh.webrtc.dtls import DtlsSession, HandshakeCompleted, suites13
from psyne_mesh.webrtc.dtls.handshake13 import flight, groups
from psyne_mesh.webrtc.dtls.handshake13.core import encode_ack, read_ack_untrusted
from psyne_mesh.webrtc.dtls.handshake13.reassembly import (
    Fragment,
    Reassembly,
    encode_fragment,
    plaintext_reassembly,
    split_fragments_untrusted,
)
from psyne_mesh.webrtc.dtls.record13 import ACK, cut_untrusted, plaintext_record
from psyne_mesh.webrtc.dtls.session13 import Session13
from tests.dtls.pair import CLIENT, LATENCY, SERVER, deliver_all, losing, lossy
from tests.dtls.pair13 import CLASSIC, Pair13, talk

HYBRID = groups.GROUPS
DONE = HandshakeCompleted("TLS_AES_128_GCM_SHA256", "DTLSv1.3", groups.NAMES[HYBRID[0]], groups.HAS_MLKEM)
both_hellos = pytest.mark.parametrize("allowed", [HYBRID, CLASSIC], ids=["ML-KEM", "x25519"])


def test_a_client_is_through_after_one_round_trip_a_server_after_one_and_a_half() -> None:
    pair = Pair13().connect()
    assert pair.events == {"client": [DONE], "server": [DONE]}
    assert pair.client.stats.handshake_s == pytest.approx(2 * LATENCY)
    assert pair.now == pytest.approx(3 * LATENCY)
    talk(pair)


def test_nothing_waits_and_nothing_is_kept_once_both_are_through() -> None:
    pair = Pair13().connect().run(1)
    for session in (pair.client, pair.server):
        assert session.next_timeout() is None
        assert session._last_flight is session._hellos is session._after is None
        assert session._candidates == session._early == []
        assert session.stats.flights_retransmitted == session.stats.records_dropped == 0


@pytest.mark.parametrize("suite", suites13.SUITES, ids=lambda suite: suite.name)
@both_hellos
def test_each_suite_with_each_group(suite: suites13.Suite, allowed: tuple[int, ...]) -> None:
    pair = Pair13(suites=(suite,), allowed_groups=allowed).connect()
    assert pair.client.stats.cipher == pair.server.stats.cipher == suite.name
    assert pair.client.stats.group == groups.NAMES[allowed[0]]
    talk(pair)


def test_the_servers_order_of_suites_counts() -> None:
    chacha, aes = suites13.CHACHA20_POLY1305, suites13.AES_256_GCM
    pair = Pair13(client={"suites": (chacha, aes)}, server={"suites": (aes, chacha)}).connect()
    assert pair.client.stats.cipher == aes.name


@pytest.mark.parametrize("mtu", [256, 300, 600, 1200])
def test_no_datagram_of_the_handshake_is_larger_than_the_mtu(mtu: int) -> None:
    pair = Pair13(mtu=mtu).connect().run(1)
    assert max(len(datagram) for _, datagram in pair.sent) <= mtu


def test_an_mtu_that_is_too_small_is_refused() -> None:
    with pytest.raises(LocalError, match="at least 256"):
        Pair13(mtu=255)


def test_how_many_datagrams_a_handshake_takes() -> None:
    """Two for a post-quantum hello, two for the answer, one for the client's last flight, one ACK."""
    assert [len(Pair13(allowed_groups=each).connect().run(1).sent) for each in (CLASSIC, HYBRID)] == [4, 6]


@both_hellos
@pytest.mark.parametrize("mtu", [256, 1200])
def test_each_datagram_lost_in_turn(mtu: int, allowed: tuple[int, ...]) -> None:
    n = len(Pair13(mtu=mtu, allowed_groups=allowed).connect().run(1).sent)
    for lost in range(n):
        pair = Pair13(losing(lost), mtu=mtu, allowed_groups=allowed).connect()
        assert pair.now < 0.3, f"datagram {lost} lost"
        pair.run(3)
        assert pair.client._last_flight is None
        talk(pair)


@both_hellos
@pytest.mark.parametrize("mtu", [256, 1200])
def test_each_two_datagrams_lost(mtu: int, allowed: tuple[int, ...]) -> None:
    n = len(Pair13(mtu=mtu, allowed_groups=allowed).connect().run(1).sent) + 2
    for first in range(n):
        for second in range(first + 1, n):
            pair = Pair13(losing(first, second), mtu=mtu, allowed_groups=allowed).connect().run(3)
            pair.wire = deliver_all
            assert pair.client._last_flight is None
            talk(pair)


@pytest.mark.parametrize("seed", range(40))
def test_30_percent_loss_with_reordering(seed: int) -> None:
    pair = Pair13(lossy(seed, 0.3, jitter=0.03), mtu=(256, 1200)[seed % 2]).connect(limit=60)
    pair.wire = deliver_all
    talk(pair)


@pytest.mark.parametrize("seed", range(10))
def test_duplicates_and_wild_reordering(seed: int) -> None:
    once, again = lossy(seed, 0.0, jitter=0.1), lossy(seed + 1000, 0.5, jitter=0.3)
    pair = Pair13(lambda sender, datagram: once(sender, datagram) + again(sender, datagram), mtu=300).connect()
    pair.wire = deliver_all
    pair.run(3)
    talk(pair)


@pytest.mark.parametrize("seed", range(10))
def test_a_retry_under_loss(seed: int) -> None:
    pair = Pair13(lossy(seed, 0.3, jitter=0.03), server={"allowed_groups": (groups.SECP256R1,)}).connect(limit=60)
    pair.wire = deliver_all
    talk(pair)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["ok", "lost", "late", "twice", "cut"]), max_size=30), st.sampled_from([256, 400, 1200])
)
def test_any_fate_of_the_first_datagrams(fates: list[str], mtu: int) -> None:
    fate = iter(fates)

    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        match next(fate, "ok"):
            case "lost":
                return []
            case "late":
                return [(0.2, datagram)]
            case "twice":
                return [(0.0, datagram), (0.05, datagram)]
            case "cut":
                return [(0.0, datagram[: len(datagram) // 2])]
        return [(0.0, datagram)]

    pair = Pair13(wire, mtu=mtu).connect(limit=60).run(3)
    talk(pair)


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_a_hello_in_many_fragments_in_any_order(order: str) -> None:
    pair = Pair13(mtu=256)
    pair.server.start(0.0)
    pair.client.start(0.0)
    hello = pair.client.datagrams_to_send(0.0)
    assert len(hello) > 5
    if order == "reversed":
        hello.reverse()
    else:
        random.Random(3).shuffle(hello)
    for datagram in hello:
        pair.server.receive(datagram, 0.0)
    assert len(pair.server.datagrams_to_send(0.0)) > 3


def test_fragments_that_overlap() -> None:
    body = bytes(range(200))
    reassembly = Reassembly(0)
    for start, stop in ((50, 120), (0, 60), (100, 200)):
        assert reassembly.add(Fragment(1, 200, 0, start, body[start:stop]))
    message = reassembly.take()
    assert message is not None
    assert message.body == body


def test_fragments_of_later_messages_wait_for_their_turn() -> None:
    reassembly = Reassembly(5)
    assert reassembly.add(Fragment(2, 1, 6, 0, b"b"))
    assert reassembly.take() is None
    assert reassembly.has_gap
    assert reassembly.add(Fragment(1, 1, 5, 0, b"a"))
    bodies = []
    while (message := reassembly.take()) is not None:
        bodies.append(message.body)
    assert bodies == [b"a", b"b"]


@pytest.mark.parametrize(
    "fragment",
    [Fragment(1, 20_000, 0, 0, b"x"), Fragment(1, 1, 9, 0, b"x"), Fragment(1, 1, 2**16 - 1, 0, b"x")],
    ids=["too long", "too far ahead", "far ahead"],
)
def test_what_would_cost_memory_is_not_held(fragment: Fragment) -> None:
    assert not Reassembly(0).add(fragment)


def test_a_plaintext_hello_costs_less_memory_still() -> None:
    assert not plaintext_reassembly(0).add(Fragment(1, 8_193, 0, 0, b"x"))
    assert not plaintext_reassembly(0).add(Fragment(1, 1, 1, 0, b"x"))


def test_a_message_in_crumbs_is_not_put_together() -> None:
    reassembly = Reassembly(0)
    kept = [reassembly.add(Fragment(1, 1000, 0, 2 * at, b"x")) for at in range(400)]
    assert 0 < sum(kept) < 20


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\1\0\0\1\0\0\0\0\0\0\0\1", encode_fragment(1, 5, 0, 3, b"xyz"), encode_fragment(1, 5, 0, 0, b""),
        encode_fragment(1, 1, 0, 0, b"x") + b"\0",
    ],
)  # fmt: skip
def test_incoherent_fragments_are_no_fragments(content: bytes) -> None:
    assert split_fragments_untrusted(content) is None


@given(st.binary(max_size=100))
def test_any_bytes_give_fragments_that_lie_within_their_messages(content: bytes) -> None:
    for fragment in split_fragments_untrusted(content) or []:
        assert fragment.offset + len(fragment.data) <= fragment.length


# ----------------------------------------------------------------------------------------------------------------- acks


def test_the_servers_ack_names_the_records_of_the_clients_last_flight() -> None:
    pair = Pair13().connect()
    [ack] = [d for s, d in pair.sent if s == "server"][-1:]
    [cut], _ = cut_untrusted(ack)
    opened = pair.client._read.open(cut.data, cut.body_at)
    assert opened[-1] == ACK
    assert [epoch for epoch, _ in read_ack_untrusted(opened[:-1])] == [2]


def test_data_of_the_server_confirms_no_flight_only_an_ack_does() -> None:
    """A server may send data before it has the client's last flight (RFC 8446 section 2)."""
    pair = Pair13()
    pair.wire = lambda sender, datagram: [] if sender == "server" and len(datagram) < 60 else [(0.0, datagram)]
    pair.connect()
    pair.wire = deliver_all
    [data] = pair.server.send([b"early"])
    assert pair.client.receive(data, pair.now) == [b"early"]
    assert pair.client.next_timeout() is not None


def test_a_lost_ack_is_sent_again_for_each_repetition() -> None:
    pair = Pair13()
    acks = iter(range(100))
    pair.wire = lambda sender, datagram: (
        [] if sender == "server" and len(datagram) < 60 and next(acks) < 3 else [(0.0, datagram)]
    )
    pair.connect().run(5)
    assert pair.client._last_flight is None
    assert next(acks) == 4


def test_forged_records_of_epoch_2_cost_a_server_little_and_get_no_answer() -> None:
    pair = Pair13().connect().run(1)
    for number in range(100):
        pair.server.receive(b"\x2e" + bytes((number, 1)) + b"\0\x30" + bytes(48), pair.now)
    assert pair.server.datagrams_to_send(pair.now) == []


def test_part_of_a_flight_is_acknowledged_and_only_the_rest_comes_again() -> None:
    pair = Pair13(losing(3))  # the second datagram of the server's flight
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(0.1, until_established=True)
    assert (pair.client.state, pair.server.state) == ("established", "established")
    sizes = [len(d) for s, d in pair.sent if s == "server"]
    assert sizes[2] == sizes[1]  # the lost one again, alone


def test_a_lost_server_hello_is_asked_for_by_an_empty_ack() -> None:
    """RFC 9147 section 7.1: what has come cannot even be opened."""
    pair = Pair13(losing(2))
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(0.2, until_established=True)
    assert pair.client.state == pair.server.state == "established"
    assert any(datagram[0] == ACK for sender, datagram in pair.sent if sender == "client")


def test_a_lost_last_flight_is_asked_for_when_data_comes_without_it() -> None:
    pair = Pair13(losing(4))
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(2.1 * LATENCY)
    assert pair.client.state == "established"
    pair.send("client", b"data")
    pair.run(0.09)
    assert pair.packets["server"] == [b"data"]


@pytest.mark.parametrize("numbers", [[(0, 0)], [(2, 99)], [(2**63, 2**64 - 1)], [(3, 0)] * 50], ids=str)
def test_acks_for_records_that_were_never_sent_change_nothing(numbers: list[tuple[int, int]]) -> None:
    pair = Pair13()
    pair.wire = lambda sender, datagram: [] if sender == "server" and len(datagram) < 60 else [(0.0, datagram)]
    pair.connect()
    pair.wire = deliver_all
    assert pair.server._write is not None
    pair.client.receive(pair.server._write.seal_one(ACK, encode_ack(numbers)), pair.now)
    assert pair.client._last_flight is not None
    pair.run(3)
    assert pair.client._last_flight is None


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\x10", b"\0\x0f" + bytes(15), b"\0\0x"])
def test_a_malformed_ack_under_keys_ends_the_session(content: bytes) -> None:
    pair = Pair13().connect().run(1)
    pair.client.receive(pair.server._write.seal_one(ACK, content), pair.now)
    assert pair.client.state == "failed"


def test_an_ack_in_plaintext_stops_no_repetition() -> None:
    """Anybody can write one: at the deadline all of a hello goes again."""
    pair = Pair13(losing(0, 1))
    pair.client.start(0.0)
    pair.server.start(0.0)
    pair.flush()
    pair.client.receive(plaintext_record(ACK, 7, encode_ack([(0, 0), (0, 1)])), 0.01)
    pair.run(2, until_established=True)
    assert pair.client.state == pair.server.state == "established"


def test_a_flight_is_repeated_at_doubling_intervals_up_to_two_seconds() -> None:
    session = Session13(CLIENT, is_client=True, remote_fingerprints=[SERVER.fingerprint], rtt_s=0.2)
    session.start(0.0)
    times = []
    for _ in range(7):
        now = session.next_timeout()
        assert now is not None
        times.append(now)
        session.handle_timeout(now)
    intervals = [b - a for a, b in zip([0.0, *times], times)]
    assert intervals == pytest.approx([0.3, 0.6, 1.2, 2.0, 2.0, 2.0, 2.0])


@pytest.mark.parametrize(("rtt_s", "timeout_s"), [(None, 0.15), (0.0001, 0.05), (0.1, 0.15), (0.4, 0.6), (9.0, 2.0)])
def test_timers_follow_the_round_trip_that_ice_has_measured(rtt_s: float | None, timeout_s: float) -> None:
    """RFC 9147 section 5.8.2: one and a half of it."""
    assert flight.timeout_for(rtt_s) == pytest.approx(timeout_s)


def test_a_repeated_hello_gets_the_same_answer_again_and_not_too_often() -> None:
    pair = Pair13()
    pair.server.start(0.0)
    pair.client.start(0.0)
    hello = pair.client.datagrams_to_send(0.0)
    for datagram in hello:
        pair.server.receive(datagram, 0.0)
    first = pair.server.datagrams_to_send(0.0)
    for _ in range(20):
        for datagram in hello:
            pair.server.receive(datagram, 0.1)
    again = pair.server.datagrams_to_send(0.1)
    assert len(again) == len(first)
    assert len(pair.server._candidates) == 1


def test_a_completed_client_answers_no_plaintext() -> None:
    pair = Pair13().connect().run(1)
    for sender, datagram in list(pair.sent):
        if sender == "server" and datagram[0] == 22:
            pair.client.receive(datagram, pair.now + 10)
    assert pair.client.datagrams_to_send(pair.now + 10) == []


def test_early_data_is_held_within_bounds() -> None:
    pair = Pair13()
    pair.client.start(0.0)
    for number in range(100):
        pair.client.receive(b"\x2f" + bytes((number, 0)) + b"\0\x30" + bytes(48), 0.0)
    assert len(pair.client._early) == 16


def test_misuse_is_a_local_error() -> None:
    session = Session13(CLIENT, is_client=True, remote_fingerprints=[SERVER.fingerprint])
    with pytest.raises(LocalError):
        session.send([b"x"])
    with pytest.raises(LocalError):
        session.update_keys(0.0)
    session.start(0.0)
    with pytest.raises(LocalError):
        session.start(0.0)
    with pytest.raises(LocalError, match="version"):
        DtlsSession(CLIENT, is_client=True, remote_fingerprints=[SERVER.fingerprint], versions=())


# ------------------------------------------------------------------------------------------------- flipped bits, hostility


@pytest.mark.parametrize("moment", range(6))
def test_every_flipped_bit_of_a_handshake_leads_to_no_false_success(moment: int) -> None:
    """Every 37th bit, so that the test is short; the fuzzer takes all."""
    sizes = [len(datagram) for _, datagram in Pair13().connect().run(1).sent]
    for bit in range(moment, 8 * sizes[moment], 37 if sizes[moment] > 100 else 3):
        count = iter(range(1_000))

        def wire(sender: str, datagram: bytes, count: Any = count, bit: int = bit) -> list[tuple[float, bytes]]:
            if next(count) == moment and bit // 8 < len(datagram):
                changed = bytearray(datagram)
                changed[bit // 8] ^= 1 << bit % 8
                return [(0.0, bytes(changed))]
            return [(0.0, datagram)]

        pair = Pair13(wire).connect(limit=5.0).run(1)  # the peer repeats what was damaged
        talk(pair)


@pytest.mark.parametrize("seed", range(30))
def test_damaged_copies_do_not_disturb_a_handshake(seed: int) -> None:
    rng = random.Random(seed)

    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        damaged = bytearray(datagram)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        copies = [bytes(damaged), bytes(damaged[: rng.randrange(len(damaged))])]
        return [(rng.random() * 0.02, copy) for copy in copies] + [(0.0, datagram)]

    pair = Pair13(wire, mtu=(300, 1200)[seed % 2]).connect(limit=20).run(1)
    pair.wire = deliver_all
    talk(pair)


def test_a_path_that_carries_less_than_a_full_datagram_is_found_out() -> None:
    """RFC 9147 section 4.4: after two timeouts in vain a flight goes in smaller pieces."""
    pair = Pair13(lambda sender, datagram: [(0.0, datagram)] if len(datagram) <= 548 else []).connect(limit=5.0)
    assert pair.now < 1.5
    completed = [event for events in pair.events.values() for event in events if isinstance(event, HandshakeCompleted)]
    assert [event.is_path_small for event in completed] == [True, True]
    # The hello, twice; the last flight begins as the first had to end
    assert sum(len(datagram) > 548 for sender, datagram in pair.sent if sender == "client") == 2
    talk(pair)


def test_a_long_way_does_not_pass_for_a_path_that_carries_little() -> None:
    """Its timeouts are in vain, too; but large datagrams come."""
    pair = Pair13(lambda sender, datagram: [(0.5, datagram)]).connect(limit=10.0)
    completed = [event for events in pair.events.values() for event in events if isinstance(event, HandshakeCompleted)]
    assert [event.is_path_small for event in completed] == [False, False]
