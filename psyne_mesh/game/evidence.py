"""A file of what others signed, for who was not there: written by a player, judged by anybody.

What a file proves, it proves by signatures of those whom it accuses, so nobody need believe who wrote it. All else in it
is the word of its writer, who signs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game.transcript import (
    DIGEST_BYTES,
    Proof,
    Signed,
    Statement,
    author_untrusted,
    contradict,
    digest_of,
    proof_untrusted,
)
from psyne_mesh.identity import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Identity, PeerId, verify_untrusted
from psyne_mesh.words import read_untrusted

MAGIC = b"psyne-mesh evidence 1\n"
FILE_BYTES_MAX = 8 << 20
DOMAIN = b"psyne-evidence"
BREACHES_MAX = 256
TEXT_MAX = 400
VOTE_STREAM = "psyne.play."
"""Streams of this name hold, behind the digest of a span's inputs, a vote: frame and hash of a confirmed state."""

_Raw = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]


class Said(msgspec.Struct, frozen=True, array_like=True):
    """A message of `author` as it came to the writer, at `came` of the writer's room time."""

    author: _Raw
    stream: _Text
    came: float
    data: bytes


class Accusation(msgspec.Struct, frozen=True, array_like=True):
    """The writer says that `author` broke `rule`, because of `reason`, by `data`; `before` was the last message of it that
    was accepted, empty if there was none."""

    author: _Raw
    stream: _Text
    rule: _Text
    reason: _Text
    data: bytes
    before: bytes
    at: float


