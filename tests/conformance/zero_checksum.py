"""The cases of the IETF's packetdrill tests for zero checksums, now RFC 9653."""

from __future__ import annotations

from tests.conformance.script import NotApplicable, case

WE_END_AND_MAY_SEND_ZERO = """
    call shutdown
    -> {crc=zero} SHUTDOWN
    <- {crc=zero} SHUTDOWN-ACK
    -> {crc=any} SHUTDOWN-COMPLETE
    told Closed by us
"""
WE_END_WITH_CHECKSUM = """
    call shutdown
    -> SHUTDOWN
    <- {crc=zero} SHUTDOWN-ACK
    -> SHUTDOWN-COMPLETE
    told Closed by us
"""

CASES = [
    case(
        "ZC-01",
        "client: the peer would take zero, we have not the feature: every packet has its checksum",
        """
        call connect
        -> INIT zero=none
        <- INIT-ACK zero=1
        -> COOKIE-ECHO right
        <- COOKIE-ACK
        told Established
        call shutdown
        -> SHUTDOWN
        <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE
        told Closed by us
        """,
        zero_checksum=False,
    ),
    case(
        "ZC-02",
        "client: the peer names another error detection method: every packet has its checksum",
        """
        call connect
        -> INIT zero=1
        <- INIT-ACK zero=0
        -> COOKIE-ECHO right
        <- COOKIE-ACK
        told Established
        """,
        WE_END_WITH_CHECKSUM,
    ),
    case(
        "ZC-03",
        "client: both sides take zero: all but INIT and COOKIE-ECHO go without",
        """
        call connect
        -> INIT zero=1
        <- {crc=zero} INIT-ACK zero=1
        -> COOKIE-ECHO right
        <- {crc=zero} COOKIE-ACK
        told Established
        """,
        WE_END_AND_MAY_SEND_ZERO,
    ),
    case(
        "ZC-04",
        "client: we take zero although the peer does not",
        """
        call connect
        -> INIT zero=1
        <- {crc=zero} INIT-ACK
        -> COOKIE-ECHO right
        <- {crc=zero} COOKIE-ACK
        told Established
        """,
        WE_END_WITH_CHECKSUM,
    ),
    case(
        "ZC-05",
        "client: a checksum that is neither zero nor right is dropped all the same",
        """
        call connect
        -> INIT zero=1
        <- {crc=zero} INIT-ACK
        -> COOKIE-ECHO right
        <- {crc=bad} COOKIE-ACK
        +0.5 -> COOKIE-ECHO right
        <- {crc=zero} COOKIE-ACK
        told Established
        """,
        WE_END_WITH_CHECKSUM,
    ),
    case(
        "ZC-07",
        "server: the peer would take zero, we have not the feature: every packet has its checksum",
        """
        <- INIT zero=1
        -> INIT-ACK zero=none
        <- COOKIE-ECHO
        -> COOKIE-ACK
        told Established
        call shutdown
        -> SHUTDOWN
        <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE
        told Closed by us
        """,
        zero_checksum=False,
    ),
    case(
        "ZC-08",
        "server: both sides take zero, but no COOKIE-ECHO without its checksum",
        """
        <- INIT zero=1
        -> {crc=any} INIT-ACK zero=1
        <- {crc=zero} COOKIE-ECHO
        state closed idle
        +1.0 <- COOKIE-ECHO
        -> {crc=zero} COOKIE-ACK
        told Established
        """,
        WE_END_AND_MAY_SEND_ZERO,
    ),
    case(
        "ZC-09",
        "server: we take zero although the peer does not",
        """
        <- INIT
        -> INIT-ACK zero=1
        <- COOKIE-ECHO
        -> COOKIE-ACK
        told Established
        """,
        WE_END_WITH_CHECKSUM,
    ),
    case(
        "ZC-11",
        "server: zero is refused where it was not offered when the cookie was made",
        """
        <- INIT zero=1
        -> INIT-ACK zero=none
        <- COOKIE-ECHO
        -> COOKIE-ACK
        told Established
        call shutdown
        -> SHUTDOWN
        <- {crc=zero} SHUTDOWN-ACK
        +0.5 -> SHUTDOWN
        <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE
        told Closed by us
        """,
        zero_checksum=False,
    ),
    case(
        "ZC-12",
        "out of the blue: zero is taken from anybody, answers have their checksum",
        """
        call connect
        -> INIT zero=1
        <- {crc=zero} INIT-ACK zero=1
        -> COOKIE-ECHO right
        <- {crc=zero} COOKIE-ACK
        told Established
        call abort
        -> {crc=any} ABORT t=0 cause=user-abort
        told Closed by us
        +1.0 <- {crc=zero} SHUTDOWN
        -> ABORT T
        +1.0 <- {crc=zero} SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE T
        +1.0 <- SHUTDOWN
        -> ABORT T
        +1.0 <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE T
        """,
    ),
]

_TOGGLED = "sockets API: the option is changed in the middle of a handshake; ours is fixed at construction"

NOT_APPLICABLE = [
    NotApplicable("ZC-06", _TOGGLED),
    NotApplicable("ZC-10", _TOGGLED),
    NotApplicable("ZC-13", "alternative: an implementation does as ZC-12 or as ZC-13"),
]
