"""A game whose fields are its whole state: saved, compared, handed to who joins and replayed, without a line of the
user's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from psyne_mesh.errors import LocalError
from psyne_mesh.game.rollback.effects import Effect, Effects
from psyne_mesh.game.rollback.events import Advance, Load, Request, Save
from psyne_mesh.game.rollback.inputs import I, InputLayout


class GameFailed(LocalError):
    """`tick` raised in a tick that all machines simulate alike: the simulation stops there, on every machine.
    `frame` is that tick, the cause is `tick`'s own exception.
    """

    def __init__(self, frame: int) -> None:
        super().__init__(f"tick {frame} raised on every machine; the simulation stopped there (the cause stands above)")
        self.frame = frame


class Random(msgspec.Struct, array_like=True):
    """Dice that are part of the state: splitmix64 (Steele, Lea and Flood, 2014). Equal on every machine, and after
    every replay.
    """

    state: int = 0

    def next64(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed = self.state
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        return mixed ^ mixed >> 31

    def below(self, n: int) -> int:
        """0 to n - 1, each as likely as the others to within n / 2**64."""
        return self.next64() * n >> 64

    def random(self) -> float:
        """0.0 to below 1.0."""
        return (self.next64() >> 11) * 2.0**-53


class Game(msgspec.Struct, array_like=True, dict=True):
    """Subclass this. All fields have defaults, and together they are the whole state of the simulation.

        class Pong(rollback.Game):
            ball: tuple[int, int] = (0, 0)

            def tick(self, inputs):
                ...                         # inputs[seat], inputs[seat].predicted, inputs[seat].present

    `tick` reads the fields and the inputs, nothing else, and writes the fields, nothing else. What it wants heard or
    seen once it gives to `emit`. Fields of other structs, lists, dicts and tuples are fine; sets and floats from
    `math.sin` are not (`lint`).
    """

    random: Random = msgspec.field(default_factory=Random)

    def tick(self, inputs: Sequence[Any]) -> None:
        raise NotImplementedError(f"{type(self).__name__}.tick")

    def emit(self, value: object) -> None:
        """A sound or a spark of this tick: `Simulation.effects()` gives it once, however often the tick is replayed."""
        effects = self.__dict__.get("_effects")
        if effects is not None:
            effects.emit(value)


G = TypeVar("G", bound=Game)


class Budget(msgspec.Struct, frozen=True):
    """Seconds, smoothed over some 60 ticks: what a tick and what a save costs, and what the worst frame may cost at
    this rate.

    The worst frame replays the whole window: `worst_s` is (window + 1) ticks and saves. It must stay below `frame_s`.
    """

    tick_s: float
    save_s: float
    worst_s: float
    frame_s: float

    @property
    def fits(self) -> bool:
        return self.worst_s <= self.frame_s


class Steps(Protocol):
    """What asks for ticks: a `RollbackSession`, or a `Spectator`."""

    frame: int
    window: int
    hz: float

    @property
    def confirmed(self) -> int: ...

    def advance(self, local: bytes, now: float) -> list[Request]: ...

    def saved(self, frame: int, state: bytes) -> None: ...

    def state(self, frame: int) -> bytes: ...


class Simulation(Generic[G, I]):
    """Drives a `Game` by a `RollbackSession` or a `Spectator`.

    1. `advance(local, now)` once a frame; draw `state`. 2. `effects()` for sounds. 3. The session is fed and drained
    as it says.
    """

    def __init__(
        self, game: G, layout: InputLayout[I], session: Steps, timer: Callable[[], float] | None = None
    ) -> None:
        """`timer` measures the budget, for example `time.perf_counter`; without one there is none."""
        self.session = session
        self._layout, self._timer = layout, timer
        self._kind = type(game)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(self._kind)
        self._effects = Effects()
        self._broken: tuple[int, Exception] | None = None
        self._tick_s = self._save_s = 0.0
        self._state = game
        self._take(game)

    @property
    def state(self) -> G:
        """As of now: a new object after each replay, so do not keep it over a frame."""
        return self._state

    def effects(self) -> list[Effect]:
        return self._effects.take()

    @property
    def budget(self) -> Budget:
        worst = (self._tick_s + self._save_s) * (self.session.window + 1)
        return Budget(self._tick_s, self._save_s, worst, 1 / self.session.hz)

    def advance(self, local: I, now: float) -> int:
        """How many ticks were simulated anew. Raises GameFailed, and UnserialisableMessage for an input that cannot be
        sent.
        """
        before = self.session.frame
        for request in self.session.advance(self._layout.pack(local), now):
            if isinstance(request, Advance):
                self._tick(request)
            elif isinstance(request, Save):
                self._save(request.frame)
            else:
                self._load(request)
        self._effects.forget(self.session.frame)
        if self._broken is not None and self._broken[0] <= self.session.confirmed:
            frame, cause = self._broken
            raise GameFailed(frame) from cause
        return self.session.frame - before

    def _save(self, frame: int) -> None:
        began = self._timer() if self._timer else 0.0
        self.session.saved(frame, self._encoder.encode(self._state))
        if self._timer:
            self._save_s += (self._timer() - began - self._save_s) / 60

    def _load(self, request: Load) -> None:
        if self._broken is not None and request.frame <= self._broken[0]:
            self._broken = None
        self._take(self._decoder.decode(self.session.state(request.frame)))

    def _take(self, state: G) -> None:
        state.__dict__["_effects"] = self._effects
        self._state = state

    def _tick(self, request: Advance) -> None:
        if self._broken is not None:
            return
        began = self._timer() if self._timer else 0.0
        inputs = [self._layout.view(said) for said in request.inputs]
        self._effects.begin(request.frame, any(said.predicted for said in request.inputs))
        try:
            self._state.tick(inputs)
        except Exception as error:  # noqa: BLE001 - the user's; it may come from a guess that a replay takes back
            self._broken = (request.frame, error)
            self._take(self._decoder.decode(self.session.state(request.frame)))
        if self._timer:
            self._tick_s += (self._timer() - began - self._tick_s) / 60


def difference_of(kind: type[Game]) -> Callable[[bytes, bytes], tuple[str, object, object]]:
    """(our state, theirs) -> (path of the first field that differs, our value, theirs), for `RollbackSession`."""
    decoder = msgspec.msgpack.Decoder(kind)

    def difference(ours: bytes, theirs: bytes) -> tuple[str, object, object]:
        try:
            return first_difference(decoder.decode(ours), decoder.decode(theirs)) or ("", None, None)
        except (ValueError, RecursionError):
            return "(a state of another kind)", None, None

    return difference


def first_difference(ours: object, theirs: object, path: str = "") -> tuple[str, object, object] | None:
    if ours == theirs and type(ours) is type(theirs):
        return None
    if isinstance(ours, msgspec.Struct) and type(ours) is type(theirs):
        pairs = [
            (f"{path}.{name}".lstrip("."), getattr(ours, name), getattr(theirs, name))
            for name in ours.__struct_fields__
        ]
    elif isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
        pairs = [(f"{path}[{place}]", mine, other) for place, (mine, other) in enumerate(zip(ours, theirs))]
    elif isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        pairs = [(f"{path}[{key!r}]", ours[key], theirs[key]) for key in ours]
    else:
        return path, ours, theirs
    for where, mine, other in pairs:
        found = first_difference(mine, other, where)
        if found is not None:
            return found
    return path, ours, theirs  # NaN, or an order of keys
