"""STUN and TURN servers that answer anything at all, at any moment: conversations made from a seed, in virtual time.

    python -m tests.ice.liars --conversations 10000 [--first 0] [--kind udp]

Each plays one gateway against one server that is honest for a while and then is not, at join and in play, while a friend is
reached directly. What must hold: nothing is raised, no datagram sets off a bug, and whoever has a direct path plays on.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import random
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import attrs
import trio
import trio.testing
import trustme
from aioice import stun
from rich.console import Console

from psyne_mesh.cli.doctor import as_dict, show
from psyne_mesh.cli.verdict import judge
from psyne_mesh.config import StunServer, WebRTCConfig
from psyne_mesh.errors import ConnectFailed, ProtocolError
from psyne_mesh.webrtc.ice import IceGateway, gather, open_gateway, probe
from psyne_mesh.webrtc.ice.events import Address
from psyne_mesh.webrtc.ice.turn_link import split_frames_untrusted
from tests.ice.fake_net import FakeNet
from tests.ice.helpers import DATA, IN_MEMORY, A, B, Side, introduce
from tests.ice.servers import KEY, REALM
from tests.ice.turn_net import DELAY_S, SERVER, TurnOnNet

Kind = Literal["stun", "udp", "tcp", "tls"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HONEST_UNTIL_S = 8.0  # at the longest
ADDRESSES: list[Address] = [("0.0.0.0", 0), ("255.255.255.255", 9), ("224.0.0.251", 5353), ("127.0.0.1", 1), ("::", 0),
                            ("::1", 80), ("fe80::1", 7), ("ff02::1", 7), ("::ffff:192.0.2.1", 4), A, B, SERVER]  # fmt: skip
CODES = [0, 1, 300, 400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 446, 486, 487, 500, 508, 699]
VALUES: dict[str, list[Any]] = {
    "LIFETIME": [0, 1, 5, 600, 2**31, 2**32 - 1],
    "XOR-MAPPED-ADDRESS": ADDRESSES,
    "XOR-RELAYED-ADDRESS": ADDRESSES,
    "XOR-PEER-ADDRESS": ADDRESSES,
    "MAPPED-ADDRESS": ADDRESSES,
    "OTHER-ADDRESS": ADDRESSES,
    "RESPONSE-ORIGIN": ADDRESSES,
    "NONCE": [b"", b"\0", b"n" * 128, b"\xff" * 900],
    "REALM": ["", "r" * 128, "\0", "\N{SNOWMAN}" * 200, REALM],
    "SOFTWARE": ["", "\x1b[2J", "s" * 700],
    "DATA": [b"", b"\x17", b"\0" * 20, b"\x40\0\0\0", b"\xff" * 1200],
    "CHANNEL-NUMBER": [0, 0x3FFF, 0x4000, 0x4FFF, 0xFFFF],
    "ERROR-CODE": [(code, words) for code in CODES for words in ("", "no\0\0", "\x1b[31m" + "e" * 500)],
}


class Liar:
    """What becomes of one honest message. rng decides; `share` of the messages are lies."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.share = 0.0
        self._lies = [self._nothing, self._twice, self._flipped, self._cut, self._longer, self._noise, self._other_words,
                      self._other_words, self._other_words, self._refusal, self._other_kind, self._other_size]  # fmt: skip

    def lies(self, data: bytes) -> list[bytes]:
        if self.rng.random() >= self.share:
            return [data]
        return self.rng.choice(self._lies)(data)

    def noise(self) -> bytes:
        """What nobody asked for."""
        rng = self.rng
        size = rng.choice((1, 3, 4, 5, 19, 20, 21, 60, 1200))
        channel = struct.pack("!HH", rng.randrange(0x3FF0, 0x5010), rng.choice((0, 1, 4, 1200, 65_535)))
        attributes = {name: rng.choice(VALUES[name]) for name in rng.sample(sorted(VALUES), rng.randrange(4))}
        return rng.choice((
            lambda: b"\xff" * 4,
            lambda: rng.randbytes(size),
            lambda: channel + rng.randbytes(size),
            lambda: bytes((rng.randrange(4),)) + rng.randbytes(size),
            lambda: bytes(stun.Message(rng.choice(list(stun.Method)), rng.choice(list(stun.Class)), attributes=attributes)),
        ))()  # fmt: skip

    def _nothing(self, data: bytes) -> list[bytes]:
        return []

    def _twice(self, data: bytes) -> list[bytes]:
        return [data, data]

    def _flipped(self, data: bytes) -> list[bytes]:
        changed = bytearray(data)
        for _ in range(self.rng.randrange(1, 5)):
            changed[self.rng.randrange(len(changed))] ^= 1 << self.rng.randrange(8)
        return [bytes(changed)]

    def _cut(self, data: bytes) -> list[bytes]:
        return [data[: self.rng.randrange(len(data))]]

    def _longer(self, data: bytes) -> list[bytes]:
        return [data + self.rng.randbytes(self.rng.randrange(1, 64))]

    def _noise(self, data: bytes) -> list[bytes]:
        return [self.noise(), *self.rng.choice(((), (data,)))]

    def _other_size(self, data: bytes) -> list[bytes]:
        return [data[:2] + self.rng.choice((0, 1, 4, 20, 1500, 65_535)).to_bytes(2, "big") + data[4:]]

    def _other_words(self, data: bytes) -> list[bytes]:
        return self._retold(data, lambda message: None)

    def _refusal(self, data: bytes) -> list[bytes]:
        def refuse(message: stun.Message) -> None:
            message.message_class = stun.Class.ERROR
            message.attributes["ERROR-CODE"] = self.rng.choice(VALUES["ERROR-CODE"])

        return self._retold(data, refuse)

    def _other_kind(self, data: bytes) -> list[bytes]:
        def other(message: stun.Message) -> None:
            message.message_class = self.rng.choice(list(stun.Class))
            if self.rng.random() < 0.5:
                message.message_method = self.rng.choice(list(stun.Method))

        return self._retold(data, other)

    def _retold(self, data: bytes, change: Any) -> list[bytes]:
        """The same message with attributes missing, added or changed; often signed as a server signs."""
        if data[0] > 3:
            return [data]
        rng = self.rng
        message = stun.parse_message(data)
        change(message)
        for name in list(message.attributes):
            if rng.random() < 0.2:
                del message.attributes[name]
            elif name in VALUES and rng.random() < 0.3:
                message.attributes[name] = rng.choice(VALUES[name])
        if rng.random() < 0.3:
            added = rng.choice(sorted(VALUES))
            message.attributes[added] = rng.choice(VALUES[added])
        if rng.random() < 0.7:
            message.add_message_integrity(KEY)
        return [bytes(message)]


