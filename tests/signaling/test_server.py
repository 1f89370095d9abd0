"""The server on a real socket, with honest clients, with strangers, and when it dies."""

from __future__ import annotations

import gc
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from psyne_mesh.errors import InvalidUri, SignalingError, SignalingUnreachable, VersionMismatch
from psyne_mesh.identity import Identity
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.events import Lost, PeerJoined, PeerLeft, Restored, SignalReceived
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.server import SignalingServer, open_server, serve
from psyne_mesh.signaling.websocket import (
    WebSocket,
    WebSocketClosed,
    WebSocketUrl,
    accept_websocket,
    dial_tcp,
    open_websocket,
)

from .worlds import QUICK, player


@asynccontextmanager
async def raw_websocket(url: str) -> AsyncIterator[WebSocket]:
    address = WebSocketUrl.parse(url)
    async with open_websocket(
        address, partial(dial_tcp, address, None), max_message_bytes=2**20, timeout_s=5
    ) as websocket:
        yield websocket


async def said(websocket: WebSocket) -> m.ServerMessage:
    with trio.fail_after(5):
        return m.decode_server_untrusted(await websocket.receive())


async def closed(websocket: WebSocket) -> WebSocketClosed:
    """Why it ends, after whatever is still said."""
    with trio.fail_after(5):
        while True:
            try:
                await websocket.receive()
            except WebSocketClosed as end:
                return end


def hello(identity: Identity, nonce: str, **changes: object) -> m.Hello:
    audience = str(changes.pop("audience", ""))
    fields: dict[str, object] = {
        "ref": 0,
        "peer_id": identity.peer_id,
        "public_key": m.to_base64(identity.public_key),
        "signature": m.to_base64(identity.sign(m.HELLO_DOMAIN, m.hello_payload(nonce, audience))),
        "audience": audience,
    }
    return m.Hello(**{**fields, **changes})  # type: ignore[arg-type]


@asynccontextmanager
async def raw_guest(url: str, number: int) -> AsyncIterator[WebSocket]:
    """A guest who has said hello and may now say anything."""
    async with raw_websocket(url) as websocket:
        challenge = await said(websocket)
        assert isinstance(challenge, m.Challenge)
        await websocket.send(m.encode(hello(player(number), challenge.nonce)))
        assert isinstance(await said(websocket), m.Welcome)
        yield websocket


@asynccontextmanager
async def calm_server(config: ServerConfig | None = None) -> AsyncIterator[SignalingServer]:
    """A server that meets no exception of its own, whatever the guests do."""
    async with open_server(port=0, config=config) as server:
        yield server
        assert server.stats.internal_errors == 0


async def http(server: SignalingServer, request: bytes) -> tuple[bytes, bytes]:
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        await stream.send_all(request)
        answer = b""
        with trio.fail_after(5):
            while data := await stream.receive_some():
                answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


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
        await a.join("r")
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


async def test_a_proof_for_another_server_is_refused_by_one_that_knows_its_name() -> None:
    async with calm_server(ServerConfig(audiences=frozenset({"game.example:443"}))) as server:
        with pytest.raises(SignalingError, match="another server"):
            async with connect_signaling(server.url, player(1)):
                pass


async def test_hello_comes_first_and_once() -> None:
    async with calm_server() as server:
        async with raw_websocket(server.url) as websocket:
            await said(websocket)
            await websocket.send(m.encode(m.Join(ref=1, room="r")))
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


# --------------------------------------------------------------------------------------------------------- bad guests


async def test_garbage_is_answered_then_closed_and_others_notice_nothing() -> None:
    async with calm_server(ServerConfig(garbage_max=3)) as server, connect_signaling(server.url, player(1)) as a:
        await a.join("r")
        async with raw_guest(server.url, 2) as websocket:
            for frame in ("hello", '{"v":1,"type":"join","ref":5,"room":""}', "[" * 60_000):
                await websocket.send(frame)
            answers = [await said(websocket) for _ in range(3)]
            assert [(x.code, x.ref) for x in answers if isinstance(x, m.Error)] == [
                ("bad_message", None),
                ("bad_message", 5),
                ("bad_message", None),
            ]
            await websocket.send(m.encode(m.Join(ref=1, room="r")))
            assert isinstance(await said(websocket), m.JoinedRoom)
            await websocket.send("one too many")
            assert (await closed(websocket)).code == m.MISBEHAVED
        assert isinstance(await a.next_event(), PeerJoined)
        assert await a.next_event() == PeerLeft("//r", player(2).peer_id, "dropped")
        assert server.stats.garbage == 4


