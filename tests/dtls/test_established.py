"""An open session among hostile datagrams: what is not authentic changes nothing, and never raises."""

from __future__ import annotations

import random

import pytest
from OpenSSL import SSL

from psyne_mesh.errors import LocalError, MessageTooLarge
from psyne_mesh.webrtc.dtls import Closed, Failed
from psyne_mesh.webrtc.dtls.record12 import take_over
from psyne_mesh.webrtc.dtls.records import ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE
from tests.dtls.pair import CLIENT, SERVER, WAYS, Pair, PlainPeer

pytestmark = pytest.mark.parametrize("way", WAYS)
NOW = 10.0


def record(content_type: int, body: bytes, epoch: int = 0, number: int = 99, version: int = 0xFEFD) -> bytes:
    head = bytes([content_type]) + version.to_bytes(2, "big") + epoch.to_bytes(2, "big") + number.to_bytes(6, "big")
    return head + len(body).to_bytes(2, "big") + body


def assert_untouched(pair: Pair) -> None:
    pair.packets = {"client": [], "server": []}
    pair.send("client", b"still")
    pair.send("server", b"here")
    pair.run()
    assert pair.packets == {"server": [b"still"], "client": [b"here"]}
    assert len(pair.events["client"]) == len(pair.events["server"]) == 1


def test_packets_of_every_size(way: str) -> None:
    pair = Pair(way=way).connect()
    for size in (1, 2, 100, 1191, 1200, 4095, 4096, 9000, 16383, 16384):
        packet = random.Random(size).randbytes(size)
        [datagram] = pair.client.send([packet])
        assert len(datagram) == size + pair.client.overhead == size + 37
        assert pair.server.receive(datagram, NOW) == [packet]
    for size in (0, 16385):
        with pytest.raises(MessageTooLarge if size else LocalError):
            pair.client.send([bytes(size)])
    assert_untouched(pair)


def test_each_packet_makes_one_datagram_in_order(way: str) -> None:
    pair = Pair(way=way).connect()
    packets = [b"%d" % k * (k + 1) for k in range(200)]
    datagrams = pair.client.send(packets)
    assert [pair.server.receive(datagram, NOW) for datagram in datagrams] == [[packet] for packet in packets]
    assert pair.client.stats.records_sent == pair.server.stats.records_received == 200
    assert pair.client.send([]) == []


def test_a_memoryview_is_as_good_as_bytes(way: str) -> None:
    pair = Pair(way=way).connect()
    [datagram] = pair.client.send([b"hello"])
    assert pair.server.receive(memoryview(bytearray(datagram)), NOW) == [b"hello"]


def test_several_records_in_one_datagram(way: str) -> None:
    pair = Pair(way=way).connect()
    datagram = b"".join(pair.client.send([b"one", b"two", b"three"]))
    assert pair.server.receive(datagram, NOW) == [b"one", b"two", b"three"]
    good = b"".join(pair.client.send([b"four", b"five"]))
    assert pair.server.receive(good + b"\x17\xfe\xfd rubbish", NOW) == [b"four", b"five"]
    assert pair.server.stats.records_dropped == 1


def test_replayed_and_reordered_records(way: str) -> None:
    pair = Pair(way=way).connect()
    datagrams = pair.client.send([b"%d" % k for k in range(60)])
    order = list(range(60)) * 3
    random.Random(1).shuffle(order)
    seen = [packet for k in order for packet in pair.server.receive(datagrams[k], NOW)]
    assert sorted(seen) == sorted(b"%d" % k for k in range(60))
    assert pair.server.stats.records_dropped == 120
    assert_untouched(pair)


def test_a_record_that_is_too_old_is_dropped(way: str) -> None:
    pair = Pair(way=way).connect()
    old, *datagrams = pair.client.send([b"x"] * 1000)
    assert pair.server.receive(datagrams[-1], NOW) == [b"x"]
    assert pair.server.receive(old, NOW) == []
    assert pair.server.receive(datagrams[-2], NOW) == [b"x"]


