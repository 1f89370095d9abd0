"""Two whole stacks, DTLS and all, against each other in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import (
    ClosedError,
    FingerprintMismatch,
    InvalidConfig,
    MessageTooLarge,
    PeerGone,
    ProtocolError,
    WouldBlock,
)
from psyne_mesh.webrtc.channel import ChannelClosed, MessageReceived
from psyne_mesh.webrtc.stack import StackClosed, StackConfig
from tests.webrtc.pair import CERTIFICATES, Pair, Side

ONE_WAY_S = 0.01


# ----------------------------------------------------------------------------------------------------------- connecting


def test_the_story_of_a_connection() -> None:
    pair = Pair(delay_s=ONE_WAY_S)
    pair.client.stack.create_channel(DataChannelConfig(label="a"), pair.now)
    took_s = pair.run_until(lambda: bool(pair.server.channels and pair.client.channels))
    assert pair.client.kinds() == pair.server.kinds() == ["DtlsConnected", "SctpConnected", "ChannelOpened"]
    assert took_s == pytest.approx(
        6 * ONE_WAY_S
    )  # DTLS 1.3 takes 3 one-way trips, but 2 for the client, which begins SCTP
    assert pair.client.stack.stats().dtls.version == "DTLSv1.3"


def test_the_channels_of_the_dtls_server_are_there_as_soon() -> None:
    """The offerer is usually the DTLS server, and its OPEN travels beside the COOKIE-ECHO."""
    pair = Pair(delay_s=ONE_WAY_S, start=False)
    pair.server.stack.create_channel(DataChannelConfig(label="a"), pair.now)
    pair.start()
    assert pair.run_until(lambda: bool(pair.client.channels)) == pytest.approx(6 * ONE_WAY_S)


def test_channels_created_at_any_moment_get_the_ids_of_their_side() -> None:
    pair = Pair(start=False)
    early = pair.client.stack.create_channel(DataChannelConfig(), pair.now)
    assert early.id is None
    pair.start()
    middle = pair.client.stack.create_channel(DataChannelConfig(), pair.now)
    pair.connect()
    late = pair.client.stack.create_channel(DataChannelConfig(), pair.now)
    theirs = pair.server.stack.create_channel(DataChannelConfig(), pair.now)
    assert [early.id, middle.id, late.id, theirs.id] == [0, 2, 4, 1]


def test_what_arrives_before_the_start_is_kept() -> None:
    """The ClientHello may come before our own nomination: losing it costs a second."""
    pair = Pair(start=False)
    pair.client.stack.start(
        is_client=True,
        remote_fingerprints=[CERTIFICATES[1].fingerprint],
        remote_max_message_size=0,
        now=pair.now,
    )
    pair.settle(pair.client)
    pair.run(0.05)
    pair.server.stack.start(
        is_client=False,
        remote_fingerprints=[CERTIFICATES[0].fingerprint],
        remote_max_message_size=0,
        now=pair.now,
    )
    pair.settle(pair.server)
    pair.run_until(lambda: pair.client.stack.phase == "connected", within_s=0.1)


@pytest.mark.parametrize("from_client", [True, False], ids=["from the client", "from the server"])
@pytest.mark.parametrize("lost", range(8))
def test_any_one_datagram_of_the_handshake_may_be_lost(lost: int, from_client: bool) -> None:
    """The Finished that nobody repeats unless the timer runs on after the handshake; INIT; COOKIE-ACK: §6 9."""
    pair = Pair(drop=lambda client, number, _: client == from_client and number == lost)
    pair.client.stack.create_channel(DataChannelConfig(label="a"), pair.now)
    took_s = pair.run_until(lambda: bool(pair.server.channels and pair.client.channels), within_s=3.0)
    assert took_s < 1.6
    pair.send(pair.client, pair.client.channel("a"), "through")
    pair.run_until(lambda: pair.server.messages() == ["through"])


@pytest.mark.parametrize("seed", range(20))
def test_a_connection_comes_up_through_30_percent_loss(seed: int) -> None:
    pair = Pair(seed, loss=0.3, duplicate=0.1, jitter_s=0.02).connect()
    pair.open()


def test_a_certificate_that_was_not_signaled_ends_it() -> None:
    pair = Pair(start=False)
    for side, is_client in ((pair.server, False), (pair.client, True)):
        side.stack.start(
            is_client=is_client,
            remote_fingerprints=[CERTIFICATES[0].fingerprint],  # right for the server, wrong for the client
            remote_max_message_size=0,
            now=pair.now,
        )
        pair.settle(side)
    pair.run_until(lambda: bool(pair.client.events) and bool(pair.server.events))
    closed = pair.client.events[-1]
    assert isinstance(closed, StackClosed)
    assert isinstance(closed.error, FingerprintMismatch)
    assert pair.client.kinds() == ["StackClosed"]


def test_a_peer_that_falls_silent_is_given_up() -> None:
    pair = Pair().connect()
    pair.open()
    pair.drop = lambda *_: True
    pair.send(pair.client, pair.client.channel("game"), "anybody?")
    pair.run_until(lambda: pair.client.stack.phase == "closed", within_s=600)
    assert pair.client.kinds()[-2:] == ["ChannelClosed", "StackClosed"]
    closed = pair.client.events[-1]
    assert isinstance(closed, StackClosed)
    assert isinstance(closed.error, PeerGone)


@pytest.mark.parametrize("leaver", ["client", "server"])
def test_closing_tells_the_peer_at_once(leaver: str) -> None:
    pair = Pair().connect()
    pair.open()
    one, other = (pair.client, pair.server) if leaver == "client" else (pair.server, pair.client)
    one.stack.close(pair.now)
    one.stack.close(pair.now)
    pair.settle(one)
    pair.run_until(lambda: other.stack.phase == "closed", within_s=0.1)
    (mine,) = [event for event in one.events if isinstance(event, StackClosed)]
    (theirs,) = [event for event in other.events if isinstance(event, StackClosed)]
    assert isinstance(mine.error, ClosedError)
    assert not mine.by_peer
    assert isinstance(theirs.error, PeerGone)
    assert theirs.by_peer
    assert one.closed() == other.closed() == ["game"]
    assert pair.client.stack.next_timeout() is pair.server.stack.next_timeout() is None
    with pytest.raises(ClosedError):
        one.stack.send(one.channel("game"), "x", pair.now)
    with pytest.raises(ClosedError):
        one.stack.create_channel(DataChannelConfig(), pair.now)


def test_a_stack_is_started_once() -> None:
    pair = Pair()
    with pytest.raises(ClosedError):
        pair.start()


# ------------------------------------------------------------------------------------------------------------- messages


def test_messages_of_every_kind_and_size_arrive_as_they_were() -> None:
    pair = Pair().connect()
    channel, back = pair.open()
    dice = random.Random(1)
    messages = ["", b"", "x", b"\0", "héllo ☃", *(dice.randbytes(n) for n in (1, 1163, 1200, 65_536, 262_144))]
    for message in messages:
        pair.send(pair.client, channel, message)
        pair.send(pair.server, back, message)
    pair.run_until(lambda: len(pair.server.messages()) == len(pair.client.messages()) == len(messages))
    assert pair.server.messages() == pair.client.messages() == messages


@pytest.mark.parametrize("seed", range(100))
def test_a_reliable_channel_is_reliable_and_ordered_on_a_bad_path(seed: int) -> None:
    pair = Pair(seed, loss=0.1, duplicate=0.05, jitter_s=0.02).connect()
    channel, back = pair.open()
    dice = random.Random(seed)
    there = [dice.randbytes(dice.choice((1, 50, 1200, 5000))) for _ in range(40)]
    home = [f"{n}" * dice.randrange(1, 40) for n in range(40)]
    for one, two in zip(there, home):
        pair.send(pair.client, channel, one)
        pair.send(pair.server, back, two)
        pair.run(0.005)
    pair.run_until(lambda: len(pair.server.messages()) >= 40 and len(pair.client.messages()) >= 40)
    assert pair.server.messages() == there
    assert pair.client.messages() == home


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("limit", [{"max_retransmits": 0}, {"max_packet_life_time_ms": 30}])
def test_lossy_channels_lose_whole_messages_and_never_hang(ordered: bool, limit: dict[str, int]) -> None:
    """Messages in fragments, half of them given up: §6 7 and 8."""
    pair = Pair(3, loss=0.1, jitter_s=0.005, mtu=1280).connect()
    channel, _ = pair.open(ordered=ordered, **limit)
    sent = [bytes([n]) * 5000 for n in range(100)]
    for message in sent:
        pair.send(pair.client, channel, message)
        pair.run(0.02)
    pair.run(10)
    got = pair.server.messages()
    assert 20 <= len(got) < 100
    assert all(message in sent for message in got)
    if ordered:
        assert got == sorted(got)
    reliable, _ = pair.open(label="after")
    pair.send(pair.client, reliable, b"x" * 100_000)
    pair.run_until(lambda: len(pair.server.messages("after")) == 1)
    assert pair.server.stack.stats().sctp.a_rwnd_local_bytes == StackConfig().receive_window_bytes


def test_the_peers_message_size_limits_ours() -> None:
    small = attrs.evolve(StackConfig(), max_message_size=1000)
    pair = Pair(server_config=small).connect()
    channel, back = pair.open()
    assert pair.client.stack.max_message_size == 1000
    assert pair.server.stack.max_message_size == 1000
    with pytest.raises(MessageTooLarge):
        pair.client.stack.send(channel, b"x" * 1001, pair.now)
    pair.send(pair.client, channel, b"x" * 1000)
    pair.run_until(lambda: len(pair.server.messages()) == 1)
    assert back.messages_received == channel.messages_sent == 1


def test_a_channel_that_is_not_open_takes_nothing() -> None:
    pair = Pair()
    channel = pair.client.stack.create_channel(DataChannelConfig(), pair.now)
    with pytest.raises(WouldBlock):
        pair.client.stack.send(channel, "x", pair.now)


@pytest.mark.parametrize("mtu", [1280 - 48, 1472, 9000, 65_507])
def test_no_datagram_vanishes_for_long_on_a_path_with_a_smaller_mtu(mtu: int) -> None:
    """WireGuard's 1280 (§6 11), Ethernet, jumbo frames, loopback: probes find the size, messages never wait for one."""
    pair = Pair(mtu=mtu).connect()
    channel, _ = pair.open()
    for _ in range(20):
        pair.send(pair.client, channel, b"x" * 100_000)
    pair.run_until(lambda: len(pair.server.messages()) == 20, within_s=10)
    stats = pair.client.stack.stats().sctp
    assert stats.path_mtu + 37 <= mtu
    assert stats.path_mtu >= min(16_384, 0.75 * mtu - 37)
    assert stats.timeouts == 0


