"""Handshakes in virtual time: both roles, every loss, every order."""

from __future__ import annotations

import pytest

from psyne_mesh.errors import LocalError
from psyne_mesh.webrtc.dtls import Closed, HandshakeCompleted
from psyne_mesh.webrtc.dtls.records import CHANGE_CIPHER_SPEC, HANDSHAKE, Record, renumber, split_untrusted
from psyne_mesh.webrtc.dtls.session12 import Session12
from tests.dtls.pair import CLIENT, LATENCY, SERVER, WAYS, Pair, PlainPeer, losing, lossy

DONE = HandshakeCompleted("ECDHE-ECDSA-AES128-GCM-SHA256", "DTLSv1.2", "x25519")


@pytest.mark.parametrize("way", WAYS)
def test_both_sides_complete_after_two_round_trips_and_talk(way: str) -> None:
    pair = Pair(way=way).connect()
    assert pair.events == {"client": [DONE], "server": [DONE]}
    assert pair.now == pytest.approx(4 * LATENCY)
    stats = pair.client.stats
    assert (stats.cipher, stats.version) == (DONE.cipher, DONE.version)
    assert stats.handshake_s == pytest.approx(4 * LATENCY)
    assert stats.flights_retransmitted == stats.records_dropped == 0
    assert_they_talk(pair)


def test_a_server_repeats_its_last_flight_a_few_times_to_a_silent_client() -> None:
    """It cannot know that the client has it, and the client's own timer backs off."""
    pair = Pair().connect()
    assert pair.client.next_timeout() is None
    n_sent = len(pair.sent)
    pair.run(60)
    assert pair.server.next_timeout() is None
    assert [len(datagram) for _, datagram in pair.sent[n_sent:]] == [75] * 4
    assert pair.server.stats.records_dropped == 0
    assert_they_talk(pair)


def test_openssl_bears_a_repeated_last_flight() -> None:
    session, peer = Pair().server, PlainPeer(CLIENT, is_client=True)
    peer.exchange(session)
    for _ in range(4):
        now = session.next_timeout() or 0.0
        session.handle_timeout(now)
        [flight] = session.datagrams_to_send(now)
        assert peer.receive(flight) is None
    assert session.receive(peer.send(b"still"), 9.0) == [b"still"]


def test_nothing_waits_once_the_client_has_spoken() -> None:
    pair = Pair().connect()
    pair.send("client", b"hello")
    pair.run(LATENCY)
    assert pair.client.next_timeout() is None
    assert pair.server.next_timeout() is None
    n_sent = len(pair.sent)
    assert len(pair.run().sent) == n_sent


@pytest.mark.parametrize("mtu", [256, 300, 1200])
def test_no_datagram_of_the_handshake_is_larger_than_the_mtu(mtu: int) -> None:
    pair = Pair(mtu=mtu).connect()
    assert max(len(datagram) for _, datagram in pair.sent) <= mtu
    if mtu == 256:
        assert len(pair.sent) > 6  # it did have to be cut


def test_an_mtu_too_small_for_openssl_is_refused() -> None:
    with pytest.raises(LocalError, match="at least 256"):
        Pair(mtu=255)


@pytest.mark.parametrize("way", ["short", "fast"])
@pytest.mark.parametrize("mtu", [256, 300, 1200])
def test_each_datagram_of_the_handshake_lost_in_turn(mtu: int, way: str) -> None:
    n_datagrams = len(Pair(mtu=mtu).connect().sent)
    for lost in range(n_datagrams):
        pair = Pair(losing(lost), mtu=mtu, way=way).connect()
        assert pair.now < 0.3, f"datagram {lost} lost"
        assert pair.client.stats.flights_retransmitted + pair.server.stats.flights_retransmitted > 0
        assert_they_talk(pair)


@pytest.mark.parametrize("mtu", [300, 1200])
def test_each_two_datagrams_lost(mtu: int) -> None:
    n_datagrams = len(Pair(mtu=mtu).connect().sent) + 2
    for first in range(n_datagrams):
        for second in range(first + 1, n_datagrams):
            assert_they_talk(Pair(losing(first, second), mtu=mtu).connect())


@pytest.mark.parametrize("mtu", [300, 1200])
@pytest.mark.parametrize("seed", range(50))
def test_30_percent_loss_with_reordering(seed: int, mtu: int) -> None:
    pair = Pair(lossy(seed, 0.3, jitter=0.03), mtu=mtu).connect(limit=60)
    pair.wire = losing()
    assert_they_talk(pair)


