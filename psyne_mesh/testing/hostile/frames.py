"""Frames of gossip that lie: what a member with a valid key of its own can say, whatever it costs those who hear it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import TYPE_CHECKING

from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip import codec, exchange, records, routing, sync, walks
from psyne_mesh.gossip.events import Output, SendFrame
from psyne_mesh.gossip.proofs import prove
from psyne_mesh.gossip.records import Accusation, OwnState, Record, RoomKey, Signer
from psyne_mesh.identity import PeerId

if TYPE_CHECKING:
    import random

HUGE = (2**32 - 1, 2**32, 2**63, 2**64 - 1)  # epochs and incarnations that nobody lives to see
HAVES_MAX = 1000  # lines of one HAVES that a receiver still reads (`costs.SIZES`)


def told(*items: bytes) -> bytes:
    """A TOLD frame of these items: records, accusations."""
    return codec.head(codec.TOLD) + b"".join(items)


def accusation(key: RoomKey, signer: Signer, victim: Record, ahead: int, verdict: int) -> Accusation:
    """`signer` says that the living `victim` is silent or gone, in the victim's own numbers or `ahead` of them."""
    number = victim.incarnation + ahead
    return records.accuse(key, signer, victim.peer, victim.epoch, number, verdict, victim.instance)


def forged_record(key: RoomKey, signer: Signer, victim: Record, state: int) -> Record:
    """The victim's record with the highest numbers, under a signature that is not the victim's."""

    class Thief:
        peer_id, public_key, sign = victim.peer, victim.public_key, signer.sign

    return OwnState(epoch=2**64 - 1, incarnation=2**64 - 1, state=state).sign(key, Thief, victim.instance, victim.at)


def withholds(output: Output) -> bool:
    """Whether who passes no broadcast on keeps this order of its node to itself."""
    return isinstance(output, SendFrame) and output.frame[1] in (codec.GOSSIP, codec.IHAVE)