async def test_a_huge_frame_ends_the_connection_that_sent_it() -> None:
    async with calm_server() as server, connect_signaling(server.url, player(1)) as a:
        async with raw_guest(server.url, 2) as websocket:
            await websocket.send("x" * (m.MAX_FRAME_BYTES + 1))
            assert (await closed(websocket)).code == m.TOO_BIG
        assert (await a.list_rooms()).rooms == ()
        assert server.stats.ends == {"misbehaved": 1}


STRANGERS = {
    "nothing": b"",
    "noise": bytes(range(256)) * 10,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 600,
    "an endless head": b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000,
    "half a head": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "an upgrade without a key": b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "an upgrade by POST": b"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: 0\r\n\r\n",
    "an upgrade for a host of bad unicode": b"GET / HTTP/1.1\r\nHost: xn--\xff\xfe\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    "an upgrade for a label too long": b"GET / HTTP/1.1\r\nHost: " + b"x" * 70 + b"\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
}
OPENING = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
FRAMES = {
    "a frame without a mask": b"\x81\x02hi",
    "a reserved opcode": b"\x83\x80\x00\x00\x00\x00",
    "reserved bits": b"\xf1\x80\x00\x00\x00\x00",
    "a frame of 2^63 bytes": b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
    "text that is not UTF-8": b"\x81\x82\x00\x00\x00\x00\xff\xfe",
    "a continuation of nothing": b"\x80\x82\x00\x00\x00\x00hi",
    "a fragmented ping": b"\x09\x80\x00\x00\x00\x00",
    "a close code that is not allowed": b"\x88\x82\x00\x00\x00\x00\x00\x01",
    "a close frame of one byte": b"\x88\x81\x00\x00\x00\x00\x00",
    "a close and then more": b"\x88\x80\x00\x00\x00\x00\x81\x82\x00\x00\x00\x00hi\x89\x80\x00\x00\x00\x00",
    "binary": b"\x82\x82\x00\x00\x00\x00hi",
}


@pytest.mark.parametrize("then", ["eof", "reset"])
@pytest.mark.parametrize(
    "sent",
    [*STRANGERS.values(), *(OPENING + frame for frame in FRAMES.values())],
    ids=[*STRANGERS.keys(), *FRAMES.keys()],
)
async def test_strangers_disturb_nobody(sent: bytes, then: str) -> None:
    async with calm_server() as server, connect_signaling(server.url, player(1)) as a:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        if sent:
            await stream.send_all(sent)
        if then == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        else:
            await stream.send_eof()
            with trio.fail_after(5):
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass  # it was closed with bytes of ours unread
        await stream.aclose()
        assert (await a.list_rooms()).rooms == ()


async def test_a_slow_reader_is_dropped_and_delays_nobody() -> None:
    """It joins and then reads nothing; the others shower the room with signals for it and for each other."""
    config = ServerConfig(outbound_messages_max=50, messages_per_s=1e6)
    async with calm_server(config) as server, connect_signaling(server.url, player(1)) as a:
        await a.join("r")
        async with raw_guest(server.url, 2) as websocket, connect_signaling(server.url, player(3)) as c:
            await websocket.send(m.encode(m.Join(ref=1, room="r")))
            await c.join("r")
            received = 0
            left = False
            for _ in range(3_000):
                a.send_signal(player(2).peer_id, "//r", "x" * 40_000)
                a.send_signal(c.peer_id, "//r", "for c")
                with trio.fail_after(2):
                    while not isinstance(event := await c.next_event(), SignalReceived):
                        left = left or event == PeerLeft("//r", player(2).peer_id, "dropped")
                    received += 1
                if left:
                    break
            assert left
            assert received > 20
            assert server.stats.ends == {"slow": 1}
            assert a.is_connected


async def test_no_more_guests_than_agreed() -> None:
    async with calm_server(ServerConfig(clients_max=1)) as server, connect_signaling(server.url, player(1)) as a:
        with pytest.raises(SignalingUnreachable, match="503"):
            async with connect_signaling(server.url, player(2)):
                pass
        assert (await http(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))[0].startswith(b"HTTP/1.1 503")
        assert a.is_connected
    async with calm_server(ServerConfig(clients_per_address_max=1)) as server, connect_signaling(server.url, player(1)):
        with pytest.raises(SignalingUnreachable, match="503"):
            async with connect_signaling(server.url, player(2)):
                pass


# --------------------------------------------------------------------------------------------------------- life, death


