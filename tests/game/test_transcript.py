"""Who tells two stories is proved to have done so, within a second; who tells one never is."""

from __future__ import annotations

import heapq
import random
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.game.evidence import (
    Accusation,
    Evidence,
    Said,
    encode_evidence,
    evidence_untrusted,
    judge,
    vote,
)
from psyne_mesh.game.transcript import (
    DOMAIN,
    KEPT_BYTES_MAX,
    SHOWS_BURST,
    SHOWS_PER_S,
    SPAN_S,
    Archive,
    Echo,
    NotSigned,
    Proof,
    Say,
    Scribe,
    Show,
    Signed,
    Statement,
    ToldTwoStories,
    contradict,
    digest_of,
    next_two,
    proof_untrusted,
)
from psyne_mesh.identity import Identity, PeerId

ROOM = b"r" * 16
IDENTITIES = [Identity.from_seed(bytes([number]) * 32) for number in range(16)]


class Member:
    def __init__(self, identity: Identity) -> None:
        self.identity, self.me = identity, identity.peer_id
        self.scribe = Scribe(identity, ROOM, 1)
        self.archive = Archive(self.me, ROOM)
        self.events: list[tuple[float, ToldTwoStories | NotSigned]] = []


class Crowd:
    """Members over a virtual network that loses messages but no words; each says a message each `every_s`."""

    def __init__(
        self, size: int, seed: int, latency_s: float = 0.05, jitter_s: float = 0.03, loss: float = 0.05
    ) -> None:
        self.members = [Member(identity) for identity in IDENTITIES[:size]]
        self.ids = [member.me for member in self.members]
        self.dice = random.Random(seed)
        self.latency_s, self.jitter_s, self.loss = latency_s, jitter_s, loss
        self.now = 0.0
        self.later: list[tuple[float, int, object]] = []
        self.order = count()
        self.until: dict[tuple[PeerId, PeerId], float] = {}
        self.liar: int | None = None
        self.lies_from = 0.0
        self.split: set[int] = set()
        self.second = Scribe(IDENTITIES[0], ROOM, 1)

    def at(self, when: float, what: object) -> None:
        heapq.heappush(self.later, (when, next(self.order), what))

    def send(self, source: Member, target: Member, word: object) -> None:
        when = self.now + self.latency_s + self.dice.uniform(-self.jitter_s, self.jitter_s)
        key = (source.me, target.me)
        when = self.until[key] = max(when, self.until.get(key, 0.0))

        def come() -> None:
            target.archive.receive(source.me, 1, word, self.now)
            self.flush(target)

        self.at(when, come)

    def say(self, number: int, tick: int) -> None:
        source = self.members[number]
        data = msgspec.msgpack.encode(["Move", tick, number])
        source.scribe.said("moves", data)
        other = data
        if number == self.liar:
            other = msgspec.msgpack.encode(["Move", tick, 99]) if self.now >= self.lies_from else data
            self.second.said("moves", other)
        for place, target in enumerate(self.members):
            if target is not source and self.dice.random() >= self.loss:
                payload = other if place in self.split else data
                when = self.now + max(0.0, self.latency_s + self.dice.uniform(-self.jitter_s, self.jitter_s))
                self.at(
                    when,
                    lambda target=target, payload=payload: target.archive.heard(source.me, "moves", payload, self.now),
                )

    def flush(self, member: Member) -> None:
        for target, word in member.archive.words_to_send(self.ids):
            for other in self.members:
                if other is not member and target in (None, other.me):
                    self.send(member, other, word)
        member.events += [(self.now, event) for event in member.archive.take_events()]

    def turn(self, number: int) -> None:
        member = self.members[number]
        for signed in member.scribe.statements(self.now):
            for place, other in enumerate(self.members):
                if other is not member and not (number == self.liar and place in self.split):
                    self.send(member, other, Say(signed))
        if number == self.liar:
            for signed in self.second.statements(self.now):
                for place in self.split:
                    self.send(member, self.members[place], Say(signed))
        member.archive.handle_timeout(self.now)
        self.flush(member)

    def play(self, seconds: float, hz: float = 20.0) -> None:
        end = self.now + seconds
        for number in range(len(self.members)):
            for tick in range(int(self.now * hz), int(end * hz)):
                self.at(tick / hz + number * 0.001, lambda number=number, tick=tick: self.say(number, tick))
            for turn in range(int(self.now * 20), int(end * 20)):
                self.at(turn / 20 + number * 0.003, lambda number=number: self.turn(number))
        while self.later and self.later[0][0] < end:
            self.now, _, what = heapq.heappop(self.later)
            what()  # type: ignore[operator]
        self.now = end


