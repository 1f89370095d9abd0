"""What a TURN server that refuses is called, in the words of its configuration."""

from __future__ import annotations

import pytest
import trio

from psyne_mesh.webrtc.ice import gather
from tests.ice.servers import turn_server
from tests.ice.test_servers import gathered, kinds, with_turn


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (486, "a quota is used up: of allocations (user-quota, total-quota of coturn)"),
        (508, "it has no port left"),
        (403, "it refuses an allocation: 403 told to"),
    ],
)
async def test_a_full_or_forbidding_server_is_named(code: int, words: str) -> None:
    async with turn_server() as server:
        server.refuse["ALLOCATE"] = code
        async with gathered(with_turn(server)) as (gateway, _):
            (reason,) = gateway.refused.values()
            assert words in reason
            assert str(code) in reason
            assert gateway.problems == gateway.refused


async def test_every_cause_is_told_once_and_forgotten_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "RETRY_INITIAL_S", 0.01)
    told: list[str] = []
    async with turn_server() as server:
        server.refuse["ALLOCATE"] = 486
        async with gathered(with_turn(server)) as (gateway, _):
            gateway.on_refused.append(lambda name, reason: told.append(reason))
            with trio.fail_after(10):
                while server.requests.count("ALLOCATE") < 4:  # asked again and again, told before we listened
                    await trio.sleep(0.01)
                assert told == []
                server.refuse["ALLOCATE"] = 508
                while not told:
                    await trio.sleep(0.01)
                del server.refuse["ALLOCATE"]
                while gateway.refused:
                    await trio.sleep(0.01)
            assert len(told) == 1
            assert not gateway.problems


@pytest.mark.parametrize("times", [1, 2])
async def test_the_first_nonce_may_be_stale_at_once(times: int) -> None:
    """438 to the first request with credentials: servers behind one balancer, or one that takes a nonce once."""
    async with turn_server() as server:
        server.stale_nonces = times
        async with gathered(with_turn(server)) as (gateway, side):
            assert "relay" in kinds(side)
            assert not gateway.problems


async def test_a_server_that_likes_no_nonce_is_given_up() -> None:
    async with turn_server() as server:
        server.stale_nonces = 1000
        async with gathered(with_turn(server)) as (gateway, side):
            assert kinds(side) == ["host"]
            assert "438" in next(iter(gateway.problems.values()))
            assert len(server.requests) < 10
