"""DTLS 1.3 records (RFC 9147 section 4): the keys of one epoch in one direction, and datagrams cut into records.

What protects what: the record's header with the number in the clear is authenticated, then 16 bytes of the ciphertext make
the mask that hides the number. The nonce is the direction's IV xor the number, without the epoch: each epoch has keys of its
own, and counts from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from cryptography.exceptions import InvalidTag

from psyne_mesh.webrtc.dtls.protection import wrong_size
from psyne_mesh.webrtc.dtls.records import APPLICATION_DATA, HEADER_SIZE, MAX_CIPHERTEXT, MAX_PLAINTEXT
from psyne_mesh.webrtc.dtls.suites13 import AEAD_OVERHEAD, NONCE_BYTES, Suite

ACK = 26  # RFC 9147 section 7
OVERHEAD = 22  # header 5, content type 1, tag 16
HEADER_BYTES = 5  # flags, number (2), length (2)
# Of one batch, where the loop is behind: the newest, and one before it in case that somebody else sent the newest.
SPARE_KEPT = 2
SHORT_HEADER_BYTES = 3  # without the length: the record is the rest of its datagram
REPLAY_WINDOW = 512  # records, as in `record12`

# RFC 8446 section 5.5: 2^24.5 full records under one AES-GCM key. New keys are asked for at half of 2^24, so that old ones
# have hours of play left to carry what is sent until the peer has acknowledged.
UPDATE_AFTER_RECORDS = 2**23
RECORDS_MAX = 2**24
FORGERIES_MAX = 2**36  # RFC 9147 section 4.5.3: what fails to open under one key, before it must not be used any more

_FIXED_BITS, _FIXED = 0xE0, 0x20  # RFC 9147 section 4: 001CSLEE
_CID, _LONG_NUMBER, _LENGTH, _EPOCH = 0x10, 0x08, 0x04, 0x03
_WINDOW_MASK = (1 << REPLAY_WINDOW) - 1
_DATA = bytes((APPLICATION_DATA,))
MANY = 4  # records whose masks are made in one call; for fewer of them the bookkeeping costs more than it saves
_header = Struct("!BHH").pack
_unpack_header = Struct("!BHH").unpack_from
_nonce = Struct("!IQ").pack
_split_nonce = Struct("!IQ").unpack
_start = Struct("!BH").pack
_unpack_start = Struct("!BH").unpack_from
_u16 = Struct("!H").unpack_from
_masks = Struct("!H14x").iter_unpack
_plaintext_header = Struct("!BHHHIH")  # type, version, epoch, number (16 + 32 bits), length
_VERSIONS = (0xFEFD, 0xFEFF)  # both are written in plaintext records; the version proper is an extension


class SealingKeys:
    """What seals the records of one epoch. `number`: of the record to come, so also how many have been sealed."""

    __slots__ = ("_encrypt", "_first", "_iv_high", "_iv_low", "_mask", "epoch", "number", "secret")

    def __init__(self, suite: Suite, secret: bytes, epoch: int) -> None:
        key, self._iv_high, self._iv_low, number_key = _derive(suite, secret)
        self._encrypt = suite.aead(key).encrypt
        self._mask = suite.mask(number_key)
        self._first = _FIXED | _LONG_NUMBER | _LENGTH | epoch & _EPOCH
        self.epoch = epoch
        self.number = 0
        self.secret = secret

    def seal(self, packets: Sequence[bytes]) -> list[bytes]:
        """One record of application data for each packet of 1 to 2^14 bytes; `LocalError` for any other. None at all come
        back when the keys are used up."""
        number = self.number
        if number + len(packets) > RECORDS_MAX:
            return []
        if len(packets) >= MANY:
            return self._seal_many(packets)
        encrypt, mask, high, low, first = self._encrypt, self._mask, self._iv_high, self._iv_low, self._first
        self.number = number + len(packets)  # before they are used: whatever happens then, none is used twice
        sealed = []
        for packet in packets:
            size = len(packet)
            if not 0 < size <= MAX_PLAINTEXT:
                raise wrong_size(packet)
            size += 17
            body = encrypt(_nonce(high, low ^ number), packet + _DATA, _header(first, number & 0xFFFF, size))
            hides = mask(body[:16])
            sealed.append(_header(first, (number ^ (hides[0] << 8 | hides[1])) & 0xFFFF, size) + body)
            number += 1
        return sealed

    def seal_short(self, packets: Sequence[bytes]) -> list[bytes]:
        """The same without the length in the header: nothing may stand behind such a record in its datagram."""
        number = self.number
        if number + len(packets) > RECORDS_MAX:
            return []
        first = self._first & ~_LENGTH
        self.number = number + len(packets)
        sealed = []
        for packet in packets:
            if not 0 < len(packet) <= MAX_PLAINTEXT:
                raise wrong_size(packet)
            nonce = _nonce(self._iv_high, self._iv_low ^ number)
            body = self._encrypt(nonce, packet + _DATA, _start(first, number & 0xFFFF))
            hides = self._mask(body[:16])
            sealed.append(_start(first, (number ^ (hides[0] << 8 | hides[1])) & 0xFFFF) + body)
            number += 1
        return sealed

    def _seal_many(self, packets: Sequence[bytes]) -> list[bytes]:
        """`seal` with one call for all masks, which is a sixth of its work."""
        number = begin = self.number
        encrypt, high, low, first = self._encrypt, self._iv_high, self._iv_low, self._first
        self.number = number + len(packets)
        sealed, samples = [], []
        for packet in packets:
            size = len(packet)
            if not 0 < size <= MAX_PLAINTEXT:
                raise wrong_size(packet)
            nonce = _nonce(high, low ^ number)
            body: bytes = encrypt(nonce, packet + _DATA, _header(first, number & 0xFFFF, size + 17))
            sealed.append(body)
            samples.append(body[:16])
            number += 1
        for at, (hides,) in enumerate(_masks(self._mask(b"".join(samples)))):
            body = sealed[at]  # in its place comes the record, so that not all bodies live as long as all records
            sealed[at] = _header(first, (begin + at ^ hides) & 0xFFFF, len(body)) + body
        return sealed

    def seal_one(self, content_type: int, content: bytes) -> bytes:
        """A record of any type. For the handshake's, alerts and ACKs, of which no peer can make us send many."""
        number = self.number
        self.number = number + 1
        header = _header(self._first, number & 0xFFFF, len(content) + 17)
        nonce = _nonce(self._iv_high, self._iv_low ^ number)
        body = self._encrypt(nonce, content + bytes((content_type,)), header)
        hidden = (number ^ _u16(self._mask(body[:16]))[0]) & 0xFFFF
        return _header(self._first, hidden, len(body)) + body