@pytest.mark.parametrize("seed", range(10))
def test_duplicates_and_wild_reordering(seed: int) -> None:
    once, again = lossy(seed, 0.0, jitter=0.1), lossy(seed + 1000, 0.5, jitter=0.3)
    pair = Pair(lambda sender, datagram: once(sender, datagram) + again(sender, datagram), mtu=300).connect()
    assert_they_talk(pair)


def test_a_lost_last_flight_is_repeated_on_demand_and_no_more_often_than_it_helps() -> None:
    flights = len(Pair().connect().sent)
    pair = Pair(losing(flights - 1))
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(0.1)
    assert (pair.client.state, pair.server.state) == ("handshaking", "established")
    second_flight = [datagram for sender, datagram in pair.sent if sender == "client"][1]
    for _ in range(10):  # whoever repeats it ten times at once gets one answer
        pair.server.receive(second_flight, 0.2)
    assert len(pair.server.datagrams_to_send(0.2)) == 1
    pair.run()
    assert pair.client.state == "established"


def test_a_server_that_has_data_from_the_client_repeats_its_last_flight_no_more() -> None:
    pair = Pair().connect()
    second_flight = [datagram for sender, datagram in pair.sent if sender == "client"][1]
    assert_they_talk(pair)
    pair.server.receive(second_flight, pair.now + 10)
    assert pair.server.datagrams_to_send(pair.now + 10) == []


def test_a_completed_client_never_answers_handshake_records() -> None:
    """Else two sides that repeat their last flights at each other would never stop."""
    pair = Pair().connect()
    for sender, datagram in pair.sent:
        if sender == "server":
            pair.client.receive(datagram, pair.now + 10)
    assert pair.client.datagrams_to_send(pair.now + 10) == []


def test_every_plaintext_record_has_its_own_number_on_the_wire() -> None:
    pair = Pair(losing(0, 1, 3, 4, 6), mtu=300).connect()
    for side in ("client", "server"):
        numbers = [record.sequence for record in records_of(pair, side) if record.epoch == 0]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= 8


def test_a_silent_peer_is_asked_again_after_150_ms_doubling_to_2_s() -> None:
    pair = Pair(lambda *_: [])
    times = []
    pair.client.start(0.0)
    while pair.now < 10:
        if pair.client.datagrams_to_send(pair.now):
            times.append(round(pair.now, 3))
        pair.now = pair.client.next_timeout() or 99.0
        pair.client.handle_timeout(pair.now - 0.001)  # too early: nothing happens
        pair.client.handle_timeout(pair.now)
    assert times[:7] == [0, 0.15, 0.45, 1.05, 2.25, 4.25, 6.25]
    assert pair.client.state == "handshaking"  # when to give up is for the owner to say


def test_a_fragmented_reordered_client_hello() -> None:
    """A browser with post-quantum groups sends one of 1.5 kB in two pieces, and they may change places."""

    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        if sender == "client" and datagram[0] == HANDSHAKE and datagram[13] == 1:
            pieces = fragments(datagram, 40)
            assert len(pieces) >= 3
            return [(0.001 * k, piece) for k, piece in enumerate(reversed(pieces))] + [(0.002, pieces[0])]
        return [(0.0, later_numbers(datagram) if sender == "client" else datagram)]

    pair = Pair(wire).connect()
    assert pair.server.stats.flights_retransmitted == 0
    assert_they_talk(pair)


@pytest.mark.parametrize("order", [[1, 0], [0, 0, 1], [1, 1, 0]])
def test_a_client_hello_of_1500_bytes_that_openssl_itself_has_cut(order: list[int]) -> None:
    session, peer = Pair().server, PlainPeer(CLIENT, is_client=True)
    peer.connection.set_alpn_protos([b"%d" % k * 200 for k in range(7)])
    peer.shake()
    records, _ = split_untrusted(peer.read_output())
    assert len(records) == 2
    assert sum(len(record.data) for record in records) > 1400
    for place in order:
        assert session.datagrams_to_send(0.0) == []
        session.receive(records[place].data, 0.0)
    for datagram in session.datagrams_to_send(0.0):
        peer.connection.bio_write(datagram)
    peer.exchange(session)
    assert session.state == "established"


def test_one_fragment_of_the_client_hello_lost() -> None:
    lost = iter([1, *[0] * 1000])

    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        if sender == "client" and datagram[0] == HANDSHAKE and datagram[13] == 1:
            return [(0.0, piece) for piece in fragments(datagram, 100)[next(lost) :]]
        return [(0.0, later_numbers(datagram) if sender == "client" else datagram)]

    assert_they_talk(Pair(wire).connect())