class Evidence(msgspec.Struct, frozen=True, array_like=True):
    """`at`: the writer's room time."""

    room: _Raw
    room_name: _Text
    writer: Annotated[bytes, msgspec.Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
    at: float
    names: Annotated[dict[str, _Text], msgspec.Meta(max_length=1024)]
    statements: list[Signed]
    messages: list[Said]
    accusations: Annotated[list[Accusation], msgspec.Meta(max_length=BREACHES_MAX)]
    proofs: list[Proof]


_evidence = msgspec.msgpack.Decoder(Evidence)


def encode_evidence(evidence: Evidence, identity: Identity) -> bytes:
    body = msgspec.msgpack.encode(evidence)
    return MAGIC + identity.sign(DOMAIN, body) + body


def evidence_untrusted(data: bytes) -> tuple[Evidence, PeerId]:
    """The content, and who wrote it. Raises ProtocolError for what is no such file, or was changed."""
    if len(data) > FILE_BYTES_MAX:
        raise ProtocolError(f"a file of evidence has at most {FILE_BYTES_MAX} bytes")
    if not data.startswith(MAGIC):
        raise ProtocolError("no file of evidence: room.evidence(path) writes them")
    signature, body = data[len(MAGIC) : len(MAGIC) + SIGNATURE_BYTES], data[len(MAGIC) + SIGNATURE_BYTES :]
    evidence = read_untrusted(_evidence, body, "a file of evidence that can be read")
    try:
        return evidence, verify_untrusted(evidence.writer, DOMAIN, body, signature)
    except ProtocolError:
        raise ProtocolError("a file of evidence that was changed after it was written") from None


class Finding(msgspec.Struct, frozen=True):
    """`against` is who is accused. `proved`: by its own signatures, to anybody; else it is the word of `by`."""

    against: PeerId
    proved: bool
    what: str
    by: PeerId | None = None


class Judgement(msgspec.Struct):
    """`findings`, those that are proved first; `signed`: how many messages each player signed, and `unsigned` how many of
    those in the files it did not; `notes`: what the files do not show."""

    writers: list[PeerId] = []
    room_name: str = ""
    names: dict[str, str] = {}
    findings: list[Finding] = []
    signed: Counter[PeerId] = msgspec.field(default_factory=Counter)
    unsigned: Counter[PeerId] = msgspec.field(default_factory=Counter)
    notes: list[str] = []


NOT_SHOWN = (
    "that a message was not sent, or was sent and lost",
    "when a message came, and how far its sender was away: that is the word of who wrote the file",
    "who sits behind a key, and whether a program or a hand moved it",
    "which of two different states of a simulation is the right one; only who stands alone",
)


def judge(files: Sequence[Evidence]) -> Judgement:
    """All files together: two halves of a lie may be in two of them. They must be of one room, else ProtocolError."""
    found = Judgement(notes=list(NOT_SHOWN))
    if len({evidence.room for evidence in files}) > 1:
        raise ProtocolError("these files are of different rooms")
    statements: dict[tuple[bytes, int, str, int], tuple[PeerId, Statement, Signed]] = {}
    proved: set[PeerId] = set()
    bad = 0
    for evidence in files:
        found.room_name = evidence.room_name
        found.writers.append(PeerId.of(evidence.writer))
        found.names |= evidence.names
        for proof in evidence.proofs:
            try:
                author, statement = proof_untrusted(proof)
            except ProtocolError:
                bad += 1
                continue
            _two_stories(found, proved, author, statement)
        for signed in evidence.statements:
            try:
                author, statement = author_untrusted(signed)
            except ProtocolError:
                bad += 1
                continue
            if statement.room != evidence.room:
                bad += 1
                continue
            key = (statement.key, statement.stay, statement.stream, statement.span)
            for span in (key, (*key[:3], key[3] - 1), (*key[:3], key[3] + 1)):
                known = statements.get(span)
                if known is not None and contradict(known[2], signed):
                    _two_stories(found, proved, author, statement)
            statements.setdefault(key, (author, statement, signed))
    if bad:
        found.notes.append(f"what {bad} statements in the files said: they are of another room, or nobody signed them")
    signed_by: dict[PeerId, set[tuple[str, bytes]]] = {}
    for author, statement, _ in statements.values():
        signed_by.setdefault(author, set()).update([(statement.stream, digest) for digest in statement.digests])
    for evidence in files:
        _messages(found, evidence, signed_by)
        _accusations(found, evidence, signed_by)
    _votes(found, statements)
    found.findings.sort(key=lambda finding: not finding.proved)
    return found


def _two_stories(found: Judgement, proved: set[PeerId], author: PeerId, statement: Statement) -> None:
    if author not in proved:
        proved.add(author)
        what = f"signed two different records of span {statement.span} of {statement.stream!r}"
        found.findings.append(Finding(author, True, what))


def _messages(found: Judgement, evidence: Evidence, signed_by: dict[PeerId, set[tuple[str, bytes]]]) -> None:
    for said in evidence.messages:
        author = PeerId.from_raw_untrusted(said.author)
        signed = (said.stream, digest_of(said.data)) in signed_by.get(author, ())
        (found.signed if signed else found.unsigned)[author] += 1


def _accusations(found: Judgement, evidence: Evidence, signed_by: dict[PeerId, set[tuple[str, bytes]]]) -> None:
    writer = PeerId.of(evidence.writer)
    for each in evidence.accusations:
        author = PeerId.from_raw_untrusted(each.author)
        signed = signed_by.get(author, set())
        said = [data for data in (each.data, each.before) if data]
        has_signed = all((each.stream, digest_of(data)) in signed for data in said)
        shown = " after ".join([readable(data) for data in said])
        if has_signed:
            what = f"signed {shown} in {each.stream!r}"
            found.findings.append(Finding(author, True, what))
        what = f"broke {each.rule}: {each.reason}" + ("" if has_signed else f", by {shown}, which it has not signed")
        found.findings.append(Finding(author, False, what, writer))


def _votes(found: Judgement, statements: dict[tuple[bytes, int, str, int], tuple[PeerId, Statement, Signed]]) -> None:
    """Of three or more who signed the state of one tick, who stands alone."""
    votes: dict[tuple[str, bytes], dict[PeerId, bytes]] = {}
    for author, statement, _ in statements.values():
        digests = statement.digests
        if statement.stream.startswith(VOTE_STREAM) and len(digests) > 1:
            frame, state = digests[1][:8], digests[1][8:]
            votes.setdefault((statement.stream, frame), {})[author] = state
    odd: set[PeerId] = set()
    for (stream, frame), by_author in sorted(votes.items()):
        state, count = Counter(by_author.values()).most_common(1)[0]
        if len(by_author) < 3 or 2 * count <= len(by_author):
            continue
        for author, said in by_author.items():
            if said != state and author not in odd:
                odd.add(author)
                tick = int.from_bytes(frame, "big")
                what = f"signed another state of tick {tick} of {stream!r} than {count} others, who agree"
                found.findings.append(Finding(author, True, what))


def vote(frame: int, state_hash: bytes) -> bytes:
    """As an entry of a statement."""
    return (frame.to_bytes(8, "big") + state_hash)[:DIGEST_BYTES].ljust(DIGEST_BYTES, b"\0")


def readable(data: bytes) -> str:
    """A message for people, cut short: what a game sent is MessagePack `[type, field, ...]` or its own bytes."""
    try:
        value: Any = msgspec.msgpack.decode(data)
    except (ValueError, RecursionError):
        return _cut(data.hex())
    if isinstance(value, list) and value and isinstance(value[0], str):
        return _cut(f"{value[0]}({', '.join(map(repr, value[1:]))})")
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."
