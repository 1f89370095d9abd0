"""The rules of RFC 8831 and RFC 8832, one at a time, on a fake association that only writes down what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import ClosedError, InvalidConfig, LocalError, MessageTooLarge, UnserialisableMessage, WouldBlock
from psyne_mesh.webrtc import sctp
from psyne_mesh.webrtc.channel import Channel, ChannelClosed, ChannelOpened, MessageReceived
from psyne_mesh.webrtc.channel_table import ChannelLimits, ChannelTable
from psyne_mesh.webrtc.credit import Credits
from psyne_mesh.webrtc.dcep import ACK, encode_open

STRING, BINARY, DCEP, STRING_EMPTY, BINARY_EMPTY = 51, 53, 50, 56, 57


class FakeAssociation:
    """The real one stands beside it in test_stack.py."""

    def __init__(self, streams: int = 65_535) -> None:
        self.is_established = False
        self.streams = streams
        self.sent: list[tuple[int, int, bytes]] = []
        self.flags: list[dict[str, Any]] = []
        self.resets: list[int] = []
        self.priorities: dict[int, int] = {}
        self.perishable: set[int] = set()
        self.credits: dict[int, int | None] = {}
        self.undelivered: dict[tuple[int, int], int] = {}
        self.aborted = ""
        self.is_full = False

    def send(self, stream_id: int, ppid: int, data: bytes, now: float, **flags: Any) -> None:
        if self.is_full:
            raise WouldBlock("full")
        self.sent.append((stream_id, ppid, data))
        self.flags.append(flags)

    def set_priority(self, stream_id: int, priority: int) -> None:
        if stream_id >= self.streams:
            raise LocalError("no such stream")
        self.priorities[stream_id] = priority

    def set_perishable(self, stream_id: int) -> None:
        self.perishable.add(stream_id)

    def reset_streams(self, stream_ids: Sequence[int], now: float) -> None:
        if max(stream_ids) >= self.streams:
            raise LocalError("no such stream")
        self.resets += stream_ids

    def set_buffered_amount_low_threshold(self, stream_id: int, n: int) -> None:
        pass

    def buffered_amount(self, stream_id: int) -> int:
        return 0

    def set_credit(self, stream_id: int, n_bytes: int | None) -> None:
        self.credits[stream_id] = n_bytes

    def unbegun_cost(self, stream_id: int) -> int:
        return 0

    def abort(self, now: float, reason: str = "") -> None:
        self.aborted = reason


class World:
    """A table on the DTLS client's side; the fake peer is the server and opens odd streams."""

    def __init__(self, *, established: bool = True, streams: int = 65_535, **limits: int) -> None:
        self.association = FakeAssociation(streams)
        self.table = ChannelTable(ChannelLimits(**limits))
        self.table.start(
            self.association,  # type: ignore[arg-type]
            is_dtls_client=True,
            max_message_size=1000,
            credits=Credits(4096, 1000),
        )
        if established:
            self.establish()

    def establish(self) -> None:
        self.association.is_established = True
        self.feed(sctp.Established())

    def feed(self, *events: Any) -> None:
        assert self.table.handle_events(events, 0.0) is None

    def message(self, stream_id: int, ppid: int, data: bytes) -> None:
        self.feed(sctp.MessageReceived(stream_id, ppid, data, False))

    def create(self, **settings: Any) -> Channel:
        return self.table.create(DataChannelConfig(**settings), 0.0)

    def peer_opens(self, stream_id: int = 1, **settings: Any) -> Channel:
        self.message(stream_id, DCEP, encode_open(DataChannelConfig(**settings)))
        (opened,) = self.table.take_events()
        assert isinstance(opened, ChannelOpened)
        return opened.channel

    def received(self) -> list[str | bytes]:
        return [event.data for event in self.table.take_events() if isinstance(event, MessageReceived)]


# -------------------------------------------------------------------------------------------------------------- opening


