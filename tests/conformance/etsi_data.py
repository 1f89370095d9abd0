"""ETSI TS 102 369, groups D (data), A (acknowledgement), M (unknown chunks) and RT (retransmission timer)."""

from __future__ import annotations

from tests.conformance.etsi_setup import MULTIHOMING
from tests.conformance.script import NotApplicable, case
from tests.conformance.steps import ACTIVE, FAST, PASSIVE, PEER_ENDS, WE_END

BACK_OFF = """
    call send 1000
    -> DATA BE tsn=1
    +0.1 -> DATA BE tsn=1
    +0.2 -> DATA BE tsn=1
    +0.4 -> DATA BE tsn=1
    +0.8 -> DATA BE tsn=1
    +0.8 -> DATA BE tsn=1
"""

DATA = [
    case(
        "D-V-8-1",
        "a message that just fits goes in one chunk",
        ACTIVE,
        """
        call send 1452
        -> DATA BE tsn=1 sid=0 ssn=0 size=1452
        <- SACK cum=1
        """,
    ),
    case(
        "D-V-8-2",
        "a longer message is cut, and its rest waits for the window",
        ACTIVE,
        """
        call send 2000
        -> DATA B tsn=1 ssn=0 size=1452
        <- SACK cum=1
        -> DATA E tsn=2 ssn=0 size=548
        <- SACK cum=2
        """,
    ),
    case(
        "D-V-8-3",
        "three fragments make one message",
        ACTIVE,
        """
        <- DATA B tsn=1
        -> SACK cum=1
        <- DATA - tsn=2
        <- DATA E tsn=3
        -> SACK cum=3
        told Message 300
        """,
    ),
    case(
        "D-V-8-4",
        "a SACK stops T3-rtx for what it acknowledges",
        ACTIVE,
        """
        call send 1000
        -> DATA BE tsn=1 ssn=0
        <- SACK cum=1
        call send 1000
        -> DATA BE tsn=2 ssn=1
        +0.1 -> DATA BE tsn=2 ssn=1
        """,
        **FAST,
    ),
    case(
        "D-I-8-5",
        "data is sent again when T3-rtx expires",
        ACTIVE,
        """
        call send 1000
        -> DATA BE tsn=1
        +0.1 -> DATA BE tsn=1
        """,
        **FAST,
    ),
    case(
        "D-O-8-6",
        "a duplicate is acknowledged at once and named, and is not delivered",
        ACTIVE,
        """
        <- DATA BE tsn=1
        -> SACK cum=1 dups=none
        told Message 100
        +0.1 <- DATA BE tsn=2 ssn=1
        told Message 100
        +0.1 <- DATA BE tsn=2 ssn=1
        -> SACK cum=2 gaps=none dups=2
        +0.1 <- DATA BE tsn=3 ssn=2
        told Message 100
        +0.2 -> SACK cum=3 gaps=none dups=none
        """,
    ),
    case(
        "D-O-8-7",
        "a closed window is probed with one chunk, with back-off while nothing is heard",
        ACTIVE,
        """
        call send 1452
        -> DATA BE tsn=1
        <- SACK cum=1 a_rwnd=0
        call send 1452
        -> DATA BE tsn=2 ssn=1
        call send 1452
        +0.1 -> DATA BE tsn=2
        +0.2 -> DATA BE tsn=2
        <- SACK cum=2 a_rwnd=1500
        -> DATA BE tsn=3 ssn=2
        <- SACK cum=3
        """,
        **FAST,
    ),
    case(
        "D-O-8-8",
        "the probe may be a fragment; when the window opens it is repeated without waiting for T3-rtx",
        ACTIVE,
        """
        call send 3000
        -> DATA B tsn=1 size=1452
        <- SACK cum=1 a_rwnd=0
        -> DATA middle tsn=2 size=1452
        <- SACK cum=1 a_rwnd=0
        +0.1 -> DATA middle tsn=2
        <- SACK cum=1 a_rwnd=0
        +0.2 -> DATA middle tsn=2
        <- SACK cum=1 a_rwnd=0
        +0.2 <- SACK cum=1 a_rwnd=1500
        -> DATA middle tsn=2
        <- SACK cum=2 a_rwnd=1500
        -> DATA E tsn=3 size=96
        <- SACK cum=3
        """,
        **FAST,
    ),
    case(
        "D-V-8-9",
        "what was lost is sent before what is new",
        """
        call connect
        -> INIT
        <- INIT-ACK a_rwnd=5000
        -> COOKIE-ECHO right
        <- COOKIE-ACK
        told Established
        call send 1452
        -> DATA BE tsn=1
        +0.1 -> DATA BE tsn=1
        <- SACK cum=1 a_rwnd=4400
        call send 1452
        -> DATA BE tsn=2
        call send 1452
        -> DATA BE tsn=3
        call send 1452
        -> DATA BE tsn=4
        call send 1452
        +0.2 -> DATA BE tsn=2
        -> DATA BE tsn=3
        <- SACK cum=3 a_rwnd=5000
        -> DATA BE tsn=4
        -> DATA BE tsn=5
        """,
        **FAST,
    ),
    case(
        "D-I-8-11",
        "DATA without user data ends the association",
        ACTIVE,
        """
        <- DATA BE tsn=1 size=0
        -> ABORT t=0 cause=no-user-data value=fffffffe
        told Closed by us
        """,
    ),
    case(
        "D-O-8-12",
        "an outdated SACK changes nothing",
        ACTIVE,
        """
        call send 1000
        -> DATA BE tsn=1
        <- SACK cum=1
        call send 1000
        -> DATA BE tsn=2
        <- SACK cum=0 gaps=2-2
        +0.1 -> DATA BE tsn=2
        <- SACK cum=2
        """,
        **FAST,
    ),
]

