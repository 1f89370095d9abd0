"""The lab is what it says: NAT behaviour, delay, loss and order, measured from inside, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab, Shape, Site
from tests.lab.namespaces import REPOSITORY, Namespaces
from tests.lab.probing import PROBE, STUN_PORT, nat_of, ping, start_echo
from tests.lab.topology import KINDS

pytestmark = pytest.mark.lab

DELAY_MS = 15.0
# Mapping and filtering of each kind over IPv4, in the words of probe.py.
BEHAVIOUR = {
    "open": ("none", "EIF"),
    "full-cone": ("EIM", "EIF"),
    "address-restricted": ("EIM", "ADF"),
    "port-restricted": ("EIM", "APDF"),
    "symmetric": ("APDM", "APDF"),
    "double-cone": ("EIM", "APDF"),
    "double-symmetric": ("APDM", "APDF"),
    "udp-blocked": (None, None),
    "udp-rejected": (None, None),
    "dual-stack": ("EIM", "APDF"),
    "dual-symmetric": ("APDM", "APDF"),
}
BEHAVIOUR6 = {
    "ipv6-open": ("none", "EIF"),
    "ipv6-only": ("none", "APDF"),
    "dual-stack": ("none", "APDF"),
    "dual-symmetric": ("none", "APDF"),
}
NATDISCOVERY = {
    "none": "Endpoint Independent Mapping",
    "EIM": "Endpoint Independent Mapping",
    "APDM": "Address and Port Dependent Mapping",
    "EIF": "Endpoint Independent Filtering",
    "ADF": "Address Dependent Filtering",
    "APDF": "Address and Port Dependent Filtering",
}


@pytest.fixture(scope="module")
def world() -> Iterator[Lab]:
    """One site of every kind, an echo server at `sig`."""
    with Lab([Site(f"s{n}", kind) for n, kind in enumerate(KINDS)], shape=Shape(delay_ms=DELAY_MS)) as lab:
        start_echo(lab, "sig", lab.plan.servers["sig"].addresses4[0])
        yield lab


def player_of(lab: Lab, kind: str) -> str:
    return next(site.name for site in lab.plan.sites.values() if site.kind == kind)


def ping_sig(lab: Lab, player: str, count: int = 60, interval_ms: float = 3.0) -> dict[str, Any]:
    return ping(lab, player, lab.plan.servers["sig"].addresses4[0], count, interval_ms)


# ------------------------------------------------------------------------------------------------------------- behaviour


@pytest.fixture(scope="module")
def findings(world: Lab) -> dict[tuple[str, str], str]:
    """What every site's player finds out about its access, all at once: the tools mostly wait for no answer."""
    place = world.plan.servers["turn"]
    running = {}
    for site in world.plan.sites.values():
        if KINDS[site.kind].ipv4:
            four = place.addresses4[0]
            running[site.kind, "stun"] = world.namespaces.spawn(site.name, [*PROBE, "nat", four, STUN_PORT])
            tool = ["turnutils_natdiscovery", "-m", "-f", "-p", "3478", four]
            running[site.kind, "natdiscovery"] = world.namespaces.spawn(site.name, tool)
        if KINDS[site.kind].ipv6:
            running[site.kind, "stun6"] = world.namespaces.spawn(
                site.name, [*PROBE, "nat", place.addresses6[0], STUN_PORT]
            )
    found = {}
    for key, process in running.items():
        process.wait(20)
        found[key] = process.read()
        process.kill()
    return found


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_behaviour_by_our_own_stun_probe(findings: dict[tuple[str, str], str], kind: str) -> None:
    found = json.loads(findings[kind, "stun"])
    assert (found["mapping"], found["filtering"]) == BEHAVIOUR[kind]


@pytest.mark.parametrize("kind", BEHAVIOUR6)
def test_behaviour_over_ipv6(findings: dict[tuple[str, str], str], kind: str) -> None:
    found = json.loads(findings[kind, "stun6"])
    assert (found["mapping"], found["filtering"]) == BEHAVIOUR6[kind]


@pytest.mark.parametrize("kind", [kind for kind, found in BEHAVIOUR.items() if found[0]])
def test_behaviour_by_turnutils_natdiscovery(findings: dict[tuple[str, str], str], kind: str) -> None:
    for word in BEHAVIOUR[kind]:
        assert NATDISCOVERY[str(word)] in findings[kind, "natdiscovery"]