def test_ids_follow_the_dtls_role_and_fill_the_gaps() -> None:
    world = World()
    assert [world.create().id for _ in range(3)] == [0, 2, 4]
    world.create(negotiated=True, id=6)
    assert world.create().id == 8
    server = ChannelTable(ChannelLimits())
    early = server.create(DataChannelConfig(), 0.0)
    assert early.id is None
    server.start(FakeAssociation(), is_dtls_client=False, max_message_size=1)  # type: ignore[arg-type]
    assert early.id == 1


def test_channels_open_when_the_association_stands() -> None:
    world = World(established=False)
    channel = world.create(label="a", priority=512)
    with pytest.raises(WouldBlock):
        world.table.send(channel, "x", 0.0)
    world.establish()
    assert world.table.take_events() == [ChannelOpened(channel, by_peer=False)]
    assert world.association.sent == [(0, DCEP, encode_open(channel.config))]
    assert world.association.priorities == {0: 512}


def test_the_announcement_may_go_before_the_association_stands() -> None:
    world = World(established=False)
    first, second = world.create(label="first"), world.create(label="second")
    world.create(negotiated=True, id=7)
    world.table.announce(0.0)
    opens = [(0, DCEP, encode_open(first.config)), (2, DCEP, encode_open(second.config))]
    assert world.association.sent == opens
    world.table.close(second, 0.0)
    assert world.association.resets == [2]
    world.establish()
    assert world.association.sent == opens
    assert [type(event).__name__ for event in world.table.take_events()] == ["ChannelOpened", "ChannelOpened"]
    world.feed(sctp.StreamsReset((2,)), sctp.StreamsResetByPeer((2,)))
    assert world.table.take_events() == [ChannelClosed(second, False, "")]


def test_a_channel_of_the_peer_is_acknowledged_and_announced() -> None:
    world = World()
    channel = world.peer_opens(1, label="theirs", ordered=False, max_retransmits=0)
    assert (channel.label, channel.state, channel.id) == ("theirs", "open", 1)
    assert world.association.sent == [(1, DCEP, ACK)]
    world.peer_opens(3, label="another", max_retransmits=1)
    assert world.association.perishable == {1}


def test_negotiated_channels_say_nothing() -> None:
    world = World()
    channel = world.create(negotiated=True, id=7)
    assert world.association.sent == []
    assert world.table.take_events() == [ChannelOpened(channel, by_peer=False)]
    with pytest.raises(InvalidConfig):
        world.create(negotiated=True, id=7)


def test_user_data_goes_ordered_until_something_came_back() -> None:
    """RFC 8832 section 6; werift#591."""
    world = World()
    channel = world.create(ordered=False, max_packet_life_time_ms=250)
    world.table.send(channel, "first", 0.0)
    world.message(0, DCEP, ACK)
    world.table.send(channel, "second", 0.0)
    assert [flags["unordered"] for flags in world.association.flags[1:]] == [False, True]
    assert world.association.flags[1]["life_time"] == 0.25
    other = world.create(ordered=False)
    world.message(2, STRING, b"data confirms as well")
    world.table.send(other, "x", 0.0)
    assert world.association.flags[-1]["unordered"]


@pytest.mark.parametrize(
    ("stream_id", "message"),
    [(2, encode_open(DataChannelConfig())), (1, b"\x03junk"), (1, b"\x09"), (1, b"")],
    ids=["our parity", "malformed", "unknown type", "empty"],
)
def test_an_open_that_breaks_a_rule_is_reset_without_ack(stream_id: int, message: bytes) -> None:
    world = World()
    world.message(stream_id, DCEP, message)
    assert world.association.resets == [stream_id]
    assert world.association.sent == []
    assert world.table.take_events() == []


def test_an_open_on_a_stream_in_use_closes_the_channel_there() -> None:
    """str0m#873."""
    world = World()
    channel = world.create(negotiated=True, id=1)
    world.table.take_events()
    world.message(1, DCEP, encode_open(DataChannelConfig(label="intruder")))
    assert channel.state == "closing"
    assert world.association.resets == [1]