@pytest.mark.parametrize("seed", range(4))
def test_who_tells_one_story_is_never_accused(seed: int) -> None:
    crowd = Crowd(6, seed, loss=0.05, jitter_s=0.05)
    crowd.play(20)
    assert [event for member in crowd.members for event in member.events] == []
    assert all(len(member.archive.statements_kept()) > 100 for member in crowd.members)


@pytest.mark.parametrize("split", [{1}, {1, 2}, {3}, {1, 3, 5}, {5}, {2, 4}])
def test_two_stories_are_proved_to_everybody_within_a_second(split: set[int]) -> None:
    crowd = Crowd(6, 3)
    crowd.liar, crowd.split, crowd.lies_from = 0, split, 5.1
    crowd.play(8)
    liar = crowd.ids[0]
    for member in crowd.members[1:]:
        told = [(when, event) for when, event in member.events if isinstance(event, ToldTwoStories)]
        assert [event.author for _, event in told] == [liar]
        assert told[0][0] - crowd.lies_from <= 1.0
        assert proof_untrusted(told[0][1].proof)[0] == liar
    assert not any(event.author != liar for member in crowd.members for _, event in member.events)


def test_messages_that_are_not_signed_are_noticed() -> None:
    crowd = Crowd(3, 4, loss=0.0)
    crowd.members[0].scribe.said = lambda stream, data: None  # type: ignore[method-assign]
    crowd.play(20)
    for member in crowd.members[1:]:
        assert [event for _, event in member.events] == [
            NotSigned(crowd.ids[0], "moves", "it does not sign what it says")
        ]


def test_a_span_that_is_not_what_came_is_noticed() -> None:
    author = Scribe(IDENTITIES[0], ROOM, 1)
    archive = Archive(IDENTITIES[1].peer_id, ROOM)
    peer = IDENTITIES[0].peer_id
    archive.heard_span(peer, "play", 0, digest_of(b"what came"), 0.0)
    archive.receive(peer, 1, Say(author.sign("play", 0, [digest_of(b"what came")])), 0.1)
    archive.receive(peer, 1, Say(author.sign("play", 1, [digest_of(b"another")])), 0.6)
    assert archive.take_events() == []
    archive.heard_span(peer, "play", 1, digest_of(b"what came then"), 0.7)
    (event,) = archive.take_events()
    assert isinstance(event, NotSigned)
    assert event.reason == "what came is not what it signed for span 1"


def test_what_is_no_statement_of_its_sender_is_refused() -> None:
    scribe = Scribe(IDENTITIES[0], ROOM, 1)
    me, peer, other = (IDENTITIES[number].peer_id for number in (1, 0, 2))
    archive = Archive(me, ROOM)
    signed = scribe.sign("moves", 0, [digest_of(b"x")])
    forged = Signed(signed.body, bytes(64))
    ended = msgspec.msgpack.encode(Statement(ROOM, 1, IDENTITIES[0].public_key, "moves", 0, bytes(16), b"short"))
    for sender, stay, word in (
        (other, 1, Say(signed)),
        (peer, 2, Say(signed)),
        (peer, 1, Say(forged)),
        (peer, 1, Say(Signed(b"\xc1", bytes(64)))),
        (peer, 1, Say(Signed(ended, IDENTITIES[0].sign(DOMAIN, ended)))),
        (peer, 1, Proof(signed, signed)),
        (peer, 1, Proof(signed, scribe.sign("moves", 1, []))),
        (peer, 1, Show(forged)),
    ):
        with pytest.raises(ProtocolError):
            archive.receive(sender, stay, word, 0.0)
    elsewhere = Scribe(IDENTITIES[0], b"s" * 16, 1).sign("moves", 0, [])
    with pytest.raises(ProtocolError):
        archive.receive(peer, 1, Say(elsewhere), 0.0)
    assert archive.take_events() == []
    assert archive.words_to_send([me, peer]) == []


