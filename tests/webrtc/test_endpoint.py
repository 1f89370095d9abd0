"""Real sockets on loopback: connecting, talking, failing alone, and leaving nothing behind."""

from __future__ import annotations

import math
import os
import re
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.errors import (
    ClosedError,
    ConnectFailed,
    FingerprintMismatch,
    InvalidConfig,
    LocalError,
    ProtocolError,
    Superseded,
)
from psyne_mesh.webrtc import ice
from psyne_mesh.webrtc.dtls import Certificate
from psyne_mesh.webrtc.endpoint import open_endpoint
from psyne_mesh.webrtc.ice.gateway import open_sockets
from psyne_mesh.webrtc.peer import PeerConnection
from psyne_mesh.webrtc.stack import StackEvent
from tests.webrtc.dial import LOOPBACK, background, dialled, echo, introduce, open_call, two_peers

HASTY = attrs.evolve(LOOPBACK, connection_timeout_s=0.3)


# ----------------------------------------------------------------------------------------------------------- connecting


async def test_messages_of_every_size_come_back() -> None:
    async with dialled() as call, background((echo, call.theirs)):
        for message in ("text ☃", "", b"", b"\0", *(os.urandom(n) for n in (1, 1163, 1200, 65_536, 262_144))):
            await call.ours.send(message)
            assert await call.ours.receive() == message
        assert call.offerer.state == call.answerer.state == "connected"
        assert (call.ours.id, call.theirs.id) == (
            1,
            1,
        )  # the answerer is the DTLS client, so the offerer opens odd ones


async def test_candidates_may_trickle() -> None:
    async def pass_on(source: PeerConnection, target: PeerConnection) -> None:
        async for candidate in source.local_candidates:
            target.add_remote_candidate(candidate)
        target.add_remote_candidate(None)

    async with two_peers() as (offerer, answerer):
        offer = await offerer.create_offer(trickle=True)
        answer = await answerer.create_answer(offer, trickle=True)
        await offerer.set_answer(answer)
        async with background((pass_on, offerer, answerer), (pass_on, answerer, offerer)):
            await offerer.wait_connected()
            await answerer.wait_connected()


async def test_default_configuration_connects() -> None:
    async with dialled(WebRTCConfig()) as call:
        await call.ours.send("hello")
        assert await call.theirs.receive() == "hello"


async def test_sixteen_peers_share_one_port() -> None:
    async with open_endpoint(LOOPBACK) as hub, trio.open_nursery() as nursery:
        done: list[bytes] = []

        async def spoke(number: int) -> None:
            async with open_endpoint(LOOPBACK) as mine, open_call(hub, mine) as call, background((echo, call.theirs)):
                message = bytes([number]) * 10_000
                await call.ours.send(message)
                done.append(bytes(await call.ours.receive()))  # type: ignore[arg-type]
                if len(done) == 16:
                    assert len(hub.peers) == 16
                    assert len({peer.path.local for peer in hub.peers if peer.path}) == 1
                    nursery.cancel_scope.cancel()
                await trio.sleep_forever()

        for number in range(16):
            nursery.start_soon(spoke, number)
    assert sorted(done) == [bytes([number]) * 10_000 for number in range(16)]


async def test_what_was_measured_is_told() -> None:
    async with dialled() as call:
        await call.ours.send(b"x" * 1000)
        await call.theirs.receive()
        await call.offerer.drain()
        stats = call.offerer.stats()
        assert set(stats.phase_s) == {"ice-gathering", "signaling", "ice", "dtls", "sctp", "channel"}
        assert all(0 <= took_s < 5 for took_s in stats.phase_s.values())
        assert "signaling" in call.answerer.stats().phase_s
        assert stats.path is not None
        assert stats.path.kind == "host"
        assert stats.rtt_s is not None
        assert stats.queue_age_s == 0.0
        assert stats.idle_s is not None
        assert any(pair.selected for pair in stats.ice.pairs)
        assert stats.stack.channels[0].bytes_sent == 1000
        assert stats.stack.sctp.messages_sent == 2
        assert call.offerer.rtt
        assert call.offerer.last_received_at is not None
        assert call.offerer.buffered_amount == call.ours.buffered_amount == 0


# -------------------------------------------------------------------------------------------------------------- failing


