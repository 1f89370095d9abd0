"""Fair play in a room: rules held against what comes, a record that everybody signs, dice and secret moves.

The cores are pure (`game/rules.py`, `game/transcript.py`, `game/commitments.py`); here they get a channel, a clock and
the room's players. Idle until a channel has types with rules, a simulation begins, or a die is rolled.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from psyne_mesh.errors import ClosedError, InvalidConfig, MessageTooLarge, PeerGone, ProtocolError
from psyne_mesh.game import commitments, transcript
from psyne_mesh.game.commitments import Commit, Commitments, Reveal, Roll, Round
from psyne_mesh.game.evidence import BREACHES_MAX, TEXT_MAX, Accusation, Evidence, Said, encode_evidence
from psyne_mesh.game.rules import Breach, RuleBook
from psyne_mesh.game.transcript import Archive, Echo, Proof, Say, Scribe, Show
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.limits import TokenBucket
from psyne_mesh.room import events
from psyne_mesh.room.codec import MessageCodec, Payload, RawCodec
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.messages import rule_book
from psyne_mesh.room.peer import Peer
from psyne_mesh.words import read_untrusted

if TYPE_CHECKING:
    from psyne_mesh.mesh.membership import Membership
    from psyne_mesh.room.room import Room
    from psyne_mesh.room.timekeeper import Timekeeper

CHANNEL = "psyne.fair"
TICK_S = 0.05
CLOCK_EVERY_S = 0.1
"""The room's clock is looked at so often for all messages: it may be corrected by 5 ms in that time."""
FACTS_EVERY_S = 0.5
"""Round trips, and whose clocks are set."""
CLOCK_GRACE_S = 10.0
"""The clock of a player who answers no probes is taken for set after so long: its stamps count then."""
JUMP_S = 0.2
"""A clock that was set anew: what rules remember is of another one."""
TOLD_EVERY_S = 1.0
WORDS_PER_S, WORDS_BURST = 24.0, 96.0
"""Of one player; a signature takes a tenth of a millisecond to check. Statements of two streams and what goes with them
are eight a second.
"""

_decoder: msgspec.msgpack.Decoder[_Word] = msgspec.msgpack.Decoder(Say | Echo | Show | Proof | Roll | Commit | Reveal)
_Word = transcript.TranscriptWord | commitments.CommitmentWord
_SIGNATURES = {Say: 1.0, Show: 3.0, Proof: 2.0}
"""As many as a word may have checked: a statement that contradicts one of ours is looked at together with it."""


def word_untrusted(data: bytes | str) -> _Word:
    """Raises ProtocolError."""
    return read_untrusted(_decoder, data, "a word about fair play")


class Referee:
    """Of one channel whose types have rules. 1. `said(payload)` for each message of ours. 2. `passes(peer, payload)` for each
    that came, before it is delivered."""

    def __init__(
        self, fairness: Fairness, name: str, codec: MessageCodec, books: dict[type[Any], RuleBook], *, is_stamped: bool
    ) -> None:
        self.name, self.books, self.is_stamped = name, books, is_stamped
        self._fairness, self._codec = fairness, codec
        self._before: dict[tuple[PeerId, type[Any]], bytes] = {}

    def said(self, payload: Payload) -> None:
        self._fairness.said(self.name, payload if isinstance(payload, bytes) else payload.encode())

    def passes(self, peer: Peer, payload: Payload) -> bool:
        """What cannot be decoded passes: its reader is told of that. A rule of the game's own that raises is raised."""
        try:
            message = self._codec.decode_untrusted(payload)
        except ProtocolError:
            return True
        assert isinstance(payload, bytes)
        kind = type(message)
        book = self.books.get(kind)
        if book is None:
            return True
        breach = book.check(peer.id, message, *self._fairness.context(peer.id, is_stamped=self.is_stamped))
        if breach is not None:
            if breach.reason:
                self._fairness.breached(self, peer, breach, payload, self._before.get((peer.id, kind), b""))
            return False
        self._before[peer.id, kind] = payload
        self._fairness.heard(peer.id, self.name, payload)
        return True

    def forget(self, peer: PeerId) -> None:
        for kind, book in self.books.items():
            book.forget(peer)
            self._before.pop((peer, kind), None)

    def restart(self) -> None:
        for book in self.books.values():
            book.restart()


