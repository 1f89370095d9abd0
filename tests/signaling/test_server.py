"""The server on a real socket, with honest clients, and when it dies."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from psyne_mesh.errors import InvalidUri, SignalingUnreachable, VersionMismatch
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.dialing import WebSocketClosed, WebSocketUrl
from psyne_mesh.signaling.events import Lost, PeerJoined, PeerLeft, Restored, SignalReceived
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.server import open_server, serve
from psyne_mesh.signaling.websocket import accept_websocket

from .guests import calm_server, closed, hello, http, raw_guest, raw_websocket, said
from .worlds import QUICK, player

# ---------------------------------------------------------------------------------------------------------- who you are


async def test_an_impostor_is_refused() -> None:
    alice, mallory = player(1), player(2)
    forgeries: dict[str, dict[str, object]] = {
        "another's id": {"peer_id": alice.peer_id},
        "another's id and key": {"peer_id": alice.peer_id, "public_key": m.to_base64(alice.public_key)},
        "a signature over another audience": {"audience": "here", "signature": m.to_base64(bytes(64))},
        "no key": {"public_key": ""},
        "a key that is no base64": {"public_key": "\u00e4"},
        "a key that is no point": {"public_key": m.to_base64(b"\xff" * 32)},
        "half a signature": {"signature": m.to_base64(bytes(32))},
    }
    async with calm_server() as server, connect_signaling(server.url, alice) as a:
        await a.join(JoinRequest("r"))
        for forgery in forgeries.values():
            async with raw_websocket(server.url) as websocket:
                challenge = await said(websocket)
                assert isinstance(challenge, m.Challenge)
                await websocket.send(m.encode(hello(mallory, challenge.nonce, **forgery)))
                answer = await said(websocket)
                assert isinstance(answer, m.Error)
                assert answer.code == "not_proved"
                assert (await closed(websocket)).code == m.NOT_PROVED
        assert a.is_connected
        assert server.stats.ends == {"not_proved": len(forgeries)}


async def test_yesterdays_proof_is_worth_nothing() -> None:
    async with calm_server() as server:
        async with raw_websocket(server.url) as websocket:
            challenge = await said(websocket)
            assert isinstance(challenge, m.Challenge)
            proof = m.encode(hello(player(1), challenge.nonce))
            await websocket.send(proof)
            assert isinstance(await said(websocket), m.Welcome)
        async with raw_websocket(server.url) as websocket:
            await said(websocket)
            await websocket.send(proof)
            assert isinstance(await said(websocket), m.Error)


async def test_a_rogue_server_cannot_pass_on_what_a_player_signed_for_it() -> None:
    """It shows the honest server's challenge to its own guest, and the guest's answer to the honest server."""
    async with calm_server() as server, raw_websocket(server.url) as websocket:
        challenge = await said(websocket)
        assert isinstance(challenge, m.Challenge)
        await websocket.send(m.encode(hello(player(1), challenge.nonce, audience="rogue.example:8080")))
        answer = await said(websocket)
        assert isinstance(answer, m.Error)
        assert (answer.code, "--public-name rogue.example:8080" in answer.message) == ("not_proved", True)
        assert server.stats.hellos == 0


async def test_hello_comes_first_and_once() -> None:
    async with calm_server() as server:
        async with raw_websocket(server.url) as websocket:
            await said(websocket)
            await websocket.send(m.encode(m.Join(ref=1, name="r")))
            assert (await closed(websocket)).code == m.NOT_PROVED
        async with raw_guest(server.url, 1) as websocket:
            await websocket.send(m.encode(hello(player(2), "", ref=9)))
            answer = await said(websocket)
            assert isinstance(answer, m.Error)
            assert (answer.code, answer.ref) == ("bad_message", 9)
            assert server.stats.clients == 1


async def test_a_client_of_another_version_is_told_so() -> None:
    async with calm_server() as server:
        async with raw_websocket(server.url) as websocket:
            await said(websocket)
            await websocket.send('{"v":2,"type":"hello"}')
            answer = await said(websocket)
            assert isinstance(answer, m.Error)
            assert answer.code == "version"
            assert (await closed(websocket)).code == m.WRONG_VERSION
        async with raw_guest(server.url, 1) as websocket:
            await websocket.send('{"v":2,"type":"ping"}')
            assert (await closed(websocket)).code == m.WRONG_VERSION


@asynccontextmanager
async def strange_server(*frames: str) -> AsyncIterator[str]:
    """Accepts WebSockets, says `frames` and then nothing."""

    async def handler(stream: trio.SocketStream) -> None:
        async with accept_websocket(stream, max_message_bytes=1000, timeout_s=5) as websocket:
            for frame in frames:
                await websocket.send(frame)
            while True:
                try:
                    await websocket.receive()
                except WebSocketClosed:
                    return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_server_of_another_version_is_named() -> None:
    async with strange_server('{"v":3,"type":"greeting"}') as url:
        with pytest.raises(VersionMismatch) as caught:
            async with connect_signaling(url, player(1)):
                pass
    assert (caught.value.ours, caught.value.theirs) == (1, 3)


@pytest.mark.parametrize("frame", ["hello!", '{"v":1,"type":"pong","ref":1}', "[]"])
async def test_another_kind_of_server_is_no_signaling_server(frame: str) -> None:
    async with strange_server(frame) as url:
        with pytest.raises(SignalingUnreachable, match="not as a psyne-mesh signaling server"):
            async with connect_signaling(url, player(1)):
                pass


# --------------------------------------------------------------------------------------------------------- unreachable


async def test_a_closed_port_is_named_with_advice() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(SignalingUnreachable, match=rf"ws://127.0.0.1:{port}/.*psyne-mesh serve") as caught:
        async with connect_signaling(f"ws://127.0.0.1:{port}", player(1)):
            pass
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"\x00\xff" * 50]
)
async def test_something_else_on_that_port_is_no_hang(answer: bytes) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if answer:
            await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        with trio.fail_after(5), pytest.raises(SignalingUnreachable, match="Something answers there"):
            async with connect_signaling(url, player(1)):
                pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("url", ["", "host", "http://host", "ws://", "ws://host:99999", "ws://[::1", "ws:///path"])
async def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidUri):
        async with connect_signaling(url, player(1)):
            pass


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("ws://host", "host:80", "/"),
        ("wss://host/a/b?c=d", "host:443", "/a/b?c=d"),
        ("ws://[::1]:8080", "[::1]:8080", "/"),
    ],
)
def test_urls_are_read(url: str, authority: str, path: str) -> None:
    parsed = WebSocketUrl.parse(url)
    assert (parsed.authority, parsed.path) == (authority, path)


# --------------------------------------------------------------------------------------------------------- life, death


async def test_the_server_dies_and_comes_back_on_the_same_port() -> None:
    async with (
        open_server(port=0) as first,
        connect_signaling(first.url, player(1), config=QUICK) as a,
        connect_signaling(first.url, player(2), config=QUICK) as b,
    ):
        await a.join(JoinRequest("r", max_players=7, metadata={"map": "dust"}))
        await b.join(JoinRequest("r"))
        assert isinstance(await a.next_event(), PeerJoined)
        first.kill()
        with trio.fail_after(10):
            while not isinstance(await a.next_event(), Lost):
                pass
            async with open_server(port=first.port) as second:
                seen: dict[str, set[str]] = {}
                for client in (a, b):
                    while not isinstance(event := await client.next_event(), Restored):
                        pass
                    assert event.refused == ()
                    seen[client.peer_id] = {peer.peer_id for peer in event.rooms[0].peers}
                    assert event.rooms[0].info.max_players == 7
                    assert event.rooms[0].info.metadata == {"map": "dust"}
                assert second.stats.members == 2
                assert sum(len(peers) for peers in seen.values()) >= 1, "the second to come back met the first"
                b.send_signal(a.peer_id, "//r", "still here?")
                while not isinstance(event := await a.next_event(), SignalReceived):
                    assert isinstance(event, PeerJoined)
                assert event.envelope == "still here?"


async def test_a_server_that_stops_says_goodbye() -> None:
    async with open_server(port=0) as server:
        port = server.port
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            client_ready = trio.Event()
            lost: list[object] = []

            async def client() -> None:
                with scope:
                    async with connect_signaling(server.url, player(1)) as a:
                        client_ready.set()
                        lost.append(await a.next_event())

            nursery.start_soon(client)
            await client_ready.wait()
            await server.stop()
        assert isinstance(lost[0], Lost)
        assert "shutting down" in str(lost[0].cause)
    with pytest.raises(OSError):  # noqa: PT011 - each system has its own words
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_serve_runs_until_cancelled_and_says_goodbye_then() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, port=0))
        async with connect_signaling(server.url, player(1)) as a:
            assert (await a.join(JoinRequest("r"))).created
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                lost = await a.next_event()
            assert isinstance(lost, Lost)
            assert "shutting down" in str(lost.cause)


async def test_a_cancelled_player_says_goodbye_too() -> None:
    async with calm_server() as server, connect_signaling(server.url, player(1)) as a:
        await a.join(JoinRequest("r"))
        with trio.CancelScope() as scope:
            async with connect_signaling(server.url, player(2)) as b:
                await b.join(JoinRequest("r"))
                scope.cancel()
                await trio.sleep_forever()
        assert isinstance(await a.next_event(), PeerJoined)
        assert await a.next_event() == PeerLeft("//r", b.peer_id, "left")


async def test_a_port_in_use_is_an_os_error() -> None:
    async with open_server(port=0) as server:
        with pytest.raises(OSError, match="use"):
            async with open_server(port=server.port):
                pass


def open_files() -> int:
    table = Path("/proc/self/fd")
    return len(list(table.iterdir())) if table.exists() else 0  # elsewhere the tasks have to do


async def test_leaving_leaves_no_task_and_no_socket() -> None:
    async def visit() -> None:
        async with open_server(port=0) as server:
            async with connect_signaling(server.url, player(1)) as a, connect_signaling(server.url, player(2)) as b:
                await a.join(JoinRequest("r"))
                await b.join(JoinRequest("r"))
                async with raw_guest(server.url, 3):
                    pass
            await http(server, b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")
            stranger = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stranger.aclose()

    await visit()
    gc.collect()
    tasks, files = trio.lowlevel.current_statistics().tasks_living, open_files()
    await visit()
    gc.collect()
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living <= tasks
    assert open_files() <= files
