"""A peer that is ICE-lite: it answers checks and sends none (RFC 8445 section 2.5), so we control whoever offers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.webrtc.endpoint import open_endpoint
from psyne_mesh.webrtc.ice import IceParameters, PathSelected
from psyne_mesh.webrtc.ice.binding import binding_answer
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.stun_guard import ICE_CONTROLLING, USE_CANDIDATE, check_stun_untrusted
from tests.ice.fake_net import FakeNet
from tests.ice.helpers import DATA, IN_MEMORY, A, B, World

LITE = IceParameters("lite", "p" * 24, lite=True)


class LitePeer:
    """At B: what was asked of it, and the data that came."""

    def __init__(self, net: FakeNet) -> None:
        self.controlled_by_us: list[bool] = []
        self.nominated = False
        self.data: list[bytes] = []
        self._net = net
        net.sockets[B] = self  # type: ignore[assignment]

    def arrive(self, data: bytes, source: Address) -> None:
        if data[0] > 3:
            self.data.append(data)
            return
        header = check_stun_untrusted(data)
        self.controlled_by_us.append(ICE_CONTROLLING in header.attributes)
        self.nominated |= USE_CANDIDATE in header.attributes
        self._net.carry(binding_answer(header.transaction_id, source, LITE.password.encode()), B, source)


@pytest.mark.parametrize("we_offer", [True, False])
async def test_a_lite_peer_is_nominated_whoever_offers(autojump_clock: MockClock, world: World, we_offer: bool) -> None:
    peer = LitePeer(world.net)
    a = await world.side(A, controlling=we_offer)
    a.transport.add_remote_candidate(f"candidate:1 1 udp 2130706431 {B[0]} {B[1]} typ host")
    a.transport.set_remote(LITE)
    await a.event(PathSelected)
    await a.until(lambda: peer.nominated)
    assert all(peer.controlled_by_us)
    assert a.transport.stats().controlling
    a.transport.send([DATA])
    await a.until(lambda: peer.data == [DATA])
    await a.transport.restart()  # the roles stay
    a.transport.add_remote_candidate(f"candidate:1 1 udp 2130706431 {B[0]} {B[1]} typ host")
    a.transport.set_remote(LITE)
    await a.event(PathSelected, 2)
    assert all(peer.controlled_by_us)


async def test_an_offer_that_says_so_is_believed(autojump_clock: MockClock, net: FakeNet) -> None:
    peer = LitePeer(net)
    lines = ["v=0", "o=- 1 1 IN IP4 192.0.2.2", "s=-", "t=0 0", "a=ice-lite", "a=group:BUNDLE 0",
             "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:0", f"a=ice-ufrag:{LITE.ufrag}",
             f"a=ice-pwd:{LITE.password}", "a=fingerprint:sha-256 " + ":".join(["AA"] * 32), "a=setup:actpass",
             "a=sctp-port:5000", f"a=candidate:1 1 udp 2130706431 {B[0]} {B[1]} typ host", "a=end-of-candidates"]  # fmt: skip
    async with (
        open_endpoint(IN_MEMORY, sockets=net.factory(A)) as endpoint,
        endpoint.open_peer(offerer=False) as answerer,
    ):
        await answerer.create_answer("\r\n".join([*lines, ""]))
        while not peer.data:  # our ClientHello
            await trio.sleep(0.05)
        assert peer.nominated