ACKNOWLEDGEMENT = [
    case(
        "A-V-9-1",
        "the first DATA is acknowledged at once",
        PASSIVE,
        """
        <- DATA BE tsn=1
        -> SACK cum=1 gaps=none dups=none
        told Message 100
        """,
        PEER_ENDS,
    ),
    case(
        "A-V-9-2",
        "one SACK for several chunks of a packet",
        PASSIVE,
        """
        <- DATA BE tsn=1 / DATA BE tsn=2 ssn=1 / DATA BE tsn=3 ssn=2
        -> SACK cum=3 gaps=none dups=none
        """,
        "told Message 100\n" * 3,
        PEER_ENDS,
    ),
    case(
        "A-O-9-3",
        "a gap is reported at once, and so is its end",
        PASSIVE,
        """
        <- DATA BE tsn=1
        -> SACK cum=1
        told Message 100
        <- DATA BE tsn=3 ssn=2
        -> SACK cum=1 gaps=2-2 dups=none
        <- DATA BE tsn=2 ssn=1
        -> SACK cum=3 gaps=none dups=none
        told Message 100
        told Message 100
        """,
        PEER_ENDS,
    ),
]

UNKNOWN_CHUNKS = [
    case(
        identifier,
        what,
        ACTIVE,
        f"+0.1 <- CHUNK type={kind:#x} value=01 / DATA BE tsn=1 size=1000",
        f"-> {answer}" if answer else "",
        "told Message 1000" if "SACK" in answer else "",
        WE_END,
    )
    for identifier, what, kind, answer in (
        (
            "M-I-10-1",
            "unknown chunk, bits 11: skip and report",
            0xEF,
            "ERROR cause=unrecognized-chunk value=ef00000501 / SACK cum=1",
        ),
        ("M-I-10-2", "unknown chunk, bits 00: drop the rest, do not report", 0x2F, ""),
        (
            "M-I-10-3",
            "unknown chunk, bits 01: drop the rest and report",
            0x6F,
            "ERROR cause=unrecognized-chunk value=6f00000501",
        ),
        ("M-I-10-4", "unknown chunk, bits 10: skip, do not report", 0xAF, "SACK cum=1"),
    )
]

TIMER = [
    case("RT-I-11-1", "T3-rtx doubles with every expiry, up to RTO.Max", ACTIVE, BACK_OFF, **FAST),
    case("RT-I-11-2", "the same on the side that was asked", PASSIVE, BACK_OFF, **FAST),
]

CASES = DATA + ACKNOWLEDGEMENT + UNKNOWN_CHUNKS + TIMER

_MESSAGE_SIZE = "message size: limited by data channels, see tests/webrtc/test_stack.py"

NOT_APPLICABLE = [
    NotApplicable("D-V-8-10", MULTIHOMING),
    NotApplicable("D-V-8-13", _MESSAGE_SIZE),
    NotApplicable("D-V-8-14", _MESSAGE_SIZE),
    NotApplicable("D-V-8-15", _MESSAGE_SIZE),
    NotApplicable("RT-I-11-3", MULTIHOMING),
]
