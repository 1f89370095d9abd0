"""Bundling: chunks go into packets that never exceed the path MTU (RFC 9260 section 6.10)."""

from __future__ import annotations

from psyne_mesh.webrtc.sctp import wire


class PacketBuilder:
    """1. `add` control chunks, or append to `parts` and lower `room`. 2. `flush` ends a packet. 3. Take `packets`.

    `room` is what the open packet still takes, padding included, a multiple of four.
    """

    __slots__ = ("_capacity", "_header", "_packets_max", "_zero_checksum", "is_spent", "packets", "parts", "room")

    def __init__(self, ports_and_tag: bytes, mtu: int, *, zero_checksum: bool, packets_max: int = 1 << 30) -> None:
        self._header = ports_and_tag
        self._zero_checksum = zero_checksum
        self._capacity = (mtu - wire.HEADER_BYTES) & ~3
        self.room = self._capacity
        self.parts: list[bytes] = []
        self.packets: list[bytes] = []
        self._packets_max = packets_max
        self.is_spent = False  # no further packet may be begun

    def add(self, chunk: bytes) -> None:
        """Add a padded chunk. The caller sees to it that it fits an empty packet."""
        if len(chunk) > self.room:
            self.flush()
        self.parts.append(chunk)
        self.room -= len(chunk)

    def flush(self) -> None:
        if self.parts:
            seal = wire.seal_without_checksum if self._zero_checksum else wire.seal
            self.packets.append(seal(self._header, self.parts))
            self.parts = []
            self.room = self._capacity
            self.is_spent = len(self.packets) >= self._packets_max
