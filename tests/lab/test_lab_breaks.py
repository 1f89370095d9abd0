"""Every break breaks what it says and nothing else, and is mended at the end of its block."""

from __future__ import annotations

import ipaddress
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import Lab, Site
from tests.lab.breaks import REBOUND_PORTS
from tests.lab.namespaces import Process
from tests.lab.probing import ping, read_line, start_echo, start_ping, start_watch

pytestmark = pytest.mark.lab

ALICE, BOB, CAROL, SIG = "198.51.100.2", "198.51.100.18", "198.51.100.34", "203.0.113.2"


@pytest.fixture(scope="module")
def world() -> Iterator[Lab]:
    """Three players with public addresses and echo servers, and one behind each of several NATs."""
    sites = [Site("alice", "open"), Site("bob", "open"), Site("carol", "open"), Site("home"), Site("cell", "symmetric")]
    with Lab([*sites, Site("cone", "full-cone"), Site("deep", "double-cone")]) as lab:
        for name, address in (("alice", ALICE), ("bob", BOB), ("carol", CAROL), ("sig", SIG)):
            start_echo(lab, name, address)
        yield lab


def reaches(lab: Lab, player: str, address: str) -> bool:
    """All or nothing, of a few pings."""
    answers = ping(lab, player, address, count=5, interval_ms=5)["down"]
    assert answers in (0, 5)
    return bool(answers == 5)


def test_silenced(world: Lab) -> None:
    with world.breaks.silenced("alice"):
        assert not reaches(world, "alice", SIG)
        assert not reaches(world, "bob", ALICE)
        assert reaches(world, "bob", CAROL)
    assert reaches(world, "alice", SIG)
    assert reaches(world, "bob", ALICE)


def test_a_silence_is_as_long_as_its_block(world: Lab) -> None:
    process = start_ping(world, "home", SIG, count=80, interval_ms=10)
    time.sleep(0.2)
    began = time.monotonic()
    with world.breaks.silenced("home"):
        time.sleep(0.3)
    lasted_ms = (time.monotonic() - began) * 1000
    answer = read_line(process)
    assert 290 < answer["silence_ms"] < lasted_ms + 60  # and the round trip
    assert answer["down"] < 60


def test_partitioned(world: Lab) -> None:
    with world.breaks.partitioned(["alice", "home"], ["bob"]):
        assert not reaches(world, "alice", BOB)
        assert not reaches(world, "bob", ALICE)
        assert not reaches(world, "home", BOB)
        assert reaches(world, "home", ALICE)
        assert reaches(world, "carol", BOB)
        assert reaches(world, "bob", SIG)
    assert reaches(world, "alice", BOB)
    with world.breaks.partitioned(["alice", "sig"], ["bob", "carol"]):
        assert not reaches(world, "bob", SIG)
        assert reaches(world, "alice", SIG)
        assert reaches(world, "bob", CAROL)


@pytest.mark.parametrize("outward", [True, False])
def test_one_way(world: Lab, outward: bool) -> None:
    process = start_ping(world, "home", SIG, count=60, interval_ms=10)
    time.sleep(0.1)
    with world.breaks.one_way("home", "sig") if outward else world.breaks.one_way("sig", "home"):
        time.sleep(0.2)
    answer = read_line(process)
    assert answer["down"] < 50
    # The server counts what reaches it, and says so in its later answers.
    assert answer["up"] == (answer["down"] if outward else 60)


def test_udp_blocked_leaves_tcp(world: Lab) -> None:
    program = "import socket, sys; socket.create_connection((sys.argv[1], 443), timeout=2)"
    with world.breaks.udp_blocked("home"):
        assert not reaches(world, "home", SIG)
        world.namespaces.run("home", [sys.executable, "-I", "-S", "-c", program, "203.0.113.18"])
    assert reaches(world, "home", SIG)


def test_breaks_nest_and_each_mends_its_own(world: Lab) -> None:
    with world.breaks.silenced("alice"):
        with world.breaks.partitioned(["bob"], ["carol"]), world.breaks.lossy("home", up=1.0):
            assert not reaches(world, "bob", CAROL)
            assert not reaches(world, "home", SIG)
        assert reaches(world, "bob", CAROL)
        assert not reaches(world, "bob", ALICE)
    assert reaches(world, "bob", ALICE)


@pytest.mark.parametrize("player", ["home", "cell", "cone", "deep"])
def test_nat_rebound(world: Lab, player: str) -> None:
    watch = start_watch(world, player)
    before = read_line(watch)
    with world.breaks.nat_rebound(player):
        after = read_line(watch)
        assert after["own"] == before["own"]
        assert after["mapped"][0] == before["mapped"][0]
        assert after["mapped"][1] != before["mapped"][1]
        assert REBOUND_PORTS[0] <= after["mapped"][1] <= REBOUND_PORTS[1]
    assert said_nothing(watch)  # the new mapping outlives the block
    watch.kill()


