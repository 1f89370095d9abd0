"""The server's pages, and the server behind TLS."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from psyne_mesh.errors import SignalingUnreachable
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.events import PeerJoined, PeerLeft
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.server import open_server

from .guests import calm_server, http
from .worlds import player

# ---------------------------------------------------------------------------------------------------------------- http


async def test_pages() -> None:
    async with calm_server(ServerConfig(shows_rooms=True)) as server, connect_signaling(server.url, player(1)) as a:
        await a.join(JoinRequest("one", app_id="chess", region="eu", max_players=2, metadata={"map": "dust"}))
        await a.join(JoinRequest("two"))
        await a.join(JoinRequest("pair:alice bob"))
        head, body = await http(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert body == b"ok\n"
        head, body = await http(server, b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")
        stats = json.loads(body)
        assert (stats["clients"], stats["rooms"], stats["members"], stats["joins"]) == (1, 3, 3, 3)
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
        (b"DELETE /stats HTTP/1.1\r\nHost: x\r\n\r\n", 405, True),
        (b"GET /stats?%ff=%ff&&&===;a HTTP/1.1\r\nHost: x\r\n\r\n", 200, True),
        (b"GET /stats?" + b"a=b&" * 3000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 200, True),
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


async def test_who_plays_what_is_not_shown_unless_asked_for() -> None:
    async with calm_server() as server, connect_signaling(server.url, player(1)) as a:
        await a.join(JoinRequest("one"))
        head, _ = await http(server, b"GET /rooms HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 ")


ALLOWED = frozenset({"https://game.example"})


@pytest.mark.parametrize(
    ("origin", "allowed", "welcome"),
    [
        ("http://evil.example", frozenset(), False),
        ("http://evil.example", ALLOWED, False),
        ("https://game.example", ALLOWED, True),
        ("http://game.example", ALLOWED, False),
        ("https://test.example:444", frozenset(), True),  # a page of the server's own name
        ("https://test.example.evil.example", frozenset(), False),
        ("http://localhost:8000", frozenset(), True),
        ("null", frozenset(), False),
        ("http://[", frozenset(), False),
        ("http://evil.example", frozenset({"*"}), True),
    ],
)
async def test_web_pages_connect_from_allowed_places_only(origin: str, allowed: frozenset[str], welcome: bool) -> None:
    async with calm_server(ServerConfig(origins=allowed)) as server:
        page = f"GET /stats HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n"
        head, _ = await http(server, page.encode())
        assert (f"Access-Control-Allow-Origin: {origin}\r\n".encode() in head) is welcome
        upgrade = page.removesuffix("\r\n") + (
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            await stream.send_all(upgrade.encode())
            answer = bytes(await stream.receive_some())
        assert answer.startswith(b"HTTP/1.1 101 " if welcome else b"HTTP/1.1 403 ")


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
                await a.join(JoinRequest("r"))
                assert [peer.peer_id for peer in (await b.join(JoinRequest("r"))).peers] == [a.peer_id]
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
            assert (await a.join(JoinRequest("r"))).created
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
