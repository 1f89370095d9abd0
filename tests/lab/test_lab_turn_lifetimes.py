"""Relayed paths that outlive every clock of TURN: permissions end after 300 s, allocations, channel bindings and nonces
after 600 s (RFC 8656 sections 3.2, 9 and 12), unless they are renewed in time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.lab import Lab, Site, TurnOptions
from tests.lab.play import RemotePlayer, open_players, servers, signaling

pytestmark = pytest.mark.lab

PAIRS = {"udp": ("a", "b"), "tcp": ("c", "d"), "tls": ("e", "f")}
INTERVAL_S = 0.05
SILENCE_S = 1.0  # a lost permission, binding or allocation would be silent for longer
ALLOCATED = "ALLOCATE processed, success"


async def keep_alive(seconds: float, *, server: TurnOptions, turn_clock: float) -> None:
    """A pair over each transport of TURN, with traffic both ways for so long; nothing may be lost or made anew."""
    with Lab([Site(name, "symmetric") for name in "abcdef"], turn_servers={"turn": server}) as lab:
        specs: dict[str, dict[str, Any]] = {}
        for transport, pair in PAIRS.items():
            for name in pair:
                specs[name] = {
                    **servers(lab, name, payload="psyne", turn=True),
                    "turn": lab.turn_uris(name, [transport]),
                    "offerer": name == pair[0],
                    "relay_only": True,
                    "turn_clock": turn_clock,
                }
        async with open_players(lab, specs) as players:
            by_name = {player.name: player for player in players}
            async with trio.open_nursery() as nursery:
                for pair in PAIRS.values():
                    nursery.start_soon(carry, by_name[pair[0]], by_name[pair[1]])
                await connect(players)
                for player in players:
                    await player.tell(do="traffic", interval_ms=1000 * INTERVAL_S)
                await trio.sleep(seconds)
                reports = {player.name: await player.ask(do="report") for player in players}
                nursery.cancel_scope.cancel()
        allocated = lab.coturns["turn"].log().count(ALLOCATED)
    for transport, pair in PAIRS.items():
        for name in pair:
            judge(reports[name], transport, seconds)
    assert allocated == len(specs), f"{allocated} allocations for {len(specs)} players: some were lost"


async def carry(a: RemotePlayer, b: RemotePlayer) -> None:
    async with signaling(a, b):
        await trio.sleep_forever()


async def connect(players: list[RemotePlayer]) -> None:
    await trio.testing.wait_all_tasks_blocked()  # signals have their way
    for player in players:
        await player.tell(do="start")
    with trio.fail_after(30):
        for player in players:
            assert (await player.wait_for("open", "failed"))["event"] == "open", player.events


def judge(answer: dict[str, Any], transport: str, seconds: float) -> None:
    report, path = answer["report"], answer["path"]
    print(f"{transport}: {report}")
    assert (path["local"], path["relay_protocol"]) == ("relay", transport)
    for tally in report.values():
        assert tally["silence_s"] < SILENCE_S, report
        assert tally["doubled"] == 0
        assert tally["received"] == tally["highest"] + 1, "something was lost"
        assert tally["received"] > 0.8 * seconds / INTERVAL_S


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_relayed_path_outlives_all_lifetimes_ten_times_as_fast() -> None:
    """Permissions of 30 s, channels, allocations and nonces of 60 s, a client ten times as quick, and 66 s."""
    lifetimes = (
        *("--permission-lifetime=30", "--channel-lifetime=60", "--max-allocate-lifetime=60", "--stale-nonce=60"),
    )
    await keep_alive(66, server=TurnOptions(extra=lifetimes), turn_clock=10)


@pytest.mark.nightly
@pytest.mark.timeout(900)
async def test_a_relayed_path_outlives_all_lifetimes_of_rfc_8656() -> None:
    await keep_alive(660, server=TurnOptions(extra=("--stale-nonce=600",)), turn_clock=1)