class OpeningKeys:
    """What opens the records of one epoch, each once."""

    __slots__ = (
        "_decrypt",
        "_highest",
        "_in_order",
        "_iv_high",
        "_iv_low",
        "_mask",
        "_seen",
        "epoch",
        "first",
        "first_short",
        "n_forged",
        "number",
        "secret",
    )

    def __init__(self, suite: Suite, secret: bytes, epoch: int) -> None:
        key, self._iv_high, self._iv_low, number_key = _derive(suite, secret)
        self._decrypt = suite.aead(key).decrypt
        self._mask = suite.mask(number_key)
        self._highest = -1
        self._seen = 0  # bit k: the record numbered `_highest - _in_order - k` has come
        self._in_order = 0  # how many have come in order since, up to `_highest`
        self.epoch = epoch
        self.first = _FIXED | _LONG_NUMBER | _LENGTH | epoch & _EPOCH  # how a record of this epoch usually begins
        self.first_short = self.first & ~_LENGTH
        self.number = -1  # of the record that was opened last
        self.n_forged = 0
        self.secret = secret

    def open_usual(self, record: bytes) -> bytes | None:
        """`open` for a record that begins with `first`: quicker if it is the next one."""
        start, low, size = _unpack_header(record)
        mask = self._mask(record[5:21])
        low ^= mask[0] << 8 | mask[1]
        number = self._highest + 1
        if low != number & 0xFFFF:
            return self.open(record)
        try:
            nonce = _nonce(self._iv_high, self._iv_low ^ number)
            body = record[5:] if size < 4096 else memoryview(record)[5:]  # a small copy is cheaper than a view
            opened = self._decrypt(nonce, body, _header(start, low, size))
        except InvalidTag:
            self.n_forged += 1
            return None
        self._in_order += 1
        self._highest = self.number = number
        return opened

    def open_many(self, records: Sequence[bytes | memoryview]) -> list[bytes]:
        """`open_usual` with one call for all masks, up to the first record that is not the next one, or is forged. None of them
        if any is not one whole record of this epoch."""
        if not all(self._is_usual(record) for record in records):
            return []
        decrypt, high, low = self._decrypt, self._iv_high, self._iv_low
        number = self._highest
        contents = []
        masks = _masks(self._mask(b"".join([record[5:21] for record in records])))
        for record, (mask,) in zip(records, masks):
            number += 1
            start, hidden, size = _unpack_header(record)
            if hidden ^ mask != number & 0xFFFF:
                break
            body = record[5:] if size < 4096 else memoryview(record)[5:]
            try:
                contents.append(decrypt(_nonce(high, low ^ number), body, _header(start, number & 0xFFFF, size)))
            except InvalidTag:
                break  # `open` looks again, and counts it
        self._in_order += len(contents)
        self._highest += len(contents)
        self.number = self._highest
        return contents

    def _is_usual(self, record: bytes | memoryview) -> bool:
        size = len(record)
        if size <= OVERHEAD or type(record) is not bytes or record[0] != self.first:
            return False
        return size - HEADER_BYTES == record[3] << 8 | record[4]

    def open_short(self, record: bytes) -> bytes | None:
        """`open` for a record that begins with `first_short`: quicker if it is the next one."""
        start, low = _unpack_start(record)
        mask = self._mask(record[3:19])
        low ^= mask[0] << 8 | mask[1]
        number = self._highest + 1
        if low != number & 0xFFFF:
            return self.open(record, SHORT_HEADER_BYTES)
        try:
            opened = self._decrypt(_nonce(self._iv_high, self._iv_low ^ number), record[3:], _start(start, low))
        except InvalidTag:
            self.n_forged += 1
            return None
        self._in_order += 1
        self._highest = self.number = number
        return opened

    def open(self, record: bytes, body_at: int = HEADER_BYTES) -> bytes | None:
        """The content, then its type, then perhaps zeros (RFC 8446 section 5.2); None for what is forged or replayed. The
        ciphertext begins at `body_at`."""
        if len(record) < body_at + AEAD_OVERHEAD + 1:
            return None
        mask = self._mask(record[body_at : body_at + 16])
        expected = self._highest + 1
        # RFC 9147 section 4.2.2: the number nearest to the one expected
        if record[0] & _LONG_NUMBER:
            low: int = _u16(record, 1)[0] ^ _u16(mask)[0]
            number = expected + (low - expected + 0x8000 & 0xFFFF) - 0x8000
            if number < 0:
                number += 0x10000
            additional = _start(record[0], low) + record[3:body_at]
        else:
            low = record[1] ^ mask[0]
            number = expected + (low - expected + 0x80 & 0xFF) - 0x80
            if number < 0:
                number += 0x100
            additional = bytes((record[0], low)) + record[2:body_at]
        in_order = min(self._in_order, REPLAY_WINDOW)
        self._seen = (self._seen << in_order | (1 << in_order) - 1) & _WINDOW_MASK
        self._in_order = 0
        ahead = number - self._highest
        if ahead <= 0 and (ahead <= -REPLAY_WINDOW or self._seen >> -ahead & 1):
            return None
        try:
            opened = self._decrypt(_nonce(self._iv_high, self._iv_low ^ number), record[body_at:], additional)
        except InvalidTag:
            self.n_forged += 1
            return None
        if ahead <= 0:
            self._seen |= 1 << -ahead
        else:
            self._seen = (self._seen << ahead | 1) & _WINDOW_MASK if ahead < REPLAY_WINDOW else 1
            self._highest = number
        self.number = number
        return opened


