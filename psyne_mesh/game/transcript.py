"""Who said what, signed by who said it: so that a lie told to two players can be shown to a third.

Each player signs, twice a second, a statement of what it said in each stream (a channel whose messages have rules, or
the inputs of a simulation): the digests of its messages, and the digest of its statement before, which is a running
hash over all of them. Two different statements of one player for one span prove to anybody that it told two stories.
Each member repeats to two others, its next in the order of ids, what it has heard from everybody: however a liar divides
the room, two members who heard different stories are next to each other.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Annotated

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Identity, PeerId, verify_untrusted
from psyne_mesh.limits import TokenBucket
from psyne_mesh.words import read_untrusted

DOMAIN = b"psyne-transcript"
SPAN_S = 0.5
"""30 ticks at 60 Hz: with the repeating after it, two stories are known for what they are within a second."""
DIGEST_BYTES = 16
"""Of a message. A sender who wants two with one digest has 2**64 to try."""
ENTRIES_MAX = 512
"""Of one statement: a player who says more signs more often."""
KEPT_S = 30.0
KEPT_BYTES_MAX = 2 << 20
AUTHORS_MAX = 1024
AUTHORS_MIN = 16
"""The bytes are shared out among so many at least, so that who talks much takes nothing of what others said."""
STREAMS_MAX = 16
"""Of one player."""
STREAM_NAME_MAX = 200
UNSIGNED_S = 3.0
"""A message whose sender signs what it said so much later, and not this one, is one that it does not stand by."""
SILENT_S = 10.0
"""Nor does who says things for so long and signs nothing."""
ECHO_AFTER_S = 0.1
"""What was heard is repeated so soon, the statements of several players together."""
ECHOES_MAX = 128
EARLY_MAX = 256
GAP_EVERY_S = 5.0
"""A statement may be missed where a link broke; who leaves out more is heard no further."""
LOOKED_AT = 64
"""Of 256 signatures so many are checked at once, by lot; all others when two statements contradict each other. A check
takes a tenth of a millisecond, and who signs wrongly is found out in a second or two.
"""
PINNED_MAX = 512
"""Messages that broke rules, and those before them."""
SHOWS_BURST, SHOWS_PER_S = 16.0, 1.0
"""Statements shown to one player, who says that it has heard another. Each is 8 KiB at most for a line of some 40 bytes, and
one is enough to prove what its author did.
"""
_OVERHEAD_BYTES = 120

_Raw = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
_StreamName = Annotated[str, msgspec.Meta(min_length=1, max_length=STREAM_NAME_MAX)]


class Statement(msgspec.Struct, frozen=True, array_like=True):
    """What `key` said in `stream` of `room` in its `span`: one digest or vote of 16 bytes after the other. `stay` is when
    it came into the room, `before` the digest of its statement before this one (zeros for the first)."""

    room: _Raw
    stay: _Number
    key: Annotated[bytes, msgspec.Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
    stream: _StreamName
    span: _Number
    before: _Digest
    entries: Annotated[bytes, msgspec.Meta(max_length=ENTRIES_MAX * DIGEST_BYTES)]

    @property
    def digests(self) -> list[bytes]:
        return [self.entries[at : at + DIGEST_BYTES] for at in range(0, len(self.entries), DIGEST_BYTES)]


class Signed(msgspec.Struct, frozen=True, array_like=True):
    """A statement as it was signed."""

    body: Annotated[bytes, msgspec.Meta(max_length=ENTRIES_MAX * DIGEST_BYTES + 512)]
    signature: Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]

    @property
    def digest(self) -> bytes:
        return digest_of(self.body)


class Say(msgspec.Struct, frozen=True, array_like=True, tag="say"):
    """A statement of who sends it."""

    signed: Signed


class Echo(msgspec.Struct, frozen=True, array_like=True, tag="echo"):
    """Of (player, stream): the span and the digest of the newest statement that the sender has heard."""

    heard: Annotated[list[tuple[_Raw, _StreamName, _Number, _Digest]], msgspec.Meta(max_length=ECHOES_MAX)]


class Show(msgspec.Struct, frozen=True, array_like=True, tag="show"):
    """A statement of another, which is not the one that was repeated to us."""

    signed: Signed


class Proof(msgspec.Struct, frozen=True, array_like=True, tag="proof"):
    """Two statements of one player that cannot both be honest."""

    one: Signed
    other: Signed


TranscriptWord = Say | Echo | Show | Proof

_statements = msgspec.msgpack.Decoder(Statement)
_proofs = msgspec.msgpack.Decoder(Proof)
_encode = msgspec.msgpack.encode


def digest_of(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def statement_untrusted(signed: Signed) -> Statement:
    """What was signed, whoever signed it. Raises ProtocolError."""
    statement = read_untrusted(_statements, signed.body, "a statement")
    if len(statement.entries) % DIGEST_BYTES:
        raise ProtocolError("a digest of a statement ends early")
    return statement


def author_untrusted(signed: Signed) -> tuple[PeerId, Statement]:
    """Who signed it, and what. Raises ProtocolError if nobody did."""
    statement = statement_untrusted(signed)
    return verify_untrusted(statement.key, DOMAIN, signed.body, signed.signature), statement


def contradict(one: Signed, other: Signed) -> bool:
    """Whether these two, of which the signatures hold, cannot both be said by one honest player."""
    first, second = statement_untrusted(one), statement_untrusted(other)
    if (first.room, first.stay, first.key, first.stream) != (second.room, second.stay, second.key, second.stream):
        return False
    if first.span > second.span:
        one, first, second = other, second, first
    if first.span == second.span:
        return one.body != other.body
    return second.span == first.span + 1 and second.before != one.digest


def proof_untrusted(word: Proof) -> tuple[PeerId, Statement]:
    """Who is proved to have told two stories, and the first of them. Raises ProtocolError if this proves nothing."""
    author, statement = author_untrusted(word.one)
    if author_untrusted(word.other)[0] != author or not contradict(word.one, word.other):
        raise ProtocolError("two statements that do not contradict each other")
    return author, statement


class Scribe:
    """Signs what we say. 1. `said(stream, data)` for each message. 2. `statements(now)` now and then: what is to be told
    to everybody. `sign(stream, span, entries)` for a stream whose spans are counted elsewhere.
    """

    def __init__(self, identity: Identity, room: bytes, stay: int) -> None:
        self._identity, self._room, self._stay = identity, room, stay
        self._pending: dict[str, list[bytes]] = {}
        self._spans: dict[str, int] = {}
        self._before: dict[str, bytes] = {}
        self._due = -math.inf

    def said(self, stream: str, data: bytes) -> None:
        self._pending.setdefault(stream, []).append(digest_of(data))

    def statements(self, now: float) -> list[Signed]:
        full = any(len(entries) >= ENTRIES_MAX for entries in self._pending.values())
        if now < self._due and not full:
            return []
        self._due = now + SPAN_S
        out = []
        for stream, entries in self._pending.items():
            for start in range(0, len(entries), ENTRIES_MAX):
                span = self._spans[stream] = self._spans.get(stream, -1) + 1
                out.append(self.sign(stream, span, entries[start : start + ENTRIES_MAX]))
        self._pending.clear()
        return out

    def sign(self, stream: str, span: int, entries: list[bytes]) -> Signed:
        before = self._before.get(stream, bytes(DIGEST_BYTES))
        body = _encode(
            Statement(self._room, self._stay, self._identity.public_key, stream, span, before, b"".join(entries))
        )
        signed = Signed(body, self._identity.sign(DOMAIN, body))
        self._before[stream] = signed.digest
        return signed


class ToldTwoStories(msgspec.Struct, frozen=True):
    """`author` signed two statements for one span of `stream`: `proof` shows it to anybody."""

    author: PeerId
    stream: str
    span: int
    proof: Proof


class NotSigned(msgspec.Struct, frozen=True):
    """Messages of `author` came that it does not sign, or it signed others than came: it may tell others something else.
    Once for each player and stream. It proves nothing to others."""

    author: PeerId
    stream: str
    reason: str


TranscriptEvent = ToldTwoStories | NotSigned


class _Stream:
    """What one author says in one stream. `statements`: (when it came, what, as signed) by stay and span; `messages`:
    (when it came, payload) by digest, oldest first; `signed`: those digests that a statement has; `spans`: what we made
    of a span ourselves, by its number."""

    def __init__(self) -> None:
        self.statements: dict[tuple[int, int], tuple[float, Statement, Signed]] = {}
        self.stay, self.last_span = -1, -1
        self.statement_at = self.heard_at = self.gap_at = -math.inf
        self.messages: dict[bytes, tuple[float, bytes]] = {}
        self.signed: dict[bytes, tuple[float, Signed]] = {}
        self.unchecked: dict[bytes, float] = {}
        self.spans: dict[int, bytes] = {}
        self.told = False


class _Author:
    def __init__(self) -> None:
        self.streams: dict[str, _Stream] = {}
        self.bytes = 0
        self.left = False


class Archive:
    """What the others said and signed, for half a minute.

    1. `heard(author, stream, data, now)` for each message; `heard_span(author, stream, span, digest, now)` where a span is
    one digest. 2. `receive(sender, stay, word, now)` for each word about it; ProtocolError when it is none. 3.
    `handle_timeout(now)` each tenth of a second, `words_to_send(members)` after each of these. 4. `take_events()`. 5.
    `forget(author)` when it left.
    """

    def __init__(self, me: PeerId, room: bytes, salt: bytes = b"") -> None:
        """`salt`: what nobody else knows, so that nobody can tell which signatures are looked at."""
        self._me, self._room, self._salt = me, room, salt
        self._authors: dict[PeerId, _Author] = {}
        self._early: dict[tuple[PeerId, str, int], tuple[PeerId, bytes]] = {}  # repeated to us before we heard it
        self._to_echo: dict[tuple[PeerId, str], tuple[int, bytes]] = {}
        self._echo_at = math.inf
        self._words: list[tuple[PeerId | None, TranscriptWord]] = []
        self._echo_due = False
        self._shows: dict[PeerId, TokenBucket] = {}
        self._events: list[TranscriptEvent] = []
        self._pinned: dict[tuple[PeerId, str, bytes], Signed | None] = {}
        self.proofs: dict[PeerId, Proof] = {}

    # -------------------------------------------------------------------------------------------------- what was said

    def heard(self, author: PeerId, stream: str, data: bytes, now: float) -> None:
        of = self._stream(author, stream)
        if of is None:
            return
        digest = digest_of(data)
        of.heard_at = now
        if digest not in of.messages:
            of.messages[digest] = now, data
            self._authors[author].bytes += len(data) + _OVERHEAD_BYTES
            if digest not in of.signed:
                of.unchecked[digest] = now

    def pin(self, author: PeerId, stream: str, data: bytes) -> None:
        """The statement that has this message is kept for good: the message is evidence."""
        of = self._stream(author, stream)
        if of is not None:
            digest = digest_of(data)
            self._pinned[author, stream, digest] = of.signed[digest][1] if digest in of.signed else None
            while len(self._pinned) > PINNED_MAX:
                del self._pinned[next(iter(self._pinned))]

    def heard_span(self, author: PeerId, stream: str, span: int, digest: bytes, now: float) -> None:
        of = self._stream(author, stream)
        if of is None or span in of.spans:
            return
        of.spans[span] = digest
        while len(of.spans) > 2 * KEPT_S / SPAN_S:
            del of.spans[next(iter(of.spans))]
        of.heard_at = now
        kept = of.statements.get((of.stay, span))
        if kept is not None:
            self._hold_against(author, of, kept[1])

    def _stream(self, author: PeerId, stream: str) -> _Stream | None:
        known = self._authors.get(author)
        if known is None:
            if len(self._authors) >= AUTHORS_MAX:
                return None
            known = self._authors[author] = _Author()
        known.left = False
        of = known.streams.get(stream)
        if of is None and len(known.streams) < STREAMS_MAX:
            of = known.streams[stream] = _Stream()
        return of

    def _hold_against(self, author: PeerId, of: _Stream, statement: Statement) -> None:
        ours = of.spans.get(statement.span)
        if ours is not None and statement.entries[:DIGEST_BYTES] != ours:
            reason = f"what came is not what it signed for span {statement.span}"
            self._tell_unsigned(author, statement.stream, of, reason)

    def _tell_unsigned(self, author: PeerId, stream: str, of: _Stream, reason: str) -> None:
        if not of.told:
            of.told = True
            self._events.append(NotSigned(author, stream, reason))

    # ---------------------------------------------------------------------------------------------------------- words

    def receive(self, sender: PeerId, stay: int | None, word: TranscriptWord, now: float) -> None:
        """`stay`: since when the sender is in the room, as its record says; None if that is not known."""
        if isinstance(word, Say):
            statement = statement_untrusted(word.signed)
            author = PeerId.of(statement.key)
            if author != sender or statement.room != self._room or (stay is not None and statement.stay != stay):
                raise ProtocolError("a statement of another player, room or stay")
            if blake2b(word.signed.signature, digest_size=1, key=self._salt).digest()[0] < LOOKED_AT:
                author_untrusted(word.signed)
            self._take(author, statement, word.signed, now)
        elif isinstance(word, Echo):
            for raw, stream, span, digest in word.heard:
                self._compare(sender, PeerId.from_raw_untrusted(raw), stream, span, digest, now)
        elif isinstance(word, Show):
            author, statement = author_untrusted(word.signed)
            known = self._authors.get(author)
            of = known.streams.get(statement.stream) if known is not None else None
            if of is not None:
                self._contradicted(author, of, statement, word.signed)
        else:
            author, statement = proof_untrusted(word)
            if statement.room != self._room:
                raise ProtocolError("a proof of another room")
            self._prove(author, statement, word)

    def _take(self, author: PeerId, statement: Statement, signed: Signed, now: float) -> None:
        of = self._stream(author, statement.stream)
        if of is None:
            raise ProtocolError("too many streams")
        if statement.stay != of.stay:
            of.stay, of.last_span, of.gap_at = statement.stay, -1, -math.inf
        if self._contradicted(author, of, statement, signed) or statement.span <= of.last_span:
            return
        if of.last_span >= 0 and statement.span > of.last_span + 1:
            if now - of.gap_at < GAP_EVERY_S:
                raise ProtocolError("statements are left out")
            of.gap_at = now
            of.unchecked.clear()  # they may be in what we missed
        of.last_span, of.statement_at = statement.span, now
        of.statements[statement.stay, statement.span] = now, statement, signed
        self._authors[author].bytes += len(signed.body) + _OVERHEAD_BYTES
        for digest in statement.digests:
            of.signed[digest] = now, signed
            of.unchecked.pop(digest, None)
            if (author, statement.stream, digest) in self._pinned:
                self._pinned[author, statement.stream, digest] = signed
        self._hold_against(author, of, statement)
        self._to_echo[author, statement.stream] = statement.span, signed.digest
        self._echo_at = min(self._echo_at, now + ECHO_AFTER_S)
        early = self._early.pop((author, statement.stream, statement.span), None)
        if early is not None and early[1] != signed.digest:
            self._show(early[0], author, signed, now)

    def _contradicted(self, author: PeerId, of: _Stream, statement: Statement, signed: Signed) -> bool:
        for span in (statement.span, statement.span - 1, statement.span + 1):
            kept = of.statements.get((statement.stay, span))
            if kept is not None and contradict(kept[2], signed):
                proof = Proof(kept[2], signed)
                try:
                    proof_untrusted(proof)
                except ProtocolError:
                    self._tell_unsigned(author, statement.stream, of, "its signatures do not match")
                else:
                    self._prove(author, kept[1], proof)
                return True
        return False

    def _show(self, to: PeerId, author: PeerId, signed: Signed, now: float) -> None:
        """The other one may have what contradicts it, or only say so."""
        bucket = self._shows.get(to)
        if bucket is None:
            bucket = self._shows[to] = TokenBucket(burst=SHOWS_BURST, per_second=SHOWS_PER_S, now=now)
        if author not in self.proofs and bucket.allow(now):
            self._words.append((to, Show(signed)))

    def _compare(self, sender: PeerId, author: PeerId, stream: str, span: int, digest: bytes, now: float) -> None:
        known = self._authors.get(author)
        of = known.streams.get(stream) if known is not None else None
        if author == self._me or of is None:
            return
        kept = of.statements.get((of.stay, span))
        if kept is not None:
            if kept[2].digest != digest:
                self._show(sender, author, kept[2], now)
        elif span > of.last_span:
            self._early[author, stream, span] = sender, digest
            while len(self._early) > EARLY_MAX:
                del self._early[next(iter(self._early))]

    def _prove(self, author: PeerId, statement: Statement, proof: Proof) -> None:
        if author in self.proofs or len(self.proofs) >= ECHOES_MAX:
            return
        self.proofs[author] = proof
        self._words.append((None, proof))
        self._events.append(ToldTwoStories(author, statement.stream, statement.span, proof))

    def words_to_send(self, members: list[PeerId]) -> list[tuple[PeerId | None, TranscriptWord]]:
        """(to whom, None for everybody; word). `members`: who is in the room, ourselves included or not."""
        words, self._words = self._words, []
        if self._echo_due:
            self._echo_due = False
            heard = [(author.raw, stream, *what) for (author, stream), what in self._to_echo.items()]
            self._to_echo.clear()
            for target in next_two(self._me, members):
                said = [each for each in heard if each[0] != target.raw][:ECHOES_MAX]
                if said:
                    words.append((target, Echo(said)))
        return words

    # ------------------------------------------------------------------------------------------------------------ time

    def handle_timeout(self, now: float) -> None:
        if now >= self._echo_at:
            self._echo_at, self._echo_due = math.inf, True
        share = KEPT_BYTES_MAX // max(AUTHORS_MIN, len(self._authors))
        for author, known in list(self._authors.items()):
            for name, of in known.streams.items():
                self._look_for_unsigned(author, name, of)
                self._drop_old(known, of, now - KEPT_S, share)
            if known.left and not known.bytes:
                del self._authors[author]

    def _look_for_unsigned(self, author: PeerId, name: str, of: _Stream) -> None:
        if not of.unchecked:
            return
        oldest = next(iter(of.unchecked.values()))
        if of.statement_at - oldest >= UNSIGNED_S:
            self._tell_unsigned(author, name, of, "it signs what it said, and not all that came")
        elif of.heard_at - oldest >= SILENT_S and of.statement_at < oldest:
            self._tell_unsigned(author, name, of, "it does not sign what it says")
        else:
            return
        of.unchecked.clear()

    def _drop_old(self, known: _Author, of: _Stream, before: float, share: int) -> None:
        while of.statements:
            key, (came, _, signed) = next(iter(of.statements.items()))
            if came >= before and (known.bytes <= share or len(of.statements) <= 2):
                break
            del of.statements[key]
            known.bytes -= len(signed.body) + _OVERHEAD_BYTES
        while of.messages:
            digest, (came, data) = next(iter(of.messages.items()))
            if came >= before and known.bytes <= share:
                break
            del of.messages[digest]
            of.unchecked.pop(digest, None)
            known.bytes -= len(data) + _OVERHEAD_BYTES
        while of.signed and (next(iter(of.signed.values()))[0] < before or len(of.signed) > ENTRIES_MAX * 64):
            del of.signed[next(iter(of.signed))]

    def take_events(self) -> list[TranscriptEvent]:
        events, self._events = self._events, []
        return events

    def forget(self, author: PeerId) -> None:
        """It left. What it said goes with its half minute; what is proved of it stays."""
        self._shows.pop(author, None)
        known = self._authors.get(author)
        if known is not None:
            known.left = True
            for of in known.streams.values():
                of.unchecked.clear()

    # ------------------------------------------------------------------------------------------------------- evidence

    @property
    def bytes_kept(self) -> int:
        return sum(known.bytes for known in self._authors.values())

    def statements_kept(self) -> list[Signed]:
        kept = [
            signed
            for known in self._authors.values()
            for of in known.streams.values()
            for _, _, signed in of.statements.values()
        ]
        pinned = [signed for signed in self._pinned.values() if signed is not None]
        return list({signed.digest: signed for signed in pinned + kept}.values())

    def messages_kept(self) -> list[tuple[PeerId, str, float, bytes]]:
        return [
            (author, name, came, data)
            for author, known in self._authors.items()
            for name, of in known.streams.items()
            for came, data in of.messages.values()
        ]


def next_two(me: PeerId, members: list[PeerId]) -> list[PeerId]:
    """The two members behind us in the order of ids, which is a ring."""
    others = sorted(peer for peer in members if peer != me)
    after = [peer for peer in others if peer > me]
    return (after + others)[: min(2, len(others))]
