"""Offers and answers with one data-channel section.

The text is of RFC 8866, its attributes of RFC 8839 (ICE), 8841 (SCTP), 8842 and 8122 (DTLS), 9143 (BUNDLE).

Only what a data channel needs is understood. Anything else is ignored and never echoed: an attribute in an answer means
consent to it, and consent to something unknown breaks peers. `a=sctp-init` (SNAP, draft-hancke-tsvwg-snap) was such a one.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Literal, TypeAlias

import attrs
import msgspec

from psyne_mesh.errors import ProtocolError
from psyne_mesh.frozen import Frozen

Setup: TypeAlias = Literal["actpass", "active", "passive"]
DtlsVersion: TypeAlias = Literal["1.3", "1.2"]

_DATAGRAM_ATTRIBUTE = "psyne-max-datagram-size"
_EXPRESS_ATTRIBUTE = "psyne-express"
_ANSWERS_ATTRIBUTE = "psyne-answers"
_DTLS_ATTRIBUTE = "psyne-dtls"
DEFAULT_SCTP_PORT = 5000
DEFAULT_MAX_MESSAGE_SIZE = 65_536  # RFC 8841 section 6.1: what the absence of the attribute means

_TEXT_MAX = 65_536  # characters; a Chromium offer with audio, video and 40 candidates has about 12,000
_LINES_MAX = 2_000
_SECTIONS_MAX = 64  # an answer repeats each of them, so this bounds the answer too
_CANDIDATES_MAX = 64  # those after it are ignored: more hosts than that only slow the checks
_FINGERPRINTS_MAX = 16  # those after it are ignored: a match with any one suffices, so this can only refuse
_CANDIDATE_LENGTH_MAX = 512
_SCTP_INIT_MAX = 2_732  # characters: base64 of 2,048 bytes, where browsers write 40 to 56; a longer one counts as none
_SIZE_MAX = 1_000_000_000_000_000_000  # bytes of a message; what is said to be more counts as this
_DIGEST_BYTES = {
    "sha-256": 32,
    "sha-384": 48,
    "sha-512": 64,
}  # older hashes are refused: a collision is a man in the middle
_PROTOCOLS = ("UDP/DTLS/SCTP", "TCP/DTLS/SCTP")  # RFC 8841 section 8.1: with ICE the two name the same thing
_DTLS_VERSIONS: tuple[DtlsVersion, ...] = ("1.3", "1.2")
_SETUPS = ("actpass", "active", "passive")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~/-]{1,256}", re.ASCII)  # RFC 8866 token, and "/" for protocols
_ICE_CHARS = re.compile(r"[A-Za-z0-9+/=_-]+", re.ASCII)  # RFC 8839 section 5.4, and "=_-" that some stacks send
_PRINTABLE = re.compile(r"[ -~]+", re.ASCII)


class Section(Frozen):
    """One m-section, as much of it as an answer has to repeat. `port` 0 means rejected, or bundle-only."""

    kind: str
    port: int
    protocol: str
    fmt: str
    mid: str | None
    bundled: bool = False


DATA_SECTION = Section("application", 9, "UDP/DTLS/SCTP", "webrtc-datachannel", "0", bundled=True)


@attrs.frozen(kw_only=True)
class Description:
    """What one side says about its transport.

    `fingerprints` are lines such as "sha-256 AB:CD:..."; a certificate that matches any of them is the right one.
    `candidates` are lines such as "candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host". `max_message_size` is in
    bytes; 0 means that the writer takes any size. `max_datagram_size` is in bytes of UDP payload, 0 when the writer does
    not tell; `express` is the version of the express lane that the writer knows, 0 for none; `dtls_versions` are those that it
    speaks, none when it does not tell; `answers` is the ICE ufrag of the offer that an answer is to, empty if it does not tell:
    attributes of our own, which others ignore. `sctp_init` is a whole INIT chunk, or
    empty; nothing in it has been looked at. `sections[data_section]` is the m-section of the data channels.
    """

    ice_ufrag: str
    ice_pwd: str = attrs.field(repr=False)
    fingerprints: tuple[str, ...]
    setup: Setup
    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE
    max_datagram_size: int = 0
    express: int = 0
    sctp_port: int = DEFAULT_SCTP_PORT
    sctp_init: bytes = b""
    dtls_versions: tuple[DtlsVersion, ...] = ()
    answers: str = ""
    candidates: tuple[str, ...] = ()
    end_of_candidates: bool = False
    ice_options: tuple[str, ...] = ("trickle",)
    ice_lite: bool = False
    sections: tuple[Section, ...] = (DATA_SECTION,)
    data_section: int = 0

    @property
    def mid(self) -> str | None:
        """The name of the data section, which trickled candidates refer to."""
        return self.sections[self.data_section].mid


def answer_setup(offered: Setup, *, knows_version: bool = True) -> Setup:
    """Our part when the offer says `offered`: active if we may (RFC 8842 section 5.3), so that our ClientHello leaves as soon
    as the offerer's nomination arrives; but passive if the version of DTLS is for a stranger's ClientHello to say."""
    if offered == "actpass":
        return "active" if knows_version else "passive"
    return "passive" if offered == "active" else "active"


def make_offer(local: Description, *, session_id: int, version: int = 1) -> str:
    """The SDP of an offer; `local.setup` should be "actpass" (RFC 8842 section 5.2)."""
    return _write(local, session_id, version)


def make_answer(local: Description, offer: Description, *, session_id: int, version: int = 1) -> str:
    """The SDP that answers `offer`: its data section taken, the others rejected with port 0, in the same order."""
    sections = tuple(
        msgspec.structs.replace(section, port=9)
        if index == offer.data_section
        else msgspec.structs.replace(section, port=0, bundled=False)
        for index, section in enumerate(offer.sections)
    )
    return _write(attrs.evolve(local, sections=sections, data_section=offer.data_section), session_id, version)


def _write(local: Description, session_id: int, version: int) -> str:
    data = local.sections[local.data_section]
    lines = ["v=0", f"o=- {session_id} {version} IN IP4 127.0.0.1", "s=-", "t=0 0"]
    if data.bundled and data.mid is not None:
        lines.append(f"a=group:BUNDLE {data.mid}")
    for index, section in enumerate(local.sections):
        lines.append(f"m={section.kind} {section.port} {section.protocol} {section.fmt}")
        lines.append("c=IN IP4 0.0.0.0")
        if section.mid is not None:
            lines.append(f"a=mid:{section.mid}")
        if index == local.data_section:
            lines += _transport_lines(local)
        elif section.kind in ("audio", "video"):
            lines.append("a=inactive")
    return "\r\n".join(lines) + "\r\n"


def _transport_lines(local: Description) -> list[str]:
    lines = [f"a=ice-ufrag:{local.ice_ufrag}", f"a=ice-pwd:{local.ice_pwd}"]
    if local.ice_options:
        lines.append(f"a=ice-options:{' '.join(local.ice_options)}")
    lines += [f"a=fingerprint:{fingerprint}" for fingerprint in local.fingerprints]
    lines += [f"a=setup:{local.setup}", f"a=sctp-port:{local.sctp_port}"]
    lines.append(f"a=max-message-size:{local.max_message_size}")
    if local.sctp_init:
        lines.append(f"a=sctp-init:{base64.b64encode(local.sctp_init).decode()}")
    if local.max_datagram_size:
        lines.append(f"a={_DATAGRAM_ATTRIBUTE}:{local.max_datagram_size}")
    if local.express:
        lines.append(f"a={_EXPRESS_ATTRIBUTE}:{local.express}")
    if local.dtls_versions:
        lines.append(f"a={_DTLS_ATTRIBUTE}:{' '.join(local.dtls_versions)}")
    if local.answers:
        lines.append(f"a={_ANSWERS_ATTRIBUTE}:{local.answers}")
    lines += [f"a={candidate}" for candidate in local.candidates]
    if local.end_of_candidates:
        lines.append("a=end-of-candidates")
    return lines


# ------------------------------------------------------------------------------------------------------------- reading

_Attributes: TypeAlias = dict[str, list[str]]


def parse_sdp_untrusted(text: object) -> Description:
    """The data-channel part of an offer or an answer. Raises `ProtocolError` when there is none that could be used."""
    if not isinstance(text, str) or len(text) > _TEXT_MAX:
        raise ProtocolError(f"an SDP is text of at most {_TEXT_MAX} characters")
    session, sections, attributes = _split_untrusted(text)
    at = _data_section(sections, attributes)
    group = next((value.split()[1:] for value in session.get("group", ()) if value.startswith("BUNDLE ")), [])
    # A bundle-only section may leave its transport to the section that the group names first (RFC 9143 section 7.1.3).
    tagged = next((found for s, found in zip(sections, attributes) if group and s.mid == group[0]), {})
    transport = _Transport(attributes[at], session, tagged)
    lines = transport.all("candidate")[:_CANDIDATES_MAX]
    return Description(
        ice_ufrag=transport.ice("ice-ufrag", 4),
        ice_pwd=transport.ice("ice-pwd", 22),
        fingerprints=_fingerprints_untrusted(transport.all("fingerprint")),
        setup=_setup_untrusted(transport.first("setup")),
        max_message_size=_size_untrusted(attributes[at], "max-message-size", DEFAULT_MAX_MESSAGE_SIZE),
        max_datagram_size=_number_untrusted(attributes[at], _DATAGRAM_ATTRIBUTE, 0, 65_535),
        express=_number_untrusted(attributes[at], _EXPRESS_ATTRIBUTE, 0, 65_535),
        sctp_port=_number_untrusted(attributes[at], "sctp-port", DEFAULT_SCTP_PORT, 65_535),
        sctp_init=_sctp_init_untrusted(attributes[at]),
        dtls_versions=_dtls_versions_untrusted(attributes[at]),
        answers=next((said for said in attributes[at].get(_ANSWERS_ATTRIBUTE, ()) if _ICE_CHARS.fullmatch(said)), ""),
        candidates=tuple(
            f"candidate:{line}" for line in lines if len(line) <= _CANDIDATE_LENGTH_MAX and _PRINTABLE.fullmatch(line)
        ),
        end_of_candidates=bool(transport.all("end-of-candidates")),
        ice_options=tuple(option for option in transport.first("ice-options").split()[:16] if _TOKEN.fullmatch(option)),
        ice_lite="ice-lite" in session,
        sections=tuple(msgspec.structs.replace(s, bundled=s.mid is not None and s.mid in group) for s in sections),
        data_section=at,
    )


def _split_untrusted(text: str) -> tuple[_Attributes, list[Section], list[_Attributes]]:
    """The session's attributes; the m-sections; each section's attributes."""
    lines = text.split("\n", _LINES_MAX)
    if len(lines) > _LINES_MAX or lines[0].strip() != "v=0":
        raise ProtocolError("not an SDP: it starts with v=0 and has a bounded number of lines (RFC 8866 section 5)")
    session: _Attributes = {}
    sections: list[Section] = []
    attributes: list[_Attributes] = []
    current = session
    for line in lines:
        line = line.rstrip("\r ")
        if line.startswith("m="):
            if len(sections) >= _SECTIONS_MAX:
                raise ProtocolError(f"more than {_SECTIONS_MAX} media sections")
            sections.append(_section_untrusted(line))
            current = {}
            attributes.append(current)
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            current.setdefault(name, []).append(value)
    for at, (section, found) in enumerate(zip(sections, attributes)):
        if found.get("mid"):
            sections[at] = msgspec.structs.replace(section, mid=_token_untrusted(found["mid"][0], "mid"))
    return session, sections, attributes


def _section_untrusted(line: str) -> Section:
    parts = line[2:].split()
    if len(parts) < 4:
        raise ProtocolError("a media line has four parts (RFC 8866 section 5.14)")
    kind, port, protocol, fmt = parts[:4]
    number = port.partition("/")[0]
    if not (number.isascii() and number.isdigit() and len(number) <= 5 and int(number) <= 65_535):
        raise ProtocolError("a media line holds no port")
    return Section(
        _token_untrusted(kind, "media"),
        int(number),
        _token_untrusted(protocol, "protocol"),
        _token_untrusted(fmt, "format"),
        None,
    )


def _data_section(sections: list[Section], attributes: list[_Attributes]) -> int:
    rejected = False
    for at, (section, found) in enumerate(zip(sections, attributes)):
        if section.kind == "application" and section.protocol in _PROTOCOLS and section.fmt == "webrtc-datachannel":
            if section.port or "bundle-only" in found:
                return at
            rejected = True
    raise ProtocolError("data channels were rejected (port 0)" if rejected else "there is no data-channel section")


class _Transport:
    """Looks attributes up where they may stand: in the section, in the session, in the section leading the bundle."""

    def __init__(self, *levels: _Attributes) -> None:
        self._levels = levels

    def all(self, name: str) -> list[str]:
        return next((level[name] for level in self._levels if name in level), [])

    def first(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    def ice(self, name: str, shortest: int) -> str:
        value = self.first(name)
        if not (shortest <= len(value) <= 256 and _ICE_CHARS.fullmatch(value)):
            raise ProtocolError(f"{name} is {shortest} to 256 ice-chars (RFC 8839 section 5.4)")
        return value


def _fingerprints_untrusted(lines: list[str]) -> tuple[str, ...]:
    good = []
    for line in lines[:_FINGERPRINTS_MAX]:
        algorithm, _, value = line.strip().partition(" ")
        algorithm, digits = algorithm.lower(), value.strip().upper().split(":")
        if algorithm not in _DIGEST_BYTES:
            continue  # RFC 8122 section 5: several lines may stand for several hashes; those unknown are passed over
        if len(digits) != _DIGEST_BYTES[algorithm] or not all(re.fullmatch("[0-9A-F]{2}", pair) for pair in digits):
            raise ProtocolError(f"a {algorithm} fingerprint is {_DIGEST_BYTES[algorithm]} pairs of hex digits")
        good.append(f"{algorithm} {':'.join(digits)}")
    if not good:
        raise ProtocolError("there is no fingerprint of sha-256, sha-384 or sha-512")
    return tuple(good)


def _setup_untrusted(value: str) -> Setup:
    for setup in _SETUPS:
        if value.strip() == setup:
            return setup  # type: ignore[return-value]  # the tuple holds the literals of Setup
    raise ProtocolError("a=setup is none of actpass, active and passive (RFC 8842 section 5)")


def _size_untrusted(attributes: _Attributes, name: str, default: int) -> int:
    """RFC 8841 section 6.1 sets no limit: what no memory holds is as good as the next."""
    text = attributes[name][0].strip() if name in attributes else ""
    if text.isascii() and text.isdigit() and len(text) >= len(str(_SIZE_MAX)):
        return _SIZE_MAX
    return _number_untrusted(attributes, name, default, _SIZE_MAX)


def _number_untrusted(attributes: _Attributes, name: str, default: int, largest: int) -> int:
    text = attributes[name][0].strip() if name in attributes else ""
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= largest):
        raise ProtocolError(f"a={name} is a number up to {largest}")
    return int(text)


def _dtls_versions_untrusted(attributes: _Attributes) -> tuple[DtlsVersion, ...]:
    """Those that we know of; a later program may name others."""
    said = attributes.get(_DTLS_ATTRIBUTE, [""])[0].split()
    return tuple(version for version in _DTLS_VERSIONS if version in said)


def _sctp_init_untrusted(attributes: _Attributes) -> bytes:
    """Without a usable one SCTP shakes hands as ever: no reason to refuse a description."""
    text = attributes.get("sctp-init", [""])[0].strip()
    if len(text) > _SCTP_INIT_MAX:
        return b""
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""


def _token_untrusted(text: str, what: str) -> str:
    if not _TOKEN.fullmatch(text.strip()):
        raise ProtocolError(f"the {what} of a media section is no token (RFC 8866 section 9)")
    return text.strip()