@pytest.mark.parametrize("announced", [0, 1400, 9000])
def test_no_datagram_is_larger_than_the_peer_says_it_takes(announced: int) -> None:
    """A record over 1500 bytes jams aiortc for good, a probe ends werift: a peer that says nothing gets neither."""
    pair = Pair(announced=announced).connect()
    channel, _ = pair.open()
    for _ in range(5):
        pair.send(pair.client, channel, b"x" * 200_000)
    pair.run_until(lambda: len(pair.server.messages()) == 5)
    assert 1205 <= max(pair.sizes) <= (announced or 1228)  # a base packet of 1191 bytes in a record of 1.3


def test_negotiated_channels_work_without_a_word() -> None:
    pair = Pair().connect()
    config = DataChannelConfig(label="n", negotiated=True, id=100)
    ours = pair.client.stack.create_channel(config, pair.now)
    pair.send(pair.client, ours, "before you were there")
    pair.run(1.0)
    theirs = pair.server.stack.create_channel(config, pair.now)
    pair.settle(pair.server)
    assert pair.server.messages() == ["before you were there"]
    pair.send(pair.server, theirs, b"back")
    pair.run_until(lambda: pair.client.messages() == [b"back"])
    with pytest.raises(InvalidConfig):
        pair.client.stack.create_channel(config, pair.now)


