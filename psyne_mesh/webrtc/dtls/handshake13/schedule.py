"""The key schedule (RFC 8446 section 7.1), without its parts for pre-shared keys and early data."""

from __future__ import annotations

from functools import cache

from psyne_mesh.webrtc.dtls.suites13 import SUITES, Suite


class KeySchedule:
    """From the shared secret to the traffic secrets of both directions. `transcript_hash`: up to the ServerHello."""

    __slots__ = ("_master", "client_handshake", "server_handshake", "suite")

    def __init__(self, suite: Suite, shared_secret: bytes, transcript_hash: bytes) -> None:
        self.suite = suite
        handshake = suite.extract(_before_the_handshake(suite.number), shared_secret)
        self.client_handshake = self._derive(handshake, b"c hs traffic", transcript_hash)
        self.server_handshake = self._derive(handshake, b"s hs traffic", transcript_hash)
        derived = self._derive(handshake, b"derived", suite.digest(b""))
        self._master = suite.extract(derived, bytes(suite.hash_bytes))

    def application(self, transcript_hash: bytes) -> tuple[bytes, bytes]:
        """The client's and the server's secret of epoch 3; the transcript goes up to the server's Finished."""
        client = self._derive(self._master, b"c ap traffic", transcript_hash)
        return client, self._derive(self._master, b"s ap traffic", transcript_hash)

    def verify_data(self, secret: bytes, transcript_hash: bytes) -> bytes:
        """What a Finished holds (RFC 8446 section 4.4.4); `secret` is the handshake secret of who sends it."""
        key = self.suite.expand_label(secret, b"finished", b"", self.suite.hash_bytes)
        return self.suite.mac(key, transcript_hash)

    def _derive(self, secret: bytes, label: bytes, transcript_hash: bytes) -> bytes:
        return self.suite.expand_label(secret, label, transcript_hash, self.suite.hash_bytes)


@cache
def _before_the_handshake(suite_number: int) -> bytes:
    """The salt for the shared secret: the same in every handshake, as there is no pre-shared key."""
    suite = next(suite for suite in SUITES if suite.number == suite_number)
    zeros = bytes(suite.hash_bytes)
    return suite.expand_label(suite.extract(zeros, zeros), b"derived", suite.digest(b""), suite.hash_bytes)
