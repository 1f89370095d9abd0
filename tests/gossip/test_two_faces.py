"""Who tells members different things of itself, under one version, is found out, named and barred; and nobody else ever is."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.errors import ProtocolError
from psyne_mesh.gossip import codec
from psyne_mesh.gossip import records as r
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.events import PeerLeft, TwoFaced
from psyne_mesh.gossip.freshness import FRESH_S
from psyne_mesh.gossip.proofs import PROOF_MAX_BYTES, contradict, proof_untrusted, prove, verify_proof_untrusted
from psyne_mesh.gossip.view_hash import BUCKETS, ViewHash, bucket_of
from psyne_mesh.identity import PeerId
from tests.gossip.cluster import CheapIdentity, Cluster, cheap_verify, room_of
from tests.gossip.test_node_hostile import EVIL, KEY, told

SMALL = GossipConfig(full_mesh_max=4, full_mesh_hysteresis=1)


def face(name: str, room: Cluster | None = None, incarnation: int = 0, epoch: int = 1) -> r.Record:
    now = 0 if room is None else int(room.now)
    instance = 0 if room is None else next(iter(room.nodes.values()))._core.fresh.instance
    return r.OwnState(epoch=epoch, joined_at=epoch, incarnation=incarnation, name=name).sign(KEY, EVIL, instance, now)


def link(room: Cluster, peers: list[PeerId]) -> None:
    for peer in peers:
        room.links.add((min(peer, EVIL.peer_id), max(peer, EVIL.peer_id)))
        room.tell(peer, lambda node: node.link_up(EVIL.peer_id, room.now, 0.05))


def show(room: Cluster, peer: PeerId, record: r.Record) -> None:
    room.tell(peer, lambda node: node.receive(EVIL.peer_id, told(record), room.now))


def pinging(room: Cluster, seconds: float) -> None:
    """EVIL answers for itself, and agrees with everybody's view of it."""
    for _ in range(int(seconds / 0.25)):
        for peer in room.ids():
            if room.linked(peer, EVIL.peer_id):
                ping = codec.PROBE.pack(codec.VERSION, codec.PING, 1, codec.NO_HASH, 0, 6, 0, 0, 0, 0, 0, 0, 0)
                room.tell(peer, lambda node: node.receive(EVIL.peer_id, ping, room.now))  # noqa: B023
        room.run(0.25)


def named_by(room: Cluster) -> dict[PeerId, float]:
    return {who: at for at, who, event in room.log if isinstance(event, TwoFaced) and event.peer == EVIL.peer_id}


@pytest.mark.parametrize(("size", "config"), [(3, None), (6, None), (15, None), (30, SMALL)])
def test_two_faces_are_found_out_and_named_within_five_seconds(size: int, config: GossipConfig | None) -> None:
    room = room_of(size, 3, config)
    shown = room.ids()[:4] if config else room.ids()
    link(room, shown)
    begun = room.now
    for index, peer in enumerate(shown):
        show(room, peer, face("ada" if index % 2 else "bob", room))
    pinging(room, 5.0)
    named = named_by(room)
    assert len(named) == size
    assert max(named.values()) - begun <= 5.0
    assert all(EVIL.peer_id not in node.members for node in room.nodes.values())
    assert not any(room.linked(peer, EVIL.peer_id) for peer in room.ids())
    assert {event.reason for _, _, event in room.log if isinstance(event, PeerLeft) and event.peer == EVIL.peer_id} == {
        "two-faced"
    }


def test_the_key_stays_out_for_ten_minutes_and_is_let_in_by_all_at_once() -> None:
    room = room_of(4)
    link(room, room.ids())
    for index, peer in enumerate(room.ids()):
        show(room, peer, face("ada" if index else "bob", room))
    pinging(room, 5.0)
    newcomer = room.add(77, epoch=9, knows=room.ids()[:1]).peer_id  # it hears of the proof from whom it meets
    room.run(3.0)
    assert newcomer in named_by(room)
    for later in (20.0, FRESH_S - 60.0):
        room.run(later)
        link(room, room.ids())
        for peer in room.ids():
            show(room, peer, face("carol", room, epoch=2 + int(room.now)))
            assert EVIL.peer_id not in room.nodes[peer].members
    room.run(60.0)
    link(room, room.ids())
    for peer in room.ids():
        show(room, peer, face("carol", room, epoch=2 + int(room.now)))
    assert all(EVIL.peer_id in node.members for node in room.nodes.values())


def test_an_old_proof_bars_nobody() -> None:
    room = room_of(3)
    proof = prove(face("ada", room), face("bob", room))
    room.run(FRESH_S + 10.0)
    link(room, room.ids())
    for peer in room.ids():
        show(room, peer, face("ada", room, incarnation=9))
    frame = codec.head(codec.TOLD) + codec.item(codec.ITEM_PROOF, proof.encoded)
    for peer in room.ids():
        room.tell(peer, lambda node: node.receive(EVIL.peer_id, frame, room.now))
    assert not named_by(room)
    assert all(EVIL.peer_id in node.members for node in room.nodes.values())


# -------------------------------------------------------------------------------------------------------------- proofs


