"""The network in memory that tests of paths share."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from tests.ice.fake_net import FakeNet
from tests.ice.helpers import World


@pytest.fixture
def net() -> FakeNet:
    return FakeNet()


@pytest.fixture
async def world(net: FakeNet, autojump_clock: MockClock) -> AsyncGenerator[World, None]:
    async with trio.open_nursery() as nursery:
        yield World(net, nursery)
        nursery.cancel_scope.cancel()
