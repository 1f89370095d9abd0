"""The server on a real socket, with strangers and bad guests: the others notice nothing."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
import trio

from psyne_mesh.errors import SignalingUnreachable
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.dialing import WebSocketClosed
from psyne_mesh.signaling.doors import DoorLimits
from psyne_mesh.signaling.events import PeerJoined, PeerLeft, SignalReceived
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.limits import ServerConfig
from psyne_mesh.signaling.link import SignalingConfig

from .guests import calm_server, closed, http, raw_guest, said
from .worlds import player


async def test_garbage_is_answered_then_closed_and_others_notice_nothing() -> None:
    async with calm_server(ServerConfig(garbage_max=3)) as server, connect_signaling(server.url, player(1)) as a:
        await a.join(JoinRequest("r"))
        async with raw_guest(server.url, 2) as websocket:
            for frame in ("hello", '{"v":1,"type":"join","ref":5,"room":""}', "[" * 60_000):
                await websocket.send(frame)
            answers = [await said(websocket) for _ in range(3)]
            assert [(x.code, x.ref) for x in answers if isinstance(x, m.Error)] == [
                ("bad_message", None),
                ("bad_message", 5),
                ("bad_message", None),
            ]
            await websocket.send(m.encode(m.Join(ref=1, name="r")))
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


IMPATIENT = SignalingConfig(connect_timeout_s=0.5)  # a busy server is not asked again for long

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
    """It asks and asks and reads no answer; the others shower the room with signals for it and for each other."""
    config = ServerConfig(outbound_messages_max=50, messages_per_s=1e6)
    async with calm_server(config) as server, connect_signaling(server.url, player(1)) as a:
        await a.join(JoinRequest("r"))
        for number in range(15):
            await a.join(JoinRequest(f"large {number}", metadata={"x": "y" * 2_000}))
        async with raw_guest(server.url, 2) as websocket, connect_signaling(server.url, player(3)) as c:
            await websocket.send(m.encode(m.Join(ref=1, name="r")))
            await c.join(JoinRequest("r"))
            received = 0
            left = False
            for _ in range(3_000):
                with suppress(WebSocketClosed):
                    await websocket.send(m.encode(m.ListRooms(ref=2)))
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
    async with (
        calm_server(ServerConfig(doors=DoorLimits(clients_max=1))) as server,
        connect_signaling(server.url, player(1)) as a,
    ):
        with pytest.raises(SignalingUnreachable, match="503"):
            async with connect_signaling(server.url, player(2), config=IMPATIENT):
                pass
        assert (await http(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))[0].startswith(b"HTTP/1.1 200")
        assert (await http(server, b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n"))[0].startswith(b"HTTP/1.1 503")
        assert a.is_connected


async def test_no_more_guests_of_one_address_than_agreed() -> None:
    config = ServerConfig(doors=DoorLimits(clients_per_address_max=1))
    async with calm_server(config) as server, connect_signaling(server.url, player(1)):
        with pytest.raises(SignalingUnreachable, match="503"):
            async with connect_signaling(server.url, player(2), config=IMPATIENT):
                pass
