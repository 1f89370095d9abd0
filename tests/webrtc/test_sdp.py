"""Offers and answers: what browsers write, what others write, and what nobody should."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.webrtc.sdp import (
    DATA_SECTION,
    Description,
    Section,
    answer_setup,
    make_answer,
    make_offer,
    parse_sdp_untrusted,
)

SHA256 = "sha-256 " + ":".join(["AB"] * 32)
LOCAL = Description(
    ice_ufrag="uFrg",
    ice_pwd="p" * 22,
    fingerprints=(SHA256,),
    setup="actpass",
    max_message_size=262_144,
    max_datagram_size=65_507,
    sctp_init=bytes(20),
    candidates=("candidate:1 1 udp 2130706431 192.0.2.7 40000 typ host",),
    end_of_candidates=True,
)

CHROMIUM_OFFER = (
    "v=0\r\n"
    "o=- 4611731400430051336 2 IN IP4 127.0.0.1\r\n"
    "s=-\r\n"
    "t=0 0\r\n"
    "a=group:BUNDLE 0\r\n"
    "a=extmap-allow-mixed\r\n"
    "a=msid-semantic: WMS\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
    "c=IN IP4 0.0.0.0\r\n"
    "a=candidate:111 1 udp 2113937151 0b1c2d3e-0000-4000-8000-000000000000.local 51000 typ host generation 0\r\n"
    "a=candidate:222 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0\r\n"
    "a=ice-ufrag:Ab+/\r\n"
    "a=ice-pwd:0123456789abcdefghijklmn\r\n"
    "a=ice-options:trickle\r\n"
    f"a=fingerprint:{SHA256}\r\n"
    "a=setup:actpass\r\n"
    "a=mid:0\r\n"
    "a=sctp-port:5000\r\n"
    "a=max-message-size:262144\r\n"
    "a=sctp-init:AQAAAFU=\r\n"
)
FIREFOX_OFFER = (
    "v=0\r\n"
    "o=mozilla...THIS_IS_SDPARTA-99.0 3055498017012345678 0 IN IP4 0.0.0.0\r\n"
    "s=-\r\n"
    "t=0 0\r\n"
    "a=sendrecv\r\n"
    f"a=fingerprint:{SHA256}\r\n"
    "a=group:BUNDLE 0\r\n"
    "a=ice-options:trickle\r\n"
    "a=msid-semantic:WMS *\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
    "c=IN IP4 0.0.0.0\r\n"
    "a=sendrecv\r\n"
    "a=end-of-candidates\r\n"
    "a=ice-pwd:ffffffffffffffffffffffffffffffff\r\n"
    "a=ice-ufrag:0f0f0f0f\r\n"
    "a=mid:0\r\n"
    "a=setup:actpass\r\n"
    "a=sctp-port:5000\r\n"
    "a=max-message-size:1073741823\r\n"
)
WITH_MEDIA = (
    "v=0\no=- 1 1 IN IP4 0.0.0.0\ns=-\nt=0 0\na=group:BUNDLE au data\na=ice-lite\n"
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\nc=IN IP4 0.0.0.0\na=mid:au\na=ice-ufrag:bndl\na=ice-pwd:" + "b" * 24 + "\n"
    f"a=fingerprint:{SHA256}\na=setup:active\na=rtpmap:111 opus/48000/2\na=candidate:1 1 udp 1 192.0.2.1 5 typ host\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:vid\n"
    "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\na=bundle-only\na=mid:data\n"
)


def test_our_offer_reads_back_as_it_was_written() -> None:
    text = make_offer(LOCAL, session_id=7)
    assert parse_sdp_untrusted(text) == LOCAL
    assert text.endswith("\r\n")
    assert "\n\n" not in text.replace("\r", "")
    for line in (
        "a=group:BUNDLE 0",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "a=sctp-port:5000",
        "a=max-message-size:262144",
        "a=setup:actpass",
        "a=ice-options:trickle",
        f"a=fingerprint:{SHA256}",
        "a=end-of-candidates",
    ):
        assert line in text.split("\r\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CHROMIUM_OFFER, {"ice_ufrag": "Ab+/", "max_message_size": 262_144, "end_of_candidates": False, "mid": "0"}),
        (FIREFOX_OFFER, {"ice_ufrag": "0f0f0f0f", "max_message_size": 1_073_741_823, "end_of_candidates": True}),
        (WITH_MEDIA, {"ice_ufrag": "bndl", "setup": "active", "mid": "data", "ice_lite": True, "data_section": 2}),
    ],
    ids=["chromium", "firefox", "bundled behind audio"],
)
def test_offers_of_browsers(text: str, expected: dict[str, object]) -> None:
    parsed = parse_sdp_untrusted(text)
    assert {name: getattr(parsed, name) for name in expected} == expected
    assert parsed.fingerprints == (SHA256,)


def test_candidates_come_as_lines_for_ice() -> None:
    parsed = parse_sdp_untrusted(CHROMIUM_OFFER)
    assert [line.split()[7] for line in parsed.candidates] == ["host", "host"]
    assert all(line.startswith("candidate:") for line in parsed.candidates)


def test_an_answer_takes_the_data_section_and_rejects_the_others() -> None:
    offer = parse_sdp_untrusted(WITH_MEDIA)
    answer = make_answer(attrs.evolve(LOCAL, setup=answer_setup(offer.setup)), offer, session_id=1)
    assert [line for line in answer.split("\r\n") if line.startswith(("m=", "a=mid", "a=group", "a=setup"))] == [
        "a=group:BUNDLE data",
        "m=audio 0 UDP/TLS/RTP/SAVPF 111",
        "a=mid:au",
        "m=video 0 UDP/TLS/RTP/SAVPF 96",
        "a=mid:vid",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "a=mid:data",
        "a=setup:passive",
    ]
    assert parse_sdp_untrusted(answer).data_section == 2


@pytest.mark.parametrize("offer", [CHROMIUM_OFFER, FIREFOX_OFFER], ids=["chromium", "firefox"])
def test_nothing_unknown_is_echoed(offer: str) -> None:
    """An answer with a=sctp-init would promise SNAP: libdatachannel#1620."""
    answer = make_answer(attrs.evolve(LOCAL, setup="active", sctp_init=b""), parse_sdp_untrusted(offer), session_id=1)
    known = {"group", "mid", "ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup", "sctp-port",
             "max-message-size", "psyne-max-datagram-size", "candidate", "end-of-candidates"}  # fmt: skip
    assert {line[2:].partition(":")[0] for line in answer.split("\r\n") if line.startswith("a=")} == known


