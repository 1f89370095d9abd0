"""The express lane: its wire, its rate, and that a channel keeps its promises whichever way its messages travel."""

from __future__ import annotations

import random
from struct import pack
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc import express
from psyne_mesh.webrtc.channel import MessageReceived
from psyne_mesh.webrtc.express import EXPRESS, RECORD_MAX, Express
from psyne_mesh.webrtc.stack import StackConfig
from tests.webrtc.pair import Pair

STALE_S = 0.5  # what rooms give an unreliable message
ROOM_CHANNEL = {"ordered": False, "max_retransmits": 0}


def carry(sender: Express, receiver: Express, sent: float, came: float) -> list[tuple[int, int, bytes]]:
    return [message for record in sender.records_to_send(sent) for message in receiver.receive_untrusted(record, came)]


# ----------------------------------------------------------------------------------------------------------- the wire


def test_the_wire_is_as_written_down() -> None:
    one, other = Express(), Express()
    one.send(3, b"hello", False, 10.0, thin=True)
    assert one.records_to_send(10.0) == [pack("!BBHHHHHHH", 0xE1, 0, 1, 100_000 % 65536, 0, 0, 0, 3, 5) + b"hello"]
    other.receive_untrusted(pack("!BBHHHHHHH", 0xE1, 0, 1, 100_000 % 65536, 0, 0, 0, 3, 5) + b"hello", 10.5)
    other.send(4, b"a", True, 10.75, thin=True)
    other.send(5, b"bc", False, 10.75, thin=True)
    echo = (100_000 + 2500) % 65536  # held for 250 ms
    header = pack("!BBHHHHH", 0xE1, 0, 1, 107_500 % 65536, 1, 1, echo)
    assert other.records_to_send(10.75) == [header + pack("!HH", 4, 0x8001) + b"a" + pack("!HH", 5, 2) + b"bc"]


def test_it_cannot_be_taken_for_sctp() -> None:
    assert EXPRESS != 5000 >> 8


@given(st.lists(st.tuples(st.integers(0, 65_534), st.booleans(), st.binary(max_size=RECORD_MAX - 16)), max_size=40))
def test_messages_come_as_they_were_sent(messages: list[tuple[int, bool, bytes]]) -> None:
    one, other = Express(), Express()
    for stream, text, data in messages:
        assert one.send(stream, data, text, 1.0, thin=False)
    records = one.records_to_send(1.0)
    assert all(len(record) <= RECORD_MAX for record in records)
    came = [message for record in records for message in other.receive_untrusted(record, 1.01)]
    assert came == [(stream, 0x8000 * text, data) for stream, text, data in messages]


@given(st.lists(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda tail: b"\xe1" + tail)), max_size=8))
def test_hostile_records_raise_one_error_and_change_nothing_lasting(records: list[bytes]) -> None:
    one, other = Express(), Express()
    for record in records:
        try:
            assert len(one.receive_untrusted(record, 1.0)) <= express.MESSAGES_MAX
        except ProtocolError:
            assert one.stats == Express().stats or len(records) > 1
    one.send(1, b"x", False, 2.0, thin=True)
    assert carry(one, other, 2.0, 2.0) == [(1, 0, b"x")]
    assert one.stats.window >= express.WINDOW_MIN
    assert one.stats.interval_s <= express.INTERVAL_MAX_S


@pytest.mark.parametrize(
    "record",
    [b"", b"\xe1", bytes((0xE1,)) + bytes(RECORD_MAX), b"\x13" + bytes(20), b"\xe1" + bytes(12), b"\xe1" + bytes(14) + b"\x05",
     b"\xe1" + bytes(11) + bytes(4) * (express.MESSAGES_MAX + 1)],
)  # fmt: skip
def test_what_is_refused(record: bytes) -> None:
    with pytest.raises(ProtocolError):
        Express().receive_untrusted(record, 1.0)


# ----------------------------------------------------------------------------------------------------------- the rate


