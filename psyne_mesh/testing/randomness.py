"""The dice of the operating system, drawn from a seed: session names, ICE passwords, transaction ids, tags and cookies."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded_randomness(seed: int = 0) -> Iterator[None]:
    """While the block lasts `os.urandom`, `secrets` and `random.SystemRandom` give what the seed says, in this process: a run
    of a virtual network is then the same as the run before, to the last datagram. Never outside of tests: keys made inside
    are known to whoever knows the seed. What OpenSSL draws for itself stays its own: a signature in a handshake is a few
    bytes longer or shorter from run to run.
    """
    dice = random.Random(f"randomness/{seed}")

    def urandom(size: int, /) -> bytes:
        return dice.randbytes(size)

    before, before_random = os.urandom, random._urandom  # type: ignore[attr-defined]
    os.urandom = urandom
    random._urandom = urandom  # type: ignore[attr-defined]  # by which `SystemRandom`, and so `secrets`, call it
    try:
        yield
    finally:
        os.urandom = before
        random._urandom = before_random  # type: ignore[attr-defined]
