"""`psyne-mesh doctor`: what works from here, what does not, and what to do about it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import trio
from rich.console import Console
from rich.table import Table

from psyne_mesh.cli.terminal import plain
from psyne_mesh.cli.verdict import Verdict, judge
from psyne_mesh.config import StunServer, TurnServer, WebRTCConfig
from psyne_mesh.nurseries import unwrapped
from psyne_mesh.signaling.probe import SignalingReport, probe_signaling
from psyne_mesh.webrtc.dtls import DtlsAbilities, dtls_abilities
from psyne_mesh.webrtc.ice.behaviour import NatBehaviour
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.probe import NetworkReport, probe_network

NO_SIGNALING = "none"


async def run_doctor(
    stun: Sequence[str], turn: Sequence[str], turn_user: str, turn_credential: str, signaling: str, as_json: bool
) -> int:
    """The exit status: 0 when rooms will work."""
    config = WebRTCConfig(
        stun_servers=[StunServer.parse(uri) for uri in stun],
        turn_servers=[TurnServer.parse(uri, turn_user, turn_credential) for uri in turn],
    )
    reports: list[SignalingReport] = []

    async def ask_signaling() -> None:
        reports.append(await probe_signaling(signaling, wall_clock=datetime.now(UTC)))

    with unwrapped():  # a Ctrl-C or a refusal leaves as itself
        async with trio.open_nursery() as nursery:
            if signaling != NO_SIGNALING:
                nursery.start_soon(ask_signaling)
            network = await probe_network(config)
    met = reports[0] if reports else None
    verdict = judge(network, met, turn_user=turn_user, unix_time=time.time())
    if as_json:
        print(json.dumps(as_dict(network, met, verdict)))  # noqa: T201
    else:
        show(Console(), network, met, verdict)
    return 0 if verdict.ok else 1


def as_dict(network: NetworkReport, signaling: SignalingReport | None, verdict: Verdict) -> dict[str, Any]:
    """The JSON shape: `ok`, `verdict`, `network`, `signaling`, `dtls`, with the fields of those classes."""
    return {
        "ok": verdict.ok,
        "verdict": attrs.asdict(verdict),
        "network": attrs.asdict(network),
        "signaling": None if signaling is None else attrs.asdict(signaling),
        "dtls": attrs.asdict(dtls_abilities()),
    }


def show(console: Console, network: NetworkReport, signaling: SignalingReport | None, verdict: Verdict) -> None:
    _show_addresses(console, network)
    if network.servers:
        _show_servers(console, network)
    for family, behaviour in (("IPv4", network.ipv4), ("IPv6", network.ipv6)):
        if behaviour is not None:
            console.print(f"{family} {plain(_describe(behaviour))}")
    if network.udp is False:
        console.print("[red]no UDP answer came from any server[/red]")
    if signaling is not None:
        _show_signaling(console, signaling)
    one = network.socket
    console.print(
        f"UDP sockets: buffers {one.receive_buffer // 1024} KiB in, {one.send_buffer // 1024} KiB out "
        f"(wanted {one.wanted_buffer // 1024}), receive offload {_yes(one.gro)}, send offload {_yes(one.gso)}"
    )
    console.print(_describe_dtls(dtls_abilities()), soft_wrap=True)
    for line in verdict.advice:
        console.print(f"[yellow]-[/yellow] {plain(line)}", soft_wrap=True)
    console.print(
        f"[bold {'green' if verdict.ok else 'red'}]{'OK' if verdict.ok else 'NO'}[/]: {plain(verdict.summary)}"
    )


def _show_addresses(console: Console, network: NetworkReport) -> None:
    offered = set(network.host_candidates)
    for name, address in network.interfaces:
        told = "told to peers" if address in offered else "[dim]not told to peers[/dim]"
        console.print(f"{plain(name)} {address}: {told}")
    if not network.interfaces:
        console.print("[red]no network address at all[/red]")


def _show_servers(console: Console, network: NetworkReport) -> None:
    table = Table("server", "answer", "ms", "sees us as", "relay")
    for server in network.servers:
        table.add_row(
            plain(server.uri),
            f"[red]{plain(server.problem)}[/red]" if server.problem else "[green]yes[/green]",
            "" if server.took_ms is None else f"{server.took_ms:.1f}",
            "\n".join(plain(_text(address)) for address in server.mapped),
            plain(_text(server.relay)) if server.relay is not None else "",
        )
    console.print(table)


def _show_signaling(console: Console, report: SignalingReport) -> None:
    if report.problem is not None:
        console.print(f"signaling {plain(report.url)}: [red]{plain(report.problem)}[/red]")
        return
    skew = (
        "it does not tell its time" if report.clock_skew_s is None else f"clock {report.clock_skew_s:+.0f} s from ours"
    )
    software = f" ({plain(report.software)})" if report.software else ""
    console.print(
        f"signaling {plain(report.url)}: [green]yes[/green], protocol {report.protocol}{software}, "
        f"{report.connect_ms:.1f} ms to connect, {report.rtt_ms:.1f} ms there and back, {skew}"
    )


def _describe(behaviour: NatBehaviour) -> str:
    mapping = "no translation" if behaviour.mapping == "none" else f"mapping {behaviour.mapping or 'unknown'}"
    filtering = f"filtering {behaviour.filtering or 'unknown'}"
    return f"outside as {_text(behaviour.mapped)}: {mapping}, {filtering} ({behaviour.evidence})"


def _describe_dtls(dtls: DtlsAbilities) -> str:
    if not dtls.is_post_quantum:
        return (
            f"encryption: DTLS {' and '.join(dtls.versions)}, keys by {dtls.groups[0]}; not post-quantum: a recorder with a "
            "later quantum computer could read it. cryptography 48 or later has ML-KEM"
        )
    return (
        f"encryption: DTLS {' and '.join(dtls.versions)}, keys by {dtls.groups[0]} with peers that have it (our own, Chromium, "
        "Firefox): what is recorded today stays secret from a later quantum computer. Identities are ed25519, which is not "
        "post-quantum; peer.stats().dtls tells what a connection has"
    )


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
