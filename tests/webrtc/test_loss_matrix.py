"""Whole stacks, DTLS and all, over bad paths: what was promised arrives, nothing is too large, nothing is left behind."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from psyne_mesh.webrtc.channel import MessageReceived
from psyne_mesh.webrtc.sctp import SctpConfig
from tests.sctp.link import assert_association_drained
from tests.webrtc.pair import Pair, Side

RECORD_BYTES = 37  # what DTLS 1.2 adds to a packet
RECORD13_BYTES = 22  # and DTLS 1.3
TUNNEL = 1280 - 48  # UDP payload on a path of 1280 bytes over IPv6: the black hole of WireGuard and of mobile networks
HANDSHAKE_BYTES_MAX = 1200
LOSSES = (0.0, 0.05, 0.1, 0.2, 0.3)
ROUND_TRIPS_MS = (20, 100, 300, 800)


class WatchedPair(Pair):
    """Checks every datagram: at most what its sender knows the path to carry, unless it is a probe of the path MTU."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.probes: list[int] = []
        super().__init__(*args, **settings)

    def _transmit(self, side: Side, datagram: bytes) -> None:
        association = side.stack._association
        limit = association.path_mtu + RECORD_BYTES if association.is_established else HANDSHAKE_BYTES_MAX
        if len(datagram) > max(limit, HANDSHAKE_BYTES_MAX):
            config = association._config
            ladder = (*config.packet_bytes_ladder_low, config.packet_bytes_base, *config.packet_bytes_ladder)
            rungs = {size & ~3 for size in (*ladder, config.packet_bytes_max)}
            probed = {len(datagram) - RECORD_BYTES, len(datagram) - RECORD13_BYTES}
            assert probed & rungs, f"{len(datagram)} bytes on a path of {limit}"
            assert len(datagram) <= self.announced
            self.probes.append(len(datagram))
        super()._transmit(side, datagram)


def bad_path(
    loss: float, round_trip_ms: int, *, mtu: int = 65_507, announced: int = 65_507, seed: int = 1
) -> WatchedPair:
    """Datagrams are lost, overtake each other and come twice."""
    return WatchedPair(
        seed,
        loss=loss,
        duplicate=loss / 3,
        delay_s=round_trip_ms / 2000,
        jitter_s=round_trip_ms / 10_000,
        mtu=mtu,
        announced=announced,
    )


def connect(pair: WatchedPair) -> WatchedPair:
    pair.run_until(lambda: pair.client.stack.phase == pair.server.stack.phase == "connected", within_s=120)
    return pair


def assert_nothing_is_left(pair: Pair) -> None:
    for side in (pair.client, pair.server):
        stack = side.stack
        assert stack.phase == "connected", side.events[-1]
        assert_association_drained(stack._association)
        stats = stack.stats()
        assert stack.is_drained
        assert stats.messages_discarded == stats.unread_bytes == stats.buffered_bytes == stats.outstanding_bytes == 0
        assert stats.sctp.a_rwnd_local_bytes == stack.config.receive_window_bytes
        assert not stack._early
        assert stack._channels.early_bytes == 0
        assert stack._dtls is not None
        assert stack._dtls.next_timeout() is None  # the last flight is through


def exchange(pair: Pair, seed: int, count: int) -> None:
    """Reliable messages both ways, ordered and not, with state in between that may be lost."""
    dice = random.Random(seed)
    labels = ("ordered", "loose", "state")
    pair.open(label="ordered")
    pair.open(label="loose", ordered=False)
    pair.open(label="state", ordered=False, max_retransmits=0)
    sides = {"client": pair.client, "server": pair.server}
    sent: dict[tuple[str, str], list[bytes]] = {(name, label): [] for name in sides for label in labels}
    for number in range(count):
        for name, side in sides.items():
            label = dice.choice(labels)
            data = b"%d " % number + dice.randbytes(dice.choice((0, 90, 1200, 5000, 30_000)))
            sent[name, label].append(data)
            pair.send(side, side.channel(label), data)
        pair.run(dice.random() * 0.05)
    for (name, label), messages in sent.items():
        other = pair.server if name == "client" else pair.client
        if label != "state":
            pair.run_until(lambda: len(other.messages(label)) == len(messages), within_s=3600)  # noqa: B023
        if label == "ordered":
            assert other.messages(label) == messages
    pair.run(60)  # state that is given up is told, acknowledgements come home
    for (name, label), messages in sent.items():
        other = pair.server if name == "client" else pair.client
        arrived = other.messages(label)
        assert len(set(arrived)) == len(arrived)
        assert set(arrived) <= set(messages)
        assert label == "state" or len(arrived) == len(messages)


CELLS = pytest.mark.parametrize(
    ("loss", "round_trip_ms"),
    [pytest.param(*cell, id=f"{cell[0]:.0%} {cell[1]} ms") for cell in itertools.product(LOSSES, ROUND_TRIPS_MS)],
)
LENGTHS = pytest.mark.parametrize(
    ("seed", "count"), [(1, 60), *(pytest.param(seed, 300, marks=pytest.mark.slow) for seed in (2, 3, 4))]
)


