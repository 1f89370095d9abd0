"""From what was measured to plain words: which rooms will work, and what to configure next. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs

from psyne_mesh.signaling.probe import SignalingReport
from psyne_mesh.webrtc.ice.behaviour import NatBehaviour
from psyne_mesh.webrtc.ice.probe import NetworkReport, ServerReport

# The names that players know, by what they are for ICE. "firewall": no translation, but not everybody comes in.
NatKind = Literal[
    "open", "firewall", "full-cone", "address-restricted", "port-restricted", "symmetric", "udp-blocked", "unknown"
]
Otherwise = Literal["relay", "tunnel", "nothing"]

PORT_FILTERING: Final = ("port-restricted", "symmetric")
PLAYERS: Final = ("open", "full-cone", "address-restricted", *PORT_FILTERING)  # whom we may meet
SKEW_MAX_S: Final = 30.0  # time-limited TURN credentials live for minutes to hours
_CONE: Final = {
    "endpoint-independent": "full-cone",
    "address-dependent": "address-restricted",
    "address-and-port-dependent": "port-restricted",
}


@attrs.frozen(kw_only=True)
class Verdict:
    """ok: rooms will work. summary: how, or why not.

    nat: ours over IPv4. direct_with: the kinds of NAT behind which players are reached without a relay (RFC 5128
    section 3), empty when unknown. otherwise: what carries the rest; "tunnel" is a common peer or the signaling server.
    """

    ok: bool
    summary: str
    nat: NatKind
    direct_with: tuple[str, ...]
    direct_over_ipv6: bool
    otherwise: Otherwise
    advice: tuple[str, ...]


def judge(
    network: NetworkReport, signaling: SignalingReport | None, *, turn_user: str = "", unix_time: float = 0.0
) -> Verdict:
    """signaling: None when it was not asked about."""
    nat = classify(network.ipv4, network.udp)
    direct_with = reachable(nat, network.ipv4)
    over_ipv6 = network.ipv6 is not None and network.ipv6.mapping in ("none", "endpoint-independent")
    has_relay = any(server.relay is not None for server in network.servers)
    otherwise: Otherwise = "relay" if has_relay else "tunnel"
    if not has_relay and (signaling is None or signaling.problem is not None):
        otherwise = "nothing"
    ok, summary = _outcome(network, signaling, nat, direct_with, over_ipv6, otherwise)
    advice = (
        *_about_servers(network, turn_user, unix_time),
        *_about_nat(network, nat, has_relay),
        *_about_machine(network, signaling),
        *_to_configure(network),
    )
    return Verdict(
        ok=ok,
        summary=summary,
        nat=nat,
        direct_with=direct_with,
        direct_over_ipv6=over_ipv6,
        otherwise=otherwise,
        advice=advice,
    )


def classify(behaviour: NatBehaviour | None, udp: bool | None) -> NatKind:
    if behaviour is None:
        return "udp-blocked" if udp is False else "unknown"
    if behaviour.mapping is None:
        return "unknown"
    if behaviour.mapping == "none":
        return "open" if behaviour.filtering == "endpoint-independent" else "firewall"
    if behaviour.mapping == "endpoint-independent":
        # Filtering unknown: the commonest, which is also the one that promises least.
        return _CONE[behaviour.filtering or "address-and-port-dependent"]  # type: ignore[return-value]
    return "symmetric"


def reachable(nat: NatKind, behaviour: NatBehaviour | None) -> tuple[str, ...]:
    """Which players of `PLAYERS` ICE joins with us directly: two that need each other's exact port never meet."""
    if behaviour is None or nat == "unknown":
        return ()
    if nat == "symmetric":
        return tuple(player for player in PLAYERS if player not in PORT_FILTERING)
    if behaviour.filtering in ("endpoint-independent", "address-dependent"):
        return PLAYERS
    return tuple(player for player in PLAYERS if player != "symmetric")


def udp_is_blocked(network: NetworkReport) -> bool:
    """No UDP answer, and it is not that the servers are dead: one gave a relay over TCP or TLS."""
    relays = [server for server in network.servers if server.relay is not None]
    return network.udp is False and any(server.transport != "udp" for server in relays)


# ------------------------------------------------------------------------------------------------------------- summary