async def test_an_answer_that_never_comes_fails_in_time_and_says_so() -> None:
    async with open_endpoint(HASTY) as endpoint, endpoint.open_peer(offerer=True, name="ghost") as peer:
        channel = peer.create_channel()
        await peer.create_offer()
        with pytest.raises(ConnectFailed, match="ghost") as failed:
            await peer.wait_connected()
        assert failed.value.phase == "signaling"
        assert peer.state == "closed"
        with pytest.raises(ConnectFailed):
            await channel.wait_open()
        with pytest.raises(ConnectFailed):
            peer.create_channel()


async def test_a_peer_without_a_path_fails_in_phase_ice() -> None:
    async with two_peers(HASTY) as (offerer, answerer):
        answer = await answerer.create_answer(await offerer.create_offer())
        answerer.close()
        await offerer.set_answer(answer)
        with pytest.raises(ConnectFailed) as failed:
            await offerer.wait_connected()
    assert failed.value.phase == "ice"
    assert failed.value.candidates
    assert failed.value.advice


class Deaf:
    """A socket on a path that swallows what `swallow` says, by the first byte."""

    def __init__(self, inner: ice.DatagramSocket, swallow: range) -> None:
        self.inner, self.swallow, self.address = inner, swallow, inner.address
        self.wait_readable, self.close, self.receive_batch = inner.wait_readable, inner.close, inner.receive_batch

    def send_batch(self, datagrams: Sequence[bytes], address: ice.events.Address) -> int:
        kept = [datagram for datagram in datagrams if datagram[0] not in self.swallow]
        return self.inner.send_batch(kept, address) if kept else 0


@pytest.mark.parametrize(("swallow", "phase"), [(range(20, 64), "dtls"), (range(23, 24), "sctp")])
async def test_a_path_that_loses_a_kind_of_datagram_fails_in_that_phase(swallow: range, phase: str) -> None:
    def sockets(config: WebRTCConfig) -> list[ice.DatagramSocket]:
        return [Deaf(inner, swallow) for inner in open_sockets(config)]

    # DTLS 1.2, whose records tell data from handshake by their first byte
    async with two_peers(attrs.evolve(HASTY, dtls_versions=("1.2",)), sockets=sockets) as (offerer, answerer):
        offer = (await offerer.create_offer()).replace("a=sctp-init:", "a=x-unknown:")  # as a stranger would take it
        await offerer.set_answer(await answerer.create_answer(offer))
        for peer in (offerer, answerer):
            with pytest.raises(ConnectFailed) as failed:
                await peer.wait_connected()
            assert failed.value.phase == phase


async def test_a_man_in_the_middle_is_noticed() -> None:
    async with two_peers() as (offerer, answerer):
        answer = await answerer.create_answer(await offerer.create_offer())
        other = str(Certificate.generate().fingerprint)
        await offerer.set_answer(re.sub("sha-256 [0-9A-F:]+", other, answer))
        with pytest.raises(FingerprintMismatch):
            await offerer.wait_connected()


async def test_signaling_out_of_turn_is_a_local_error() -> None:
    async with open_endpoint(LOOPBACK) as other, other.open_peer(offerer=True) as crossing:
        crossing_offer = await crossing.create_offer()
    async with two_peers() as (offerer, answerer):
        await offerer.create_offer()
        with pytest.raises(LocalError, match="offerer=False"):
            await offerer.create_answer(crossing_offer)
        with pytest.raises(ProtocolError):
            await offerer.set_answer(crossing_offer)  # an offer is no answer
        with pytest.raises(ProtocolError):
            await offerer.set_answer("v=0\r\nnonsense")
        assert offerer.state == "connecting"
        with pytest.raises(LocalError):
            await answerer.create_offer()
        with pytest.raises(LocalError):
            await answerer.set_answer(crossing_offer)


@pytest.mark.parametrize("wrong", ["chat", "", 5, {"ordered": False}, DataChannelConfig])
async def test_a_channel_takes_a_configuration_and_nothing_else(wrong: Any) -> None:
    async with two_peers() as (peer, _):
        for make in (peer.create_channel, peer.open_channel):
            with pytest.raises(InvalidConfig, match=r'such as DataChannelConfig\(label="chat"\)'):
                make(wrong)


