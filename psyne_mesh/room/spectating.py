"""A spectator's part in the gallery: it hears what players said, passes it on, and is a gate when its seat says so."""

from __future__ import annotations

import math
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable

import trio

from psyne_mesh.errors import ClosedError, LocalError, ProtocolError, RemoteError, RoomFull, SpectatorsFull
from psyne_mesh.game.watching.gate import GATES, Gate, gates_of
from psyne_mesh.game.watching.viewer import Viewer, ViewerEvent
from psyne_mesh.game.watching.wire import FeedWord, Need, Signed, Want
from psyne_mesh.identity import PeerId, verify_untrusted
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.limits import TokenBucket, forget_oldest
from psyne_mesh.mesh.core import MeshCore
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.room.audience import FEED_DOMAIN
from psyne_mesh.room.companion import GATE, Companion, Seen, companion_entry

LOOK_S = 0.25
"""So often seats are looked at: who is a gate now."""
SETTLE_S = 0.75
"""Who has just come hears first who else sits here."""
HAND_OVER_S = 4.0
"""Who is no gate any more goes on so long: its successor dials the players meanwhile."""
BELIEVED = 2 * GATES
"""Members in the lowest seats whose broadcasts are read: views of the seats differ for a moment while gates change."""
BELIEVED_S = HAND_OVER_S + 2.0
"""Who was read from a gate's seat goes on to be: players speak to it until its successor has asked them, and in a gallery that
grows others are in lower seats at once."""
ANSWERS_PER_S, ANSWERS_BURST = 20.0, 100.0
"""Batches that one member may ask us for, and that one who is no gate may give us: those of eight players that a break of three
seconds swallowed, at once."""
ALLOWANCES_MAX = 512
TRY_AGAIN_S = 1.0


