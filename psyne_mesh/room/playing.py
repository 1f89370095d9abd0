"""A rollback game in a room: who plays in which seat, when the first tick is due, and how the simulations hear each other.

The same object serves both doors: it asks a room for channels, seats, the clock and the host, by the names that both have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec

from psyne_mesh.errors import InvalidConfig, PeerGone, ProtocolError, WouldBlock
from psyne_mesh.game.evidence import VOTE_STREAM, vote
from psyne_mesh.game.rollback import (
    Budget,
    Effect,
    Feed,
    Game,
    Input,
    InputLayout,
    Random,
    RollbackSession,
    SeatJoined,
    SessionEvent,
    SessionStats,
    Simulation,
    Spectator,
    difference_of,
)
from psyne_mesh.game.rollback.session import SEATS_MAX, WARM_UP_TICKS
from psyne_mesh.game.transcript import digest_of
from psyne_mesh.identity import PeerId
from psyne_mesh.words import read_untrusted

SPAN_TICKS = 30
"""Half a second at 60 Hz, as for messages (`game/transcript.py`)."""
START_IN_S = 0.5
"""From the host's word to the first tick: enough for the word to be everywhere."""
START_LATEST_S = 5.0
"""Nobody begins a game later than that: so far in the future lies only what another clock says."""
READY_EVERY_S = 0.25
FEED_EVERY_S = 0.1
RECEIVE_MAX = 2048
"""Words taken in each frame: what a flood holds is taken in the next ones."""
_Raw = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """I want to play, or to go on playing. `is_live`: I have watched until now, and can take my seat."""

    kind: Annotated[str, msgspec.Meta(max_length=200)]
    is_live: bool = False


class Start(msgspec.Struct, frozen=True, array_like=True, tag="start"):
    """The host: the first tick is due at `at` of the room's clock, and these play it, each in its seat."""

    at: float
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    players: Annotated[
        list[tuple[Annotated[int, msgspec.Meta(ge=0, lt=SEATS_MAX)], _Raw]], msgspec.Meta(max_length=SEATS_MAX)
    ]


class Running(msgspec.Struct, frozen=True, array_like=True, tag="running"):
    """To who comes later: what `Start` said, and who has which seat now."""

    at: float
    players: Annotated[
        list[tuple[Annotated[int, msgspec.Meta(ge=0, lt=SEATS_MAX)], _Raw]], msgspec.Meta(max_length=SEATS_MAX)
    ]


_control = msgspec.msgpack.Decoder(Ready | Start | Running)
_CONTROL, _SESSION = b"\0", b"\1"


def control_untrusted(data: bytes) -> Ready | Start | Running:
    """Raises ProtocolError."""
    word: Ready | Start | Running = read_untrusted(_control, data, "a word about a game")
    if not isinstance(word, Ready) and not math.isfinite(word.at):
        raise ProtocolError("a game that starts at no time")
    return word


class Door(Protocol):
    """What both rooms have."""

    @property
    def me(self) -> PeerId: ...

    @property
    def peers(self) -> Mapping[PeerId, Any]: ...

    @property
    def seats(self) -> tuple[PeerId | None, ...]: ...

    @property
    def host(self) -> Any: ...

    @property
    def is_host(self) -> bool: ...

    @property
    def voters(self) -> frozenset[PeerId]: ...

    def time(self) -> float: ...

    def time_error(self) -> float: ...

    def channel(self, name: str, /, *, mode: str) -> Any: ...


class Testimony(Protocol):
    """Where what was said in each span of SPAN_TICKS is signed, or held against what its sender signs."""

    def said_span(self, stream: str, span: int, entries: list[bytes], /) -> None: ...

    def heard_span(self, peer: PeerId, stream: str, span: int, digest: bytes, /) -> None: ...


G = TypeVar("G", bound=Game)
I = TypeVar("I", bound=Input)  # noqa: E741


