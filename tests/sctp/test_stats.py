"""What an association tells about itself, and the settings it takes."""

from __future__ import annotations

import pytest

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.webrtc.sctp import SctpConfig
from tests.sctp.link import LinkConfig, LossyLink
from tests.sctp.raw import RawPeer


def test_both_sides_count_the_same() -> None:
    link = LossyLink(LinkConfig(latency_s=0.01, mtu=1500))
    link.connect()
    for i in range(30):
        link.a.association.send(1, 51, bytes(i * 200 + 1), link.now)
    link.run(3)
    a, b = link.a.association.stats, link.b.association.stats
    assert a.messages_sent == b.messages_received == 30
    assert a.user_bytes_sent == b.user_bytes_received == sum(i * 200 + 1 for i in range(30))
    assert b.packets_received < a.packets_sent == link.counts["a"]  # probes beyond the path MTU are lost
    assert a.bytes_sent > a.user_bytes_sent
    assert b.chunks_received >= 30
    assert (a.state, a.path_mtu, a.interleaving) == ("established", 1435, True)
    assert a.zero_checksum_in
    assert a.zero_checksum_out
    assert a.srtt_s == pytest.approx(0.02, abs=0.01)
    assert a.rto_s >= 0.22
    assert a.flight_bytes == a.buffered_bytes == 0
    assert a.oldest_queued_age_s == 0.0
    assert a.a_rwnd_remote_bytes == b.a_rwnd_local_bytes == 4 * 2**20
    assert a.discarded == b.discarded == {}


def test_losses_and_age_show() -> None:
    peer = RawPeer(a_rwnd=1500)
    peer.association.send(1, 51, bytes(1000), peer.now)
    peer.association.send(1, 51, bytes(1000), peer.now)
    peer.read()
    peer.wait(4.0)
    peer.read()
    stats = peer.association.stats
    assert stats.oldest_queued_age_s == pytest.approx(4.0, abs=0.6)
    assert stats.timeouts == 3
    assert stats.retransmissions == 3
    assert stats.buffered_bytes == 1000
    assert stats.flight_bytes == 1000


@pytest.mark.parametrize(
    "setting",
    [
        {"local_port": 0},
        {"remote_port": 65_536},
        {"streams_max": 0},
        {"receive_window_bytes": 1000},
        {"packet_bytes_base": 100},
        {"packet_bytes_max": 20_000},
        {"packet_bytes_max": 600, "packet_bytes_base": 1191},
        {"packet_bytes_ladder": (1400, 1300)},
        {"rto_initial_s": 0.1},
        {"rto_max_s": 0.3},
        {"ack_delay_max_s": 1.0},
        {"association_retransmits_max": 0},
        {"heartbeat_interval_s": True},
        {"cookie_lifetime_s": "60"},
    ],
)
def test_settings_out_of_bounds_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        SctpConfig(**setting)  # type: ignore[arg-type]


def test_none_means_no_limit_where_it_may() -> None:
    SctpConfig(association_retransmits_max=None, init_retransmits_max=None)