class Game:
    """One side sends 60 frames a second, the other only listens; `way` says when a record comes, or that it does not."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sender, self.reader = Express(), Express()
        self.ages: list[float] = []
        self._flying: list[tuple[float, bool, bytes]] = []
        self._sent_at: dict[bytes, float] = {}
        self.frame = 0
        self.records = 0

    def play(
        self, seconds: float, *, delay_s: float = 0.02, loss: float = 0.0, lag_s: float = 0.0, hz: float = 60
    ) -> None:
        dice = random.Random(7)
        end, next_frame = self.now + seconds, self.now
        while self.now < end:
            self.now += 0.001
            if self.now >= next_frame:
                next_frame += 1 / hz
                self.frame += 1
                data = b"%d" % self.frame
                self._sent_at[data] = self.now
                assert self.sender.send(1, data, False, self.now, thin=True)
            self._flush(self.sender, True, delay_s + lag_s, loss, dice)
            self._flush(self.reader, False, delay_s, loss, dice)
            due = [entry for entry in self._flying if entry[0] <= self.now]
            self._flying = [entry for entry in self._flying if entry[0] > self.now]
            for _, forth, record in due:
                for _, _, data in (self.reader if forth else self.sender).receive_untrusted(record, self.now):
                    self.ages.append(self.now - self._sent_at[data])

    def _flush(self, lane: Express, forth: bool, delay_s: float, loss: float, dice: random.Random) -> None:
        timeout = lane.next_timeout()
        if timeout is not None and timeout <= self.now:
            lane.handle_timeout(self.now)
        for record in lane.records_to_send(self.now):
            self.records += 1
            if dice.random() >= loss:
                self._flying.append((self.now + delay_s, forth, record))


def test_a_quiet_path_gets_every_frame_and_tells_the_round_trip() -> None:
    game = Game()
    game.play(5)
    assert len(game.ages) >= 295
    assert game.sender.stats.thinned == 0
    assert game.sender.srtt_s == pytest.approx(0.04, abs=0.005)
    assert game.records < 1.35 * game.frame  # reports of who does not send: one for four records, or more


def test_loss_is_counted_and_does_not_stop_a_game() -> None:
    game = Game()
    game.play(5, loss=0.3)
    assert len(game.ages) > 0.6 * game.frame
    assert game.sender.stats.records_lost == pytest.approx(
        0.3 * game.frame, rel=0.6
    )  # some twice, where reports are lost


def test_a_reader_that_lags_gets_fewer_and_newer_ones() -> None:
    game = Game()
    game.play(2)
    came = len(game.ages)
    game.play(5, lag_s=0.2)
    assert game.sender.stats.thinned > 100
    assert game.sender.stats.interval_s > 0.06
    assert len(game.ages) - came > 50  # ten a second still
    game.play(5)
    assert game.sender.stats.interval_s == 0


def test_a_dead_path_gets_little_and_heals_at_once() -> None:
    game = Game()
    game.play(1)
    records, came = game.records, len(game.ages)
    game.play(10, loss=1.0)
    assert game.records - records < 250
    assert len(game.ages) - came < 3
    came = len(game.ages)
    game.play(2)
    assert len(game.ages) - came > 60
    assert max(game.ages) < STALE_S


def test_the_newest_frame_waits_whole_and_takes_the_place_of_older_ones() -> None:
    lane = Express()
    for number in range(express.WINDOW_FIRST):
        lane.send(1, b"%d" % number, False, 1.0, thin=True)
        lane.records_to_send(1.0)
    for frame, now in ((b"a", 1.7), (b"b", 1.75)):
        assert all(lane.send(1, frame + b"%d" % part, False, now, thin=True) for part in range(3))
    assert not lane.send(1, b"not to be thinned", False, 1.8, thin=False)
    assert lane.stats.thinned == 3
    assert lane.next_timeout() is not None
    other = Express()
    assert [data for _, _, data in carry(lane, other, 2.0, 2.0)] == [b"b0", b"b1", b"b2"]


def test_what_waits_too_long_is_dropped() -> None:
    lane = Express()
    for _ in range(express.WINDOW_FIRST):
        lane.send(1, b"x", False, 1.0, thin=True)
        lane.records_to_send(1.0)
    lane.send(1, b"late", False, 1.1, thin=True)
    lane.handle_timeout(1.1 + express.HELD_LIFE_S + 0.01)
    assert lane.records_to_send(2.0) == []


def test_a_few_records_are_worth_no_report() -> None:
    one, other = Express(), Express()
    for number in range(express.REPORT_RECORDS_MIN - 1):
        one.send(1, b"x", False, float(number), thin=False)
        carry(one, other, float(number), float(number))
        assert other.next_timeout() is None
    one.send(1, b"x", False, 9.0, thin=False)
    carry(one, other, 9.0, 9.0)
    assert other.next_timeout() == pytest.approx(9.0 + express.REPORT_AFTER_S)
    (report,) = other.records_to_send(9.0 + express.REPORT_AFTER_S)
    one.receive_untrusted(report, 9.1)
    assert one.under_way == 0
    assert one.next_timeout() is None  # a report asks for none


# ------------------------------------------------------------------------- the promises of a channel, whichever way


def ways() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("on_express", [True, False], ids=["express", "sctp"])


def open_game(pair: Pair, **settings: object) -> tuple[object, object]:
    mine, theirs = pair.open(**{**ROOM_CHANNEL, **settings})
    mine.life_time = theirs.life_time = STALE_S
    mine.thins = theirs.thins = True
    pair.run(1.0)
    return mine, theirs


def play(pair: Pair, channel: object, frames: int, first: int = 0) -> None:
    for number in range(first, first + frames):
        pair.send(pair.client, channel, f"{number} {pair.now:.4f}".encode())  # type: ignore[arg-type]
        pair.run(1 / 60)


@ways()
def test_small_messages_take_the_lane_that_is_there(on_express: bool) -> None:
    pair = Pair(express=on_express).connect()
    mine, theirs = open_game(pair)
    play(pair, mine, 60)
    pair.run(1)
    assert mine.express is on_express
    assert len(pair.server.messages()) == 60
    assert mine.messages_sent == theirs.messages_received == 60
    assert mine.bytes_sent == theirs.bytes_received
    stats = pair.client.stack.stats().express
    assert (stats.records_sent >= 59) if on_express and stats else not on_express


@ways()
@pytest.mark.parametrize("seed", range(3))
def test_an_ordered_channel_is_in_order_though_its_messages_change_the_way(on_express: bool, seed: int) -> None:
    pair = Pair(seed, express=on_express, loss=0.1, jitter_s=0.05).connect()
    mine, theirs = open_game(pair, ordered=True)
    dice = random.Random(seed)
    for number in range(200):
        size = 3000 if number in (120, 150) else 100
        pair.send(pair.client, mine, b"%06d" % number + bytes(size))  # type: ignore[arg-type]
        pair.run(dice.choice((0.0, 0.005, 0.02)))
        if number % 3 == 0:
            pair.send(pair.server, theirs, b"%06d" % number)  # type: ignore[arg-type]
    pair.run(3)
    for side in (pair.server, pair.client):
        numbers = [int(message[:6]) for message in side.messages()]
        assert numbers == sorted(set(numbers))
        assert len(numbers) > (50 if side is pair.server else 20)


@ways()
@pytest.mark.parametrize("silence_s", [0.3, 2.0, 10.0])
def test_nothing_unreliable_comes_late(on_express: bool, silence_s: float) -> None:
    pair = Pair(3, express=on_express, delay_s=0.03).connect()
    mine, _ = open_game(pair)
    ages: list[float] = []
    pair.server.on_event = lambda event: (
        ages.append(pair.now - float(event.data.split()[1])) if type(event) is MessageReceived else None
    )
    play(pair, mine, 60)
    pair.loss = 1.0
    play(pair, mine, int(60 * silence_s))
    pair.loss = 0.0
    before = len(ages)
    pair.client.stack.path_changed(pair.now)  # what the heartbeats above notice
    pair.settle(pair.client)
    play(pair, mine, 120)
    pair.run(2)
    assert len(ages) - before > 100
    assert max(ages) < STALE_S + 0.1


@ways()
def test_a_narrow_path_is_thinned_to_what_it_carries(on_express: bool) -> None:
    pair = Pair(4, express=on_express, delay_s=0.02, rate=5_000.0, queue_s=2.0, mtu=1400).connect()
    # Half of what the game wants
    mine, _ = open_game(pair)
    ages: list[float] = []
    pair.server.on_event = lambda event: (
        ages.append(pair.now - float(event.data.split()[1])) if type(event) is MessageReceived else None
    )
    for number in range(1200):
        pair.send(pair.client, mine, f"{number} {pair.now:.4f}".encode() + b" " + bytes(60))  # type: ignore[arg-type]
        pair.run(1 / 60)
    assert len(ages) > 300
    if on_express:  # SCTP fills the queue of the path
        assert sorted(ages[100:])[len(ages[100:]) * 9 // 10] < 0.25


@ways()
def test_the_end_of_a_silent_peer_is_found_as_soon(on_express: bool) -> None:
    pair = Pair(5, express=on_express, config=StackConfig(gives_up=True)).connect()
    mine, _ = open_game(pair)
    play(pair, mine, 60)
    pair.loss = 1.0
    began = pair.now
    while pair.client.stack.phase != "closed" and pair.now - began < 60:
        if mine.state == "open":  # type: ignore[attr-defined]
            play(pair, mine, 1)
    assert pair.now - began < 35


@ways()
def test_what_was_heard_last_is_told(on_express: bool) -> None:
    pair = Pair(6, express=on_express).connect()
    mine, _ = open_game(pair)
    play(pair, mine, 30)
    heard = pair.server.stack.last_received_at
    assert heard is not None
    assert pair.now - heard < 0.05


def test_flow_control_holds_in_the_lane_too() -> None:
    """A reader that takes nothing does not make its memory grow."""
    pair = Pair(7, config=StackConfig(receive_window_bytes=65_536)).connect()
    mine, _ = open_game(pair)
    pair.server.stack.set_unread(70_000, pair.now)
    came = len(pair.server.messages())
    play(pair, mine, 60)
    assert len(pair.server.messages()) == came
    pair.server.stack.set_unread(0, pair.now)
    play(pair, mine, 60)
    assert len(pair.server.messages()) > came + 50


def test_reliable_channels_and_strangers_keep_sctp() -> None:
    pair = Pair(8).connect()
    for settings in (
        {},
        {"ordered": False},
        {"ordered": False, "max_retransmits": 1},
        {"max_packet_life_time_ms": 500},
    ):
        mine, _ = pair.open(label=str(settings), **settings)
        pair.run(1)
        pair.send(pair.client, mine, b"x")
        pair.run(1)
        assert not mine.express
    assert pair.server.messages() == [b"x"] * 4


def test_large_messages_of_an_unordered_channel_go_by_sctp_and_small_ones_beside() -> None:
    pair = Pair(9).connect()
    mine, _ = open_game(pair)
    sizes = [10, 1175, 1176, 50_000, 10]
    for size in sizes:
        pair.send(pair.client, mine, bytes(size))  # type: ignore[arg-type]
    pair.run(2)
    assert sorted(map(len, pair.server.messages())) == sorted(sizes)
    stats = pair.client.stack.stats().express
    assert stats is not None
    assert stats.records_sent == 3


def test_text_is_text_and_empty_is_empty() -> None:
    pair = Pair(10).connect()
    mine, _ = open_game(pair)
    for message in ("é", "", b"", b"\0"):
        pair.send(pair.client, mine, message)  # type: ignore[arg-type]
    pair.run(1)
    assert pair.server.messages() == ["é", "", b"", b"\0"]
    assert mine.express


@pytest.mark.python_only
@pytest.mark.parametrize("packet", [b"", b"\xe1", b"\xe1" + bytes(11), b"\xe1" * 1191, b"\xe1" + bytes(13)])
def test_a_hostile_peer_with_an_open_session_does_no_harm(packet: bytes) -> None:
    pair = Pair(11).connect()
    mine, _ = open_game(pair)
    server = pair.server.stack
    session = server._dtls
    server._dtls = SimpleNamespace(receive=lambda datagram, now: [packet], take_events=list)  # type: ignore[assignment]
    server.receive([b"x"], pair.now)
    server._dtls = session
    assert server.phase == "connected"
    play(pair, mine, 3)
    pair.run(1)
    assert len(pair.server.messages()) == 3