def test_who_leaves_statements_out_is_heard_no_further() -> None:
    scribe = Scribe(IDENTITIES[0], ROOM, 1)
    peer = IDENTITIES[0].peer_id
    archive = Archive(IDENTITIES[1].peer_id, ROOM)
    signed = [scribe.sign("moves", span, []) for span in range(10)]
    archive.receive(peer, 1, Say(signed[0]), 0.0)
    archive.receive(peer, 1, Say(signed[3]), 1.5)  # a link broke
    with pytest.raises(ProtocolError, match="left out"):
        archive.receive(peer, 1, Say(signed[5]), 2.5)
    archive.receive(peer, 1, Say(signed[4]), 3.0)
    assert contradict(signed[4], Scribe(IDENTITIES[0], ROOM, 1).sign("moves", 5, []))


def test_memory_is_bounded_and_nobody_takes_anothers_part_of_it() -> None:
    archive = Archive(IDENTITIES[1].peer_id, ROOM)
    quiet, loud = IDENTITIES[0].peer_id, IDENTITIES[2].peer_id
    archive.heard(quiet, "moves", b"kept", 0.0)
    for tick in range(4000):
        archive.heard(loud, f"moves {tick % 50}", bytes([tick % 256]) * 1000 + tick.to_bytes(4, "big"), tick / 200)
        if tick % 10 == 0:
            archive.handle_timeout(tick / 200)
    assert archive.bytes_kept <= KEPT_BYTES_MAX // 8
    assert (quiet, "moves", 0.0, b"kept") in archive.messages_kept()
    archive.handle_timeout(40.0)
    archive.forget(loud)
    archive.forget(quiet)
    archive.handle_timeout(80.0)
    assert archive.bytes_kept == 0
    assert archive._authors == {}


def test_the_two_behind_us_are_a_ring() -> None:
    ids = sorted(identity.peer_id for identity in IDENTITIES[:5])
    assert next_two(ids[0], ids) == [ids[1], ids[2]]
    assert next_two(ids[4], ids) == [ids[0], ids[1]]
    assert next_two(ids[0], [ids[0], ids[3]]) == [ids[3]]
    assert next_two(ids[0], [ids[0]]) == []


def test_a_span_is_half_a_second_and_a_flood_signs_sooner() -> None:
    scribe = Scribe(IDENTITIES[0], ROOM, 1)
    scribe.said("moves", b"1")
    assert len(scribe.statements(0.0)) == 1
    scribe.said("moves", b"2")
    assert scribe.statements(SPAN_S - 0.01) == []
    for number in range(1200):
        scribe.said("moves", str(number).encode())
    assert len(scribe.statements(SPAN_S - 0.01)) == 3
    assert scribe.statements(2.0) == []


# ---------------------------------------------------------------------------------------------------------- evidence


def file_of(writer: int, **changes: object) -> Evidence:
    """Ada (0) signed one message and broke a rule by it; Bob (2) was accused of what he did not sign."""
    scribe = Scribe(IDENTITIES[0], ROOM, 1)
    signed, unsigned = msgspec.msgpack.encode(["Move", 7, 500.0]), msgspec.msgpack.encode(["Move", 8, 1.0])
    statement = scribe.sign("moves", 0, [digest_of(signed)])
    ada, bob = IDENTITIES[0].peer_id.raw, IDENTITIES[2].peer_id.raw
    content = {
        "room": ROOM, "room_name": "arena", "writer": IDENTITIES[writer].public_key, "at": 5.0, "names": {}, "proofs": [],
        "statements": [statement],
        "messages": [Said(ada, "moves", 4.0, signed), Said(bob, "moves", 4.5, unsigned)],
        "accusations": [
            Accusation(ada, "moves", "within", "x is 500, outside 0 to 10", signed, b"", 4.0),
            Accusation(bob, "moves", "within", "x is 1, outside 2 to 3", unsigned, b"", 4.5),
        ],
    }  # fmt: skip
    return Evidence(**(content | changes))  # type: ignore[arg-type]


def test_a_file_says_what_is_proved_and_what_is_its_writers_word() -> None:
    written = encode_evidence(file_of(1), IDENTITIES[1])
    evidence, writer = evidence_untrusted(written)
    assert writer == IDENTITIES[1].peer_id
    found = judge([evidence])
    ada, bob = IDENTITIES[0].peer_id, IDENTITIES[2].peer_id
    assert [(finding.against, finding.proved) for finding in found.findings] == [
        (ada, True),
        (ada, False),
        (bob, False),
    ]
    assert found.findings[0].what == "signed Move(7, 500.0) in 'moves'"
    assert found.findings[2].what == "broke within: x is 1, outside 2 to 3, by Move(8, 1.0), which it has not signed"
    assert (found.signed[ada], found.unsigned[bob]) == (1, 1)
    assert len(found.notes) == 4


