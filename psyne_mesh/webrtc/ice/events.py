"""What ICE tells the layer above, and the few values that both speak of."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import attrs

from psyne_mesh.frozen import Frozen

CandidateKind: TypeAlias = Literal["host", "srflx", "prflx", "relay"]
PathKind: TypeAlias = Literal["host", "srflx", "prflx", "relay", "peer", "signaling"]
Address: TypeAlias = tuple[str, int]  # numeric IP address and port; IPv6 without flow and scope


@attrs.frozen
class IceParameters:
    """The credentials of one side for one ICE generation (RFC 8839 section 5.4). A restart makes new ones.

    lite: that side only answers checks (RFC 8445 section 2.5).
    """

    ufrag: str
    password: str = attrs.field(repr=False)
    lite: bool = False


class Path(Frozen):
    """The selected pair, as far as this side can know it.

    kind: the costlier of the two ends, so "relay" whenever a relay carries the data and "host" only when both are. The
        last two are no pairs of ICE but tunnels, through a common peer or through the signaling server.
    local: our address as the peer sees it; local_kind and remote_kind say how each end was learnt.
    protocol: what carries the datagrams of a pair, always "udp".
    relay_protocol: how we reach our own relay ("udp", "tcp" or "tls"); None without a relay of ours.
    rtt_s: the last STUN round trip in seconds; None until one was measured.
    rate: bundles of datagrams that may leave for this peer in a second, where a signaling server carries them; None elsewhere.
        What is beyond it is thinned: bulk first, of the rest the oldest.
    """

    kind: PathKind
    local: Address
    remote: Address
    protocol: Literal["udp"] = "udp"
    relay_protocol: Literal["udp", "tcp", "tls"] | None = None
    rtt_s: float | None = None
    local_kind: CandidateKind = "host"
    remote_kind: CandidateKind = "host"
    rate: float | None = None

    def __str__(self) -> str:
        """For people: "direct, 2.4 ms"."""
        ways = {
            "relay": "over a TURN server",
            "peer": "through another player",
            "signaling": "through the signaling server",
        }
        way = ways.get(self.kind, "direct")
        return way if self.rtt_s is None else f"{way}, {self.rtt_s * 1000:.1f} ms"

    @property
    def stays_on_this_machine(self) -> bool:
        """Both ends have the same address, and nothing translates it: the kernel never lets such datagrams out."""
        return self.kind == "host" and self.local[0] == self.remote[0]


class LocalCandidate(Frozen):
    """A candidate was found; `text` is its SDP form, "candidate:..." (RFC 8839 section 5.1). Send it to the peer."""

    text: str


class GatheringComplete(Frozen):
    """No further local candidate of this generation will come. Comes once, after the last `LocalCandidate`."""


class PathSelected(Frozen):
    """Data can flow over `path`. Comes first when ICE connects, again when a better path won, and again when the path
    of a `Disconnected` proved to be alive."""

    path: Path


class Disconnected(Frozen):
    """The selected path has been silent for a while. Either `PathSelected` or `Failed` follows. Sending goes on."""


class PeerStandsStill(Frozen):
    """The peer's loop does not turn, and its process lives: a thread of it says so, a few times a second."""


class Failed(Frozen):
    """ICE gave up: no path was found, or consent to send on it expired (RFC 7675). Nothing follows but a restart."""

    error: Exception


IceEvent: TypeAlias = LocalCandidate | GatheringComplete | PathSelected | Disconnected | PeerStandsStill | Failed


class PairStats(Frozen):
    """One row of the candidate-pair table (RTCIceCandidatePairStats of W3C webrtc-stats). Times in seconds."""

    local: Address
    remote: Address
    local_kind: CandidateKind
    remote_kind: CandidateKind
    state: Literal["frozen", "waiting", "in-progress", "succeeded", "failed"]
    nominated: bool
    selected: bool
    priority: int
    rtt_s: float | None


class IceStats(Frozen, kw_only=True):
    """A snapshot of one transport."""

    generation: int
    controlling: bool
    pairs: tuple[PairStats, ...]
    datagrams_sent: int
    bytes_sent: int
    datagrams_received: int
    bytes_received: int
    datagrams_dropped: int
    consent_checks_sent: int
    consent_checks_answered: int
    remote_candidates_refused: int
    early_dropped: int


class Embedder(Protocol):
    """Who speaks DTLS, where its handshake travels inside checks (draft-hancke-webrtc-sped-00)."""

    def attributes(self) -> tuple[bytes, bytes] | None:
        """The values of ACK and DATA for the next message, DATA empty where there is none; None: neither."""

    def embedded(self, ack: bytes | None, data: bytes) -> None:
        """The values that an authentic message held; ack is None, data empty where there was none."""

    def waiting(self) -> int:
        """How many datagrams are to be carried."""
