"""ETSI TS 102 369, groups IMH (invalid messages) and DM (messages that come twice or at the wrong time)."""

from __future__ import annotations

from tests.conformance.script import case
from tests.conformance.steps import ACTIVE, FAST, PASSIVE, PEER_ENDS, WE_END

INVALID = [
    case(
        "IMH-I-3-1",
        "an INIT that is too short is dropped",
        """
        <- {tag=0} CHUNK type=1 value=01020304
        +0.1 <- INIT
        -> INIT-ACK
        """,
    ),
    case(
        "IMH-I-3-2",
        "an INIT-ACK that is too short is dropped",
        """
        call connect
        -> INIT
        <- CHUNK type=2 value=01020304
        +0.1 -> INIT
        """,
        **FAST,
    ),
    case(
        "IMH-I-3-3",
        "COOKIE-ECHO under a wrong verification tag is dropped",
        """
        <- INIT
        -> INIT-ACK
        <- {tag=wrong} COOKIE-ECHO
        state closed idle
        +0.1 <- COOKIE-ECHO
        -> COOKIE-ACK
        told Established
        """,
        WE_END,
    ),
    case(
        "IMH-I-3-4",
        "INIT with a wrong checksum is dropped",
        """
        <- {crc=bad} INIT
        +0.1 <- INIT
        -> INIT-ACK
        """,
    ),
    case(
        "IMH-I-3-5",
        "COOKIE-ECHO with a cookie that we did not make is dropped",
        """
        <- INIT
        -> INIT-ACK
        <- COOKIE-ECHO cookie=01020304010203040102030401020304
        state closed idle
        +0.1 <- COOKIE-ECHO
        -> COOKIE-ACK
        told Established
        """,
        WE_END,
    ),
    case(
        "IMH-I-3-6",
        "a cookie past its lifetime is answered with a stale cookie error; 5 s over are 5,000,000 us",
        """
        <- INIT
        -> INIT-ACK
        +65 <- COOKIE-ECHO
        -> ERROR cause=stale-cookie value=004c4b40
        state closed idle
        """,
    ),
    case(
        "IMH-I-3-7",
        "ABORT under a wrong verification tag is dropped",
        PASSIVE,
        """
        <- {tag=wrong} ABORT
        state established
        """,
        WE_END,
    ),
    case(
        "IMH-I-3-8",
        "an INIT longer than its packet is dropped",
        """
        <- INIT
        -> INIT-ACK
        +1 <- {tag=0} RAW 01000060
        +1 <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE T
        """,
    ),
    case(
        "IMH-I-3-9",
        "SHUTDOWN-ACK under a wrong verification tag in SHUTDOWN-SENT is dropped",
        PASSIVE,
        """
        call shutdown
        -> SHUTDOWN
        <- {tag=wrong} SHUTDOWN-ACK
        +0.1 -> SHUTDOWN
        <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE
        told Closed by us
        """,
        **FAST,
    ),
    case(
        "IMH-I-3-10",
        "SHUTDOWN-COMPLETE under a wrong verification tag in SHUTDOWN-ACK-SENT is dropped",
        PASSIVE,
        """
        <- SHUTDOWN
        -> SHUTDOWN-ACK
        <- {tag=wrong} SHUTDOWN-COMPLETE
        +0.1 -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
        **FAST,
    ),
]

DUPLICATE = [
    case(
        "DM-O-4-1",
        "INIT in COOKIE-WAIT is answered with the tag and the TSN of our own INIT",
        """
        call connect
        -> INIT
        <- INIT
        -> INIT-ACK tag=same tsn=1
        state cookie-wait
        """,
    ),
    case(
        "DM-O-4-2-1",
        "the INIT of the handshake, again, in ESTABLISHED: answered, and the association goes on",
        PASSIVE,
        """
        +0.1 <- INIT
        -> INIT-ACK tag=other
        +0.1 <- HEARTBEAT info=0102030405060708
        -> HEARTBEAT-ACK info=0102030405060708
        """,
        PEER_ENDS,
    ),
    case(
        "DM-O-4-2-2",
        "INIT in SHUTDOWN-ACK-SENT is answered with SHUTDOWN-ACK",
        PASSIVE,
        """
        +1.0 <- SHUTDOWN
        -> SHUTDOWN-ACK
        <- INIT tag=2
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
    ),
    case(
        "DM-O-4-3",
        "INIT-ACK in COOKIE-ECHOED is dropped",
        """
        call connect
        -> INIT
        +0.1 <- INIT-ACK
        -> COOKIE-ECHO right
        +0.1 <- INIT-ACK
        state cookie-echoed
        +0.1 <- COOKIE-ACK
        told Established
        """,
        WE_END,
    ),
    case(
        "DM-O-4-4",
        "COOKIE-ACK in ESTABLISHED is dropped",
        ACTIVE,
        """
        +0.1 <- COOKIE-ACK
        +0.1 call send 1000
        -> DATA BE tsn=1
        +0.1 <- SACK cum=1
        """,
        WE_END,
    ),
    case(
        "DM-O-4-5",
        "SHUTDOWN in SHUTDOWN-SENT is answered with SHUTDOWN-ACK",
        ACTIVE,
        """
        call shutdown
        -> SHUTDOWN
        +0.1 <- SHUTDOWN
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by us
        """,
    ),
    case(
        "DM-O-4-6-1",
        "SHUTDOWN in COOKIE-WAIT is dropped",
        """
        call connect
        -> INIT
        <- SHUTDOWN
        +0.1 -> INIT
        <- INIT-ACK
        -> COOKIE-ECHO right
        <- COOKIE-ACK
        told Established
        """,
        WE_END,
        **FAST,
    ),
    case(
        "DM-O-4-6-2",
        "SHUTDOWN in CLOSED is out of the blue",
        """
        <- {tag=1} SHUTDOWN
        -> ABORT T
        state closed idle
        """,
    ),
    case(
        "DM-O-4-6-3",
        "SHUTDOWN in SHUTDOWN-SENT: SHUTDOWN-ACK, with T2-shutdown begun anew",
        ACTIVE,
        """
        call shutdown
        -> SHUTDOWN
        +0.05 <- SHUTDOWN
        -> SHUTDOWN-ACK
        +0.1 -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by us
        """,
        **FAST,
    ),
    case(
        "DM-O-4-7-1",
        "SHUTDOWN-ACK in COOKIE-WAIT is out of the blue",
        """
        call connect
        -> INIT
        +0.1 <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE T
        state cookie-wait
        """,
    ),
    case(
        "DM-O-4-7-2",
        "SHUTDOWN-ACK in ESTABLISHED is dropped",
        ACTIVE,
        """
        +0.1 <- SHUTDOWN-ACK
        +1.0 <- HEARTBEAT info=010203040506
        -> HEARTBEAT-ACK info=010203040506
        """,
        WE_END,
    ),
    case(
        "DM-O-4-7-3",
        "SHUTDOWN-ACK in SHUTDOWN-ACK-SENT ends it",
        PASSIVE,
        """
        +1.0 <- SHUTDOWN
        -> SHUTDOWN-ACK
        +0.1 <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE t=0
        told Closed by peer
        """,
    ),
    case(
        "DM-O-4-8",
        "COOKIE-ECHO with a forged cookie in ESTABLISHED is dropped",
        ACTIVE,
        """
        <- COOKIE-ECHO cookie=01020203040506070809
        +1.0 <- HEARTBEAT info=010203040506
        -> HEARTBEAT-ACK info=010203040506
        """,
        WE_END,
    ),
    case(
        "DM-O-4-9",
        "SHUTDOWN-COMPLETE in COOKIE-WAIT is dropped",
        """
        call connect
        -> INIT
        <- SHUTDOWN-COMPLETE
        state cookie-wait
        +0.1 -> INIT
        """,
        **FAST,
    ),
    case(
        "DM-O-4-10",
        "DATA in SHUTDOWN-ACK-SENT is dropped",
        PASSIVE,
        """
        <- SHUTDOWN
        -> SHUTDOWN-ACK
        +0.2 <- DATA BE tsn=2 size=1000
        +0.3 -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
    ),
]

CASES = INVALID + DUPLICATE
