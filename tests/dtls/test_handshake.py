"""Handshakes in virtual time: both roles, every loss, every certificate."""

from __future__ import annotations

import pytest

from psyne_mesh.webrtc.dtls import HandshakeCompleted
from tests.dtls.pair import Pair, lossy

DONE = HandshakeCompleted("ECDHE-ECDSA-AES128-GCM-SHA256", "DTLSv1.2")


@pytest.mark.parametrize("fast", [False, True])
def test_both_sides_complete_and_talk(fast: bool) -> None:
    pair = Pair(fast_records=fast).connect()
    assert pair.events == {"client": [DONE], "server": [DONE]}
    assert pair.now == pytest.approx(0.04)  # four flights of 10 ms
    pair.send("client", b"ping", b"x" * 16384)
    pair.send("server", b"pong")
    pair.run()
    assert pair.packets == {"server": [b"ping", b"x" * 16384], "client": [b"pong"]}


@pytest.mark.parametrize("mtu", [256, 300, 1200])
def test_each_datagram_of_the_handshake_lost_in_turn(mtu: int) -> None:
    n_datagrams = len(Pair(mtu=mtu).connect().sent)
    for lost in range(n_datagrams):
        count = iter(range(10_000))
        pair = Pair(lambda _, d: [] if next(count) == lost else [(0.0, d)], mtu=mtu).connect()
        pair.send("client", b"ping")
        pair.send("server", b"pong")
        pair.run()
        assert pair.packets == {"server": [b"ping"], "client": [b"pong"]}
        assert pair.now < 0.5


@pytest.mark.parametrize("mtu", [300, 1200])
@pytest.mark.parametrize("seed", range(50))
def test_30_percent_loss_and_reordering(seed: int, mtu: int) -> None:
    pair = Pair(lossy(seed, 0.3, jitter=0.03), mtu=mtu).connect(limit=60)
    print(seed, pair.now)
