"""What a `DtlsSession` tells its owner."""

from __future__ import annotations

from typing import Literal

from psyne_mesh.errors import RemoteError
from psyne_mesh.frozen import Frozen

State = Literal["new", "handshaking", "established", "closed", "failed"]


class HandshakeCompleted(Frozen):
    """The peer showed a certificate with one of the expected fingerprints; `send` may be called from now on.

    cipher: the name of the suite. version: "DTLSv1.3" or "DTLSv1.2". group: of the key exchange; None if it is not known.
    is_post_quantum: a recorder with a later quantum computer gets nothing out of this exchange.
    is_path_small: only datagrams of what every path carries came through, as far as the handshake shows.
    """

    cipher: str
    version: str
    group: str | None = None
    is_post_quantum: bool = False
    is_path_small: bool = False


class Failed(Frozen):
    """The session is over, by a fault: of the handshake before `HandshakeCompleted`, or by an authentic fatal alert of
    the peer after it. Comes at most once, and is the last event.

    error: `FingerprintMismatch`, or `ProtocolError` with the reason, in version 1.2 in OpenSSL's words.
    """

    error: RemoteError


class Closed(Frozen):
    """The session is over in good order: by `close()`, or by the peer's authentic close_notify. The last event."""

    by_peer: bool


DtlsEvent = HandshakeCompleted | Failed | Closed


class DtlsStats(Frozen, kw_only=True):
    """A snapshot. Handshake records count as dropped only when they were malformed or came too late."""

    records_sent: int  # of application data
    records_received: int
    records_dropped: int  # forged, replayed, malformed, of a wrong epoch, or after the end
    flights_retransmitted: int
    handshake_s: float | None  # from start() to completion
    cipher: str | None
    version: str | None
    group: str | None
    is_post_quantum: bool
    peer_alert: str | None  # the last alert that came in plaintext: a hint for people, never believed
