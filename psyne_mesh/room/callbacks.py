"""Functions that a game gives us to call: what is wrong with one is said where it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from psyne_mesh.errors import InvalidConfig

C = TypeVar("C", bound=Callable[..., Any])

# The default of every registering method, so that `@room.on_peer_left()` is told better than by Python.
NO_CALLBACK: Any = None


def checked_callback(where: str, callback: C, *arguments: str, is_async: bool = True) -> C:
    """The same, or `InvalidConfig`: it must be a function that takes these arguments. is_async: an async one will do."""
    if callback is NO_CALLBACK:
        raise InvalidConfig(f"write `@{where}` without brackets, above the function that it shall call")
    given = ", ".join(arguments)
    if not callable(callback):
        raise InvalidConfig(f"{where}({callback!r}) is no function: it could not be called when the event comes")
    if not is_async and inspect.iscoroutinefunction(callback):
        raise InvalidConfig(f"{where}({callback!r}): it is async, and would never run here; write `def`, without async")
    try:
        signature = inspect.signature(callback)
    except ValueError:  # a builtin that does not tell
        return callback
    try:
        signature.bind(*arguments)
    except TypeError as error:
        name = getattr(callback, "__name__", "it")
        raise InvalidConfig(
            f"{where} calls {name}({given}), which takes other arguments: write `def {name}({given}):`"
        ) from error
    return callback