class LyingTurn(TurnOnNet):
    """`accept` takes streams; what goes to their addresses is written to them."""

    def __init__(self, net: FakeNet, liar: Liar, nursery: trio.Nursery) -> None:
        super().__init__(net)
        self._liar = liar
        self._nursery = nursery
        self._tls = _server_context()
        self.clients: set[Address] = set()
        self.asked = 0

    def arrive(self, data: bytes, source: Address) -> None:
        self.asked += 1
        self.clients.add(source)
        super().arrive(data, source)

    def say(self, data: bytes) -> None:
        """Tell a client of ours, asked or not."""
        if self.clients:
            super()._carry(data, SERVER, self._liar.rng.choice(sorted(self.clients)))

    def _carry(self, data: bytes, source: Address, destination: Address) -> None:
        for told in self._liar.lies(data) if source == SERVER else [data]:
            super()._carry(told, source, destination)

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        """In the place of `streams.open_tcp`. TLS when the port is that of TLS."""
        if self._liar.rng.random() < 0.5 * self._liar.share:
            raise OSError("connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs, port == TLS_PORT)
        return ours

    async def _serve(self, stream: trio.abc.Stream, secure: bool) -> None:
        number = 20_000 + len(self._net.sockets)
        address: Address = ("192.0.2.99", number)
        try:
            if secure and self._liar.rng.random() >= self._liar.share:
                stream = trio.SSLStream(stream, self._tls, server_side=True)
            socket = StreamSocket(stream, self._liar)
            self._net.sockets[address] = socket  # type: ignore[assignment]
            self._nursery.start_soon(socket.write)
            buffer = bytearray()
            while chunk := await stream.receive_some(65_536):
                buffer += chunk
                for frame in split_frames_untrusted(buffer):
                    self.arrive(frame, address)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ProtocolError):
            pass
        finally:
            self.clients.discard(address)
            await trio.aclose_forcefully(stream)


