"""A world whose signaling is the real server and the real clients."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.errors import InvalidConfig, SignalingUnreachable
from psyne_mesh.events import SignalingDown, SignalingUp
from psyne_mesh.testing import open_world


async def wait_for(feed: Any, kind: type[Any]) -> None:
    with trio.fail_after(120):
        async for event in feed:
            if isinstance(event, kind):
                return


async def test_a_room_forms_loses_the_server_and_gets_it_back(autojump_clock: MockClock) -> None:
    async with open_world(seed=3, signaling="real") as world:
        ada, bob = await world.join("den", "ada"), await world.join("den", "bob")
        await ada.wait_connected(1)
        feed, words = ada.events(), bob.channel("words")
        world.server.kill()
        await wait_for(feed, SignalingDown)
        with pytest.raises(SignalingUnreachable):
            await world.join("den", "early")
        await ada.channel("words").send("play goes on")
        assert (await words.receive())[1] == "play goes on"
        world.server.revive()
        await wait_for(feed, SignalingUp)
        cyd = await world.join("den", "cyd")
        with trio.fail_after(60):
            await cyd.wait_connected(2)
        assert {peer.name for peer in cyd.connected} == {"ada", "bob"}
        assert world.server.server is not None
        assert world.server.server.stats.clients == 3


async def test_who_does_not_reach_the_server_is_missed_there_and_comes_back(autojump_clock: MockClock) -> None:
    async with open_world(seed=4, signaling="real") as world:
        ada, bob = await world.join("den", "ada"), await world.join("den", "bob")
        await bob.wait_connected(1)
        feed = ada.events()
        with world.net.cut_signaling("ada"):
            await wait_for(feed, SignalingDown)
            await trio.sleep(40)
            assert world.server.server is not None
            assert world.server.server.stats.clients == 1
            assert [peer.name for peer in ada.connected] == ["bob"], "the link needs no server"
        await wait_for(feed, SignalingUp)
        assert world.server.server.stats.clients == 2


async def test_a_world_says_which_signaling_it_has(autojump_clock: MockClock) -> None:
    async with open_world(signaling="real") as world:
        with pytest.raises(InvalidConfig, match=r"world\.server"):
            _ = world.hub
    async with open_world() as world:
        with pytest.raises(InvalidConfig, match=r"world\.hub"):
            _ = world.server
    with pytest.raises(InvalidConfig, match="signaling"):
        async with open_world(signaling="tcp"):  # type: ignore[arg-type]
            pass
