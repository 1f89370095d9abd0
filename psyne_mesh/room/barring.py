"""Kick and ban: the host's orders in the room's map, and votes on a reliable channel of their own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from psyne_mesh.errors import ClosedError, InvalidConfig, MessageTooLarge, NotHost, ProtocolError
from psyne_mesh.game.bans import BARRED, REASON_MAX, VOTE_S, Order, Vote, Votes, needed, read_untrusted, signed
from psyne_mesh.game.state import Changed
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.limits import TokenBucket, forget_oldest
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.names import is_plain
from psyne_mesh.room.events import RoomEvent, VoteCast
from psyne_mesh.room.hosting import Hosting
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.states import StateTraffic

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

CHANNEL = "psyne.kick"
CLOCKS_S = 30.0
"""The wall clocks of two machines may differ by so much, where no server tells the time."""
VOTES_BURST, VOTES_PER_S = 32, 2
"""Votes of one player that are looked at: each costs a signature, as much as a hundred positions. A person needs fewer."""
SENDERS_MAX = 1024


@uninterrupted
class Barring:
    """1. The room's task is in `run()`. 2. `kick(peer, reason)` as the host, `vote(peer, reason)` as anybody. 3.
    `changed(event)` for each change of the room's map that is about this; `host_changed()` when we are the host.
    """

    def __init__(
        self, room: Room, identity: Identity, states: StateTraffic, hosting: Hosting, publish: Callable[[RoomEvent], None],
        joined: Callable[[], Membership], expelled: Callable[[], None], wall_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._room = room
        self._identity = identity
        self._states = states
        self._hosting = hosting
        self._publish = publish
        self._joined = joined
        self._expelled = expelled
        self._wall_ms = wall_ms
        self._votes = Votes()
        self._channel: Any = None
        self._allowances: OrderedDict[PeerId, TokenBucket] = OrderedDict()
        self.barred: dict[PeerId, str] = {}
        self.refused = 0

    # ------------------------------------------------------------------------------------------------------- the game's

    def kick(self, peer: Peer | PeerId, reason: str) -> None:
        self._order(_checked(peer, reason, "kick", self._room.me), reason)

    def vote(self, peer: Peer | PeerId, reason: str) -> None:
        subject = _checked(peer, reason, "vote_kick", self._room.me)
        word = Vote(self._joined().tag, subject.raw, self._wall_ms(), reason)
        with suppress(MessageTooLarge):
            self._channel.send_nowait(signed(self._identity, word))
        self._count(self._room.me, subject, reason)

    # ---------------------------------------------------------------------------------------------------- what is heard

    def changed(self, event: Changed) -> None:
        """The map is behind the host's fence; what it holds must be signed all the same, and of a host: of this one, or of one
        before it."""
        if event.value is None:
            return  # there is no pardon
        try:
            subject = PeerId.parse_untrusted(event.key[1:])
            signer, order = read_untrusted(event.value, self._joined().tag)
            if not isinstance(order, Order) or order.subject != subject.raw:
                raise ProtocolError("an order about another player")
            is_of_this_term = order.term >= self._hosting.term
            if is_of_this_term and signer != self._room.me and not self._hosting.accepts(signer, order.term):
                raise ProtocolError("an order of who is not the host")
        except ProtocolError:
            self.refused += 1
            return
        self._bar(subject, order.reason)

    def host_changed(self) -> None:
        """We are the host: what was decided by votes, perhaps against the last one, is written down."""
        for subject, reason in self.barred.items():
            if not self._states.holds(BARRED + subject):
                with suppress(NotHost):
                    self._order(subject, reason)

    async def run(self) -> None:
        try:
            self._channel = self._room.channel(CHANNEL, mode="reliable")
        except ClosedError:
            return  # the room ended before its task began
        async for sender, data in self._channel:
            if not self._affords(sender.id):
                self.refused += 1
                continue
            try:
                signer, vote = read_untrusted(data, self._joined().tag)
                age_s = (self._wall_ms() - vote.at_ms) / 1000 if isinstance(vote, Vote) else VOTE_S + CLOCKS_S
                if signer != sender.id or abs(age_s) >= VOTE_S + CLOCKS_S:
                    raise ProtocolError("a vote of another player, or an old one")
            except ProtocolError:
                self.refused += 1
                continue
            except ClosedError:
                return
            self._count(signer, PeerId.from_raw_untrusted(vote.subject), vote.reason)

    # --------------------------------------------------------------------------------------------------------- helpers

    def _affords(self, sender: PeerId) -> bool:
        now = trio.current_time()
        if sender not in self._allowances:
            self._allowances[sender] = TokenBucket(burst=VOTES_BURST, per_second=VOTES_PER_S, now=now)
            forget_oldest(self._allowances, SENDERS_MAX)
        return self._allowances[sender].allow(now)

    def _order(self, subject: PeerId, reason: str) -> None:
        order = Order(self._joined().tag, subject.raw, self._hosting.term, reason)
        self._states.write_room(BARRED + subject, signed(self._identity, order))

    def _count(self, voter: PeerId, subject: PeerId, reason: str) -> None:
        now = trio.current_time()
        seated = frozenset(each for each in self._room.seats if each is not None)
        if subject in self.barred or subject not in seated or voter not in seated:
            return
        self._votes.heard(voter, subject, now)
        self._publish(VoteCast(subject, voter, self._votes.count(subject, seated, now), needed(seated), reason))
        if self._votes.is_decided(subject, seated, now):
            if self._hosting.is_on and self._hosting.is_host() and subject != self._room.me:
                with suppress(NotHost):
                    self._order(subject, reason)
            self._bar(subject, reason)

    def _bar(self, subject: PeerId, reason: str) -> None:
        if subject in self.barred:
            return
        self.barred[subject] = reason
        if subject == self._room.me:
            self._expelled()
        else:
            self._states.tell_now()  # while it hears us: it is to know
            self._joined().tell(lambda node, now: node.expel(subject, now))


def _checked(peer: Peer | PeerId, reason: str, where: str, me: PeerId) -> PeerId:
    subject = peer.id if isinstance(peer, Peer) else peer
    if not isinstance(subject, PeerId):
        raise InvalidConfig(f"{where}({peer!r}): must be a Peer or a PeerId")
    if subject == me:
        raise InvalidConfig(f"{where}: that is ourselves; write room.leave()")
    if not isinstance(reason, str) or len(reason) > REASON_MAX or not is_plain(reason):
        raise InvalidConfig(f"reason = {reason!r}: must be up to {REASON_MAX} characters, without controls")
    return subject
