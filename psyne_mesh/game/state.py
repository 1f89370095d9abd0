"""What is replicated in a room beside objects: a small map of each player's own, and one of the room, which its host writes.

Who writes a map tells everybody what changed, reliably and in order, at most 30 times a second; who comes gets all of it. A
copy that does not follow on what is told says where it stands, and gets the rest. So writers know nothing of readers,
and what is lost with a link, or on the way through others, is found by the next word; a few words that only say where
the map stands follow each change.

Of two writers of the room's map the one counts who is the host (`game/host.py`): terms order what they write. A new host
goes on from its own copy. Whose copy stood where that one stood takes nothing but the new term; everybody else gets the
whole map, so that all hold the same whatever of the last host's words came to whom.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

from psyne_mesh.errors import MessageTooLarge, ProtocolError
from psyne_mesh.game.state_map import COPY_BYTES_MAX, STATE_BYTES_MAX, Copy, Log, size_of
from psyne_mesh.game.state_wire import NOWHERE, At, Have, Part, Stand, StateWord, encode
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket, forget_oldest

TELL_EVERY_S = 1 / 30
"""As shared objects: what is written meanwhile goes out as one."""
REMIND_AFTER_S = (1.0, 5.0, 25.0)
"""After the last change everybody is told where the map stands: a lost last word is found by one of these."""
GREET_AFTER_S = (2.0, 10.0)
"""The same to who came, as what others carry to it may be lost."""
ASK_EVERY_S = 0.25
ASK_EVERY_MAX_S = 8.0
"""A copy that is behind asks, and again after twice as long each time: an answer takes a round trip, or does not come."""
HOST_WORD_S = 0.3
"""A new host speaks by itself; who has not heard it for so long asks."""
ANSWER_BURST_BYTES = 4 * COPY_BYTES_MAX
ANSWER_BYTES_PER_S = COPY_BYTES_MAX / ASK_EVERY_MAX_S
"""One player may ask for so much: four copies at once, then one as often as who hears nothing asks. Who asks for more gets none
until then, and nothing is looked up for it.
"""
LEFT_MAX = 1024
"""Who had a map and has left; the oldest is forgotten."""

_LOOK_BYTES = 512
"""Of an allowance, for looking up what has changed: though it is nothing, the look takes as long as sending so much."""

ROOM = b""
KINDS = {"=": STATE_BYTES_MAX, "@": STATE_BYTES_MAX // 2, "!": STATE_BYTES_MAX // 4}
"""Keys of the room's map begin with what they are: the game's state, timers, the barred; each kind may take so many bytes."""


class Changed:
    """A key of a map has another value; None: it is gone. owner: whose map, None for the room's. is_first: it came with the
    first that we heard of this map.
    """

    def __init__(self, owner: PeerId | None, key: str, value: bytes | None, *, is_first: bool = False) -> None:
        self.owner = owner
        self.key = key
        self.value = value
        self.is_first = is_first


class _Want:
    """A copy is behind: `peer` has told of (term, sequence)."""

    def __init__(self, peer: PeerId, term: int, sequence: int, ask_at: float) -> None:
        self.peer = peer
        self.reach = term, sequence
        self.ask_at = ask_at
        self.pause_s = ASK_EVERY_S


class States:
    """1. `peer_joined(peer, now)` and `peer_left(peer)`; `host_changed(term, host, now)`. 2. `write(key, value, now)` for our
    own map; `write_room(key, value, term, now)` while we are the host of that term. 3. `receive(peer, word, now)` for each
    word of a player who is here. 4. `handle_timeout(now)` at `next_timeout()`. 5. After each: send `take_outputs()`, reliably
    and in order, None being everybody; `take_events()`.

    stay: grows with each stay of one key in the room, so that an older one's words do not count. accepts: whether what that
    player decided as the host of that term counts (`HostLease.accepts`).
    """

    def __init__(self, me: PeerId, stay: int, accepts: Callable[[PeerId, int], bool]) -> None:
        self._me = me
        self._accepts = accepts
        self.own = Log(me.raw, me.raw, stay)
        self._copies: dict[PeerId, Copy] = {}
        # Who had a map and is gone: it may not know that we forgot it
        self._left: OrderedDict[PeerId, None] = OrderedDict()
        self.room = Copy()
        self._hosted: Log | None = None  # the same, while we write it
        self._told: dict[bytes, Stand] = {}  # by map of ours, what everybody was told
        self._tell_at: dict[bytes, float] = {}
        self._told_at = -math.inf
        self._reminders: dict[bytes, list[float]] = {}
        self._greetings: dict[PeerId, list[float]] = {}
        self._wants: dict[bytes, _Want] = {}
        self._term = 0
        self._is_behind = False  # words of the room's map came that we could not take
        self._allowances: dict[PeerId, TokenBucket] = {}
        self._outputs: list[tuple[PeerId | None, StateWord]] = []
        self._events: list[Changed] = []
        self.refused = 0

    # ------------------------------------------------------------------------------------------------- questions

    def of(self, peer: PeerId) -> Mapping[str, bytes]:
        """The map of a player, ourselves included; it is replaced and never changed."""
        if peer == self._me:
            return self.own.values
        copy = self._copies.get(peer)
        return copy.values if copy is not None else {}

    @property
    def hosted(self) -> Mapping[str, bytes]:
        """The room's map, as far as we know it."""
        return self.room.values

    @property
    def stand(self) -> Stand:
        """Of the room's map here."""
        return self.room.stand

    # ------------------------------------------------------------------------------------------------------ verbs

    def write(self, key: str, value: bytes | None, now: float) -> None:
        """`MessageTooLarge` beyond 64 KiB; nothing has changed then."""
        if self.own.write(key, value, STATE_BYTES_MAX):
            self._events.append(Changed(self._me, key, value))
            self._due(self.own.owner, now)

    def write_room(self, key: str, value: bytes | None, term: int, now: float) -> None:
        """The same in the room's map, whose keys begin with one of `KINDS`. term: ours, as the host."""
        if value is not None:
            kind = {each: known for each, known in self.room.values.items() if each[0] == key[0]} | {key: value}
            if (size := size_of(kind)) > KINDS[key[0]]:
                raise MessageTooLarge(size, KINDS[key[0]])
        if self._hosted is None or self._hosted.stand.term < term:
            self.host_changed(term, self._me, now)
        assert self._hosted is not None
        if self._hosted.write(key, value):
            self.room.put(self._hosted.values, self._hosted.stand)
            self._events.append(Changed(None, key, value))
            self._due(ROOM, now)

    def peer_joined(self, peer: PeerId, now: float) -> None:
        self._copies[peer] = Copy()
        self._greetings[peer] = [now + after for after in GREET_AFTER_S]
        for log in self._logs():
            if log.values:
                self._outputs += [(peer, part) for part in log.parts(NOWHERE)]
        if peer in self._left:
            del self._left[peer]
            self._want(peer, peer.raw, 1, 0, now)

    def peer_left(self, peer: PeerId) -> None:
        copy = self._copies.pop(peer, None)
        if copy is not None and copy.values:
            self._left[peer] = None
            forget_oldest(self._left, LEFT_MAX)
        self._greetings.pop(peer, None)
        self._allowances.pop(peer, None)
        self._wants = {owner: want for owner, want in self._wants.items() if want.peer != peer}

    def host_changed(self, term: int, host: PeerId | None, now: float) -> None:
        self._term = max(self._term, term)
        self._wants.pop(ROOM, None)
        if host == self._me:
            if self._hosted is None or self._hosted.stand.term < term:
                self._take_over(term, now)
        elif host is not None:
            if self._hosted is not None and self._hosted.stand.term < term:
                self._hosted = None
                self._forget_log(ROOM)
            if self.room.stand.term < term and (self._is_behind or self.room.values):
                self._want(host, ROOM, term, 0, now + (0.0 if self._is_behind else HOST_WORD_S))

    def receive(self, peer: PeerId, word: StateWord, now: float) -> None:
        """Raises ProtocolError for what no player says; nothing has changed then."""
        if peer not in self._copies:
            return
        if isinstance(word, Have):
            self._answer(peer, word, now)
            return
        copy = self._copy_for(peer, word.owner)
        if copy is None or (word.owner == ROOM and not self._is_of_host(peer, word.term)):
            return
        if isinstance(word, At):
            if not copy.is_old(word.term, word.sequence, peer.raw):
                self._want(peer, word.owner, word.term, word.sequence, now)
            return
        is_first = copy.stand == NOWHERE
        changes = copy.take(word, peer.raw)
        if changes is None:
            self._want(peer, word.owner, word.term, word.sequence, now)
            return
        self._note_progress(word.owner, copy, now)
        owner = peer if word.owner else None
        self._events += [Changed(owner, key, value, is_first=is_first) for key, value in changes]

    def next_timeout(self) -> float:
        dues = [math.inf, *self._tell_at.values(), *[want.ask_at for want in self._wants.values()]]
        dues += [reminders[0] for reminders in self._reminders.values() if reminders]
        dues += [greetings[0] for greetings in self._greetings.values() if greetings]
        return min(dues)

    def handle_timeout(self, now: float) -> None:
        for log in self._logs():
            if now >= self._tell_at.get(log.owner, math.inf):
                self._tell(log, now)
            reminders = self._reminders.get(log.owner, [])
            if reminders and now >= reminders[0]:
                del reminders[0]
                self._outputs.append((None, self._at(log)))
        for peer, greetings in self._greetings.items():
            if greetings and now >= greetings[0]:
                del greetings[0]
                self._outputs += [(peer, self._at(log)) for log in self._logs() if log.values]
        for owner, want in self._wants.items():
            if now >= want.ask_at:
                want.ask_at = now + want.pause_s
                want.pause_s = min(2 * want.pause_s, ASK_EVERY_MAX_S)
                copy = self.room if owner == ROOM else self._copies.get(want.peer)
                if copy is not None and want.peer in self._copies:
                    self._outputs.append((want.peer, Have(owner, copy.stand)))

    def tell_now(self, now: float) -> None:
        """What was written and waits for its turn goes out: we are about to leave."""
        for log in self._logs():
            if log.owner in self._tell_at:
                self._tell(log, now)

    def take_outputs(self) -> list[tuple[PeerId | None, StateWord]]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_events(self) -> list[Changed]:
        events, self._events = self._events, []
        return events

    # ------------------------------------------------------------------------------------------------- what we write

    def _logs(self) -> list[Log]:
        return [self.own] if self._hosted is None else [self.own, self._hosted]

    def _forget_log(self, owner: bytes) -> None:
        self._told.pop(owner, None)
        self._tell_at.pop(owner, None)
        self._reminders.pop(owner, None)

    def _due(self, owner: bytes, now: float) -> None:
        if owner not in self._tell_at:
            self._tell_at[owner] = max(now, self._told_at + TELL_EVERY_S)

    def _tell(self, log: Log, now: float) -> None:
        del self._tell_at[log.owner]
        self._told_at = now
        before = self._told.get(log.owner, log.base)
        self._outputs += [(None, part) for part in log.parts(before)]
        self._told[log.owner] = log.stand
        self._reminders[log.owner] = [now + after for after in REMIND_AFTER_S]

    def _take_over(self, term: int, now: float) -> None:
        base = self.room.stand
        self._forget_log(ROOM)
        self._hosted = Log(ROOM, self._me.raw, term, base, self.room.values)
        self.room.stand = self._hosted.stand
        if self.room.values:  # who holds some, and hears nothing of us, asks
            self._told[ROOM] = self._hosted.stand
            self._outputs.append((None, Part(ROOM, term, 0, base, 0, 1, [])))
            self._reminders[ROOM] = [now + after for after in REMIND_AFTER_S]

    def _at(self, log: Log) -> At:
        return At(log.owner, log.stand.term, log.stand.sequence)

    def _answer(self, peer: PeerId, word: Have, now: float) -> None:
        for log in self._logs():
            if log.owner != word.owner:
                continue
            allowance = self._allowances.get(peer)
            if allowance is None:
                allowance = self._allowances[peer] = TokenBucket(
                    burst=ANSWER_BURST_BYTES, per_second=ANSWER_BYTES_PER_S, now=now
                )
            if allowance.left(now) <= 0.0:
                continue
            parts = log.parts(word.stand)
            allowance.charge(_LOOK_BYTES + sum(len(encode(part)) for part in parts), now)
            self._outputs += [(peer, part) for part in parts]

    # -------------------------------------------------------------------------------------------------- what we read

    def _copy_for(self, peer: PeerId, owner: bytes) -> Copy | None:
        if owner == ROOM:
            return self.room
        if owner != peer.raw:
            raise ProtocolError("a player speaks of another one's map")
        return self._copies[peer]

    def _is_of_host(self, peer: PeerId, term: int) -> bool:
        """Older terms are refused. Of a host whom we do not know yet nothing is taken; we ask it once we do."""
        if self._accepts(peer, term):
            return True
        if term >= self._term:
            self._is_behind = True
        else:
            self.refused += 1
        return False

    def _want(self, peer: PeerId, owner: bytes, term: int, sequence: int, ask_at: float) -> None:
        want = self._wants.get(owner)
        if want is None or want.peer != peer:
            self._wants[owner] = _Want(peer, term, sequence, ask_at)
        else:
            want.reach = max(want.reach, (term, sequence))

    def _note_progress(self, owner: bytes, copy: Copy, now: float) -> None:
        if owner == ROOM:
            self._is_behind = False
        want = self._wants.get(owner)
        if want is not None:
            if (copy.stand.term, copy.stand.sequence) >= want.reach:
                del self._wants[owner]
            else:
                want.ask_at, want.pause_s = now + ASK_EVERY_S, ASK_EVERY_S  # more of it is on its way


def whole_of(states: States) -> list[Part]:
    """All of the maps that we write, for who has nothing of them."""
    logs = [log for log in states._logs() if log.stand.sequence or log.values]
    return [part for log in logs for part in log.parts(NOWHERE)]
