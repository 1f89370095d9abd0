"""One peer with a right certificate and the worst intentions: it may end its own connection, and disturbs no other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from psyne_mesh.errors import PsyneMeshError
from psyne_mesh.webrtc.endpoint import open_endpoint
from psyne_mesh.webrtc.sctp import wire
from tests.fuzz.inputs import Cursor
from tests.fuzz.targets import corpus
from tests.webrtc.dial import LOOPBACK, Call, background, echo, open_call

PACKETS = 150


def mutated(data: bytes, dice: random.Random) -> bytes:
    """As it is, with some bytes changed, cut short, or twice."""
    changed = bytearray(data)
    for _ in range(dice.choice((0, 1, 1, 3, 10))):
        if changed:
            changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed[: dice.randrange(len(changed) + 1)] if dice.random() < 0.1 else changed)


def bodies(target: str, dice: random.Random) -> Iterator[bytes]:
    """The pieces of the fuzzer's corpus, mutated, for ever."""
    pieces = []
    for path in corpus(target):
        cursor = Cursor(path.read_bytes())
        cursor.byte()
        pieces += [body for _, body in cursor.pieces() if body]
    while True:
        yield mutated(dice.choice(pieces), dice)


def chunks_with_the_right_tag(hostile: Call, dice: random.Random) -> Iterator[bytes]:
    """SCTP packets that get past ports, tag and checksum."""
    header = hostile.answerer.connection.stack._association._header
    for body, _ in zip(bodies("association", dice), range(PACKETS)):
        yield wire.seal(header, [body])


def messages_on_any_stream(hostile: Call, dice: random.Random) -> Iterator[bytes]:
    """Whole messages, in the right sequence of TSNs, whose channel, PPID and content are anything."""
    association = hostile.answerer.connection.stack._association
    header, table = association._header, association._outbound.outstanding
    for number, body in zip(range(PACKETS), bodies("channels", dice)):
        fields = (
            (table.next_tsn + number) & 0xFFFFFFFF,
            dice.randrange(40),
            0,
            0,
            dice.choice((50, 51, 53, 56, 57, 9)),
        )
        value = wire.I_DATA_FIELDS.pack(*fields) + body[:1000] + b"."
        unordered = wire.FLAG_BEGIN | wire.FLAG_END | wire.FLAG_UNORDERED
        yield wire.seal(header, [wire.chunk(wire.I_DATA, unordered, value)])


def real_packets_gone_wrong(hostile: Call, dice: random.Random) -> Iterator[bytes]:
    """What an honest peer would have sent, with changes."""
    for path, _ in zip(corpus("sctp") * PACKETS, range(PACKETS)):
        packet = path.read_bytes()
        yield wire.seal(hostile.answerer.connection.stack._association._header, [mutated(packet[12:], dice)])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("attack", [chunks_with_the_right_tag, messages_on_any_stream, real_packets_gone_wrong])
async def test_fuzzed_packets_on_an_established_connection(
    attack: Callable[[Call, random.Random], Iterator[bytes]], seed: int
) -> None:
    dice = random.Random(seed)
    async with (
        open_endpoint(LOOPBACK) as hub,
        open_endpoint(LOOPBACK) as good,
        open_endpoint(LOOPBACK) as evil,
        open_call(hub, good) as honest,
        background((echo, honest.theirs)),
    ):
        sent = 0
        try:
            async with open_call(hub, evil) as hostile:
                session, wire_out = hostile.answerer.connection.stack._dtls, hostile.answerer.connection.ice
                assert session is not None
                for packet in attack(hostile, dice):
                    datagrams = session.send([packet])
                    wire_out.send([mutated(datagram, dice) for datagram in datagrams] + datagrams)
                    if sent % 10 == 0:  # between them the honest one goes on
                        await honest.ours.send(f"message {sent}")
                        assert await honest.ours.receive() == f"message {sent}"
                    sent += 1
        except* PsyneMeshError:
            pass  # the hostile connection may have ended itself
        assert sent == PACKETS
        await honest.ours.send(b"x" * 100_000)
        assert len(await honest.ours.receive()) == 100_000
        assert honest.offerer.state == honest.answerer.state == "connected"
        assert hub.gateway.last_fault is None
        async with open_endpoint(LOOPBACK) as newcomer, open_call(hub, newcomer) as another:  # who is welcome
            await another.ours.send("hello")
            assert await another.theirs.receive() == "hello"