def test_halves_of_a_lie_in_two_files_are_one_proof() -> None:
    one = Scribe(IDENTITIES[0], ROOM, 1).sign("moves", 0, [digest_of(b"to ada")])
    other = Scribe(IDENTITIES[0], ROOM, 1).sign("moves", 0, [digest_of(b"to bob")])
    plain = {"messages": [], "accusations": []}
    files = [file_of(1, statements=[one], **plain), file_of(2, statements=[other], **plain)]
    assert all(not judge([each]).findings for each in files)
    (finding,) = judge(files).findings
    assert (finding.against, finding.proved) == (IDENTITIES[0].peer_id, True)
    with pytest.raises(ProtocolError, match="different rooms"):
        judge([files[0], file_of(2, room=b"s" * 16)])


def test_the_odd_one_of_three_signed_states_is_named_and_never_one_of_two() -> None:
    def voted(number: int, state: bytes) -> Signed:
        return Scribe(IDENTITIES[number], ROOM, 1).sign("psyne.play.Pong@1.000", 4, [bytes(16), vote(120, state)])

    plain = {"messages": [], "accusations": []}
    three = [voted(0, b"statestA"), voted(1, b"statestB"), voted(2, b"statestA")]
    (finding,) = judge([file_of(1, statements=three, **plain)]).findings
    assert (finding.against, finding.proved) == (IDENTITIES[1].peer_id, True)
    assert "tick 120" in finding.what
    assert judge([file_of(1, statements=three[:2], **plain)]).findings == []


def test_a_file_that_was_changed_is_refused() -> None:
    written = encode_evidence(file_of(1), IDENTITIES[1])
    dice = random.Random(5)
    for _ in range(200):
        changed = bytearray(written)
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        with pytest.raises(ProtocolError):
            evidence_untrusted(bytes(changed))
    with pytest.raises(ProtocolError):
        evidence_untrusted(encode_evidence(file_of(1), IDENTITIES[2]))


def test_statements_that_nobody_signed_prove_nothing() -> None:
    forged = Signed(Scribe(IDENTITIES[0], ROOM, 1).sign("moves", 0, []).body, bytes(64))
    true = Scribe(IDENTITIES[0], ROOM, 1).sign("moves", 0, [digest_of(b"x")])
    found = judge([file_of(1, statements=[forged, true], proofs=[Proof(forged, true)], messages=[], accusations=[])])
    assert found.findings == []
    assert "2 statements" in found.notes[-1]


@given(st.binary(max_size=400))
def test_nothing_but_a_protocol_error_leaves_a_file(data: bytes) -> None:
    for prefix in (b"", b"psyne-mesh evidence 1\n"):
        with pytest.raises(ProtocolError):
            evidence_untrusted(prefix + data)


def test_who_says_that_it_heard_others_is_shown_little_of_what_we_heard() -> None:
    """One line of an echo once brought a statement of 8 KiB, as often as it came."""
    author, liar = Identity.from_seed(b"a" * 32), IDENTITIES[1].peer_id
    scribe, archive = Scribe(author, ROOM, 1), Archive(IDENTITIES[0].peer_id, ROOM)
    said = scribe.sign("moves", 0, [bytes([number]) * 16 for number in range(200)])
    archive.receive(author.peer_id, 1, Say(said), 0.0)
    line = (author.peer_id.raw, "moves", 0, b"?" * 16)
    for number in range(100):
        archive.receive(liar, 1, Echo([line] * 100), number / 10)
    shown = [word for _, word in archive.words_to_send([liar]) if isinstance(word, Show)]
    assert 1 <= len(shown) <= SHOWS_BURST + 10 * SHOWS_PER_S + 1
    for span in range(1, 100):  # nor by saying beforehand what will be
        archive.receive(liar, 1, Echo([(author.peer_id.raw, "moves", span, b"?" * 16)]), 11.0)
        archive.receive(author.peer_id, 1, Say(scribe.sign("moves", span, [b"x" * 16])), 11.0)
    early = [word for _, word in archive.words_to_send([liar]) if isinstance(word, Show)]
    assert len(early) <= 2 * SHOWS_PER_S
    archive.receive(IDENTITIES[2].peer_id, 1, Echo([line]), 11.0)  # others are shown theirs
    assert len([word for to, word in archive.words_to_send([liar]) if to == IDENTITIES[2].peer_id]) == 1
    archive.forget(liar)
    assert archive._shows.keys() == {IDENTITIES[2].peer_id}
