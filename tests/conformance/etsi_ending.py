"""ETSI TS 102 369, group AT: ending an association."""

from __future__ import annotations

from tests.conformance.script import case
from tests.conformance.steps import ACTIVE, FAST, GONE

CASES = [
    case(
        "AT-V-2-2",
        "ABORT ends the association at once",
        ACTIVE,
        """
        <- ABORT
        told Closed by peer
        """,
        GONE,
    ),
    case(
        "AT-I-2-3",
        "SHUTDOWN waits until all data is acknowledged",
        ACTIVE,
        """
        call send 1000
        -> DATA BE tsn=1 size=1000
        call shutdown
        state shutdown-pending
        +0.1 <- SACK cum=1
        -> SHUTDOWN cum=0
        <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE
        told Closed by us
        """,
    ),
    case(
        "AT-I-2-4",
        "SHUTDOWN is sent again when T2-shutdown expires",
        ACTIVE,
        """
        call shutdown
        -> SHUTDOWN cum=0
        +0.1 -> SHUTDOWN cum=0
        """,
        **FAST,
    ),
    case(
        "AT-I-2-5",
        "SHUTDOWN is sent so often and no more; the peer is told of the end",
        ACTIVE,
        """
        call shutdown
        -> SHUTDOWN cum=0
        +0.5 -> SHUTDOWN
        +1.0 -> SHUTDOWN
        +1.0 -> SHUTDOWN
        +1.0 -> SHUTDOWN
        +1.0 -> SHUTDOWN
        +1.0 -> ABORT t=0
        told Closed by us
        """,
        GONE,
        association_retransmits_max=5,
        rto_initial_s=0.5,
        rto_min_s=0.5,
        rto_max_s=1.0,
    ),
    case(
        "AT-V-2-6",
        "SHUTDOWN-ACK in SHUTDOWN-SENT is answered and ends it",
        ACTIVE,
        """
        call shutdown
        -> SHUTDOWN cum=0
        <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE t=0
        told Closed by us
        """,
        GONE,
        **FAST,
    ),
    case(
        "AT-I-2-7-1",
        "no message is taken in SHUTDOWN-SENT",
        ACTIVE,
        """
        call shutdown
        -> SHUTDOWN
        state shutdown-sent
        refused send 1000
        +0.1 -> SHUTDOWN
        <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE
        told Closed by us
        """,
        **FAST,
    ),
    case(
        "AT-I-2-7-2",
        "no message is taken in SHUTDOWN-RECEIVED",
        ACTIVE,
        """
        call send 1000
        -> DATA BE tsn=1
        <- SHUTDOWN cum=0
        state shutdown-received
        refused send 1000
        <- SHUTDOWN cum=1
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
    ),
    case(
        "AT-I-2-7-3",
        "no message is taken in SHUTDOWN-PENDING",
        ACTIVE,
        """
        call send 1000
        -> DATA BE tsn=1
        call shutdown
        state shutdown-pending
        refused send 1000
        <- SACK cum=1
        -> SHUTDOWN
        <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE
        told Closed by us
        """,
    ),
    case(
        "AT-I-2-7-4",
        "no message is taken in SHUTDOWN-ACK-SENT",
        ACTIVE,
        """
        <- SHUTDOWN
        -> SHUTDOWN-ACK
        state shutdown-ack-sent
        refused send 1000
        +0.1 -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
        **FAST,
    ),
    case(
        "AT-I-2-8",
        "DATA in SHUTDOWN-SENT is delivered, acknowledged with another SHUTDOWN, and starts T2 again",
        ACTIVE,
        """
        call shutdown
        -> SHUTDOWN cum=0
        +0.05 <- DATA BE tsn=1 size=1000
        -> SACK cum=1 / SHUTDOWN cum=1
        told Message 1000
        +0.05 <- DATA BE tsn=2 ssn=1 size=1000
        -> SACK cum=2 / SHUTDOWN cum=2
        told Message 1000
        +0.1 -> SHUTDOWN cum=2
        <- SHUTDOWN-ACK
        -> SHUTDOWN-COMPLETE
        told Closed by us
        """,
        **FAST,
    ),
    case(
        "AT-I-2-9",
        "DATA in SHUTDOWN-RECEIVED is dropped",
        ACTIVE,
        """
        call send 1000
        -> DATA BE tsn=1
        <- SHUTDOWN
        +0.1 <- DATA BE tsn=1 size=1000
        +0.1 <- SACK cum=1
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
    ),
    case(
        "AT-I-2-10",
        "SHUTDOWN while data is outstanding: the data is repeated until it is acknowledged",
        ACTIVE,
        """
        call send 1000
        -> DATA BE tsn=1
        <- SHUTDOWN cum=0
        +0.1 -> DATA BE tsn=1
        <- SHUTDOWN cum=0
        +0.1 <- SACK cum=1
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
        **FAST,
    ),
    case(
        "AT-I-2-11",
        "SHUTDOWN-ACK is sent again when T2-shutdown expires",
        ACTIVE,
        """
        <- SHUTDOWN
        -> SHUTDOWN-ACK
        +0.1 -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
        **FAST,
    ),
    case(
        "AT-I-2-12",
        "SHUTDOWN-ACK is sent at most 1 + Association.Max.Retrans times; the peer is told of the end",
        ACTIVE,
        """
        <- SHUTDOWN
        -> SHUTDOWN-ACK
        +0.1 -> SHUTDOWN-ACK
        +0.2 -> SHUTDOWN-ACK
        +0.4 -> SHUTDOWN-ACK
        """,
        "+0.8 -> SHUTDOWN-ACK\n" * 7,
        """
        +0.8 -> ABORT t=0
        told Closed by us
        """,
        GONE,
        **FAST,
    ),
    case(
        "AT-I-2-13",
        "SHUTDOWN-COMPLETE in SHUTDOWN-ACK-SENT ends it",
        ACTIVE,
        """
        <- SHUTDOWN
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
        GONE,
    ),
    case(
        "AT-V-2-14",
        "SHUTDOWN acknowledges data",
        ACTIVE,
        """
        call send 1000
        -> DATA BE tsn=1
        <- SHUTDOWN cum=1
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE
        told Closed by peer
        """,
    ),
]