class StreamSocket:
    """What `FakeNet` hands datagrams to that leave over a stream."""

    def __init__(self, stream: trio.abc.Stream, liar: Liar) -> None:
        self._stream = stream
        self._liar = liar
        self._put, self._due = trio.open_memory_channel[bytes](1000)

    def arrive(self, data: bytes, source: Address) -> None:
        honest = self._liar.rng.random() >= self._liar.share
        with _ignored(trio.WouldBlock, trio.BrokenResourceError):
            self._put.send_nowait(data + bytes(-len(data) % 4) if honest else data)

    async def write(self) -> None:
        with _ignored(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in self._due:
                await self._stream.send_all(data)
                if self._liar.rng.random() < 0.1 * self._liar.share:
                    await trio.aclose_forcefully(self._stream)


class LyingStun:
    """At `SERVER`; speaks RFC 5780 in its way."""

    def __init__(self, net: FakeNet, liar: Liar) -> None:
        self.asked = 0
        self._net = net
        self._liar = liar
        self._clients: list[Address] = []
        self._send, self._due = trio.open_memory_channel[tuple[bytes, Address]](10_000)
        net.sockets[SERVER] = self  # type: ignore[assignment]

    async def run(self) -> None:
        async for data, destination in self._due:
            await trio.sleep(DELAY_S)
            self._net.carry(data, SERVER, destination)

    def arrive(self, data: bytes, source: Address) -> None:
        self.asked += 1
        self._clients.append(source)
        request = stun.parse_message(data)
        answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = self._liar.rng.choice((source, ("198.51.100.9", 4444)))
        answer.attributes["OTHER-ADDRESS"] = self._liar.rng.choice((("203.0.113.2", 3479), *ADDRESSES))
        for told in self._liar.lies(bytes(answer)):
            self._send.send_nowait((told, source))

    def say(self, data: bytes) -> None:
        if self._clients:
            self._send.send_nowait((data, self._liar.rng.choice(self._clients)))


TLS_PORT = 5349


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(SERVER[0]).configure_cert(context)
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context


@contextmanager
def _ignored(*errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors:
        return


@contextmanager
def _dialling(server: LyingTurn) -> Iterator[None]:
    before = gather.open_tcp
    gather.open_tcp = probe.open_tcp = server.dial  # type: ignore[assignment]
    try:
        yield
    finally:
        gather.open_tcp = probe.open_tcp = before


@attrs.define
class Told:
    """What a conversation showed. direct: whether the friend was reached without the liar. heard: of what was said directly,
    by which shares each side got it."""

    asked: int = 0
    faults: Counter[str] = attrs.Factory(Counter)
    connected: bool = False
    said: int = 0
    heard: tuple[int, int] = (0, 0)


async def converse(seed: int, kind: Kind) -> Told:
    """One conversation. Raises what would have reached the game."""
    rng = random.Random(f"{seed}/{kind}")
    net, told = FakeNet(), Told()
    liar = Liar(rng)
    async with trio.open_nursery() as nursery:
        server: LyingTurn | LyingStun
        config = attrs.evolve(IN_MEMORY, ice_gathering_timeout_s=rng.choice((0.5, 5.0)), connection_timeout_s=10.0)
        if kind == "stun":
            server = LyingStun(net, liar)
            config = attrs.evolve(config, stun_servers=(StunServer(*SERVER),))
        else:
            server = LyingTurn(net, liar, nursery)
            port = TLS_PORT if kind == "tls" else SERVER[1]
            entry = server.entry(transport=kind, port=port)
            config = attrs.evolve(config, turn_servers=(entry,), relay_only=rng.random() < 0.3)
        nursery.start_soon(server.run)
        nursery.start_soon(_begin_to_lie, server, liar)
        with _dialling(server) if isinstance(server, LyingTurn) else _ignored():
            if rng.random() < 0.1:
                await _ask_doctor(net, config)
            else:
                await _play(net, config, rng, told)
        told.asked = server.asked
        nursery.cancel_scope.cancel()
    return told


async def _begin_to_lie(server: LyingTurn | LyingStun, liar: Liar) -> None:
    """Often from the first word on, else in play."""
    rng = liar.rng
    await trio.sleep(rng.choice((0.0, 0.0, rng.uniform(0, 0.3), rng.uniform(0, HONEST_UNTIL_S))))
    liar.share = rng.choice((0.1, 0.5, 0.9, 1.0))
    while True:
        await trio.sleep(rng.expovariate(1.0))
        for _ in range(rng.randrange(3)):
            server.say(liar.noise())


async def _play(net: FakeNet, config: WebRTCConfig, rng: random.Random, told: Told) -> None:
    async with (
        open_gateway(config, sockets=net.factory(A), tls=client_context) as left,
        open_gateway(IN_MEMORY, sockets=net.factory(B)) as right,
    ):
        try:
            await _meet(left, right, rng, told)
        except* ConnectFailed:
            assert config.relay_only, "the direct path was there"
        if told.connected and not config.relay_only:
            assert told.heard == (told.said, told.said), f"of {told.said} messages {told.heard} arrived"
        told.faults = left.faults + right.faults
        if left.last_fault is not None:
            raise left.last_fault


async def _meet(left: IceGateway, right: IceGateway, rng: random.Random, told: Told) -> None:
    async with trio.open_nursery() as nursery:
        a, b = Side(left, controlling=True), Side(right, controlling=False)
        for side in (a, b):
            await nursery.start(side.transport.run)
        introduce(a, b)
        with trio.move_on_after(left.config.connection_timeout_s + 1):
            while a.transport.path is None or b.transport.path is None:
                await trio.sleep(0.05)
            told.connected = True
        for _ in range(rng.choice((4, 25, 45)) if told.connected else 0):
            told.said += 1
            for side in (a, b):
                side.transport.send([DATA])
            await trio.sleep(1.0)
            if rng.random() < 0.03:
                left.regather()
        told.heard = len(a.received), len(b.received)
        a.transport.close()
        b.transport.close()


async def _ask_doctor(net: FakeNet, config: WebRTCConfig) -> None:
    with _numbered_sockets(net) as sockets:
        network = await probe.probe_network(
            config, sockets=sockets, interfaces=lambda: [("eth0", A[0])], tls=client_context
        )
    verdict = judge(network, None)
    json.dumps(as_dict(network, None, verdict))
    show(Console(file=io.StringIO()), network, None, verdict)


@contextmanager
def _numbered_sockets(net: FakeNet) -> Iterator[Any]:
    """The doctor opens several ports of one machine."""
    ports = iter(range(A[1], 65_536))
    yield lambda config: [net.socket((A[0], next(ports)))]


def run_one(seed: int, kind: Kind) -> Told:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(converse, seed, kind, clock=clock)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.ice.liars", description=__doc__)
    parser.add_argument("--conversations", type=int, default=10_000, help="with each kind of server")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS)
    chosen = parser.parse_args()
    failed = 0
    for kind in [chosen.kind] if chosen.kind else KINDS:
        began, asked, connected, ended = time.monotonic(), 0, 0, Counter[str]()
        for seed in range(chosen.first, chosen.first + chosen.conversations):
            try:
                told = run_one(seed, kind)
            except Exception as error:  # noqa: BLE001 - counted, and the rest is played
                ended[f"seed {seed}: {_innermost(error)!r}"] += 1
                continue
            asked += told.asked
            connected += told.connected
        failed += ended.total()
        print(f"{kind}: {chosen.conversations} conversations, {asked} questions, {connected} connected, "
              f"{ended.total()} raised, {time.monotonic() - began:.0f} s")  # fmt: skip
        for text in list(ended)[:20]:
            print("  ", text)
    sys.exit(bool(failed))


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
