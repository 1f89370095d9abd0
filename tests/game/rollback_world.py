"""Machines that play one simulation over a virtual network: loss, latency and jitter from a seed, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Any

import attrs

from psyne_mesh.game.rollback import (
    Feed,
    Game,
    Input,
    InputLayout,
    RollbackSession,
    Simulation,
    Spectator,
    difference_of,
)


@attrs.frozen
class Way:
    """One direction of a path. `latency_s` one way; `jitter_s` to either side of it."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0


class Machine:
    """`newcomer`: it watches first, and joins once it is live."""

    def __init__(self, world: World, seat: int, game: Game, keys: type[Input], newcomer: bool, **options: Any) -> None:
        self._game, self._world = game, world
        self._layout = InputLayout(keys)
        options = {"players": set(range(world.seats)), "hz": world.hz, "start": 0.0} | options
        self._options = options | {
            "blank": self._layout.blank,
            "difference": difference_of(type(game)),
            "seats": world.seats,
        }
        self.seat = seat
        self.is_on = True
        self.clock_error_s = 0.0
        self.failed: Exception | None = None
        self.events: list[Any] = []
        self.spectator = Spectator(seats=world.seats, blank=self._layout.blank) if newcomer else None
        if not newcomer:
            self._start(RollbackSession(me=seat, **self._options))
        else:
            self.simulation: Simulation[Any, Any] = Simulation(game, self._layout, self.spectator)

    def _start(self, session: RollbackSession) -> None:
        self.session = session
        self.feed = Feed(session)
        self.simulation = Simulation(self._game, self._layout, session)

    def advance(self, local: Input, now: float) -> None:
        self.simulation.advance(local, now)
        if self.spectator is not None and self.spectator.entered is not None and self.spectator.seated is not None:
            options = {name: value for name, value in self._options.items() if name != "players"}
            session = RollbackSession.enter(self.spectator.seated, self.spectator.entered, **options)
            self.spectator = None
            self._game = self.simulation.state
            self._start(session)


class World:
    """1. `add(seat, ...)`. 2. `play(seconds)` runs all machines, one call of `advance` each frame, with inputs from
    `hand`.
    """

    def __init__(
        self, seats: int, seed: int, way: Way = Way(), hz: float = 60.0, keys: type[Input] | None = None
    ) -> None:
        self.seats, self.hz = seats, hz
        self.rng = random.Random(seed)
        self.now = 0.0
        self.ways: dict[tuple[int, int], Way] = {}
        self.way = way
        self.machines: dict[int, Machine] = {}
        self.hand: Callable[[int, int], Input] = lambda seat, frame: keys() if keys else Input()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()
        self._reliable_until: dict[tuple[int, int], float] = {}

    def add(self, seat: int, game: Game, keys: type[Input], newcomer: bool = False, **options: Any) -> Machine:
        machine = self.machines[seat] = Machine(self, seat, game, keys, newcomer, **options)
        self.at(max(self.now, self.rng.random() / self.hz), lambda: self._frame(machine))
        return machine

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._count), what))

    def play(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = end

    def _frame(self, machine: Machine) -> None:
        if self.machines.get(machine.seat) is not machine:
            return
        if machine.is_on and machine.failed is None:
            clock = self.now + machine.clock_error_s
            try:
                machine.advance(self.hand(machine.seat, int(self.now * self.hz)), clock)
            except Exception as error:  # noqa: BLE001 - looked at by the test
                machine.failed = error
            self.flush(machine)
        self.at(self.now + 1 / self.hz, lambda: self._frame(machine))

    def flush(self, machine: Machine) -> None:
        clock = self.now + machine.clock_error_s
        if machine.spectator is not None:
            machine.events += machine.spectator.take_events()
            return
        for seat, data in machine.session.packets_to_send(clock):
            self._send(machine, seat, data, reliable=False)
        for seat, data in machine.session.take_words():
            self._send(machine, seat, data, reliable=True)
        machine.events += machine.session.take_events()

    def watch(self, seat: int, source: int) -> None:
        """The players feed the spectator in `seat` from now on, ten times a second."""
        for machine in self.machines.values():
            if machine.spectator is None:
                machine.feed.add(seat, source=machine.seat == source)
                self.at(self.now, lambda machine=machine: self._feed(machine))

    def _feed(self, machine: Machine) -> None:
        if machine.is_on:
            for seat, data in machine.feed.words():
                self._send(machine, seat, data, reliable=True)
            self.at(self.now + 0.1, lambda: self._feed(machine))

    def _send(self, machine: Machine, seat: int, data: bytes, *, reliable: bool) -> None:
        way = self.ways.get((machine.seat, seat), self.way)
        late = way.latency_s + self.rng.uniform(-way.jitter_s, way.jitter_s)
        lost = self.rng.random() < way.loss
        when = self.now + max(late, 0.0)
        if reliable:
            when += 2 * way.latency_s if lost else 0.0
            when = self._reliable_until[machine.seat, seat] = max(
                when, self._reliable_until.get((machine.seat, seat), 0.0)
            )
        elif lost:
            return
        source = machine.seat
        self.at(when, lambda: self._receive(source, seat, data, reliable))

    def _receive(self, source: int, seat: int, data: bytes, reliable: bool) -> None:
        machine = self.machines.get(seat)
        if machine is None or not machine.is_on:
            return
        if machine.spectator is not None:
            if reliable:
                machine.spectator.receive_word(source, data)
            return
        clock = self.now + machine.clock_error_s
        (machine.session.receive_word if reliable else machine.session.receive)(source, data, clock)
        for target, word in machine.session.take_words():
            self._send(machine, target, word, reliable=True)
        machine.events += machine.session.take_events()

    def remove(self, seat: int, *, told_after_s: float = 0.0) -> None:
        """Its process dies; the room tells the others one by one within the time given."""
        self.machines[seat].is_on = False
        for other in self.machines.values():
            if other.is_on:
                self.at(self.now + self.rng.uniform(0, told_after_s), lambda other=other: self._tell_gone(other, seat))

    def _tell_gone(self, machine: Machine, seat: int) -> None:
        if machine.is_on:
            if machine.spectator is not None:
                return
            machine.feed.remove(seat)
            machine.session.drop(seat, self.now)
            self.flush(machine)