async def test_the_server_dies_and_comes_back_on_the_same_port() -> None:
    async with (
        open_server(port=0) as first,
        connect_signaling(first.url, player(1), config=QUICK) as a,
        connect_signaling(first.url, player(2), config=QUICK) as b,
    ):
        await a.join("r", max_players=7, metadata={"map": "dust"})
        await b.join("r")
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
            assert (await a.join("r")).created
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                lost = await a.next_event()
            assert isinstance(lost, Lost)
            assert "shutting down" in str(lost.cause)


async def test_a_cancelled_player_says_goodbye_too() -> None:
    async with calm_server() as server, connect_signaling(server.url, player(1)) as a:
        await a.join("r")
        with trio.CancelScope() as scope:
            async with connect_signaling(server.url, player(2)) as b:
                await b.join("r")
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
                await a.join("r")
                await b.join("r")
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


# ---------------------------------------------------------------------------------------------------------------- http


async def test_pages() -> None:
    async with calm_server() as server, connect_signaling(server.url, player(1)) as a:
        await a.join("one", app_id="chess", region="eu", max_players=2, metadata={"map": "dust"})
        await a.join("two")
        head, body = await http(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert body == b"ok\n"
        head, body = await http(server, b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")
        stats = json.loads(body)
        assert (stats["clients"], stats["rooms"], stats["members"], stats["joins"]) == (1, 2, 2, 2)
        head, body = await http(server, b"GET /rooms HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"application/json" in head
        assert [room["room"] for room in json.loads(body)["rooms"]] == ["chess/eu/one", "//two"]
        assert a.peer_id not in body.decode(), "who plays is nobody's business"
        head, body = await http(server, b"GET /rooms?app_id=chess&region=eu HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [room["name"] for room in json.loads(body)["rooms"]] == ["one"]
        assert json.loads(body)["rooms"][0]["metadata"] == {"map": "dust"}


@pytest.mark.parametrize(
    ("request_", "status", "has_body"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, True),
        (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, False),
        (b"DELETE /rooms HTTP/1.1\r\nHost: x\r\n\r\n", 405, True),
        (b"GET /rooms?%ff=%ff&&&===;a HTTP/1.1\r\nHost: x\r\n\r\n", 200, True),
        (b"GET /rooms?" + b"a=b&" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 200, True),
        (b"GET //[x HTTP/1.1\r\nHost: x\r\n\r\n", 404, True),
        (b"GET http://[x/rooms HTTP/1.1\r\nHost: x\r\n\r\n", 404, True),
        (b"GET / HTTP/1.1\r\n\r\n", 400, True),
        (b"nonsense\r\n\r\n", 400, True),
    ],
)
async def test_odd_requests_get_an_answer(request_: bytes, status: int, has_body: bool) -> None:
    async with calm_server() as server:
        head, body = await http(server, request_)
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert bool(body) is has_body


async def test_a_request_may_come_byte_by_byte() -> None:
    async with calm_server() as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n":
                await stream.send_all(bytes([byte]))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


# ----------------------------------------------------------------------------------------------------------------- tls


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_tls() -> None:
    server_context, client_context = contexts()
    async with open_server(port=0, ssl_context=server_context) as server:
        assert server.url.startswith("wss://127.0.0.1:")
        async with connect_signaling(server.url, player(1), ssl_context=client_context) as a:
            async with connect_signaling(server.url, player(2), ssl_context=client_context) as b:
                await a.join("r")
                assert [peer.peer_id for peer in (await b.join("r")).peers] == [a.peer_id]
            assert isinstance(await a.next_event(), PeerJoined)
            assert await a.next_event() == PeerLeft("//r", player(2).peer_id, "left")
        assert server.stats.internal_errors == 0


async def test_tls_refuses_an_unknown_authority_and_survives_plain_text() -> None:
    server_context, client_context = contexts()
    async with open_server(port=0, ssl_context=server_context) as server:
        with pytest.raises(SignalingUnreachable, match="TLS failed"):
            async with connect_signaling(server.url, player(1)):
                pass
        with pytest.raises(SignalingUnreachable):
            async with connect_signaling(server.url.replace("wss", "ws"), player(1)):
                pass
        async with connect_signaling(server.url, player(1), ssl_context=client_context) as a:
            assert (await a.join("r")).created
        assert server.stats.internal_errors == 0


async def test_wss_to_a_plain_server_is_advised() -> None:
    async with open_server(port=0) as server:
        with pytest.raises(SignalingUnreachable, match="ws://"):
            async with connect_signaling(server.url.replace("ws", "wss"), player(1)):
                pass


def test_one_file_only_knows_the_websocket_library() -> None:
    package = Path(__file__).resolve().parents[2] / "psyne_mesh"
    using = [p.name for p in package.rglob("*.py") if "import trio_websocket" in p.read_text(encoding="utf-8")]
    assert using == ["websocket.py"]