def test_streams_that_the_association_does_not_have() -> None:
    world = World(established=False, streams=4)
    far = world.create(negotiated=True, id=9)
    world.establish()
    (closed,) = world.table.take_events()
    assert isinstance(closed, ChannelClosed)
    assert closed.channel is far
    with pytest.raises(LocalError):
        world.create(negotiated=True, id=9)
    world.message(5, DCEP, encode_open(DataChannelConfig()))
    assert world.table.take_events() == []


def test_an_ack_that_finds_no_room_is_forgone() -> None:
    world = World()
    world.association.is_full = True
    assert world.peer_opens(1).state == "open"


def test_the_peer_cannot_open_channels_without_end() -> None:
    world = World(peer_channels_max=4, channels_max=2)
    for stream_id in range(1, 20, 2):
        world.message(stream_id, DCEP, encode_open(DataChannelConfig()))
        assert bool(world.association.aborted) == (stream_id >= 15)
    assert len([event for event in world.table.take_events() if isinstance(event, ChannelOpened)]) == 4


def test_the_peer_cannot_make_us_keep_long_labels_without_end() -> None:
    world = World(peer_words_bytes_max=100)
    for stream_id, label in ((1, 60 * "a"), (3, 60 * "b"), (5, 40 * "c"), (7, "d")):
        world.message(stream_id, DCEP, encode_open(DataChannelConfig(label=label)))
    opened = [event.channel.id for event in world.table.take_events() if isinstance(event, ChannelOpened)]
    assert opened == [1, 5]
    for event in (sctp.StreamsResetByPeer, sctp.StreamsReset):
        world.feed(event((1, 3, 7)))
    world.table.take_events()
    world.message(3, DCEP, encode_open(DataChannelConfig(label=30 * "e", protocol=30 * "f")))
    assert [event.channel.id for event in world.table.take_events() if isinstance(event, ChannelOpened)] == [3]


def test_what_the_peer_opens_takes_no_room_from_ours() -> None:
    world = World(peer_channels_max=4, channels_max=2)
    for stream_id in (1, 3, 5, 7, 9, 0, 2):  # the last three are refused: one too many, and two that are ours to open
        world.message(stream_id, DCEP, encode_open(DataChannelConfig()))
    assert [world.create().id, world.create().id] == [4, 6]
    with pytest.raises(InvalidConfig):
        world.create()
    for event in (sctp.StreamsResetByPeer, sctp.StreamsReset):
        world.feed(event((1, 9, 0, 2, 4)))
    assert world.create().id == 0
    world.table.take_events()
    world.peer_opens(9)


# ------------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("data", "wire"),
    [("hé", (STRING, "hé".encode())), (b"\x00\x01", (BINARY, b"\x00\x01")), ("", (STRING_EMPTY, b"\0")),
     (b"", (BINARY_EMPTY, b"\0")), (bytearray(b"ab"), (BINARY, b"ab")), (memoryview(b"ab"), (BINARY, b"ab"))],
)  # fmt: skip
def test_each_kind_of_message_has_its_protocol_identifier(data: Any, wire: tuple[int, bytes]) -> None:
    world = World()
    channel = world.create(negotiated=True, id=0)
    world.table.send(channel, data, 0.0)
    assert world.association.sent == [(0, *wire)]
    world.table.take_events()
    world.message(0, *wire)
    assert world.received() == [data if isinstance(data, str) else bytes(data)]


def test_what_cannot_be_sent_changes_nothing() -> None:
    world = World()
    channel = world.create(negotiated=True, id=0)
    for data, error in [("x" * 1001, MessageTooLarge), ("\ud800", UnserialisableMessage), (5, UnserialisableMessage)]:
        with pytest.raises(error):
            world.table.send(channel, data, 0.0)  # type: ignore[arg-type]
    world.table.send(channel, "x" * 1000, 0.0)
    assert channel.messages_sent == 1
    assert len(world.association.sent) == 1


