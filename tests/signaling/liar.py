"""Generated conversations of a signaling server that lies: from the HTTP head on, at join and in play.

    python -m tests.signaling.liar --count 10000 --first-seed 0

runs so many of each kind and names the seed of each that put an exception into the game.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import trio
import typer
import wsproto
from trio.testing import MockClock, memory_stream_pair
from wsproto import events as ws

from psyne_mesh.errors import ClosedError, MessageTooLarge, RoomError, SignalingError, WouldBlock
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.node import Node
from psyne_mesh.identity import Identity, verify_untrusted
from psyne_mesh.mesh.records import goodbye_of, record_of
from psyne_mesh.nurseries import open_background_nursery
from psyne_mesh.room.mesh import open_mesh
from psyne_mesh.signaling import messages as m
from psyne_mesh.signaling.client import SignalingClient, connect_signaling
from psyne_mesh.signaling.envelope import seal
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.testing import open_network
from tests.signaling.rogue import placed_in

ROOM = "lobby"
KEY = f"//{ROOM}"
ALLOWED = (SignalingError, RoomError, WouldBlock, ClosedError, MessageTooLarge)
ACCOMPLICES = [Identity.from_seed(bytes([number]) * 32) for number in range(1, 4)]
STATUS = (b"101", b"200", b"204", b"301", b"400", b"426", b"500", b"503", b"999", b"-1", b"x", b"")
EPOCH_MS = 1_800_000_000_000
NASTY: list[object] = [
    None, True, -1, 0, 1, 2**53, 2**63, 2**64, 1e308, "", " ", "\u202e", "\ud7ff", "x" * 300, "x" * 70_000, [], {}, [[]],
    KEY, ROOM, "//", "///", "a/b/c", "0" * 32, "f" * 32, "F" * 32, [1, 2], {"a": {}}, "tunnel.", "tunnel.AAEA", "tunnel.////",
]  # fmt: skip


class Liar:
    """Give `dial` to a client. Until `honest` messages were answered it is a good server; then it says what it likes."""

    def __init__(self, nursery: trio.Nursery, rng: random.Random, honest: int, *, tells_truth_of_http: bool) -> None:
        self._nursery = nursery
        self._rng = rng
        self._honest = honest
        self._good_http = tells_truth_of_http
        self._refs = [0]
        self._me = "0" * 32
        self._envelopes: list[str] = ["AAAA.AAAA.AAAA"]
        self._records = [_record(identity) for identity in ACCOMPLICES]
        self._lies = 0

    async def dial(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self._honest <= 0 and self._rng.random() < 0.1:
            raise self._rng.choice([ConnectionRefusedError("no"), trio.BrokenResourceError(), OSError("unreachable")])
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: trio.StapledStream[Any, Any]) -> None:
        try:
            await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, wsproto.utilities.ProtocolError):
            pass
        finally:
            await stream.aclose()

    async def _converse(self, stream: trio.StapledStream[Any, Any]) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                return
            head += data
        await stream.send_all(self._greeting(head))
        connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        connection.receive_data(head)
        for event in connection.events():
            if isinstance(event, ws.Request):
                connection.send(ws.AcceptConnection())
        if self._honest > 0 or self._rng.random() < 0.8:
            await self._say(stream, m.Challenge(nonce="bm9uY2U="))
        while True:
            with trio.move_on_after(self._rng.choice([0.01, 0.3, 3.0])) as waiting:
                data = await stream.receive_some()
                if not data:
                    return
                connection.receive_data(data)
                for event in connection.events():
                    if isinstance(event, ws.TextMessage):
                        await self._answer(stream, event.data)
            if self._honest <= 0 and (waiting.cancelled_caught or self._rng.random() < 0.3):
                self._lies += 1
                if self._lies > 60 or self._rng.random() < 0.03:
                    return
                await stream.send_all(self._lie())

    async def _say(self, stream: trio.abc.SendStream, message: m.Message) -> None:
        await stream.send_all(_frame(m.encode(message).encode()))

    async def _answer(self, stream: trio.abc.SendStream, text: str) -> None:
        question = m.decode_client_untrusted(text)
        self._refs.append(getattr(question, "ref", 0))
        if isinstance(question, m.Hello):
            self._me = question.peer_id
        if isinstance(question, m.Signal):
            self._envelopes.append(question.envelope)
        answer = self._honest_answer(question)
        self._honest -= not isinstance(question, m.Ping)
        if answer is not None and (self._honest >= 0 or self._rng.random() < 0.5):
            await self._say(stream, answer)

    def _honest_answer(self, question: m.ClientMessage) -> m.Message | None:
        match question:
            case m.Hello(ref=ref, peer_id=peer):
                return m.Welcome(ref=ref, peer_id=peer, keepalive_s=10, time_ms=EPOCH_MS)
            case m.Join():
                info = m.Room(
                    room=f"{question.app_id}/{question.region}/{question.name}", name=question.name, app_id=question.app_id,
                    region=question.region, players=1, max_players=question.max_players, skill_range=question.skill_range,
                    state="waiting", metadata=question.metadata, instance=question.instance, manifest=question.manifest,
                )  # fmt: skip
                peers = [
                    m.Member(i.peer_id, r, n) for n, (i, r) in enumerate(zip(ACCOMPLICES, self._records, strict=True))
                ]
                return m.JoinedRoom(ref=question.ref, info=info, peers=peers, created=True, index=9)
            case m.Seek(ref=ref, join=join):
                return placed_in(m.Seek(ref=ref, join=join))
            case m.Leave(ref=ref, room=room):
                return m.LeftRoom(ref=ref, room=room)
            case m.ListRooms(ref=ref):
                return m.RoomList(ref=ref, rooms=[], truncated=False)
            case m.Ping(ref=ref):
                return m.Pong(ref=ref)
        return None

    def _greeting(self, head: bytes) -> bytes:
        key = b"".join(
            line.split(b":", 1)[1].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key:")
        )
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        good = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        rng = self._rng
        if self._good_http or rng.random() < 0.5:
            return good
        status = b"HTTP/1.1 " + rng.choice(STATUS) + b" Whatever\r\n"
        after = b"Retry-After: " + rng.choice([b"0", b"1", b"-1", b"999999999", b"soon", b"\xff"]) + b"\r\n"
        body = b"Content-Length: " + rng.choice([b"0", b"5", b"-5", b"x", b"99999"]) + b"\r\n\r\nhello"
        return rng.choice([
            status + after + body, status + b"\r\n", good[: rng.randrange(len(good))], rng.randbytes(rng.randrange(200)),
            good.replace(accept, b"AAAA"), good + rng.randbytes(50), status + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        ])  # fmt: skip

    # --------------------------------------------------------------------------------------------------------- lies

    def _lie(self) -> bytes:
        rng = self._rng
        kind = rng.randrange(12)
        text = m.encode(self._message()).encode()
        if kind < 5:
            return _frame(text)
        if kind < 8:
            return _frame(self._mutated(text))
        if kind == 8:
            return _frame(
                text, opcode=rng.randrange(16), fin=rng.random() < 0.7, reserved=rng.choice([0, 0, 0x10, 0x40])
            )
        if kind == 9:  # control frames, good and bad
            codes = [1000, 1001, 1002, 1005, 1006, 1009, 1012, 4001, 4007, 0, 65_535]
            payload = rng.choice(
                [b"", b"x", rng.choice(codes).to_bytes(2, "big") + b"bye", rng.randbytes(rng.randrange(130))]
            )
            return _frame(payload, opcode=rng.choice([8, 9, 10]))
        if kind == 10:
            return _frame(text) * rng.choice([2, 30, 300])
        garbage = rng.randbytes(rng.randrange(1, 100))
        return rng.choice([garbage, b"\x81\x7f" + b"\xff" * 8, _frame(text)[:-3], b"\x81\xff" + text])

    def _message(self) -> m.Message:
        rng = self._rng
        identity = rng.choice(ACCOMPLICES)
        number = ACCOMPLICES.index(identity)
        peer = rng.choice([identity.peer_id, self._me, "0" * 32])
        ref = rng.choice([*self._refs[-4:], 0, rng.randrange(100)])
        record = rng.choice([self._records[number], "", "AAAA", self._records[number][:-4], self._goodbye(identity)])
        member = m.Member(peer, record, rng.randrange(5))
        info = m.Room(
            room=rng.choice([KEY, "//elsewhere"]), name=rng.choice([ROOM, "elsewhere"]), app_id="", region="", players=1,
            max_players=rng.choice([1, 2, 16, 10_000]), skill_range=rng.choice([None, (1.0, 2.0), (2.0, 1.0)]), state="active",
            metadata={},
        )  # fmt: skip
        error = m.Error(
            code=rng.choice(["room_full", "peer_gone", "limit", "bad_message", ""]), message="ha", ref=rng.choice([ref, None]),
            room=rng.choice([KEY, None]), peer_id=rng.choice([peer, None]),
        )  # fmt: skip
        return rng.choice([
            m.Challenge(nonce="AAAA"), m.Welcome(ref=ref, peer_id=peer, keepalive_s=rng.choice([0.01, 10, 3_600])),
            m.JoinedRoom(ref=ref, info=info, peers=[member] * rng.randrange(3), created=rng.random() < 0.5, index=0),
            m.LeftRoom(ref=ref, room=KEY), m.MemberJoined(room=KEY, peer=member, rejoined=rng.random() < 0.5),
            m.MemberLeft(room=KEY, peer_id=peer, reason=rng.choice(["left", "lost", "", "\n"]), record=record),
            m.RoomList(ref=ref, rooms=[info] * rng.randrange(3), truncated=True), m.Pong(ref=ref), error,
            m.SignalFrom(sender=peer, room=KEY, envelope=self._envelope(identity)),
            m.SignalFrom(sender=identity.peer_id, room=KEY, envelope=self._envelope(identity)),
        ])  # fmt: skip

    def _goodbye(self, identity: Identity) -> str:
        return goodbye_of(_node(identity), 0.0)

    def _envelope(self, identity: Identity) -> str:
        rng = self._rng
        if rng.random() < 0.4:
            tunnelled = "tunnel." + base64.b64encode(rng.randbytes(40)).decode()
            return rng.choice([*self._envelopes[-5:], "tunnel.AAEA", tunnelled])
        kind = rng.choice(["offer", "answer", "candidate", "restart", "bye"])
        sdp = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
        bodies = ["", "v=0", sdp, "candidate:1 1 udp 1 10.0.0.1 1 typ host", "x" * 900]
        return seal(
            identity, kind=kind, recipient=self._me, room=rng.choice([KEY, "//other"]), session=rng.choice(["s1", "s2"]),  # type: ignore[arg-type]
            sequence=rng.randrange(5), body=rng.choice(bodies), now_ms=rng.choice([0, EPOCH_MS, 2**42]),
        )  # fmt: skip

    def _mutated(self, text: bytes) -> bytes:
        rng = self._rng
        if rng.random() < 0.4:
            data = bytearray(text)
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            return bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        said: dict[str, Any] = json.loads(text)
        name = rng.choice(list(said))
        said[rng.choice([name, "extra"])] = rng.choice(NASTY)
        if rng.random() < 0.3:
            del said[rng.choice(list(said))]
        return json.dumps(said).encode()


@asynccontextmanager
async def open_liar(seed: int, honest: int, *, good_http: bool) -> AsyncIterator[tuple[Liar, random.Random]]:
    rng = random.Random(seed)
    async with open_background_nursery() as nursery:
        yield Liar(nursery, rng, honest, tells_truth_of_http=good_http), rng


async def lie_at_join(seed: int) -> None:
    """A client that asks what there is to ask. Raises what must never come out of it."""
    async with open_liar(seed, honest=seed % 3, good_http=seed % 4 != 0) as (liar, rng):
        try:
            identity = Identity.from_seed(b"ada" + bytes(29))
            async with connect_signaling("ws://liar", identity, rng=rng, dial=liar.dial) as client:
                with trio.move_on_after(60):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_drain, client)
                        await _ask(client, rng)
                        nursery.cancel_scope.cancel()
        except ALLOWED:
            pass


async def lie_in_play(seed: int) -> None:
    """A player in a room, of which the server tells lies from some moment on. The room stands until it is left."""
    ada = Identity.from_seed(b"ada" + bytes(29))
    async with open_network(seed) as net, open_liar(seed, honest=2 + seed % 3, good_http=True) as (liar, rng):
        host = net.host("ada")
        async with (
            connect_signaling("ws://liar", ada, rng=rng, dial=liar.dial) as client,
            open_mesh(client, identity=ada, config=host.config, sockets=host.sockets, rng=rng) as mesh,
        ):
            try:
                room = await mesh.join_game_room(ROOM)
            except ALLOWED:
                return
            await trio.sleep(rng.choice([5, 40]))
            with suppress(ClosedError):  # "you entered elsewhere" ends a room in which we are alone
                await room.channel("raw").send(b"still here")
                await room.leave()


async def _drain(client: SignalingClient) -> None:
    try:
        while True:
            await client.next_event()
    except ClosedError:
        return


async def _ask(client: SignalingClient, rng: random.Random) -> None:
    peer = ACCOMPLICES[0].peer_id
    for _ in range(rng.randrange(3, 8)):
        with trio.move_on_after(rng.choice([0.5, 15])):
            try:
                match rng.randrange(5):
                    case 0 | 1:
                        await client.join(JoinRequest(ROOM, record="AAAA", skill_range=(1, 2)), goodbye="BBBB")
                    case 2:
                        await client.list_rooms()
                    case 3:
                        client.send_signal(peer, KEY, "x" * rng.choice([1, 100, 60_000]))
                    case 4:
                        client.doubt()
                        await client.leave(KEY, record="BBBB")
            except ALLOWED:
                await trio.sleep(0.5)


def _frame(payload: bytes, *, opcode: int = 1, fin: bool = True, reserved: int = 0) -> bytes:
    head = bytes([(0x80 if fin else 0) | reserved | opcode])
    size = len(payload)
    if size < 126:
        return head + bytes([size]) + payload
    return head + (b"\x7e" + size.to_bytes(2, "big") if size < 2**16 else b"\x7f" + size.to_bytes(8, "big")) + payload


def _node(identity: Identity) -> Node:
    digest = hashlib.sha256(b"psyne-room" + KEY.encode()).digest()
    return Node(
        GossipConfig(),
        identity,
        digest[:16],
        rng=random.Random(1),
        verify=verify_untrusted,
        epoch=EPOCH_MS,
        name="liar",
    )


def _record(identity: Identity) -> str:
    return record_of(_node(identity))


def main(
    count: Annotated[int, typer.Option(help="How many of each kind.")] = 10_000,
    first_seed: Annotated[int, typer.Option()] = 0,
) -> None:
    began, failures = time.monotonic(), 0
    for kind in (lie_at_join, lie_in_play):
        for seed in range(first_seed, first_seed + count):
            try:
                trio.run(kind, seed, clock=MockClock(autojump_threshold=0))
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                failures += 1
                print(f"{kind.__name__}({seed}): {type(error).__name__}: {error}")
        print(f"{kind.__name__}: {count} conversations, {failures} exceptions so far, {time.monotonic() - began:.0f} s")
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    typer.run(main)
