"""A hundred players through one coturn, and what it says when it is full."""

from __future__ import annotations

import math
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.lab import Lab, Site, TurnOptions
from tests.lab.coturn import PASSWORD, USER
from tests.lab.play import SIGNAL_DELAY_S, RemotePlayer, open_players

pytestmark = pytest.mark.lab

PLAYERS = 100
SITES = {"a": "open", "b": "port-restricted", "c": "symmetric", "d": "double-symmetric"}
CONNECT_S = 60.0  # on a busy machine; an ordinary one needs a tenth
PLAY_S = 10.0
INTERVAL_S = 0.2
ALLOCATED = "ALLOCATE processed, success"
REFUSED = "ALLOCATE processed, error"
QUOTA = 6


def specs_of(lab: Lab, players: int) -> dict[str, dict[str, Any]]:
    """A ring: everybody has two neighbours, each at another site."""
    edges = [(number, (number + 1) % players) for number in range(players)]
    spec: dict[str, dict[str, Any]] = {}
    for place, site in enumerate(SITES):
        numbers = list(range(place, players, len(SITES)))
        spec[site] = {
            "turn": lab.turn_uris(site, ["udp"]),
            "username": USER,
            "credential": PASSWORD,
            "numbers": numbers,
            "edges": [edge for edge in edges if set(edge) & set(numbers)],
        }
    return spec


@asynccontextmanager
async def switchboard(players: list[RemotePlayer]) -> AsyncIterator[None]:
    """Carries signals to the process that holds the player they are for."""
    homes = {number: player for place, player in enumerate(players) for number in range(place, PLAYERS, len(players))}
    send, receive = trio.open_memory_channel[tuple[float, Any]](math.inf)
    for player in players:
        player.on_signal = lambda signal: send.send_nowait((trio.current_time() + SIGNAL_DELAY_S, signal))

    async def carry() -> None:
        async for due, signal in receive:
            await trio.sleep_until(due)
            await homes[signal["to"]].tell(signal=signal)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry)
        yield
        nursery.cancel_scope.cancel()


async def settled(players: list[RemotePlayer], seats: int) -> list[dict[str, Any]]:
    """What became of every end of every edge."""
    while True:
        events = [e for player in players for e in player.events if e.get("event") in ("open", "failed")]
        if len(events) >= seats:
            return events
        await trio.sleep(0.05)


async def connect(players: list[RemotePlayer], seats: int) -> list[dict[str, Any]]:
    for player in players:
        await player.tell(do="start")
    with trio.fail_after(CONNECT_S):
        return await settled(players, seats)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_hundred_players_play_through_one_coturn() -> None:
    sites = [Site(name, kind) for name, kind in SITES.items()]
    with Lab(sites) as lab:
        async with open_players(lab, specs_of(lab, PLAYERS), payload="crowd") as players, switchboard(players):
            started = trio.current_time()
            events = await connect(players, 2 * PLAYERS)
            took_s = trio.current_time() - started
            for player in players:
                await player.tell(do="traffic", interval_ms=1000 * INTERVAL_S)
            await trio.sleep(PLAY_S)
            for player in players:
                await player.tell(do="stop")
            await trio.sleep(1)
            answers = [await player.ask(do="report") for player in players]
        log = lab.coturns["turn"].log()
    seats = [seat for answer in answers for seat in answer["report"]]
    opened = [event for event in events if event["event"] == "open"]
    received, sent = sum(seat["received"] for seat in seats), sum(seat["sent"] for seat in seats)
    print(
        f"{PLAYERS} players, {len(opened)} of {2 * PLAYERS} ends of {PLAYERS} connections open {took_s:.1f} s after the "
        f"start; {received} of {sent} messages, median latency "
        f"{statistics.median(seat['latency_ms_median'] for seat in seats):.0f} ms; coturn: "
        f"{log.count(ALLOCATED)} allocations, {log.count(REFUSED)} refused"
    )
    assert [event for event in events if event["event"] == "failed"] == []
    assert {event["local"] for event in opened} == {"relay"}
    assert log.count(ALLOCATED) == PLAYERS  # one each, whatever the number of peers
    assert not any(answer["problems"] for answer in answers)
    assert received == sent
    assert not any(seat["doubled"] for seat in seats)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_full_coturn_is_named_and_harms_nobody_who_is_in() -> None:
    sites = [Site(name, kind) for name, kind in SITES.items()]
    players_wanted = QUOTA + 2
    with Lab(sites, turn_servers={"turn": TurnOptions(extra=(f"--user-quota={QUOTA}",))}) as lab:
        async with (
            open_players(lab, specs_of(lab, players_wanted), payload="crowd") as players,
            switchboard(players),
        ):
            events = await connect(players, 2 * players_wanted)
            answers = [await player.ask(do="report") for player in players]
        log = lab.coturns["turn"].log()
    problems = [text for answer in answers for found in answer["problems"].values() for text in found.values()]
    assert log.count(ALLOCATED) == QUOTA
    assert len(problems) == 2
    for text in problems:
        assert "a quota is used up" in text
    failed = [event for event in events if event["event"] == "failed"]
    assert 0 < len(failed) < len(events)
    assert any("486" in event["error"] for event in failed)