def test_a_rebound_full_cone_lets_strangers_in_at_the_new_port_only(world: Lab) -> None:
    watch = start_watch(world, "cone")
    old = read_line(watch)["mapped"]
    with world.breaks.nat_rebound("cone"):
        new = read_line(watch)["mapped"]
        world.namespaces.commands([("cone", ["nft", "-f", "-"], COUNTER)])
        send(world, "bob", old)
        assert counted(world, "cone") == 0
        send(world, "bob", new)
        assert counted(world, "cone") == 1
    watch.kill()


COUNTER = """
table inet count {
 counter big { }
 chain arrived { type filter hook input priority -300; udp length 1008 counter name big; }
}
"""


def counted(lab: Lab, player: str) -> int:
    """How many datagrams like those of `send` (8 bytes of header, 1000 of data) have reached the player."""
    listed = lab.namespaces.commands([(player, ["nft", "list", "counter", "inet", "count", "big"], "")])[0]
    return int(listed.split("packets ")[1].split()[0])


def send(lab: Lab, player: str, address: list[object]) -> None:
    program = "import socket, sys; s = socket.socket(type=2); s.sendto(bytes(1000), (sys.argv[1], int(sys.argv[2])))"
    lab.namespaces.run(player, [sys.executable, "-I", "-S", "-c", program, *map(str, address)])
    time.sleep(0.1)  # both links


def test_forgotten_mappings_of_a_symmetric_nat_come_back_as_others(world: Lab) -> None:
    watch = start_watch(world, "cell")
    before = read_line(watch)
    world.breaks.forget_mappings("cell")
    assert read_line(watch)["mapped"] != before["mapped"]
    watch.kill()


@pytest.mark.parametrize("player", ["home", "deep", "alice"])
def test_wan_address_changed(world: Lab, player: str) -> None:
    watch = start_watch(world, player)
    before = read_line(watch)
    with world.breaks.wan_address_changed(player):
        after = changed(watch)
        assert after["mapped"][0] != before["mapped"][0]
        assert (after["own"] == before["own"]) == (player != "alice")
    back = changed(watch)
    assert back["mapped"][0] == before["mapped"][0]
    watch.kill()


def test_player_address_changed(world: Lab) -> None:
    watch = start_watch(world, "home")
    before = read_line(watch)
    with world.breaks.player_address_changed("home"):
        after = changed(watch)
        assert after["own"][0] != before["own"][0]
        assert after["mapped"][0] == before["mapped"][0]
    assert changed(watch)["own"][0] == before["own"][0]
    watch.kill()


def test_roamed(world: Lab) -> None:
    watch = start_watch(world, "home")
    before = read_line(watch)
    with world.breaks.roamed("home", "cell"):
        after = changed(watch)
        assert ipaddress.ip_address(after["own"][0]) in ipaddress.ip_network("10.5.0.0/24")
        assert after["mapped"][0] == "198.51.100.66"
    back = changed(watch)
    assert [back[end][0] for end in back] == [before[end][0] for end in before]
    watch.kill()


def test_turn_killed(world: Lab) -> None:
    watch = start_watch(world, "bob")
    assert read_line(watch)["mapped"][0] == BOB
    with world.breaks.turn_killed():
        assert read_line(watch) is None
    assert read_line(watch)["mapped"][0] == BOB
    watch.kill()


def test_signaling_killed(world: Lab) -> None:
    program = "import socket; print(socket.socket().connect_ex(('203.0.113.2', 443)) == 0)"
    asked = [sys.executable, "-I", "-S", "-c", program]
    with pytest.raises(ValueError, match="first"), world.breaks.signaling_killed():
        pass
    world.start_signaling()
    assert world.namespaces.run("home", asked) == "True\n"
    with world.breaks.signaling_killed():
        assert world.namespaces.run("home", asked) == "False\n"
    assert world.namespaces.run("home", asked) == "True\n"


def test_frozen(world: Lab) -> None:
    process = world.namespaces.spawn("bob", ["sh", "-c", "while :; do echo 1; sleep 0.02; done"])
    read_line(process)
    with world.breaks.frozen(process):
        while not said_nothing(process):
            read_line(process)
    assert read_line(process) == 1
    process.kill()


def test_what_has_no_nat_cannot_be_rebound(world: Lab) -> None:
    with pytest.raises(ValueError, match="no NAT"), world.breaks.nat_rebound("alice"):
        pass
    with pytest.raises(ValueError, match="no site"), world.breaks.silenced("nobody"):
        pass


def changed(watch: Process) -> dict[str, Any]:
    """The next line that is not "no answer"."""
    while (line := read_line(watch)) is None:
        pass
    found: dict[str, Any] = line
    return found


def said_nothing(process: Process, for_s: float = 0.15) -> bool:
    assert process.stdout is not None
    return not select.select([process.stdout], [], [], for_s)[0]
