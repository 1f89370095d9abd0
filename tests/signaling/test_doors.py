"""Who may come in: limits by address and in total, before anybody has proved anything."""

from __future__ import annotations

import math
import random

import pytest

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.signaling.audience import check_public_name, is_meant
from psyne_mesh.signaling.doors import DoorLimits, Doors, Entry, Standing, address_of

HOST = ("192.0.2.7", 8080)


def doors(descriptors: float = math.inf, **changes: object) -> Doors:
    return Doors(DoorLimits(**changes), descriptors, now=0.0)  # type: ignore[arg-type]


def knocks(at: Doors, address: str, count: int, now: float = 0.0) -> list[Entry]:
    return [at.knock(address, now) for _ in range(count)]


def standings(entries: list[Entry]) -> list[Standing]:
    return sorted({entry.standing for entry in entries}, key=str)


def test_a_household_is_one_address() -> None:
    assert address_of("2001:db8:1:2:3:4:5:6") == address_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert address_of("2001:db8:1:3::1") != address_of("2001:db8:1:2::1")
    assert address_of("::ffff:192.0.2.1") == address_of("192.0.2.1") == "192.0.2.1"
    assert address_of("fe80::1%eth0") == "fe80::/64"
    assert address_of("a memory stream") == "a memory stream"


def test_silent_ones_of_one_address_keep_nobody_out() -> None:
    at = doors()
    assert sum(entry.standing is Standing.WAITING for entry in knocks(at, "evil", 1_100)) == 128
    for number in range(100):
        assert at.knock(f"player {number}", 1.0).standing is Standing.WAITING


def test_silent_ones_of_many_addresses_give_way_the_oldest_of_the_greediest_first() -> None:
    at = doors(waiting_max=40, hellos_per_s=1e6)
    crowd = [at.knock(f"evil {number % 4}", number / 100) for number in range(40)]
    assert at.knock("player", 1.0).standing is Standing.WAITING
    assert at.take_evicted() == [crowd[0]]
    assert not at.proved(crowd[0], 1.1), "it was too late"
    for number in range(30):
        at.knock(f"player {number}", 2.0)
    evicted = at.take_evicted()
    assert len(evicted) == 30
    assert {sum(e.address == f"evil {n}" for e in evicted) for n in range(4)} <= {7, 8}, "in turn"


def test_clients_of_one_address_leave_half_of_the_descriptors() -> None:
    at = doors(descriptors=1_024)
    got_in = 0
    for number in range(1_040):
        entry = at.knock("evil", number / 10)
        if entry.standing is Standing.WAITING:
            got_in += at.proved(entry, number / 10)
    assert got_in == (1_024 - 64 - 128) / 2
    for number in range(200):
        assert at.proved(at.knock(f"player {number}", 200.0 + number), 200.0 + number)


def test_descriptors_are_kept_in_reserve() -> None:
    at = doors(descriptors=400, hellos_per_s=1e6)
    held = [entry for n in range(1_000) if (entry := at.knock(f"{n}", 0.0)).standing is not Standing.SLAMMED]
    assert len(held) <= 400 - 64
    assert sum(entry.standing is Standing.TURNED_AWAY for entry in held) <= 128


def test_handshakes_have_a_rate_for_each_address_and_for_all() -> None:
    at = doors()
    let_in = 0
    for step in range(10_000):
        entry = at.knock("evil", step / 1_000)
        let_in += entry.standing is Standing.WAITING
        at.left(entry)
    assert let_in == pytest.approx(256 + 10 * 50, abs=2)
    at, let_in = doors(), 0
    for step in range(10_000):
        entry = at.knock(f"{step}", step / 1_000)
        let_in += entry.standing is Standing.WAITING
        at.left(entry)
    assert let_in == pytest.approx(256 + 10 * 250, abs=2)


def test_who_is_told_to_come_back_is_told_when() -> None:
    """5,000 at once: those who did as they were told are in within half a minute, without another crowd."""
    at, rng, now = doors(), random.Random(1), 0.0
    arrivals = sorted((rng.uniform(0, 1), number) for number in range(5_000))
    waiting: list[tuple[float, Entry]] = []
    knocks = inside = 0
    while arrivals:
        now, number = arrivals.pop(0)
        while waiting and waiting[0][0] <= now:
            inside += at.proved(waiting.pop(0)[1], now)
        entry = at.knock(f"player {number}", now)
        knocks += 1
        if entry.standing is Standing.WAITING:
            waiting.append((now + 0.1, entry))
            continue
        at.left(entry)
        retry_after_s = entry.retry_after_s or 1
        assert retry_after_s <= 30
        arrivals.append((now + retry_after_s * rng.uniform(1, 1.5), number))
        arrivals.sort()
    assert inside + len(waiting) == 5_000
    assert now < 40
    assert knocks < 4 * 5_000


def test_the_tables_stay_small_and_empty_again() -> None:
    at, rng = doors(), random.Random(2)
    here: list[Entry] = []
    for step in range(30_000):
        entry = at.knock(f"{rng.getrandbits(30)}", step / 100)
        here.append(entry)
        if rng.random() < 0.5:
            at.proved(entry, step / 100)
        if len(here) > 50:
            at.left(here.pop(rng.randrange(len(here))))
    for entry in here:
        at.left(entry)
        at.left(entry)
    at.take_evicted()
    assert [at.count(standing) for standing in Standing if standing is not Standing.GONE] == [0] * 4
    assert len(at._hellos_of) <= 10_000  # nothing public tells how much is remembered


MEANT = [
    ("192.0.2.7:8080", True),
    ("192.0.2.7:8081", False),  # another server of this machine
    ("192.0.2.8:8080", False),
    ("game.example:8080", True),
    ("GAME.example.:443", True),  # any port: a proxy may stand in front
    ("play.example:443", True),
    ("play.example:8080", False),
    ("rogue.example:8080", False),
    ("localhost:8080", False),
    ("", False),
    ("[::1", False),
    ("game.example:8080:1", False),
    ("x" * 256, False),
]


@pytest.mark.parametrize(("audience", "meant"), MEANT)
def test_whom_a_hello_was_meant_for(audience: str, meant: bool) -> None:
    assert is_meant(audience, frozenset({"game.example", "play.example:443"}), HOST) is meant


@pytest.mark.parametrize(
    ("audience", "local", "meant"),
    [
        ("localhost:80", ("127.0.0.1", 80), True),
        ("127.0.0.1:80", ("::ffff:127.0.0.1", 80), True),
        ("[::1]:80", ("::1", 80), True),
        ("[fe80::1%eth0]:80", ("fe80::1%2", 80), True),
        ("[2001:db8::1]:80", ("2001:db8:0::1", 80), True),
        ("localhost:80", None, False),
        ("127.0.0.1:80", ("not an address", 80), False),
    ],
)
def test_an_address_of_this_machine_means_this_machine(
    audience: str, local: tuple[str, int] | None, meant: bool
) -> None:
    assert is_meant(audience, frozenset(), local) is meant


def test_a_public_name_is_a_name() -> None:
    assert check_public_name("Game.Example") == "game.example"
    assert check_public_name("[2001:db8::1]:8080") == "2001:db8::1:8080"
    assert is_meant("[2001:db8::1]:8080", frozenset({check_public_name("[2001:db8::1]:8080")}), None)
    for wrong in ("", "wss://game.example", "a b/c", "game.example:https", ":80"):
        with pytest.raises(InvalidConfig):
            check_public_name(wrong)