def test_an_offer_without_mid_is_answered_without_mid() -> None:
    offer = parse_sdp_untrusted(CHROMIUM_OFFER.replace("a=mid:0\r\n", "").replace("a=group:BUNDLE 0\r\n", ""))
    answer = make_answer(attrs.evolve(LOCAL, setup="active"), offer, session_id=1)
    assert "a=mid" not in answer
    assert "a=group" not in answer


@pytest.mark.parametrize(("offered", "ours"), [("actpass", "active"), ("passive", "active"), ("active", "passive")])
def test_dtls_roles(offered: str, ours: str) -> None:
    assert answer_setup(offered) == ours  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("", 65_536),
        ("a=max-message-size:0\r\n", 0),
        ("a=max-message-size:100000000000\r\n", 10**11),
        (f"a=max-message-size:{2**64 - 1}\r\n", 10**18),
        (f"a=max-message-size:{'9' * 5000}\r\n", 10**18),
    ],
    ids=["absent is 64 KiB", "0 is no limit", "large", "more than any memory", "more than int() reads"],
)
def test_max_message_size(line: str, size: int) -> None:
    text = CHROMIUM_OFFER.replace("a=max-message-size:262144\r\n", line)
    assert parse_sdp_untrusted(text).max_message_size == size


def test_several_fingerprints_and_hashes() -> None:
    lines = [
        "sha-1 " + ":".join(["00"] * 20),
        "SHA-384 " + ":".join(["ef"] * 48),
        "sha-512 " + ":".join(["01"] * 64),
        "sha-999 zz",
    ]
    text = CHROMIUM_OFFER + "".join(f"a=fingerprint:{line}\r\n" for line in lines)
    algorithms = [line.split()[0] for line in parse_sdp_untrusted(text).fingerprints]
    assert algorithms == ["sha-256", "sha-384", "sha-512"]
    assert parse_sdp_untrusted(text).fingerprints[1].endswith("EF:EF")


