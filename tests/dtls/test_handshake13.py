"""Handshakes of DTLS 1.3 in virtual time."""

from __future__ import annotations

import pytest

from psyne_mesh.webrtc.dtls import HandshakeCompleted
from psyne_mesh.webrtc.dtls.handshake13 import groups
from tests.dtls.pair import LATENCY, losing, lossy
from tests.dtls.pair13 import CLASSIC, Pair13, talk

DONE = HandshakeCompleted("TLS_AES_128_GCM_SHA256", "DTLSv1.3", "X25519MLKEM768", True)


def test_a_client_is_through_after_one_round_trip_a_server_after_one_and_a_half() -> None:
    pair = Pair13()
    pair.connect()
    assert pair.events == {"client": [DONE], "server": [DONE]}
    assert pair.client.stats.handshake_s == pytest.approx(2 * LATENCY)
    assert pair.now == pytest.approx(3 * LATENCY)
    talk(pair)
    assert pair.client.next_timeout() is None
    assert pair.server.next_timeout() is None


@pytest.mark.parametrize("allowed", [groups.GROUPS, CLASSIC], ids=["ML-KEM", "classic"])
@pytest.mark.parametrize("mtu", [256, 1200])
def test_each_two_datagrams_lost(mtu: int, allowed: tuple[int, ...]) -> None:
    n = len(Pair13(mtu=mtu, allowed_groups=allowed).connect().run(1).sent) + 2
    for first in range(n):
        for second in range(first + 1, n):
            pair = Pair13(losing(first, second), mtu=mtu, allowed_groups=allowed).connect().run(3)
            pair.wire = losing()
            assert pair.client._last_flight is None
            talk(pair)


@pytest.mark.parametrize("seed", range(30))
def test_30_percent_loss_with_reordering(seed: int) -> None:
    pair = Pair13(lossy(seed, 0.3, jitter=0.03)).connect(limit=60)
    pair.wire = losing()
    talk(pair)