def test_a_changed_bit_anywhere_drops_the_record(way: str) -> None:
    pair = Pair(way=way).connect()
    pair.send("client", b"this ends the server's duty to repeat its last flight")
    pair.run()
    [datagram] = pair.client.send([b"hello"])
    for position in range(len(datagram) * 8):
        changed = bytearray(datagram)
        changed[position // 8] ^= 1 << position % 8
        assert pair.server.receive(bytes(changed), NOW) == []
    for end in range(len(datagram)):
        assert pair.server.receive(datagram[:end], NOW) == []
    assert pair.server.receive(datagram, NOW) == [b"hello"]
    assert pair.server.datagrams_to_send(NOW) == []
    assert_untouched(pair)


def test_a_forged_record_far_ahead_does_not_move_the_window(way: str) -> None:
    pair = Pair(way=way).connect()
    forged = record(APPLICATION_DATA, bytes(40), epoch=1, number=2**48 - 1)
    assert pair.server.receive(forged, NOW) == []
    assert_untouched(pair)


@pytest.mark.parametrize("side", ["client", "server"])
def test_garbage_and_forgeries(way: str, side: str) -> None:
    pair = Pair(way=way).connect()
    session = pair.side(side)
    rng = random.Random(2)
    forgeries = [
        b"",
        b"\0",
        rng.randbytes(1200),
        rng.randbytes(60_000),
        record(ALERT, b"\2\50"),  # fatal handshake_failure
        record(ALERT, b"\1\0"),  # close_notify
        record(ALERT, b"\2\0", epoch=0, version=0xFEFF),
        record(ALERT, b"\1\0", epoch=1),
        record(ALERT, rng.randbytes(26), epoch=1),
        record(ALERT, b""),
        record(CHANGE_CIPHER_SPEC, b"\1"),
        record(CHANGE_CIPHER_SPEC, b"\1", epoch=1),
        record(APPLICATION_DATA, b"plaintext"),
        record(APPLICATION_DATA, rng.randbytes(60), epoch=1),
        record(APPLICATION_DATA, rng.randbytes(60), epoch=2),
        record(APPLICATION_DATA, b"", epoch=1),
        record(APPLICATION_DATA, rng.randbytes(24), epoch=1),
        record(APPLICATION_DATA, rng.randbytes(16384 + 256), epoch=1),
        record(APPLICATION_DATA, rng.randbytes(16384 + 257), epoch=1),
        record(APPLICATION_DATA, rng.randbytes(60_000), epoch=1),
        record(HANDSHAKE, b"\0" * 12),  # HelloRequest
        record(HANDSHAKE, rng.randbytes(100), epoch=1),
        record(24, rng.randbytes(100), epoch=1),
        record(25, rng.randbytes(100), epoch=1),
        record(APPLICATION_DATA, rng.randbytes(60), epoch=1, version=0x0303),
        *(datagram for sender, datagram in pair.sent if sender != side),  # its own handshake, replayed
        *(datagram for sender, datagram in pair.sent if sender == side),  # ours, reflected
    ]
    for forgery in forgeries * 2:
        assert session.receive(forgery, NOW) == []
    assert all(len(datagram) < 100 for datagram in session.datagrams_to_send(NOW))  # the last flight at most
    assert session.stats.records_dropped >= 30
    assert_untouched(pair)


@pytest.mark.parametrize("first", ["client", "server"])
def test_close_is_told_to_the_peer(way: str, first: str) -> None:
    pair = Pair(way=way).connect()
    second = "server" if first == "client" else "client"
    pair.send(first, b"last words")
    pair.side(first).close(pair.now)
    pair.side(first).close(pair.now)
    pair.run()
    assert pair.packets[second] == [b"last words"]
    assert pair.events[first][1:] == [Closed(by_peer=False)]
    assert pair.events[second][1:] == [Closed(by_peer=True)]
    for name in (first, second):
        assert pair.side(name).state == "closed"
        assert pair.side(name).send([b"x"]) == []
        assert pair.side(name).next_timeout() is None
        assert pair.side(name).datagrams_to_send(NOW) == []


def test_close_from_both_sides_at_once(way: str) -> None:
    pair = Pair(way=way).connect()
    pair.client.close(pair.now)
    pair.server.close(pair.now)
    pair.run()
    assert pair.events["client"][1:] == pair.events["server"][1:] == [Closed(by_peer=False)]


def test_nothing_comes_up_after_close(way: str) -> None:
    pair = Pair(way=way).connect()
    late = pair.server.send([b"late"])
    pair.client.close(pair.now)
    assert pair.client.receive(late[0], NOW) == []
    assert pair.client.stats.records_dropped == 1


def test_close_during_the_handshake(way: str) -> None:
    pair = Pair(way=way)
    pair.client.start(0.0)
    pair.client.close(0.0)
    assert pair.client.take_events() == [Closed(by_peer=False)]
    assert pair.client.next_timeout() is None
    pair.client.handle_timeout(100.0)


def test_a_replayed_close_notify_of_another_session_changes_nothing(way: str) -> None:
    other = Pair(way=way).connect()
    other.client.close(0.0)
    [goodbye] = other.client.datagrams_to_send(0.0)
    pair = Pair(way=way).connect()
    assert pair.server.receive(goodbye, NOW) == []
    assert_untouched(pair)


@pytest.mark.parametrize("is_client", [True, False])
def test_plain_openssl_at_the_other_end(way: str, is_client: bool) -> None:
    session = Pair(
        way=way,
        client={"certificate": CLIENT, "remote_fingerprints": [SERVER.fingerprint]},
        server={"certificate": SERVER, "remote_fingerprints": [CLIENT.fingerprint]},
    ).side("client" if is_client else "server")
    peer = PlainPeer(SERVER if is_client else CLIENT, is_client=not is_client)
    session.start(0.0)
    peer.exchange(session)
    assert session.state == "established"
    for size in (1, 100, 1191, 5000, 16384):
        packet = random.Random(size).randbytes(size)
        assert session.receive(peer.send(packet), NOW) == [packet]
        [datagram] = session.send([packet])
        assert peer.receive(datagram) == packet
        assert peer.receive(datagram) is None  # a replay
    peer.connection.shutdown()
    session.receive(peer.read_output(), NOW)
    assert session.take_events()[-1] == Closed(by_peer=True)
    [goodbye] = session.datagrams_to_send(NOW)
    with pytest.raises(SSL.ZeroReturnError):
        peer.receive(goodbye)


def test_a_peer_that_wears_out_openssl_ends_the_session_only(way: str) -> None:
    """It gives up over five warnings in a row, authentic ones. Our own records bear them. Nothing is raised."""
    session = Pair(way=way, server={"certificate": SERVER, "remote_fingerprints": [CLIENT.fingerprint]}).server
    peer = PlainPeer(CLIENT, is_client=True)
    peer.exchange(session)
    ours = take_over(peer.connection, is_client=True, last_sealed=peer.last_sealed)
    assert ours is not None
    for content_type, body in [*[(APPLICATION_DATA, b"")] * 40, *[(ALERT, b"\1\132")] * 10]:
        assert session.receive(ours.seal_one(content_type, body), NOW) == []
    if session.state == "failed":
        assert session.send([b"x"]) == []
        assert isinstance(session.take_events()[-1], Failed)
    else:
        assert peer.receive(session.send([b"x"])[0]) == b"x"


def test_a_close_notify_of_ours_is_understood_by_openssl(way: str) -> None:
    session = Pair(way=way, server={"certificate": SERVER, "remote_fingerprints": [CLIENT.fingerprint]}).server
    peer = PlainPeer(CLIENT, is_client=True)
    peer.exchange(session)
    session.close(NOW)
    [goodbye] = session.datagrams_to_send(NOW)
    with pytest.raises(SSL.ZeroReturnError):
        peer.receive(goodbye)


def test_renegotiation_is_ignored(way: str) -> None:
    session = Pair(way=way, server={"certificate": SERVER, "remote_fingerprints": [CLIENT.fingerprint]}).server
    peer = PlainPeer(CLIENT, is_client=True)
    peer.exchange(session)
    assert session.receive(peer.send(b"before"), NOW) == [b"before"]
    assert peer.connection.renegotiate()
    peer.shake()
    assert session.receive(peer.read_output(), NOW) == []
    assert session.state == "established"
    assert not any(isinstance(event, Failed | Closed) for event in session.take_events())
