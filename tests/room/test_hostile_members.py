"""Members who lie, forge and flood: each harms nobody but its own link."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import EventBacklog, InvalidConfig, MessageTooLarge, ProtocolError, WouldBlock
from psyne_mesh.gossip import events as gossip_events
from psyne_mesh.gossip.routing import Signal, encode_signal
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.mesh.alarms import ALARM_EVERY_S
from psyne_mesh.mesh.dial_limits import DIALS_IN_A_ROW, LINKS_MAX, STRANGERS_MAX
from psyne_mesh.mesh.link import ASKED_RESTARTS, MESSAGE_MIN_BYTES, LinkState
from psyne_mesh.mesh.membership import SendOutcome
from psyne_mesh.mesh.sealed import ENVELOPE, RECIPIENTS_MAX, SEAL_BYTES, WINDOW, Seals
from psyne_mesh.room import events
from psyne_mesh.room.carried import carried
from psyne_mesh.room.channel import CARRIED_UNREAD_BYTES_MAX
from psyne_mesh.room.events import SignalingUp
from psyne_mesh.room.hub import EventHub
from psyne_mesh.room.room import Room, inside
from psyne_mesh.signaling.envelope import Kind, open_untrusted, seal
from psyne_mesh.testing import World, open_world
from psyne_mesh.testing.world import WALL_MS
from psyne_mesh.webrtc import stack
from psyne_mesh.webrtc.data_channel import UNREAD_OVERHEAD_BYTES
from psyne_mesh.webrtc.sdp import Description, make_offer
from tests.room.players import first

TAG = b"the-room"


def membership(room: Room):  # type: ignore[no-untyped-def]
    return inside(room).joined()


async def two(world: World) -> tuple[Room, Room]:
    ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
    await ada.wait_connected(1)
    await bob.wait_connected(1)
    return ada, bob


async def test_a_carried_message_is_of_whom_it_says(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        channel = ada.channel("notes")
        message = carried("notes", b"hello")
        mallory = Seals(Identity.generate(), membership(ada).tag, 0)
        theirs = membership(bob)
        to_ada = theirs.node.record(ada.me)
        honest = theirs._seals.seal(to_ada, theirs.node.own_record.epoch, message)
        forged = mallory.seal(to_ada, theirs.node.own_record.epoch, message)
        for blob in (message, forged, honest[:-1] + b"x", honest, honest):
            inside(ada).on_gossip(gossip_events.SignalReceived(bob.me, blob, bob.me))
        inside(ada).on_gossip(gossip_events.SignalReceived(Identity.generate().peer_id, honest, bob.me))
        peer, payload = channel.receive_nowait()
        assert (peer.id, payload) == (bob.me, b"hello")
        with pytest.raises(WouldBlock):
            channel.receive_nowait()


async def test_a_seal_holds_for_one_recipient_room_and_stay(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        record, me = membership(ada).node.record(bob.me), membership(ada).node.own_record
        identity = world_identity(bob)
        sender, receiver = Seals(identity, TAG, record.joined_at), Seals(world_identity(ada), TAG, me.joined_at)
        blobs = [sender.seal(me, record.epoch, b"%d" % number) for number in range(WINDOW + 2)]
        assert all(len(blob) > SEAL_BYTES for blob in blobs)
        refused = [
            sender.seal(record, record.epoch, b"to another"),
            sender.seal(attrs.evolve(me, joined_at=me.joined_at - 1), record.epoch, b"to another stay of the same"),
            sender.seal(me, record.epoch + 1, b"of another stay"),
            Seals(identity, b"elsewhere", record.joined_at).seal(me, record.epoch, b"in another room"),
            blobs[0][: SEAL_BYTES - 1],
            b"",
        ]
        for blob in refused:
            with pytest.raises(ProtocolError):
                receiver.open_untrusted(record, blob)
        for number in (1, 0, 3, 2, WINDOW + 1):  # they may overtake each other
            assert receiver.open_untrusted(record, blobs[number]) == b"%d" % number
            with pytest.raises(ProtocolError, match="repeated"):
                receiver.open_untrusted(record, blobs[number])
        with pytest.raises(ProtocolError, match="repeated"):
            receiver.open_untrusted(record, blobs[0])
        called_gone = attrs.evolve(me, epoch=me.epoch + 1)  # the same stay, and what was under way still counts
        assert receiver.open_untrusted(record, sender.seal(called_gone, record.epoch, b"back")) == b"back"


async def test_messages_to_others_in_between_are_no_overtaking(autojump_clock: MockClock) -> None:
    """And who is sent nothing for so long that its count is forgotten believes what comes then."""
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        record, me = membership(ada).node.record(bob.me), membership(ada).node.own_record
    others = [attrs.evolve(me, peer=PeerId(f"{number:032x}")) for number in range(RECIPIENTS_MAX)]
    sender = Seals(world_identity(bob), TAG, record.joined_at)
    receiver = Seals(world_identity(ada), TAG, me.joined_at)
    blobs = []
    for number in range(3):
        blobs.append(sender.seal(me, record.epoch, b"%d" % number))
        for other in others[: 2 * WINDOW]:
            sender.seal(other, record.epoch, b"to somebody else")
    for number in (2, 0, 1):
        assert receiver.open_untrusted(record, blobs[number]) == b"%d" % number
    for other in others:
        sender.seal(other, record.epoch, b"to somebody else")
    assert len(sender._numbers) == RECIPIENTS_MAX
    late = sender.seal(me, record.epoch, b"long after")
    assert receiver.open_untrusted(record, late) == b"long after"


async def test_what_was_sealed_for_one_stay_is_refused_in_the_next(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        bob = await world.join("lobby", "bob")
        theirs = membership(bob)
        blobs: list[bytes] = []
        for stay in range(2):
            async with world.joining("lobby", "ada") as ada:
                await ada.wait_connected(1)
                await bob.wait_connected(1)
                channel = ada.channel("orders")
                blobs.append(
                    theirs._seals.seal(
                        theirs.node.record(ada.me), theirs.node.own_record.epoch, carried("orders", b"%d" % stay)
                    )
                )
                for blob in blobs:  # what was kept of the stay before, too
                    inside(ada).on_gossip(gossip_events.SignalReceived(bob.me, blob, bob.me))
                assert channel.receive_nowait()[1] == b"%d" % stay
                with pytest.raises(WouldBlock):
                    channel.receive_nowait()
            await trio.sleep(5)


def world_identity(room: Room) -> Identity:
    return room._core.identity


# Of a machine that answers nothing.
AN_OFFER = make_offer(
    Description(
        ice_ufrag="abcd", ice_pwd="x" * 24, fingerprints=("sha-256 " + ":".join(["AA"] * 32),), setup="actpass",
        candidates=("candidate:1 1 udp 2130706431 10.9.9.9 5000 typ host",), max_message_size=MESSAGE_MIN_BYTES,
    ),
    session_id=1,
)  # fmt: skip


def world_ms() -> int:
    """The wall clock of the players: their world begins when the test does."""
    return WALL_MS + int(1000 * trio.current_time())


def envelope(
    sender: Identity, to: PeerId, room: str, session: str, sequence: int, kind: Kind, body: str = "", *, ago_ms: int = 0
) -> str:
    return seal(sender, kind=kind, recipient=to, room=room, session=session, sequence=sequence, body=body,
                now_ms=world_ms() - ago_ms)  # fmt: skip


async def test_who_dials_again_and_again_is_not_answered_again_and_again(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        core, room = ada._core, membership(ada).room
        mallory = Identity.generate()
        offers: list[str] = []
        world.hub.intercept = lambda sender, to, room, text: offers.append(text) or text  # type: ignore[func-returns-value]
        bobs_link = core.link(bob.me)
        assert bobs_link is not None
        offer = "v=0\r\n"
        for number in range(300):
            world.hub.inject(
                mallory.peer_id, ada.me, room, envelope(mallory, ada.me, room, f"s{number}", 0, "offer", offer)
            )
            if number % 10 == 0:
                await trio.sleep(0.01)
            assert len(core.endpoint.peers) <= DIALS_IN_A_ROW + 2
        assert core.link(bob.me) is bobs_link
        assert bobs_link.is_direct


@pytest.mark.parametrize("kind", ["restart", "offer"])
async def test_searches_and_offers_of_a_peer_have_a_limit(autojump_clock: MockClock, kind: Kind) -> None:
    """Inside its own session, where it may say what it likes."""
    async with open_world(seed=1) as world:
        rooms = await two(world)
        room = membership(rooms[0]).room
        victim, hostile = rooms if rooms[0]._core.link(rooms[1].me).offerer == (kind == "restart") else rooms[::-1]  # type: ignore[union-attr]
        link = victim._core.link(hostile.me)
        assert link is not None
        said: list[str] = []

        def listen(sender: PeerId, to: PeerId, room: str, text: str) -> str:
            if sender == victim.me:
                said.append(open_untrusted(text, recipient=to, now_ms=world_ms()).kind)
            return text

        world.hub.intercept = listen
        identity = world_identity(hostile)
        theirs = hostile._core.link(victim.me)
        assert theirs is not None
        for number in range(100):
            body = await theirs._connection.restart_ice(trickle=True) if kind == "offer" else ""  # type: ignore[union-attr]
            text = envelope(identity, victim.me, room, link.session, 1000 + number, kind, body)
            world.hub.inject(hostile.me, victim.me, room, text)
            await trio.sleep(0.02)
        answer = "answer" if kind == "offer" else "offer"
        assert 1 <= said.count(answer) <= ASKED_RESTARTS + 2
        assert victim._core.link(hostile.me) is link


@pytest.mark.parametrize("dialler", ["ada", "bob"])
async def test_an_offer_held_back_cannot_tear_down_the_link_that_stands(
    autojump_clock: MockClock, dialler: str
) -> None:
    async with open_world(seed=1) as world:
        rooms = {name: await world.join("lobby", name) for name in ("bob", "ada") if name != dialler}
        rooms[dialler] = await world.join("lobby", dialler)  # the newcomer dials
        ada, bob = rooms["ada"], rooms["bob"]
        await ada.wait_connected(1)
        await bob.wait_connected(1)
        left: list[str] = []
        for room in (ada, bob):
            room.on_peer_left(lambda peer, reason: left.append(reason))
        link = ada._core.link(bob.me)
        assert link is not None
        assert link.offerer == (dialler == "ada")
        room_key = membership(ada).room
        held = envelope(world_identity(bob), ada.me, room_key, "failed", 0, "offer", AN_OFFER, ago_ms=20_000)
        world.hub.inject(bob.me, ada.me, room_key, held)
        await trio.sleep(30)
        assert ada._core.link(bob.me) is link
        assert not left
        assert ada._core.table.offers_refused == 1


async def test_who_restarts_with_its_clock_set_back_is_let_in_again(autojump_clock: MockClock) -> None:
    """Its offers are older than what was said over its dead link, so they wait until that is known to be dead."""
    async with open_world(seed=1) as world:
        world.hub.wall_ms = None  # else all go by its clock
        ada, _ = await two(world)
        world.crash("bob")
        world.hosts["bob"] = world.net.host("bob again")
        bob = await world.join("lobby", "bob", clock_skew_s=-300)
        with trio.fail_after(40):
            await bob.wait_connected(1)
        assert bob._core.link(ada.me) is not None


async def test_an_old_offer_inside_the_session_is_not_answered(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        offerer, answerer = (ada, bob) if ada._core.link(bob.me).offerer else (bob, ada)  # type: ignore[union-attr]
        link = answerer._core.link(offerer.me)
        theirs = offerer._core.link(answerer.me)
        assert link is not None
        assert theirs is not None
        said: list[PeerId] = []
        world.hub.intercept = lambda sender, to, room, text: said.append(sender)  # type: ignore[func-returns-value]
        room, identity = membership(ada).room, world_identity(offerer)
        for number, answered in ((1001, True), (1000, False)):
            body = await theirs._connection.restart_ice(trickle=True)  # type: ignore[union-attr]
            said.clear()
            text = envelope(identity, answerer.me, room, link.session, number, "offer", body)
            world.hub.inject(offerer.me, answerer.me, room, text)
            await trio.sleep(0.1)
            assert bool(said) == answered


def over_the_mesh(sender: Room, to: Room, origin: PeerId, number: int, text: str) -> None:
    """One envelope as a signal of `origin`, put on the link by `sender` as if it had carried it."""
    link = sender._core.link(to.me)
    assert link is not None
    signal = encode_signal(Signal(number, origin, to.me, 2, ENVELOPE + text.encode()))
    link.send_frame(membership(sender).tag + signal, reliable=True)


@pytest.mark.parametrize("way", ["mesh", "server"])
async def test_offers_of_made_up_keys_take_no_links_from_players(autojump_clock: MockClock, way: str) -> None:
    async with open_world(seed=1) as world:
        ada, mallory = await world.join("lobby", "ada"), await world.join("lobby", "mallory")
        await ada.wait_connected(1)
        await mallory.wait_connected(1)
        room, told = membership(ada).room, tampering(ada)
        answers: list[PeerId] = []
        world.hub.intercept = lambda sender, to, room, text: answers.append(to) or text  # type: ignore[func-returns-value]
        for number in range(LINKS_MAX + 10):
            stranger = Identity.generate()
            offer = envelope(stranger, ada.me, room, "s", 0, "offer", AN_OFFER)
            if way == "mesh":
                over_the_mesh(mallory, ada, stranger.peer_id, number, offer)
                over_the_mesh(mallory, ada, stranger.peer_id, LINKS_MAX + 10 + number, "junk")
            else:
                world.hub.inject(stranger.peer_id, ada.me, room, offer)
        await trio.sleep(1)
        assert len(ada._core.driver.links) == 1 + (STRANGERS_MAX if way == "server" else 0)
        assert ada._core.table.offers_refused >= LINKS_MAX + 10 - STRANGERS_MAX
        if way == "mesh":
            assert not answers
        assert not told
        with trio.fail_after(5):
            bob = await world.join("lobby", "bob")
            await bob.wait_connected(2)


def tampering(room: Room) -> list[events.TamperingDetected]:
    told: list[events.TamperingDetected] = []
    room.on(events.TamperingDetected, told.append)
    return told


async def test_who_carries_a_forged_signal_is_named_and_seldom(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob, mallory = [await world.join("lobby", name) for name in ("ada", "bob", "mallory")]
        for room in (ada, bob, mallory):
            await room.wait_connected(2)
        told = tampering(ada)
        for number in range(50):
            over_the_mesh(mallory, ada, bob.me, number, "junk")
        await trio.sleep(1)
        assert [(event.server, event.peer) for event in told] == [(mallory.me, bob.me)]
        world.hub.inject(bob.me, ada.me, membership(ada).room, "junk")  # another carrier has alarms of its own
        await trio.sleep(1)
        assert told[1].server == ada._core.server
        await trio.sleep(ALARM_EVERY_S)
        over_the_mesh(mallory, ada, bob.me, 50, "junk")
        await trio.sleep(1)
        assert len(told) == 3
        assert "49 more" in told[2].reason
        link = ada._core.link(bob.me)
        assert link is not None
        assert link.tampering is not None
        assert "server" in link.tampering


async def test_a_newcomer_whose_server_died_is_known_before_its_offers_come(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        rooms = [await world.join("lobby", name) for name in ("ada", "bob", "cid")]
        for room in rooms:
            await room.wait_connected(2)
        ada = rooms[0].me
        world.hub.intercept = lambda sender, to, room, text: text if ada in (sender, to) else None
        dan = await world.join("lobby", "dan")
        await dan.wait_connected(1)
        world.hub.kill()
        with trio.fail_after(30):
            await dan.wait_connected(3)
        assert not any(room._core.table.offers_refused for room in rooms)


async def test_who_takes_no_frames_of_gossip_gets_no_link(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        mallory = await world.join("lobby", "mallory")
        gateway = mallory._core.endpoint.gateway
        gateway.config = attrs.evolve(gateway.config, max_message_size=400)  # says so from now on
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        with trio.fail_after(60):
            refused = (await first(ada, events.PeerUnreachable)).error
        assert (refused.phase, refused.peer) == ("signaling", mallory.me.short)
        assert "400 bytes" in refused.reason
        await trio.sleep(20)
        assert [peer.name for peer in ada.connected] == ["bob"]
        assert [peer.name for peer in bob.connected] == ["ada"]
        with pytest.raises(InvalidConfig, match="a room needs"):
            await world.join(
                "lobby", "eve", config=attrs.evolve(gateway.config, max_message_size=MESSAGE_MIN_BYTES - 1)
            )


async def test_what_a_link_does_not_take_ends_that_link_and_not_its_sender(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        link = ada._core.link(bob.me)
        assert link is not None
        link.send_frame(bytes(link._connection._stack.max_message_size + 1), reliable=True)  # type: ignore[union-attr]
        await trio.sleep(1)
        assert link.state is LinkState.GONE
        await ada.wait_connected(1)


async def test_who_reads_nothing_loses_its_link_and_the_others_no_message(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        mallory = await world.join("lobby", "mallory")
        ada, bob = await world.join("lobby", "ada"), await world.join("lobby", "bob")
        await ada.wait_connected(2)
        await bob.wait_connected(2)
        bulk, numbers = ada.channel("bulk"), []
        link = ada._core.link(mallory.me)
        mallory.channel("bulk")

        async def read() -> None:
            async for _, data in bob.channel("bulk"):
                numbers.append(int.from_bytes(data[:2], "big"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            skipped = []
            for number in range(300):  # 18.75 MiB, of which a link holds 4 under way and 12 that wait
                report = await bulk.send(number.to_bytes(2, "big") + bytes(65_534))
                skipped += report.skipped.items()
                position = await ada.channel("positions", mode="unreliable").send(b"here")
                assert position.skipped.get(mallory.me) in (None, SendOutcome.CONGESTED, SendOutcome.NOT_CONNECTED)
                if number == 250:
                    await trio.sleep(10)  # it comes back, with nothing waiting
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert numbers == list(range(300))
        assert skipped[0] == (mallory.me, SendOutcome.OVERFLOW)
        assert link is not ada._core.link(mallory.me)


async def test_many_channels_to_one_slow_reader_wait_for_it_and_lose_nothing(autojump_clock: MockClock) -> None:
    """Each within its own budget, all together over what a link takes, and over what their credits let through (12.6 MB)."""
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        link = ada._core.link(bob.me)
        assert link is not None
        names = [f"bulk {number}" for number in range(16)]
        reading, reports, got = [bob.channel(name) for name in names], [], dict.fromkeys(names, 0)

        async def send(name: str) -> None:
            for _ in range(26):
                reports.append(await ada.channel(name).send(bytes(65_536)))

        async def read(number: int) -> None:
            async for _ in reading[number]:
                got[names[number]] += 1

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as sending:
                for name in names:
                    sending.start_soon(send, name)
                await trio.sleep(5)
                assert len(reports) < 16 * 26
                assert link.waiting > 7 * 2**20
                for number in range(16):
                    nursery.start_soon(read, number)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert all(report.sent == 1 for report in reports)
        assert set(got.values()) == {26}
        assert ada._core.link(bob.me) is link


@pytest.mark.parametrize("reliable", [True, False])
async def test_frames_that_nobody_takes_fill_up_one_link_and_end_it(autojump_clock: MockClock, reliable: bool) -> None:
    async with open_world(seed=1) as world:
        ada, _ = await two(world)
        mallory = await world.join("lobby", "mallory")
        await ada.wait_connected(2)
        link = ada._core.link(mallory.me)
        assert link is not None
        with world.net.partition(["mallory"], ["ada", "bob"]):
            for _ in range(300):
                link.send_frame(bytes(65_536), reliable=reliable)
            await trio.sleep(1)
            assert (link.state, link._close_reason) == (LinkState.GONE, "overflow")
            assert [peer.name for peer in ada.connected] == ["bob"]


@pytest.mark.parametrize("trick", ["many", "streams"])
async def test_who_takes_no_more_channels_keeps_no_message_from_the_others(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, trick: str
) -> None:
    async with open_world(seed=1) as world:
        ada = await world.join("lobby", "ada")
        if trick == "streams":  # the handshake of the next link says so, at both ends
            honest = stack._sctp_config
            monkeypatch.setattr(stack, "_sctp_config", lambda *said: attrs.evolve(honest(*said), streams_max=2))
        mallory = await world.join("lobby", "mallory")
        await ada.wait_connected(1)
        monkeypatch.undo()
        bob = await world.join("lobby", "bob")
        await ada.wait_connected(2)
        link = mallory._core.link(ada.me)
        assert link is not None
        if trick == "many":
            for number in range(1022):
                link._connection.open_channel(DataChannelConfig(label=f"x{number}"))  # type: ignore[union-attr]
            await trio.sleep(5)
        report = await ada.channel("chat").send("hello")
        assert (await bob.channel("chat").receive())[1] == "hello"
        assert report.skipped == {}
        assert report.waiting == ((mallory.me,) if trick == "streams" else ())  # until its next link stands
        with pytest.raises(MessageTooLarge):
            await ada.channel("chat").send(bytes(300_000))
        with pytest.raises(InvalidConfig):
            ada.channel("late", mode="ttl(99999)")


def unread_of(room: Room, peer: PeerId) -> int:
    """What the link of that peer counts as unread."""
    link = room._core.link(peer)
    assert link is not None
    assert link._connection is not None
    return link._connection._link._unread


async def test_what_comes_through_others_has_a_bound_for_each_author(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, bob = await two(world)
        cid = await world.join("lobby", "cid")
        await ada.wait_connected(2)
        orders = ada.channel("orders")

        def come(room: Room, size: int) -> None:
            inside(ada).on_gossip(gossip_events.BroadcastReceived(room.me, carried("orders", bytes(size)), 1))

        for _ in range(300):
            come(bob, 16_000)
        kept = 300 - orders.stats.dropped
        assert CARRIED_UNREAD_BYTES_MAX - 40_000 < kept * 16_000 < CARRIED_UNREAD_BYTES_MAX
        assert unread_of(ada, bob.me) >= kept * 16_000
        for _ in range(10):
            come(cid, 0)  # empty ones cost memory, too
        assert unread_of(ada, cid.me) == 10 * UNREAD_OVERHEAD_BYTES
        with pytest.raises(WouldBlock):
            while True:
                orders.receive_nowait()
        assert (unread_of(ada, bob.me), unread_of(ada, cid.me)) == (0, 0)
        dropped = orders.stats.dropped
        come(bob, 16_000)
        assert orders.stats.dropped == dropped


async def test_a_new_link_opens_with_the_window_that_is_left(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, mallory = await two(world)
        orders = ada.channel("orders")
        for life in range(1, 4):
            mallory.channel("orders").send_nowait(bytes(200_000))
            await trio.sleep(1)
            assert unread_of(ada, mallory.me) == life * (200_000 + UNREAD_OVERHEAD_BYTES)
            before = ada._core.link(mallory.me)
            del mallory._core.table._links[ada.me]
            mallory._core.dial(membership(mallory).room, ada.me)
            while ada._core.link(mallory.me) is before or not ada.connected:
                await trio.sleep(0.1)
            await trio.sleep(2)
            assert unread_of(ada, mallory.me) == life * (200_000 + UNREAD_OVERHEAD_BYTES)
        for _ in range(3):
            orders.receive_nowait()
        assert unread_of(ada, mallory.me) == 0


async def test_messages_under_names_that_no_channel_can_have_are_not_kept(autojump_clock: MockClock) -> None:
    async with open_world(seed=1) as world:
        ada, mallory = await two(world)
        link = mallory._core.link(ada.me)
        assert link is not None
        for name in ("", "n" * 129, "n" * 60_000, "é" * 65, "é" * 64, "x"):
            link.send_message(DataChannelConfig(label=membership(mallory).label(name)), b"hello")
        await trio.sleep(1)
        assert {name for queues in inside(ada)._undeclared._queues.values() for name in queues} == {"é" * 64, "x"}


async def test_a_flood_of_events_ends_only_the_reader_that_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psyne_mesh.room.hub.BACKLOG_MAX", 10)
    hub = EventHub(list)
    stuck, reader = hub.events(), hub.events()
    called: list[int] = []
    for number in range(3):  # together they are far more than 10 events behind
        hub.subscribe(SignalingUp, lambda event, number=number: called.append(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        for _ in range(2):
            for _ in range(8):
                hub.publish(SignalingUp())
            for _ in range(8):
                await reader.__anext__()
        hub.publish(SignalingUp())
        assert isinstance(await reader.__anext__(), SignalingUp)
        hub.close()
        hub.publish(SignalingUp())  # too late: nobody hears of it
    assert sorted(called) == [0] * 17 + [1] * 17 + [2] * 17
    with pytest.raises(StopAsyncIteration):
        await reader.__anext__()
    for _ in range(10):
        await stuck.__anext__()
    with pytest.raises(EventBacklog):
        await stuck.__anext__()