@CELLS
@LENGTHS
def test_every_reliable_message_arrives_and_nothing_is_left(
    loss: float, round_trip_ms: int, seed: int, count: int
) -> None:
    pair = connect(bad_path(loss, round_trip_ms, seed=seed))
    exchange(pair, seed, count)
    assert_nothing_is_left(pair)


@CELLS
@LENGTHS
def test_the_same_through_a_path_of_1280_bytes(loss: float, round_trip_ms: int, seed: int, count: int) -> None:
    """The peer takes large datagrams, the path does not and does not say so: only probes vanish in it."""
    pair = bad_path(loss, round_trip_ms, mtu=TUNNEL, seed=seed)
    exchange(connect(pair), seed, count)
    assert_nothing_is_left(pair)
    assert [size for size in pair.probes if size > TUNNEL]
    # And those that climb back after losses that looked like a smaller path.
    assert all(size - RECORD13_BYTES == SctpConfig().packet_bytes_base & ~3 for size in pair.probes if size <= TUNNEL)
    for side in (pair.client, pair.server):
        assert side.stack.stats().sctp.path_mtu == SctpConfig().packet_bytes_base


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_peer_that_announces_nothing_gets_no_datagram_over_1280_bytes(loss: float) -> None:
    pair = connect(bad_path(loss, 50, mtu=TUNNEL, announced=0))
    exchange(pair, 1, 40)
    assert_nothing_is_left(pair)
    assert pair.probes == []
    assert max(pair.sizes) <= TUNNEL


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_tunnel_comes_up_in_the_middle(loss: float) -> None:
    """The path carried 16 KiB; from one datagram to the next it carries 1280 bytes."""
    pair = connect(bad_path(loss, 40))
    channel, _ = pair.open()
    pair.run(20)
    assert pair.client.stack.stats().sctp.path_mtu > 1450
    for number in range(20):
        pair.send(pair.client, channel, b"%d" % number + bytes(50_000))
    pair.run(0.03)
    pair.mtu = TUNNEL
    began = pair.now
    pair.run_until(lambda: len(pair.server.messages()) == 20, within_s=60)
    assert pair.now - began < (5.0 if not loss else 30.0)
    pair.run(60)
    assert_nothing_is_left(pair)


@CELLS
def test_state_without_retransmission_is_never_late(loss: float, round_trip_ms: int) -> None:
    """60 messages a second, unordered, never sent twice: a round trip after a gap would do, but none of them waits at
    all, however many are lost."""
    pair = connect(bad_path(loss, round_trip_ms, seed=3))
    channel, _ = pair.open(ordered=False, max_retransmits=0)
    pair.run(10)  # RFC 8832 section 6: until the peer has answered the OPEN, messages go in order
    sent_at: dict[str, float] = {}
    late: list[float] = []

    def arrived(event: object) -> None:
        if isinstance(event, MessageReceived):
            late.append(pair.now - sent_at[str(event.data)])

    pair.server.on_event = arrived
    for number in range(300):
        text = f"{number:04}" + "x" * 40
        sent_at[text] = pair.now
        pair.send(pair.client, channel, text)
        pair.run(1 / 60)
    pair.run(30)
    round_trip = round_trip_ms / 1000
    assert max(late) <= round_trip / 2 + round_trip / 10 + 1e-6  # the way there, with its jitter
    assert len(late) >= 300 * (1 - loss) * 0.8
    assert_nothing_is_left(pair)


# ------------------------------------------------------------------------------------------------------------ handshake

# From either side: two flights of DTLS, then INIT or INIT-ACK, COOKIE-ECHO or COOKIE-ACK, the channel's OPEN
LOST = [{n} for n in range(8)] + [{n, n + 1} for n in range(7)] + [set(range(n)) for n in (3, 5)]


@pytest.mark.parametrize("round_trip_ms", [20, 800])
@pytest.mark.parametrize("lost", LOST, ids=lambda lost: "+".join(map(str, sorted(lost))))
@pytest.mark.parametrize("losers", ["client", "server", "both"])
def test_datagrams_of_the_handshake_are_lost_in_turn(losers: str, lost: set[int], round_trip_ms: int) -> None:
    """One, two in a row, the first few; on one side and on both at once."""

    def drop(from_client: bool, number: int, _: bytes) -> bool:
        return number in lost and losers in ("both", "client" if from_client else "server")

    pair = WatchedPair(delay_s=round_trip_ms / 2000, drop=drop)
    channel, back = pair.open()
    pair.send(pair.client, channel, "there")
    pair.send(pair.server, back, "and back")
    pair.run_until(lambda: pair.server.messages() == ["there"] and pair.client.messages() == ["and back"])
    pair.run(30)
    assert_nothing_is_left(pair)
