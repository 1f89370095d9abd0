"""What a simulation asks of its driver, and what it tells."""

from __future__ import annotations

import msgspec


class PlayerInput(msgspec.Struct, frozen=True, gc=False):
    """The input of one seat in one tick. `predicted`: nobody has said it yet. `present`: the seat has a player in
    this tick.
    """

    data: bytes
    predicted: bool = False
    present: bool = True


class Save(msgspec.Struct, frozen=True, gc=False):
    """Keep the state as it is now, at the beginning of `frame`, and tell `RollbackSession.saved`."""

    frame: int


class Load(msgspec.Struct, frozen=True, gc=False):
    """Go back to the state kept for `frame`."""

    frame: int


class Advance(msgspec.Struct, frozen=True, gc=False):
    """Simulate one tick. `inputs[seat]` for all seats. `replayed`: this tick was simulated before, with inputs that
    were guessed.
    """

    frame: int
    inputs: tuple[PlayerInput, ...]
    replayed: bool = False


Request = Save | Load | Advance


class SessionEvent(msgspec.Struct, frozen=True):
    """In the past tense, and after the fact."""


class SeatLeft(SessionEvent, frozen=True):
    """All machines agree: from `frame` on `seat` has no player. What it said before counts everywhere."""

    seat: int
    frame: int


class SeatJoined(SessionEvent, frozen=True):
    """All machines agree: from `frame` on `seat` has a player."""

    seat: int
    frame: int


class JoinRefused(SessionEvent, frozen=True):
    """A proposal of ours came to nothing: somebody was past its frame already, or left. Try again."""

    seat: int


class Stalled(SessionEvent, frozen=True):
    """The game waits for the inputs of `seat`: predicting further would exceed the window. Once for each wait."""

    seat: int
    frame: int


class Resumed(SessionEvent, frozen=True):
    """It goes on, after `waited_s`."""

    waited_s: float


class DelayChanged(SessionEvent, frozen=True):
    """Our own inputs take effect `ticks` ticks later from now on."""

    ticks: int


class Contradiction(SessionEvent, frozen=True):
    """`seat` said two different things about `frame`. The first counts. Its player cheats, or is two programs."""

    seat: int
    frame: int


class Desync(SessionEvent, frozen=True):
    """The simulation of `seat` is not ours: equal inputs, and another state since the tick before `frame`.

    `odd` are the seats whose state differs from most others', empty while that cannot be told (two players, or an
    even split). `path` is the first field that differs, `ours` and `theirs` its values; all three empty or None if
    states were not given.
    """

    seat: int
    frame: int
    odd: tuple[int, ...] = ()
    path: str = ""
    ours: object = None
    theirs: object = None


class SnapshotDisputed(SessionEvent, frozen=True):
    """What `by` gives us to watch is not the game of `seat`: the confirmed state at the beginning of `frame` is
    another.
    """

    by: int
    seat: int
    frame: int
