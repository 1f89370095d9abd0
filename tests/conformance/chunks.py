"""Chunks as words and back: `DATA BE tsn=1 ssn=0 size=1000`. The words are those of the conformance tables."""

from __future__ import annotations

import attrs

from psyne_mesh.webrtc.sctp import wire

KINDS = {
    "DATA": wire.DATA, "INIT": wire.INIT, "INIT-ACK": wire.INIT_ACK, "SACK": wire.SACK, "HEARTBEAT": wire.HEARTBEAT,
    "HEARTBEAT-ACK": wire.HEARTBEAT_ACK, "ABORT": wire.ABORT, "SHUTDOWN": wire.SHUTDOWN,
    "SHUTDOWN-ACK": wire.SHUTDOWN_ACK, "ERROR": wire.ERROR, "COOKIE-ECHO": wire.COOKIE_ECHO,
    "COOKIE-ACK": wire.COOKIE_ACK, "SHUTDOWN-COMPLETE": wire.SHUTDOWN_COMPLETE,
}  # fmt: skip
NAMES = {kind: name for name, kind in KINDS.items()}
CAUSES = {
    1: "invalid-stream", 2: "missing-parameter", 3: "stale-cookie", 5: "unresolvable-address", 6: "unrecognized-chunk",
    7: "invalid-parameter", 8: "unrecognized-parameters", 9: "no-user-data", 12: "user-abort", 13: "protocol-violation",
}  # fmt: skip
_CAUSE_NUMBERS = {name: number for number, name in CAUSES.items()}
_FLAGS = (("B", wire.FLAG_BEGIN), ("E", wire.FLAG_END), ("U", wire.FLAG_UNORDERED))
PEER_COOKIE = b"a cookie of the peer"


@attrs.define
class Speaker:
    """One end: the tag it wants in packets to it, where its TSNs begin, and the cookie that it gave out."""

    tag: int = 0
    initial_tsn: int = 0
    cookie: bytes = b""

    def on_wire(self, tsn: int) -> int:
        return (self.initial_tsn + tsn - 1) & 0xFFFFFFFF

    def counted(self, tsn: int) -> int:
        return (tsn - self.initial_tsn + 1) & 0xFFFFFFFF


def chunk_from_words(words: list[str], speaker: Speaker, other: Speaker) -> bytes:
    """A chunk that `speaker` sends: a kind, flags, and fields with defaults for what is not said."""
    name, *rest = words
    fields = dict(word.split("=", 1) for word in rest if "=" in word)
    flags = [word for word in rest if "=" not in word]

    def number(key: str, default: int) -> int:
        return int(fields.get(key, str(default)), 0)

    if name == "CHUNK":
        return wire.chunk(number("type", 0), 0, bytes.fromhex(fields.get("value", "")))
    kind = KINDS[name]
    if kind in (wire.INIT, wire.INIT_ACK):
        return _init(kind, words, speaker)
    if kind == wire.DATA:
        value = wire.DATA_FIELDS.pack(
            speaker.on_wire(number("tsn", 1)), number("sid", 0), number("ssn", 0), number("ppid", 51)
        )
        letters = flags[0] if flags else ""
        bits = sum(bit for letter, bit in _FLAGS if letter in letters)
        return wire.chunk(kind, bits, value + bytes(number("size", 100)))
    if kind == wire.SACK:
        gaps = [(int(low), int(high)) for low, high in (gap.split("-") for gap in _listed(fields.get("gaps")))]
        return wire.sack_chunk(other.on_wire(number("cum", 0)), number("a_rwnd", 1500), gaps)
    if kind == wire.SHUTDOWN:
        return wire.chunk(kind, 0, wire.U32.pack(other.on_wire(number("cum", 0))))
    if kind in (wire.HEARTBEAT, wire.HEARTBEAT_ACK):
        return wire.chunk(kind, 0, wire.parameter(wire.PARAM_HEARTBEAT_INFO, bytes.fromhex(fields["info"])))
    if kind == wire.COOKIE_ECHO:
        return wire.chunk(kind, 0, bytes.fromhex(fields["cookie"]) if "cookie" in fields else other.cookie)
    causes = b""
    if "cause" in fields:
        causes = wire.parameter(_CAUSE_NUMBERS[fields["cause"]], bytes.fromhex(fields.get("value", "")))
    return wire.chunk(kind, wire.FLAG_T if "T" in flags else 0, causes)


