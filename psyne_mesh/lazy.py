"""Packages whose names are imported when they are first used (PEP 562): who plays never loads the signaling server, and who
only asks for the version loads nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def exports(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of `package`. `homes`: by module below `psyne_mesh`, the names that come from there, set
    apart by spaces; none for a module that is a public name itself.

    Type checkers see nothing of this: the package imports the same names under `TYPE_CHECKING`, and a test compares.
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def look_up(name: str) -> Any:
        value: Any
        if name in home_of:
            value = getattr(_load(home_of[name]), name)
        elif name in homes and not homes[name]:
            value = _load(name)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of, *(home for home, names in homes.items() if not names)})

    return look_up, listed


def _load(module: str) -> ModuleType:
    """Without collections of garbage meanwhile, and none of what stays afterwards: it is put among the old objects, where
    surviving two collections would bring it (a twelfth of the CPU of a join's imports). The collector is as it was."""
    if not gc.isenabled() or gc.get_freeze_count():
        return import_module(f"psyne_mesh.{module}")
    gc.disable()
    try:
        return import_module(f"psyne_mesh.{module}")
    finally:
        gc.freeze()
        gc.unfreeze()
        gc.enable()