@pytest.mark.parametrize("kind", ["udp-blocked", "udp-rejected"])
def test_only_tcp_to_443_passes_a_blocked_site(world: Lab, kind: str) -> None:
    program = (
        "import socket, sys\n"
        "for port in (443, 3478):\n"
        "    sock = socket.socket(); sock.settimeout(0.5)\n"
        "    print(port, sock.connect_ex((sys.argv[1], port)) == 0)\n"
        "sock = socket.socket(type=socket.SOCK_DGRAM); sock.settimeout(0.3); sock.connect((sys.argv[1], 3478))\n"
        "sock.send(b'x')\n"
        "try: sock.recv(10)\n"
        "except TimeoutError: print('silent')\n"
        "except OSError: print('refused')\n"
    )
    server = world.plan.servers["turn"].addresses4[0]
    said = world.namespaces.run(player_of(world, kind), [sys.executable, "-I", "-S", "-c", program, server]).split("\n")
    assert said[:3] == ["443 True", "3478 False", "refused" if kind == "udp-rejected" else "silent"]


@pytest.mark.parametrize("hairpin", [False, True])
def test_hairpin(hairpin: bool) -> None:
    """Two players behind one router that keeps them apart: they meet at the outside address or not at all."""
    sites = [Site("net", "port-restricted", players=("p", "q"), hairpin=hairpin, isolated=True)]
    program = (
        "import socket, sys\n"
        "sock = socket.socket(type=socket.SOCK_DGRAM); sock.bind(('0.0.0.0', 5000)); sock.settimeout(1)\n"
        "sock.sendto(b'open', ('203.0.113.2', 9)); print('ready', flush=True)\n"
        "try: print(sock.recvfrom(100)[1])\n"
        "except TimeoutError: print('nothing')\n"
    )
    send = "import socket\nsock = socket.socket(type=socket.SOCK_DGRAM)\nsock.bind(('', 6000))\n"
    with Lab(sites, turn_servers={}, shape=None) as lab:
        listener = lab.namespaces.spawn("q", [sys.executable, "-I", "-S", "-c", program])
        assert listener.stdout is not None
        assert os.read(listener.stdout, 100) == b"ready\n"
        for host in (lab.plan.hosts["q"].uplink.address4 or "").split("/")[0], "198.51.100.2":
            lab.namespaces.run("p", [sys.executable, "-c", f"{send}sock.sendto(b'hello', ('{host}', 5000))"])
        assert listener.wait(5) == 0
        # RFC 4787 REQ-9: the source that arrives is the outside one.
        assert os.read(listener.stdout, 100) == (b"('198.51.100.2', 6000)\n" if hairpin else b"nothing\n")


def test_two_homes_behind_one_carrier() -> None:
    sites = [Site("isp", "symmetric", players=()), Site("h1", "full-cone", behind="isp"), Site("h2", behind="isp")]
    with Lab(sites) as lab:
        assert [nat_of(lab, player) for player in ("h1", "h2")] == [("APDM", "APDF")] * 2


def test_nothing_leads_out(world: Lab) -> None:
    for name in ("inet", *world.plan.hosts):
        program = "import socket; print(socket.socket(type=socket.SOCK_DGRAM).connect_ex(('192.0.2.1', 9)))"
        if name == "inet":
            assert world.namespaces.run(name, [sys.executable, "-c", program]).strip() != "0"
        links = world.namespaces.run(name, ["ip", "-o", "link"]).splitlines()
        kinds = {line.split(": ")[1].split("@")[0].rstrip("0123456789") for line in links}
        assert kinds <= {"lo", "wan", "eth", "v-sig", "v-turn", "i-s"}


# ----------------------------------------------------------------------------------------------------------------- links


def test_delay(world: Lab) -> None:
    answer = ping_sig(world, player_of(world, "port-restricted"))
    median = statistics.median(answer["rtt_ms"])
    assert answer["down"] == 60
    assert min(answer["rtt_ms"]) >= 2 * DELAY_MS
    assert median < 2 * DELAY_MS + 5  # a busy machine adds a little, netem would too
    assert answer["reordered"] == 0


def test_jitter_keeps_order_unless_told_otherwise(world: Lab) -> None:
    player = player_of(world, "full-cone")
    plain = Shape(delay_ms=DELAY_MS)
    with world.breaks.shaped(player, up=Shape(delay_ms=DELAY_MS, jitter_ms=5), back=plain):
        ordered = ping_sig(world, player)
    with world.breaks.shaped(player, up=Shape(delay_ms=DELAY_MS, jitter_ms=5, reorder=True), back=plain):
        mixed = ping_sig(world, player)
    assert ordered["reordered"] == 0
    assert mixed["reordered"] > 3
    assert statistics.pstdev(mixed["rtt_ms"]) > 2


def test_rate(world: Lab) -> None:
    player = player_of(world, "full-cone")
    # 70 bytes a frame, 60 frames: 33,600 bits; at 64 kbit/s the last one leaves after more than half a second.
    with world.breaks.shaped(player, up=Shape(delay_ms=DELAY_MS, rate_kbit=64), back=Shape(delay_ms=DELAY_MS)):
        answer = ping_sig(world, player)
    assert max(answer["rtt_ms"]) > 200
    assert answer["rtt_ms"][-1] > 3 * answer["rtt_ms"][0]  # the queue grows