def test_a_proof_reads_back_the_same_whoever_found_it() -> None:
    one, other = face("ada"), face("bob")
    proof = prove(one, other)
    assert prove(other, one) == proof == proof_untrusted(proof.encoded)
    assert len(proof.encoded) <= PROOF_MAX_BYTES
    verify_proof_untrusted(proof, KEY, cheap_verify)


def of(who: CheapIdentity, **said: object) -> r.Record:
    return r.OwnState(**{"epoch": 1, "joined_at": 1, **said}).sign(KEY, who)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (of(EVIL), of(EVIL)),
        (of(EVIL, name="a"), of(EVIL, name="b", incarnation=1)),
        (of(EVIL, name="a"), of(EVIL, name="b", epoch=2)),
        (of(EVIL, name="a"), of(CheapIdentity(1), name="b")),
        (of(EVIL, name="a", state=r.LEAVING), of(EVIL, name="b", state=r.LEAVING)),
        (of(EVIL, name="a", state=r.LEAVING), of(EVIL, name="b")),
    ],
)
def test_what_an_honest_member_may_sign_is_no_proof(one: r.Record, other: r.Record) -> None:
    assert not contradict(one, other)
    with pytest.raises(ProtocolError):
        proof_untrusted(prove(one, other).encoded)


def test_a_forged_proof_is_refused() -> None:
    class Thief:
        peer_id, public_key = EVIL.peer_id, EVIL.public_key

        def sign(self, domain: bytes, payload: bytes) -> bytes:
            return CheapIdentity(1).sign(domain, payload)

    forged = r.OwnState(epoch=1, joined_at=1, name="forged").sign(KEY, Thief())
    with pytest.raises(ProtocolError):
        verify_proof_untrusted(prove(face("ada"), forged), KEY, cheap_verify)
    elsewhere = r.OwnState(epoch=1, joined_at=1, name="x").sign(r.RoomKey.of(b"elsewhere"), EVIL)
    with pytest.raises(ProtocolError):
        proof_untrusted(prove(face("ada"), elsewhere).encoded)


@pytest.mark.parametrize("seed", range(4))
def test_nobody_honest_is_ever_named(seed: int) -> None:
    """Crashes and restarts of the same key, goodbyes, cuts, stalls, wrong verdicts: no two records of one version."""
    room = Cluster(seed, GossipConfig(full_mesh_max=6, full_mesh_hysteresis=2, max_players=12), loss=0.05)
    rng = random.Random(seed)
    first = room.add(0).peer_id
    for index in range(1, 12):
        room.add(index, knows=[first])
    for round_ in range(25):
        index = rng.randrange(1, 12)
        peer = CheapIdentity(index).peer_id
        what = rng.choice(["crash", "leave", "stall", "cut", "update"])
        if peer not in room.nodes:
            room.add(index, epoch=2 + round_, knows=[first])
        elif what == "crash":
            room.crash(peer)
        elif what == "leave":
            room.leave(peer)
        elif what == "stall":
            room.stall(peer, rng.uniform(1.0, 20.0))
        elif what == "cut":
            room.cut({peer, *rng.sample(room.ids(), 3)})
            room.run(rng.uniform(1.0, 20.0))
            room.mend()
        else:
            room.tell(peer, lambda node: node.update(room.now, name=f"{rng.random()}"))
        room.run(rng.uniform(0.0, 8.0))
    assert not room.events(TwoFaced)


# --------------------------------------------------------------------------------------------------------- view hashes


def test_no_sum_of_records_hides_a_difference() -> None:
    """37 keys gave two views of equal hashes by linear algebra, while hashes were sums: 64 records in one bucket, and every
    difference of two subsets, show."""
    rng = random.Random(1)
    records = [(f"a{number:031x}", rng.randbytes(16)) for number in range(64)]
    seen = set()
    for _ in range(500):
        view = ViewHash()
        chosen = rng.sample(records, rng.randrange(1, 64))
        for peer, version_hash in chosen:
            view.put(peer, version_hash)
        seen.add((view.whole, frozenset(chosen)))
    assert len({whole for whole, _ in seen}) == len(seen)
    a, b, c, d = (bytes_ for _, bytes_ in records[:4])
    wholes = []
    for pair in ((a, b), (b, c), (c, d), (d, a)):
        view = ViewHash()
        for index, version_hash in enumerate(pair):
            view.put(f"a{index:031x}", version_hash)
        wholes.append(int.from_bytes(view.whole, "big"))
    assert wholes[0] ^ wholes[1] ^ wholes[2] ^ wholes[3]  # zero, were it linear


def test_a_view_hash_is_wide_and_follows_what_is_put_and_dropped() -> None:
    view, again = ViewHash(), ViewHash()
    peers = [CheapIdentity(number).peer_id for number in range(40)]
    for peer in peers:
        view.put(peer, peer.raw)
    for peer in reversed(peers):
        again.put(peer, bytes(16))
        again.put(peer, peer.raw)
    assert (view.whole, view.buckets) == (again.whole, again.buckets)
    assert len(view.whole) == 16
    assert len(view.buckets) == BUCKETS
    view.drop(peers[0])
    assert [a != b for a, b in zip(view.buckets, again.buckets, strict=True)].index(True) == bucket_of(peers[0])
    assert view.whole != again.whole
