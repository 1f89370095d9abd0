"""aioice, without what it loads to speak multicast DNS until a `.local` name comes: dnspython is a tenth of a cold join."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_MDNS = "aioice.mdns"
_HIDDEN = re.compile(r"[a-zA-Z0-9-]{1,63}\.local")


class _Later(ModuleType):
    """Stands for the module until somebody asks it for something."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_MDNS) is self:  # while aioice is imported, which names a class of it in an annotation
            return object
        return getattr(import_module(_MDNS), name)


def _load() -> None:
    if "aioice" in sys.modules:  # the program's own, whole
        return
    sys.modules[_MDNS] = later = _Later(_MDNS)
    try:
        import_module("aioice")
    finally:
        if sys.modules.get(_MDNS) is later:
            del sys.modules[_MDNS]


_load()

from aioice import Candidate, ice, stun, turn  # noqa: E402
from aioice.candidate import candidate_priority  # noqa: E402

__all__ = ["Candidate", "candidate_priority", "ice", "is_mdns_hostname", "stun", "turn"]


def is_mdns_hostname(name: str) -> bool:
    """As browsers write them in the place of addresses (draft-ietf-mmusic-mdns-ice-candidates section 3.1.1)."""
    return _HIDDEN.fullmatch(name) is not None
