"""What a player does for spectators: the feed of what it says, as two of them fetch it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from psyne_mesh.errors import ClosedError, LocalError, ProtocolError, RemoteError
from psyne_mesh.game.watching.feed import Feed
from psyne_mesh.game.watching.wire import Facts, FeedWord, Want
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.room.codec import Payload
from psyne_mesh.room.companion import Companion, Seen, companion_entry
from psyne_mesh.room.hosting import Hosting
from psyne_mesh.room.sharing import SharedTraffic
from psyne_mesh.room.states import CHANNEL as STATES_CHANNEL
from psyne_mesh.room.states import StateTraffic

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

FEED_DOMAIN = b"psyne-watch"
TRY_AGAIN_S = 5.0
"""Signaling did not let us into the companion room: it may be away."""
INNER = "psyne."  # channels of the room's own parts begin so


@uninterrupted
class Audience:
    """1. `admitted(membership)`; the room's task is in `run()`, which is over at once for a room without spectators. 2.
    `overhear(...)` for whatever is handed to a channel. 3. `tell_goodbye()` before leaving."""

    def __init__(
        self, room: Room, core: MeshCore, hosting: Hosting, states: StateTraffic, traffic: SharedTraffic
    ) -> None:
        self._room = room
        self._hosting = hosting
        self._states = states
        self._traffic = traffic
        self._core = core
        self._membership: Membership | None = None
        self._feed: Feed | None = None
        self._companion = Companion(core, self._heard, self._changed)
        self._wake = trio.Event()

    def admitted(self, membership: Membership) -> None:
        if not membership.info.manifest.spectators:
            return
        domain = Seen(membership.info).domain
        self._membership = membership
        self._feed = Feed(self, lambda body: self._core.identity.sign(FEED_DOMAIN, domain + body), self._core.wall_ms())

    @property
    def is_open(self) -> bool:
        """The room may be watched."""
        return self._feed is not None

    def overhear(self, channel: str, payload: Payload, n_peers: int, *, to_all: bool, is_reliable: bool) -> None:
        feed = self._feed
        if feed is None:
            return
        data = payload if isinstance(payload, bytes) else payload.encode()
        feed.sent(n_peers * len(data), n_peers)
        if not to_all:
            return
        if channel == STATES_CHANNEL:
            feed.say_state(data, trio.current_time())
        elif not channel.startswith(INNER):
            feed.say(channel, data, trio.current_time(), is_text=isinstance(payload, str), is_reliable=is_reliable)

    async def run(self) -> None:
        if self._feed is None or self._membership is None:
            return
        await self._enter(self._membership)
        while not self._membership.closed:
            self._wake = trio.Event()
            self._feed.handle_timeout(trio.current_time())
            self._flush()
            if not self._feed.is_on(trio.current_time()):
                self._traffic.forget_spectators()
            with trio.move_on_at(self._feed.next_timeout()):
                await self._wake.wait()

    async def _enter(self, membership: Membership) -> None:
        entry = companion_entry("gates", membership.info, membership.secret, "", Profile())
        while not membership.closed:
            try:
                await self._companion.enter(entry)
            except (RemoteError, LocalError):
                await trio.sleep(TRY_AGAIN_S)
            else:
                return

    def tell_goodbye(self) -> None:
        """What was said last goes to spectators, too."""
        if self._feed is not None and self._companion.is_in:
            self._feed.end(trio.current_time())
            self._flush()
            self._core.stays.evicted(self._companion.membership)

    # ------------------------------------------------------------------------------------------------- Source of the feed

    def facts(self) -> Facts:
        assert self._membership is not None
        node, hosting = self._membership.node, self._hosting
        record, seats = node.own_record, node.seats
        host = hosting.host() if hosting.is_on else None
        return Facts(
            record.name[:512], record.metadata, record.joined_at, seats.index(record.peer) if record.peer in seats else -1,
            [peer.raw for peer in sorted([record.peer, *self._room.peers])], hosting.term if hosting.is_on else 0,
            b"" if host is None else host.raw,
        )  # fmt: skip

    def states(self) -> list[bytes]:
        return self._states.for_spectators()

    def objects(self, now: float, *, is_whole: bool) -> list[bytes]:
        return self._traffic.for_spectators(now, is_whole=is_whole)

    # ------------------------------------------------------------------------------------------------------------ helpers

    def _heard(self, gate: PeerId, word: FeedWord) -> None:
        if not isinstance(word, Want):
            raise ProtocolError("players hear of spectators only what they want")
        assert self._feed is not None
        self._feed.want(gate, word, trio.current_time())
        self._flush()
        self._wake.set()

    def _changed(self) -> None:
        if self._feed is None or not self._companion.is_in:
            return
        linked = set(self._companion.linked())
        for gate in self._feed.gates:
            if gate not in linked:
                self._feed.gate_gone(gate, trio.current_time())
        self._wake.set()

    def _flush(self) -> None:
        assert self._feed is not None
        for gate, signed in self._feed.take_outputs():
            try:
                self._companion.tell(gate, signed)
            except ClosedError:
                return
