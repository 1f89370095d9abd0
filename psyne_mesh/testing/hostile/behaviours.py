"""What hostile members do, each under the name of what it is. `rate_bps` is what one victim gets, headers included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, count, cycle
from typing import Any

import attrs
import msgspec

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.gossip import codec, exchange, records
from psyne_mesh.gossip.records import OwnState
from psyne_mesh.identity import PeerId
from psyne_mesh.testing.hostile.chunks import STORMS
from psyne_mesh.testing.hostile.frames import HUGE, WORST, accusation, forged_record, told, withholds
from psyne_mesh.testing.hostile.liar import PACKET_BYTES, Liar

RATE_BPS = 1e6  # what a home connection can always spare
_PAUSE_BYTES = 12_500  # a tenth of a second at that rate, for who has nothing to say
_HEARD_MAX = 64  # captured frames; the oldest is given up


@attrs.frozen(kw_only=True)
class Flood:
    """Says all of something, again and again. Subclasses have `words`."""

    rate_bps: float = RATE_BPS

    def words(self, liar: Liar) -> Iterator[bytes]:
        """Frames of gossip."""
        raise NotImplementedError

    def lies(self, liar: Liar) -> Iterator[int]:
        for frame in self.words(liar):
            yield liar.say(frame)


# ------------------------------------------------------------------------------------------------- records that are lies


@attrs.frozen(kw_only=True)
class MadeUpMembers(Flood):
    """`n` members that are nobody, all at once and then again. With ballots they vote for each other in the seats of those
    who sit: 40 such records once threw everybody out. Without, 240 once turned a room of four into a partial mesh."""

    n: int = 240
    ballots: bool = False

    def words(self, liar: Liar) -> Iterator[bytes]:
        while True:
            yield from liar.frames.made_up_members(self.n, ballots=self.ballots)


@attrs.frozen(kw_only=True)
class BadSignatures(Flood):
    """Records whose signatures are wrong: each costs a verification."""

    def words(self, liar: Liar) -> Iterator[bytes]:
        while True:
            yield told(liar.frames.spoilt(15))


@attrs.frozen(kw_only=True)
class TwoFaces:
    """Tells everybody something else of itself under one version, and then the same again."""

    rate_bps: float = RATE_BPS

    def lies(self, liar: Liar) -> Iterator[int]:
        node, said = liar.membership.node, dict[PeerId, bytes]()
        own = node.own_record
        version = OwnState(epoch=own.epoch, incarnation=own.incarnation + 1, joined_at=own.joined_at)
        while True:
            for peer in liar.victims:
                if peer not in said:
                    (face,) = liar.frames.faces(version, [f"friend of {peer.short}"])
                    said[peer] = told(exchange.encoded(face))
                liar.say_to(peer, said[peer])
            yield max([len(frame) for frame in said.values()], default=_PAUSE_BYTES)


@attrs.frozen(kw_only=True)
class Accusations(Flood):
    """Calls the living silent or gone, with numbers of theirs and with numbers beyond all bounds, forges their records, and
    says again whatever it has heard."""

    def words(self, liar: Liar) -> Iterator[bytes]:
        while True:
            peers = liar.victims
            record = liar.membership.node.record(liar.rng.choice(peers)) if peers else None
            if record is None:
                yield codec.head(codec.PRUNE)
                continue
            lies: list[records.Record | records.Accusation] = [
                accusation(liar.key, liar.identity, record, liar.rng.choice((0, 1)), liar.rng.choice((0, 1))),
                records.accuse(
                    liar.key, liar.identity, record.peer, liar.rng.choice(HUGE), liar.rng.choice(HUGE), records.DOWN
                ),
                forged_record(liar.key, liar.identity, record, liar.rng.choice((records.ALIVE, records.LEAVING))),
            ]
            yield told(*map(exchange.encoded, lies))


@attrs.frozen(kw_only=True)
class Replays:
    """Says again what it heard: records, accusations, broadcasts, whatever becomes of the room since."""

    rate_bps: float = RATE_BPS

    def lies(self, liar: Liar) -> Iterator[int]:
        heard: dict[bytes, None] = {}
        membership = liar.membership
        membership.node = _Listening(membership.node, heard)  # type: ignore[assignment]
        while True:
            for frame in list(heard):
                yield liar.say(frame)
            yield _PAUSE_BYTES // 10


class _Listening:
    """A node that remembers the frames which say something of others."""

    def __init__(self, node: Any, heard: dict[bytes, None]) -> None:
        self._node = node
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        if len(frame) > 1 and frame[1] in (codec.GOSSIP, codec.RUMOURS, codec.TOLD, codec.DELTA):
            self._heard[frame] = None
            if len(self._heard) > _HEARD_MAX:
                del self._heard[next(iter(self._heard))]
        self._node.receive(peer, frame, now)


# ------------------------------------------------------------------------------------------------------ frames that cost


@attrs.frozen(kw_only=True)
class HavesFlood(Flood):
    """A thousand streams of nobody, with a thousand messages each that the receiver lacks."""

    def words(self, liar: Liar) -> Iterator[bytes]:
        while True:
            yield liar.frames.haves()


@attrs.frozen(kw_only=True)
class Questions(Flood):
    """The shortest questions, to which the answer is all that is known."""

    def words(self, liar: Liar) -> Iterator[bytes]:
        while True:
            yield from liar.frames.questions()
            yield liar.frames.shuffle()


@attrs.frozen(kw_only=True)
class MadeUpAuthors(Flood):
    """Broadcasts of ever new authors, who are nobody."""

    payload: bytes = b"buy now"

    def words(self, liar: Liar) -> Iterator[bytes]:
        while True:
            yield liar.frames.broadcast(liar.stranger(), self.payload)


@attrs.frozen(kw_only=True)
class ManyBroadcasts(Flood):
    """Broadcasts of its own, properly signed, as many as go."""

    def words(self, liar: Liar) -> Iterator[bytes]:
        epoch = liar.membership.node.own_record.epoch
        for number in count():
            yield liar.frames.broadcast(liar.identity, b"%d" % number, epoch=epoch)


@attrs.frozen(kw_only=True)
class Worst(Flood):
    """Frames of one kind (a type of `psyne_mesh.gossip.codec`), made to cost as much as possible; None: of all in turn."""

    kind: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.kind is not None and self.kind not in WORST:
            raise InvalidConfig(f"kind = {self.kind!r}: one of {', '.join(map(str, sorted(WORST)))}, or None for all")

    def words(self, liar: Liar) -> Iterator[bytes]:
        for kind in cycle(WORST) if self.kind is None else cycle([self.kind]):
            yield from liar.frames.worst(kind)


@attrs.frozen(kw_only=True)
class Nonsense(Flood):
    """Frames of random bytes."""

    def words(self, liar: Liar) -> Iterator[bytes]:
        while True:
            yield codec.head(liar.rng.randrange(256)) + liar.rng.randbytes(liar.rng.choice((0, 1, 40, 1000)))


# ----------------------------------------------------------------------------------------------------------- SCTP, DTLS


@attrs.frozen(kw_only=True)
class ChunkStorm:
    """SCTP chunks of one of `chunks.STORMS`, over `held` chunks that the victim is made to hold first. Its own link does not
    outlive it for long, as its own SCTP knows nothing of them; it comes again."""

    storm: str = "forwards_over_fragments"
    held: int = 2_000
    rate_bps: float = RATE_BPS

    def __attrs_post_init__(self) -> None:
        if self.storm not in STORMS:
            raise InvalidConfig(f"storm = {self.storm!r}: one of {', '.join(STORMS)}")

    def lies(self, liar: Liar) -> Iterator[int]:
        packets: dict[PeerId, Iterator[list[bytes]]] = {}
        while True:
            sizes = [_PAUSE_BYTES // 100]
            for victim in liar.victims:
                if victim not in packets:
                    storm = STORMS[self.storm](liar.association_with(victim), self.held)
                    packets[victim] = chain(_packed(storm.stage), _packed(storm.chunks))
                sizes.append(liar.inject(victim, next(packets[victim], [])))
            for gone in packets.keys() - liar.victims:
                del packets[gone]
            yield max(sizes)


def _packed(chunks: Iterator[bytes]) -> Iterator[list[bytes]]:
    packed: list[bytes] = []
    size = 12
    for chunk in chunks:
        if packed and size + len(chunk) > PACKET_BYTES:
            yield packed
            packed, size = [], 12
        packed.append(chunk)
        size += len(chunk)
    if packed:
        yield packed


# ------------------------------------------------------------------------------------------------- messages of the game


def _nested(of: object, n: int) -> bytes:
    return msgspec.msgpack.encode(["Message", {str(i): of for i in range(n)}])


@attrs.frozen(kw_only=True)
class HeavyMessages:
    """Messages on a channel of the room that take long to read: maps full of empty maps."""

    channel: str = "game"
    n: int = 20_000
    rate_bps: float = RATE_BPS

    def lies(self, liar: Liar) -> Iterator[int]:
        payload = _nested({}, self.n)
        while True:
            yield liar.message(self.channel, payload)


@attrs.frozen(kw_only=True)
class MadeUpChannels:
    """A message on ever new channels that nobody has declared."""

    rate_bps: float = RATE_BPS

    def lies(self, liar: Liar) -> Iterator[int]:
        for number in count():
            yield liar.message(f"nobody asked {number}", b"x", reliable=False)


@attrs.frozen(kw_only=True)
class BulkForNobody:
    """Large messages on a channel that nobody reads: they must fill no more than their own share."""

    channel: str = "bulk"
    size: int = 60_000
    rate_bps: float = RATE_BPS

    def lies(self, liar: Liar) -> Iterator[int]:
        while True:
            yield liar.message(self.channel, bytes(self.size))


@attrs.frozen(kw_only=True)
class Withholding:
    """Answers for itself, and passes nothing on of what it should: broadcasts, news, signals. Says nothing of its own."""

    rate_bps: float = RATE_BPS

    def lies(self, liar: Liar) -> Iterator[int]:
        membership = liar.membership
        membership.node = _Silent(membership.node)  # type: ignore[assignment]
        while True:
            yield _PAUSE_BYTES


class _Silent:
    """A node whose orders to pass something on are not carried out."""

    def __init__(self, node: Any) -> None:
        self._node = node

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def take_outputs(self) -> list[Any]:
        return [output for output in self._node.take_outputs() if not withholds(output)]


@attrs.frozen(kw_only=True)
class OneAfterTheOther:
    """Several behaviours, `seconds` each, in turn."""

    behaviours: tuple[Any, ...]
    seconds: float = 2.0
    rate_bps: float = RATE_BPS

    def lies(self, liar: Liar) -> Iterator[int]:
        running = [behaviour.lies(liar) for behaviour in self.behaviours]
        for lies in cycle(running):
            left = self.seconds * self.rate_bps / 8
            while left > 0:
                size = next(lies, _PAUSE_BYTES)
                left -= size
                yield size


ALL: tuple[Callable[[], Any], ...] = (
    MadeUpMembers, lambda: MadeUpMembers(n=40, ballots=True), BadSignatures, TwoFaces, Accusations, Replays, HavesFlood,
    Questions, MadeUpAuthors, ManyBroadcasts, Worst, Nonsense, HeavyMessages, MadeUpChannels, BulkForNobody, Withholding,
    *(lambda storm=storm: ChunkStorm(storm=storm) for storm in STORMS),
)  # fmt: skip
"""One of each, at their defaults."""


def every(rate_bps: float = RATE_BPS) -> list[Any]:
    """One of each kind, at that rate."""
    return [attrs.evolve(make(), rate_bps=rate_bps) for make in ALL]