def test_a_receiver_that_does_not_read_stops_the_sender() -> None:
    window = 256 * 1024
    pair = Pair(server_config=attrs.evolve(StackConfig(), receive_window_bytes=window)).connect()
    channel, _ = pair.open()
    unread = 0

    def pile_up(event: object) -> None:
        nonlocal unread
        if isinstance(event, MessageReceived):
            unread += len(event.data)
            pair.server.stack.set_unread(unread, pair.now)

    pair.server.on_event = pile_up
    for _ in range(100):
        pair.send(pair.client, channel, b"x" * 10_000)
    pair.run(30)
    assert window // 2 < unread <= window + 65_536
    stats = pair.client.stack.stats()
    assert stats.buffered_bytes > 500_000
    assert stats.phase == "connected"
    pair.server.on_event = lambda _: None
    pair.server.stack.set_unread(0, pair.now)
    pair.settle(pair.server)
    pair.run_until(lambda: len(pair.server.messages()) == 100, within_s=5)


def test_bulk_does_not_delay_a_small_message() -> None:
    """libdatachannel#1602: both ways of losing: behind the queue, and behind a half-sent large message."""
    pair = Pair(delay_s=0.02, mtu=1280, rate=5e6, queue_s=0.05).connect()
    bulk, _ = pair.open(label="bulk", priority=128)
    ping, _ = pair.open(label="ping", priority=1024)
    for _ in range(60):
        pair.send(pair.client, bulk, b"x" * 262_144)
    pair.run(0.5)
    sent_at = pair.now
    pair.send(pair.client, ping, "ping")
    pair.run_until(lambda: pair.server.messages("ping") == ["ping"])
    assert len(pair.server.messages("bulk")) < 60
    assert pair.now - sent_at < 0.15  # 20 ms of path, up to 50 ms of the link's own queue, and a loss repaired at most


