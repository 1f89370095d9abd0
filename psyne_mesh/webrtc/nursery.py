"""Nurseries that a library hides from its users: what their blocks raise must not come wrapped in a group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio


@contextmanager
def unwrapped(is_consequence: Callable[[BaseException], bool] = lambda error: False) -> Iterator[None]:
    """Around a hidden nursery: when there was only one exception, the block raises that, and no group.

    The user of `async with open_peer(...)` did not open a nursery, and `except ConnectFailed` around it should work.
    is_consequence: of another one in the group, so that it does not count beside it.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        alone = _sole_exception(group, is_consequence)
        if alone is None:
            raise
        # The traceback of the exception itself tells everything; the group around it is ours.
        raise alone from alone.__cause__


def _sole_exception(
    group: BaseExceptionGroup[BaseException], is_consequence: Callable[[BaseException], bool]
) -> BaseException | None:
    """The one exception inside, at any depth; `None` when there are several. A `Cancelled` beside it does not count."""
    leaves = _leaves(group)
    real = [error for error in leaves if not isinstance(error, trio.Cancelled)] or leaves[:1]
    causes = [error for error in real if not is_consequence(error)] or real
    return causes[0] if len(causes) == 1 else None


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
