"""Late join from a loop of the game's own."""

from __future__ import annotations

import pytest

from psyne_mesh.errors import PeerGone, WouldBlock
from tests.sync.conftest import Join
from tests.sync.frames import meet, until


def test_a_snapshot_in_a_loop(join: Join) -> None:
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        nobody = bob.fetch_snapshot(timeout=0.2)
        until(lambda: nobody.is_done, ada, bob)
        with pytest.raises(PeerGone):
            nobody.result()
        ada.offer_snapshot(7, b"state" * 1000)
        snapshot = bob.fetch_snapshot()
        with pytest.raises(WouldBlock):
            snapshot.result()
        until(lambda: snapshot.is_done, bob)  # ada's game need not poll for it
        assert (snapshot.result().version, snapshot.result().data) == (7, b"state" * 1000)
        assert snapshot.result().signers == {ada.me}
