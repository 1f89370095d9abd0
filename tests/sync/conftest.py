"""A signaling server on loopback, and rooms at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from psyne_mesh import sync
from tests.room.players import LOOPBACK

Join = Callable[..., AbstractContextManager[sync.Room]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with sync.open_server(port=0) as server:
        yield server.url


@pytest.fixture
def join(url: str, request: pytest.FixtureRequest) -> Join:
    """`join(name)`: into a room of this test."""

    def join(name: str, **options: Any) -> AbstractContextManager[sync.Room]:
        room = request.node.name[:100]
        return sync.join_game_room(room, **{"signaling": url, "config": LOOPBACK, "player_name": name, **options})

    return join