def test_the_low_water_mark_is_told_when_asked_for() -> None:
    pair = Pair().connect()
    channel, _ = pair.open()
    pair.send(pair.client, channel, b"x" * 200_000)
    pair.run(1.0)
    assert "BufferedAmountLow" not in pair.client.kinds()
    pair.client.stack.set_buffered_amount_low_threshold(channel, 50_000)
    for _ in range(5):
        pair.send(pair.client, channel, b"x" * 200_000)
    assert pair.client.stack.channel_buffered_amount(channel) > 50_000
    pair.run(1.0)
    assert pair.client.kinds().count("BufferedAmountLow") == 1
    assert pair.client.stack.is_drained


# -------------------------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("closer", ["client", "server", "both"])
@pytest.mark.parametrize("seed", range(10))
def test_closing_delivers_what_was_sent_and_frees_the_id(closer: str, seed: int) -> None:
    """§6 4, 5 and 6: answered within a round trip, no id too early, no old byte on the new channel, under loss."""
    pair = Pair(seed, loss=0.1 if seed else 0.0, jitter_s=0.01 if seed else 0.0, mtu=1280).connect()
    for generation in range(4):
        label = f"g{generation}"
        ours, theirs = pair.open(label=label)
        assert ours.id == 0
        messages = [f"{label}:{n}" * 200 for n in range(20)]
        for message in messages:
            pair.send(pair.client, ours, message)
        if closer != "server":
            pair.client.stack.close_channel(ours, pair.now)
            pair.settle(pair.client)
        if closer != "client":
            pair.run_until(lambda: len(pair.server.messages(label)) == 20)  # noqa: B023 - called in this round only
            pair.server.stack.close_channel(theirs, pair.now)
            pair.settle(pair.server)
        pair.run_until(lambda: label in pair.client.closed() and label in pair.server.closed())  # noqa: B023
        assert pair.server.messages(label) == messages
    assert pair.server.closed() == pair.client.closed() == ["g0", "g1", "g2", "g3"]
    assert not any(event.reason for event in pair.client.events if isinstance(event, ChannelClosed))
    assert pair.client.stack.stats().channels == ()


def test_a_close_by_the_peer_is_answered_within_a_round_trip() -> None:
    pair = Pair(delay_s=ONE_WAY_S).connect()
    ours, _ = pair.open()
    pair.run(1.0)
    pair.client.stack.close_channel(ours, pair.now)
    pair.settle(pair.client)
    assert pair.run_until(lambda: pair.client.closed() == ["game"]) <= 2.01 * ONE_WAY_S