def _outcome(
    network: NetworkReport,
    signaling: SignalingReport | None,
    nat: NatKind,
    direct_with: tuple[str, ...],
    over_ipv6: bool,
    otherwise: Otherwise,
) -> tuple[bool, str]:
    rest = {
        "relay": "everybody else over your TURN server",
        "tunnel": "everybody else only through a common peer or, slowly, through the signaling server",
        "nothing": "nobody else: there is neither a TURN server nor signaling to carry the rest",
    }[otherwise]
    if signaling is not None and signaling.problem is not None:
        return False, f"No room can be entered: {signaling.problem}"
    if not any(not _is_loopback(host) for host in network.host_candidates):
        if signaling is not None and _is_loopback(urlsplit(signaling.url).hostname or ""):
            return True, "Rooms work among players on this machine; it has no other network address."
        if otherwise == "nothing":
            return False, "This machine has no network address but loopback."
    if nat == "udp-blocked" and not over_ipv6:
        if otherwise == "nothing":
            return False, "No UDP answer came back and no TURN server over TCP or TLS works: no player can be reached."
        way = "your TURN server" if otherwise == "relay" else "a common peer or, slowly, the signaling server"
        cause = (
            "UDP does not get out" if udp_is_blocked(network) else "No UDP answer came back (blocked, or servers down)"
        )
        return True, f"{cause}: players outside your network are reached through {way}."
    if nat == "unknown" and not over_ipv6:
        where = "in your own network directly"
        return True, f"Rooms work with players {where}; {rest}, unless your NAT is better than what was seen of it."
    six = ", and every player with IPv6" if over_ipv6 else ""
    if direct_with == PLAYERS:
        return True, f"Direct with every player whose UDP is not blocked{six}; {rest}."
    if not direct_with:
        return True, f"Direct with every player with IPv6; {rest}."
    return True, f"Direct with players behind these NATs: {', '.join(direct_with)}{six}; {rest}."


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -------------------------------------------------------------------------------------------------------------- advice


def _about_servers(network: NetworkReport, turn_user: str, unix_time: float) -> list[str]:
    blocked = udp_is_blocked(network)
    return [_about_server(server, turn_user, unix_time, blocked) for server in network.servers if server.problem]


def _about_server(server: ServerReport, turn_user: str, unix_time: float, blocked: bool) -> str:
    problem = server.problem or ""
    expiry = turn_user.partition(":")[0]  # of time-limited credentials: "unix time:name"
    if "401" in problem and not turn_user:
        advice = "it wants a user name and a credential: --turn-user, --turn-credential"
    elif "401" in problem and expiry.isdigit() and 0 < int(expiry) < unix_time:
        advice = f"its time-limited credential ended {unix_time - int(expiry):.0f} s ago: get a new one"
    elif "401" in problem:
        advice = "it refuses the user name or the credential: check both"
    elif "486" in problem:
        advice = "your user's quota of allocations is used up"
    elif "resolver" in problem or "Name or service" in problem or "nodename" in problem:
        advice = "its name cannot be found: check the spelling and your DNS"
    elif problem.startswith("TLS"):
        advice = "the connection stands but TLS does not: is the certificate valid for this name, and is it a TLS port?"
    elif server.transport == "udp" and blocked:
        advice = "UDP reaches nobody while TCP reaches a TURN server: a firewall here lets no UDP out"
    elif server.udp:
        advice = "it answers STUN but allocates nothing: is it a TURN server?"
    else:
        advice = "is it running, is the port right, and does a firewall let us through?"
    return f"{server.uri}: {problem}; {advice}"


def _about_nat(network: NetworkReport, nat: NatKind, has_relay: bool) -> list[str]:
    advice = []
    if network.udp is None and not any(server.kind == "stun" for server in network.servers):
        advice.append("Name a STUN server (--stun stun:HOST) to learn about your NAT")
    elif nat == "unknown" and network.ipv4 is not None:
        advice.append(
            "Name a second STUN server, or one with RFC 5780 (coturn with two addresses), to learn your NAT's kind"
        )
    if nat == "udp-blocked" and not has_relay:
        advice.append("Configure a TURN server over TLS on port 443 (turns:HOST:443): firewalls seldom close that")
    elif nat in ("symmetric", "port-restricted", "firewall", "unknown") and not has_relay:
        advice.append("Configure a TURN server (turn:HOST) for the players whom no direct path reaches")
    return advice


def _about_machine(network: NetworkReport, signaling: SignalingReport | None) -> list[str]:
    one, advice = network.socket, []
    if min(one.receive_buffer, one.send_buffer) < one.wanted_buffer // 2:
        granted = min(one.receive_buffer, one.send_buffer) // 1024
        advice.append(
            f"UDP buffers are {granted} KiB; bursts will be lost. Linux: "
            f"sysctl -w net.core.rmem_max={one.wanted_buffer} net.core.wmem_max={one.wanted_buffer}"
        )
    skew_s = signaling.clock_skew_s if signaling is not None else None
    if skew_s is not None and abs(skew_s) > SKEW_MAX_S:
        late = "behind" if skew_s > 0 else "ahead of"
        advice.append(
            f"Your clock is {abs(skew_s):.0f} s {late} the signaling server's; certificates and credentials depend on it"
        )
    return advice


def _to_configure(network: NetworkReport) -> list[str]:
    stun = [server.uri for server in network.servers if server.kind == "stun" and not server.problem]
    turn = [server.uri for server in network.servers if server.relay is not None]
    parts = [f"stun_servers={stun}"] if stun else []
    if turn:
        calls = ", ".join(f"TurnServer.parse({uri!r}, username, credential)" for uri in turn)
        parts.append(f"turn_servers=[{calls}]")
    return [f"Give your game what works: WebRTCConfig({', '.join(parts)})"] if parts else []
