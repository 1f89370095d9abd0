"""Answers that come late because a processor does not suffice set off no search for other paths: that would be more work."""

from __future__ import annotations

import pytest

from psyne_mesh.mesh.link import Link
from psyne_mesh.webrtc.loop_lag import LAGGING_S
from tests.room.players import connected, open_party


async def test_neither_our_own_lag_nor_the_peers_sets_off_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_party() as party:
        ada, bob = await party.join(name="ada"), await party.join(name="bob")
        await connected(ada, bob)
        core, peer = ada._core, bob.me
        searches: list[str] = []
        doubts: list[str] = []
        monkeypatch.setattr(Link, "suspect", lambda link: searches.append(link.peer_id.short))
        monkeypatch.setattr(core.signaling, "doubt", lambda: doubts.append("server"), raising=False)
        told_s = 0.0
        monkeypatch.setattr(Link, "told_delay_s", lambda link, now: told_s)

        core.suspect(peer)
        assert (searches, doubts) == ([peer.short], ["server"])
        told_s = 2 * LAGGING_S  # the peer's loop lags
        core.suspect(peer)
        assert len(searches) == len(doubts) == 1
        told_s = 0.0
        core.endpoint.loop_lag.note(2 * LAGGING_S, core.now())  # ours does
        core.suspect(peer)
        assert len(searches) == len(doubts) == 1
