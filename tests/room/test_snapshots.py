"""Late join: what two members signed comes beside play, and who lies is named."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import pairwise

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from psyne_mesh.errors import InvalidConfig, MessageTooLarge, PeerGone, ProtocolError, RequestRefused, SnapshotDisputed
from psyne_mesh.game.attestation import Claim, attested, choose, claim_untrusted
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.room.room import Room, inside
from psyne_mesh.room.snapshots import SendSnapshot, TheseSnapshots, WhichSnapshots
from psyne_mesh.testing import Quality, open_world
from tests.room.test_host_and_clock import everybody

TICK_S = 1 / 60
A, B, C, D = (PeerId(f"{number:032x}") for number in range(4))


def claim(version: int, digest: int) -> Claim:
    return Claim(b"room", version, 5, bytes([digest]) * 32)


async def test_a_mebibyte_comes_within_two_seconds_at_a_megabyte_a_second_and_nobody_pauses(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(seed=1, quality=Quality(latency_s=0.02, bytes_per_s=1e6)) as world:
        rooms = await everybody(world, "ada", "bob", "cid")
        state = random.Random(1).randbytes(2**20)
        for room in rooms:
            room.offer_snapshot(59, b"older")
            room.offer_snapshot(60, state)
        came: dict[str, list[float]] = {}
        for room in rooms:
            room.channel("ticks", mode="unreliable").on_message(
                lambda peer, text, room=room: came.setdefault(f"{peer.id}>{room.me}", []).append(trio.current_time())
            )

        async def play(room: Room) -> None:
            while True:
                room.channel("ticks").send_nowait("tick")
                await trio.sleep(TICK_S)

        async with trio.open_nursery() as nursery:
            for room in rooms:
                nursery.start_soon(play, room)
            dan = await world.join("arena", "dan")
            await dan.wait_connected(3)
            began = trio.current_time()
            snapshot = await dan.fetch_snapshot()
            took = trio.current_time() - began
            nursery.cancel_scope.cancel()
        assert (snapshot.version, snapshot.data) == (60, state)
        assert snapshot.signers == {room.me for room in rooms}
        assert not snapshot.others | snapshot.liars
        assert took <= 2.0, took
        for times in came.values():
            during = [at for at in times if began <= at <= began + took]
            gaps = [after - before for before, after in pairwise(during)]
            assert max(gaps) <= 3 * TICK_S  # two ticks at most are missing between two


async def test_who_signs_another_one_and_who_sends_another_one_is_named(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=2) as world:
        ada, bob, cid, dan = await everybody(world, "ada", "bob", "cid", "dan")
        with pytest.raises(PeerGone, match="nobody"):
            await dan.fetch_snapshot(timeout=1)
        ada.offer_snapshot(5, b"truth")
        with pytest.raises(SnapshotDisputed):
            await dan.fetch_snapshot(timeout=1)
        assert (await dan.fetch_snapshot(signers=1)).signers == {ada.me}
        bob.offer_snapshot(5, b"lies!")
        with pytest.raises(SnapshotDisputed) as told:
            await dan.fetch_snapshot(timeout=1)
        assert {ada.me, bob.me} <= told.value.players
        cid.offer_snapshot(5, b"truth")
        snapshot = await dan.fetch_snapshot()
        assert snapshot.data == b"truth"
        assert (snapshot.signers, snapshot.others) == ({ada.me, cid.me}, {bob.me})
        for room in (ada, cid):
            room.offer_snapshot(6, b"newer")
            assert inside(room).parts.snapshots._held[-1].digest
        inside(ada).parts.snapshots._held[-1].data = b"other"  # it signed one and sends another
        cid_first = await dan.fetch_snapshot()
        assert cid_first.data == b"newer"
        assert cid_first.liars <= {ada.me}
        inside(cid).parts.snapshots._held[-1].data = b"other"
        with pytest.raises(SnapshotDisputed) as lied:
            await dan.fetch_snapshot(signers=2, timeout=4)
        assert lied.value.players & {ada.me, cid.me}
        for wrong in ((-1, b""), (1, "x"), ("1", b"")):
            with pytest.raises(InvalidConfig):
                ada.offer_snapshot(*wrong)  # type: ignore[arg-type]
        with pytest.raises(MessageTooLarge):
            ada.offer_snapshot(1, bytes(16 * 2**20 + 1))
        with pytest.raises(InvalidConfig):
            await ada.fetch_snapshot(signers=0)


async def test_who_signs_and_sends_nothing_or_too_little_keeps_nobody_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(seed=3, quality=Quality(latency_s=0.02)) as world:
        ada, bob, cid = await everybody(world, "ada", "bob", "cid")
        state = random.Random(1).randbytes(100_000)
        for room in (ada, bob):
            room.offer_snapshot(1, state)
        bob_is_far = next(link for link in inside(cid).parts.snapshots._room.peers.values() if link.id == bob.me)
        inside(cid).parts.snapshots._distance = lambda peer: float(peer == bob_is_far.id)  # type: ignore[method-assign]
        inside(ada).parts.file_traffic.begin = lambda *_: 0  # type: ignore[method-assign]
        began = trio.current_time()
        assert (await cid.fetch_snapshot()).data == state
        assert trio.current_time() - began < 4
        began = trio.current_time()
        cid_again = await cid.fetch_snapshot()
        assert cid_again.data == state
        assert not cid_again.liars


async def test_a_player_is_sent_one_snapshot_at_a_time_and_claims_are_signed_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world(seed=4, quality=Quality(latency_s=0.02, bytes_per_s=1e5)) as world:
        ada, bob = await everybody(world, "ada", "bob")
        ada.offer_snapshot(1, bytes(200_000))
        ada.offer_snapshot(2, bytes(200_001))
        first, second = inside(ada).parts.snapshots._held
        for _ in range(50):
            assert isinstance(await bob.request(ada.me, WhichSnapshots()), TheseSnapshots)
        signed = first.attested
        await bob.request(ada.me, WhichSnapshots())
        assert first.attested is signed
        outgoing = inside(ada).parts.file_traffic._core._outgoing
        with inside(bob).parts.file_traffic.expecting(ada.me, first.digest, 200_000):
            for _ in range(50):
                await bob.request(ada.me, SendSnapshot(first.digest))
                assert len(outgoing) == 1
            with pytest.raises(RequestRefused, match="on its way"):
                await bob.request(ada.me, SendSnapshot(second.digest))
        await trio.sleep(1)  # it is not wanted any more
        assert not outgoing
        await bob.request(ada.me, SendSnapshot(second.digest))


async def test_of_two_players_one_signature_is_all_there_is(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(seed=2) as world:
        ada, bob = await everybody(world, "ada", "bob")
        ada.offer_snapshot(1, b"state")
        snapshot = await bob.fetch_snapshot()
        assert (snapshot.data, snapshot.signers) == (b"state", {ada.me})


def test_the_newest_that_enough_have_signed_alike_is_chosen() -> None:
    assert choose({}, 1) is None
    assert choose({A: [claim(1, 1)]}, 2) is None
    chosen = choose({A: [claim(1, 1), claim(2, 2)], B: [claim(1, 1)], C: [claim(3, 3)]}, 2)
    assert chosen is not None
    assert (chosen.claim, chosen.signers, chosen.others) == (claim(1, 1), {A, B}, frozenset())
    split = {A: [claim(2, 1)], B: [claim(2, 1)], C: [claim(2, 9)], D: [claim(2, 9)]}
    assert choose(split, 2) is None
    chosen = choose(split | {PeerId("e" * 32): [claim(2, 9)]}, 2)
    assert chosen is not None
    assert chosen.claim == claim(2, 9)
    assert chosen.others == {A, B}


def test_a_claim_is_its_signer_s_and_of_its_room() -> None:
    ada = Identity.from_seed(b"a" * 32)
    said = attested(ada, claim(1, 1))
    assert claim_untrusted(said, b"room") == (ada.peer_id, claim(1, 1))
    with pytest.raises(ProtocolError):
        claim_untrusted(said, b"another")
    with pytest.raises(ProtocolError):
        claim_untrusted(said[:-1] + bytes([said[-1] ^ 1]), b"room")


@given(st.binary(max_size=300))
def test_nothing_but_a_protocol_error_leaves_the_parser(data: bytes) -> None:
    with suppress(ProtocolError):
        claim_untrusted(data, b"room")
