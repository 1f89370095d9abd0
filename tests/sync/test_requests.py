"""Questions and answers from a loop of the game's own."""

from __future__ import annotations

import pytest

from psyne_mesh import sync
from psyne_mesh.errors import DeadlineExceeded, InvalidConfig, PeerGone, RequestRefused, WouldBlock
from psyne_mesh.identity import PeerId
from psyne_mesh.room.peer import Peer
from tests.sync.conftest import Join
from tests.sync.frames import meet, until


class TakeItem(sync.Message):
    number: int


class Taken(sync.Message):
    by: str


def test_questions_in_a_loop(join: Join) -> None:
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)

        @bob.respond(TakeItem)
        def take(peer: Peer, item: TakeItem) -> Taken:
            if item.number == 13:
                raise RequestRefused("not this one")
            return Taken(peer.name)

        asked, refused = ada.request(bob.me, TakeItem(1)), ada.request(bob.me, TakeItem(13))
        with pytest.raises(WouldBlock):
            asked.result()
        until(lambda: asked.is_done and refused.is_done, ada, bob)
        assert asked.result() == Taken("ada")
        with pytest.raises(RequestRefused, match="not this one"):
            refused.result()
        each, ours = ada.request_each(TakeItem(2)), bob.request(bob.me, TakeItem(3))
        until(lambda: each.is_done and ours.is_done, ada, bob)
        assert each.results == {bob.me: Taken("ada")}
        assert ours.result() == Taken("bob")
        late = ada.request(bob.me, TakeItem(1), timeout=0.05)
        until(lambda: late.is_done, ada)  # bob's game does not poll
        with pytest.raises(DeadlineExceeded):
            late.result()
        nobody = bob.request(ada.me, TakeItem(1))
        until(lambda: nobody.is_done, ada, bob)
        with pytest.raises(RequestRefused, match="nobody there answers TakeItem"):
            nobody.result()
        with pytest.raises(PeerGone):
            ada.request(PeerId("0" * 32), TakeItem(1))
        with pytest.raises(InvalidConfig):
            bob.respond(int)  # type: ignore[arg-type]
