"""Shared objects: everybody sees the same in the end, whatever the link does, and little travels."""

from __future__ import annotations

import math
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyne_mesh.errors import InvalidConfig, ProtocolError, UnserialisableMessage
from psyne_mesh.game.replicas import HOSTLESS_S, Appeared, Replicas, Restored, Vanished
from psyne_mesh.game.schema import Shared, announced_untrusted, announcement, quantised, schema_of, smooth
from psyne_mesh.game.shared import Removed, SharedObjects
from psyne_mesh.game.shared_records import OBJECTS_MAX, offer_untrusted
from psyne_mesh.game.shared_wire import fields_encoded, fields_untrusted
from psyne_mesh.identity import PeerId
from tests.game.party import Party


class Ship(Shared):
    x: float = smooth(0.0)
    y: float = smooth(0.0, bits=16, low=-100.0, high=100.0)
    hp: int = 100
    name: str = ""
    alive: bool = True
    heat: float = quantised(0.0, bits=6, low=0.0, high=63.0)
    target: tuple[int, int] | None = None
    speed: float = 0.0


class Rock(Shared):
    size: int = 1


def values_of(*shared: Shared) -> list[tuple[Any, ...]]:
    return sorted(tuple(getattr(each, name) for name in each.__struct_fields__) for each in shared)


def test_an_object_is_seen_by_all_and_follows_its_owner() -> None:
    party = Party("abc")
    a, b, c = party.players.values()
    b.replicas.know(Ship)
    ship = a.share(Ship(name="ada", target=(3, 4)))
    party.run(0.2)
    ship.hp, ship.heat, ship.speed = 7, 12.0, 0.1
    party.run(0.5)
    assert b.sees(Ship, party.now) == values_of(ship)
    c.replicas.know(Ship)  # declared late, and it is there at once
    assert c.sees(Ship, party.now) == values_of(ship)
    (seen,) = b.replicas.all(Ship)
    assert seen.owner == "a"
    assert not seen.is_mine
    assert ship.owner == "a"
    assert ship.is_mine
    assert [type(event) for event in b.events] == [Appeared]
    a.unshare(ship)
    party.run(0.3)
    assert b.sees(Ship, party.now) == []
    assert [type(event) for event in b.events] == [Appeared, Vanished]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), loss=st.sampled_from([0.0, 0.2, 0.6]), jitter=st.sampled_from([0.0, 0.3]))
def test_all_agree_in_the_end(seed: int, loss: float, jitter: float) -> None:
    """Objects come, change and go; messages are lost, doubled and overtake each other; players are cut off and come back."""
    rng = random.Random(seed)
    party = Party("abc", seed, fps=30.0, loss=loss, double=0.2, delay=lambda rng: 0.02 + rng.random() * jitter)
    for player in party.players.values():
        player.replicas.know(Ship)
        player.replicas.know(Rock)
    owned: dict[str, list[Any]] = {name: [] for name in party.players}

    def play(now: float) -> None:
        name = rng.choice("abc")
        player, mine = party.players[name], owned[name]
        dice = rng.random()
        if dice < 0.1 and len(mine) < 5:
            mine.append(player.share(rng.choice([Ship, Rock])()))
        elif dice < 0.15 and mine:
            player.unshare(mine.pop(rng.randrange(len(mine))))
        elif mine:
            each = rng.choice(mine)
            if isinstance(each, Rock):
                each.size += 1
            else:
                each.x, each.hp, each.name = float(rng.randrange(100)), rng.randrange(100), str(rng.random())
        if rng.random() < 0.01:
            one, other = rng.sample("abc", 2)  # forgets the other, who does not know it
            party.players[one].wire.peer_joined(PeerId(other), now)
            party.players[one].take()

    party.run(1.5, play)
    party.cut = True
    party.run(2.5, play)
    party.cut = False
    party.run(0.5, play)
    party.loss = 0.0
    party.run(4.0)
    for name, player in party.players.items():
        for kind in (Ship, Rock):
            others = [each for other, mine in owned.items() if other != name for each in mine if type(each) is kind]
            assert player.sees(kind, party.now) == values_of(*others)
    assert not any(player.refused for player in party.players.values())


def test_nothing_is_sent_when_nothing_changes() -> None:
    party = Party("ab")
    a, b = party.players.values()
    ship = a.share(Ship())
    party.run(1.0)
    before = a.bytes_sent, b.bytes_sent
    party.run(5.0)
    assert (a.bytes_sent, b.bytes_sent) == before
    assert a.wire.next_timeout() == math.inf
    ship.hp = 1
    party.run(0.5)
    assert a.bytes_sent > before[0]


