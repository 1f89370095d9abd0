"""One's own object where somebody else has the last word: moved at once by a guess, mended when the word comes.

The authority (the host, say) gets our inputs with numbers and answers with the state after one of them. What we have done
since is done again on top of it. If we both compute the same nothing is seen of it; if not, the difference is not jumped
but faded out.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from psyne_mesh.errors import InvalidConfig

PENDING_MAX = 256
"""Inputs without an answer: four seconds at 60 Hz. Who is cut off for longer sees its object stop where the oldest are
forgotten."""
CORRECTION_S = 0.1
"""As of interpolation: a mistake is taken back over this time, so that it is seen as a curve and not as a step."""

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741


class Predicted(Generic[S, I]):
    """1. `act(local, now)` each tick: `state` has moved at once; send the input with the number that it returns to the
    authority. 2. `confirm(number, state, now)` with its word: the state after our input of that number. 3. Draw
    `shown(now)`: `state`, and what was guessed wrong fades out.

    The authority does the same steps with our inputs, in the order of their numbers; unreliable channels may carry the
    last few with each message, and its words may come in any order.
    """

    def __init__(
        self, state: S, step: Callable[[S, I], object], *, smooth: Sequence[str] = (), snap: float = float("inf"),
        correction_s: float = CORRECTION_S,
    ) -> None:  # fmt: skip
        """step: `step(state, local)` moves the state by one tick, and reads nothing else. smooth: fields whose corrections
        are faded; one by more than `snap` is a jump, such as a teleport, and is shown as one."""
        for name in smooth:
            if not hasattr(state, name):
                raise InvalidConfig(f"smooth = {tuple(smooth)!r}: {type(state).__name__} has no field {name!r}")
        if not snap > 0 or not correction_s >= 0:
            raise InvalidConfig(
                f"snap = {snap!r}, correction_s = {correction_s!r}: distances and seconds, not negative"
            )
        self.state = state
        self._step, self._smooth, self._snap, self._correction_s = step, tuple(smooth), snap, correction_s
        self._pending: deque[tuple[int, I]] = deque(maxlen=PENDING_MAX)
        self._number = 0
        self._confirmed = 0
        self._off: tuple[float, ...] = (0.0,) * len(self._smooth)
        self._off_since = float("-inf")
        self.corrections = 0
        """How many words of the authority were not what we had guessed."""

    @property
    def pending(self) -> list[tuple[int, I]]:
        """The inputs that the authority has not answered, oldest first: for messages that repeat them."""
        return list(self._pending)

    def act(self, local: I, now: float) -> int:
        """The number of this input, from 1 on."""
        self._number += 1
        self._pending.append((self._number, local))
        self._step(self.state, local)
        return self._number

    def confirm(self, number: int, state: S, now: float) -> None:
        """Older words than one that was taken are left out; so are those about inputs that we never gave."""
        if not self._confirmed < number <= self._number:
            return
        self._confirmed = number
        while self._pending and self._pending[0][0] <= number:
            self._pending.popleft()
        before = self.shown(now)
        mended = copy.deepcopy(state)
        for _, local in self._pending:
            self._step(mended, local)
        if mended == self.state:
            return
        self.corrections += 1
        self.state = mended
        off = tuple([getattr(before, name) - getattr(mended, name) for name in self._smooth])
        is_jump = any(not -self._snap <= each <= self._snap for each in off)
        self._off = (0.0,) * len(off) if is_jump else off
        self._off_since = now

    def shown(self, now: float) -> S:
        """A copy of `state` as it is to be seen now."""
        seen = copy.copy(self.state)
        left = 1.0 - (now - self._off_since) / self._correction_s if self._correction_s else 0.0
        if left > 0.0:
            for name, off in zip(self._smooth, self._off):
                setattr(seen, name, getattr(seen, name) + min(left, 1.0) * off)
        return seen
