"""Sealed envelopes: what links say to each other before they stand, by way of a signaling server or of other members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import attrs
import trio

from psyne_mesh.errors import LocalError, ProtocolError, SignalingError, WouldBlock
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.alarms import Alarms, Carrier
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.mesh.sealed import ENVELOPE
from psyne_mesh.signaling.envelope import Envelope, Kind, ReplayGuard, open_untrusted, seal, tampering_in
from psyne_mesh.signaling.transport import SignalingTransport


@attrs.frozen
class Tampering:
    """What came was not sealed by whom it names."""

    reason: str


class Envelopes:
    """1. `post(...)` seals one and sends it; `post_tunnelled(...)` sends datagrams of a tunnel, which need no seal.
    2. `open_untrusted(...)` for each that comes: the envelope, once; `Tampering`; or None for what is of no use.
    """

    def __init__(
        self, identity: Identity, signaling: SignalingTransport, server: str, rooms: Mapping[str, Membership],
        rooms_of: Callable[[PeerId], list[str]], wall_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._identity = identity
        self._signaling = signaling
        self._server = server
        self._rooms = rooms
        self._rooms_of = rooms_of
        self._wall_ms = wall_ms
        self._replays = ReplayGuard()
        self._alarms = Alarms()

    def post(self, peer: PeerId, kind: Kind, session: str, sequence: int, body: str) -> None:
        """Through signaling while it stands, else over the mesh."""
        for room in self._rooms_of(peer):
            sealed = seal(self._identity, kind=kind, recipient=peer, room=room, session=session, sequence=sequence, body=body,
                          now_ms=self._wall_ms())  # fmt: skip
            try:
                self._signaling.send_signal(peer, room, sealed)
            except (SignalingError, WouldBlock):
                self._rooms[room].send_signal(peer, ENVELOPE + sealed.encode())
            return

    def post_tunnelled(self, peer: PeerId, text: str) -> bool:
        """The last rung: datagrams inside signaling messages. False when there is none; then they are lost."""
        for room in self._rooms_of(peer):
            with suppress(SignalingError, LocalError):
                self._signaling.send_signal(peer, room, text)
                return True
        return False

    def open_untrusted(
        self, membership: Membership, claimed: PeerId, text: str, carrier: Carrier
    ) -> Envelope | Tampering | None:
        """`carrier`: the member that handed it over, None for signaling. The room is told of tampering, within limits."""
        now_ms = self._wall_ms()
        try:
            envelope = open_untrusted(
                text, recipient=self._identity.peer_id, expected_sender=claimed, room=membership.room, now_ms=now_ms
            )
        except ProtocolError as error:
            if (tampering := tampering_in(error)) is None:
                return None
            who = f"signaling server {self._server}" if carrier is None else f"member {carrier.short}"
            reason = f"{who} passed on what {claimed.short} did not seal: {tampering}"
            self._alarm(membership, carrier, claimed, reason)
            return Tampering(reason)
        return envelope if self._replays.accept(envelope, now_ms) else None

    def _alarm(self, membership: Membership, carrier: Carrier, claimed: PeerId, reason: str) -> None:
        left_out = self._alarms.sound(membership.room, carrier, trio.current_time())
        if left_out is not None:
            reason += f" (and {left_out} more like it before)" if left_out else ""
            membership.sink.on_tampering(self._server if carrier is None else carrier, claimed, reason)
