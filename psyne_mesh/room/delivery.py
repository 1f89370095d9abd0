"""The delivery modes of a room channel: six names, never one `reliable` bool.

A mode says how the *sender's* messages travel; it becomes the channel type of RFC 8832 section 5.1.
"""

from __future__ import annotations

import re

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.frozen import Frozen

_PARTIAL = re.compile(r"(retransmits|ttl)\((\d{1,5})\)")


class DeliveryMode(Frozen):
    """How messages travel. Use the constants or `retransmits(n)` and `ttl(ms)`; strings of the same spelling work too.

    name                    ordered  lost messages
    "reliable"              yes      are sent again until they arrive
    "reliable_unordered"    no       are sent again until they arrive
    "unreliable_ordered"    yes      are gone; later ones do not wait for them
    "unreliable"            no       are gone
    "retransmits(n)"        no       are sent again at most n times
    "ttl(ms)"               no       are sent again for at most so many milliseconds
    """

    name: str
    ordered: bool
    max_retransmits: int | None = None
    max_packet_life_time_ms: int | None = None

    @classmethod
    def retransmits(cls, count: int) -> DeliveryMode:
        return cls(f"retransmits({count})", False, max_retransmits=count)

    @classmethod
    def ttl(cls, milliseconds: int) -> DeliveryMode:
        return cls(f"ttl({milliseconds})", False, max_packet_life_time_ms=milliseconds)

    @classmethod
    def parse(cls, mode: DeliveryMode | str) -> DeliveryMode:
        """The mode of that spelling; `InvalidConfig` shows all spellings."""
        if isinstance(mode, DeliveryMode):
            return mode
        if isinstance(mode, str):
            if mode in _BY_NAME:
                return _BY_NAME[mode]
            if match := _PARTIAL.fullmatch(mode):
                number = int(match[2])
                return cls.retransmits(number) if match[1] == "retransmits" else cls.ttl(number)
        raise InvalidConfig(f"{mode!r} is no delivery mode; use {', '.join(_BY_NAME)}, retransmits(n) or ttl(ms)")

    @property
    def reliable(self) -> bool:
        """Nothing is ever given up, so a full queue must hold the sender back instead of dropping."""
        return self.max_retransmits is None and self.max_packet_life_time_ms is None

    def data_channel(self, label: str, priority: int, protocol: str = "") -> DataChannelConfig:
        return DataChannelConfig(
            label=label,
            ordered=self.ordered,
            max_retransmits=self.max_retransmits,
            max_packet_life_time_ms=self.max_packet_life_time_ms,
            priority=priority,
            protocol=protocol,
        )


RELIABLE_ORDERED = DeliveryMode("reliable", True)
RELIABLE_UNORDERED = DeliveryMode("reliable_unordered", False)
UNRELIABLE_ORDERED = DeliveryMode("unreliable_ordered", True, max_retransmits=0)
UNRELIABLE_UNORDERED = DeliveryMode("unreliable", False, max_retransmits=0)

_BY_NAME = {
    mode.name: mode for mode in (RELIABLE_ORDERED, RELIABLE_UNORDERED, UNRELIABLE_ORDERED, UNRELIABLE_UNORDERED)
} | {"reliable_ordered": RELIABLE_ORDERED, "unreliable_unordered": UNRELIABLE_UNORDERED}