def test_deltas_are_a_fraction_of_the_state() -> None:
    """100 objects of 8 fields at 30 Hz to 7 players, of which all move and a few change otherwise."""
    party = Party("abcdefgh")
    a = party.players["a"]
    ships = [a.share(Ship(name=f"ship number {number}", speed=1.5)) for number in range(100)]
    party.run(0.001)
    party.run(1.0)
    full = sum(len(a.wire._encoded_record(number, own, -1)) for number, own in a.wire._own.items()) * 7
    before = a.bytes_sent

    def play(now: float) -> None:
        for number, ship in enumerate(ships):
            ship.x += 0.5
            ship.y = number * math.sin(now)
        ships[int(now * 60) % 100].hp -= 1

    party.run(2.0, play)
    assert (a.bytes_sent - before) / 60 <= 0.30 * full


def test_a_late_joiner_and_one_who_was_silent_get_everything() -> None:
    party = Party("ab")
    a, b = party.players.values()
    b.replicas.know(Ship)
    ship = a.share(Ship(name="here"))
    party.run(1.0)
    party.cut = True
    ship.hp = 1
    party.run(10.0)
    party.cut = False
    party.run(1.0)
    assert b.sees(Ship, party.now) == values_of(ship)
    b.wire.peer_left(PeerId("a"))
    b.take()
    assert b.sees(Ship, party.now) == []
    b.wire.peer_joined(PeerId("a"), party.now)  # it alone begins anew
    ship.hp = 2
    party.run(1.0)
    assert b.sees(Ship, party.now) == values_of(ship)


def ship_of(**annotations: Any) -> Any:
    """A class called Ship with these fields, as another version of the game has it."""
    return type(Shared)(
        "Ship", (Shared,), {"__annotations__": {key: kind for key, (kind, _) in annotations.items()}, "__module__": __name__}
        | {key: default for key, (_, default) in annotations.items()},
    )  # fmt: skip


def test_fields_added_at_the_end_work_both_ways() -> None:
    old, new = ship_of(hp=(int, 100)), ship_of(hp=(int, 100), shield=(int, 5))
    party = Party("ab")
    a, b = party.players.values()
    one, other = a.share(old(7)), b.share(new(8, 9))
    a.replicas.know(old)
    party.run(0.5)
    assert a.sees(old, party.now) == [(8,)]
    assert b.sees(new, party.now) == [(7, 5)]
    other.hp, other.shield, one.hp = 1, 2, 3
    party.run(0.5)
    assert a.sees(old, party.now) == [(1,)]
    assert b.sees(new, party.now) == [(3, 5)]
    assert not a.refused + b.refused


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"hp": (float, 1.0), "x": (int, 0)}, "Ship.hp is int here and float there"),
        ({"x": (int, 0), "hp": (int, 100)}, "field 1 of Ship is hp here and x there"),
        ({"health": (int, 100), "x": (int, 0)}, "field 1 of Ship is hp here and health there"),
        ({"hp": (int, 0), "x": (float, quantised(0.0, bits=4, low=0, high=1))}, "Ship.x is int here and quantised to 4 bits"),
    ],
)  # fmt: skip
def test_a_changed_field_is_named_once_and_nothing_of_it_is_shown(theirs: dict[str, Any], words: str) -> None:
    ours = ship_of(hp=(int, 100), x=(int, 0))
    party = Party("ab")
    a, b = party.players.values()
    a.replicas.know(ours)
    b.share(ship_of(**theirs)())
    party.run(1.0)
    assert [words in refused.reason for refused in a.refused] == [True]
    assert a.sees(ours, party.now) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"items": (list[int], [])}, "items can change without being assigned"),
        ({"items": (tuple[list[int], ...], ())}, "items can change without being assigned"),
        ({"other": (object, None)}, "other cannot travel"),
        ({"x": (int, smooth(0.0))}, "x is smooth, so it must be a float"),
        ({"x": (str, quantised("", bits=3, low=0, high=1))}, "x is quantised"),
        ({f"f{number}": (int, 0) for number in range(65)}, "65 fields"),
        ({}, "0 fields"),
    ],
)
def test_a_field_that_cannot_travel_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        schema_of(ship_of(**fields))


def test_a_field_without_a_default_is_named() -> None:
    class Bare(Shared):
        x: float

    with pytest.raises(InvalidConfig, match=r"Bare\.x has no default"):
        schema_of(Bare)


