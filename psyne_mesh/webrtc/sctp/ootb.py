"""Packets that belong to no association (RFC 9260 section 8.4)."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp import wire

# Never answered: they are answers themselves, or would start a ping-pong of two sides that know nothing
_SILENT = frozenset((wire.ABORT, wire.SHUTDOWN_COMPLETE, wire.COOKIE_ACK, wire.COOKIE_ECHO, wire.ERROR, wire.INIT))


def answer_out_of_the_blue(first_chunk: int) -> bytes | None:
    """The chunk that answers, to be sent with the verification tag of the packet itself and so with the T bit."""
    if first_chunk in _SILENT:
        return None
    if first_chunk == wire.SHUTDOWN_ACK:
        return wire.chunk(wire.SHUTDOWN_COMPLETE, wire.FLAG_T, b"")
    return wire.chunk(wire.ABORT, wire.FLAG_T, b"")