async def test_a_hostile_peer_disturbs_nobody_else() -> None:
    """Garbage on the port, hostile STUN, garbage where DTLS is expected, garbage inside DTLS."""
    async with (
        open_endpoint(LOOPBACK) as hub,
        open_endpoint(LOOPBACK) as good,
        open_endpoint(LOOPBACK) as evil,
        open_call(hub, good) as honest,
        open_call(hub, evil) as hostile,
        background((echo, honest.theirs)),
    ):
        assert honest.offerer.path is not None
        port = honest.offerer.path.local
        priority = struct.pack("!HHH2x", 0x0024, 2, 1)  # PRIORITY of two bytes: ends an unguarded aioice
        stun = struct.pack("!HHI12s", 1, len(priority), 0x2112A442, b"x" * 12) + priority
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for junk in (stun, b"", b"\x17junk", os.urandom(500), b"\x00" * 20, b"\xff" * 1400):
                stranger.sendto(junk, port)
        wire = hostile.answerer.connection.ice
        wire.send([b"\x16" + os.urandom(60), b"\x17\xfe\xfd" + os.urandom(60), b"\x15" + os.urandom(14), b"\x14"])
        session = hostile.answerer.connection.stack._dtls
        assert session is not None
        wire.send(session.send([os.urandom(n) for n in range(1, 200)]))
        for n in (10, 100_000):
            await honest.ours.send(b"x" * n)
            assert len(await honest.ours.receive()) == n
        assert honest.offerer.state == "connected"
        assert hub.gateway.last_fault is None


async def test_a_bug_in_a_callback_ends_its_own_peer_and_no_other() -> None:
    def broken(events: list[StackEvent]) -> None:
        raise ZeroDivisionError("a bug")

    async with open_endpoint(LOOPBACK) as hub, open_endpoint(LOOPBACK) as other, open_call(hub, other) as healthy:

        async def dial_with_a_bug() -> None:
            async with (
                hub.open_peer(offerer=True, on_events=broken) as peer,
                open_endpoint(LOOPBACK) as third,
                third.open_peer(offerer=False) as answerer,
            ):
                await introduce(peer, answerer)
                await trio.sleep_forever()

        with pytest.raises(ZeroDivisionError):
            await dial_with_a_bug()
        await healthy.ours.send("still here")
        assert await healthy.theirs.receive() == "still here"


async def test_what_the_user_raises_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with open_endpoint(LOOPBACK) as endpoint, endpoint.open_peer(offerer=True):
            raise KeyError("mine")


# -------------------------------------------------------------------------------------------------------------- leaving


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


async def test_leaving_leaves_nothing() -> None:
    async with dialled():
        pass  # what loads or opens once is there now
    before = trio.lowlevel.current_statistics().tasks_living, threading.active_count(), _open_files()
    async with dialled() as call:
        for _ in range(10):
            await call.ours.send(b"x" * 262_144)
    with trio.move_on_after(0.05):
        async with dialled(), open_endpoint(LOOPBACK) as endpoint, endpoint.open_peer(offerer=True) as peer:
            await peer.create_offer()
            await trio.sleep_forever()
    async with open_endpoint(LOOPBACK) as endpoint, endpoint.open_peer(offerer=True):
        pass
    after = trio.lowlevel.current_statistics().tasks_living, threading.active_count(), _open_files()
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] <= before[1]  # idle threads of Trio's own may end meanwhile


async def test_an_endpoint_that_closes_takes_its_peers_along() -> None:
    started = trio.Event()
    errors: list[Exception | None] = []

    async with trio.open_nursery() as nursery, open_endpoint(LOOPBACK) as one:

        async def hold(endpoint: object) -> None:
            async with one.open_peer(offerer=True) as peer:
                started.set()
                await peer.wait_closed()
                errors.append(peer.error)

        nursery.start_soon(hold, one)
        await started.wait()
        del nursery
    assert isinstance(errors[0], ClosedError)
    with pytest.raises(ClosedError):
        async with one.open_peer(offerer=True):
            pass


# ---------------------------------------------------------------------------------------------------------- ICE restart


