"""The last handshake flight, and when to send it again (RFC 6347 section 4.2.4).

OpenSSL keeps its own timer on the real clock, and waits a second at first: too long on a lossy link, and useless in
virtual time. So every flight is kept here as it left OpenSSL.
"""

from __future__ import annotations

from psyne_mesh.webrtc.dtls.records import ALERT, pack, renumber, split_untrusted

# 150 ms doubled falls due at 0.15, 0.45 and 1.05 s: the third comes just after OpenSSL's own first second, when OpenSSL
# can encrypt the Finished anew. RFC 6347 asks for 1 s, RFC 9147 section 5.8.2 for less where latency matters.
INITIAL_TIMEOUT = 0.15
MAX_TIMEOUT = 2.0  # a game's connect deadline is about 15 s; RFC 6347's 60 s would be silence
LINGERING_REPEATS = 4  # of 75 bytes each, should the peer stay silent; RFC 6347 waits for the peer to repeat itself
MIN_RESEND_INTERVAL = 0.05  # so nobody makes us repeat ourselves faster than this by forging handshake records


class Flight:
    """Numbers, packs and keeps what OpenSSL writes while it shakes hands.

    1. `datagrams(output, now)` with whatever OpenSSL wrote: send what it returns.
    2. When `deadline` has come: `retransmit(now)`.
    3. When the handshake is over: `finish()`. The side that sent the last flight calls `linger()` instead, for it alone
       can help a peer that never got it: a few deadlines go on, and `resend(now)` answers a peer that repeats itself.
    """

    __slots__ = (
        "_key",
        "_mtu",
        "_records",
        "_repeats_left",
        "_sent_at",
        "_sequence",
        "_timeout",
        "deadline",
        "last_sealed",
        "n_retransmitted",
    )

    def __init__(self, mtu: int) -> None:
        self._mtu = mtu
        self._records: list[bytes] = []
        self._key: tuple[int, int] | None = None
        self._sequence = 0
        self._sent_at = 0.0
        self._repeats_left: int | None = None  # None: until the handshake is over
        self._timeout = INITIAL_TIMEOUT
        self.deadline: float | None = None
        self.n_retransmitted = 0
        self.last_sealed: bytes | None = None  # the last record that OpenSSL has encrypted

    def datagrams(self, output: bytes, now: float) -> list[bytes]:
        """What OpenSSL has written, ready for the wire; handshake records become the flight to retransmit."""
        records, _ = split_untrusted(output)
        flight = [record for record in records if record.content_type != ALERT]
        for record in records:
            if record.epoch == 1:
                self.last_sealed = record.data
        if flight:
            key = (flight[0].content_type, flight[0].message_seq)
            if key == self._key:  # OpenSSL's own timer has repeated the flight
                self._back_off(now)
            else:
                self._key = key
                self._timeout = INITIAL_TIMEOUT
                self.deadline = now + self._timeout
            self._records = [record.data for record in flight]
            self._sent_at = now
        return self._numbered([record.data for record in records])

    def retransmit(self, now: float) -> list[bytes]:
        """The last flight again, and twice the time until the next."""
        self._back_off(now)
        if self._repeats_left is not None:
            self._repeats_left -= 1
            if self._repeats_left == 0:
                self.deadline = None
        return self._again(now)

    def resend(self, now: float) -> list[bytes]:
        """The last flight again, because the peer has repeated its own; nothing if that was just done."""
        if not self._records or now - self._sent_at < MIN_RESEND_INTERVAL:
            return []
        self.n_retransmitted += 1
        return self._again(now)

    def linger(self) -> None:
        self._repeats_left = LINGERING_REPEATS

    def finish(self) -> None:
        self.deadline = None
        self._records = []

    def _back_off(self, now: float) -> None:
        self.n_retransmitted += 1
        self._timeout = min(2 * self._timeout, MAX_TIMEOUT)
        self.deadline = now + self._timeout

    def _again(self, now: float) -> list[bytes]:
        self._sent_at = now
        return self._numbered(self._records)

    def _numbered(self, records: list[bytes]) -> list[bytes]:
        # A fresh number for every plaintext record, each time it is sent. Not only because RFC 6347 wants it: a
        # ChangeCipherSpec that overtook its flight is thrown away by OpenSSL *after* it was marked as seen, and would
        # be dropped as a replay for ever. Encrypted records keep theirs: it is part of the nonce.
        numbered = []
        for record in records:
            if record[3:5] == b"\0\0":
                record = renumber(record, self._sequence)
                self._sequence += 1
            numbered.append(record)
        return pack(numbered, self._mtu)
