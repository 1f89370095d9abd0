"""A loop that stands still is not a process that is gone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig, ProtocolError
from psyne_mesh.identity import Identity
from psyne_mesh.mesh.heartbeat import BEAT_EVERY_S, LOOK_S, STILL_MAX_S, Heartbeat, beating
from psyne_mesh.mesh.pause import PAUSE_TAG, REASON_BYTES_MAX, pause_frame, pause_untrusted
from psyne_mesh.room import events
from psyne_mesh.room.away import STANDS_STILL, Away
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.server import open_server
from psyne_mesh.testing import open_world


def test_a_loop_that_turns_is_never_asked_and_one_that_does_not_is_asked_first() -> None:
    asked: list[float] = []
    heartbeat = Heartbeat(lambda: asked.append(now))
    now = 0.0
    for _ in range(100):
        now += LOOK_S
        assert not heartbeat.look(now)
        heartbeat.turned()
    assert asked == []
    beats = []
    for _ in range(int((STILL_MAX_S + 10) / LOOK_S)):
        now += LOOK_S
        beats.append(heartbeat.look(now))
    assert len(asked) == 1
    assert beats[:3] == [False, False, True]
    assert beats[3:7] == [False, False, True, False]  # not with each look
    assert abs(sum(beats) * BEAT_EVERY_S - STILL_MAX_S) < 1
    heartbeat.turned()
    assert [heartbeat.look(now + LOOK_S), heartbeat.look(now + 2 * LOOK_S)] == [False, False]


def test_a_pause_makes_it_patient() -> None:
    heartbeat = Heartbeat(lambda: None)
    with heartbeat.patient(1000.0):
        assert heartbeat.look(0.0) is heartbeat.look(1.0) is False
        assert heartbeat.look(999.0)
    assert not heartbeat.look(999.0)


async def test_the_thread_beats_while_the_loop_stands_still_and_ends_with_the_block() -> None:
    import threading
    import time

    numbers: list[int] = []
    beaten = threading.Event()

    def send(number: int) -> None:
        numbers.append(number)
        if len(numbers) == 3:
            beaten.set()

    before = set(threading.enumerate())  # some of Trio's own, idle, may end meanwhile
    with beating(send):
        assert beaten.wait(30)
        until = time.monotonic() + 30
        await trio.sleep(2 * LOOK_S)
        seen = len(numbers)
        while time.monotonic() < until and len(numbers) == seen and seen < 1000:
            await trio.sleep(LOOK_S / 4)
            until = min(until, time.monotonic() + 3 * LOOK_S)
    assert numbers == sorted(set(numbers))
    assert set(threading.enumerate()) <= before


def test_a_pause_on_the_wire() -> None:
    room = bytes(range(8))
    assert pause_untrusted(pause_frame(room, "tea, löwe")) == (room, "tea, löwe")
    assert pause_untrusted(pause_frame(room, None)) == (room, None)
    for frame in (
        b"",
        PAUSE_TAG,
        PAUSE_TAG + room[:7],
        bytes(16),
        PAUSE_TAG + room + b"\xff",
        PAUSE_TAG + room + b"a\x1b[2Jb",
        pause_frame(room, "x" * (REASON_BYTES_MAX + 1)),
    ):
        with pytest.raises(ProtocolError):
            pause_untrusted(frame)


def test_its_own_word_is_worth_more_than_its_heartbeats() -> None:
    peer, away = Identity.generate().peer_id, Away()
    assert away.reason(peer) is None
    away.note_still(peer, True)
    assert away.reason(peer) == STANDS_STILL
    away.note_pause(peer, "tea")
    assert away.reason(peer) == "tea"
    away.note_pause(peer, None)
    away.note_still(peer, False)
    assert away.reason(peer) is None
    away.note_pause(peer, "tea")
    away.forget(peer)
    assert away.reason(peer) is None


async def test_others_see_a_pause_and_its_end_and_so_does_who_comes_meanwhile(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        await ada.wait_connected(1)
        await bob.wait_connected(1)
        told = away_of(ada)
        with bob.pause("loading a level"):
            await trio.sleep(1)
            assert told == ["bob away: loading a level"]
            assert ada.peers[bob.me].away == "loading a level"
            cid = await world.join("lobby", "cid")
            late = away_of(cid)
            await cid.wait_connected(2)
            await trio.sleep(1)
            assert late == ["bob away: loading a level"]
            with pytest.raises(InvalidConfig, match="paused already"), bob.pause():
                pass
        await trio.sleep(1)
        assert told == ["bob away: loading a level", "bob back"]
        assert late == told
        assert ada.peers[bob.me].away is None
        for reason in ("", "x" * 129, "a\x1bb", None):
            with pytest.raises(InvalidConfig, match="a reason is"), bob.pause(reason):  # type: ignore[arg-type]
                pass


def away_of(room: Room) -> list[str]:
    told: list[str] = []
    room.on_peer_away(lambda peer, reason: told.append(f"{peer.name} away: {reason}"))
    room.on_peer_back(lambda peer: told.append(f"{peer.name} back"))
    return told


LOADER = """
import sys, time, trio
from psyne_mesh import WebRTCConfig, join_game_room
async def main():
    config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
    async with join_game_room("load", signaling=sys.argv[1], config=config, player_name="loader") as room:
        await room.wait_connected(1)
        channel = room.channel("numbers")
        until = time.monotonic() + 5
        print("loading", flush=True)
        if sys.argv[2] == "sleeps":
            time.sleep(5)
        else:
            while time.monotonic() < until:
                sum(range(1000))
        got = [int((await channel.receive())[1]) for _ in range(50)]
        await channel.send("complete" if got == list(range(50)) else repr(got))
        await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sleeps", "computes"])
async def test_a_level_that_loads_for_five_seconds_is_no_departure_and_a_crash_is(how: str) -> None:
    config = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
    async with (
        open_server("127.0.0.1", 0) as server,
        join_game_room("load", signaling=server.url, config=config) as room,
    ):
        told: list[events.RoomEvent] = []
        for kind in (events.PeerAway, events.PeerBack, events.PeerLeft):
            room.on(kind, told.append)
        channel = room.channel("numbers")
        loader = await trio.lowlevel.open_process(
            [sys.executable, "-c", LOADER, server.url, how], stdout=subprocess.PIPE
        )
        try:
            with trio.fail_after(60):
                await room.wait_connected(1)
                assert loader.stdout is not None
                async with loader.stdout:
                    await loader.stdout.receive_some()
                for number in range(50):
                    await channel.send(str(number))
                    await trio.sleep(0.05)
                assert (await channel.receive())[1] == "complete"
            assert [type(event).__name__ for event in told] == ["PeerAway", "PeerBack"]
            loader.kill()
            with trio.fail_after(30):
                while not isinstance(told[-1], events.PeerLeft):
                    await trio.sleep(0.05)
            assert isinstance(told[-1], events.PeerLeft)
        finally:
            loader.kill()
            with trio.CancelScope(shield=True):
                await loader.wait()
