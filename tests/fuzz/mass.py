"""Mutated inputs by the million, over every reader of outside bytes, without a compiler's help: the same on every system.

Each batch follows from its seed, its target and its number, so a finding can be made again. Parsers are quick and get most of
the inputs; state machines, which play a whole conversation for each, get fewer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import attrs

from tests.fuzz.targets import TARGETS, corpus

INPUT_BYTES_MAX = 4096
SECONDS_PER_INPUT_MAX = 5.0  # of CPU; longer is a finding: something loops
BATCH = 5_000
ESCAPES_MAX = 20  # of one batch that are kept
# Shares of the inputs. A conversation with an association or a node takes thirty times what a parser takes
SHARES = {
    "stun": 14, "candidate": 10, "turn_stream": 10, "dtls": 4, "sctp": 14, "association": 8, "express": 6, "dcep": 10,
    "channels": 8, "sdp": 8, "signaling": 8, "envelope": 6, "gossip_frames": 10, "gossip": 8, "room": 10,
}  # fmt: skip
_BYTES = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (
    0,
    1,
    2,
    4,
    12,
    20,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
)


@attrs.frozen
class Escape:
    """An input that something other than the one allowed error came of, or that took too long."""

    target: str
    data: bytes
    what: str


class Mutator:
    """`next(rng)` gives an input made of one of the corpus, or of two."""

    def __init__(self, target: str) -> None:
        self._seeds = [path.read_bytes() for path in corpus(target)]

    def next(self, rng: random.Random) -> bytes:
        data = bytearray(rng.choice(self._seeds))
        if rng.random() < 0.2:
            other = rng.choice(self._seeds)
            data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
        for _ in range(1 << rng.randrange(5)):
            _mutate(data, rng)
        return bytes(data[:INPUT_BYTES_MAX])


def _mutate(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 1, 2, 4, 8, 16, 64))
    match rng.randrange(8):
        case 0 | 1 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 2 if at < len(data):
            data[at] = rng.choice(_BYTES) if rng.random() < 0.5 else rng.randrange(256)
        case 3:
            width = rng.choice((1, 2, 4, 8))
            data[at : at + width] = (rng.choice(_NUMBERS) % 256**width).to_bytes(width, rng.choice(("big", "little")))
        case 4:
            data[at:at] = rng.randbytes(size)
        case 5:
            del data[at : at + size]
        case 6:
            data[at:at] = data[at : at + size] * rng.choice((1, 1, 2, 30))
        case 7:
            other = rng.randrange(len(data) + 1)
            data[at : at + size] = data[other : other + size]


def batch(target: str, seed: int, number: int, n: int = BATCH) -> list[Escape]:
    """`n` inputs for one target."""
    rng = random.Random(f"{seed}/{target}/{number}")
    run, mutator, escapes = TARGETS[target], Mutator(target), list[Escape]()
    for _ in range(n):
        data = mutator.next(rng)
        began = time.thread_time()
        try:
            run(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            escapes.append(Escape(target, data, f"{type(error).__name__}: {error}"))
        took = time.thread_time() - began
        if took > SECONDS_PER_INPUT_MAX:
            escapes.append(Escape(target, data, f"took {took:.1f} s"))
        if len(escapes) >= ESCAPES_MAX:
            break
    return escapes


def batches(inputs: int) -> Iterator[tuple[str, int]]:
    """(target, number) of the batches that make up so many inputs or a few more, the targets in turn."""
    whole = sum(SHARES.values())
    wanted = {target: -(-inputs * share // (whole * BATCH)) for target, share in SHARES.items()}
    for number in range(max(wanted.values())):
        yield from ((target, number) for target in SHARES if number < wanted[target])


def run_all(inputs: int, seed: int, jobs: int, keep: Path) -> int:
    """Prints how far it is; escapes go to `keep`. Returns how many there were."""
    work, done, found, began = list(batches(inputs)), 0, 0, time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(batch, target, seed, number): target for target, number in work}
        for future in as_completed(running):
            done += 1
            for escape in future.result():
                found += 1
                path = keep / f"{escape.target}-{found}"
                path.write_bytes(escape.data)
                print(
                    f"{escape.target}: {escape.what}\n  python -m tests.fuzz {escape.target} --input {path}", flush=True
                )
            if done % 20 == 0 or done == len(work):
                took = time.monotonic() - began
                print(f"{done * BATCH:,} of {len(work) * BATCH:,} inputs, {found} escapes, {took:.0f} s", flush=True)
    return found
