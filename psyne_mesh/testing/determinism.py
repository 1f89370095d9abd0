"""The sync test of a rollback game: whatever is replayed, and wherever it runs, the state must come out the same.

GGPO's sync test replays each tick; this one replays eight, after ticks with inputs that were guessed wrong, and plays the
whole game once more in a process with another seed for hashes of text.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.rollback import Budget, Game, Input, InputLayout, PlayerInput, Random
from psyne_mesh.game.rollback.game import first_difference
from psyne_mesh.game.rollback.lint import Finding, lint
from psyne_mesh.game.rollback.session import WINDOW_TICKS

DISTANCE = WINDOW_TICKS
"""Ticks that are replayed at each tick: as many as the longest replay of a game has."""
TICKS = 600
"""Ten seconds at 60 Hz."""
HOLD_TICKS = 6
"""For so long a made-up player holds a key on average: a tenth of a second."""
CHILD_TIMEOUT_S = 120.0

I = TypeVar("I", bound=Input)  # noqa: E741
Hand = Callable[[int, int], Input]


class SyncWarning(UserWarning):
    """Something in the game's source that is likely to differ between machines."""


class OutOfSync(AssertionError):
    """Equal inputs gave another state. `tick` is the first whose state differs at its end, `path` the first field, `first`
    and `second` its two values; `how`: "replayed" or "in another process"."""

    def __init__(self, tick: int, path: str, first: object, second: object, how: str) -> None:
        super().__init__(f"after tick {tick} {path or 'the state'} is {first!r}, and {second!r} {how}")
        self.tick, self.path, self.first, self.second, self.how = tick, path, first, second, how


class SyncReport(msgspec.Struct, frozen=True):
    """What a sync test that passed has seen: `budget` what a tick and a save cost here, and whether the window fits;
    `findings` what the lint warned of."""

    ticks: int
    replayed: int
    budget: Budget
    findings: list[Finding]


def sync_test(
    game: type[Game], inputs: type[I], *, ticks: int = TICKS, seats: int = 2, seed: int = 0, hand: Hand | None = None,
    distance: int = DISTANCE, hz: float = 60.0, other_process: bool = True,
) -> SyncReport:  # fmt: skip
    """Raises `OutOfSync` and names the tick and the field; warns (`SyncWarning`) of what `lint` finds.

    hand: `hand(seat, tick)` gives the input of a seat; without it made-up players press everything that there is. The game
    must stand in a module, as the other process has to find it; `InvalidConfig` if it does not, and `other_process`.
    """
    if not 1 <= distance <= 60 or ticks <= distance or not 1 <= seats <= 62:
        raise InvalidConfig(
            f"ticks = {ticks!r}, distance = {distance!r} (1 to 60, below ticks), seats = {seats!r} (1 to 62)"
        )
    layout = InputLayout(inputs)
    if other_process:
        _check_importable(game)
        _check_importable(inputs)
    findings = lint(game)
    for finding in findings:
        warnings.warn(str(finding), SyncWarning, stacklevel=2)
    rows = _rows(layout, ticks, seats, seed, hand)
    player = _Player(game, layout, seed)
    states = player.play_all(rows, distance, random.Random(seed))
    if other_process:
        _compare(game, inputs, rows, seed, states)
    worst = (player.tick_s + player.save_s) * (WINDOW_TICKS + 1)
    budget = Budget(player.tick_s, player.save_s, worst, 1 / hz)
    return SyncReport(ticks, player.replayed, budget, findings)


def _rows(layout: InputLayout[Any], ticks: int, seats: int, seed: int, hand: Hand | None) -> list[list[bytes]]:
    if hand is not None:
        return [[layout.pack(hand(seat, tick)) for seat in range(seats)] for tick in range(ticks)]
    dice = random.Random(f"inputs {seed}")
    held = [layout.blank] * seats
    rows = []
    for _ in range(ticks):
        held = [
            layout.pack(layout.unpack(dice.randbytes(layout.size))) if dice.random() * HOLD_TICKS < 1 else data
            for data in held
        ]
        rows.append(list(held))
    return rows


