"""Games with the faults that make machines differ, in a module so that another process finds them."""

from __future__ import annotations

import math
import random
import time
from typing import Annotated

import msgspec

from psyne_mesh.game.rollback import Game, Input


class Keys(Input):
    steer: Annotated[int, msgspec.Meta(ge=-9, le=9)] = 0
    fire: bool = False


class Sound(Game):
    """Nothing is wrong with it."""

    places: list[int] = []
    shots: int = 0
    luck: int = 0
    root: float = 1.0

    def tick(self, inputs: list[Keys]) -> None:
        self.places = self.places or [0] * len(inputs)
        for seat, keys in enumerate(inputs):
            self.places[seat] += keys.steer
            self.shots += keys.fire
        self.root = math.sqrt(abs(self.root + self.places[0])) * 1.5
        self.luck = self.random.below(6)
        self.emit("tick")


class Hidden(Sound):
    """Something of the state stands outside its fields: it is not taken back by a replay."""

    def tick(self, inputs: list[Keys]) -> None:
        super().tick(inputs)
        held = self.__dict__
        held["count"] = held.get("count", 0) + 1
        BESIDE.append(inputs[0].steer)
        self.shots += len(BESIDE) % 7 == 3


BESIDE: list[int] = []


class Unordered(Sound):
    """Its state depends on the order of a set of text, which is another in each process."""

    names: set[str] = set()
    first: str = ""

    def tick(self, inputs: list[Keys]) -> None:
        super().tick(inputs)
        self.names = {"ada", "bob", "cid", "dan", "eve", "fay"}
        for name in {"ada", "bob", "cid", "dan", "eve", "fay"}:
            self.first = name
            break


class Dicey(Sound):
    def tick(self, inputs: list[Keys]) -> None:
        super().tick(inputs)
        self.luck = random.randint(1, 1000)


class Clocked(Sound):
    def tick(self, inputs: list[Keys]) -> None:
        super().tick(inputs)
        self.root = time.perf_counter()


class Wavy(Sound):
    """Right on one machine, and a last bit off on another."""

    def tick(self, inputs: list[Keys]) -> None:
        super().tick(inputs)
        self.root = math.sin(self.places[0]) + self.places[0] ** 0.5


class Crashing(Sound):
    def tick(self, inputs: list[Keys]) -> None:
        raise ZeroDivisionError("of the game's own")
