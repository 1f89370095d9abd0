"""A player's key on disk, one for each window that is open at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from psyne_mesh.errors import InvalidConfig

SEED_BYTES = 32
# Windows of one user on one machine at once: a room for testing. Beyond it something else is wrong.
SLOTS = 16

# Held as long as the process lives: the kernel lets go of them, however it ends.
_held: list[int] = []


def claim_seed(path: Path, make: Callable[[], bytes]) -> bytes:
    """The seed in `path`, made if it is not there. While another window has it, that of `path` with -2, -3 and so on:
    the second window is another player, and the same one each time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for slot in range(1, SLOTS + 1):
            place = path if slot == 1 else path.with_name(f"{path.stem}-{slot}{path.suffix}")
            if _lock(place.with_name(place.name + ".lock")):
                return _read(place) if place.exists() else _write(place, make())
    except OSError as error:
        raise InvalidConfig(f"the identity {path} cannot be kept: {error}") from error
    raise InvalidConfig(f"{SLOTS} windows have a key of {path} open: close some, or name another file")


def _read(path: Path) -> bytes:
    seed = path.read_bytes()
    if len(seed) != SEED_BYTES:
        problem = f"it has {len(seed)} bytes, not {SEED_BYTES}"
        raise InvalidConfig(f"{path} is no identity: {problem}; delete it to be a new player")
    return seed


def _write(path: Path, seed: bytes) -> bytes:
    """Whole or not at all, and for nobody else to read."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        os.write(descriptor, seed)
    finally:
        os.close(descriptor)
    os.replace(new, path)
    return seed


def _lock(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another window has it
        os.close(descriptor)
        return False
    _held.append(descriptor)
    return True
