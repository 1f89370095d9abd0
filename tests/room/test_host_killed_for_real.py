"""A host's process killed with SIGKILL: the others have one new host, and the state as it was a moment before."""

from __future__ import annotations

import sys

import pytest

from tests.room import host_killed_for_real


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.skipif(sys.platform == "win32", reason="clocks of processes are compared")
@pytest.mark.parametrize("players", [3, 5])
async def test_a_host_that_is_killed_is_followed_by_one(players: int) -> None:
    outcome = await host_killed_for_real.kill_the_host(players)
    assert len(set(outcome.hosts)) == 1
    assert outcome.took_s <= 3.0
    assert outcome.age_s <= 0.25
