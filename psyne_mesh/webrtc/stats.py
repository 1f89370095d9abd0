"""What one peer connection measured of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from psyne_mesh.frozen import Frozen
from psyne_mesh.webrtc.dtls import DtlsStats
from psyne_mesh.webrtc.ice import IceStats, Path
from psyne_mesh.webrtc.stack import StackStats

PeerState: TypeAlias = Literal["new", "connecting", "connected", "disconnected", "closed"]
ConnectPhase: TypeAlias = Literal["ice-gathering", "signaling", "ice", "dtls", "sctp", "channel"]


class PhaseClock:
    """How long the phases of connecting took. They may overlap: gathering goes on while the offer travels."""

    def __init__(self) -> None:
        self.took_s: dict[ConnectPhase, float] = {}
        self._began: dict[ConnectPhase, float] = {}

    def begin(self, phase: ConnectPhase, now: float) -> None:
        self._began.setdefault(phase, now)

    def end(self, phase: ConnectPhase, now: float) -> None:
        """The first end of a phase that has begun counts."""
        if phase in self._began:
            self.took_s.setdefault(phase, now - self._began[phase])


class PeerStats(Frozen, kw_only=True):
    """A snapshot. Times in seconds, sizes in bytes.

    phase_s: how long each phase of connecting took: "ice-gathering", "signaling" (until the peer's description came),
        "ice", "dtls", "sctp", "channel" (until the first one opened); a phase that has not ended is absent.
    queue_age_s: how long the oldest message has waited to be sent; 0 when none waits.
    dtls: version, cipher suite and group of the key exchange; `None` before there is a path. `dtls.is_post_quantum` says
        whether what is recorded today stays secret from a quantum computer of tomorrow.
    idle_s: since the last authentic packet of the peer; `None` before the first.
    """

    state: PeerState
    path: Path | None
    rtt_s: float | None
    phase_s: Mapping[ConnectPhase, float]
    queue_age_s: float
    idle_s: float | None
    dtls: DtlsStats | None
    ice: IceStats
    stack: StackStats
