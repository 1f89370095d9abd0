"""One player of the demo, as a process: `python -m psyne_mesh.cli.player '{...}'`, one JSON object a line both ways.

    stdin    {"do": "join"} -> {"do": "play"} -> {"do": "stop"} -> {"do": "leave"}
    stdout   ready, joined, mesh, status (4 a second), gone (somebody left), final, left

Clock: `time.monotonic_ns()`, which all processes of one machine share (CLOCK_MONOTONIC on Linux and macOS, the
performance counter on Windows). So a latency here is a true one-way time, from the call of `send` to the receiving task.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections import Counter
from typing import Any

import attrs
import trio

from psyne_mesh.errors import RemoteError
from psyne_mesh.room import events
from psyne_mesh.room.channel import Channel
from psyne_mesh.room.mesh import join_game_room
from psyne_mesh.room.messages import Action, CombatAction, PlayerPosition
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.room import Room

TICK_S = 1 / 60
COMBAT_EVERY_S = 2.0
ARENA = 50.0
LATENCY_STEP_US = 50  # width of a histogram cell: percentiles merge across processes without shipping every sample


@attrs.define
class Tally:
    """What one channel did here."""

    sent: int = 0
    received: Counter[str] = attrs.Factory(Counter)
    latency_cells: Counter[int] = attrs.Factory(Counter)
    out_of_order: int = 0
    _last: dict[str, int] = attrs.Factory(dict)

    def count(self, sender: str, sequence: int, sent_ns: int, now_ns: int, *, gapless: bool) -> None:
        last = self._last.get(sender, 0)
        if sequence <= last or (gapless and sequence != last + 1):
            self.out_of_order += 1
        self._last[sender] = max(last, sequence)
        self.received[sender] += 1
        self.latency_cells[max(0, now_ns - sent_ns) // (LATENCY_STEP_US * 1000)] += 1

    def median_ms(self) -> float | None:
        """Of the one-way latencies; the upper edge of the cell that holds it."""
        left = self.latency_cells.total() / 2
        for cell in sorted(self.latency_cells):
            left -= self.latency_cells[cell]
            if left <= 0:
                return (cell + 1) * LATENCY_STEP_US / 1000
        return None

    def report(self) -> dict[str, Any]:
        return {"sent": self.sent, "received": dict(self.received), "cells": dict(self.latency_cells),
                "out_of_order": self.out_of_order}  # fmt: skip


@attrs.define
class Player:
    name: str
    rng: random.Random
    position: Tally = attrs.Factory(Tally)
    combat: Tally = attrs.Factory(Tally)
    health: float = 100.0
    deaths: int = 0
    hits: int = 0
    x: float = 0.0
    z: float = 0.0
    heading: float = 0.0
    left: list[tuple[str, str]] = attrs.Factory(list)
    errors: list[str] = attrs.Factory(list)

    def step(self, sequence: int) -> PlayerPosition:
        """A random walk inside the arena at 5 m/s."""
        self.heading += self.rng.uniform(-0.3, 0.3)
        vx, vz = 5 * math.cos(self.heading), 5 * math.sin(self.heading)
        self.x = max(-ARENA, min(ARENA, self.x + vx * TICK_S))
        self.z = max(-ARENA, min(ARENA, self.z + vz * TICK_S))
        return PlayerPosition(sequence, time.monotonic_ns(), x=self.x, z=self.z, vx=vx, vz=vz, yaw=self.heading,
                              health=int(self.health))  # fmt: skip

    def attack(self, sequence: int, target: str) -> CombatAction:
        return CombatAction(sequence, time.monotonic_ns(), Action.ATTACK, target=target,
                            damage=self.rng.uniform(10, 30), accuracy=self.rng.uniform(0.7, 1))  # fmt: skip

    def suffer(self, action: CombatAction) -> None:
        if self.rng.random() > action.accuracy:
            return
        self.hits += 1
        self.health -= action.damage
        if self.health <= 0:
            self.deaths += 1
            self.health = 100.0


async def play(settings: dict[str, Any]) -> None:
    commands_in, commands = trio.open_memory_channel[str](8)
    player = Player(settings["name"], random.Random(settings["seed"]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_commands, commands_in)
        say("ready")
        await _expect(commands, "join")
        started = time.monotonic_ns()
        async with join_game_room(
            settings["room"], max_players=settings["players"], region="demo", skill_range=(1200, 1400),
            signaling=settings["signaling"], player_name=player.name,
        ) as room:  # fmt: skip
            say("joined", started=started)
            await _in_room(room, player, settings, commands)
        say("left")
        nursery.cancel_scope.cancel()


async def _in_room(
    room: Room, player: Player, settings: dict[str, Any], commands: trio.MemoryReceiveChannel[str]
) -> None:
    positions = room.channel("position", PlayerPosition, mode="unreliable")
    combat = room.channel("combat", CombatAction, mode="reliable")

    @room.on_peer_left
    def gone(peer: Peer, reason: str) -> None:
        player.left.append((peer.name, reason))
        say("gone", who=peer.name, why=reason, at=time.monotonic_ns())

    room.on(events.PeerUnreachable, lambda event: player.errors.append(str(event.error)))
    room.on(events.TamperingDetected, lambda event: player.errors.append(event.reason))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hear_positions, positions, player)
        nursery.start_soon(_hear_combat, combat, player, str(room.me))
        nursery.start_soon(_tell_status, room, player)
        await room.wait_connected(settings["players"] - 1)
        say("mesh", complete=time.monotonic_ns(), paths=_paths(room))
        await _expect(commands, "play")
        async with trio.open_nursery() as playing:
            playing.start_soon(_send_positions, positions, player)
            playing.start_soon(_send_combat, combat, player, room)
            await _expect(commands, "stop")
            playing.cancel_scope.cancel()
        await trio.sleep(settings["drain_s"])
        say("final", position=player.position.report(), combat=player.combat.report(), left=player.left,
            errors=player.errors, **_status(room, player))  # fmt: skip
        await _expect(commands, "leave")
        nursery.cancel_scope.cancel()


async def _send_positions(channel: Channel[PlayerPosition], player: Player) -> None:
    tick = trio.current_time()
    for sequence in range(1, sys.maxsize):
        player.position.sent += channel.send_nowait(player.step(sequence)).sent
        tick += TICK_S
        await trio.sleep_until(tick)


async def _send_combat(channel: Channel[CombatAction], player: Player, room: Room) -> None:
    await trio.sleep(player.rng.uniform(0, 0.5))
    for sequence in range(1, sys.maxsize):
        target = player.rng.choice(room.connected).id if room.connected else ""
        player.combat.sent += (await channel.send(player.attack(sequence, target))).sent
        await trio.sleep(COMBAT_EVERY_S)


async def _hear_positions(channel: Channel[PlayerPosition], player: Player) -> None:
    async for sender, message in channel:
        player.position.count(sender.id, message.sequence, message.timestamp_ns, time.monotonic_ns(), gapless=False)


async def _hear_combat(channel: Channel[CombatAction], player: Player, me: str) -> None:
    async for sender, message in channel:
        player.combat.count(sender.id, message.sequence, message.timestamp_ns, time.monotonic_ns(), gapless=True)
        if message.target == me:
            player.suffer(message)


async def _tell_status(room: Room, player: Player) -> None:
    while True:
        say("status", **_status(room, player))
        await trio.sleep(0.25)


def _status(room: Room, player: Player) -> dict[str, Any]:
    rtts = sorted(peer.rtt_ms for peer in room.connected if peer.rtt_ms is not None)
    return {
        "links": len(room.connected),
        "paths": _paths(room),
        "rtt_ms": rtts[len(rtts) // 2] if rtts else None,
        "positions_in": sum(player.position.received.values()),
        "positions_out": player.position.sent,
        "combat_in": sum(player.combat.received.values()),
        "latency_ms": player.position.median_ms(),
        "x": round(player.x, 1),
        "z": round(player.z, 1),
        "health": round(player.health),
        "hits": player.hits,
        "deaths": player.deaths,
    }


def _paths(room: Room) -> Counter[str]:
    return Counter(peer.path.kind if peer.path else "?" for peer in room.connected)


async def _read_commands(commands: trio.MemorySendChannel[str]) -> None:
    async with commands:
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await commands.send(json.loads(line)["do"])


async def _expect(commands: trio.MemoryReceiveChannel[str], wanted: str) -> None:
    async for command in commands:
        if command == wanted:
            return
    raise SystemExit(f"the demo ended before it said {wanted!r}")


def say(kind: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"type": kind, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        trio.run(play, json.loads(sys.argv[1]))
    except RemoteError as error:
        say("failed", error=str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