async def test_an_ice_restart_keeps_everything_above() -> None:
    async with dialled() as call:
        before = call.offerer.stats().ice.generation
        answer = await call.answerer.create_answer(await call.offerer.restart_ice())
        await call.offerer.set_answer(answer)
        while call.offerer.stats().ice.generation == before:
            await trio.lowlevel.checkpoint()
        await call.ours.send("over the new path")
        assert await call.theirs.receive() == "over the new path"
        with pytest.raises(LocalError):
            await call.answerer.restart_ice()
        changed = (await call.offerer.restart_ice()).replace("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:", 1)
        with pytest.raises(ProtocolError):
            await call.answerer.create_answer(changed)


async def test_a_second_connection_between_two_endpoints_ends_the_first_and_says_why() -> None:
    async with open_endpoint(LOOPBACK) as one, open_endpoint(LOOPBACK) as two, open_call(one, two) as first:
        await first.ours.send("alone")
        assert await first.theirs.receive() == "alone"
        async with open_call(one, two) as second, background((echo, second.theirs)):
            for peer in (first.offerer, first.answerer):
                with trio.fail_after(5):
                    await peer.wait_closed()
                assert isinstance(peer.error, Superseded)
            for channel in (first.ours, first.theirs):
                with pytest.raises(Superseded):
                    await channel.receive()
                with pytest.raises(Superseded):
                    channel.send_nowait("nobody hears that")
            for number in range(100):
                await second.ours.send(bytes([number]) * 2000)
                assert await second.ours.receive() == bytes([number]) * 2000


# ------------------------------------------------------------------------------------------------------- the fast lane


async def test_the_events_lane_replaces_the_inboxes() -> None:
    seen: list[StackEvent] = []
    woken = trio.Event()

    def on_events(events: list[StackEvent]) -> None:
        nonlocal woken
        seen.extend(events)
        for event in events:
            if type(event).__name__ == "MessageReceived" and event.data == "ping":  # type: ignore[union-attr]
                lane.send(event.channel, "pong")  # type: ignore[union-attr]
        woken.set()
        woken = trio.Event()

    async with (
        open_endpoint(LOOPBACK) as one,
        open_endpoint(LOOPBACK) as two,
        one.open_peer(offerer=True, on_events=on_events) as lane,
        two.open_peer(offerer=False) as plain,
    ):
        with pytest.raises(LocalError):
            lane.create_channel()
        opened = lane.open_channel(DataChannelConfig(label="lane"))
        await introduce(lane, plain)
        channel = await anext(plain.incoming_channels)
        await channel.send("ping")
        assert await channel.receive() == "pong"
        lane.set_buffered_amount_low_threshold(opened, 1000)
        lane.send(opened, b"x" * 100_000)
        assert len(await channel.receive()) == 100_000
        lane.note_unread(10)
        lane.note_unread(-10)
        lane.close_channel(opened)
        while "ChannelClosed" not in [type(event).__name__ for event in seen]:
            await woken.wait()
    kinds = [type(event).__name__ for event in seen]
    assert kinds[:3] == ["DtlsConnected", "SctpConnected", "ChannelOpened"]
    assert kinds[-1] == "StackClosed"


async def test_what_is_sent_in_one_tick_shares_datagrams() -> None:
    async with dialled() as call:
        before = call.offerer.stats().ice.datagrams_sent
        for n in range(200):
            call.ours.send_nowait(bytes([n]) * 20)
        for n in range(200):
            assert await call.theirs.receive() == bytes([n]) * 20
        assert call.offerer.stats().ice.datagrams_sent - before < 20


async def test_a_link_remembers_the_deadline_of_its_stack() -> None:
    """The endpoint's timer asks every link whenever it fires, and must neither oversleep nor ask the SCTP cores."""
    async with dialled() as call:

        def check() -> None:
            for peer in (call.offerer, call.answerer):
                due = peer.connection.stack.next_timeout()
                assert peer.connection.link.deadline == (math.inf if due is None else due)
                assert peer.connection.next_timeout() <= peer.connection.link.deadline

        check()
        for n in (10, 100_000):
            await call.ours.send(b"x" * n)
            check()
            assert len(await call.theirs.receive()) == n
            check()
        await call.offerer.drain()
        check()
        call.ours.close()
        call.offerer.distrust_path()
        check()
        call.offerer.close()
        check()
        assert call.offerer.connection.next_timeout() == math.inf