def test_data_that_overtakes_the_last_flight_is_kept() -> None:
    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        return [(0.05 if datagram[0] == CHANGE_CIPHER_SPEC else 0.0, datagram)]

    pair = Pair(wire)
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(3.5 * LATENCY)
    assert (pair.client.state, pair.server.state) == ("handshaking", "established")
    early = [b"%d" % k for k in range(20)]
    pair.send("server", *early)
    pair.run()
    assert pair.packets["client"] == early[:16]
    assert pair.client.stats.records_dropped == 4


def test_a_goodbye_that_overtakes_the_last_flight_is_kept() -> None:
    def wire(sender: str, datagram: bytes) -> list[tuple[float, bytes]]:
        return [(0.05 if datagram[0] == CHANGE_CIPHER_SPEC else 0.0, datagram)]

    pair = Pair(wire)
    pair.server.start(0.0)
    pair.client.start(0.0)
    pair.run(3.5 * LATENCY)
    assert (pair.client.state, pair.server.state) == ("handshaking", "established")
    pair.flush()
    pair.send("server", b"last words")
    pair.server.close(pair.now)
    pair.run()
    assert pair.packets["client"] == [b"last words"]
    assert pair.events["client"] == [DONE, Closed(by_peer=True)]


def test_finished_and_data_in_one_datagram() -> None:
    pair = Pair()
    pair.server.start(0.0)
    pair.client.start(0.0)
    for _ in range(2):
        for datagram in pair.client.datagrams_to_send(0.0):
            pair.server.receive(datagram, 0.0)
        flight = pair.server.datagrams_to_send(0.0)
        if pair.server.state == "established":
            assert pair.client.receive(flight[0] + pair.server.send([b"early"])[0], 0.0) == [b"early"]
        else:
            for datagram in flight:
                pair.client.receive(datagram, 0.0)
    assert pair.client.state == "established"


def test_a_server_need_not_be_started_before_the_first_datagram_comes() -> None:
    pair = Pair()
    pair.client.start(0.0)
    pair.run()
    assert pair.server.state == "established"


def test_sessions_of_one_certificate_run_side_by_side() -> None:
    """They share a context and a scratch buffer."""
    pairs = [Pair(lossy(seed, 0.2), way="short" if seed % 2 else "fast") for seed in range(10)]
    for pair in pairs:
        pair.server.start(0.0)
        pair.client.start(0.0)
    for _ in range(3000):
        for pair in pairs:
            pair.run(0.01)
            pair.now += 0.01
        if all(pair.client.state == pair.server.state == "established" for pair in pairs):
            break
    for number, pair in enumerate(pairs):
        pair.wire = losing()
        pair.send("client", b"hello %d" % number)
    for number, pair in enumerate(pairs):
        pair.run()
        assert pair.packets["server"] == [b"hello %d" % number]


def test_misuse_is_a_local_error() -> None:
    session = Session12(CLIENT, is_client=True, remote_fingerprints=[SERVER.fingerprint])
    with pytest.raises(LocalError, match="not complete"):
        session.send([b"x"])
    session.start(0.0)
    with pytest.raises(LocalError, match="new session"):
        session.start(0.0)


def assert_they_talk(pair: Pair) -> None:
    pair.packets = {"client": [], "server": []}
    pair.wire = losing()
    pair.send("client", b"ping", b"x" * 16384)
    pair.send("server", b"pong", b"y" * 1191)
    pair.run()
    assert pair.packets == {"server": [b"ping", b"x" * 16384], "client": [b"pong", b"y" * 1191]}


def records_of(pair: Pair, side: str) -> list[Record]:
    return [record for sender, datagram in pair.sent if sender == side for record in split_untrusted(datagram)[0]]


def later_numbers(datagram: bytes) -> bytes:
    """As if each datagram of the client had been cut into up to 100 before."""
    records, _ = split_untrusted(datagram)
    return b"".join(r.data if r.epoch else renumber(r.data, r.sequence * 100) for r in records)


def fragments(datagram: bytes, size: int) -> list[bytes]:
    """A ClientHello that came in one record, in several fragments, each a record and a datagram of its own."""
    header, message = datagram[:13], datagram[13:]
    number, body = int.from_bytes(header[5:11], "big"), message[12:]
    pieces = []
    for k, at in enumerate(range(0, len(body), size)):
        piece = body[at : at + size]
        piece = message[:6] + at.to_bytes(3, "big") + len(piece).to_bytes(3, "big") + piece
        numbered = header[:5] + (number * 100 + k).to_bytes(6, "big") + len(piece).to_bytes(2, "big")
        pieces.append(numbered + piece)
    return pieces
