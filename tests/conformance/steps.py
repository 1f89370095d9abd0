"""Steps that many cases begin or end with, and settings that give them short timers."""

from __future__ import annotations

from typing import Any

FAST: dict[str, Any] = {"rto_initial_s": 0.1, "rto_min_s": 0.1, "rto_max_s": 0.8}

# We ask, the peer answers
ACTIVE = """
    call connect
    -> INIT tsn=1
    <- INIT-ACK
    -> COOKIE-ECHO right
    <- COOKIE-ACK
    told Established
"""
# The peer asks, we answer
PASSIVE = """
    <- INIT
    -> INIT-ACK tsn=1 tag=same
    <- COOKIE-ECHO
    -> COOKIE-ACK
    told Established
"""
WE_END = """
    call shutdown
    -> SHUTDOWN
    +0.05 <- SHUTDOWN-ACK
    -> SHUTDOWN-COMPLETE t=0
    told Closed by us
    state closed idle
"""
PEER_ENDS = """
    <- SHUTDOWN
    -> SHUTDOWN-ACK
    <- SHUTDOWN-COMPLETE
    told Closed by peer
    state closed idle
"""
# There is no association any more: what would be answered within one is out of the blue
GONE = """
    state closed idle
    +0.1 <- HEARTBEAT info=0102030405
    -> ABORT T
"""
