"""What members carry for others: sealed, because those who carry are not trusted.

A blob that gossip brings begins with what it is: a sealed envelope of signaling, or a message for us alone. That is one of a
room channel or a word of a hall, as its own first byte says, and goes as
`CHANNEL_MESSAGE | epoch: 8 | number: 8 | signature: 64 | message`. The signature is over recipient, its
stay, room, epoch, number and message. Epoch and key are those of the sender's membership record; the recipient's stay is
`joined_at` of its own record, which does not travel: a message of an earlier stay is of no use in a later one. Unlike the
epoch it does not change when a member that was called gone comes back.
"""

from __future__ import annotations

import struct
from collections import OrderedDict

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip.records import Record
from psyne_mesh.identity import SIGNATURE_BYTES, Identity, PeerId, verify_untrusted
from psyne_mesh.limits import forget_oldest

ENVELOPE, CHANNEL_MESSAGE, HALL_WORD = b"\x00", b"\x01", b"\x02"

_DOMAIN = b"psyne-carried"
_HEAD = struct.Struct("!QQ")
_STAY = struct.Struct("!Q")
SEAL_BYTES = len(CHANNEL_MESSAGE) + _HEAD.size + SIGNATURE_BYTES
WINDOW = 64  # messages that overtook each other by more are taken for repeats
RECIPIENTS_MAX = 1024  # as many as a room has
SENDERS_MAX = 1024  # remembered; of the one heard of longest ago an old message could be played again


def is_hall_word(blob: bytes) -> bool:
    """Whether what is sealed is one, or so it says."""
    return blob[:1] == CHANNEL_MESSAGE and blob[SEAL_BYTES : SEAL_BYTES + 1] == HALL_WORD


class Seals:
    """Of one stay in one room, which began at `joined_at`.

    1. `seal` our messages. 2. `open_untrusted` theirs: each is believed once."""

    def __init__(self, identity: Identity, tag: bytes, joined_at: int) -> None:
        self._identity = identity
        self._tag = tag
        self._to_us = identity.peer_id.raw + _STAY.pack(joined_at)
        # What comes next to each: were one count for all, a message that overtakes would do so by as many as there are others.
        self._numbers: OrderedDict[PeerId, int] = OrderedDict()
        self._number_min = 0  # for who is not among them, perhaps any more
        # Epoch, highest number, bit i: `highest - i` was seen
        self._seen: OrderedDict[PeerId, tuple[int, int, int]] = OrderedDict()

    def seal(self, to: Record, epoch: int, message: bytes) -> bytes:
        """`message` for the member of that record; `epoch` is of our own."""
        addressee = to.peer.raw + _STAY.pack(to.joined_at)
        number = self._numbers.pop(to.peer, self._number_min)
        self._numbers[to.peer] = number + 1
        if len(self._numbers) > RECIPIENTS_MAX:
            self._number_min = max(self._number_min, self._numbers.popitem(last=False)[1])
        head = _HEAD.pack(epoch, number)
        return CHANNEL_MESSAGE + head + self._identity.sign(_DOMAIN, addressee + self._tag + head + message) + message

    def open_untrusted(self, record: Record, blob: bytes) -> bytes:
        """The message of the member whom `record` names, or `ProtocolError`."""
        if len(blob) < SEAL_BYTES or blob[:1] != CHANNEL_MESSAGE:
            raise ProtocolError("not a sealed message")
        head, signature = blob[1 : 1 + _HEAD.size], blob[1 + _HEAD.size : SEAL_BYTES]
        message = blob[SEAL_BYTES:]
        epoch, number = _HEAD.unpack(head)
        if epoch != record.epoch:
            raise ProtocolError("a message of another stay in the room")
        seen = self._fresh(record.peer, epoch, number)
        verify_untrusted(record.public_key, _DOMAIN, self._to_us + self._tag + head + message, signature)
        self._seen.pop(record.peer, None)
        self._seen[record.peer] = seen
        forget_oldest(self._seen, SENDERS_MAX)
        return message

    def _fresh(self, sender: PeerId, epoch: int, number: int) -> tuple[int, int, int]:
        """What is to be remembered of the sender; `ProtocolError` for a repeat."""
        known_epoch, highest, bits = self._seen.get(sender, (epoch, -1, 0))
        if known_epoch != epoch:
            highest, bits = -1, 0
        ahead = number - highest
        if ahead > 0:
            return epoch, number, ((bits << min(ahead, WINDOW)) | 1) & ((1 << WINDOW) - 1)
        if -ahead >= WINDOW or bits & (1 << -ahead):
            raise ProtocolError("a repeated message")
        return epoch, highest, bits | (1 << -ahead)