def next_secret(suite: Suite, secret: bytes) -> bytes:
    """Of the epoch after the one of `secret` (RFC 8446 section 7.2)."""
    return suite.expand_label(secret, b"traffic upd", b"", suite.hash_bytes)


def _derive(suite: Suite, secret: bytes) -> tuple[bytes, int, int, bytes]:
    """Key, IV (4 and 8 bytes) and the key that hides numbers (RFC 8446 section 7.3, RFC 9147 section 4.2.3)."""
    key = suite.expand_label(secret, b"key", b"", suite.key_bytes)
    iv = suite.expand_label(secret, b"iv", b"", NONCE_BYTES)
    high, low = _split_nonce(iv)
    return key, high, low, suite.expand_label(secret, b"sn", b"", suite.key_bytes)


# ----------------------------------------------------------------------------------------------------------- datagrams


def newest_spare_untrusted(datagrams: list[bytes], kept: int = SPARE_KEPT) -> list[bytes]:
    """Those that are not one record without a length, and of these the last `kept`, as far as anybody can tell who opens
    none."""
    left = kept
    newest = []
    for datagram in reversed(datagrams):
        if len(datagram) > SHORT_HEADER_BYTES and datagram[0] & (_FIXED_BITS | _CID | _LENGTH) == _FIXED:
            left -= 1
            if left < 0:
                continue
        newest.append(datagram)
    newest.reverse()
    return newest