@uninterrupted
class Fairness:
    """1. The room's task is in `run()`; it is idle until `start()`. 2. `referee(name, codec, mode)` for each new channel. 3.
    `said` and `heard`, or for a stream that counts its own spans `said_span` and `heard_span`. 4. `roll`, `secret_move`,
    `evidence`."""

    def __init__(
        self,
        room: Room,
        identity: Identity,
        publish: Callable[[events.RoomEvent], None],
        joined: Callable[[], Membership],
        timekeeper: Timekeeper,
    ) -> None:
        self._room, self._identity, self._publish = room, identity, publish
        self._joined, self._timekeeper = joined, timekeeper
        self._started = trio.Event()
        self._wake = trio.Event()
        self._channel: Any = None
        self._referees: list[Referee] = []
        self._scribe: Scribe | None = None
        self._archive: Archive | None = None
        self._commitments: Commitments | None = None
        self._spans: list[transcript.Signed] = []
        self._accusations: list[Accusation] = []
        self._told: dict[tuple[PeerId, str, str], tuple[float, int]] = {}
        self._buckets: dict[PeerId, TokenBucket] = {}
        self._clock_at = self._facts_at = -math.inf
        self._offset, self._error = 0.0, math.inf
        self._first_at: dict[PeerId, float] = {}
        self._clocks: set[PeerId] = set()
        self._rtts: dict[PeerId, float] = {}
        self.refused = 0

    def start(self) -> None:
        if self._scribe is None:
            membership = self._joined()
            self.key = sha256(b"psyne-fair" + membership.room.encode()).digest()[:16]
            self._scribe = Scribe(self._identity, self.key, membership.node.own_record.joined_at)
            self._archive = Archive(self._room.me, self.key, os.urandom(16))
            self._commitments = Commitments(self._room.me, self.key, os.urandom)
            self._started.set()

    # ----------------------------------------------------------------------------------------------------------- rules

    def referee(self, name: str, codec: MessageCodec | RawCodec, mode: DeliveryMode) -> Referee | None:
        """None for a channel without rules."""
        books = {kind: book for kind in codec.kinds if (book := rule_book(kind, is_ordered=mode.ordered)) is not None}
        if not books or not isinstance(codec, MessageCodec):
            return None
        self.start()
        is_stamped = any(kind.__stamp__ is not None for kind in books)
        if is_stamped:
            self._timekeeper.start()  # the clock starts with the first who asks
        referee = Referee(self, name, codec, books, is_stamped=is_stamped)
        self._referees.append(referee)
        return referee

    def context(self, peer: PeerId, *, is_stamped: bool) -> tuple[float, float, float]:
        """(now, bound of the clock's error, round trip), as rules are told. Without stamps the clock is our own."""
        now = trio.current_time()
        if not is_stamped:
            return now, 0.0, self._rtts.get(peer, 0.0)
        if now - self._clock_at >= CLOCK_EVERY_S:
            self._look_at_clock(now)
        error = self._error
        if peer not in self._clocks and now - self._first_at.setdefault(peer, now) < CLOCK_GRACE_S:
            error = math.inf
        return now + self._offset, error, self._rtts.get(peer, 0.0)

    def _look_at_clock(self, now: float) -> None:
        self._clock_at = now
        offset, error = self._timekeeper.time() - now, self._timekeeper.error()
        if abs(offset - self._offset) > JUMP_S:
            for referee in self._referees:
                if referee.is_stamped:
                    referee.restart()
        self._offset, self._error = offset, error

    def breached(self, referee: Referee, peer: Peer, breach: Breach, data: bytes, before: bytes) -> None:
        assert self._archive is not None
        now = trio.current_time()
        key = (peer.id, referee.name, breach.rule)
        next_at, count = self._told.get(key, (-math.inf, 0))
        if now < next_at:
            self._told[key] = next_at, count + 1
            return
        self._told[key] = now + TOLD_EVERY_S, 0
        for said in (data, before):
            if said:
                self._archive.heard(peer.id, referee.name, said, now)
                self._archive.pin(peer.id, referee.name, said)
        reason = breach.reason[:TEXT_MAX]
        self._accusations.append(
            Accusation(peer.id.raw, referee.name, breach.rule[:TEXT_MAX], reason, data, before, now + self._offset)
        )
        del self._accusations[:-BREACHES_MAX]
        self._publish(
            events.RuleBroken(peer, referee.name, breach.rule, reason, breach.message, breach.before, count + 1)
        )

    # ---------------------------------------------------------------------------------------------------- the transcript

    def said(self, stream: str, data: bytes) -> None:
        assert self._scribe is not None
        self._scribe.said(stream, data)

    def heard(self, peer: PeerId, stream: str, data: bytes) -> None:
        assert self._archive is not None
        self._archive.heard(peer, stream, data, trio.current_time())

    def said_span(self, stream: str, span: int, entries: list[bytes]) -> None:
        self.start()
        assert self._scribe is not None
        self._spans.append(self._scribe.sign(stream, span, entries))
        self._wake.set()

    def heard_span(self, peer: PeerId, stream: str, span: int, digest: bytes) -> None:
        self.start()
        assert self._archive is not None
        self._archive.heard_span(peer, stream, span, digest, trio.current_time())

    def encoded_evidence(self) -> bytes:
        """What a file of evidence holds now."""
        self.start()
        assert self._archive is not None
        players = {self._room.me: self._room.player.name} | {peer.id: peer.name for peer in self._room.peers.values()}
        evidence = Evidence(
            self.key,
            self._room.name[:TEXT_MAX],
            self._identity.public_key,
            trio.current_time() + self._offset,
            {str(peer): name[:TEXT_MAX] for peer, name in players.items()},
            self._archive.statements_kept(),
            [
                Said(author.raw, stream, came + self._offset, data)
                for author, stream, came, data in self._archive.messages_kept()
            ],
            list(self._accusations),
            list(self._archive.proofs.values()),
        )
        return encode_evidence(evidence, self._identity)

    # ------------------------------------------------------------------------------------------------- dice, secret moves

    def roll(self, sides: int, players: Iterable[Peer | PeerId] | None) -> Round:
        self.start()
        assert self._commitments is not None
        made = self._commitments.roll(sides, self._players(players), trio.current_time())
        self._wake.set()
        return made

    def secret_move(self, label: str, move: Any, players: Iterable[Peer | PeerId] | None, timeout: float) -> Round:
        self.start()
        assert self._commitments is not None
        if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise InvalidConfig(f"secret_move(timeout={timeout!r}): seconds, above 0")
        made = self._commitments.move(label, move, self._players(players), trio.current_time(), timeout)
        self._wake.set()
        return made

    def witness(
        self, tick: int, members: Iterable[PeerId], besides: Iterable[Peer | PeerId], seed: int
    ) -> PeerId | None:
        self.start()
        if not isinstance(tick, int) or not 0 <= tick < 1 << 63 or not isinstance(seed, int) or not 0 <= seed < 1 << 63:
            raise InvalidConfig(f"witness({tick!r}, seed={seed!r}): numbers of 63 bits, not negative")
        return commitments.witness(self.key, seed, tick, members, [_id_of(player) for player in besides])

    def _players(self, players: Iterable[Peer | PeerId] | None) -> list[PeerId]:
        if players is None:
            return [peer.id for peer in self._room.connected]
        named = [_id_of(player) for player in players]
        here = {self._room.me, *self._room.peers}
        for player in named:
            if player not in here:
                raise InvalidConfig(f"players = [... {player!r} ...]: must be players who are in the room")
        return named

    # ------------------------------------------------------------------------------------------------------------ tasks

    async def run(self) -> None:
        try:
            self._channel = self._room.channel(CHANNEL, mode="reliable")
        except ClosedError:
            return  # the room ended before its task began
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            await self._started.wait()
            nursery.start_soon(self._follow_players)
            while True:
                self._wake = trio.Event()
                self._turn(trio.current_time())
                with trio.move_on_after(TICK_S):
                    await self._wake.wait()

    async def _follow_players(self) -> None:
        assert self._archive is not None
        assert self._commitments is not None
        async for event in self._room.events():
            if isinstance(event, events.PeerLeft):
                peer = event.peer.id
                for referee in self._referees:
                    referee.forget(peer)
                self._archive.forget(peer)
                self._commitments.left(peer, trio.current_time())
                self._buckets.pop(peer, None)
                self._first_at.pop(peer, None)
                self._told = {key: value for key, value in self._told.items() if key[0] != peer}
                self._wake.set()

    async def _read(self) -> None:
        async for sender, data in self._channel:
            now = trio.current_time()
            try:
                word = word_untrusted(data)
                bucket = self._buckets.get(sender.id)
                if bucket is None:
                    bucket = TokenBucket(burst=WORDS_BURST, per_second=WORDS_PER_S, now=now)
                    self._buckets[sender.id] = bucket
                if not bucket.allow(now, _SIGNATURES.get(type(word), 1.0)):
                    raise ProtocolError("too many words")
                self.start()
                assert self._archive is not None
                assert self._commitments is not None
                if isinstance(word, Roll | Commit | Reveal):
                    self._commitments.receive(sender.id, word, now)
                else:
                    self._archive.receive(sender.id, sender.stay, word, now)
            except ProtocolError:
                self.refused += 1
                continue
            self._flush()

    def _turn(self, now: float) -> None:
        assert self._scribe is not None
        assert self._archive is not None
        assert self._commitments is not None
        if now - self._facts_at >= FACTS_EVERY_S:
            self._facts_at = now
            self._learn_facts()
        spans, self._spans = self._spans, []
        for signed in spans + self._scribe.statements(now):
            self._send(Say(signed), None)
        self._archive.handle_timeout(now)
        self._commitments.handle_timeout(now)
        self._flush()

    def _learn_facts(self) -> None:
        is_stamped = any(referee.is_stamped for referee in self._referees)
        for peer in self._room.connected:
            if (rtt := peer.rtt_ms) is not None:
                self._rtts[peer.id] = rtt / 1000
            if is_stamped and peer.id not in self._clocks and self._timekeeper.ahead(peer.id) is not None:
                self._clocks.add(peer.id)
        here = self._room.peers.keys()
        self._clocks &= here
        self._rtts = {peer: rtt for peer, rtt in self._rtts.items() if peer in here}

    def _flush(self) -> None:
        assert self._archive is not None
        assert self._commitments is not None
        members = [peer.id for peer in self._room.connected]
        for target, word in self._archive.words_to_send(members):
            self._send(word, target)
        for said in self._commitments.take_words():
            self._send(said, None)
        for event in self._archive.take_events():
            if isinstance(event, transcript.ToldTwoStories):
                self._publish(events.Equivocated(event.author, event.stream, event.span))
            elif (peer := self._room.peers.get(event.author)) is not None:
                self._publish(events.NotSigned(peer, event.stream, event.reason))
        for news in self._commitments.take_events():
            self._publish(news)

    def _send(self, word: _Word, to: PeerId | None) -> None:
        with suppress(PeerGone, ClosedError, MessageTooLarge):
            self._channel.send_nowait(msgspec.msgpack.encode(word), to=to)


def _id_of(player: Peer | PeerId) -> PeerId:
    found = player if isinstance(player, PeerId) else getattr(player, "id", None)
    if not isinstance(found, PeerId):
        raise InvalidConfig(f"players = [... {player!r} ...]: must be Peers or their ids")
    return found


def write_evidence(path: str | Path, data: bytes) -> None:
    """`InvalidConfig` if it cannot be written."""
    try:
        Path(path).write_bytes(data)
    except (OSError, TypeError, ValueError) as error:
        raise InvalidConfig(f"evidence({path!r}) cannot be written: {error}") from error