@pytest.mark.parametrize(
    ("name", "value"),
    [("x", math.nan), ("x", math.inf), ("x", 1e300), ("x", "1"), ("y", math.nan), ("hp", 1.5), ("hp", 2**70), ("name", 3),
     ("name", "x" * 5000), ("name", "\ud800"), ("alive", 2), ("target", (1,)), ("speed", None)],
)  # fmt: skip
def test_a_value_that_cannot_travel_is_named_and_the_rest_goes_on(name: str, value: Any) -> None:
    party = Party("ab")
    a, b = party.players.values()
    b.replicas.know(Ship)
    ship = a.share(Ship())
    setattr(ship, name, value)
    with pytest.raises(UnserialisableMessage, match=rf"Ship\.{name}"):
        party.run(0.1)
    setattr(ship, name, getattr(Ship(), name))
    party.run(0.5)
    assert b.sees(Ship, party.now) == values_of(Ship())
    with pytest.raises(UnserialisableMessage, match=rf"Ship\.{name}"):
        a.share(Ship(**{name: value}))


def test_misuse_is_refused_where_it_is_made() -> None:
    a = Party("ab").players["a"]
    ship = a.share(Ship())
    for wrong in (Ship, ship, object(), 3):
        with pytest.raises(InvalidConfig):
            a.share(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig):
        a.unshare(Ship())
    with pytest.raises(InvalidConfig, match="two classes"):
        a.share(ship_of(hp=(int, 1))())
    with pytest.raises(InvalidConfig, match="no class of shared objects"):
        a.replicas.know(Shared)
    for _ in range(OBJECTS_MAX - 1):
        a.share(Rock())
    with pytest.raises(InvalidConfig, match="at most"):
        a.share(Rock())


def test_an_older_term_is_refused() -> None:
    a, b = SharedObjects(random.Random(1)), SharedObjects(random.Random(2))
    a.peer_joined(PeerId("b"), 0.0)
    b.peer_joined(PeerId("a"), 0.0)

    def said(term: int, size: int, now: float) -> None:
        a.remove(1)
        a._own.pop(1, None)
        for link in a._links.values():
            link.baselines.clear()
        a.add(1, schema_of(Rock), [schema_of(Rock).wire_of(0, size)], term)
        for _, data in a.datagrams_to_send(now):
            b.receive(PeerId("a"), data, now)

    said(2, 5, 1.0)
    said(1, 6, 2.0)
    said(3, 7, 3.0)
    updates = [event for event in b.take_events() if hasattr(event, "values")]
    assert [event.term for event in updates] == [2, 3]


@pytest.mark.parametrize("loss", [0.0, 0.4])
def test_of_two_who_claim_the_hosts_object_the_later_host_counts(loss: float) -> None:
    party = Party("abc", 5, loss=loss)
    a, b, c = players = list(party.players.values())
    for player in players:
        player.replicas.know(Ship)
        player.replicas.know(Rock)

    def run() -> None:
        party.run(2.0)
        for player in players:
            player.replicas.sample(party.now)

    def hps() -> list[int]:
        return [ship.hp for player in players for ship in player.replicas.all(Ship)]

    a.knows_host("a", 1)
    of_a, unknown = a.share(Ship(), 1), a.share(Ship(hp=-1))
    run()
    assert hps() == [100, -1, -1, -1]  # it is not known yet that `a` is the host
    a.unshare(unknown)
    for player in players:
        player.knows_host("a", 1)
    of_c = c.share(Ship(hp=66), 99)  # who is not the host at all
    run()
    assert hps() == [100, 100, 66]
    c.unshare(of_c)
    run()
    assert hps() == [100, 100, 100]
    b.knows_host("b", 2)  # the host was away, and does not know
    (of_b,) = b.replicas.all(Ship)
    of_a.hp, of_b.hp = 50, 70
    run()
    assert of_b.is_mine
    assert hps() == [50, 70, 50]  # each believes the host that it knows
    c.knows_host("b", 2)
    of_a.hp = 51
    run()
    assert hps() == [51, 70, 70]
    a.knows_host("b", 2)
    run()
    assert hps() == [70, 70, 70]
    assert not of_a.is_mine
    of_b.hp = 71
    run()
    assert hps() == [71, 71, 71]
    for player in players:
        player.knows_host("b", 3)  # again
    of_b.hp = 72
    run()
    assert hps() == [72, 72, 72]
    for player in (c, a, b):
        player.knows_host("a", 4)  # and back
    of_a.hp = 73
    run()
    assert hps() == [73, 73, 73]
    assert [ship.owner for player in players for ship in player.replicas.all(Ship)] == ["a", "a", "a"]
    rock = a.share(Rock(), 4)
    a.unshare(of_a)
    run()
    assert hps() == []
    assert [type(event) for event in b.events if isinstance(event, Vanished)].count(Vanished) == 2
    for player in (b, c):
        player.wire.peer_left(PeerId("a"))
    run()
    assert [len(list(player.replicas.all(Rock))) for player in players] == [1, 1, 1]  # somebody may go on with it
    party.run(HOSTLESS_S)
    run()
    assert [len(list(player.replicas.all(Rock))) for player in players] == [1, 0, 0]
    assert rock.is_mine


