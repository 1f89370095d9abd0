"""Files from a loop of the game's own."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.errors import InvalidConfig, RequestRefused, WouldBlock
from psyne_mesh.identity import PeerId
from tests.sync.conftest import Join
from tests.sync.frames import meet, until


def test_files_in_a_loop(join: Join) -> None:
    data = random.Random(1).randbytes(200_000)
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        refused = ada.send_file(bob.me, data)
        with pytest.raises(WouldBlock):
            refused.result()
        until(lambda: refused.is_done, ada, bob)
        with pytest.raises(RequestRefused, match="expects no files"):
            refused.result()
        files = bob.files()
        assert list(files) == []
        progress: list[tuple[PeerId, int, int]] = []
        sending = ada.send_file(None, data, name="level", progress=lambda *each: progress.append(each))
        got = []
        until(lambda: sending.is_done and got, ada, bob, each_frame=lambda: got.extend(files))
        assert sending.result() == {bob.me: None}
        assert [(file.peer.name, file.name, file.data) for file in got] == [("ada", "level", data)]
        ada.poll()
        assert all(peer == bob.me and size == len(data) for peer, _, size in progress)
        assert progress
        assert files.arriving == []
        with pytest.raises(InvalidConfig):
            ada.send_file("bob", b"x")  # type: ignore[arg-type]
        wrong = ada.send_file(bob.me, "/no/such/file")
        until(lambda: wrong.is_done, ada, bob)
        with pytest.raises(InvalidConfig, match="cannot be read"):
            wrong.result()
