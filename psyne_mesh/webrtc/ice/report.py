"""What a transport says about itself: its path, its candidate pairs, and why there is no path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, cast

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import ConnectFailed
from psyne_mesh.webrtc.ice.agent import Agent
from psyne_mesh.webrtc.ice.checks import CheckProtocol
from psyne_mesh.webrtc.ice.events import Address, CandidateKind, PairStats, Path
from psyne_mesh.webrtc.ice.library import ice

if TYPE_CHECKING:
    from psyne_mesh.webrtc.ice.gateway import IceGateway

PAIRS_NAMED_MAX: Final = 10  # in the text of a failure

PairState = Literal["frozen", "waiting", "in-progress", "succeeded", "failed"]
_STATES: Final[dict[ice.CandidatePair.State, PairState]] = {
    ice.CandidatePair.State.FROZEN: "frozen",
    ice.CandidatePair.State.WAITING: "waiting",
    ice.CandidatePair.State.IN_PROGRESS: "in-progress",
    ice.CandidatePair.State.SUCCEEDED: "succeeded",
    ice.CandidatePair.State.FAILED: "failed",
}
_COSTLIEST_FIRST: Final[tuple[CandidateKind, ...]] = ("relay", "prflx", "srflx", "host")


def protocol_of(pair: ice.CandidatePair) -> CheckProtocol:
    """Every pair of an `Agent` stands on a protocol of ours."""
    return cast(CheckProtocol, pair.protocol)


def describe_path(gateway: IceGateway, pair: ice.CandidatePair) -> Path:
    protocol = protocol_of(pair)
    answer = protocol.answers.get(pair.remote_addr)
    local, local_kind = gateway.identify(protocol.base, answer.mapped if answer is not None else None)
    remote_kind = cast(CandidateKind, pair.remote_candidate.type)
    return Path(
        kind=next(kind for kind in _COSTLIEST_FIRST if kind in (local_kind, remote_kind)),
        local=local,
        remote=pair.remote_addr,
        relay_protocol=gateway.relay_protocol(protocol.base),
        rtt_s=answer.rtt_s if answer is not None else None,
        local_kind=local_kind,
        remote_kind=remote_kind,
    )


def describe_pair(gateway: IceGateway, agent: Agent, pair: ice.CandidatePair, *, selected: bool) -> PairStats:
    path = describe_path(gateway, pair)
    return PairStats(
        local=path.local,
        remote=path.remote,
        local_kind=path.local_kind,
        remote_kind=path.remote_kind,
        state=_STATES[pair.state],
        nominated=pair.nominated,
        selected=selected,
        priority=agent.priority(pair),
        rtt_s=path.rtt_s,
    )


def gathering_failure(problems: Mapping[str, str]) -> ConnectFailed:
    advice = _list_problems(problems) or "Check the network, `interfaces` and `bind_host`"
    return ConnectFailed("ice-gathering", "no local candidate was found", advice=advice)


def connect_failure(agent: Agent | None, config: WebRTCConfig, problems: Mapping[str, str]) -> ConnectFailed:
    pairs = agent.pairs if agent is not None else []
    tried = [
        f"{_text(pair.local_addr)} to {_text(pair.remote_addr)} ({_STATES[pair.state]})"
        for pair in pairs[:PAIRS_NAMED_MAX]
    ]
    advice = [] if config.turn_servers else ["A TURN server (turn_servers) connects where NATs do not"]
    if problems:
        advice.append(_list_problems(problems))
    reason = f"no path answered within {config.connection_timeout_s:g} s"
    return ConnectFailed("ice", reason, candidates=tried, advice="; ".join(advice))


def _list_problems(problems: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {problem}" for name, problem in problems.items())


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