class CutRecord:
    """A record of a datagram. Protected: `data` is all of it, `low_epoch` the two bits that it tells of its epoch, and the
    ciphertext begins at `body_at`. Plaintext: `data` is its content, of `content_type`, numbered `number` in epoch 0."""

    __slots__ = ("body_at", "content_type", "data", "low_epoch", "number")

    def __init__(self, data: bytes, *, content_type: int, number: int, low_epoch: int, body_at: int) -> None:
        self.data = data
        self.content_type = content_type  # 0 for a protected record
        self.number = number
        self.low_epoch = low_epoch
        self.body_at = body_at


def cut_untrusted(datagram: bytes) -> tuple[list[CutRecord], bool]:
    """The datagram's records, and whether it was whole: all after the first that makes no sense is dropped. Protected
    records that are too short to be hidden are, too (RFC 9147 section 4.2.3)."""
    records: list[CutRecord] = []
    at, end = 0, len(datagram)
    while at < end:
        first = datagram[at]
        if first & _FIXED_BITS == _FIXED:
            record, at = _cut_protected_untrusted(datagram, at, end)
        else:
            record, at = _cut_plaintext_untrusted(datagram, at, end)
        if record is None:
            return records, False
        records.append(record)
    return records, True


def _cut_protected_untrusted(datagram: bytes, at: int, end: int) -> tuple[CutRecord | None, int]:
    first = datagram[at]
    header = 1 + (2 if first & _LONG_NUMBER else 1)
    if first & _CID or at + header + 2 > end:
        return None, end  # no connection id was agreed on (RFC 9147 section 9)
    if first & _LENGTH:
        size: int = _u16(datagram, at + header)[0]
        header += 2
    else:
        size = end - at - header
    after = at + header + size
    if after > end or not AEAD_OVERHEAD < size <= MAX_CIPHERTEXT:
        return None, end
    data = datagram[at:after]
    return CutRecord(data, content_type=0, number=-1, low_epoch=first & _EPOCH, body_at=header), after


def _cut_plaintext_untrusted(datagram: bytes, at: int, end: int) -> tuple[CutRecord | None, int]:
    if end - at < HEADER_SIZE:
        return None, end
    content_type, version, epoch, high, low, size = _plaintext_header.unpack_from(datagram, at)
    after = at + HEADER_SIZE + size
    if version not in _VERSIONS or epoch or not size or size > MAX_PLAINTEXT or after > end:
        return None, end
    content = datagram[at + HEADER_SIZE : after]
    return CutRecord(content, content_type=content_type, number=high << 32 | low, low_epoch=0, body_at=0), after


def plaintext_record(content_type: int, number: int, content: bytes) -> bytes:
    """A record of epoch 0 (RFC 9147 section 4): hellos, and the alerts and ACKs of who has no keys yet."""
    return _plaintext_header.pack(content_type, 0xFEFD, 0, number >> 32, number & 0xFFFFFFFF, len(content)) + content
