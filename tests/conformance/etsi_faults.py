"""ETSI TS 102 369, groups FH (faults), E (errors) and BDC (bundling of data with control chunks)."""

from __future__ import annotations

from typing import Any

from tests.conformance.script import NotApplicable, case
from tests.conformance.steps import ACTIVE, GONE, PASSIVE, PEER_ENDS, WE_END

SHORT: dict[str, Any] = {"rto_initial_s": 0.1, "rto_min_s": 0.05, "rto_max_s": 0.2}

FAULTS = [
    case(
        "FH-I-5-1-1",
        "data is repeated Association.Max.Retrans times, then the peer counts as gone",
        PASSIVE,
        """
        call send 1000
        -> DATA BE tsn=1
        +0.1 -> DATA BE tsn=1
        """,
        "+0.2 -> DATA BE tsn=1\n" * 9,
        """
        +0.2 -> ABORT t=0
        told Closed by us
        """,
        GONE,
        **SHORT,
    ),
    case(
        "FH-I-5-1-2",
        "an acknowledgement sets the count of expiries back to zero",
        PASSIVE,
        """
        call send 1000
        -> DATA BE tsn=1
        +0.1 -> DATA BE tsn=1
        +0.2 -> DATA BE tsn=1
        +0.2 -> DATA BE tsn=1
        <- SACK cum=1
        call send 1000
        -> DATA BE tsn=2
        """,
        "+0.2 -> DATA BE tsn=2\n" * 10,
        """
        +0.2 -> ABORT t=0
        told Closed by us
        """,
        GONE,
        **SHORT,
    ),
    case(
        "FH-V-5-2",
        "HEARTBEAT comes back as it was",
        PASSIVE,
        """
        <- HEARTBEAT info=01020304
        -> HEARTBEAT-ACK info=01020304
        """,
        PEER_ENDS,
    ),
    case("FH-O-5-3-1", "DATA out of the blue is answered with ABORT", "<- {tag=1} DATA BE size=1000", "-> ABORT T"),
    case(
        "FH-O-5-3-2",
        "ABORT out of the blue is not answered",
        """
        <- {tag=1} ABORT
        <- {tag=1} SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE T
        """,
    ),
    case(
        "FH-O-5-3-3",
        "SHUTDOWN-ACK out of the blue is answered with SHUTDOWN-COMPLETE",
        "<- {tag=1} SHUTDOWN-ACK",
        "-> SHUTDOWN-COMPLETE T",
    ),
    case(
        "FH-O-5-3-4",
        "SHUTDOWN-COMPLETE out of the blue is not answered",
        """
        <- {tag=1} SHUTDOWN-COMPLETE
        <- {tag=2} SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE T
        """,
    ),
]

ERRORS = [
    case(
        "E-O-6-1",
        "a stale cookie error in COOKIE-ECHOED: a new INIT",
        """
        call connect
        -> INIT
        +0.2 <- INIT-ACK
        -> COOKIE-ECHO right
        +0.2 <- ERROR cause=stale-cookie value=000f4240
        -> INIT tag=same
        state cookie-wait
        """,
    ),
    case(
        "E-O-6-2",
        "a stale cookie error in ESTABLISHED changes nothing",
        ACTIVE,
        """
        <- ERROR cause=stale-cookie value=000f4240
        +0.1 <- DATA BE tsn=1 size=1000
        -> SACK cum=1
        told Message 1000
        """,
        WE_END,
    ),
    case(
        "E-I-6-3",
        "DATA on a stream that does not exist is acknowledged and reported",
        ACTIVE,
        """
        +0.1 <- DATA BE sid=1 size=1000
        -> ERROR cause=invalid-stream value=00010000 / SACK cum=1 gaps=none dups=none
        """,
        WE_END,
        streams_max=1,
    ),
    case(
        "E-I-6-4",
        "INIT-ACK without a cookie ends the attempt and says what is missing",
        """
        call connect
        -> INIT
        <- INIT-ACK cookie=none
        -> ABORT t=0 cause=missing-parameter value=000000010007
        told Closed by us
        """,
    ),
    case(
        "E-I-6-5",
        "an unknown parameter of INIT-ACK is reported beside the COOKIE-ECHO, once",
        """
        call connect
        -> INIT
        <- INIT-ACK parameters=c00c:01
        -> COOKIE-ECHO right / ERROR cause=unrecognized-parameters value=c00c000501000000
        +0.5 -> COOKIE-ECHO right
        <- COOKIE-ACK
        told Established
        """,
        WE_END,
    ),
    case(
        "E-I-6-6",
        "an ERROR beside COOKIE-ECHO does not hinder the set-up",
        """
        <- INIT
        -> INIT-ACK
        <- COOKIE-ECHO / ERROR cause=unrecognized-parameters value=c0000004
        -> COOKIE-ACK
        told Established
        """,
        PEER_ENDS,
    ),
]

BUNDLING = [
    case(
        "BDC-I-7-1",
        "INIT beside DATA is dropped",
        """
        <- INIT / DATA BE
        +1.0 <- INIT
        -> INIT-ACK
        """,
    ),
    case(
        "BDC-I-7-2",
        "INIT-ACK beside DATA is dropped",
        """
        call connect
        -> INIT
        <- INIT-ACK / DATA BE
        state cookie-wait
        +0.5 -> INIT
        """,
    ),
    case(
        "BDC-I-7-3",
        "SHUTDOWN-COMPLETE beside DATA is dropped",
        PASSIVE,
        """
        <- SHUTDOWN
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE / DATA BE
        +0.5 -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
    ),
    case(
        "BDC-V-7-4",
        "DATA beside COOKIE-ECHO is taken",
        """
        <- INIT
        -> INIT-ACK
        <- COOKIE-ECHO / DATA BE
        -> COOKIE-ACK / SACK cum=1
        told Established
        told Message 100
        """,
        PEER_ENDS,
    ),
    case(
        "BDC-V-7-5",
        "DATA beside COOKIE-ACK is taken",
        """
        call connect
        -> INIT
        <- INIT-ACK
        -> COOKIE-ECHO right
        <- COOKIE-ACK / DATA BE
        -> SACK cum=1
        told Established
        told Message 100
        """,
        PEER_ENDS,
    ),
    case(
        "BDC-V-7-6",
        "SACK behind SHUTDOWN",
        PASSIVE,
        """
        <- SHUTDOWN / SACK cum=0
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
    ),
    case(
        "BDC-V-7-7",
        "SACK before DATA",
        PASSIVE,
        """
        <- SACK cum=0 / DATA BE
        -> SACK cum=1
        told Message 100
        """,
        PEER_ENDS,
    ),
    case(
        "BDC-V-7-8",
        "SHUTDOWN-ACK beside DATA ends it, the DATA is dropped",
        ACTIVE,
        """
        call shutdown
        -> SHUTDOWN
        <- SHUTDOWN-ACK / DATA BE
        -> SHUTDOWN-COMPLETE
        told Closed by us
        """,
    ),
]

CASES = FAULTS + ERRORS + BUNDLING

NOT_APPLICABLE = [NotApplicable("FH-O-5-3-5", "IP addresses: SCTP over DTLS sees none")]
