"""Against aiortc: another DTLS wrapper, another SCTP, another idea of everything that the RFCs leave open."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from psyne_mesh.config import DataChannelConfig
from psyne_mesh.errors import PeerGone
from psyne_mesh.webrtc.data_channel import DataChannel
from psyne_mesh.webrtc.endpoint import open_endpoint
from psyne_mesh.webrtc.peer import PeerConnection
from tests.interop.remote import Remote, open_remote

pytest.importorskip("aiortc")
pytestmark = pytest.mark.interop

DEADLINE_S = 20  # a hang shows as its own test failing, with its stack
SIDES = ["offerer", "answerer"]


@asynccontextmanager
async def connected(side: str, *theirs: dict[str, Any]) -> AsyncIterator[tuple[PeerConnection, Remote]]:
    """Our peer on `side`, and aiortc on the other with these channels."""
    with trio.fail_after(DEADLINE_S):
        async with _connected(side, theirs) as pair:
            yield pair


@asynccontextmanager
async def _connected(side: str, theirs: tuple[dict[str, Any], ...]) -> AsyncIterator[tuple[PeerConnection, Remote]]:
    async with (
        open_remote("aiortc_peer.py") as remote,
        open_endpoint() as endpoint,
        endpoint.open_peer(offerer=side == "offerer", name="aiortc") as peer,
    ):
        if side == "offerer":
            await peer.set_answer(await remote.call("answer", await peer.create_offer(), list(theirs)))
        else:
            offer = await remote.call("offer", list(theirs) or [{"label": "unused"}])
            await remote.call("accept", await peer.create_answer(offer))
        await peer.wait_connected()
        yield peer, remote


async def incoming(peer: PeerConnection, label: str) -> DataChannel:
    async for channel in peer.incoming_channels:
        if channel.label == label:
            return channel
    raise AssertionError(f"no channel {label}")


@pytest.mark.parametrize("side", SIDES)
async def test_messages_of_every_kind_and_size_come_back(side: str) -> None:
    async with connected(side) as (peer, _):
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        for message in ("text ☃", b"bytes", "", b"", *(os.urandom(n) for n in (1, 1200, 65_536, 262_144))):
            await channel.send(message)
            assert await channel.receive() == message
        stats = peer.stats()
        assert stats.path is not None
        assert stats.stack.dtls_version == "DTLSv1.2"


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ordered": False},
        {"ordered": False, "maxRetransmits": 0},
        {"maxRetransmits": 3},
        {"ordered": False, "maxPacketLifeTime": 200},
        {"maxPacketLifeTime": 200},
        {"protocol": "chat"},
    ],
    ids=str,
)
async def test_channels_of_both_sides_carry_their_configuration(side: str, settings: dict[str, Any]) -> None:
    """aiortc's own labels are ASCII here: it counts their characters where RFC 8832 counts bytes."""
    ours = DataChannelConfig(
        label="echo-ø",
        ordered=settings.get("ordered", True),
        max_retransmits=settings.get("maxRetransmits"),
        max_packet_life_time_ms=settings.get("maxPacketLifeTime"),
        protocol=settings.get("protocol", ""),
    )
    async with connected(side, {"label": "theirs", **settings}) as (peer, remote):
        theirs = await incoming(peer, "theirs")
        assert theirs.config.ordered == ours.ordered
        assert theirs.config.max_retransmits == ours.max_retransmits
        assert theirs.config.max_packet_life_time_ms == ours.max_packet_life_time_ms
        assert theirs.config.protocol == ours.protocol
        channel = peer.create_channel(ours)
        await channel.send("hello")
        assert await channel.receive() == "hello"
        described = await remote.call("describe", "echo-ø")
        assert {name: described[name] for name in settings} == settings
        assert described["id"] == channel.id != theirs.id
        await theirs.send("to theirs")
        assert (await remote.call("received", "theirs", 1))[:2] == [1, 9]


@pytest.mark.parametrize("side", SIDES)
async def test_negotiated_channels(side: str) -> None:
    async with connected(side, {"label": "echo", "negotiated": True, "id": 10}) as (peer, _):
        channel = peer.create_channel(DataChannelConfig(label="ours", negotiated=True, id=10))
        await channel.send(b"negotiated")
        assert await channel.receive() == b"negotiated"


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("closer", ["ours", "theirs"])
async def test_closing_from_both_sides_and_using_the_id_again(side: str, closer: str) -> None:
    async with connected(side) as (peer, remote):
        ids = set()
        for number in range(3):
            channel = peer.create_channel(DataChannelConfig(label=f"echo{number}"))
            await channel.send("are you there")
            assert await channel.receive() == "are you there"
            ids.add(channel.id)
            if closer == "ours":
                channel.close()
                await remote.call("wait_channel_closed", f"echo{number}")
            else:
                await remote.call("close_channel", f"echo{number}")
                with pytest.raises(PeerGone):
                    await channel.receive()
            while peer.stats().stack.channels and side == "offerer":
                await trio.sleep(0.01)
        assert peer.state == "connected"
        assert len(ids) == (1 if side == "offerer" else len(ids))


async def _both_floods(side: str, size: int, count: int) -> None:
    async with connected(side, {"label": "theirs"}) as (peer, remote):
        theirs = await incoming(peer, "theirs")
        expected, got = await remote.call("flood", "theirs", size, count), hashlib.sha256()
        for _ in range(count):
            message = await theirs.receive()
            assert isinstance(message, bytes)
            got.update(message)
        assert got.hexdigest() == expected
        channel, sent = peer.create_channel(DataChannelConfig(label="ours")), hashlib.sha256()
        await channel.wait_open()
        for number in range(count):
            data = number.to_bytes(4, "big") * (size // 4)
            sent.update(data)
            await channel.send(data)
        assert await remote.call("received", "ours", count) == [count, size * count, sent.hexdigest()]


@pytest.mark.parametrize("side", SIDES)
async def test_five_megabytes_each_way_arrive_intact(side: str) -> None:
    await _both_floods(side, 65_536, 80)


@pytest.mark.slow
async def test_fifty_megabytes_each_way_arrive_intact() -> None:
    await _both_floods("offerer", 65_536, 800)


@pytest.mark.parametrize("side", SIDES)
async def test_leaving_is_noticed_at_once(side: str) -> None:
    async with connected(side) as (peer, remote):
        peer.close()
        await remote.call("wait_state", "closed")
    async with connected(side) as (peer, remote):
        await remote.call("leave")
        await peer.wait_closed()
        assert isinstance(peer.error, PeerGone)