def _init(kind: int, words: list[str], speaker: Speaker) -> bytes:
    fields = dict(word.split("=", 1) for word in words[1:])
    parameters = []
    if kind == wire.INIT_ACK and fields.get("cookie") != "none":
        parameters.append(wire.parameter(wire.PARAM_STATE_COOKIE, PEER_COOKIE))
    if "zero" in fields:
        parameters.append(wire.parameter(wire.PARAM_ZERO_CHECKSUM, wire.U32.pack(int(fields["zero"]))))
    for listed in _listed(fields.get("parameters")):
        number, _, value = listed.partition(":")
        parameters.append(wire.parameter(int(number, 16), bytes.fromhex(value)))
    return wire.init_chunk(
        kind,
        int(fields.get("tag", speaker.tag)),
        int(fields.get("a_rwnd", 1500)),
        int(fields.get("os", 1)),
        int(fields.get("is", 1)),
        speaker.initial_tsn,
        parameters,
    )


def words_from_chunk(chunk: bytes, speaker: Speaker, other: Speaker) -> list[str]:
    """All that can be said of a chunk that `speaker` sent."""
    kind, flags = chunk[0], chunk[1]
    words = [NAMES.get(kind, f"CHUNK type={kind:#x}")]
    if kind == wire.DATA:
        tsn, stream, ssn, ppid = wire.DATA_FIELDS.unpack_from(chunk, 4)
        letters = "".join(letter for letter, bit in _FLAGS if flags & bit)
        words += ["I"] if flags & wire.FLAG_IMMEDIATE else []
        words += [letters or "middle", f"tsn={speaker.counted(tsn)}", f"sid={stream}", f"ssn={ssn}", f"ppid={ppid}"]
        words.append(f"size={len(chunk) - 16}")
    elif kind in (wire.INIT, wire.INIT_ACK):
        words += _init_words(chunk, speaker)
    elif kind == wire.SACK:
        sack = wire.parse_sack_untrusted(chunk, 0, len(chunk))
        words.append(f"cum={other.counted(sack.cumulative_tsn)}")
        words.append("gaps=" + (",".join(f"{low}-{high}" for low, high in sack.gaps) or "none"))
        words.append("dups=" + (",".join(str(other.counted(tsn)) for tsn in sack.duplicates) or "none"))
    elif kind == wire.SHUTDOWN:
        words.append(f"cum={other.counted(wire.U32.unpack_from(chunk, 4)[0])}")
    elif kind in (wire.HEARTBEAT, wire.HEARTBEAT_ACK):
        words += [f"info={value.hex()}" for _, value in wire.parse_parameters_untrusted(chunk, 4, len(chunk))]
    elif kind == wire.COOKIE_ECHO:
        words.append("right" if chunk[4:] == PEER_COOKIE else "wrong")
    elif kind in (wire.ABORT, wire.ERROR, wire.SHUTDOWN_COMPLETE):
        words += ["T"] if flags & wire.FLAG_T else ["t=0"]
        causes = wire.parse_parameters_untrusted(chunk, 4, len(chunk))
        words += [f"cause={CAUSES.get(cause, cause)}" for cause, _ in causes]
        words += [f"value={value.hex()}" for _, value in causes]
    return words


def _init_words(chunk: bytes, speaker: Speaker) -> list[str]:
    init = wire.parse_init_untrusted(chunk, 0, len(chunk))
    words = [f"os={init.outbound_streams}", f"is={init.inbound_streams}", f"tsn={speaker.counted(init.initial_tsn)}"]
    words.append("tag=same" if init.tag == speaker.tag else "tag=other")
    reported = []
    zero = "none"
    for kind, value in wire.parse_parameters_untrusted(chunk, 20, len(chunk)):
        if kind == wire.PARAM_UNRECOGNIZED:
            number, length = wire.PARAM_HEADER.unpack_from(value)
            reported.append(f"{number:04x}:{value[4:length].hex()}")
        elif kind == wire.PARAM_ZERO_CHECKSUM:
            zero = str(wire.U32.unpack(value)[0])
    return [*words, f"zero={zero}", "unrecognized=" + (",".join(reported) or "none")]


def _listed(text: str | None) -> list[str]:
    return text.split(",") if text and text != "none" else []