@pytest.mark.parametrize(("ppid", "data"), [(STRING, b"\xff"), (52, b"a"), (54, b"a"), (0, b"a"), (2**32 - 1, b"a")])
def test_what_no_channel_understands_closes_that_channel_only(ppid: int, data: bytes) -> None:
    world = World()
    bad, good = world.create(), world.create()
    world.table.take_events()
    world.message(bad.id or 0, ppid, data)
    assert (bad.state, good.state) == ("closing", "open")
    assert world.association.resets == [bad.id]
    world.message(bad.id or 0, STRING, b"too late")
    assert world.received() == []
    assert world.table.messages_discarded == 1


# ----------------------------------------------------------------------------------------------------------- early data


def test_negotiated_data_waits_for_its_channel() -> None:
    world = World()
    for ppid, data in [(STRING, b"one"), (BINARY, b"two"), (BINARY_EMPTY, b"\0")]:
        world.message(8, ppid, data)
    assert world.table.early_bytes == 7
    channel = world.create(negotiated=True, id=8)
    opened, *messages = world.table.take_events()
    assert opened == ChannelOpened(channel, by_peer=False)
    assert [event.data for event in messages if isinstance(event, MessageReceived)] == ["one", b"two", b""]
    assert world.table.early_bytes == 0


def test_unordered_data_that_overtook_its_open_waits() -> None:
    world = World()
    world.message(1, STRING, b"fast")
    world.message(1, DCEP, encode_open(DataChannelConfig(ordered=False)))
    assert [type(event).__name__ for event in world.table.take_events()] == ["ChannelOpened", "MessageReceived"]


def test_early_data_is_bounded_and_its_excess_closes_the_stream() -> None:
    world = World(early_bytes_max=100, early_messages_max=3)
    world.message(8, STRING, b"x" * 60)
    world.message(10, STRING, b"x" * 60)
    assert world.association.resets == [10]
    world.message(10, STRING, b"x")
    assert world.table.early_bytes == 60
    for _ in range(3):
        world.message(8, STRING, b"x")
    assert world.association.resets == [10, 8]
    assert world.table.early_bytes == 0


def test_a_stream_that_came_and_went_unclaimed_is_answered_and_forgotten() -> None:
    world = World()
    world.message(9, STRING, b"x")
    world.feed(sctp.StreamsResetByPeer((9,)))
    assert world.association.resets == [9]
    world.feed(sctp.StreamsReset((9,)))
    assert world.table.take_events() == []
    assert world.create(negotiated=True, id=9).state == "open"


def test_acks_for_nobody_are_ignored() -> None:
    world = World()
    world.message(2, DCEP, ACK)
    assert world.association.resets == []


# -------------------------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("closer", ["us", "peer", "both"])
def test_an_id_is_free_after_both_resets_in_any_order(first: str, closer: str) -> None:
    world = World()
    channel = world.create()
    world.table.take_events()
    if closer != "peer":
        world.table.close(channel, 0.0)
    steps: list[Any] = [sctp.StreamsReset((0,)), sctp.StreamsResetByPeer((0,))]
    if first == "theirs" or closer == "peer":
        steps.reverse()
    world.feed(steps[0])
    assert channel.state == "closing"
    assert world.table.take_events() == []
    assert world.create().id == 2
    world.table.take_events()
    world.feed(steps[1])
    assert world.association.resets == [0]
    assert world.table.take_events() == [ChannelClosed(channel, closer == "peer", "")]
    assert world.create().id == 0


def test_closing_twice_and_before_opening() -> None:
    world = World(established=False)
    channel = world.create()
    world.table.close(channel, 0.0)
    world.table.close(channel, 0.0)
    assert world.table.take_events() == [ChannelClosed(channel, False, "")]
    assert world.association.resets == []
    world.establish()
    assert world.association.sent == []
    with pytest.raises(ClosedError):
        world.table.send(channel, "x", 0.0)


