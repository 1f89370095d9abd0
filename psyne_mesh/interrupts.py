"""What Ctrl-C does not interrupt: our tasks, and what the game's own tasks do inside our code.

Trio raises `KeyboardInterrupt` wherever the program is at that moment, unless the code there is marked; then it is raised in
the program's main task, where that waits next. Raised in a task of ours it would take the sockets away before anybody heard
a goodbye, and in the middle of a send it would leave half a packet behind. The mark is on the code, so it costs nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any, ParamSpec, TypeVar

import trio

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


def uninterrupted(what: T) -> T:
    """Decorates a function, or a class for all functions that stand in it, the functions inside them included. Compiled ones
    have no mark: who calls them must have it."""
    for function in _functions(what):
        _mark(function.__code__)
    return what


def interruptible(function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    """Calls what a user gave us: an endless loop in it must end with Ctrl-C. Whoever calls this expects a
    `KeyboardInterrupt`."""
    return function(*arguments, **options)


trio.lowlevel.disable_ki_protection(interruptible)


class TheirNursery:
    """A nursery for a library that starts tasks of its own in it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    @property
    def cancel_scope(self) -> trio.CancelScope:
        return self._nursery.cancel_scope

    def start_soon(self, function: Callable[..., Awaitable[object]], *arguments: Any, name: object = None) -> None:
        self._nursery.start_soon(protected, function, *arguments, name=name or function)

    async def start(self, function: Callable[..., Awaitable[object]], *arguments: Any, name: object = None) -> Any:
        return await self._nursery.start(protected, function, *arguments, name=name or function)


async def protected(function: Callable[..., Awaitable[object]], *arguments: Any, **options: Any) -> None:
    """Runs what has no mark: `nursery.start_soon(protected, function, ...)`."""
    await function(*arguments, **options)


def _functions(what: Any) -> Iterator[FunctionType]:
    for value in vars(what).values() if isinstance(what, type) else (what,):
        accessors = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
        for one in accessors:
            function = getattr(one, "__wrapped__", getattr(one, "__func__", one))
            if isinstance(function, FunctionType):
                yield function


def _mark(code: CodeType) -> None:
    trio.lowlevel.enable_ki_protection(SimpleNamespace(__code__=code))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _mark(constant)


uninterrupted(protected)
