"""How the NATs and firewalls before us behave (RFC 4787), found out by asking STUN servers (RFC 5780)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.ice.candidates import may_check
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.inquiry import CHANGE_IP, CHANGE_PORT, Answer, inquire, open_inquiry_port
from psyne_mesh.webrtc.ice.port import Base, SocketBase, UdpPort
from psyne_mesh.webrtc.ice.stun_client import family_of, source_towards
from psyne_mesh.webrtc.ice.udp import SocketFactory

# "none": no translation at all. "endpoint-dependent": one of the last two, and the servers could not tell which.
Mapping = Literal[
    "none", "endpoint-independent", "address-dependent", "address-and-port-dependent", "endpoint-dependent"
]
Filtering = Literal["endpoint-independent", "address-dependent", "address-and-port-dependent"]

QUIET_MIN_S = 0.2  # between repeated questions whose answer may be kept from us; at least two round trips
QUIET_STEPS = (1, 1, 2)
REFUSALS = (ProtocolError, OSError)  # a server or our own system says no: that shows nothing about a NAT


@attrs.frozen(kw_only=True)
class NatBehaviour:
    """Of one address family. None: the servers could not show it.

    mapped: our outside address. evidence: how it was found out, for people.
    """

    mapped: Address
    mapping: Mapping | None
    filtering: Filtering | None
    evidence: str


async def find_behaviour(
    port: UdpPort,
    base: SocketBase,
    answers: Sequence[Answer],
    config: WebRTCConfig,
    sockets: SocketFactory | None,
) -> NatBehaviour:
    """What `answers` (at least one), which servers gave to `base`, and further questions to the same servers tell.

    Filtering is asked from a socket of its own: towards ours, the questions about mapping have opened every hole.
    """
    for answer in answers:
        second, third = await _ask_alternate(port, base, answer)
        if second is None or third is None:
            continue
        return NatBehaviour(
            mapped=answer.mapped,
            mapping=_mapping(base, answer, second, third),
            filtering=await _find_filtering(base, answer, config, sockets),
            evidence=f"RFC 5780 tests with {answer.server[0]}",
        )
    mapping, evidence = _compare(base, answers)
    return NatBehaviour(mapped=answers[0].mapped, mapping=mapping, filtering=None, evidence=evidence)


def usable_alternate(answer: Answer) -> Address | None:
    """The server's other address, if it differs in address and port as RFC 5780 section 7.4 wants, and is a place that
    we may be sent to."""
    server, other = answer.server, answer.other
    if other is None or other[0] == server[0] or other[1] in (server[1], 0):
        return None
    return other if family_of(other[0]) == family_of(server[0]) and may_check(other[0], loopback=True) else None


async def _ask_alternate(port: UdpPort, base: Base, first: Answer) -> tuple[Answer | None, Answer | None]:
    """Tests II and III of RFC 5780 section 4.3. They show as well that the other address is alive, without which
    silence in the tests of filtering would mean nothing."""
    other = usable_alternate(first)
    if other is None:
        return None, None
    try:
        second = await _ask(port, base, (other[0], first.server[1]), first)
        return second, await _ask(port, base, other, first) if second is not None else None
    except REFUSALS:
        return None, None


def _mapping(base: SocketBase, first: Answer, second: Answer, third: Answer) -> Mapping:
    if second.mapped == first.mapped == third.mapped:
        return "none" if _is_ours(base, first) else "endpoint-independent"
    return "address-dependent" if second.mapped == third.mapped else "address-and-port-dependent"


def _compare(base: SocketBase, answers: Sequence[Answer]) -> tuple[Mapping | None, str]:
    """Without RFC 5780: whether servers at different addresses see the same."""
    if _is_ours(base, answers[0]):
        return "none", f"{answers[0].server[0]} sees our own address"
    by_host = {answer.server[0]: answer for answer in answers}
    if len(by_host) < 2:
        return None, "one STUN server alone, which does not speak RFC 5780"
    evidence = f"compared {len(by_host)} STUN servers"
    if len({answer.mapped for answer in by_host.values()}) == 1:
        return "endpoint-independent", evidence
    return "endpoint-dependent", evidence


async def _find_filtering(
    base: SocketBase, known: Answer, config: WebRTCConfig, sockets: SocketFactory | None
) -> Filtering | None:
    """RFC 5780 section 4.4."""
    async with open_inquiry_port(config, sockets) as port:
        fresh = next((b for b in port.bases if b.address[0] == base.address[0]), None)
        try:
            if fresh is None or await _ask(port, fresh, known.server, known) is None:
                return None
            changed = await _ask(port, fresh, known.server, known, CHANGE_IP | CHANGE_PORT)
            if changed is not None:
                # A server that ignores CHANGE-REQUEST answers from where it was asked, which shows nothing.
                return "endpoint-independent" if changed.source[0] != known.server[0] else None
            changed = await _ask(port, fresh, known.server, known, CHANGE_PORT)
        except REFUSALS:  # RFC 8489 section 6.3.1: 420 when it does not know CHANGE-REQUEST
            return None
        if changed is None:
            return "address-and-port-dependent"
        return "address-dependent" if changed.source != known.server else None


async def _ask(port: UdpPort, base: Base, server: Address, known: Answer, change: int = 0) -> Answer | None:
    quiet_s = max(QUIET_MIN_S, 2 * known.rtt_s)
    return await inquire(port, base, server, change=change, waits_s=[step * quiet_s for step in QUIET_STEPS])


def _is_ours(base: SocketBase, answer: Answer) -> bool:
    return source_towards(base.address, answer.server) == answer.mapped
