"""Two stacks on a path that carries less and less, without a word of ICMP."""

from __future__ import annotations

import pytest

from psyne_mesh.config import DataChannelConfig
from tests.webrtc.pair import Pair


def flow(pair: Pair, seconds: float) -> float:
    """Bulk for so long; the longest silence at the server's side."""
    channel = pair.client.channel("bulk")
    silence, quiet_since, had = 0.0, pair.now, len(pair.server.messages("bulk"))
    end = pair.now + seconds
    while pair.now < end:
        while pair.client.stack.channel_buffered_amount(channel) < 20_000:
            pair.client.stack.send(channel, bytes(5000), pair.now)
        pair.settle(pair.client)
        pair.run(0.05)
        if len(pair.server.messages("bulk")) > had:
            had, quiet_since = len(pair.server.messages("bulk")), pair.now
        silence = max(silence, pair.now - quiet_since)
    return silence


@pytest.mark.parametrize("snap", [False, True])
def test_a_path_that_falls_to_1100_and_600_bytes_carries_on(snap: bool) -> None:
    pair = Pair(rate=100_000, queue_s=0.3, mtu=1500 - 28, snap=snap)
    pair.client.stack.create_channel(DataChannelConfig(label="bulk"), pair.now)
    pair.run(2)
    assert flow(pair, 4) < 1
    for mtu in (1100, 600):
        pair.mtu = mtu - 28
        assert flow(pair, 10) <= 3
    pair.mtu = 1500 - 28
    assert flow(pair, 45) <= 3
    assert pair.client.stack._association.path_mtu == 1435


@pytest.mark.parametrize("mtu", [1100, 576])
@pytest.mark.parametrize("snap", [False, True])
def test_a_hole_from_the_start_lets_them_connect_and_talk(mtu: int, snap: bool) -> None:
    pair = Pair(rate=100_000, queue_s=0.3, mtu=mtu - 28, snap=snap)
    pair.client.stack.create_channel(DataChannelConfig(label="bulk"), pair.now)
    began = pair.now
    pair.run_until(lambda: bool(pair.client.channels), within_s=5)
    assert flow(pair, 8) <= 3
    assert pair.now - began < 20