def test_the_section_overrides_the_session() -> None:
    text = FIREFOX_OFFER.replace("a=mid:0\r\n", f"a=mid:0\r\na=fingerprint:sha-256 {':'.join(['11'] * 32)}\r\n")
    assert parse_sdp_untrusted(text).fingerprints == ("sha-256 " + ":".join(["11"] * 32),)


@pytest.mark.parametrize(
    "change",
    [
        ("v=0", "v=1"),
        ("webrtc-datachannel", "5000"),
        ("application 9", "application 0"),
        ("application 9", "application 99999"),
        ("application 9", "application x"),
        ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "m=application 9"),
        ("a=setup:actpass", "a=setup:holdconn"),
        ("a=setup:actpass", "a=x"),
        ("a=ice-ufrag:Ab+/", "a=ice-ufrag:a"),
        ("a=ice-ufrag:Ab+/", "a=ice-ufrag:a b c"),
        ("a=ice-ufrag:Ab+/\r\n", ""),
        ("a=ice-pwd:0123456789abcdefghijklmn", "a=ice-pwd:short"),
        ("a=fingerprint:sha-256 AB", "a=fingerprint:sha-256 G0"),
        ("a=fingerprint:sha-256 AB:", "a=fingerprint:sha-256 "),
        ("a=fingerprint:sha-256", "a=fingerprint:sha-1"),
        ("a=sctp-port:5000", "a=sctp-port:70000"),
        ("a=max-message-size:262144", "a=max-message-size:-1"),
        ("a=max-message-size:262144", "a=max-message-size:\u0663"),
        ("a=mid:0", "a=mid:0 0"),
    ],
    ids=lambda change: repr(change[1]),
)
def test_what_cannot_be_used_is_one_error(change: tuple[str, str]) -> None:
    assert change[0] in CHROMIUM_OFFER
    with pytest.raises(ProtocolError):
        parse_sdp_untrusted(CHROMIUM_OFFER.replace(*change))


def test_limits() -> None:
    for text in (
        CHROMIUM_OFFER + "a=x:" + "y" * 70_000,
        CHROMIUM_OFFER + "a=x\n" * 3_000,
        CHROMIUM_OFFER + "m=audio 9 RTP/AVP 0\n" * 70,
        None,
        b"v=0",
    ):
        with pytest.raises(ProtocolError):
            parse_sdp_untrusted(text)
    many = CHROMIUM_OFFER + "".join(f"a=candidate:{n} 1 udp 1 192.0.2.1 {n + 1} typ host\r\n" for n in range(200))
    assert len(parse_sdp_untrusted(many).candidates) == 64
    bad = CHROMIUM_OFFER + "a=candidate:" + "x" * 600 + "\r\na=candidate:\x07bell\r\n"
    assert len(parse_sdp_untrusted(bad).candidates) == 2


def _usable_or_refused(text: object) -> None:
    try:
        parsed = parse_sdp_untrusted(text)
    except ProtocolError:
        return
    answer = make_answer(attrs.evolve(LOCAL, setup=answer_setup(parsed.setup)), parsed, session_id=1)
    again = parse_sdp_untrusted(answer)
    assert len(again.sections) == len(parsed.sections)
    assert again.mid == parsed.mid


@given(st.text())
def test_any_text(text: str) -> None:
    _usable_or_refused(text)


@given(st.sampled_from([CHROMIUM_OFFER, FIREFOX_OFFER, WITH_MEDIA]), st.data())
def test_browser_offers_with_damage(text: str, data: st.DataObject) -> None:
    lines = text.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "repeat", "damage"])):
            case "drop":
                del lines[at]
            case "repeat":
                lines.insert(at, data.draw(st.sampled_from(lines)))
            case _:
                cut = data.draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:cut] + data.draw(st.text(max_size=8)) + lines[at][cut + 1 :]
    _usable_or_refused("\r\n".join(lines))


def test_the_usual_section() -> None:
    assert Section("application", 9, "UDP/DTLS/SCTP", "webrtc-datachannel", "0", True) == DATA_SECTION