def test_opening_and_closing_in_one_breath() -> None:
    pair = Pair().connect()
    channel = pair.client.stack.create_channel(DataChannelConfig(label="brief"), pair.now)
    pair.client.stack.send(channel, "hello and goodbye", pair.now)
    pair.client.stack.close_channel(channel, pair.now)
    pair.settle(pair.client)
    pair.run_until(lambda: pair.client.closed() == pair.server.closed() == ["brief"])
    assert pair.server.messages() == ["hello and goodbye"]


def test_many_channels_come_and_go_without_leaving_anything() -> None:
    pair = Pair(5, loss=0.05, jitter_s=0.01).connect()
    for n in range(30):
        side = (pair.client, pair.server)[n % 2]
        side.stack.create_channel(DataChannelConfig(label=str(n)), pair.now)
        pair.settle(side)
        pair.run(0.02)
        for channel in [c for c in side.channels if c.state == "open"][:1]:
            side.stack.close_channel(channel, pair.now)
            pair.settle(side)
    pair.run(5)
    for side in (pair.client, pair.server):
        for channel in [c for c in side.channels if c.state == "open"]:
            side.stack.close_channel(channel, pair.now)
        pair.settle(side)
    pair.run(5)
    for side in (pair.client, pair.server):
        assert side.stack.stats().channels == ()
        assert sorted(side.closed(), key=int) == [str(n) for n in range(30)]
        assert side.stack.stats().sctp.a_rwnd_local_bytes == StackConfig().receive_window_bytes


# -------------------------------------------------------------------------------------------------------------- hostile


def _unconnected() -> Side:
    return Pair(start=False).client


def _handshaking() -> Side:
    pair = Pair()
    pair.run(0.015)
    return pair.client


_CONNECTED = Pair(9).connect()
_CONNECTED.open()


@pytest.mark.parametrize("make", [_unconnected, _handshaking, lambda: _CONNECTED.client])
@settings(max_examples=40)
@given(datagrams=st.lists(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b"\x17\xfe\xfd" + b)))
def test_any_bytes_from_anybody_are_dropped(make: Callable[[], Side], datagrams: list[bytes]) -> None:
    side = make()
    phase = side.stack.phase
    side.stack.receive(datagrams, 2000.0)
    side.stack.datagrams_to_send(2000.0)
    assert side.stack.phase == phase
    assert not side.stack.take_events()


@settings(max_examples=40)
@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1), st.booleans())
def test_any_bytes_from_the_authenticated_peer_hurt_only_this_connection(packets: list[bytes], framed: bool) -> None:
    """A peer with the right certificate may still write any SCTP it likes."""
    pair = Pair(11).connect()
    pair.open()
    session = pair.server.stack._dtls
    assert session is not None
    if framed:  # right ports and tag, so that the chunks are looked at
        association = pair.server.stack._association
        packets = [association._header + bytes(4) + packet for packet in packets]
    pair.client.stack.receive(session.send(packets), pair.now)
    pair.settle(pair.client)
    pair.run(1)
    assert pair.client.stack.phase in ("connected", "closed")


def test_after_the_handshake_plaintext_alerts_are_not_believed() -> None:
    pair = Pair().connect()
    pair.client.stack.receive([bytes.fromhex("15fefd00000000000000090002") + b"\x02\x28"], pair.now)
    assert pair.client.stack.phase == "connected"


def test_errors_know_whose_they_are() -> None:
    assert issubclass(FingerprintMismatch, Exception)
    assert not issubclass(ProtocolError, ClosedError)


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("server", [True, False])
def test_records_made_here_and_by_openssl_go_together(client: bool, server: bool) -> None:
    pair = Pair(
        config=StackConfig(dtls_fast_records=client), server_config=StackConfig(dtls_fast_records=server), loss=0.1
    ).connect()
    ours, theirs = pair.open()
    packets = [bytes([size % 251]) * size for size in (1, 1400, 20_000, 100_000)]
    for packet in packets:
        pair.send(pair.client, ours, packet)
        pair.send(pair.server, theirs, packet)
    pair.run_until(lambda: pair.server.messages() == packets and pair.client.messages() == packets)
    pair.client.stack.close(pair.now)
    pair.settle(pair.client)
    pair.run_until(lambda: pair.server.stack.phase == "closed")
