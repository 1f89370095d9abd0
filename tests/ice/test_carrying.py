"""Checks that carry DTLS go to few addresses: who names candidates does not choose how much they get."""

from __future__ import annotations

from collections import Counter

import trio
from trio.testing import MockClock

from psyne_mesh.webrtc.ice.agent import CARRYING_MAX
from psyne_mesh.webrtc.ice.events import IceParameters
from tests.ice.fake_net import FakeNet
from tests.ice.helpers import A, World

VICTIMS = [f"candidate:1 1 udp {2_130_706_431 - number} 192.0.2.{100 + number} 5000 typ host" for number in range(20)]


class Speaker:
    """A flight of DTLS that nobody ever acknowledges."""

    def attributes(self) -> tuple[bytes, bytes]:
        return b"", bytes([22]) * 900

    def embedded(self, ack: bytes | None, data: bytes) -> None:
        raise AssertionError("nobody answers here")

    def waiting(self) -> int:
        return 8


async def test_many_candidates_get_plain_checks(autojump_clock: MockClock) -> None:
    net = FakeNet()
    async with trio.open_nursery() as nursery:
        side = await World(net, nursery).side(A, controlling=True)
        side.transport.embedder = Speaker()
        side.transport.set_remote(IceParameters("them", "p" * 22))
        for candidate in VICTIMS:
            side.transport.add_remote_candidate(candidate)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    large = Counter(destination for data, _, destination in net.log if len(data) > 800)
    plain = Counter(destination for data, _, destination in net.log if len(data) <= 800)
    assert len(large) == CARRYING_MAX
    assert len(plain) == len(VICTIMS) - CARRYING_MAX