def test_two_founders_of_one_term_end_with_the_objects_of_one() -> None:
    party = Party("ab", 5)
    a, b = players = list(party.players.values())
    for player in players:
        player.replicas.know(Ship)
        player.knows_host("a", 1)
    ship = a.share(Ship(), 1)
    party.run(1.0)
    b.replicas.sample(party.now)
    for player in (b, a):
        player.knows_host("b", 1)  # who has the lower seat
    (of_b,) = b.replicas.all(Ship)
    of_b.hp = 9
    party.run(1.0)
    a.replicas.sample(party.now)
    assert [(each.hp, each.owner) for player in players for each in player.replicas.all(Ship)] == [(9, "b"), (9, "b")]
    assert not ship.is_mine


@given(data=st.binary(max_size=200))
def test_bytes_from_outside_are_refused_or_read(data: bytes) -> None:
    core = SharedObjects(random.Random(1))
    core.peer_joined(PeerId("b"), 0.0)
    for prefix in (b"", bytes([1, 0]), bytes([1, 0]) + bytes(8) + b"\x01" + bytes(20)):
        try:
            core.receive(PeerId("b"), prefix + data, 1.0)
        except ProtocolError:
            continue
    core.datagrams_to_send(2.0)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_message_bent_anywhere_ends_in_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    party = Party("ab", seed)
    a, b = party.players.values()
    a.replicas.know(Ship)
    ships = [b.share(Ship(name="n" * number)) for number in range(5)]
    for _ in range(10):
        party.run(0.05)
        rng.choice(ships).hp += 1
        party.now += 0.05
        for _, data in b.frame(party.now):
            bent = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                bent[rng.randrange(len(bent))] = rng.randrange(256)
            try:
                a.receive(
                    PeerId("b"), bytes(bent[: rng.randint(1, len(bent))] if rng.random() < 0.3 else bent), party.now
                )
            except ProtocolError:
                continue
    a.sees(Ship, party.now)


@given(st.data())
def test_fields_survive_the_wire(data: st.DataObject) -> None:
    widths = data.draw(st.lists(st.sampled_from([0, 1, 7, 16, 32, 64]), min_size=1, max_size=40))
    values = [
        data.draw(st.integers(0, 2**width - 1)) if width else data.draw(st.sampled_from([b"\x01", b"\xa1a", b"\xc0"]))
        for width in widths
    ]
    mask = data.draw(st.integers(0, 2 ** len(widths) - 1))
    encoded = fields_encoded(widths, mask, values)
    decoded, end = fields_untrusted(widths, mask, b"xx" + encoded + b"yy", 2)
    assert end == 2 + len(encoded)
    assert decoded == {number: value for number, value in enumerate(values) if mask >> number & 1}


def test_an_announcement_is_read_back() -> None:
    theirs = announced_untrusted(announcement(schema_of(Ship)))
    assert theirs.difference(schema_of(Ship)) is None
    assert list(theirs.widths) == [field.bits for field in schema_of(Ship).fields]


@given(st.binary(max_size=200))
def test_nothing_but_a_protocol_error_leaves_the_reader_of_offers(data: bytes) -> None:
    with suppress(ProtocolError):
        offer_untrusted(PeerId("a"), data)


def test_what_is_offered_to_who_is_back_is_what_it_said_last() -> None:
    party = Party("ab")
    a, b = party.players.values()
    ship = a.share(Ship())
    party.run(0.5)
    ship.hp = 7
    party.run(0.5)
    b.wire.peer_left(PeerId("a"), keep_until=party.now + 45)
    assert b.wire.next_timeout() == party.now + 45
    b.wire.peer_joined(PeerId("a"), party.now)
    (offer,) = b.wire.offers_to(PeerId("a"))
    kept = offer_untrusted(PeerId("a"), offer)
    again = Replicas()
    again.apply(kept, None)
    assert not again.take_events()  # its class is not known yet
    again.know(Ship)
    (restored,) = again.take_events()
    assert isinstance(restored, Restored)
    assert restored.shared.hp == 7  # type: ignore[attr-defined]
    assert again.share(restored.shared, None)[0] == kept.number
    b.wire.peer_left(PeerId("a"), keep_until=party.now + 45)
    b.wire.take_events()
    b.wire.handle_timeout(party.now + 45)
    assert [type(event) for event in b.wire.take_events()] == [Removed]