class _Player:
    def __init__(self, game: type[Game], layout: InputLayout[Any], seed: int) -> None:
        self._game, self._layout, self._seed = game, layout, seed
        self._encoder, self._decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(game)
        self.tick_s = self.save_s = 0.0
        self.replayed = 0

    def begin(self) -> Game:
        return self._game(random=Random(self._seed))

    def tick(self, state: Game, row: Sequence[bytes], predicted: bool = False) -> bytes:
        views = [self._layout.view(PlayerInput(data, predicted)) for data in row]
        began = perf_counter()
        state.tick(views)
        ended = perf_counter()
        saved = self._encoder.encode(state)
        self.tick_s += (ended - began - self.tick_s) / 60
        self.save_s += (perf_counter() - ended - self.save_s) / 60
        return saved

    def play_all(self, rows: list[list[bytes]], distance: int, dice: random.Random) -> list[bytes]:
        """The state after each tick. At each tick the last `distance` ones are played again, first with other inputs, as if
        they had been guessed wrong, then with the right ones."""
        state = self.begin()
        states = [self._encoder.encode(state)]
        for tick, row in enumerate(rows):
            states.append(self.tick(state, row))
            first = tick + 1 - distance
            if first < 0:
                continue
            guess = self._decoder.decode(states[first])
            for _ in range(distance):
                self.tick(guess, rows[dice.randrange(len(rows))], predicted=True)
            state = self._decoder.decode(states[first])
            for place in range(first, tick + 1):
                again = self.tick(state, rows[place])
                self.replayed += 1
                if again != states[place + 1]:
                    raise self.difference(place, states[place + 1], again, "replayed")
        return states[1:]

    def difference(self, tick: int, first: bytes, second: bytes, how: str) -> OutOfSync:
        one, other = self._decoder.decode(first), self._decoder.decode(second)
        found = first_difference(one, other)
        if found is None or not found[0]:  # equal, and encoded in another order
            fields = [msgspec.msgpack.decode(state, type=list[msgspec.Raw]) for state in (first, second)]
            for name, *pair in zip(
                self._game.__struct_fields__, *fields
            ):  # as they were: to decode would order them anew
                if bytes(pair[0]) != bytes(pair[1]):
                    ours, theirs = (msgspec.msgpack.decode(each) for each in pair)
                    return OutOfSync(tick, name, ours, theirs, f"(in another order) {how}")
        path, mine, others = found or ("", None, None)
        return OutOfSync(tick, path, mine, others, how)


# ------------------------------------------------------------------------------------------------------ another process


def _check_importable(kind: type[Any]) -> None:
    if "<locals>" in kind.__qualname__ or kind.__module__ == "__main__":
        raise InvalidConfig(
            f"the other process cannot find {kind.__qualname__}: put it into a module, outside functions, or say "
            "other_process=False"
        )


def _place(kind: type[Any]) -> dict[str, str]:
    return {"module": kind.__module__, "name": kind.__qualname__, "file": inspect.getsourcefile(kind) or ""}


def _compare(game: type[Game], inputs: type[Input], rows: list[list[bytes]], seed: int, states: list[bytes]) -> None:
    job = {
        "path": sys.path, "game": _place(game), "inputs": _place(inputs), "seed": seed,
        "rows": [[data.hex() for data in row] for row in rows],
    }  # fmt: skip
    environment = os.environ | {"PYTHONHASHSEED": _other_hash_seed()}
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from psyne_mesh.testing.determinism import child; child()"],
            input=json.dumps(job), capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False,
            env=environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InvalidConfig(f"the other process had not played {len(rows)} ticks after {CHILD_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise InvalidConfig(f"the other process could not play the game:\n{done.stderr[-2000:]}")
    for tick, (ours, theirs) in enumerate(zip(states, done.stdout.splitlines()[-len(states) :], strict=True)):
        if ours.hex() != theirs:
            player = _Player(game, InputLayout(inputs), seed)
            raise player.difference(tick, ours, bytes.fromhex(theirs), "in another process")


def _other_hash_seed() -> str:
    ours = os.environ.get("PYTHONHASHSEED", "")
    return "4242" if ours != "4242" else "2424"


def child() -> None:
    """In the other process: plays the job that stands on its standard input, and prints the state after each tick."""
    job = json.load(sys.stdin)
    sys.path[:] = job["path"]
    game, inputs = _found(job["game"]), _found(job["inputs"])
    player = _Player(game, InputLayout(inputs), job["seed"])
    with redirect_stdout(sys.stderr):  # what the game prints is no answer
        state = player.begin()
        states = [player.tick(state, [bytes.fromhex(data) for data in row]) for row in job["rows"]]
    print("\n".join([each.hex() for each in states]))  # noqa: T201


def _found(place: dict[str, str]) -> Any:
    module = sys.modules.get(place["module"])
    if module is None:
        try:
            module = importlib.import_module(place["module"])
        except ImportError:  # a test file that pytest has loaded by its path
            spec = importlib.util.spec_from_file_location(place["module"], Path(place["file"]))
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[place["module"]] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
    found: Any = module
    for name in place["name"].split("."):
        found = getattr(found, name)
    return found
