"""The command as people and programs run it, and the look at the signaling server."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from psyne_mesh.cli.app import app
from psyne_mesh.cli.doctor import run_doctor, show
from psyne_mesh.cli.verdict import Verdict, judge
from psyne_mesh.config import StunServer, WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.signaling import messages
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.probe import SignalingReport, probe_signaling, time_untrusted
from psyne_mesh.signaling.server import open_server
from psyne_mesh.signaling.websocket import accept_websocket
from psyne_mesh.webrtc.dtls import DtlsAbilities
from psyne_mesh.webrtc.ice.probe import NetworkReport, probe_network
from tests.doctor.servers import two_faced_server
from tests.doctor.test_verdict import SIGNALING, network
from tests.ice.servers import CREDENTIAL, USER, turn_server

NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def doctor(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[int, str]:
    usual = {"stun": [], "turn": [], "turn_user": "", "turn_credential": "", "signaling": "none", "as_json": True}
    with trio.fail_after(20):
        status = await run_doctor(**{**usual, **options})
    return status, capsys.readouterr().out


def names(kind: type[attrs.AttrsInstance]) -> set[str]:
    return {field.name for field in attrs.fields(kind)}


async def test_the_json_has_the_promised_shape(capsys: pytest.CaptureFixture[str]) -> None:
    async with two_faced_server() as stun, turn_server() as turn, open_server(port=0) as signaling:
        status, said = await doctor(
            capsys,
            stun=[f"stun:127.0.0.1:{stun.address[1]}"],
            turn=[f"turn:127.0.0.1:{turn.address[1]}"],
            turn_user=USER,
            turn_credential=CREDENTIAL,
            signaling=signaling.url,
        )
    found = json.loads(said)
    assert status == 0
    assert found["ok"] is True
    assert set(found) == {"ok", "verdict", "network", "signaling", "dtls"}
    assert set(found["dtls"]) == names(DtlsAbilities)
    assert found["dtls"]["is_post_quantum"] is ("X25519MLKEM768" in found["dtls"]["groups"])
    assert set(found["verdict"]) == names(Verdict)
    assert set(found["network"]) == names(NetworkReport)
    assert set(found["signaling"]) == names(SignalingReport)
    assert found["signaling"]["protocol"] == messages.PROTOCOL_VERSION
    assert found["signaling"]["rtt_ms"] > 0
    assert [server["problem"] for server in found["network"]["servers"]] == [None, None]
    assert CREDENTIAL not in said


async def test_no_signaling_server_is_a_no_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = await doctor(capsys, signaling="ws://127.0.0.1:9", as_json=False)
    assert status == 1
    assert (
        said.replace("\n", " ").rstrip().split("NO: ")[1].startswith("No room can be entered: no signaling server at")
    )


async def test_wrong_options_are_refused_before_anything_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidConfig, match="transport is udp or tcp"):
        await doctor(capsys, turn=["turn:host?transport=pigeon"])
    status, said = await doctor(capsys, signaling="http://host")
    assert status == 1
    assert "ws://host" in json.loads(said)["verdict"]["summary"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InvalidConfig("cannot open a UDP socket")])
async def test_what_ends_it_leaves_as_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async def probe(config: WebRTCConfig) -> NetworkReport:
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr("psyne_mesh.cli.doctor.probe_network", probe)
    with pytest.raises(type(error)):
        await doctor(capsys, signaling="ws://127.0.0.1:9")


def test_the_command_is_there() -> None:
    assert "doctor" in {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]


async def test_words_for_people_hold_no_markup_of_strangers() -> None:
    async with two_faced_server() as stun:
        report = await probe_network(WebRTCConfig(stun_servers=[StunServer(*stun.address)], bind_host="127.0.0.1"))
    out = io.StringIO()
    met = attrs.evolve(SIGNALING, software="[red]x[/red]\x1b[2J", clock_skew_s=2.0)
    show(Console(file=out, width=200), report, met, judge(report, met))
    assert "[red]x[/red][2J" in out.getvalue()
    assert "no translation, filtering endpoint-independent" in out.getvalue()
    bare = network(interfaces=(), host_candidates=(), udp=False, ipv4=None)
    show(Console(file=out, width=200), bare, None, judge(bare, None))
    assert "no network address at all" in out.getvalue()


# ------------------------------------------------------------------------------------------------------------ signaling


async def test_a_good_server_is_measured() -> None:
    async with open_server(port=0) as server:
        report = await probe_signaling(server.url, wall_clock=NOW)
        assert server.stats.members == 0
    assert report.problem is None
    assert report.protocol == messages.PROTOCOL_VERSION
    assert report.connect_ms is not None
    assert report.rtt_ms is not None


async def test_a_server_of_another_version_is_told_as_such() -> None:
    async def other(stream: trio.SocketStream) -> None:
        async with accept_websocket(stream, max_message_bytes=65_536, timeout_s=5) as websocket:
            await websocket.send('{"v": 9, "type": "challenge", "nonce": "bm9uY2U="}')

    async with trio.open_nursery() as nursery:
        report = await probe_signaling(await listening(nursery, other), wall_clock=NOW)
        nursery.cancel_scope.cancel()
    assert "protocol version 1, the other side 9" in (report.problem or "")
    assert report.protocol is None


@pytest.mark.parametrize(
    ("date", "skew_s"),
    [
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(hours=1), usegmt=True), -3600.0),
        ("yesterday", None),
        ("Mon, 01 Jan 2030 00:00:00", None),  # of no zone
        ("Mon, 99 Jan 2030 99:00:00 GMT", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
async def test_the_clock_is_compared_where_a_proxy_tells_the_time(date: str, skew_s: float | None) -> None:
    """A proxy in front, as most public servers have one: it answers /healthz itself, and passes WebSockets on."""
    known = ServerConfig(public_names=frozenset({"127.0.0.1"}))  # at the proxy's port
    async with open_server(port=0, config=known) as server, trio.open_nursery() as nursery:

        async def proxy(stream: trio.SocketStream) -> None:
            head = await stream.receive_some(65_536)
            if head.startswith(b"GET /healthz"):
                page = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nServer: front\r\nContent-Length: 0\r\n\r\n"
                await stream.send_all(page.encode())
                return
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as back, trio.open_nursery() as ways:
                await back.send_all(head)
                ways.start_soon(copy, stream, back)
                ways.start_soon(copy, back, stream)

        report = await probe_signaling(await listening(nursery, proxy), wall_clock=NOW)
        nursery.cancel_scope.cancel()
    assert report.software == "front"
    assert report.clock_skew_s == (None if skew_s is None else pytest.approx(skew_s, abs=5))


WORDS = st.sampled_from(
    ["Mon,", "01", "99", "Jan", "2030", "0001", "9999", "00:00:00", "25:61:61", "+9999", "-2400", "GMT", "9" * 20]
)


@given(st.one_of(st.binary(max_size=60), st.lists(WORDS, max_size=9).map(lambda words: " ".join(words).encode())))
def test_no_date_of_a_stranger_breaks_it(text: bytes) -> None:
    told = time_untrusted(text)
    assert told is None or isinstance((told - NOW).total_seconds(), float)


async def listening(nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> str:
    """The URL of a TCP server that lives as long as the nursery."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

    async def serve() -> None:
        async with listener:
            await trio.serve_listeners(handler, [listener])

    nursery.start_soon(serve)
    return f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"


async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        async for piece in source:
            await sink.send_all(piece)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
