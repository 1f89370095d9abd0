"""Conformance cases as tables: what the peer sends, what we must answer and when, against the pure association.

A case is a list of lines, one step each; a blank line means nothing. In front of any step `+0.1` lets so many seconds of
virtual time pass; what is sent then must have been expected for exactly that moment.

    <- CHUNK field=value ... / CHUNK ...   the peer sends one packet with these chunks
    -> CHUNK field=value ... / CHUNK ...   our next packet has exactly these chunks; fields not named may be anything
    call connect | shutdown | abort        what the owner does
    call send 1000 [stream]                a message of so many bytes
    refused send 1 [stream]                the same, and it must be refused
    told Event                             our next event
    state established [idle]               the state now; idle: no timer runs either

Nothing may be sent or told that no line expects. In braces before the chunks: `{tag=wrong}`, `{tag=7}`, `{crc=bad}`,
`{crc=zero}`, `{crc=any}`. TSNs count from 1 on either side. T behind a chunk is its T bit; the packet then carries the
tag of its sender.
"""

from __future__ import annotations

import random
import re
from collections import deque
from typing import Any

import attrs

from psyne_mesh.errors import LocalError
from psyne_mesh.webrtc.sctp import Association, BufferedAmountLow, Closed, MessageReceived, SctpConfig, SctpEvent, wire
from tests.conformance.chunks import Speaker, chunk_from_words, words_from_chunk

PEER_TAG = 0x5EED
PEER_INITIAL_TSN = 0xFFFF_FFFE  # wraps within the first messages
_EPSILON = 1e-6
_HEAD = re.compile(r"(?:\+(?P<wait>[\d.]+)\s*)?(?P<verb>\S+)?\s*(?:\{(?P<options>[^}]*)\})?\s*(?P<rest>.*)")


@attrs.frozen
class Case:
    """One row: the identifier in its suite, what it checks, the steps, and settings beside the usual ones."""

    id: str
    what: str
    script: str
    settings: dict[str, Any]
    runs: int  # with as many seeds; our initiate tags must then all differ


def case(id: str, what: str, *steps: str, runs: int = 1, **settings: Any) -> Case:
    return Case(id, what, "\n".join(steps), settings, runs)


@attrs.frozen
class NotApplicable:
    """A row of a suite that says nothing about SCTP over DTLS, or nothing about its core."""

    id: str
    reason: str


def run(case: Case) -> None:
    """Run a case; AssertionError names the line that does not hold."""
    tags = set()
    for seed in range(case.runs):
        runner = Runner(case, seed)
        for line in case.script.splitlines():
            if line.strip():
                runner.step(line.strip())
        runner.nothing_is_left("at the end")
        tags.add(runner.us.tag)
    assert len(tags) == case.runs, "initiate tags repeat themselves"


