"""A room for programs with a loop of their own: everything that a Trio room can do, without `await`."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, overload

import msgspec

from psyne_mesh.errors import EventBacklog, InvalidConfig
from psyne_mesh.game.commitments import MOVE_S, Round
from psyne_mesh.game.replicas import Replicas
from psyne_mesh.game.rewind import rewound
from psyne_mesh.game.schema import Shared
from psyne_mesh.identity import PeerId
from psyne_mesh.room import events as room_events
from psyne_mesh.room import room as trio_room
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.events import RoomEvent
from psyne_mesh.room.fairness import write_evidence
from psyne_mesh.room.hub import BACKLOG_MAX
from psyne_mesh.room.latency import LatencyReport, latency_report, owner_of, shown_time
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import OURSELVES, Me, Peer, Player
from psyne_mesh.room.playing import G, I, Play
from psyne_mesh.room.room import INVITE_LIFETIME_S
from psyne_mesh.room.sharing import room_event
from psyne_mesh.room.topology import RoomTopology
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.sync.channel import Channel
from psyne_mesh.sync.exchanging import Exchanging
from psyne_mesh.sync.fairness import RemoteFairness
from psyne_mesh.sync.governing import TELL_TIME_S, Governing
from psyne_mesh.sync.handover import Backlog, Outbox
from psyne_mesh.sync.listening import Listening
from psyne_mesh.sync.thread import NetworkThread

M = TypeVar("M", bound=Message)
S = TypeVar("S", bound=Shared)
C = TypeVar("C", bound=Callable[..., Any])

# How long players are waited for unless the call says otherwise: a link over a slow relay takes some seconds.
WAIT_TIMEOUT_S = 30.0
# Of a server that has to be asked.
ASK_TIMEOUT_S = 10.0
# A frame that is early by this share of an interval counts for the send that is due (as in `game/shared.py`).
_EARLY = 0.25


class Room(Listening, Governing, Exchanging):
    """Made by `sync.join_game_room`. Call `poll()` once a frame: it returns what has happened, and calls the handlers.

    All calls belong to the thread that polls. None waits but those that say so by a `timeout`, and these raise
    `DeadlineExceeded` past it. A room that has ended raises what ended it, `ClosedError` if that was `leave`.
    """

    def __init__(self, thread: NetworkThread[Any], room: trio_room.Room) -> None:
        Listening.__init__(self)
        Governing.__init__(self, thread, room)
        Exchanging.__init__(self)
        self._outbox = Outbox(thread)
        self._events: deque[RoomEvent] = deque()
        self._ended = False
        self._failed: Exception | None = None
        self._channels: dict[str, Channel[Any]] = {}
        self._called: list[Channel[Any]] = []
        self._replicas = Replicas(self._parts.traffic.accepts)
        self._backlog = Backlog()
        self._share_due: float | None = None  # None until something is shared or looked for
        self._poller: int | None = None
        self._corrections: dict[PeerId, float | None] = {}
        self._corrected_at = -math.inf
        thread.call(self._attach)

    # ----------------------------------------------------------------------------------------------------------- facts

    @property
    def name(self) -> str:
        return self._room.name

    @property
    def region(self) -> str:
        return self._room.region

    @property
    def max_players(self) -> int:
        return self._room.max_players

    @property
    def skill_range(self) -> tuple[float, float] | None:
        return self._room.skill_range

    @property
    def me(self) -> Me:
        """Our own id; `net.me.state["ready"] = True` is seen by everybody in `peer.state`."""
        return self._me

    @property
    def player(self) -> Any:
        """Ourselves, as the owner of what we share: `id` and `name`."""
        return self._room.player

    @property
    def peers(self) -> Mapping[PeerId, Peer]:
        """The other players, by id, as they are now; once the room has ended, those who were here last."""
        return MappingProxyType(dict(self._room.peers))

    @property
    def connected(self) -> list[Peer]:
        """The players to whom channels are open; nobody once the room has ended."""
        return [peer for peer in self.peers.values() if peer.connected]

    def play(
        self, kind: type[G], *, inputs: type[I], players: int = 2, hz: float = 60.0, delay: int | None = None
    ) -> Play[G, I]:
        """One simulation for all who call this, by rollback, on the game's thread: call `advance(my_input)` of what it
        returns each frame, after `poll()`. The same as `Room.play` under Trio.
        """
        seed = random.SystemRandom()
        return Play(self, kind, inputs, players, hz, delay, lambda: seed.getrandbits(61), time.perf_counter,
            RemoteFairness(self._parts.fairness, self._outbox),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------ fair play

    def evidence(self, path: str | Path) -> None:
        """Write what the others have signed in the last half minute, what they said, and who broke which rules, to a file that
        `psyne-mesh verify` reads. As under Trio."""
        write_evidence(path, self._thread.call(self._parts.fairness.encoded_evidence))

    def roll(self, sides: int = 6, *, players: Iterable[Peer | PeerId] | None = None) -> Round:
        """A die that nobody can load; look at `is_done` and `value` of what it returns in later frames, or take `Rolled` from
        `poll()`. As under Trio."""
        return self._thread.call(partial(self._room.roll, sides, players=players))

    def secret_move(
        self, round: str, move: Any, *, players: Iterable[Peer | PeerId] | None = None, timeout: float = MOVE_S
    ) -> Round:
        """Our move in a round in which all move at once, hidden until every player of it has made one. As under Trio."""
        return self._thread.call(partial(self._room.secret_move, round, move, players=players, timeout=timeout))

    def witness(self, tick: int, *, besides: Iterable[Peer | PeerId] = (), seed: int = 0) -> PeerId | None:
        """The member who is to check what is claimed at `tick`, by lot. As under Trio."""
        return self._thread.call(partial(self._room.witness, tick, besides=besides, seed=seed))

    # ------------------------------------------------------------------------------------------------------- each frame

    def poll(self) -> list[RoomEvent]:
        """What has happened since the last time, in order; never waits. Handlers are called here, on the game's thread,
        and what we share goes out. Once the room has ended, the events before that come first, and the next call raises
        what ended it; an error in a handler leaves this call, and what was not handled yet comes with the next one.
        """
        self._check_thread()
        self._publish()
        self._take_in_shared()
        events: list[RoomEvent] = []
        while self._events:
            event = self._events.popleft()
            events.append(event)
            self._note(event)
        if not events and not self._replays and not self._undone:
            self._raise_if_ended()
        self._call_handlers()
        return events

    def _note(self, event: RoomEvent) -> None:
        self._facts.note(event)
        if isinstance(event, room_events.HostChanged) and event.host == self.player:
            for taken in self._replicas.take_over(event.term, self.player):
                self._outbox.run(partial(self._parts.traffic.add, *taken))
        self._undone.extend([(handler, event) for kind, handler in self._handlers if isinstance(event, kind)])
        for reference in list(self._feeds):
            feed = reference()
            if feed is None:
                self._feeds.remove(reference)
            else:
                feed.put(event)

    def _call_handlers(self) -> None:
        for due in (self._replays, self._undone):
            while due:
                handler, event = due.popleft()
                handler(event)
        for channel in self._called:
            channel.call()
        self._answer_questions()
        self._tell_progress()

    # --------------------------------------------------------------------------------------------------------- players

    def wait_connected(self, players: int | None = None, *, timeout: float = WAIT_TIMEOUT_S) -> None:
        """Wait until so many other players can be reached; without a number, until all who are known can be. Nothing is drawn
        meanwhile: a game rather shows `len(net.connected)` while it polls.

        Raises `DeadlineExceeded`, `ClosedError` when the room ends meanwhile, and `InvalidConfig` for more players than
        seats.
        """
        self._thread.call_async(self._room.wait_connected, players, timeout=timeout)

    def wait_left(self, peer: Peer, *, timeout: float = WAIT_TIMEOUT_S) -> None:
        """Until the player has left. Raises `DeadlineExceeded`, and `ClosedError` when our own room ends first."""
        self._thread.call_async(self._room.wait_left, peer, timeout=timeout)

    def topology(self) -> RoomTopology:
        """What this player sees of the mesh: its own links with their round trips and paths, and who else is there."""
        return self._thread.call(self._room.topology)

    def rooms(self, *, timeout: float = ASK_TIMEOUT_S) -> tuple[RoomInfo, ...]:
        """The rooms of the same `app_id` that our signaling server knows, up to a hundred. Raises `SignalingLost` while it is
        out of reach, `DeadlineExceeded`, `ClosedError`."""
        return self._thread.call_async(self._room.rooms, timeout=timeout)

    @property
    def info(self) -> RoomInfo:
        """The room as its creator signed it: policy, version, metadata."""
        return self._room.info

    @property
    def code(self) -> str:
        """By which friends enter this very instance: `sync.join_room("K7QM-3FHT")`."""
        return self._room.code

    def invite(self, lifetime_s: float = INVITE_LIFETIME_S) -> str:
        """Of a room with `policy="invite"` that we made: a text for a friend, who enters with `join_room(text)`."""
        return self._thread.call(self._room.invite, lifetime_s)

    def leave(self, *, timeout: float = ASK_TIMEOUT_S) -> None:
        """Say goodbye, behind what was sent reliably so far; the others see it at once. Leaving the block does the same."""
        self._thread.call_async(self._room.leave, timeout=timeout)

    # ------------------------------------------------------------------------------------------------------- channels

    @overload
    def channel(
        self, name: str, kind: type[M], /, *, mode: DeliveryMode | str | None = ..., priority: int | None = ...,
        inbox_max: int | None = ...,
    ) -> Channel[M]: ...  # fmt: skip
    @overload
    def channel(
        self, name: str, /, *kinds: type[Message], mode: DeliveryMode | str | None = ..., priority: int | None = ...,
        inbox_max: int | None = ...,
    ) -> Channel[Any]: ...  # fmt: skip
    def channel(
        self, name: str, /, *kinds: type[Message], mode: DeliveryMode | str | None = None, priority: int | None = None,
        inbox_max: int | None = None,
    ) -> Channel[Any]:  # fmt: skip
        """The broadcast channel of that name, as under Trio; the same object when asked again."""

        def made() -> Channel[Any]:
            inner = self._room.channel(name, *kinds, mode=mode, priority=priority, inbox_max=inbox_max)
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = Channel(inner, self._outbox, self._called)
                channel.attach(self._events.append)
                if channel.mode.reliable:
                    self._thread.spawn(channel.send_reliably)
            return channel

        return self._thread.call(made)

    # -------------------------------------------------------------------------------------------------- shared objects

    def share(self, shared: S, *, owner: Peer | Player | None = OURSELVES) -> S:
        """Show an object of ours to everybody, those who come later included, until `unshare` or we leave. What is
        written into its fields goes out with the next `poll()` or `all()`, 30 times a second at most, the newest value
        of each. `owner=net.host`, which only the host can say: an object of the room, which the next host goes on with.

        Raises `InvalidConfig` for what is no object of a subclass of `Shared`, or has a field that cannot travel. A
        value that cannot travel is `UnserialisableMessage` out of `poll()`, naming the field.
        """
        self._raise_if_ended()
        term = 0 if owner is OURSELVES else self._thread.call(self._parts.traffic.term_for, owner)
        new = self._replicas.share(shared, self.player, term)
        self._begin_sharing()
        self._outbox.run(lambda: self._parts.traffic.add(*new))
        return shared

    def update_player(self, *, name: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        """Change our name or our metadata; what is left out stays. The others get `PeerChanged`."""
        self._thread.call(partial(self._room.update_player, name=name, metadata=metadata))

    def shown_time(self, shared: Shared) -> float:
        """When what we see of this object in this frame was so at its owner, by the room's clock: the moment that a shot at it
        is to say. As under Trio."""
        now, owner = self.time(), owner_of(shared)
        playback = None if owner is None or owner == self.me else self._replicas.playback(owner)
        return shown_time(playback, None if owner is None else self._correction(owner), now)

    def rewind(self, at: float, kind: type[S] = Shared) -> list[S]:  # type: ignore[assignment]
        """Copies of the shared objects of that class as they were at `at` of the room's time, 250 ms back at most: with
        `at=shot.time`, taken from `shown_time(target)`, as the shooter saw them. As under Trio."""
        now = self.time()
        return rewound(
            self._replicas.pasts(kind), at, now, lambda owner: self._correction(self.me if owner is None else owner)
        )

    def latency(self, peer: Peer) -> LatencyReport:
        """How late everything is between us and that player. As under Trio."""
        self._raise_if_ended()
        report = self._thread.call(partial(self._room.latency, peer))
        playback, correction = self._replicas.playback(peer.id), self._correction(peer.id)
        ours = latency_report(None, None, playback, correction, self.time())
        return msgspec.structs.replace(
            report, lateness_ms=ours.lateness_ms, smoothing_ms=ours.smoothing_ms, seen_ago_ms=ours.seen_ago_ms
        )

    def _correction(self, player: PeerId) -> float | None:
        """Asked of the network's thread for all players together, as often as the time."""
        now = time.perf_counter()
        if now - self._corrected_at >= TELL_TIME_S:
            self._corrected_at = now
            self._corrections = self._thread.call(self._parts.corrections)
        return self._corrections.get(player)

    @contextmanager
    def pause(self, reason: str = "paused") -> Iterator[None]:
        """`with net.pause("loading a level"):` the others see `PeerAway` with that reason, and `PeerBack` at the end of the
        block. Pauses do not nest. Raises `InvalidConfig`, `ClosedError`, `DeadlineExceeded`."""
        pause = self._room.pause(reason)
        self._thread.call(pause.__enter__)
        try:
            yield
        finally:
            if self._thread.is_running:  # else nobody is left to be told
                self._thread.call(pause.__exit__, None, None, None)

    def unshare(self, shared: Shared) -> None:
        """Take an object of ours back; the others see `SharedGone`."""
        self._raise_if_ended()
        number = self._replicas.unshare(shared)
        self._outbox.run(lambda: self._parts.traffic.remove(number))

    def all(self, kind: type[S]) -> Iterable[S]:
        """All objects of that class that are shared in the room, ours first. Smooth fields of the others' are as they
        are to be seen in this frame, since the last `poll()`."""
        self._raise_if_ended()
        self._replicas.know(kind)
        self._begin_sharing()
        self._publish()
        return self._replicas.all(kind)

    def _begin_sharing(self) -> None:
        if self._share_due is None:
            self._share_due = 0.0
            self._outbox.run(lambda: self._parts.traffic.start(self._backlog.put))

    def _publish(self) -> None:
        if self._share_due is None or not self._thread.is_running:
            return
        now, interval = self._thread.now(), self._parts.traffic.interval_s
        if now < self._share_due - _EARLY * interval:
            return
        changes = self._replicas.changes()
        self._replicas.record(now)
        self._share_due = max(self._share_due + interval, now + (1 - _EARLY) * interval)
        if changes:
            self._outbox.run(lambda: self._parts.traffic.update(changes, now))

    def _take_in_shared(self) -> None:
        if self._share_due is None:
            return
        for event, peer in self._backlog.take():
            self._replicas.apply(event, peer)
            if self._room.peers.get(peer.id) is not peer:
                self._replicas.forget(peer.id)
        self._replicas.sample(self._thread.now())
        for news in self._replicas.take_events():
            self._events.append(room_event(news))
        for number in self._replicas.take_released():
            self._outbox.run(partial(self._parts.traffic.release, number))

    # --------------------------------------------------------------------------------------------- on the network's thread

    def _attach(self) -> None:
        self._thread.spawn(self._follow)
        trio_room.inside(self._room).read_through(self._thread.read)
        self._parts.asking.on_asked = self._asked

    async def _follow(self) -> None:
        """Every event of the room, until it ends."""
        try:
            async for event in self._room.events():
                if len(self._events) >= BACKLOG_MAX:
                    raise EventBacklog(f"poll() is {BACKLOG_MAX} events behind")
                self._events.append(event)
        except EventBacklog as error:
            self._failed = error
        self._ended = True  # not when the whole block ends: then the thread says what ended it

    # --------------------------------------------------------------------------------------------------------- helpers

    def _raise_if_ended(self) -> None:
        if self._ended or not self._thread.is_running:
            raise self._end()

    def _end(self) -> BaseException:
        if self._failed is not None:
            return self._failed
        if self._thread.ended is not None:
            return self._thread.ended
        return trio_room.inside(self._room).over()

    def _check_thread(self) -> None:
        here = threading.get_ident()
        if self._poller != here:
            if self._poller is not None:
                raise InvalidConfig(
                    "poll() was called on two threads: call it on one, and hand over to the other with queue.SimpleQueue"
                )
            self._poller = here

    def __aiter__(self) -> Any:
        raise InvalidConfig("this room is of psyne_mesh.sync: write `for event in net.poll()`, without async")

    def __repr__(self) -> str:
        return f"<Room {self.name!r} {len(self.connected)} of {len(self.peers)} others connected>"