class Play(Generic[G, I]):
    """Made by `room.play`. Each frame: `advance(my_input)`, then draw `state`.

    `state` is None until the game has begun (`is_begun`): the host starts it once `players` want to play. Who comes later
    watches first, and takes its seat while the others play on. `events()` tells who joined, who left, and whose simulation
    is another; `effects()` gives each sound once.
    """

    def __init__(
        self, room: Door, kind: type[G], inputs: type[I], players: int, hz: float, delay: int | None, seed: Callable[[], int],
        timer: Callable[[], float], testimony: Testimony,
    ) -> None:  # fmt: skip
        if not (isinstance(kind, type) and issubclass(kind, Game)):
            raise InvalidConfig(f"play({kind!r}): a game is a subclass of rollback.Game")
        if not isinstance(players, int) or not 1 <= players <= SEATS_MAX:
            raise InvalidConfig(f"players = {players!r}: must be 1 to {SEATS_MAX}")
        self._room, self._kind, self._seed, self._timer = room, kind, seed, timer
        self._testimony = testimony
        self._next_spans: dict[PeerId, int] = {}
        self._layout = InputLayout(inputs)
        self._players_wanted, self._hz, self._delay = players, hz, delay
        kind()  # every field has a default: said here, and not in the middle of a game
        self._inputs = room.channel(f"psyne.play.{kind.__name__}", mode="unreliable")
        self._words = room.channel(f"psyne.play.{kind.__name__}.words", mode="reliable")
        self._seat_of: dict[PeerId, int] = {}
        self._ready: dict[PeerId, bool] = {}
        self._at = 0.0
        self._offered: tuple[PeerId, Start] | None = None
        self._started: Start | None = None  # what we told, as the host
        self._session: RollbackSession | None = None
        self._spectator: Spectator | None = None
        self._simulation: Simulation[G, I] | None = None
        self._feed: Feed | None = None
        self._joins_at: dict[PeerId, int] = {}
        self._said_at = self._fed_at = -math.inf
        self._events: list[SessionEvent] = []
        self.refused = 0

    # --------------------------------------------------------------------------------------------------------- the game's

    @property
    def state(self) -> G | None:
        return self._simulation.state if self._simulation is not None else None

    @property
    def is_begun(self) -> bool:
        """We play. Before that we wait for the others, or watch until we can take our seat."""
        return self._session is not None

    @property
    def seat(self) -> int | None:
        """The index of our own input in `tick`; None while we do not play."""
        return self._session.me if self._session is not None else None

    @property
    def players(self) -> dict[int, PeerId]:
        """Who plays in which seat."""
        now = self._session.players if self._session is not None else frozenset(self._seat_of.values())
        return {seat: peer for peer, seat in self._seat_of.items() if seat in now}

    @property
    def stats(self) -> SessionStats | None:
        return self._session.stats if self._session is not None else None

    @property
    def budget(self) -> Budget | None:
        """What a tick and a save cost here, and whether a frame can hold the longest replay."""
        return self._simulation.budget if self._simulation is not None else None

    def events(self) -> list[SessionEvent]:
        """What has happened since the last time; see `psyne_mesh.game.rollback`."""
        events, self._events = self._events, []
        return events

    def effects(self) -> list[Effect]:
        return self._simulation.effects() if self._simulation is not None else []

    def advance(self, local: I) -> int:
        """Simulate what is due. Returns how many ticks were new. Raises `GameFailed` if `tick` raises on all machines alike,
        `UnserialisableMessage` for an input that cannot be sent, and `ClosedError` once the room was left.
        """
        packed = self._layout.pack(local)  # a wrong input is told before the game begins, too
        del packed
        now = self._room.time()
        self._hear(now)
        if self._session is None:
            self._wait(now)
        else:
            self._look_after(now)
        ticks = self._simulation.advance(local, now) if self._simulation is not None else 0
        self._take_seat()
        self._say(now)
        self._testify()
        return ticks

    # --------------------------------------------------------------------------------------------------- before it begins

    def _wait(self, now: float) -> None:
        if now - self._said_at >= READY_EVERY_S or now < self._said_at:
            self._said_at = now
            live = self._spectator is not None and self._spectator.is_live
            self._tell(Ready(self._kind.__name__, live), None)
        host = self._room.host
        if (
            self._offered is not None and host is not None and host.id == self._offered[0] and self._spectator is None
            and self._is_timely(self._offered[1].at, now)
        ):  # fmt: skip
            self._start(self._offered[1])
            self._offered = None
            return
        ready = {self._room.me, *(peer for peer in self._ready if peer in self._room.peers)}
        if self._spectator is not None or len(ready) < self._players_wanted or not self._room.is_host:
            return
        seats = {
            peer: seat for seat, peer in enumerate(self._room.seats[:SEATS_MAX]) if peer is not None and peer in ready
        }
        if not seats.keys() <= self._room.voters:
            return  # they do not know yet that we are the host
        if (
            len(seats) < self._players_wanted
            or self._room.me not in seats
            or not math.isfinite(self._room.time_error())
        ):
            return
        start = Start(now + START_IN_S, self._seed(), sorted((seat, peer.raw) for peer, seat in seats.items()))
        self._started = start
        self._tell(start, None)
        self._start(start)

    def _is_timely(self, at: float, now: float) -> bool:
        """Our clock is the room's: a game that begins by another one would wait for ever, or race."""
        return math.isfinite(self._room.time_error()) and at - now <= START_LATEST_S

    def _start(self, start: Start) -> None:
        self._seat_of = {PeerId.from_raw_untrusted(raw): seat for seat, raw in start.players}
        self._at = start.at
        me = self._seat_of.get(self._room.me)
        if me is None:
            return  # we watch first
        session = RollbackSession(
            me=me, players=set(self._seat_of.values()), start=start.at, delay=self._delay, **self._shape()
        )
        self._begin(session, self._kind(random=Random(start.seed)))

    def _shape(self) -> dict[str, Any]:
        return {
            "seats": SEATS_MAX, "blank": self._layout.blank, "hz": self._hz, "difference": difference_of(self._kind),
        }  # fmt: skip

    def _begin(self, session: RollbackSession, state: G) -> None:
        self._session, self._spectator = session, None
        self._simulation = Simulation(state, self._layout, session, self._timer)
        self._feed = Feed(session)

    def _take_seat(self) -> None:
        spectator = self._spectator
        if spectator is None or spectator.entered is None or spectator.seated is None or self._simulation is None:
            return
        if not self._is_timely(self._at, self._room.time()):
            return
        session = RollbackSession.enter(
            spectator.seated, spectator.entered, start=self._at, delay=self._delay, **self._shape()
        )
        self._seat_of[self._room.me] = session.me
        self._begin(session, self._simulation.state)

    # --------------------------------------------------------------------------------------------------- while it runs

    def _look_after(self, now: float) -> None:
        """Who left is dropped; who wants to join is fed, and seated by the player with the lowest seat."""
        assert self._session is not None
        assert self._feed is not None
        self._note_events(self._session)
        here = self._room.peers
        for peer, seat in list(self._seat_of.items()):
            if peer != self._room.me and peer not in here and seat in self._session.players:
                self._session.drop(seat, now)
        playing = {peer for peer, seat in self._seat_of.items() if seat in self._session.players}
        # Who has just got a seat still needs what we confirm until it has said an input of its own.
        arrived = {peer for peer in playing if self._session.confirmed > self._joins_at.get(peer, -1) + WARM_UP_TICKS}
        for peer in [peer for peer in self._ready if peer not in here or peer in arrived]:
            del self._ready[peer]
            self._joins_at.pop(peer, None)
            self._feed.remove(peer)
        is_source = min(self._session.players) == self._session.me
        for peer, live in list(self._ready.items()):
            if not live or not is_source:
                continue
            place = next((at for at, holder in enumerate(self._room.seats[:SEATS_MAX]) if holder == peer), None)
            if place is not None and place not in self._session.players:
                with suppress(ValueError):  # another join or departure is being settled; it is tried again
                    self._session.admit(place, now)
                    self._give_seat(place, peer)
        if now - self._fed_at >= FEED_EVERY_S or now < self._fed_at:
            self._fed_at = now
            for target, word in self._feed.words():
                self._send(self._words, _SESSION + word, target)

    def _give_seat(self, seat: int, peer: PeerId) -> None:
        self._seat_of = {known: at for known, at in self._seat_of.items() if at != seat and known != peer} | {
            peer: seat
        }

    def _welcome(self, peer: PeerId) -> None:
        """Somebody wants to play who does not yet."""
        assert self._session is not None
        assert self._feed is not None
        is_source = min(self._session.players) == self._session.me
        if is_source:
            self._tell(Running(self._at, sorted((seat, who.raw) for who, seat in self._seat_of.items())), peer)
        self._feed.add(peer, source=is_source)

    # ------------------------------------------------------------------------------------------------------------ the wire

    def _hear(self, now: float) -> None:
        for channel, hear in ((self._words, self._hear_word), (self._inputs, self._hear_inputs)):
            for _ in range(RECEIVE_MAX):
                try:
                    sender, data = channel.receive_nowait()
                except WouldBlock:
                    break
                try:
                    if not isinstance(data, bytes):
                        raise ProtocolError("text came about a game")
                    hear(sender.id, data, now)
                except ProtocolError:
                    self.refused += 1

    def _hear_inputs(self, peer: PeerId, data: bytes, now: float) -> None:
        seat = self._seat_of.get(peer)
        if self._session is not None and seat is not None:
            self._session.receive(seat, data, now)

    def _hear_word(self, peer: PeerId, data: bytes, now: float) -> None:
        seat = self._seat_of.get(peer)
        if data[:1] == _SESSION:
            if seat is None:
                return
            if self._session is not None:
                self._session.receive_word(seat, data[1:], now)
            elif self._spectator is not None:
                self._spectator.receive_word(seat, data[1:])
            return
        if data[:1] != _CONTROL:
            raise ProtocolError("not a word about a game")
        word = control_untrusted(data[1:])
        if isinstance(word, Ready):
            self._hear_ready(peer, word)
        elif isinstance(word, Start):
            self._offered = (peer, word)  # taken up once it is known who the host is
        elif self._session is None and self._spectator is None and peer.raw in [raw for _, raw in word.players]:
            self._watch(word)

    def _hear_ready(self, peer: PeerId, word: Ready) -> None:
        if word.kind != self._kind.__name__ or len(self._ready) >= SEATS_MAX:
            return
        is_new = peer not in self._ready
        self._ready[peer] = word.is_live
        if self._session is None:
            return
        if self._seat_of.get(peer) not in self._session.players:
            if is_new:
                self._welcome(peer)
            elif not word.is_live and self._feed is not None:
                self._feed.attest_anew(peer)
        elif self._started is not None and peer.raw in [raw for _, raw in self._started.players]:
            self._tell(self._started, peer)  # it did not know yet that we are the host

    def _watch(self, running: Running) -> None:
        self._at = running.at
        self._seat_of = {PeerId.from_raw_untrusted(raw): seat for seat, raw in running.players}
        others = len(running.players) > 1
        self._spectator = Spectator(seats=SEATS_MAX, blank=self._layout.blank, hz=self._hz, attesters=int(others))
        self._simulation = Simulation(self._kind(), self._layout, self._spectator, self._timer)

    def _say(self, now: float) -> None:
        session = self._session
        if session is None:
            return
        peer_in = {seat: peer for peer, seat in self._seat_of.items()}
        for seat, data in session.packets_to_send(now):
            if seat in peer_in:
                self._send(self._inputs, data, peer_in[seat])
        for seat, data in session.take_words():
            if seat in peer_in:
                self._send(self._words, _SESSION + data, peer_in[seat])
        self._note_events(session)

    def _note_events(self, session: RollbackSession) -> None:
        for event in session.take_events():
            self._events.append(event)
            holder = self._room.seats[event.seat] if isinstance(event, SeatJoined) else None
            if isinstance(event, SeatJoined) and holder is not None:
                self._give_seat(event.seat, holder)
                self._joins_at[holder] = event.frame
                self._next_spans[holder] = -(-event.frame // SPAN_TICKS)

    def _testify(self) -> None:
        """Every SPAN_TICKS our inputs are signed, with the hash of the newest state that is confirmed; what came of the others
        is held against what they sign."""
        session = self._session
        if session is None:
            return
        stream = f"{VOTE_STREAM}{self._kind.__name__}@{self._at:.3f}"
        for peer, seat in self._seat_of.items():
            span = self._next_spans.setdefault(peer, -(-session.first_frame // SPAN_TICKS))
            said = session.spoken(seat, span * SPAN_TICKS, SPAN_TICKS)
            if said is None:
                continue
            self._next_spans[peer] = span + 1
            if peer == self._room.me:
                votes = [vote(*checked) for checked in session.checked_states()[-1:]]
                self._testimony.said_span(stream, span, [digest_of(said), *votes])
            else:
                self._testimony.heard_span(peer, stream, span, digest_of(said))

    def _tell(self, word: Ready | Start | Running, to: PeerId | None) -> None:
        self._send(self._words, _CONTROL + msgspec.msgpack.encode(word), to)

    def _send(self, channel: Any, data: bytes, to: Any) -> None:
        with suppress(PeerGone, WouldBlock):  # it left, or is about to be let go: the room tells us
            channel.send_nowait(data, to=to)
