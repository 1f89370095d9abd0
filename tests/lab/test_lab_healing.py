"""What breaks in the middle of a game heals by itself: in seconds, and without a reliable message lost or doubled."""

from __future__ import annotations

import statistics

import pytest

from tests.lab.healing import BREAKS, REPLAYED_MS, Break, Healing, run_break

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(180)]

MEDIAN_S = 3.0  # from when traffic is possible again
SLOWEST_S = 8.0  # a search for a path that came a moment too early waits for the next
HARMLESS = ("signaling server killed", "30 % loss one way for 5 s")

found: dict[str, Healing] = {}


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.name)
async def test_a_game_heals(broken: Break) -> None:
    healing = found[broken.name] = await run_break(broken)
    print(f"{broken.name}: {healing.outage_s} s, {healing.path_before} to {healing.path_after}")
    print(f"oldest unreliable message {healing.replayed_ms:.0f} ms; then a saw {' '.join(healing.events) or 'nothing'}")
    assert healing.intact, healing
    assert healing.outage_s <= (0.5 if broken.name in HARMLESS else SLOWEST_S)
    assert healing.replayed_ms <= REPLAYED_MS


def test_most_breaks_cost_less_than_three_seconds() -> None:
    outages = [healing.outage_s for healing in found.values() if healing.name not in HARMLESS]
    if len(outages) < len(BREAKS) - len(HARMLESS):
        pytest.skip("only a part of the breaks was run")
    print(f"median {statistics.median(outages)} s of {sorted(outages)}")
    assert statistics.median(outages) <= MEDIAN_S
