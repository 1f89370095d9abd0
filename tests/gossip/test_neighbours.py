"""A neighbour is one object with one end: what the machines kept because of its link is gone with it."""

from __future__ import annotations

import random
import types
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from psyne_mesh.gossip.neighbours import PROVEN, Neighbours
from psyne_mesh.gossip.node import Node
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import Cluster
from tests.gossip.test_node_partial_mesh import crowd

A, B = PeerId("a" * 32), PeerId("b" * 32)

# Tables of peers and not of links: they may name somebody whose link is gone. What each is for, and what bounds it.
OUTLIVES = {
    "Broadcast._cache": "messages, by author: so many bytes, so many seconds",
    "Broadcast._missing": "messages that somebody else may still send: until their deadline, so many of them",
    "Broadcast._promises": "until they are due, so many of them",
    "Hearings._kept": "counters of lost frames: 64 peers, two minutes",
    "Membership._gone": "members who are gone",
    "Membership._table": "members, and who was one",
    "Missing.guesses": "as the message",
    "Missing.hops": "as the message",
    "Overlay._backoff": "with whom we parted: a minute",
    "Overlay._honoured": "who was let in because it was stranded: 1,024, a minute",
    "Router._routes": "ways to authors of signals: 1,024",
    "Router._seen": "signals, by author: 4,096",
    "Signs._newest": "keepers of the tree: 16",
    "Streams._standings": "authors: 1,024",
    "Streams._streams": "authors: 1,024",
    "Vouching._asked": "questions by number: 256",
    "ViewHash._records": "members",
}


def parts(thing: object) -> Iterator[tuple[str, object]]:
    """The attributes of an object, by slots or not, compiled or not."""
    for kind in type(thing).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType) and name[:2] != "__":
                yield name, getattr(thing, name, None)
    yield from getattr(thing, "__dict__", {}).items()


def of_gossip(root: object) -> Iterator[tuple[str, object]]:
    """Everything that this object of the gossip core keeps, its objects' attributes included, each with its name."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        name, thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, str | bytes | int | float | type | types.MethodType | random.Random):
            continue
        seen.add(id(thing))
        yield name, thing
        if isinstance(thing, Mapping):
            waiting += [(name, each) for pair in thing.items() for each in pair]
        elif isinstance(thing, Collection):
            waiting += [(name, each) for each in thing]
        elif type(thing).__module__.startswith(("psyne_mesh.gossip", "psyne_mesh.limits")):
            waiting += [(f"{type(thing).__name__}.{part}", value) for part, value in parts(thing)]


def names(key: object) -> Iterator[object]:
    yield key
    if isinstance(key, tuple):
        yield from key


def tables_with(node: Node, peer: PeerId) -> set[str]:
    """The tables in which this peer is a key, or a part of one."""
    return {
        name
        for name, thing in of_gossip(node._core)
        if isinstance(thing, Mapping) and any(peer in names(key) for key in list(thing))
    }


def busy() -> Cluster:
    room = crowd(20, 3)
    for tick in range(20):
        for peer in room.ids()[tick % 3 :: 3]:
            room.say(peer, b"x")
        room.run(0.2)
    return room


def test_what_belongs_to_a_neighbour_goes_with_its_link() -> None:
    room = busy()
    peer = room.ids()[4]
    node = room.nodes[peer]
    gone = list(node._core.links)[:3]
    found = [node._core.links[other] for other in gone]
    parts_of = [
        part for neighbour in found for part in (neighbour.probe, neighbour.place, neighbour.tree, neighbour.views)
    ]
    for other in gone:
        node._core.hang_up(other, "test", room.now)
    room.drain(peer)
    assert not [name for name, thing in of_gossip(node._core) if any(thing is each for each in found + parts_of)]
    assert {name for other in gone for name in tables_with(node, other)} <= set(OUTLIVES)


def test_the_tables_that_outlive_links_are_there() -> None:
    room = busy()
    core = room.nodes[room.ids()[4]]._core
    missing = {"Missing.guesses", "Missing.hops"}  # nothing is missing now
    assert set(OUTLIVES) - {name for name, _ in of_gossip(core)} <= missing


def test_a_new_link_to_the_same_peer_takes_over_what_it_proved_and_owes() -> None:
    neighbours = Neighbours()
    first = neighbours.open(A, 0.0, outbound=True)
    first.tree.broken, first.place.unbiased = PROVEN, True
    second = neighbours.open(A, 1.0, outbound=True)
    assert neighbours.links[A] is neighbours.watched[A] is second is not first
    assert (second.tree, second.signals, second.loss) == (first.tree, first.signals, first.loss)
    assert second.place.unbiased
    assert second.probe is not first.probe
    assert second.cost is not first.cost
    assert not neighbours.open(A, 2.0, outbound=False).place.unbiased  # the other side dialled this one


def test_whose_link_broke_is_watched_until_it_is_closed() -> None:
    neighbours = Neighbours()
    first = neighbours.open(A, 0.0, outbound=True)
    other = neighbours.open(B, 0.0, outbound=True)
    other.probe.impaired = True
    assert neighbours.good == [first]
    assert neighbours.lose(A) is first
    assert (list(neighbours.links), list(neighbours.watched)) == ([B], [A, B])
    again = neighbours.open(A, 1.0, outbound=True)
    assert again.tree is not first.tree  # that link was over
    assert neighbours.close(A) is again
    assert neighbours.close(A) is None
    assert A not in neighbours.watched
