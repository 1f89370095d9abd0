"""DTLS 1.3 with every other stack that speaks it: in both roles, with and without post-quantum keys, both ways of signaling."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from typing import Literal, TypeAlias

import pytest
import trio

from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.errors import ConnectFailed
from psyne_mesh.webrtc.dtls import DtlsSession, suites13
from psyne_mesh.webrtc.dtls.handshake13 import groups
from psyne_mesh.webrtc.peer import PeerConnection
from tests.interop.foreign import STACKS, ForeignProcess, ForeignStack, Remote, Side, introduced

pytestmark = [pytest.mark.interop, pytest.mark.slow]

Role: TypeAlias = Literal["client", "server"]  # ours in DTLS

_WRTC = ForeignStack(
    name="wrtc",
    command=(sys.executable, "-m", "tests.interop.wrtc_peer"),
    missing=lambda: (
        "" if importlib.util.find_spec("webrtc") else "wrtc is not installed: pip install psyne-mesh[bench]"
    ),
    max_message_size=262_144,
)
_SPEAKERS = [stack for stack in STACKS if stack.is_browser] + [_WRTC]
# The extension supported_versions (RFC 8446 section 4.2.1) as these stacks write it, with 1.3 before others
_OFFER_OF_1_3 = re.compile(rb"(\0\x2b\0[\5\7][\4\6])\xfe\xfc")
ONLY_1_3 = WebRTCConfig(dtls_versions=("1.3",))


@pytest.fixture(scope="module", params=_SPEAKERS, ids=lambda stack: stack.name)
def speaker(request: pytest.FixtureRequest) -> Iterator[ForeignProcess]:
    stack: ForeignStack = request.param
    if stack.missing():
        pytest.skip(stack.missing())
    process = ForeignProcess(stack)
    try:
        yield process
    finally:
        process.stop()


def given_role(sdp: str, theirs: str) -> str:
    """A description with another `a=setup`: so that we are the client of peers that we would leave that to."""
    return sdp.replace("a=setup:actpass", f"a=setup:{theirs}")


async def exchange(peer: PeerConnection, remote: Remote, side: Side, role: Role) -> None:
    if side == "offerer":
        offer = given_role(await peer.create_offer(), "active" if role == "client" else "passive")
        await peer.set_answer(await remote.call("answer", offer, []))
    else:
        offer = await remote.call("offer", [{"label": "unused"}])
        await remote.call(
            "accept", await peer.create_answer(given_role(offer, "passive" if role == "client" else "active"))
        )
    await peer.wait_connected()


@pytest.mark.parametrize("hybrid", [True, False], ids=["ML-KEM", "x25519"])
@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("side", ["offerer", "answerer"])
async def test_they_understand_each_other(
    speaker: ForeignProcess, side: Side, role: Role, hybrid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hybrid:
        monkeypatch.setattr(groups, "GROUPS", (groups.X25519, groups.SECP256R1))
    async with introduced(speaker, side, ONLY_1_3) as (peer, remote):
        await exchange(peer, remote, side, role)
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        for message in ("text", bytes(1), bytes(16_384), bytes(65_535)):
            await channel.send(message)
            assert await channel.receive() == message
        stats = peer.stats().dtls
        assert stats is not None
        assert stats.version == "DTLSv1.3"
        takes_hybrid = hybrid and speaker.stack.name != "wrtc"  # whose hello has an x25519 share alone
        assert stats.group == ("X25519MLKEM768" if takes_hybrid else "x25519")
        assert stats.is_post_quantum is takes_hybrid
        await trio.sleep(0.5)
        assert peer.connection.stack._dtls._last_flight is None  # type: ignore[union-attr]  # it was acknowledged


@pytest.mark.parametrize("role", ["client", "server"])
async def test_a_group_that_has_no_share_is_asked_for(
    speaker: ForeignProcess, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HelloRetryRequest: ours as server for P-256, of which no browser sends a share unasked."""
    if role == "client":
        monkeypatch.setattr(groups, "GROUPS", (groups.SECP256R1, groups.X25519))
    else:
        monkeypatch.setattr(groups, "GROUPS", (groups.SECP256R1,))
    async with introduced(speaker, "offerer", ONLY_1_3) as (peer, remote):
        await exchange(peer, remote, "offerer", role)
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        await channel.send("x")
        assert await channel.receive() == "x"


@pytest.mark.parametrize("suite", suites13.SUITES, ids=lambda suite: suite.name)
async def test_each_suite(speaker: ForeignProcess, suite: suites13.Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Firefox takes no suite with SHA-384 in WebRTC (its bug 1310061), and says so in an alert."""
    if speaker.stack.name == "firefox" and suite is suites13.AES_256_GCM:
        monkeypatch.setattr(suites13, "SUITES", (suite,))
        with pytest.raises(ConnectFailed, match="handshake failure"):
            async with introduced(speaker, "offerer", ONLY_1_3) as (peer, remote):
                await exchange(peer, remote, "offerer", "client")
        return
    monkeypatch.setattr(suites13, "SUITES", (suite,))
    async with introduced(speaker, "offerer", ONLY_1_3) as (peer, remote):
        await exchange(peer, remote, "offerer", "client")
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        await channel.send(bytes(5_000))
        assert await channel.receive() == bytes(5_000)
        stats = peer.stats().dtls
        assert stats is not None
        assert stats.cipher == suite.name


@pytest.mark.parametrize("role", ["client", "server"])
async def test_keys_are_renewed_both_ways(speaker: ForeignProcess, role: Role) -> None:
    async with introduced(speaker, "offerer", ONLY_1_3) as (peer, remote):
        await exchange(peer, remote, "offerer", role)
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        session = peer.connection.stack._dtls
        for epoch in (4, 5):
            session.update_keys(trio.current_time(), ask=True)  # type: ignore[union-attr]
            while session._write.epoch < epoch or session._read.epoch < epoch:  # type: ignore[union-attr]
                await channel.send("x" * 100)
                assert await channel.receive() == "x" * 100
                await trio.sleep(0.01)
        await channel.send("still")
        assert await channel.receive() == "still"


async def test_an_offer_of_1_3_taken_out_on_its_way_gets_no_connection(
    speaker: ForeignProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A middle that leaves 1.2 alone in a hello of both versions: what they have signed is another hello than ours."""
    receive, n_altered = DtlsSession.receive, 0

    def receive_altered(session: DtlsSession, datagram: bytes | memoryview, now: float) -> list[bytes]:
        nonlocal n_altered
        altered = _OFFER_OF_1_3.sub(b"\\1\xfe\xfd", datagram)  # 1.2, twice
        n_altered += altered != datagram
        return receive(session, altered, now)

    monkeypatch.setattr(DtlsSession, "receive", receive_altered)
    with pytest.raises(ConnectFailed, match="signature"):
        async with introduced(speaker, "offerer") as (peer, remote):
            await exchange(peer, remote, "offerer", "server")
    assert n_altered
