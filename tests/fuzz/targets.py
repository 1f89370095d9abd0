"""Every reader of bytes from outside, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fuzz import association, messages, packets

CORPUS = Path(__file__).parent / "corpus"

TARGETS: dict[str, Callable[[bytes], None]] = {
    "stun": packets.run_stun,
    "candidate": packets.run_candidate,
    "turn_stream": packets.run_turn_stream,
    "dtls": packets.run_dtls,
    "sctp": packets.run_sctp_parsers,
    "association": association.run_association,
    "express": packets.run_express,
    "dcep": messages.run_dcep,
    "channels": messages.run_channels,
    "sdp": messages.run_sdp,
    "signaling": messages.run_signaling,
    "envelope": messages.run_envelope,
    "gossip_frames": messages.run_gossip_parsers,
    "gossip": messages.run_gossip,
    "room": messages.run_room,
}


def corpus(target: str) -> list[Path]:
    """The committed inputs of a target."""
    return sorted((CORPUS / target).iterdir())
