"""SCTP over DTLS, without I/O: `Association` and what belongs to it."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp.association import Association
from psyne_mesh.webrtc.sctp.config import SctpConfig
from psyne_mesh.webrtc.sctp.core import State
from psyne_mesh.webrtc.sctp.events import (
    BufferedAmountLow,
    Closed,
    Established,
    MessageReceived,
    Restarted,
    SctpEvent,
    StreamsReset,
    StreamsResetByPeer,
)
from psyne_mesh.webrtc.sctp.handshake import Handshake, read_init_untrusted
from psyne_mesh.webrtc.sctp.send_queue import CREDIT_MESSAGE_BYTES
from psyne_mesh.webrtc.sctp.stats import SctpStats

__all__ = [
    "CREDIT_MESSAGE_BYTES",
    "Association",
    "BufferedAmountLow",
    "Closed",
    "Established",
    "Handshake",
    "MessageReceived",
    "Restarted",
    "SctpConfig",
    "SctpEvent",
    "SctpStats",
    "State",
    "StreamsReset",
    "StreamsResetByPeer",
    "read_init_untrusted",
]
