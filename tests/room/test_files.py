"""Files through whole rooms on a virtual network: whole, beside play, and on after a break."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.files import beside_play
from psyne_mesh.errors import InvalidConfig, MessageTooLarge, PeerGone, ProtocolError, RequestRefused, WouldBlock
from psyne_mesh.game import transfer_wire
from psyne_mesh.game.transfer_wire import CHUNK_BYTES, Chunk, Done, Offer, TransferWord, Want
from psyne_mesh.game.transfers import INCOMING_BYTES_MAX, INCOMING_MAX, WINDOW_MAX, Transfers, digest_of
from psyne_mesh.identity import PeerId
from psyne_mesh.room.room import Room
from psyne_mesh.testing import Quality, open_world
from tests.room.test_host_and_clock import everybody

ADA, BOB = PeerId("a" * 32), PeerId("b" * 32)


async def test_a_file_comes_whole_to_all_who_expect_it(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with open_world(seed=1) as world:
        ada, bob, cid = await everybody(world, "ada", "bob", "cid")
        data = random.Random(1).randbytes(300_000)
        path = tmp_path / "level.bin"
        path.write_bytes(data)
        files = bob.files()
        with pytest.raises(WouldBlock):
            files.receive_nowait()
        progress: list[tuple[PeerId, int, int]] = []
        results = await ada.send_file(None, path, progress=lambda *each: progress.append(each))
        assert results[bob.me] is None
        assert isinstance(results[cid.me], RequestRefused)
        received = await files.receive()
        assert (received.peer.name, received.name, received.data) == ("ada", "level.bin", data)
        done = [done for peer, done, size in progress if peer == bob.me and size == len(data)]
        assert done == sorted(done)
        assert done[-1] > 0.9 * len(data)
        assert await ada.send_file(bob.me, b"", name="empty") == {bob.me: None}
        assert (await files.receive()).data == b""
        with pytest.raises(RequestRefused, match="expects no files"):
            await ada.send_file(cid.me, b"x")
        small = cid.files(bytes_max=10)
        with pytest.raises(RequestRefused, match="up to 10 bytes"):
            await ada.send_file(cid.me, b"x" * 11)
        await bob.send_file(cid.me, b"x" * 10)
        assert (await small.receive()).peer.name == "bob"
        for wrong in (
            {"data": 3},
            {"data": b"", "name": "../x"},
            {"data": b"", "name": ""},
            {"data": tmp_path / "none"},
        ):
            with pytest.raises(InvalidConfig):
                await ada.send_file(bob.me, **wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidConfig):
            await ada.send_file("bob", b"x")  # type: ignore[arg-type]
        with pytest.raises(MessageTooLarge):
            await ada.send_file(bob.me, bytes(2**26 + 1))
        with pytest.raises(PeerGone):
            await ada.send_file(PeerId("0" * 32), b"x")
        with pytest.raises(InvalidConfig):
            bob.files(0)


async def positions_p99(quality: Quality, n_bytes: int) -> tuple[float, float]:
    """The 99th percentile of a position's way in seconds while a file of so many bytes travels, and bytes a second."""
    async with open_world(seed=3, quality=quality) as world:
        ada, bob = await everybody(world, "ada", "bob")
        ways: list[float] = []
        sent: dict[str, float] = {}
        bob.channel("positions", mode="unreliable").on_message(
            lambda peer, text: ways.append(trio.current_time() - sent[str(text)])
        )
        channel = ada.channel("positions", mode="unreliable")
        bob.files()
        took: list[float] = []

        async def send() -> None:
            began = trio.current_time()
            if n_bytes:
                await ada.send_file(bob.me, bytes(n_bytes))
            else:
                await trio.sleep(10)
            took.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            number = 0
            while not took:
                number += 1
                sent[str(number)] = trio.current_time()
                channel.send_nowait(str(number))
                await trio.sleep(1 / 60)
        ways.sort()
        assert len(ways) >= 0.98 * number
        return ways[len(ways) * 99 // 100], n_bytes / took[0]


@pytest.mark.parametrize(
    "quality",
    [
        Quality(latency_s=0.03, bytes_per_s=1e6),
        Quality(latency_s=0.05, jitter_s=0.01, bytes_per_s=1e6),
        pytest.param(Quality(latency_s=0.01, bytes_per_s=4e6), marks=pytest.mark.slow),
    ],
    ids=["1 MB/s", "jitter", "4 MB/s"],
)
async def test_positions_come_as_soon_beside_a_file(quality: Quality, autojump_clock: trio.testing.MockClock) -> None:
    without, _ = await positions_p99(quality, 0)
    beside, rate = await positions_p99(quality, 3_000_000)
    assert beside <= 1.3 * without
    assert rate >= 0.5 * (quality.bytes_per_s or 0.0) if not quality.jitter_s else rate >= 100_000


async def test_it_goes_on_after_a_break(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=5, quality=Quality(latency_s=0.02, bytes_per_s=4e5)) as world:
        ada, bob = await everybody(world, "ada", "bob")
        files = bob.files()
        data = random.Random(1).randbytes(2_000_000)
        halves: list[int] = []

        async def send() -> None:
            await ada.send_file(bob.me, data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(3)
            (arriving,) = files.arriving
            assert 0 < arriving.done < arriving.size == len(data)
            halves.append(arriving.done)
            with world.net.partition({"ada"}, {"bob"}, signaling=False):
                await trio.sleep(20)
                assert not bob.peers
            began = trio.current_time()
            received = await files.receive()
            assert received.data == data
        assert trio.current_time() - began <= 15 + (len(data) - halves[0]) / 4e5 * 2


@pytest.mark.parametrize("mebibytes", [2, pytest.param(64, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
async def test_a_large_file_goes_on_after_a_cut_and_positions_do_not_wait(
    mebibytes: int, autojump_clock: trio.testing.MockClock
) -> None:
    outcome = await beside_play(mebibytes * 2**20, cut_s=5.0)
    assert outcome.is_whole
    assert 0.3 <= outcome.before_cut < 1.0
    assert outcome.wire_bytes <= 1.3 * mebibytes * 2**20 + 500_000  # what was there was not sent again
    assert outcome.ratio <= 1.3


async def test_who_stops_or_leaves_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=5, quality=Quality(bytes_per_s=2e5)) as world:
        ada, bob = await everybody(world, "ada", "bob")
        files = bob.files()
        with trio.move_on_after(1):
            await ada.send_file(bob.me, bytes(2_000_000))
        await trio.sleep(1)
        assert files.arriving == []
        ends: list[Any] = []

        async def send(room: Room) -> None:
            with pytest.raises(PeerGone) as told:
                await room.send_file(bob.me, bytes(2_000_000))
            ends.append(told.type)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ada)
            await trio.sleep(1)
            await bob.leave()
        assert ends == [PeerGone]
        assert [each async for each in files] == []


class Two:
    """Two cores and what is under way between them; any word may be lost or stopped."""

    def __init__(self) -> None:
        self.now = 0.0
        self.one, self.other = Transfers(), Transfers()
        self.other.accept(2**26)

    def exchange(self, lose: Any = lambda word: False) -> list[Any]:
        events: list[Any] = []
        for _ in range(100_000):
            words: list[tuple[Transfers, PeerId, TransferWord]] = [
                (self.other, ADA, word) for _, word in self.one.take_outputs()
            ] + [(self.one, BOB, word) for _, word in self.other.take_outputs()]
            events += self.one.take_events() + self.other.take_events()
            if not words:
                break
            self.now += 0.01
            for machine, source, word in words:
                if not lose(word):
                    with suppress(ProtocolError):
                        machine.receive(source, transfer_wire.decode_untrusted(transfer_wire.encode(word)), self.now)
        return events

    def wait(self) -> None:
        self.now = min(self.one.next_timeout(), self.other.next_timeout())
        self.one.handle_timeout(self.now)
        self.other.handle_timeout(self.now)


@given(st.integers(0, 60_000), st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]))
def test_whatever_is_lost_it_comes_whole_or_not_at_all(size: int, seed: int, loss: float) -> None:
    dice = random.Random(seed)
    two = Two()
    data = dice.randbytes(size)
    two.one.send(BOB, "x", data, digest_of(data), 0.0)
    events = two.exchange(lambda word: dice.random() < loss)
    for _ in range(200):
        if not two.one._outgoing and not two.other._incoming:
            break
        two.wait()
        events += two.exchange(lambda word: dice.random() < loss)
    arrived = [event.data for event in events if hasattr(event, "data")]
    sent = [event.reason for event in events if hasattr(event, "reason")]
    assert arrived in ([data], [])
    assert len(sent) == 1
    if not loss:
        assert (arrived, sent) == ([data], [""])


def test_a_receiver_cannot_make_us_send_more_than_a_window_and_a_liar_s_file_is_refused() -> None:
    machine = Transfers()
    number = machine.send(BOB, "x", bytes(10 * WINDOW_MAX), b"d" * 32, 0.0)
    machine.take_outputs()
    for _ in range(100):
        machine.receive(BOB, Want(number, 0, 10 * WINDOW_MAX, 0.0, True), 0.1)
    sent = [word for _, word in machine.take_outputs() if isinstance(word, Chunk)]
    assert sum(len(word.data) for word in sent) == WINDOW_MAX
    machine.receive(ADA, Want(number, 0, WINDOW_MAX, 0.0, True), 9.0)  # whom it was not sent to
    machine.receive(ADA, Done(number, ""), 9.0)
    assert machine.take_outputs() == []
    reader = Transfers()
    reader.accept(2**26)
    reader.receive(ADA, Offer(1, 5, b"d" * 32, "x"), 0.0)
    with pytest.raises(ProtocolError, match="hash"):
        reader.receive(ADA, Chunk(1, 0, 0.0, b"hello"), 0.1)
    reader.receive(ADA, Offer(2, 5, b"e" * 32, "x"), 0.2)
    with pytest.raises(ProtocolError, match="longer"):
        reader.receive(ADA, Chunk(2, 0, 0.0, b"hello!"), 0.3)
    assert reader.take_events() == []
    for each in range(20):
        reader.receive(ADA, Offer(10 + each, 2**26, bytes([each]) * 32, "x"), 1.0)
    assert len(reader.arriving()) <= INCOMING_MAX
    assert sum(size for *_, size in reader.arriving()) <= INCOMING_BYTES_MAX
    assert CHUNK_BYTES < WINDOW_MAX


def test_what_others_offer_takes_no_room_of_what_we_asked_for_nor_one_all_of_it() -> None:
    reader, state = Transfers(), b"s" * 32
    reader.accept(2**26)
    for each in range(4):
        reader.receive(BOB, Offer(each, 2**26, bytes([each]) * 32, "x"), 0.0)
    assert len(reader.arriving()) == 1
    reader.receive(ADA, Offer(1, 2**26, b"a" * 32, "x"), 0.0)
    assert len(reader.arriving()) == 2
    reader.expect(ADA, state, 5)
    reader.take_outputs()
    reader.receive(BOB, Offer(9, 5, state, "x"), 0.0)  # whom we did not ask
    reader.receive(ADA, Offer(8, 6, state, "x"), 0.0)  # something else
    assert [type(word) for _, word in reader.take_outputs()] == [Done, Done]
    reader.receive(ADA, Offer(9, 5, state, "x"), 0.0)
    assert [type(word) for _, word in reader.take_outputs()] == [Want]
    reader.expect_no_more(ADA, state)
    assert [word.number for _, word in reader.take_outputs()] == [9]
    assert len(reader.arriving()) == 2


@given(st.binary(max_size=200))
def test_nothing_but_a_protocol_error_leaves_the_parser(data: bytes) -> None:
    with suppress(ProtocolError):
        transfer_wire.decode_untrusted(data)
    with pytest.raises(ProtocolError):
        transfer_wire.decode_untrusted("text")