def test_the_next_life_of_a_stream_waits_for_the_end_of_the_last() -> None:
    """Our reset was performed, its acknowledgement got lost, and the peer opens the same id anew: str0m#1010."""
    world = World()
    old = world.peer_opens(1, label="old")
    world.feed(sctp.StreamsResetByPeer((1,)))
    world.message(1, DCEP, encode_open(DataChannelConfig(label="new")))
    world.message(1, STRING, b"for new")
    assert world.table.take_events() == []
    world.feed(sctp.StreamsReset((1,)))
    closed, opened, message = world.table.take_events()
    assert closed == ChannelClosed(old, True, "")
    assert isinstance(opened, ChannelOpened)
    assert opened.channel.label == "new"
    assert isinstance(message, MessageReceived)
    assert message.channel is opened.channel


def test_the_next_life_may_even_be_over() -> None:
    world = World()
    world.peer_opens(1, label="old")
    world.feed(sctp.StreamsResetByPeer((1,)))
    world.message(1, DCEP, encode_open(DataChannelConfig(label="new")))
    world.feed(sctp.StreamsResetByPeer((1,)), sctp.StreamsReset((1,)))
    assert [type(event).__name__ for event in world.table.take_events()] == ["ChannelClosed", "ChannelOpened"]
    assert world.association.resets == [1, 1]
    world.feed(sctp.StreamsReset((1,)))
    assert [type(event).__name__ for event in world.table.take_events()] == ["ChannelClosed"]


def test_the_end_of_the_association_closes_everything_once() -> None:
    world = World()
    two, one = world.peer_opens(1), world.create()
    world.table.take_events()
    world.table.close_all("gone", by_peer=True)
    world.table.close_all("gone", by_peer=True)
    assert world.table.take_events() == [ChannelClosed(two, True, "gone"), ChannelClosed(one, True, "gone")]


# ------------------------------------------------------------------------------------------------------------- anything

_STREAMS = st.integers(0, 5)
_EVENTS = st.one_of(
    st.builds(
        lambda stream, ppid, data: sctp.MessageReceived(stream, ppid, data, False),
        _STREAMS,
        st.sampled_from([50, 50, 51, 53, 56, 57, 99]),
        st.sampled_from([ACK, encode_open(DataChannelConfig()), b"\x03", b"text", b"\xff"]),
    ),
    st.builds(lambda stream: sctp.StreamsResetByPeer((stream,)), _STREAMS),
    st.builds(lambda stream: sctp.StreamsReset((stream,)), _STREAMS),
    st.builds(sctp.BufferedAmountLow, _STREAMS),
)


@given(st.lists(st.one_of(_EVENTS, st.sampled_from(["create", "negotiated", "close", "send"])), max_size=40))
def test_any_peer_and_any_user_get_a_consistent_story(steps: list[Any]) -> None:
    """Opened once, messages only between opened and closed, closed once; bookkeeping returns to nothing."""
    world = World(channels_max=8, peer_channels_max=8, early_bytes_max=64, early_messages_max=8)
    seen: dict[Channel, str] = {}
    for step in steps:
        alive = [channel for channel, state in seen.items() if state == "open"]
        try:
            match step:
                case "create":
                    world.create()
                case "negotiated":
                    world.create(negotiated=True, id=3)
                case "close" if alive:
                    world.table.close(alive[0], 0.0)
                case "send" if alive:
                    world.table.send(alive[-1], "x", 0.0)
                case str():
                    pass
                case event:
                    world.feed(event)
        except LocalError:
            pass
        for event in world.table.take_events():
            if isinstance(event, ChannelOpened):
                assert event.channel not in seen
                seen[event.channel] = "open"
            elif isinstance(event, ChannelClosed):
                assert seen.get(event.channel) == "open"
                seen[event.channel] = "closed"
            else:
                assert seen[event.channel] == "open"
        assert 0 <= world.table.early_bytes <= 64
    world.table.close_all("end", by_peer=False)
    assert world.table.stats() == []
    assert world.table.early_bytes == 0