def test_a_full_queue_drops(world: Lab) -> None:
    player = player_of(world, "full-cone")
    narrow = Shape(delay_ms=DELAY_MS, rate_kbit=64, queue_packets=5)
    with world.breaks.shaped(player, up=narrow, back=Shape(delay_ms=DELAY_MS)):
        answer = ping_sig(world, player)
    assert answer["down"] < 50
    assert world.shape(player)["up"]["dropped"] > 10


@pytest.mark.parametrize(("up", "down"), [(0.3, 0.0), (0.0, 0.3)])
def test_loss_of_one_direction(world: Lab, up: float, down: float) -> None:
    player = player_of(world, "address-restricted")
    with world.breaks.lossy(player, up=up, down=down):
        answer = ping_sig(world, player, count=400, interval_ms=1)
    lost_up, lost_down = answer["sent"] - answer["up"], answer["up"] - answer["down"]
    hit, spared = (lost_up, lost_down) if up else (lost_down, lost_up)
    assert 70 <= hit <= 170  # 120 expected, 9 the standard deviation
    assert spared <= 10  # what went lost after the last answer cannot be told apart
    assert ping_sig(world, player)["down"] == 60


# -------------------------------------------------------------------------------------------------------- life and death


def test_up_and_down_in_under_a_second() -> None:
    times = []
    for _ in range(3):
        began = time.monotonic()
        lab = Lab([Site("a", "port-restricted"), Site("b", "double-symmetric")])
        up = time.monotonic()
        lab.close()
        times.append((up - began, time.monotonic() - up))
    assert min(up for up, _ in times) < 1
    assert min(down for _, down in times) < 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_owner_is_killed(how: signal.Signals) -> None:
    program = (
        "import json, sys, time\n"
        "from tests.lab import Lab, Site\n"
        "lab = Lab([Site('a', 'double-cone'), Site('b', 'open')])\n"
        "lab.namespaces.spawn('a', ['sleep', '1000'])\n"
        "print(json.dumps(list(lab.namespaces.inodes.values())), flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        inodes = set(json.loads(owner.stdout.readline()))
        before = users_of(inodes)
        owner.send_signal(how)
    assert len(before) == 3  # shaper, coturn, sleep
    deadline = time.monotonic() + 5
    while users_of(inodes) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert users_of(inodes) == []
    assert "/run/netns" not in Path("/proc/self/mountinfo").read_text()


def users_of(inodes: set[int]) -> list[str]:
    """Processes whose network namespace is one of these."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns/net").stat().st_ino in inodes:
                    found.append(entry.name)
            except OSError:
                continue
    return found


def test_labs_live_side_by_side() -> None:
    with Lab([Site("a")]) as one, Lab([Site("a", "symmetric")]) as other:
        assert nat_of(one, "a") == ("EIM", "APDF")
        assert nat_of(other, "a") == ("APDM", "APDF")


def test_a_command_that_fails_says_what_and_where() -> None:
    with Namespaces() as machine:
        machine.add(["x"])
        with pytest.raises(RuntimeError, match="nft -f - in x"):
            machine.commands([("x", ["nft", "-f", "-"], "nonsense\n")])
        with pytest.raises(RuntimeError, match="exit status 3"):
            machine.run("x", ["sh", "-c", "exit 3"])
        with pytest.raises(RuntimeError, match="did not end"):
            machine.run("x", ["sleep", "10"], timeout_s=0.05)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user: every other test here shows it already")
def test_no_privilege_is_needed_where_user_namespaces_are_open() -> None:
    program = (
        "from tests.lab import Lab, Site, missing\n"
        "print(missing() or 'fine')\n"
        "if missing() is None:\n"
        "    with Lab([Site('a', 'symmetric')]) as lab:\n"
        "        print(lab.namespaces.run('a', ['turnutils_natdiscovery', '-m', '203.0.113.18']))\n"
        "        with lab.breaks.silenced('a'), lab.breaks.nat_rebound('a'), lab.breaks.turn_killed(): print('broken')\n"
    )
    powerless = ["setpriv", "--bounding-set=-sys_admin,-net_admin,-net_raw", sys.executable, "-c", program]
    said = subprocess.run(powerless, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    if "fine" not in said.stdout:
        pytest.skip(f"user namespaces are closed here: {said.stdout.strip() or said.stderr[-200:]}")
    assert NATDISCOVERY["APDM"] in said.stdout, said.stderr
    assert "broken" in said.stdout, said.stderr
