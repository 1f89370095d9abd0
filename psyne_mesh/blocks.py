"""What `async with` enters, and what is said to whoever tries another way."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import NoReturn, ParamSpec, TypeVar

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.interrupts import uninterrupted

T = TypeVar("T")
P = ParamSpec("P")


@uninterrupted
class AsyncBlock(AbstractAsyncContextManager[T]):
    """Made by a function that `async_block` decorates: nothing has happened until `async with` enters it."""

    def __init__(self, name: str, inner: AbstractAsyncContextManager[T], without_trio: str = "") -> None:
        self._name = name
        self._inner = inner
        self._without_trio = without_trio

    async def __aenter__(self) -> T:
        return await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)

    def __enter__(self) -> NoReturn:
        instead = f"; without Trio, `with {self._without_trio}(...)`" if self._without_trio else ""
        raise InvalidConfig(f"`with {self._name}(...)`: write `async with {self._name}(...) as x:`{instead}")

    def __exit__(self, *error: object) -> None: ...

    def __await__(self) -> NoReturn:
        raise InvalidConfig(f"`await {self._name}(...)`: write `async with {self._name}(...) as x:` instead")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise InvalidConfig(f"nothing is open yet: write `async with {self._name}(...) as x:`, then x.{name}")


def async_block(
    *, without_trio: str = ""
) -> Callable[[Callable[P, AsyncIterator[T]]], Callable[P, AbstractAsyncContextManager[T]]]:
    """`asynccontextmanager`, for functions that users enter. without_trio: what does the same in a program without Trio."""

    def decorated(function: Callable[P, AsyncIterator[T]]) -> Callable[P, AbstractAsyncContextManager[T]]:
        manager = asynccontextmanager(uninterrupted(function))

        @functools.wraps(function)
        def block(*arguments: P.args, **options: P.kwargs) -> AbstractAsyncContextManager[T]:
            return AsyncBlock(function.__name__, manager(*arguments, **options), without_trio)

        return block

    return decorated
