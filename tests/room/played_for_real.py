"""A rollback game by real processes over loopback that loses datagrams: `python -m tests.room.played_for_real --players 4`.

Each process joins at a signaling server here, plays for so many seconds, and tells what it saw as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from psyne_mesh import join_game_room, sync
from psyne_mesh.config import WebRTCConfig
from psyne_mesh.events import Equivocated, NotSigned
from psyne_mesh.game import rollback
from psyne_mesh.webrtc.ice.gateway import open_sockets
from psyne_mesh.webrtc.ice.udp import DatagramSocket
from tests.room.players import LOOPBACK

ROOT = Path(__file__).resolve().parents[2]
LOSS = 0.03
BEFORE_S = 4.0  # before it and after it, for the round trip without a game
STOOD_STILL_S = 0.08  # a frame so late leaves the others without inputs for most of the window


class Keys(rollback.Input):
    up: bool = False
    down: bool = False


class Pong(rollback.Game):
    """The one of docs/rollback.md, for any number of paddles."""

    x: int = 0
    y: int = 0
    vx: int = 3
    vy: int = 1
    paddles: list[int] = []
    score: list[int] = []

    def tick(self, inputs: Sequence[Keys]) -> None:
        self.paddles = self.paddles or [0] * len(inputs)
        self.score = self.score or [0] * len(inputs)
        for seat, keys in enumerate(inputs):
            self.paddles[seat] += 4 * (keys.down - keys.up)
        self.x, self.y = self.x + self.vx, self.y + self.vy
        if abs(self.y) > 100:
            self.vy = -self.vy
        if abs(self.x) > 160:
            self.vx = -self.vx
            nearest = min(range(len(inputs)), key=lambda seat: abs(self.paddles[seat] - self.y))
            self.score[nearest] += 1
            self.vy = self.random.below(5) - 2
            self.emit("bounce")


class Lossy:
    """A real socket that loses some of what it sends."""

    def __init__(self, inner: DatagramSocket, dice: random.Random) -> None:
        self._inner, self._dice = inner, dice
        self.address = inner.address
        self.wait_readable, self.receive_batch, self.close = inner.wait_readable, inner.receive_batch, inner.close

    def send_batch(self, datagrams: Sequence[bytes], address: Any) -> int:
        kept = [data for data in datagrams if self._dice.random() >= LOSS]
        if kept:
            self._inner.send_batch(kept, address)
        return len(datagrams)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def lossy_sockets(seed: int, config: WebRTCConfig) -> list[Any]:
    dice = random.Random(seed)
    return [Lossy(each, dice) for each in open_sockets(config)]


async def player(url: str, number: int, players: int, seconds: float) -> dict[str, Any]:
    async with join_game_room(
        "for real", signaling=url, config=LOOPBACK, max_players=players, sockets=partial(lossy_sockets, number)
    ) as room:
        await room.wait_connected(players - 1)
        accused: list[str] = []
        room.on(Equivocated, lambda event: accused.append(repr(event)))
        room.on(NotSigned, lambda event: accused.append(repr(event)))
        before = await round_trips(room, BEFORE_S)
        game = room.play(Pong, inputs=Keys, players=players)
        dice, stood_still, events = random.Random(number), [], []
        during: list[float] = []
        checks: dict[int, str] = {}
        held, frame, began, last = Keys(), 0, None, time.perf_counter()
        while began is None or time.perf_counter() - began < seconds:
            if frame % 10 == 0:
                held = Keys(dice.random() < 0.4, dice.random() < 0.4)
            game.advance(held)
            game.effects()
            events += [repr(event) for event in game.events() if not isinstance(event, rollback.DelayChanged)]
            if game.is_begun and began is None:
                began = time.perf_counter()
            session = game._session
            if session is not None and frame % 30 == 0:
                checks |= {at: digest.hex() for at, digest in session.checked_states()}
                during += [peer.rtt_ms for peer in room.connected if peer.rtt_ms is not None]
            frame += 1
            await trio.sleep(max(0.0, 1 / 60 - (time.perf_counter() - last)))
            now = time.perf_counter()
            if began is not None and now - last > STOOD_STILL_S:
                stood_still.append(round(now - last, 3))
            last = now
        stats, budget = game.stats, game.budget
        assert stats is not None
        assert budget is not None
        before += await round_trips(room, BEFORE_S)  # and who began later is still playing
        return {
            "ticks": stats.ticks, "stalls": stats.stalls, "stalled_ticks": stats.stalled_ticks, "replays": stats.rollbacks,
            "stood_still": stood_still, "events": events, "accused": accused, "checks": checks,
            "kib_per_s": stats.bytes_sent / 1024 / seconds, "tick_us": budget.tick_s * 1e6, "save_us": budget.save_s * 1e6,
            "rtt_before_ms": quiet(before), "rtt_during_ms": quiet(during),
        }  # fmt: skip


def quiet(round_trips: list[float]) -> float:
    """A machine that is busy with others makes the slow ones slower; the quickest tenth is the game's own doing."""
    return statistics.quantiles(round_trips, n=10)[0]


async def round_trips(room: Any, seconds: float) -> list[float]:
    """With the loop as busy as in a game, and nothing to play."""
    found: list[float] = []
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        await trio.sleep(1 / 60)
        found += [peer.rtt_ms for peer in room.connected if peer.rtt_ms is not None]
    return found


def play(players: int, seconds: float) -> list[dict[str, Any]]:
    """What each process told."""
    with sync.open_server(port=0) as server:
        command = [
            sys.executable,
            "-m",
            "tests.room.played_for_real",
            "--players",
            str(players),
            "--seconds",
            str(seconds),
        ]
        running = [
            subprocess.Popen(
                [*command, "--join", server.url, "--number", str(number)], stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
            for number in range(players)
        ]
        told = [process.communicate(timeout=seconds + 90)[0] for process in running]
    return [json.loads(each.splitlines()[-1]) for each in told]


def faults(told: list[dict[str, Any]]) -> list[str]:
    """What must not be. A stall is one of the game's unless somebody's machine stood still just then."""
    found = [
        f"player {number}: {event}"
        for number, each in enumerate(told)
        for event in each["events"]
        if not event.startswith(("Stalled", "Resumed"))
    ]
    found += [f"player {number} accuses: {event}" for number, each in enumerate(told) for event in each["accused"]]
    common = set.intersection(*(set(each["checks"]) for each in told))
    found += [f"tick {at}: other states" for at in sorted(common) if len({each["checks"][at] for each in told}) > 1]
    if len(common) < told[0]["ticks"] / 60:
        found.append(f"only {len(common)} states were compared")
    excused = sum(len(each["stood_still"]) for each in told)
    found += [
        f"player {number} stalled {each['stalls']} times, where machines stood still {excused} times"
        for number, each in enumerate(told)
        if each["stalls"] > excused
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--players", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--join")
    parser.add_argument("--number", type=int, default=0)
    given = parser.parse_args()
    if given.join:
        print(json.dumps(trio.run(player, given.join, given.number, given.players, given.seconds)))
        return
    told = play(given.players, given.seconds)
    for number, each in enumerate(told):
        shown = {name: value for name, value in each.items() if name not in ("checks", "events")}
        print(number, len(each["checks"]), "states", shown)
    print(faults(told) or "no fault")


if __name__ == "__main__":
    main()
