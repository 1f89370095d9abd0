"""The page about fair play: its listing runs, and both doors do what it says."""

from __future__ import annotations

import math
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from psyne_mesh import sync
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.events import Rolled, RuleBroken
from psyne_mesh.game.evidence import evidence_untrusted
from psyne_mesh.game.rules import Seen, within
from psyne_mesh.room.messages import Message
from tests.sync.conftest import Join

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cheating.md"
PATIENCE_S = 60


def test_the_listing_on_the_page_runs(url: str) -> None:
    (listing,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    code = compile(listing.replace('"arena"', f'"arena", signaling={url!r}'), str(PAGE), "exec")
    games: list[dict[str, Any]] = []
    errors: list[BaseException] = []
    warnings: list[str] = []
    began = time.monotonic()

    class Clock:
        def tick(self, hz: int) -> None:
            time.sleep(1 / hz)  # a frame, not a wait

    def running() -> bool:
        heard = [names["moves"].stats.received + len(names["moves"]) for names in games if "moves" in names]
        return len([n for n in heard if n > 5]) < 2 and not errors and time.monotonic() - began < PATIENCE_S

    def run(names: dict[str, Any]) -> None:
        try:
            exec(code, names)  # noqa: S102 - our own page
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    for number in range(2):
        games.append(
            {
                "__name__": f"pasted{number}", "running": running, "warn": warnings.append, "clock": Clock(),
                "my_place": lambda: (5.0, 0.0),
            }
        )  # fmt: skip
    threads = [threading.Thread(target=run, args=(names,)) for names in games]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert errors == []
    assert warnings == []
    assert all(names["moves"].stats.received + len(names["moves"]) > 5 for names in games)


def anything(message: Any, seen: Seen) -> str | None:
    return None


class Place(Message, rules=[within((0,), (10,), ("x",))]):
    x: float


class Anywhere(Message, tag="Place", rules=[anything]):
    x: float


def test_rules_dice_and_evidence_through_this_door(join: Join, tmp_path: Path) -> None:
    with join("ada") as ada, join("eve") as eve:
        ada.wait_connected(1)
        eve.wait_connected(1)
        places, other = ada.channel("places", Place), eve.channel("places", Anywhere)
        for x in (1.0, 99.0, 2.0):
            other.send(Anywhere(x))
        assert [places.receive(timeout=30)[1].x for _ in range(2)] == [1.0, 2.0]
        rolled = ada.roll(6)
        events: list[Any] = []
        until = time.monotonic() + PATIENCE_S
        while not (rolled.is_done and {RuleBroken, Rolled} <= {type(event) for event in events}):
            events += ada.poll()
            assert time.monotonic() < until
            time.sleep(0.01)
        assert rolled.value in range(1, 7)
        (breach,) = [event for event in events if isinstance(event, RuleBroken)]
        assert (breach.peer.name, breach.rule, breach.message, breach.before) == (
            "eve",
            "within",
            Place(99.0),
            Place(1.0),
        )
        ada.evidence(tmp_path / "file")
        evidence, writer = evidence_untrusted((tmp_path / "file").read_bytes())
        assert writer == ada.me
        assert len(evidence.accusations) == 1
        one, two = (net.secret_move("r", net.player.name) for net in (ada, eve))
        while not (one.is_done and two.is_done):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert one.moves == two.moves == {ada.me: "ada", eve.me: "eve"}
        assert ada.witness(7, besides=[ada.me]) == eve.me


class Ship(sync.Shared):
    x: float = sync.smooth(0.0)


def test_what_was_seen_is_found_again_through_this_door(join: Join) -> None:
    with join("ada") as ada, join("bob") as bob:
        ada.wait_connected(1)
        bob.wait_connected(1)
        ship = ada.share(Ship())
        assert ada.shown_time(ship) == pytest.approx(ada.time(), abs=0.5)
        until = time.monotonic() + PATIENCE_S
        close = 0
        while close < 20:
            assert time.monotonic() < until
            ship.x = ada.time() % 1000  # it moves as the clock does
            ada.poll()
            bob.poll()
            for seen in bob.all(Ship):
                at = bob.shown_time(seen)
                if math.isfinite(ada.time_error() + bob.time_error()) and ada.time() - at < 0.2:
                    (then,) = ada.rewind(at, Ship)
                    close += abs(then.x - seen.x) < 0.1
            time.sleep(1 / 60)
        (peer,) = bob.connected
        report = bob.latency(peer)
        assert report.rtt_ms is not None
        assert report.seen_ago_ms is not None
        assert report.smoothing_ms is not None
        assert bob.rewind(bob.time(), Ship)[0].owner == peer
        with pytest.raises(InvalidConfig):
            bob.rewind(math.nan)
