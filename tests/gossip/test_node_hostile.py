"""What liars, replayers, strangers and broken bytes can do: nothing to the others."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip import broadcast_wire as wire
from psyne_mesh.gossip import codec, exchange, routing, sync, walks
from psyne_mesh.gossip import records as r
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.events import (
    BroadcastReceived,
    CloseLink,
    Event,
    PeerDiscovered,
    PeerLeft,
    PeerSuspected,
    SendFrame,
    SignalReceived,
)
from psyne_mesh.gossip.freshness import UNTOLD, Calendar
from psyne_mesh.gossip.node import Node
from psyne_mesh.gossip.view_hash import BUCKETS
from psyne_mesh.identity import Identity, PeerId
from tests.gossip.cluster import ROOM, CheapIdentity, Cluster, cheap_verify, room_of

KEY = r.RoomKey.of(ROOM)
EVIL, MALLORY = CheapIdentity(666), CheapIdentity(667)
HELLO_REST = exchange.HELLO_BYTES - 3


def record(
    who: CheapIdentity, epoch: int = 1, incarnation: int = 0, state: int = r.ALIVE, room: r.RoomKey = KEY
) -> r.Record:
    return r.OwnState(epoch=epoch, incarnation=incarnation, state=state, joined_at=epoch).sign(room, who)


def told(*news: r.Record | r.Accusation) -> bytes:
    return codec.head(codec.TOLD) + b"".join(exchange.encoded(item) for item in news)


def accusation(room: Cluster, victim: PeerId, accuser: CheapIdentity, verdict: int, ahead: int = 0) -> r.Accusation:
    own = room.nodes[victim].own_record
    return r.accuse(KEY, accuser, victim, own.epoch, own.incarnation + ahead, verdict)


def infiltrated(
    size: int = 6, seed: int = 1, config: GossipConfig | None = None, calendar: Calendar = UNTOLD
) -> Cluster:
    """A room in which EVIL is a member with links to all, driven by hand: it answers pings and says what it likes."""
    room = room_of(size, seed, config, calendar=calendar)
    for peer in room.ids():
        room.links.add((min(peer, EVIL.peer_id), max(peer, EVIL.peer_id)))
        room.tell(peer, lambda node: node.link_up(EVIL.peer_id, room.now, 0.05))
    say(room, told(record(EVIL)))
    room.log.clear()
    return room


def say(room: Cluster, frame: bytes) -> None:
    for peer in room.ids():
        room.tell(peer, lambda node: node.receive(EVIL.peer_id, frame, room.now))


def keep_talking(room: Cluster, seconds: float) -> None:
    for _ in range(int(seconds / 0.4)):
        say(room, codec.PROBE.pack(codec.VERSION, codec.PING, 1, codec.NO_HASH, 0, 6, 0, 0, 0, 0, 0, 0, 0))
        room.run(0.4)


def gone(room: Cluster) -> list[PeerId]:
    return [event.peer for _, _, event in room.events(PeerLeft) if isinstance(event, PeerLeft)]


# -------------------------------------------------------------------------------------------------------- accusations


@pytest.mark.parametrize("ahead", [1, 7, 2**31, 2**32 - 1, 2**63])
def test_an_accusation_above_the_highest_signed_incarnation_is_refused(ahead: int) -> None:
    room = infiltrated()
    victim = room.ids()[2]
    before = room.nodes[victim].own_record
    say(room, told(accusation(room, victim, EVIL, r.DOWN, ahead)))
    keep_talking(room, 8.0)
    assert gone(room) == []
    assert room.events(PeerSuspected) == []
    assert room.nodes[victim].own_record is before
    assert sum(node.stats.accusations_refused for node in room.nodes.values()) == 5


@pytest.mark.parametrize("verdict", [r.SUSPECT, r.DOWN])
def test_a_lying_member_cannot_talk_anybody_out_of_the_room(verdict: int) -> None:
    room = infiltrated()
    victim = room.ids()[2]
    for _ in range(20):
        say(room, told(accusation(room, victim, EVIL, verdict)))
        keep_talking(room, 1.2)
    assert gone(room) == []
    assert all(victim in node.members for node in room.nodes.values())
    assert room.nodes[victim].stats.refutations >= 1


def test_a_member_that_is_accused_wherever_it_goes_signs_a_bounded_number_of_refutations() -> None:
    room = infiltrated()
    victim = room.ids()[2]
    for _ in range(100):
        lie = accusation(room, victim, EVIL, r.SUSPECT)
        room.tell(victim, lambda node: node.receive(EVIL.peer_id, told(lie), room.now))  # noqa: B023
        room.run(0.01)
    assert room.nodes[victim].stats.refutations <= 6


def test_strangers_and_forgers_accuse_in_vain() -> None:
    room = infiltrated()
    victim = room.ids()[2]
    stranger = accusation(room, victim, MALLORY, r.DOWN)
    real = accusation(room, victim, EVIL, r.DOWN)
    other = room.ids()[3]
    forged = codec.item(codec.ITEM_ACCUSATION, real.encoded[:-80] + codec.raw_of(other) + real.signature)
    say(room, told(stranger))
    say(room, codec.head(codec.TOLD) + forged)
    keep_talking(room, 8.0)
    assert gone(room) == []
    assert room.events(PeerSuspected) == []


# ----------------------------------------------------------------------------------------------------------- replays


def test_an_old_record_does_not_raise_the_dead() -> None:
    room = infiltrated()
    victim = room.ids()[2]
    old = room.nodes[victim].own_record
    room.crash(victim)
    keep_talking(room, 8.0)
    assert all(victim not in node.members for node in room.nodes.values())
    room.log.clear()
    say(room, told(old))
    keep_talking(room, 4.0)
    assert room.events(PeerDiscovered) == []
    assert all(victim not in node.members for node in room.nodes.values())


def test_a_goodbye_is_final_for_its_life() -> None:
    room = infiltrated()
    leaver = room.ids()[2]
    old = room.nodes[leaver].own_record
    room.leave(leaver)
    room.log.clear()
    say(room, told(old))
    keep_talking(room, 4.0)
    assert room.events(PeerDiscovered) == []


def test_records_of_other_rooms_other_keys_and_bent_ones_are_refused() -> None:
    room = infiltrated()
    elsewhere = record(MALLORY, room=r.RoomKey.of(b"elsewhere"))
    good = record(MALLORY).encoded
    say(room, told(elsewhere))
    say(room, codec.head(codec.TOLD) + codec.item(codec.ITEM_RECORD, good[:-1] + bytes([good[-1] ^ 1])))
    room.run(1.0)
    assert room.events(PeerDiscovered) == []
    say(room, told(record(MALLORY)))
    assert len(room.events(PeerDiscovered)) == 6


def test_one_bad_item_does_not_spoil_the_others() -> None:
    room = infiltrated()
    bad = codec.item(codec.ITEM_RECORD, bytes(100))
    unknown = codec.item(77, b"from the future")
    say(room, codec.head(codec.TOLD) + bad + unknown + exchange.encoded(record(MALLORY)))
    assert len(room.events(PeerDiscovered)) == 6


# --------------------------------------------------------------------------------------------------------- messages


def test_forged_broadcasts_are_not_delivered() -> None:
    room = infiltrated()
    honest = CheapIdentity(1)
    forged = wire.sign_message(KEY, EVIL, 1, 1, 1, b"I am player 1")
    body = honest.public_key + forged.body[32:]
    say(room, wire.encode_gossip(wire.Head(1, 0), body))
    elsewhere = wire.sign_message(r.RoomKey.of(b"elsewhere"), honest, 1, 1, 1, b"said in another room")
    say(room, wire.encode_gossip(wire.Head(1, 0), elsewhere.body))
    assert room.events(BroadcastReceived) == []


def test_messages_of_a_life_long_gone_are_not_delivered_again() -> None:
    room = infiltrated()
    leaver = room.ids()[2]
    said = wire.sign_message(KEY, CheapIdentity(2), 1, 1, 1, b"replayed")
    assert said.origin == leaver
    frame = wire.encode_gossip(wire.Head(1, 0), said.body)
    say(room, frame)
    heard = len(room.events(BroadcastReceived))
    assert heard == 5
    room.leave(leaver)
    keep_talking(room, 120.0)
    assert all(node._core.broadcast.streams.get(leaver) is None for peer, node in room.nodes.items() if peer != leaver)
    say(room, frame)
    assert len(room.events(BroadcastReceived)) == heard


def test_made_up_authors_make_nothing_of_a_member_come_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.gossip.streams._STREAMS_MAX", 12)
    room = infiltrated()
    honest = room.ids()[2]
    for payload in (b"hit for 10", b"hit for 20"):
        room.say(honest, payload)
    keep_talking(room, 0.4)
    for n in range(30):
        stranger = CheapIdentity(2000 + n)
        if n % 2:  # it was a member for a moment
            say(room, told(record(stranger)))
            say(room, told(record(stranger, incarnation=1, state=r.LEAVING)))
        say(room, wire.encode_gossip(wire.Head(1, wire.FLAT), wire.sign_message(KEY, stranger, 1, 1, 1, b"").body))
    room.say(honest, b"hit for 30")
    keep_talking(room, 8.0)
    for peer in room.ids():
        if peer != honest:
            got = [event.payload for _, _, event in room.events(BroadcastReceived, peer) if event.origin == honest]
            assert got == [b"hit for 10", b"hit for 20", b"hit for 30"]


def test_a_liar_cannot_silence_somebody_by_using_up_its_numbers() -> None:
    room = infiltrated()
    speaker = room.ids()[1]
    say(room, wire.encode_haves([wire.Have(speaker, 1, 1_000_000, 999_990, 0.0)], 0))
    say(room, wire.encode_ihave([wire.message_line((speaker, 1, n), 0) for n in range(1, 60)]))
    room.run(0.5)
    room.say(speaker, b"do you hear me?")
    keep_talking(room, 4.0)
    assert len(room.events(BroadcastReceived)) == 5


def test_relays_carry_signed_things_only() -> None:
    room = infiltrated()
    a, b = room.ids()[:2]
    ping = codec.PROBE.pack(codec.VERSION, codec.PING, 1, codec.NO_HASH, 0, 6, 0, 0, 0, 0, 0, 0, 0)
    before = room.nodes[a].stats.relayed
    room.tell(a, lambda node: node.receive(EVIL.peer_id, routing.encode_relay(b, ping), room.now))
    nested = routing.encode_relay(b, routing.encode_relay(b, told(record(MALLORY))))
    room.tell(a, lambda node: node.receive(EVIL.peer_id, nested, room.now))
    assert room.nodes[a].stats.relayed == before
    room.tell(a, lambda node: node.receive(EVIL.peer_id, routing.encode_relay(b, told(record(MALLORY))), room.now))
    assert room.nodes[a].stats.relayed == before + 1


def test_a_link_that_speaks_nonsense_is_closed() -> None:
    room = infiltrated()
    node = room.nodes[room.ids()[0]]
    for _ in range(25):
        node.receive(EVIL.peer_id, bytes((codec.VERSION, codec.PING)) + b"nonsense", room.now)
    outputs = node.take_outputs()
    assert CloseLink(EVIL.peer_id, "misbehaving") in outputs
    assert node.stats.frames_dropped >= 20
    assert EVIL.peer_id not in [link.peer for link in node.topology(room.now).links]


def test_sybils_fill_no_table_beyond_its_bound() -> None:
    room = infiltrated(size=3)
    config = GossipConfig()
    crowd = [record(CheapIdentity(1000 + n)) for n in range(400)]
    for start in range(0, 400, 20):
        say(room, told(*crowd[start : start + 20]))
    for node in room.nodes.values():
        assert len(node.members) <= config.full_knowledge_max + 1
        assert len(node._core.dialer.in_flight) <= config.dials_max
        assert len(node._core.dialer.wanted) <= config.full_mesh_max + 2


@pytest.mark.parametrize("goodbyes", [False, True])
def test_lives_in_one_breath_make_few_events_and_nobody_is_shown_for_long(goodbyes: bool) -> None:
    room = infiltrated()
    first, second = room.ids()[:2]
    say(room, told(record(MALLORY)))
    states = (r.ALIVE, r.LEAVING) if goodbyes else (r.ALIVE,)
    lives = [record(MALLORY, epoch, state=state) for epoch in range(2, 300) for state in states]
    newest = record(MALLORY, 300)
    for start in range(0, len(lives), 8):  # a larger frame than an honest one is not read at all
        room.tell(
            first, lambda node, start=start: node.receive(EVIL.peer_id, told(*lives[start : start + 8]), room.now)
        )
    room.tell(first, lambda node: node.receive(EVIL.peer_id, told(newest), room.now))
    room.tell(second, lambda node: node.receive(EVIL.peer_id, told(newest), room.now))
    keep_talking(room, 1.0)
    assert len(room.events(PeerDiscovered, first)) <= 9
    assert len(room.events(PeerLeft, first)) <= 9
    refused = room.nodes[first].stats.records_refused
    assert refused >= 290
    keep_talking(room, 20.0)
    assert all(MALLORY.peer_id not in node.members for node in room.nodes.values())
    assert room.nodes[first].stats.records_refused - refused <= 8  # it is not sent over and over again meanwhile


@pytest.mark.parametrize("crowd", [5, 260])
def test_made_up_members_that_nobody_renews_are_gone_after_a_few_lifetimes(crowd: int) -> None:
    room = room_of(3, config=GossipConfig(record_lifetime_s=20))
    ghosts = [
        r.OwnState(epoch=1, joined_at=1, lifetime=86_400).sign(KEY, CheapIdentity(3000 + n)) for n in range(crowd)
    ]
    first = room.ids()[0]
    room.tell(first, lambda node: node.learn(ghosts, room.now))
    assert len(room.nodes[first].members) > 3
    room.run(4 * 20.0)  # a lobby hears of some once more
    assert room.views_equal()


def test_a_newcomer_cannot_evict_the_anchors() -> None:
    config = GossipConfig(full_mesh_max=4, full_mesh_hysteresis=1)
    room = Cluster(1, config)
    first = room.add(0).peer_id
    for index in range(1, 30):
        room.at(index * 0.02, lambda index=index: room.add(index, knows=[first]))  # type: ignore[misc]
    room.run(30.0)
    target = room.nodes[room.ids()[7]]
    anchors = [link.peer for link in target.topology(room.now).links if link.outbound]
    assert len(anchors) >= 3
    for n in range(60):
        sybil = CheapIdentity(5000 + n)
        target.link_up(sybil.peer_id, room.now)
        hello = codec.head(codec.HELLO) + bytes((exchange.OUTBOUND | exchange.ISOLATED,)) + bytes(HELLO_REST)
        target.receive(sybil.peer_id, hello + exchange.encoded(record(sybil)), room.now)
    links = [link.peer for link in target.topology(room.now).links]
    assert set(anchors) <= set(links)
    assert len(links) <= config.links_max


# ----------------------------------------------------------------------------------------------------- random events

IDENTITIES = [CheapIdentity(n) for n in range(8)]
PEERS = [identity.peer_id for identity in IDENTITIES]


def some_frame(rng: random.Random) -> bytes:
    """A well-formed frame with contents at random, sometimes bent."""
    who, peer = rng.choice(IDENTITIES), rng.choice(PEERS)
    version = (rng.randint(0, 3), rng.randint(0, 3))
    news: list[r.Record | r.Accusation] = [
        record(rng.choice(IDENTITIES), *version, state=rng.choice([r.ALIVE, r.ALIVE, r.LEAVING]))
        for _ in range(rng.randint(0, 3))
    ]
    if peer != who.peer_id:
        news.append(r.accuse(KEY, who, peer, *version, rng.choice([r.SUSPECT, r.DOWN])))
    items = b"".join(map(exchange.encoded, news))
    message = wire.sign_message(KEY, who, rng.randint(1, 2), rng.randint(1, 40), 1, b"x")
    ids = [(rng.choice(PEERS), rng.randint(0, 2), rng.randint(1, 40)) for _ in range(rng.randint(0, 5))]
    lines = [walks.Line(item.encoded, rng.randint(0, 400)) for item in news if isinstance(item, r.Record)]
    probe = codec.PROBE.pack(
        codec.VERSION, rng.choice([1, 2]), rng.randint(0, 40), rng.randbytes(16), 300, 9, 1, 2, 3, 4, 500, 7, 8
    )
    frame = rng.choice(
        [
            probe,
            probe + items,
            codec.ping_req(rng.randint(0, 9), peer),
            codec.indirect(rng.randint(0, 9), peer, alive=rng.random() < 0.5),
            codec.head(codec.HELLO) + bytes((rng.getrandbits(5),)) + rng.randbytes(HELLO_REST) + items,
            codec.head(codec.RUMOURS) + items,
            codec.head(codec.TOLD) + items,
            sync.summary([rng.randbytes(16) for _ in range(BUCKETS)]),
            sync.digest(
                rng.getrandbits(16), [(rng.choice(PEERS), *version, rng.randint(0, 2), bytes(16)) for _ in range(4)]
            ),
            *sync.delta([peer], [items] if items else [], 2000),
            wire.encode_gossip(wire.Head(rng.randint(0, 9), rng.randint(0, 3), rng.random() * 60), message.body),
            wire.encode_ihave([wire.message_line(identity, rng.randint(0, 9)) for identity in ids]),
            wire.encode_graft(ids, rng.randint(0, 3)),
            codec.head(codec.PRUNE),
            wire.encode_haves(
                [wire.Have(p, e, s, max(1, s - 3), rng.random() * 40) for p, e, s in ids], rng.randint(0, 1)
            ),
            wire.encode_keep(rng.randint(0, 9), wire.sign_keep(KEY, who, rng.randint(0, 9)).body),
            routing.encode_signal(routing.Signal(rng.randint(0, 9), peer, rng.choice(PEERS), rng.randint(0, 9), b"x")),
            routing.encode_relay(peer, codec.head(codec.TOLD) + items),
            codec.head(codec.FORWARD_JOIN) + bytes((rng.randint(0, 9),)) + record(who).encoded,
            walks.encode_shuffle(rng.choice([codec.SHUFFLE, codec.SHUFFLE_REPLY]), rng.randbytes(8), 3, lines),
            codec.head(codec.DISCONNECT) + items,
        ]
    )
    if rng.random() < 0.1:
        bent = bytearray(frame)
        bent[rng.randrange(len(bent))] = rng.getrandbits(8)
        frame = bytes(bent)
    return frame


def check(node: Node, events: list[Event], present: dict[PeerId, None]) -> None:
    """The promises that hold whatever happens."""
    for event in events:
        if isinstance(event, PeerDiscovered):
            assert event.record.peer not in present
            present[event.record.peer] = None
        elif isinstance(event, PeerLeft):
            del present[event.peer]
    core = node._core
    if core.running:
        assert set(node.members) == {*present, node.peer_id}
        assert sum(holder is not None for holder in node.seats) <= 3
        assert len(core.links) <= 2 * core.config.links_max
        assert set(core.links) == {*core.broadcast.eager, *core.broadcast.lazy}
        assert set(core.links) <= set(core.neighbours.watched)


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_whatever_happens_it_never_raises_and_keeps_its_promises(seed: int) -> None:
    rng = random.Random(seed)
    config = GossipConfig(full_mesh_max=3, full_mesh_hysteresis=1, full_knowledge_max=16, max_players=3)
    node = Node(config, IDENTITIES[0], ROOM, rng=random.Random(seed), verify=cheap_verify)
    node.start(0.0)
    now, present = 0.0, dict[PeerId, None]()
    for _ in range(150):
        now += rng.choice([0.0, 0.001, 0.05, 0.4, 3.0])
        peer = rng.choice(PEERS[1:])
        match rng.randint(0, 12):
            case 0 | 1:
                node.link_up(peer, now, rng.choice([None, 0.05]))
            case 2:
                node.link_down(peer, "closed", now)
            case 3:
                node.dial_failed(peer, "unreachable", now)
            case 4:
                node.learn([record(rng.choice(IDENTITIES), rng.randint(0, 3)), rng.randbytes(200)], now)
            case 5:
                node.broadcast(b"x", now)
            case 6:
                node.send_signal(peer, b"x", now)
            case 7:
                node.learn([node.own_record] if node.is_lookout() else [rng.randbytes(40)], now)
            case 8 if rng.random() < 0.05:
                rng.choice([lambda: node.leave(now), lambda: node.expel(peer, now)])()  # noqa: B023
            case _:
                node.receive(peer, some_frame(rng), now)
        due = node.next_timeout()
        if due is not None and due <= now:
            node.handle_timeout(now)
            again = node.next_timeout()
            assert again is None or again > now - 1e-9
        node.topology(now)
        outputs = node.take_outputs()
        assert all(len(out.frame) <= 1100 for out in outputs if isinstance(out, SendFrame) and not out.reliable)
        check(node, node.take_events(), present)


def test_real_signatures_work_end_to_end() -> None:
    """The simulation's cheap signatures stand in for these."""
    players = [Identity.from_seed(bytes([n]) * 32) for n in range(3)]
    nodes = {
        player.peer_id: Node(GossipConfig(), player, b"room", rng=random.Random(n), verify=r.Verifier(), epoch=1000)
        for n, player in enumerate(players)
    }
    for node in nodes.values():
        node.start(0.0)
    a, b, c = nodes
    for one, other in ((a, b), (b, c)):  # a and c have no link
        nodes[one].link_up(other, 0.0)
        nodes[other].link_up(one, 0.0)
    for step in range(40):
        nodes[a].broadcast(b"hi", step / 10) if step == 20 else None
        nodes[a].send_signal(c, b"offer", step / 10) if step == 20 else None
        for peer, node in nodes.items():
            if (due := node.next_timeout()) is not None and due <= step / 10:
                node.handle_timeout(step / 10)
            for output in node.take_outputs():
                if isinstance(output, SendFrame):
                    nodes[output.peer].receive(peer, output.frame, step / 10)
    assert all(node.members == tuple(sorted(nodes)) for node in nodes.values())
    events = nodes[c].take_events()
    assert BroadcastReceived(a, b"hi", 1) in events
    assert SignalReceived(a, b"offer", b) in events
    assert all(node.stats.items_refused == node.stats.frames_dropped == 0 for node in nodes.values())
    with pytest.raises(ProtocolError):
        r.verify_record_untrusted(record(EVIL, room=r.RoomKey.of(b"room")), r.RoomKey.of(b"room"), r.Verifier())
