"""What the layer below tells of its paths: a new one, or the old one again after a silence."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp.config import SctpConfig
from psyne_mesh.webrtc.sctp.rto import RtoEstimator


def test_a_changed_path_ends_the_back_off() -> None:
    rto = RtoEstimator(SctpConfig())
    rto.path_changed()
    assert rto.rto == SctpConfig().rto_initial_s
    rto.measured(0.05)
    before = rto.rto
    for _ in range(4):
        rto.expired()
    assert rto.rto > 4 * before
    rto.path_changed()
    assert rto.rto == before
