"""Against stacks that others have made: aiortc, werift, libdatachannel, Chromium, Firefox. The same cases for each.

`side` is ours. When we answer, the other stack made the offer, controls ICE and is the DTLS server.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, Literal

import pytest
import trio

from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.errors import MessageTooLarge, PeerGone
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.peer import PeerConnection
from tests.interop.foreign import (
    Figures,
    ForeignProcess,
    Remote,
    Side,
    connected,
    exchange,
    incoming,
    introduced,
    those_that,
)

pytestmark = pytest.mark.interop

LARGE_MESSAGE = 2 * 2**20  # bytes: more than most say they take, and what a map of a game may have
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"ordered": False},
    {"ordered": False, "maxRetransmits": 0},
    {"maxRetransmits": 3},
    {"ordered": False, "maxPacketLifeTime": 200},
    {"maxPacketLifeTime": 65_535},
    {"protocol": "chât ☃"},
)


def our_config(label: str, settings: dict[str, Any]) -> DataChannelConfig:
    return DataChannelConfig(
        label=label,
        ordered=settings.get("ordered", True),
        max_retransmits=settings.get("maxRetransmits"),
        max_packet_life_time_ms=settings.get("maxPacketLifeTime"),
        protocol=settings.get("protocol", ""),
    )


async def check_echo(channel: DataChannel, message: str | bytes = "are you there") -> None:
    await channel.send(message)
    assert await channel.receive() == message


async def test_messages_of_every_kind_and_size_come_back(foreign: ForeignProcess, side: Side) -> None:
    largest = min(foreign.stack.max_message_size, LARGE_MESSAGE)
    config = WebRTCConfig(max_message_size=max(largest, 262_144))
    async with connected(foreign, side, [{"label": "theirs"}], config) as (peer, remote):
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        for message in ("text ☃", b"bytes", "x" * 65_535):
            await check_echo(channel, message)
        if foreign.stack.sends_empty:
            await check_echo(channel, "")
            await check_echo(channel, b"")
        answer = await incoming(peer, "theirs")
        for message in ("", b""):
            await answer.send(message)
        assert await remote.call("received", "theirs", 2) == [2, 0, hashlib.sha256().hexdigest()]
        for size in sorted({1, 1_200, 16_384, 65_535, 65_536, largest}):
            await check_echo(channel, os.urandom(size))
        with pytest.raises(MessageTooLarge):
            await channel.send(bytes(largest + 1))
        if foreign.stack.is_browser:
            with pytest.raises(AssertionError, match="TypeError"):
                await remote.call("send_bytes", "theirs", config.max_message_size + 1)
        await check_echo(channel)
        stats = peer.stats()
        assert stats.dtls is not None
        assert stats.dtls.version == ("DTLSv1.3" if foreign.stack.is_browser else "DTLSv1.2")
        assert stats.dtls.is_post_quantum is foreign.stack.is_browser
        assert stats.stack.sctp.interleaving is foreign.stack.interleaves
        assert (stats.phase_s["sctp"] == 0) is foreign.stack.snaps


async def test_channels_of_both_sides_carry_their_configuration(foreign: ForeignProcess, side: Side) -> None:
    theirs = [{"label": f"theirs-ø{number}", **settings} for number, settings in enumerate(SETTINGS)]
    async with connected(foreign, side, theirs) as (peer, remote):
        arrived: dict[str, DataChannel] = {}
        while len(arrived) < len(theirs):
            channel = await anext(peer.incoming_channels)
            arrived[channel.label] = channel
        ids = {channel.id for channel in arrived.values()}
        for number, settings in enumerate(SETTINGS):
            ours = our_config(f"echo-ø{number}", settings)
            channel = peer.create_channel(ours)
            await check_echo(channel, "hello")
            described = await remote.call("describe", ours.label)
            if foreign.stack.describes:
                assert {name: described[name] for name in settings} == settings
            assert (described["id"], described["protocol"]) == (channel.id, ours.protocol)
            ids.add(channel.id)
            answer = arrived[theirs[number]["label"]]
            assert reliability(answer.config) == reliability(ours)
            if foreign.stack.announces_order:
                assert answer.config.ordered is ours.ordered
            await answer.send("to theirs")
            assert (await remote.call("received", answer.label, 1))[:2] == [1, 9]
            await remote.call("send_text", answer.label, "to ours")
            assert await answer.receive() == "to ours"
        assert len(ids) == 2 * len(SETTINGS)


def reliability(config: DataChannelConfig) -> tuple[Any, ...]:
    return config.max_retransmits, config.max_packet_life_time_ms, config.protocol


async def test_negotiated_channels(foreign: ForeignProcess, side: Side) -> None:
    ids = (0, 10, 501)
    theirs = [{"label": f"echo{number}", "negotiated": True, "id": number} for number in ids]
    async with connected(foreign, side, theirs) as (peer, _):
        for number in ids:
            await check_echo(peer.create_channel(DataChannelConfig(label="ours", negotiated=True, id=number)))


async def test_many_channels(foreign: ForeignProcess, side: Side) -> None:
    async with connected(foreign, side) as (peer, remote):
        ours = [peer.create_channel(DataChannelConfig(label=f"echo{number}")) for number in range(60)]
        for channel in ours:
            await channel.send(channel.label)
        for channel in ours:
            assert await channel.receive() == channel.label
        assert len({channel.id for channel in ours}) == len(ours)
        for channel in ours:
            channel.close()
        for channel in ours:
            await remote.call("wait_channel_closed", channel.label)
        await check_echo(peer.create_channel(DataChannelConfig(label="echo of the last")))


@pytest.mark.parametrize("closer", ["ours", "theirs"])
async def test_a_channel_closes_and_its_id_is_used_again(foreign: ForeignProcess, side: Side, closer: str) -> None:
    async with connected(foreign, side) as (peer, remote):
        ids = set()
        for number in range(3):
            channel = peer.create_channel(DataChannelConfig(label=f"echo{number}"))
            await check_echo(channel)
            ids.add(channel.id)
            if closer == "ours":
                channel.close()
            else:
                await remote.call("close_channel", channel.label)
                with pytest.raises(PeerGone):
                    await channel.receive()
            await remote.call("wait_channel_closed", channel.label)
            await gone(peer, f"echo{number}")
        assert peer.state == "connected"
        assert len(ids) == 1


async def test_a_channel_of_theirs_closes_from_either_side(foreign: ForeignProcess, side: Side) -> None:
    async with connected(foreign, side, [{"label": "one"}, {"label": "two"}]) as (peer, remote):
        channels = [await anext(peer.incoming_channels) for _ in range(2)]
        one, two = sorted(channels, key=lambda channel: channel.label)
        one.close()
        await remote.call("wait_channel_closed", "one")
        await remote.call("send_text", "two", "the last message")
        await remote.call("close_channel", "two")
        assert [message async for message in two] == ["the last message"]
        await gone(peer, "one", "two")
        assert await remote.call("open_later", {"label": "three"}) in {one.id, two.id}
        assert (await incoming(peer, "three")).state == "open"


async def gone(peer: PeerConnection, *labels: str) -> None:
    while any(channel.label in labels for channel in peer.stats().stack.channels):
        await trio.sleep(0.01)


async def send_random(channel: DataChannel, size: int, count: int) -> str:
    """The hash of what it sent."""
    sent = hashlib.sha256()
    for _ in range(count):
        data = os.urandom(size)
        sent.update(data)
        await channel.send(data)
    return sent.hexdigest()


async def check_flood_of_theirs(remote: Remote, channel: DataChannel, size: int, count: int) -> None:
    """All of it arrives, in order and unchanged, while they send."""
    expected, got = [], hashlib.sha256()

    async def flood() -> None:
        expected.append(await remote.call("flood", channel.label, size, count))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        for _ in range(count):
            message = await channel.receive()
            assert isinstance(message, bytes)
            got.update(message)
    assert expected == [got.hexdigest()]


async def test_two_megabytes_each_way_at_once_arrive_intact(foreign: ForeignProcess, side: Side) -> None:
    size, count = 16_384, 128
    config = WebRTCConfig(bind_host=foreign.stack.bind_host)
    async with connected(foreign, side, [{"label": "theirs"}], config) as (peer, remote):
        theirs, ours = await incoming(peer, "theirs"), peer.create_channel(DataChannelConfig(label="ours"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check_flood_of_theirs, remote, theirs, size, count)
            sent = await send_random(ours, size, count)
        assert await remote.call("received", "ours", count) == [count, size * count, sent]


@pytest.mark.slow
async def test_fifty_megabytes_each_way_arrive_intact(foreign: ForeignProcess, side: Side, figures: Figures) -> None:
    size, count = 65_536, 800
    config = WebRTCConfig(bind_host=foreign.stack.bind_host)
    async with connected(foreign, side, [{"label": "theirs"}], config, deadline_s=110) as (peer, remote):
        theirs, ours = await incoming(peer, "theirs"), peer.create_channel(DataChannelConfig(label="ours"))
        began = trio.current_time()
        await check_flood_of_theirs(remote, theirs, size, count)
        turned = trio.current_time()
        sent = await send_random(ours, size, count)
        assert await remote.call("received", "ours", count) == [count, size * count, sent]
        down, up = (size * count / 1e6 / took for took in (turned - began, trio.current_time() - turned))
    figures.note(foreign.agent, side, f"received {down:.1f} MB/s, sent {up:.1f} MB/s")


@pytest.mark.slow
async def test_pings_overtake_bulk_data(foreign: ForeignProcess, side: Side, figures: Figures) -> None:
    """Ten megabytes queued on one channel, pings on another: most come back long before the bulk is through."""
    size, count = 65_536, 160
    config = WebRTCConfig(bind_host=foreign.stack.bind_host)
    async with connected(foreign, side, config=config) as (peer, remote):
        bulk, echo = (peer.create_channel(DataChannelConfig(label=label)) for label in ("bulk", "echo"))
        await check_echo(echo)
        times: list[float] = []

        async def send() -> None:
            for _ in range(count):
                await bulk.send(bytes(size))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while True:
                began = trio.current_time()
                await check_echo(echo)
                times.append(trio.current_time() - began)
        assert (await remote.call("received", "bulk", count))[:2] == [count, size * count]
    assert len(times) >= 3
    times.sort()
    figures.note(foreign.agent, side, f"{len(times)} pings under bulk: median {times[len(times) // 2] * 1000:.0f} ms, "
                 f"longest {times[-1] * 1000:.0f} ms")  # fmt: skip


async def test_messages_that_may_be_lost(foreign: ForeignProcess, side: Side) -> None:
    """Both ways at once on loopback, where few are lost: what comes is whole, and the next channel is unharmed."""
    lossy = {"ordered": False, "maxRetransmits": 0}
    async with connected(foreign, side, [{"label": "theirs", **lossy}]) as (peer, remote):
        theirs = await incoming(peer, "theirs")
        ours = peer.create_channel(our_config("ours", lossy))
        for _ in range(100):
            await ours.send(bytes(3_000))
        await remote.call("flood", "theirs", 3_000, 100)
        assert len(await theirs.receive()) == 3_000
        messages, octets, _ = await remote.call("received", "ours", 1)
        assert octets == 3_000 * messages
        await check_echo(peer.create_channel(DataChannelConfig(label="echo")))


async def test_leaving_is_noticed_by_the_other_side(foreign: ForeignProcess, side: Side, figures: Figures) -> None:
    """By its channels: browsers take 5 to 10 s until `connectionState` says it."""
    async with introduced(foreign, side) as (peer, remote):
        began = trio.current_time()
        await exchange(peer, remote, side, [{"label": "theirs"}])
        took = trio.current_time() - began
        phases = ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in peer.stats().phase_s.items())
        figures.note(foreign.agent, side, f"connected in {took * 1000:.0f} ms ({phases})")
        await incoming(peer, "theirs")
        peer.close()
        await remote.call("wait_channel_closed", "theirs")
    async with connected(foreign, side) as (peer, remote):
        await remote.call("end")
        await peer.wait_closed()
        assert isinstance(peer.error, PeerGone)


@those_that("trickles")
async def test_candidates_that_trickle(foreign: ForeignProcess, side: Side) -> None:
    async with introduced(foreign, side) as (peer, remote):
        if side == "offerer":
            await peer.set_answer(await remote.call("answer", await peer.create_offer(trickle=True), [], True))
        else:
            offer = await remote.call("offer", [{"label": "unused"}], True)
            await remote.call("accept", await peer.create_answer(offer, trickle=True))
        await trickle(peer, remote)
        await peer.wait_connected()
        await check_echo(peer.create_channel(DataChannelConfig(label="echo")))


async def trickle(peer: PeerConnection, remote: Remote) -> None:
    """Both ways until that is not needed any more; one task, since commands go one at a time."""
    async for candidate in peer.local_candidates:
        await remote.call("add_candidate", candidate, "0")
    while peer.state == "connecting":
        for found in await remote.call("candidates"):
            peer.add_remote_candidate(found)
        await trio.sleep(0.01)


@those_that("restarts")
async def test_ice_restarts(foreign: ForeignProcess, side: Side) -> None:
    async with connected(foreign, side) as (peer, remote):
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        await check_echo(channel)
        before = peer.stats().ice.generation
        if side == "offerer":
            await peer.set_answer(await remote.call("answer", await peer.restart_ice(), []))
        else:
            await remote.call("accept", await peer.create_answer(await remote.call("offer", [], False, True)))
        while peer.stats().ice.generation == before or peer.path is None:
            await check_echo(channel)
            await trio.sleep(0.01)
        await check_echo(channel)
        assert peer.state == "connected"


@those_that("is_browser")
async def test_addresses_hidden_behind_mdns_names(foreign: ForeignProcess, side: Side) -> None:
    """Browsers hide their addresses from pages; their checks show them to us, whether or not the names resolve."""
    async with introduced(foreign, side) as (peer, remote):
        theirs = await exchange(peer, remote, side)
        hosts = {line.split()[4] for line in theirs.splitlines() if line.startswith("a=candidate:")}
        assert hosts
        assert all(host.endswith(".local") for host in hosts)
        await check_echo(peer.create_channel(DataChannelConfig(label="echo")))


@those_that("is_browser")
@pytest.mark.parametrize("version", ["1.3", "1.2"])
async def test_a_peer_with_an_rsa_certificate(
    foreign: ForeignProcess, side: Side, version: Literal["1.3", "1.2"]
) -> None:
    async with introduced(foreign, side, WebRTCConfig(dtls_versions=(version,))) as (peer, remote):
        await remote.call("begin", True)
        await exchange(peer, remote, side)
        await check_echo(peer.create_channel(DataChannelConfig(label="echo")))
        stats = peer.stats().dtls
        assert stats is not None
        assert stats.version == f"DTLSv{version}"
        if version == "1.2":
            assert stats.cipher is not None
            assert ("RSA" in stats.cipher) is (side == "answerer")  # the server's key names the cipher


@those_that("is_browser")
async def test_media_that_they_offer_is_refused(foreign: ForeignProcess) -> None:
    """Beside the data channels, and before them in the offer, so that the section that leads the bundle is refused."""
    async with introduced(foreign, "answerer") as (peer, remote):
        answer = await peer.create_answer(await remote.call("offer_with_media", [{"label": "theirs"}]))
        assert [line.split()[:2] for line in answer.splitlines() if line.startswith("m=")] == [
            ["m=audio", "0"], ["m=video", "0"], ["m=application", "9"],
        ]  # fmt: skip
        await remote.call("accept", answer)
        await peer.wait_connected()
        await check_echo(peer.create_channel(DataChannelConfig(label="echo")))
        await (await incoming(peer, "theirs")).send("x")
        assert (await remote.call("received", "theirs", 1))[:2] == [1, 1]


@those_that("restarts")
async def test_a_second_offer_without_news_changes_nothing(foreign: ForeignProcess, side: Side) -> None:
    async with connected(foreign, side) as (peer, remote):
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        await check_echo(channel)
        await exchange(peer, remote, side)
        await check_echo(channel)
        assert peer.stats().ice.generation == 0