class Frames:
    """Makes lies of one member of one room.

    key: of the room. signer: the member. stranger: gives a key that nobody has seen, each time another. dated: the room's
    instance, and the Unix seconds that signed words carry.
    """

    def __init__(
        self, key: RoomKey, signer: Signer, rng: random.Random, stranger: Callable[[], Signer],
        dated: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:  # fmt: skip
        self.key = key
        self.dated = dated
        self.signer = signer
        self.rng = rng
        self.stranger = stranger
        self._numbers = count(1)

    # ------------------------------------------------------------------------------------------------------ parts

    def ids(self, n: int) -> list[PeerId]:
        """Ids of nobody."""
        return [PeerId(self.rng.randbytes(16).hex()) for _ in range(n)]

    def records(self, n: int, *, ballots: bool = False) -> list[Record]:
        """Members that were made up; with ballots, each votes for the others in the first seats."""
        crowd = [self.stranger() for _ in range(n)]
        holders = [codec.raw_of(one.peer_id)[: records.BALLOT_ID_BYTES] for one in crowd[: records.BALLOT_MAX]]
        ballot = tuple(enumerate(holders)) if ballots else ()
        return [
            OwnState(epoch=1, joined_at=1, seat=number % records.SEATS_MAX if ballots else None, ballot=ballot).sign(
                self.key, one, *self.dated()
            )
            for number, one in enumerate(crowd)
        ]

    def spoilt(self, n: int) -> bytes:
        """Items: records whose signatures are wrong."""
        return b"".join(
            codec.item(codec.ITEM_RECORD, r.encoded[:-1] + bytes((r.encoded[-1] ^ 1,))) for r in self.records(n)
        )

    def fresh(self, n: int = codec.ITEMS_MAX) -> bytes:
        """Items: members that were made up, each with a signature of its own."""
        return b"".join(map(exchange.encoded, self.records(n)))

    def two_faced(self, n: int) -> bytes:
        """Items: proofs against keys that were made up, each with two signatures."""
        proofs = []
        for one in (self.stranger() for _ in range(n)):
            faces = [OwnState(epoch=1, joined_at=1, name=name).sign(self.key, one, *self.dated()) for name in "ab"]
            proofs.append(exchange.encoded(prove(*faces)))
        return b"".join(proofs)

    def accusations(self, n: int) -> bytes:
        """Items: nobody is gone."""
        instance, _ = self.dated()
        lies = (records.accuse(self.key, self.signer, peer, 1, 0, records.DOWN, instance) for peer in self.ids(n))
        return b"".join(map(exchange.encoded, lies))

    # ----------------------------------------------------------------------------------------------------- frames

    def made_up_members(self, n: int, *, ballots: bool) -> list[bytes]:
        """Frames that introduce them."""
        items = (exchange.encoded(record) for record in self.records(n, ballots=ballots))
        return codec.pack_items(codec.head(codec.TOLD), items, exchange.FRAME_BYTES)

    def haves(self, n: int = HAVES_MAX, *, reach: int = 1000) -> bytes:
        """Streams of nobody, with `reach` messages each that the receiver lacks."""
        lines = (wire.Have(peer, 1, 5000, 5000 - reach, 0.0) for peer in self.ids(n))
        return wire.encode_haves(lines, wire.ASK)

    def questions(self) -> list[bytes]:
        """As short as they are, answered with all that is known: DIGEST, HAVES, HELLO."""
        return [
            sync.digest(exchange.ALL_BUCKETS, []),
            wire.encode_haves([], wire.ASK),
            codec.head(codec.HELLO) + bytes((exchange.ISOLATED | exchange.NEWCOMER,)) + bytes(exchange.HELLO_BYTES - 3),
        ]

    def hello(self, flags: int) -> bytes:
        return codec.head(codec.HELLO) + bytes((flags,)) + bytes(exchange.HELLO_BYTES - 3)

    def shuffle(self) -> bytes:
        """A lobby's question for members, with an empty hand."""
        return walks.encode_shuffle(codec.SHUFFLE, self.rng.randbytes(8), 1, [])

    def broadcast(self, signer: Signer, payload: bytes, *, epoch: int = 1, flags: int = 0) -> bytes:
        """A message whose author is not here, or is."""
        message = wire.sign_message(self.key, signer, epoch, next(self._numbers), 1, payload, *self.dated())
        return wire.encode_gossip(wire.Head(0, flags), message.body)

    def faces(self, own: OwnState, names: Iterable[str]) -> list[Record]:
        """Records of the member itself, all of one version, and each says something else."""
        states = (
            OwnState(epoch=own.epoch, incarnation=own.incarnation, joined_at=own.joined_at, name=name) for name in names
        )
        return [state.sign(self.key, self.signer, *self.dated()) for state in states]

    # ------------------------------------------------------------------------------------------ one of every kind

    def worst(self, kind: int) -> list[bytes]:
        """Frames of this kind that were made to cost as much as possible, small and large. KeyError for a kind without."""
        return WORST[kind](self)

    def signal(self, size: int) -> bytes:
        origin, to = self.ids(2)
        return routing.encode_signal(routing.Signal(self.rng.getrandbits(60), origin, to, 9, bytes(size)))

    def shuffle_of(self, kind: int) -> bytes:
        lines = [walks.Line(record.encoded, 1) for record in self.records(16)]
        return walks.encode_shuffle(kind, self.rng.randbytes(8), 3, lines)

    def summary(self) -> bytes:
        return self.rng.randbytes(sync.SUMMARY_BYTES)


def _probes(kind: int) -> Callable[[Frames], list[bytes]]:
    probe = codec.head(kind) + bytes(codec.PROBE.size - 2)
    return lambda f: [probe, probe + f.accusations(6)]


def _items(kind: int) -> Callable[[Frames], list[bytes]]:
    head = codec.head(kind)
    return lambda f: [
        head + f.accusations(codec.ITEMS_MAX), head + f.accusations(160), head + f.spoilt(15), head + f.fresh(),
        head + f.two_faced(codec.ITEMS_MAX), head + b"\x09\x00" * codec.ITEMS_MAX, head + b"\x09\x00" * 1024,
    ]  # fmt: skip


def _hellos(f: Frames) -> list[bytes]:
    head = codec.head(codec.HELLO) + bytes((exchange.NEWCOMER,)) + f.rng.randbytes(exchange.HELLO_BYTES - 3)
    return [head, head + f.accusations(codec.ITEMS_MAX), head + f.fresh()]


def _digests(f: Frames) -> list[bytes]:
    return [sync.digest(0xFFFF, []), sync.digest(0xFFFF, [(peer, 1, 0, 0, peer.raw) for peer in f.ids(1024)])]


def _deltas(f: Frames) -> list[bytes]:
    return [*sync.delta(f.ids(1024), [], 16_384), *sync.delta([], [f.accusations(160)], 1 << 20),
            *sync.delta([], [f.fresh()], 1 << 20)]  # fmt: skip


WORST: dict[int, Callable[[Frames], list[bytes]]] = {
    codec.PING: _probes(codec.PING),
    codec.ACK: _probes(codec.ACK),
    codec.PING_REQ: lambda f: [codec.ping_req(1, peer) for peer in f.ids(1)],
    codec.INDIRECT: lambda f: [codec.indirect(1, peer, alive=True) for peer in f.ids(1)],
    codec.HELLO: _hellos,
    codec.RUMOURS: _items(codec.RUMOURS),
    codec.TOLD: _items(codec.TOLD),
    codec.SUMMARY: lambda f: [codec.head(codec.SUMMARY) + f.summary()],
    codec.DIGEST: _digests,
    codec.DELTA: _deltas,
    codec.GOSSIP: lambda f: [f.broadcast(f.stranger(), b"") for _ in range(2)],
    codec.IHAVE: lambda f: [wire.encode_ihave([wire.message_line((p, 1, 1), 0) for p in f.ids(1024)])],
    codec.GRAFT: lambda f: [wire.encode_graft([(p, 1, 1) for p in f.ids(1024)], 0)],
    codec.PRUNE: lambda f: [codec.head(codec.PRUNE)],
    codec.HAVES: lambda f: [f.haves(), wire.encode_haves([], wire.ASK)],
    codec.SIGNAL: lambda f: [f.signal(1000)],
    codec.RELAY: lambda f: [routing.encode_relay(p, codec.head(codec.TOLD) + f.accusations(100)) for p in f.ids(1)],
    codec.FORWARD_JOIN: lambda f: [codec.head(codec.FORWARD_JOIN) + b"\x06" + r.encoded for r in f.records(1)],
    codec.SHUFFLE: lambda f: [f.shuffle_of(codec.SHUFFLE)],
    codec.SHUFFLE_REPLY: lambda f: [f.shuffle_of(codec.SHUFFLE_REPLY)],
    codec.DISCONNECT: lambda f: [codec.head(codec.DISCONNECT) + f.fresh()],
    codec.KEEP: lambda f: [wire.encode_keep(0, wire.sign_keep(f.key, f.stranger(), 7, *f.dated()).body)],
}
