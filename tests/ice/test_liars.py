"""STUN and TURN servers that answer anything at all, at any moment, end nothing but their own use."""

from __future__ import annotations

import attrs
import pytest
import trio

from psyne_mesh.config import TurnServer
from psyne_mesh.webrtc.ice.probe import probe_network
from tests.ice.helpers import LOOPBACK
from tests.ice.liars import KINDS, Kind, run_one
from tests.room.players import connected, open_party

GARBAGE = b"\xff\xff\xff\xff"


@pytest.mark.parametrize("kind", KINDS)
def test_generated_conversations_raise_nothing(kind: Kind) -> None:
    """50 with each kind of server; `python -m tests.ice.liars` plays 10,000."""
    told = [run_one(seed, kind) for seed in range(50)]
    assert sum(one.connected for one in told) > 25  # else nothing was in play
    assert sum(one.asked for one in told) > 100


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_conversations_raise_nothing(kind: Kind) -> None:
    for seed in range(50, 1050):
        run_one(seed, kind)


async def garbage_server(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
    """Over TCP; four bytes for an answer, whatever the question."""

    async def answer(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(GARBAGE)
            await stream.receive_some()
        except trio.BrokenResourceError:
            pass

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    task_status.started(listeners[0].socket.getsockname()[:2])
    await trio.serve_listeners(answer, listeners)


async def test_four_bytes_of_a_turn_server_do_not_end_the_game() -> None:
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(garbage_server)
        turn = TurnServer(host, port, username="a", credential="b", transport="tcp")
        config = attrs.evolve(LOOPBACK, turn_servers=(turn,), use_ipv6=False)
        async with open_party() as party:
            ada = await party.join(name="ada", config=config)
            bob = await party.join(name="bob")
            await connected(ada, bob)
            problems = ada._core.endpoint.gateway.problems
            with trio.fail_after(10):
                while not problems:
                    await trio.sleep(0.01)
            assert "neither STUN nor ChannelData" in next(iter(problems.values()))
        report = await probe_network(config)
        assert "neither STUN nor ChannelData" in str(report.servers[0].problem)
        nursery.cancel_scope.cancel()