@uninterrupted
class Spectating:
    """1. `enter(name, profile)`. 2. The room's task is in `run()`; `happened` gets what is new. 3. `want_whole(player)`.
    4. `leave()`."""

    def __init__(self, core: MeshCore, seen: Seen, happened: Callable[[list[ViewerEvent]], None]) -> None:
        self._core = core
        self._seen = seen
        self._happened = happened
        self._domain = seen.domain
        self.viewer = Viewer(seen.info.manifest.creator_id, seen.info.max_players, self._verify_untrusted)
        self.gallery = Companion(core, self._heard, self._changed)
        self._gates = Companion(core, self._heard_at_gate, self._changed)
        self._gate: Gate | None = None
        self._gate_until = 0.0
        self._believed: dict[PeerId, float] = {}
        self._asks = _Allowances()
        self._says = _Allowances()
        self._turn = 0
        self._wake = trio.Event()

    async def enter(self, name: str, profile: Profile) -> None:
        """Raises as `Stays.enter`, and `SpectatorsFull`."""
        try:
            await self.gallery.enter(companion_entry("gallery", self._seen.info, self._seen.secret, name, profile))
        except RoomFull as error:
            info = self._seen.info
            raise SpectatorsFull(
                f"{info.manifest.spectators} watch room {info.name!r} already, as many as its creator allows"
            ) from error

    @property
    def is_gate(self) -> bool:
        """We fetch what players say, for all."""
        return self._gate is not None

    def want_whole(self, player: PeerId) -> None:
        self.viewer.want_whole(player, trio.current_time())

    async def leave(self) -> None:
        await self._gates.leave()
        await self.gallery.leave()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._be_gate)
            while self.gallery.is_in:
                self.viewer.handle_timeout(trio.current_time())
                self._settle()
                self._wake = trio.Event()
                due = self.viewer.next_timeout()
                if self._gate is not None:
                    due = min(due, self._gate.next_timeout())
                with trio.move_on_at(due):
                    await self._wake.wait()
            nursery.cancel_scope.cancel()

    async def _be_gate(self) -> None:
        """In and out of the room where gates meet players, as our seat says."""
        entry = companion_entry("gates", self._seen.info, self._seen.secret, "", Profile.make(None, None, GATE))
        await trio.sleep(SETTLE_S)
        while self.gallery.is_in:
            if self._is_elected():
                self._gate_until = trio.current_time() + HAND_OVER_S
                if not self._gates.is_in:
                    try:
                        await self._gates.enter(entry)
                        self._gate = Gate(self._core.me, self.viewer.heard_at, self.viewer.cursor)
                        self._changed()
                    except (RemoteError, LocalError):
                        await trio.sleep(TRY_AGAIN_S)
            elif self._gate is not None and trio.current_time() >= self._gate_until:
                self._gate = None
                await self._gates.leave()
            await trio.sleep(LOOK_S)

    # --------------------------------------------------------------------------------------------------------- helpers

    def _elected(self, count: int = GATES) -> list[PeerId]:
        node = self.gallery.membership.node
        members = set(node.members)
        return gates_of(node.seats, lambda peer: peer in members and not node.is_suspected(peer), count)

    def _is_elected(self) -> bool:
        return self.gallery.is_in and self._core.me in self._elected()

    def _verify_untrusted(self, signed: Signed) -> PeerId:
        return verify_untrusted(signed.key, FEED_DOMAIN, self._domain + signed.body, signed.signature)

    def _changed(self) -> None:
        self._wake.set()
        if self._gate is None or not self._gates.is_in:
            return
        linked = self._gates.linked()
        gates = [peer for peer in linked if self._gates.is_gate(peer)]
        players = [peer for peer in linked if peer not in gates]
        self._gate.meet(players, gates, trio.current_time())
        self._settle()

    def _heard(self, member: PeerId, word: FeedWord) -> None:
        """In the gallery."""
        match word:
            case Signed() if self._is_believed(member) or self._is_known(member, word):
                self.viewer.receive(word, trio.current_time())
                self._settle()
            case Need():
                self._answer(member, word)

    def _heard_at_gate(self, player: PeerId, word: FeedWord) -> None:
        if not isinstance(word, Signed):
            raise ProtocolError("no word of a player to a gate")
        signed = Signed(word.body, word.signature, self._gates.key_of(player))
        if self.viewer.receive(signed, trio.current_time(), is_first_hand=True) is not None and self.gallery.is_in:
            self.gallery.broadcast(signed)
        self._settle()

    def _is_believed(self, member: PeerId) -> bool:
        """It is a gate, or was one a moment ago."""
        now = trio.current_time()
        if member in self._elected(BELIEVED):
            self._believed = {peer: until for peer, until in self._believed.items() if now < until}
            self._believed[member] = now + BELIEVED_S
        return now < self._believed.get(member, -math.inf)

    def _is_known(self, member: PeerId, word: Signed) -> bool:
        """Whose word it is we know from gates, so it does not matter who passes it on."""
        return self.viewer.is_author(PeerId.of(word.key)) and self._says.allow(member, trio.current_time())

    def _answer(self, member: PeerId, need: Need) -> None:
        now = trio.current_time()
        kept, lacking = self.viewer.kept(need) if need.session else ([], None)
        for signed in kept:
            if self._asks.allow(member, now):
                self.gallery.signal(member, signed)
        if self._gate is not None and self._asks.allow(member, now):
            self._ask_author(self._gate, need, lacking, now)
            self._settle()

    def _settle(self) -> None:
        """What the pure parts want."""
        now = trio.current_time()
        try:
            for need in self.viewer.take_outputs():
                for other in dict.fromkeys([*self._elected(), *self._another()]):
                    if other != self._core.me:
                        self.gallery.signal(other, need)
                if self._gate is not None:
                    self._ask_author(self._gate, need, self.viewer.kept(need)[1] if need.session else None, now)
            if self._gate is not None:
                self._gate.handle_timeout(now)
                for player, want in self._gate.take_outputs():
                    self._want(player, want)
        except ClosedError:
            return
        if events := self.viewer.take_events():
            self._happened(events)
        self._wake.set()

    def _another(self) -> list[PeerId]:
        """One who is no gate, each time the next one: it holds what others fetched before, if its author is gone."""
        members = sorted(self.gallery.members())
        self._turn += 1
        return [members[(bisect(members, self._core.me) + self._turn) % len(members)]] if members else []

    @staticmethod
    def _ask_author(gate: Gate, need: Need, lacking: tuple[int, int] | None, now: float) -> None:
        author = PeerId(need.author.hex())
        if not need.session:
            gate.whole(author, now)
        elif lacking is not None:
            gate.lacks(author, need.session, *lacking, now)

    def _want(self, player: PeerId, want: Want) -> None:
        if self._gates.is_in:
            self._gates.tell(player, want)


class _Allowances:
    """Batches that each member may cost us."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[PeerId, TokenBucket] = OrderedDict()

    def allow(self, member: PeerId, now: float) -> bool:
        known = self._buckets.pop(member, None)
        self._buckets[member] = known or TokenBucket(burst=ANSWERS_BURST, per_second=ANSWERS_PER_S, now=now)
        forget_oldest(self._buckets, ALLOWANCES_MAX)
        return self._buckets[member].allow(now)
