"""A relay with a quota of bytes a second: large messages take what positions leave, and positions do not notice.

coturn counts by seconds and drops whatever comes after the quota of a second is used up (`max-bps`). Bulk that does not
know uses it up in the first tenths, and the rest of the second is silence, for positions too.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.lab import Lab, Site, TurnOptions
from tests.lab.play import everybody_connected, open_players, servers, signaling

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(120)]

QUOTA = 128_000
FRAME_MS = 1000 / 60
QUIET_S = 3.0
BULK_S = 15.0
BULK_BYTES = 32 * 1024
LIMITED = {"turn": TurnOptions(extra=(f"--max-bps={QUOTA}",))}


def told(lab: Lab, name: str, /, transport: str = "udp", **more: Any) -> dict[str, Any]:
    spec = servers(lab, name, payload="psyne", turn=True)
    return {**spec, "turn": lab.turn_uris(name, [transport]), "relay_only": True, "turn_bytes_per_s": QUOTA, **more}


def judge(quiet: dict[str, Any], busy: dict[str, Any], sent: int, what: str) -> None:
    print(
        f"{what}: {busy['received']} of {sent} positions; ms without bulk p50 {quiet['latency_ms_median']} "
        f"p99 {quiet['latency_ms_p99']}, with bulk p50 {busy['latency_ms_median']} p99 {busy['latency_ms_p99']} "
        f"max {busy['latency_ms_max']}"
    )
    assert busy["received"] >= 0.99 * sent
    assert busy["latency_ms_p99"] < 3 * quiet["latency_ms_median"]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_positions_flow_beside_bulk_within_the_quota_of_a_relay(transport: str) -> None:
    """Over TCP coturn does not drop, it stops reading: without a limit of ours, seconds of bulk wait before a position."""
    with Lab([Site("a", "symmetric"), Site("b", "symmetric")], turn_servers=LIMITED) as lab:
        specs = {name: told(lab, name, transport, offerer=name == "a") for name in ("a", "b")}
        async with open_players(lab, specs) as (a, b), signaling(a, b):
            for player in (a, b):
                await player.tell(do="start")
            with trio.fail_after(30):
                for player in (a, b):
                    assert (await player.wait_for("open", "failed"))["event"] == "open"
            for player in (a, b):
                await player.tell(do="traffic", interval_ms=FRAME_MS, channels=["fast"])
            await trio.sleep(QUIET_S)
            quiet = await b.ask(do="report")
            await a.tell(do="bulk", message_bytes=BULK_BYTES)
            await trio.sleep(BULK_S)
            received, sent = await b.ask(do="report"), await a.ask(do="report")
    bulk = received["report"]["reliable"]["received_bytes"] / BULK_S
    judge(quiet["report"]["fast"], received["report"]["fast"], sent["report"]["fast"]["sent"], f"bulk {bulk:.0f} B/s")
    assert 0.7 * QUOTA < bulk < QUOTA


async def test_in_a_room_all_links_over_one_relay_share_its_quota() -> None:
    """Two receivers of bulk, one allocation: each gets half, and both still get every position."""
    names = ("a", "b", "c")
    with Lab([Site(name, "symmetric") for name in names], turn_servers=LIMITED) as lab:
        url = await trio.to_thread.run_sync(lab.start_signaling)
        specs = {name: told(lab, name, name=name, room="lab", signaling=url) for name in names}
        async with open_players(lab, specs, payload="room") as players:
            with trio.fail_after(60):
                for player in players:
                    await player.tell(do="start")
                for player in players:
                    await everybody_connected(player, set(names) - {player.name})
            for player in players:
                await player.tell(do="traffic", interval_ms=FRAME_MS, channels=["fast"])
            await trio.sleep(QUIET_S)
            quiet = {player.name: await player.ask(do="report") for player in players}
            await players[0].tell(do="bulk", message_bytes=BULK_BYTES)
            await trio.sleep(BULK_S)
            busy = {player.name: await player.ask(do="report") for player in players}
    bulk = sum(busy[name]["report"]["a"]["reliable"]["received_bytes"] for name in ("b", "c")) / BULK_S
    for receiver in names:
        for sender in set(names) - {receiver}:
            before, after = quiet[receiver]["report"][sender]["fast"], busy[receiver]["report"][sender]["fast"]
            judge(before, after, busy[sender]["sent"]["fast"], f"{sender} to {receiver}, bulk {bulk:.0f} B/s")
    assert 0.6 * QUOTA < bulk < QUOTA
    assert busy["a"]["peers"]["b"]["local"] == "relay"
