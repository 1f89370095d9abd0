"""The rungs of the ladder: direct, through a common peer, through signaling; always the same DTLS end to end."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio.testing
from trio.testing import MockClock

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import ProtocolError
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.link import LinkState
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.tunnels import (
    CARRIED_FOR_MAX,
    TUNNEL_TAG,
    CarrierBudget,
    PeerTunnel,
    frame_untrusted,
    signal_of,
    signal_untrusted,
)
from psyne_mesh.room import events
from psyne_mesh.room.messages import Message
from psyne_mesh.room.room import Room, inside
from psyne_mesh.testing import open_world
from psyne_mesh.webrtc.ladder import Ladder
from tests.room.players import connected, open_party

# One speaks only IPv4 and the other only IPv6: no pair of addresses will ever work between them.
FOUR = WebRTCConfig(bind_host="127.0.0.1", use_ipv6=False)
SIX = WebRTCConfig(bind_host="::1", use_ipv4=False)
BOTH = WebRTCConfig()


class Note(Message):
    number: int


async def talk(one: Room, other: Room) -> None:
    for sender, receiver in ((one, other), (other, one)):
        for number in range(30):
            await sender.channel("notes", Note).send(Note(number), to=receiver.me)
        assert [(await receiver.channel("notes", Note).receive())[1].number for _ in range(30)] == list(range(30))


def kind(room: Room, other: Room) -> str:
    path = room.peers[other.me].path
    return "none" if path is None else path.kind


async def test_nobody_waits_for_a_tunnel_to_who_cannot_be_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser says so in its record. What is said to it goes through others, message by message."""
    make = Profile.make

    def of_a_browser(*arguments: Any) -> Profile:
        return msgspec.structs.replace(make(*arguments), no_tunnel=True)

    monkeypatch.setattr(Profile, "make", of_a_browser)
    async with open_party() as party:
        ada, bob, cid = [
            await party.join(name=name, config=c) for name, c in (("ada", FOUR), ("bob", BOTH), ("cid", SIX))
        ]
        for one, other in ((ada, cid), (cid, ada)):
            async for event in one.events():
                if isinstance(event, events.PeerUnreachable):
                    break
            assert event.peer.id == other.me
            assert event.peer.relayed
            assert kind(one, other) == "none"
        await talk(ada, cid)
        await talk(ada, bob)


async def test_a_common_peer_carries_for_a_pair_without_a_path() -> None:
    async with open_party() as party:
        ada, bob, cid = [
            await party.join(name=name, config=c) for name, c in (("ada", FOUR), ("bob", BOTH), ("cid", SIX))
        ]
        await connected(ada, bob, cid)
        await talk(ada, cid)
        assert {kind(ada, cid), kind(cid, ada)} == {"peer"}
        assert kind(ada, bob) == kind(cid, bob) == "host"
        await ada.channel("big").send(bytes(200_000), to=cid.me)
        assert (await cid.channel("big").receive())[1] == bytes(200_000)


@pytest.mark.parametrize("cut", [("ada", "bob"), ("bob", "ada")])
async def test_a_path_that_is_cut_one_way_only_is_left_by_both(autojump_clock: MockClock, cut: tuple[str, str]) -> None:
    """Others reach the peer, so nobody calls it silent, and one of the two hears the other all the time."""
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        ada, bob, _ = [await world.join("lobby", name) for name in ("ada", "bob", "cid")]
        await ada.wait_connected(2)
        seen: list[events.PeerLeft] = []
        ada.on(events.PeerLeft, seen.append)
        got: list[int] = []

        async def read() -> None:
            async for _, note in bob.channel("notes", Note):
                got.append(note.number)

        nursery.start_soon(read)
        await trio.sleep(5)
        with world.net.cut(cut):
            for number in range(15):
                assert not (await ada.channel("notes", Note).send(Note(number))).skipped
                await trio.sleep(1)
                if number == 4:
                    assert kind(ada, bob) == kind(bob, ada) == "peer"
            assert got == list(range(15))
        await trio.sleep(10)
        assert kind(ada, bob) == kind(bob, ada) == "host"
        assert not seen
        nursery.cancel_scope.cancel()


async def test_signaling_is_the_last_rung() -> None:
    async with open_party() as party:
        ada, cid = await party.join(name="ada", config=FOUR), await party.join(name="cid", config=SIX)
        await connected(ada, cid)
        await talk(ada, cid)
        assert {kind(ada, cid), kind(cid, ada)} == {"signaling"}
        bob = await party.join(name="bob", config=BOTH)  # now there is somebody better
        await connected(ada, bob, cid)
        while {kind(ada, cid), kind(cid, ada)} != {"peer"}:
            await talk(ada, cid)
            await trio.testing.wait_all_tasks_blocked(0.01)


