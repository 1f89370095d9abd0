"""ETSI TS 102 369, group AS: setting up an association."""

from __future__ import annotations

from tests.conformance.script import NotApplicable, case
from tests.conformance.steps import ACTIVE, FAST, PASSIVE, PEER_ENDS, WE_END

UNKNOWN = "c0cc:01010101,{}:02020202,c0cc:03030303"

CASES = [
    case("AS-V-1-1-1", "an active set-up and an orderly end", ACTIVE, "state established", WE_END),
    case("AS-V-1-1-2", "a passive set-up and an orderly end", PASSIVE, "state established", PEER_ENDS),
    case(
        "AS-I-1-2-1",
        "INIT is sent again when T1-init expires",
        """
        call connect
        -> INIT tsn=1 tag=same
        +0.1 -> INIT tsn=1 tag=same
        +0.1 <- INIT-ACK
        -> COOKIE-ECHO right
        <- COOKIE-ACK
        told Established
        """,
        WE_END,
        **FAST,
    ),
    case(
        "AS-I-1-2-2",
        "COOKIE-ECHO is sent again when T1-cookie expires",
        """
        call connect
        -> INIT
        <- INIT-ACK
        -> COOKIE-ECHO right
        +0.1 -> COOKIE-ECHO right
        <- COOKIE-ACK
        told Established
        """,
        WE_END,
        **FAST,
    ),
    case(
        "AS-I-1-3-1",
        "INIT is sent at most 1 + Max.Init.Retransmits times, with back-off up to RTO.Max",
        """
        call connect
        -> INIT
        +0.1 -> INIT
        +0.2 -> INIT
        +0.4 -> INIT
        +0.8 -> INIT
        +0.8 -> INIT
        +0.8 -> INIT
        +0.8 -> INIT
        +0.8 -> INIT
        +0.8 told Closed by us
        state closed idle
        """,
        **FAST,
    ),
    case(
        "AS-I-1-3-2",
        "COOKIE-ECHO is sent at most 1 + Max.Init.Retransmits times; the peer is told of the end",
        """
        call connect
        -> INIT
        <- INIT-ACK
        -> COOKIE-ECHO right
        +0.1 -> COOKIE-ECHO right
        +0.2 -> COOKIE-ECHO right
        +0.4 -> COOKIE-ECHO right
        +0.8 -> COOKIE-ECHO right
        +0.8 -> COOKIE-ECHO right
        +0.8 -> COOKIE-ECHO right
        +0.8 -> COOKIE-ECHO right
        +0.8 -> COOKIE-ECHO right
        +0.8 -> ABORT t=0
        told Closed by us
        state closed idle
        """,
        **FAST,
    ),
    case(
        "AS-I-1-4",
        "an INIT takes no resources: nothing is kept, no timer runs",
        """
        <- INIT tag=11
        -> INIT-ACK
        <- INIT tag=12
        -> INIT-ACK
        state closed idle
        """,
    ),
    case(
        "AS-V-1-5-1",
        "initiate tags of INIT are random",
        "call connect",
        "-> INIT",
        runs=50,
    ),
    case(
        "AS-V-1-5-2",
        "initiate tags of INIT-ACK are random",
        "<- INIT",
        "-> INIT-ACK",
        runs=50,
    ),
    case(
        "AS-V-1-6-1",
        "INIT with a cookie preservative, address types and addresses is answered as any other",
        """
        <- INIT parameters=0009:00003039,000c:00050006,0006:fe80000000000000025056fffe2409e6,0005:01010101
        -> INIT-ACK unrecognized=none
        +0.1 <- COOKIE-ECHO
        -> COOKIE-ACK
        told Established
        <- SHUTDOWN
        -> SHUTDOWN-ACK
        <- SHUTDOWN-COMPLETE T
        told Closed by peer
        """,
    ),
    case(
        "AS-V-1-6-2",
        "INIT-ACK with addresses is taken as any other",
        """
        call connect
        -> INIT
        <- INIT-ACK parameters=0006:fe80000000000000025056fffe2409e6,0005:01010101
        -> COOKIE-ECHO right
        <- COOKIE-ACK
        told Established
        """,
        WE_END,
    ),
    case(
        "AS-V-1-7-1",
        "we announce and use no more outgoing streams than the peer takes",
        """
        <- INIT os=100 is=1
        -> INIT-ACK os=1
        <- COOKIE-ECHO
        -> COOKIE-ACK
        told Established
        refused send 10 1
        """,
        PEER_ENDS,
        streams_max=2,
    ),
    case(
        "AS-I-1-7-2",
        "INIT with no outgoing streams is refused",
        """
        <- INIT os=0
        -> ABORT t=0 cause=invalid-parameter
        state closed idle
        """,
    ),
    case(
        "AS-V-1-7-3",
        "we use no more streams than INIT-ACK takes",
        """
        call connect
        -> INIT os=2 is=2
        <- INIT-ACK os=1 is=1
        -> COOKIE-ECHO right
        <- COOKIE-ACK
        told Established
        refused send 10 1
        """,
        WE_END,
        streams_max=2,
    ),
    case(
        "AS-I-1-7-4",
        "INIT-ACK with no outgoing streams ends the attempt",
        """
        call connect
        -> INIT
        <- INIT-ACK os=0
        -> ABORT cause=invalid-parameter
        told Closed by us
        state closed idle
        """,
    ),
    case(
        "AS-V-1-7-5",
        "two streams each way are supported",
        """
        <- INIT os=2 is=2
        -> INIT-ACK os=2 is=2
        <- COOKIE-ECHO
        -> COOKIE-ACK
        told Established
        call send 10 1
        -> DATA BE sid=1 tsn=1
        <- SACK cum=1 / DATA BE sid=1
        -> SACK cum=1
        told Message 100
        """,
        PEER_ENDS,
        streams_max=2,
    ),
    *(
        case(
            identifier,
            what,
            f"""
            <- INIT parameters={UNKNOWN.format(kind)}
            -> INIT-ACK unrecognized={reported}
            <- COOKIE-ECHO
            -> COOKIE-ACK
            told Established
            """,
            PEER_ENDS,
        )
        for identifier, what, kind, reported in (
            ("AS-I-1-8-1", "unknown parameter, bits 11: skip and report", "c0cc", UNKNOWN.format("c0cc")),
            ("AS-I-1-8-2", "unknown parameter, bits 00: stop, do not report", "00cc", "c0cc:01010101"),
            ("AS-I-1-8-3", "unknown parameter, bits 01: stop and report", "40cc", "c0cc:01010101,40cc:02020202"),
            ("AS-I-1-8-4", "unknown parameter, bits 10: skip, do not report", "80cc", "c0cc:01010101,c0cc:03030303"),
        )
    ),
    case(
        "AS-O-1-9-1",
        "INIT within an association is answered with another tag and changes nothing",
        PASSIVE,
        """
        +0.2 <- INIT tag=3
        -> INIT-ACK tag=other
        """,
        PEER_ENDS,
    ),
    case("AS-V-1-10-1", "INIT without addresses: the peer is where it comes from", PASSIVE, PEER_ENDS),
    case("AS-V-1-10-2", "INIT-ACK without addresses: the peer is where it comes from", ACTIVE, WE_END),
    case(
        "AS-V-1-12-1",
        "INIT with a host name is refused",
        """
        <- INIT parameters=000b:612e6200
        -> ABORT t=0 cause=unresolvable-address value=000b0008612e6200
        state closed idle
        """,
    ),
    case(
        "AS-I-1-12-2",
        "INIT-ACK with a host name ends the attempt",
        """
        call connect
        -> INIT
        <- INIT-ACK parameters=000b:612e6200
        -> ABORT t=0 cause=unresolvable-address value=000b0008612e6200
        told Closed by us
        state closed idle
        """,
    ),
    case(
        "AS-V-1-13-1",
        "INIT with supported address types is answered as any other",
        """
        <- INIT parameters=000c:00050006
        -> INIT-ACK
        <- COOKIE-ECHO
        -> COOKIE-ACK
        told Established
        """,
        PEER_ENDS,
    ),
    case(
        "AS-I-1-13-2",
        "address types say nothing about the address in use",
        "<- INIT parameters=000c:0006",
        "-> INIT-ACK",
    ),
    case(
        "AS-I-1-14-1",
        "INIT with tag zero is dropped",
        """
        <- INIT tag=0
        +1.0 <- INIT
        -> INIT-ACK
        """,
    ),
    case(
        "AS-I-1-14-2",
        "INIT-ACK with tag zero ends the attempt",
        """
        call connect
        -> INIT
        <- INIT-ACK tag=0
        -> ABORT T cause=invalid-parameter
        told Closed by us
        state closed idle
        """,
    ),
]

MULTIHOMING = "multihoming: over DTLS an association has one path (RFC 8261 section 5)"

NOT_APPLICABLE = [
    NotApplicable("AS-O-1-9-2", MULTIHOMING),
    NotApplicable("AS-V-1-11-1", MULTIHOMING),
    NotApplicable("AS-V-1-11-2", MULTIHOMING),
    NotApplicable("AS-I-1-15", MULTIHOMING),
]
