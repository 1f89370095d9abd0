"""What comes after the handshake in the same rows of messages: tickets, and KeyUpdate both ways (RFC 9147 section 8)."""

from __future__ import annotations

from psyne_mesh.webrtc.dtls.handshake13.core import encode_ack
from psyne_mesh.webrtc.dtls.handshake13.flight import Flight, Ledger, Outgoing
from psyne_mesh.webrtc.dtls.handshake13.messages import Message, read_key_update_untrusted
from psyne_mesh.webrtc.dtls.handshake13.reassembly import Reassembly, split_fragments_untrusted
from psyne_mesh.webrtc.dtls.handshake13.wire import Alert, MessageType, Refused
from psyne_mesh.webrtc.dtls.record13 import ACK, SealingKeys


class AfterHandshake:
    """Made when the first such message comes or goes.

    1. `receive(content, number, keys)` with each handshake record, its epoch and number, and the keys that seal our ACK: it
       counts the KeyUpdates in it. `Refused` for what may not come any more.
    2. `update_keys(keys, now)` when our keys are worn; once `acknowledge` says true, the next ones count.
    3. After each call: send `take_datagrams()`. `handle_timeout(now)` at `deadline`.
    """

    __slots__ = ("_flight", "_ledger", "_mtu", "_our_sequence", "_out", "_reassembly", "_timeout_s", "peer_asks")

    def __init__(self, *, their_sequence: int, our_sequence: int, mtu: int, timeout_s: float, ledger: Ledger) -> None:
        self._reassembly = Reassembly(their_sequence)
        self._our_sequence = our_sequence
        self._mtu = mtu
        self._timeout_s = timeout_s
        self._ledger = ledger
        self._flight: Flight | None = None  # our KeyUpdate, until it is acknowledged
        self._out: list[bytes] = []
        self.peer_asks = False  # for new keys of ours

    @property
    def is_updating(self) -> bool:
        return self._flight is not None

    @property
    def deadline(self) -> float | None:
        return None if self._flight is None else self._flight.deadline

    def receive(self, content: bytes, number: tuple[int, int], keys: SealingKeys) -> int:
        """How many times the peer has renewed its keys in this record."""
        fragments = split_fragments_untrusted(content)
        if fragments is None:
            raise Refused(Alert.DECODE_ERROR, "a handshake record that holds no whole fragments")
        is_kept = True
        for fragment in fragments:
            is_kept = (fragment.sequence < self._reassembly.sequence or self._reassembly.add(fragment)) and is_kept
        if is_kept:  # else the peer shall send it again (RFC 9147 section 7.1)
            self._out.append(keys.seal_one(ACK, encode_ack([number])))
        n_updates = 0
        while (message := self._reassembly.take()) is not None:
            if message.kind == MessageType.KEY_UPDATE:
                self.peer_asks = read_key_update_untrusted(message.body) or self.peer_asks
                n_updates += 1
            elif message.kind != MessageType.NEW_SESSION_TICKET:  # tickets are not used: see `handshake13/__init__`
                raise Refused(Alert.UNEXPECTED_MESSAGE, f"a message of type {message.kind} after the handshake")
        if n_updates > 1:
            raise Refused(Alert.UNEXPECTED_MESSAGE, "a KeyUpdate before the last one was acknowledged")
        return n_updates

    def update_keys(self, keys: SealingKeys, now: float, *, ask: bool = False) -> None:
        """Nothing while one is under way (RFC 9147 section 8). ask: the peer shall renew its own, too."""
        if self._flight is not None:
            return
        self.peer_asks = False
        self._flight = Flight(self._mtu, self._ledger, self._timeout_s)
        update = Outgoing(keys, Message(MessageType.KEY_UPDATE, b"\1" if ask else b"\0"), self._our_sequence)
        self._our_sequence += 1
        self._out += self._flight.start([update], now)

    def acknowledge(self, numbers: list[tuple[int, int]]) -> bool:
        """Whether the peer now takes our next keys."""
        if self._flight is None or not self._flight.acknowledge(numbers):
            return False
        self._flight = None
        return True

    def handle_timeout(self, now: float) -> None:
        if self._flight is not None and self._flight.deadline is not None and now >= self._flight.deadline:
            self._out += self._flight.retransmit(now)

    def take_datagrams(self) -> list[bytes]:
        datagrams, self._out = self._out, []
        return datagrams
