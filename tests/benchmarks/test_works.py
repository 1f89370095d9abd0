"""Every work at its smallest size, with our stack, in real processes on loopback. What is measured is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.layers import layer_of, measure
from benchmarks.process import PeerFailed, start_pair, start_peer
from benchmarks.relay import Face, _replaced
from benchmarks.stacks.protocol import Latencies, Sink, now_ns, stamped
from benchmarks.stacks.registry import STACKS
from benchmarks.work import TINY
from benchmarks.works import WORKS

ROOT = Path(__file__).resolve().parents[2]
OURS = [
    (work.name, stack)
    for work in WORKS.values()
    for stack in work.stacks
    if stack in ("ours", "rooms", "udp", "simulator")
]


@pytest.mark.slow  # the works together; each takes some seconds, most of it the start of processes
@pytest.mark.parametrize(("work", "stack"), OURS, ids=lambda value: value)
async def test_work(work: str, stack: str) -> None:
    figures = await WORKS[work].measure(STACKS[stack], TINY)
    known = {name.rstrip("0123456789") for name in WORKS[work].figures}
    assert {name.rstrip("0123456789") for name in figures} <= known  # series have other sizes here
    assert set(list(WORKS[work].figures)[:1]) <= set(figures)
    assert all(value >= 0 for name, value in figures.items() if "kib" not in name)


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.parametrize("stack", ["aiortc", "wrtc", "node-datachannel", "werift"])
async def test_the_other_stacks_obey(stack: str) -> None:
    if STACKS[stack].missing():
        pytest.skip(STACKS[stack].missing())
    for work in ("setup", "rtt", "mesh16"):
        assert await WORKS[work].measure(STACKS[stack], TINY)


@pytest.mark.slow
async def test_the_compiled_build_obeys() -> None:
    stack = STACKS["compiled"]
    if stack.missing():
        pytest.skip(stack.missing())
    async with start_peer(stack.command) as peer:
        assert peer.versions["build"] == "compiled"
    for work in ("rtt", "throughput_1191", "small"):
        assert await WORKS[work].measure(stack, TINY)


@pytest.mark.slow
def test_the_program_ends_with_one_json_object() -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", "--only", "setup", "--stacks", "ours",
               "--repetitions", "1"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["results"]["setup"]["ours"] > 0
    assert result["machine"]["cores"]
    assert result["machine"]["versions"]["ours"]["build"] in ("pure", "compiled")
    assert "setup took" in done.stderr


async def test_pings_and_floods_between_two_processes() -> None:
    async with start_pair(STACKS["ours"].command) as (one, two):
        way = {"port": two.signaling, "count": 1, "settings": {}}
        await one.call("dial", reliable=False, mine="ping", theirs="echo", **way)
        answer = await one.call("ping", count=5, size=64)
        assert len(answer["times_ns"]) == 5
        await one.call("hang_up")
        await two.call("hang_up")
        await one.call("dial", reliable=True, mine="ping", theirs="sink", **way)
        await two.call("sink", warm_s=0)
        sent = (await one.call("flood", size=1000, seconds=0.1))["sent"]
        assert sent > 0
        assert 0 <= (await two.call("sunk"))["messages"] <= sent


async def test_what_fails_in_a_peer_is_told() -> None:
    async with start_peer(STACKS["udp"].command) as peer:
        with pytest.raises(PeerFailed, match="do_nonsense"):
            await peer.call("nonsense")
        assert (await peer.call("usage", tidy=True))["cpu_s"] > 0


async def test_a_peer_that_does_not_start_is_told() -> None:
    with pytest.raises(PeerFailed, match="no luck"):
        async with start_peer([sys.executable, "-c", "raise SystemExit('no luck')"]):
            pass


# -------------------------------------------------------------------------------------------------------- small parts


def test_a_sink_leaves_the_warm_up_out() -> None:
    sink = Sink()
    sink.reset(0)
    for _ in range(3):
        sink.add(b"12345")
    report = sink.report()
    assert (report["messages"], report["bytes"]) == (3, 15)
    assert (report["span_messages"], report["span_bytes"]) == (2, 10)


def test_latencies_count_from_the_begin_on() -> None:
    latencies, start = Latencies(), now_ns()
    latencies.begin(start)
    latencies.add(stamped(start - 1, 100))
    latencies.add(stamped(start, 100))
    assert latencies.report()["received"] == 1
    assert len(stamped(start, 100)) == 100


def test_the_relay_is_the_only_way_that_peers_hear_of() -> None:
    offer = (
        "v=0\r\n"
        "a=candidate:1 1 udp 2130706431 127.0.0.1 1111 typ host\r\n"
        "a=candidate:2 1 UDP 2130706175 192.0.2.7 2222 typ host generation 0\r\n"
        "a=candidate:3 1 tcp 1 192.0.2.7 9 typ host tcptype active\r\n"
        "a=candidate:4 1 udp 2130706431 2001:db8::1 3333 typ host\r\n"
        "a=end-of-candidates\r\n"
    )
    near, far = Face(), Face()
    try:
        assert _replaced(offer, near, far) == (
            f"v=0\r\na=candidate:2 1 udp 2130706175 192.0.2.7 {far.port} typ host\r\na=end-of-candidates\r\n"
        )
        assert near.peer == ("192.0.2.7", 2222)
        assert far.peer is None
    finally:
        near.socket.close()
        far.socket.close()


@pytest.mark.parametrize(
    ("file", "layer"),
    [
        ("/x/psyne_mesh/webrtc/sctp/core.py", "SCTP"),
        ("/x/psyne_mesh/webrtc/ice/port.py", "port and ICE"),
        ("/x/psyne_mesh/webrtc/ice/udp.py", "socket calls, kernel included"),
        ("/x/psyne_mesh/webrtc/link.py", "channels, stack, link"),
        ("/x/contextlib.py", "the program"),
    ],
)
def test_a_look_counts_for_the_innermost_layer(file: str, layer: str) -> None:
    frame = SimpleNamespace(f_code=SimpleNamespace(co_filename=file, co_name="f"), f_back=None)
    within = SimpleNamespace(f_code=SimpleNamespace(co_filename="/x/heapq.py", co_name="g"), f_back=frame)
    assert layer_of(frame) == layer_of(within) == layer  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the timer of CPU time is POSIX")
def test_the_layers_add_up() -> None:
    total, layers = measure("rtt", 0.5)
    assert total > 0
    assert sum(layers.values()) == pytest.approx(total)