class Runner:
    """One association under one script."""

    def __init__(self, case: Case, seed: int) -> None:
        # The suite's own surroundings: the RTO is what it is set to, and no probe comes between
        usual: dict[str, Any] = {"path_mtu_discovery": False, "rtt_variance_min_s": 0.0, "packet_bytes_base": 1480}
        self.association = Association(SctpConfig(**usual | case.settings), rng=random.Random(seed))
        self.now = 100.0
        self.us = Speaker()
        self.peer = Speaker(tag=PEER_TAG, initial_tsn=PEER_INITIAL_TSN)
        self.sent: deque[tuple[float, bytes]] = deque()
        self.told: deque[str] = deque()
        self._last_tag = 0  # of the packet that the peer sent last
        self._answer_tags = {PEER_TAG}  # that our packets may carry

    def step(self, line: str) -> None:
        match = _HEAD.match(line)
        assert match, line
        verb, rest = match["verb"], match["rest"]
        options = dict(option.split("=") for option in (match["options"] or "").split())
        if match["wait"]:
            self.nothing_is_left(f"before {line!r}", events=False)
            self._wait(float(match["wait"]))
        if verb == "->":
            self._expect(rest, options, line)
        elif verb == "told":
            assert self.told, f"nothing is told at {line!r}"
            assert self.told.popleft() == rest, line
        elif verb == "state":
            state, *idle = rest.split()
            assert self.association.state.value == state, line
            assert not idle or self.association.next_timeout() is None, line
        elif verb is not None:
            self.nothing_is_left(f"before {line!r}", events=False)
            if verb == "<-":
                self._inject(rest, options)
            else:
                self._call(verb, *rest.split())
            self._flush()

    def nothing_is_left(self, when: str, *, events: bool = True) -> None:
        assert not self.sent, f"unexpected {when}: {self._describe(self.sent[0][1])}"
        assert not events or not self.told, f"unexpected {when}: told {self.told[0]}"

    # ------------------------------------------------------------------------------------------------------------ steps

    def _wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.association.next_timeout()) is not None and deadline <= end + _EPSILON:
            self.now = max(self.now, deadline)
            self.association.handle_timeout(self.now)
            self._flush()
        self.now = end

    def _call(self, verb: str, *words: str) -> None:
        association, name = self.association, words[0]
        if verb == "refused":
            try:
                self._send(words)
            except LocalError:
                return
            raise AssertionError("the message was taken")
        assert verb == "call", verb
        if name == "send":
            self._send(words)
        else:
            {"connect": association.connect, "shutdown": association.shutdown, "abort": association.abort}[name](
                self.now
            )

    def _send(self, words: tuple[str, ...]) -> None:
        stream = int(words[2]) if len(words) > 2 else 0
        self.association.send(stream, 51, bytes(int(words[1])), self.now)

    def _inject(self, rest: str, options: dict[str, str]) -> None:
        texts = [text.split() for text in rest.split("/")]
        if texts[0][0] == "RAW":
            chunks = [bytes.fromhex("".join(texts[0][1:]))]
        else:
            chunks = [chunk_from_words(words, self.peer, self.us) for words in texts]
        tag = self.us.tag
        if texts[0][0] == "INIT":
            tag = 0
            self._answer_tags.add(wire.U32.unpack_from(chunks[0], 4)[0])
        elif "T" in texts[0]:
            tag = PEER_TAG
        if "tag" in options:
            tag = self.us.tag ^ 0x0F0F if options["tag"] == "wrong" else int(options["tag"])
        self._last_tag = tag
        seal = wire.seal_without_checksum if options.get("crc") == "zero" else wire.seal
        packet = bytearray(seal(wire.PARAM_HEADER.pack(5000, 5000) + wire.U32.pack(tag), chunks))
        if options.get("crc") == "bad":
            packet[9] ^= 0xA5
        self.association.receive(bytes(packet), self.now)

    def _flush(self) -> None:
        for packet in self.association.packets_to_send(self.now):
            assert len(packet) <= self.association.path_mtu
            self._learn(packet)
            self.sent.append((self.now, packet))
        events = self.association.take_events()
        self.told += [_name(event) for event in events if not isinstance(event, BufferedAmountLow)]

    def _learn(self, packet: bytes) -> None:
        """What the peer needs from our INIT or INIT-ACK."""
        kind, _, start, end = wire.parse_packet_untrusted(packet).chunks[0]
        if kind in (wire.INIT, wire.INIT_ACK):
            init = wire.parse_init_untrusted(packet, start, end)
            if not self.us.tag:
                self.us.tag, self.us.initial_tsn = init.tag, init.initial_tsn
            self.us.cookie = init.cookie or self.us.cookie

    def _expect(self, rest: str, options: dict[str, str], line: str) -> None:
        assert self.sent, f"nothing is sent at {line!r}"
        at, packet = self.sent.popleft()
        assert abs(at - self.now) < _EPSILON, f"sent {self.now - at:.3f} s before {line!r}: {self._describe(packet)}"
        parsed = wire.parse_packet_untrusted(packet)
        crc = options.get("crc", "right")
        assert crc == "any" or (crc == "zero") == (parsed.checksum == 0), f"checksum at {line!r}"
        assert not parsed.checksum or wire.checksum_is_right(packet)
        found = self._chunks(packet)
        wanted = [text.split() for text in rest.split("/")]
        assert len(found) == len(wanted), f"{line!r}, but sent was {self._describe(packet)}"
        for words, chunk in zip(wanted, found, strict=True):
            missing = [word for word in words if word not in chunk]
            assert not missing, f"{missing} of {line!r}, but sent was {self._describe(packet)}"
        if wanted[0][0] == "INIT":
            assert parsed.tag == 0
        elif "T" in found[0]:
            assert parsed.tag == self._last_tag
        else:
            assert parsed.tag in self._answer_tags

    def _chunks(self, packet: bytes) -> list[list[str]]:
        chunks = wire.parse_packet_untrusted(packet).chunks
        return [words_from_chunk(packet[start:end], self.us, self.peer) for _, _, start, end in chunks]

    def _describe(self, packet: bytes) -> str:
        return " / ".join(" ".join(words) for words in self._chunks(packet))


def _name(event: SctpEvent) -> str:
    if isinstance(event, MessageReceived):
        return f"Message {len(event.data)}"
    if isinstance(event, Closed):
        return f"Closed by {'peer' if event.by_peer else 'us'}"
    return type(event).__name__
