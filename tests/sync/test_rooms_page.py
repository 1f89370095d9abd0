"""Every snippet of docs/rooms.md does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from psyne_mesh import sync
from psyne_mesh.errors import RequestRefused
from psyne_mesh.identity import Identity
from tests.sync.conftest import Join
from tests.sync.frames import meet, until

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rooms.md").read_text(encoding="utf-8")
SNIPPETS = {
    code.split("\n", 1)[0].removeprefix("# "): code for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
}


def run(name: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": f"pasted_{name}"}
    exec(SNIPPETS[name], names)  # noqa: S102 - our own page
    return names


def agree(*nets: sync.Room) -> sync.Room:
    """The host."""
    until(lambda: {net.host and net.host.id for net in nets} in [{net.me} for net in nets if net.is_host], *nets)
    return next(net for net in nets if net.is_host)


def test_every_snippet_has_a_test() -> None:
    assert set(SNIPPETS) == {"ready.py", "rounds.py", "asking.py", "level.py", "kick.py", "late.py", "back.py"}


def test_state(join: Join, capsys: pytest.CaptureFixture[str]) -> None:
    ready = run("ready.py")
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        ready["tell"](bob)
        ready["set_ready"](ada)
        until(lambda: ready["who_is_ready"](bob), ada, bob)
        until(lambda: "ada car" in capsys.readouterr().out, ada, bob)
        assert ready["who_is_ready"](bob) == ["ada"]
        assert ready["who_is_ready"](ada) == []


def test_rounds(join: Join, capsys: pytest.CaptureFixture[str]) -> None:
    rounds = run("rounds.py")
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        host = agree(ada, bob)
        other = bob if host is ada else ada
        rounds["start_round"](other)
        rounds["start_round"](host)
        said = ""

        def frame() -> None:
            nonlocal said
            rounds["frame"](other)
            said += capsys.readouterr().out

        until(lambda: "round 1 is over" in said, host, each_frame=frame)
        assert other.state["round"] == 1


def test_asking(join: Join) -> None:
    asking = run("asking.py")
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        host = agree(ada, bob)
        other = bob if host is ada else ada
        asking["serve"](host, ["key"])
        first, second = asking["ask_the_host"](other, "key"), asking["ask_the_host"](other, "key")
        until(lambda: first.is_done and second.is_done, ada, bob)
        assert first.result().item == "key"
        with pytest.raises(RequestRefused, match="no key here"):
            second.result()


def test_files(join: Join, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    level = run("level.py")
    path = tmp_path / "castle.json"
    path.write_bytes(b"x" * 50_000)
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        level["take_levels"](bob)
        level["send_level"](ada, path)
        said = ""

        def frame() -> None:
            nonlocal said
            level["take_levels"](bob)
            said += capsys.readouterr().out

        until(lambda: "ada sends castle.json 50000 bytes" in said and "%" in said, ada, bob, each_frame=frame)


def test_kick(join: Join) -> None:
    kick = run("kick.py")
    with join("ada") as ada, join("bob") as bob:
        meet(ada, bob)
        host = agree(ada, bob)
        other = bob if host is ada else ada
        votes: list[Any] = []
        host.on_vote(votes.append)
        until(lambda: {ada.me, bob.me} <= set(host.seats) and {ada.me, bob.me} <= set(other.seats), ada, bob)
        kick["kick"](other, other.peers[host.me])
        until(lambda: votes, ada, bob)
        kick["kick"](host, host.peers[other.me])
        until(lambda: not host.peers, host)
        assert host.barred == {other.me}


def test_late_join(join: Join) -> None:
    late = run("late.py")
    with join("ada") as ada, join("bob") as bob, join("cid") as cid:
        meet(ada, bob, cid)
        for net in (ada, bob):
            for tick in range(130):
                late["save"](net, tick, b"world %d" % tick)
        begun = late["begin"](cid)
        until(lambda: begun.is_done, ada, bob, cid)
        assert (begun.result().version, begun.result().data) == (120, b"world 120")
        assert begun.result().signers == {ada.me, bob.me}


CRASHING = """
import sys, time
from psyne_mesh import sync
from psyne_mesh.identity import Identity
from tests.room.players import LOOPBACK

names = {"__name__": "crashing"}
exec(open(sys.argv[2]).read(), names)
key = Identity.from_seed(b"b" * 32)
with sync.join_game_room(sys.argv[3], signaling=sys.argv[1], config=LOOPBACK, player_name="bob", identity=key) as net:
    ship = names["begin"](net)
    ship.x, ship.hp = 7.0, 33
    while True:
        ship = names["frame"](net, ship)
        time.sleep(0.01)
"""


def test_back(join: Join, url: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    back = run("back.py")
    path = tmp_path / "back.py"
    path.write_text(SNIPPETS["back.py"])
    command = [sys.executable, "-c", CRASHING, url, str(path), request.node.name[:100]]
    with join("ada") as ada:
        process = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])
        try:
            until(lambda: [ship.hp for ship in ada.all(back["Ship"])] == [33], ada)
            (seen,) = ada.all(back["Ship"])
        finally:
            process.kill()
            process.wait()
        with join("bob", identity=Identity.from_seed(b"b" * 32)) as bob:
            ship = back["begin"](bob)

            def frame() -> None:
                nonlocal ship
                ship = back["frame"](bob, ship)

            until(lambda: (ship.x, ship.hp) == (7.0, 33), ada, each_frame=frame)
            ship.hp = 32
            until(lambda: [each.hp for each in ada.all(back["Ship"])] == [32], ada, each_frame=frame)
            (now,) = ada.all(back["Ship"])
            assert now is seen
            assert not now.is_absent