def test_frames_and_signals_from_outside() -> None:
    to, sender = Identity.generate().peer_id, Identity.generate().peer_id
    frame = bytes(8) + to.raw + sender.raw + b"datagram"
    assert frame_untrusted(frame) == (to, sender, b"datagram")
    for bad in (b"", frame[:40], b"x" + frame[1:], frame + bytes(2000)):
        with pytest.raises(ProtocolError):
            frame_untrusted(bad)
    assert signal_untrusted("tunnel.AAFh") == ([b"a"], None)
    assert signal_untrusted(signal_of([b"a", b"bc"], 0x18C0DE)) == ([b"a", b"bc"], 0x18C0DE)
    for text in ("tunnel.!", "tunnel.x.AAFh", "tunnel.1234567890abc.AAFh", "tunnel.AAJh", "tunnel.AAA=", "tunnel.AA=="):
        with pytest.raises(ProtocolError):
            signal_untrusted(text)


def test_what_is_carried_for_others_has_a_budget() -> None:
    ada, bob, cid = (Identity.generate().peer_id for _ in range(3))
    budget = CarrierBudget(0.0, 1_000)
    assert [budget.take(ada, 200, 0.0) for _ in range(3)] == [True, True, False]  # half of it is for others
    assert [budget.take(bob, 200, 0.0) for _ in range(3)] == [True, True, False]
    assert [budget.take(cid, 200, 0.0) for _ in range(2)] == [True, False]  # all is used up
    assert budget.take(ada, 200, 1.0)
    assert (budget.carried, budget.dropped) == (6, 3)
    for _ in range(100):
        budget.take(Identity.generate().peer_id, 1, 2.0)
    assert len(budget._of) == CARRIED_FOR_MAX


class FakeLink:
    def __init__(self, peer_id: PeerId) -> None:
        self.peer_id = peer_id
        self.state, self.is_direct = LinkState.OPEN, True
        self.sent = 0

    def send_frame(self, frame: bytes, *, reliable: bool) -> None:
        self.sent += 1


def test_who_only_pretends_to_carry_keeps_nobody_from_it() -> None:
    names = [Identity.generate().peer_id for _ in range(9)]
    links = [FakeLink(name) for name in names[2:]]
    liar, honest = links[6], links[4]
    now = 0.0
    tunnel = PeerTunnel(names[0], names[1], now=lambda: now, links=lambda: links, signal=lambda peer, datagrams: None)  # type: ignore[arg-type,return-value]
    for step in range(100):  # nothing is proved yet: all have their turn, and the liar is among them
        now = step / 10
        tunnel.heard(liar.peer_id, proven=False)
        tunnel.send([b"datagram"])
    assert all(link.sent for link in links)
    tunnel.heard(honest.peer_id, proven=True)
    tunnel.heard(liar.peer_id, proven=False)
    before = [link.sent for link in links]
    tunnel.send([b"datagram"])
    assert [link for link, count in zip(links, before, strict=True) if link.sent > count] == [honest]


async def test_who_only_pretends_to_carry_cannot_end_a_handshake(autojump_clock: MockClock) -> None:
    """Before DTLS has keys nothing inside proves whose it is: one record that makes no sense ended it, at every attempt."""
    async with open_world(seed=1) as world, trio.open_nursery() as nursery:
        ada, mallory = await world.join("lobby", "ada"), await world.join("lobby", "mallory")
        await ada.wait_connected(1)
        bob = Identity.from_seed(hashlib.sha256(b"1/bob").digest()).peer_id  # as the world makes it
        hello = struct.pack("!BBHHBHBH", 2, 0, 4, 0, 0, 0, 0, 4) + bytes(4)
        record = struct.pack("!BHHHIH", 22, 0xFEFD, 0, 0, 0, len(hello)) + hello

        async def forge() -> None:
            link = inside(mallory).joined()._owner.link(ada.me)
            assert link is not None
            while True:
                for forged in (record, record + bytes(8)):
                    link.send_frame(TUNNEL_TAG + ada.me.raw + bob.raw + forged, reliable=False)
                await trio.sleep(0.01)

        failed: list[PeerId] = []
        ada.on(events.PeerUnreachable, lambda event: failed.append(event.peer.id))
        nursery.start_soon(forge)
        await world.join("lobby", "bob")
        await trio.sleep(2)
        assert bob in [peer.id for peer in ada.connected]
        assert not failed
        nursery.cancel_scope.cancel()


class Wire:
    """A rung that keeps what it was given."""

    path = None

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, datagrams: Sequence[bytes]) -> None:
        self.sent += datagrams


def test_what_comes_through_a_tunnel_is_of_the_peer() -> None:
    direct, tunnel = Wire(), Wire()
    ours, theirs = Ladder(direct, tunnel), Ladder(direct, tunnel)  # type: ignore[arg-type]
    assert ours.open_untrusted([b"before anybody was described"]) == []
    ours.note_described(0.0, "our password", "their password")
    theirs.note_described(0.0, "their password", "our password")
    theirs.note_described(9.0, "their password after a restart", "ours after it")  # the first ones hold
    ours.use_tunnel()
    ours.send([b"one", b"two"])
    one, two = tunnel.sent
    assert theirs.open_untrusted([one, b"made up", b"", two, one[:-1] + b"x"]) == [b"one", b"two"]
    assert ours.open_untrusted([one]) == [], "our own, sent back to us"
    assert not direct.sent
