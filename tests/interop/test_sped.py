"""DTLS inside ICE's checks with the one browser that has it, behind a trial of its own."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest

from psyne_mesh.config import DataChannelConfig, WebRTCConfig
from psyne_mesh.webrtc.dtls import EMBEDDING_OPTION
from psyne_mesh.webrtc.early_handshake import EarlyHandshake
from psyne_mesh.webrtc.link import Link
from tests.interop.foreign import STACKS, ForeignProcess, Side, introduced

pytestmark = [pytest.mark.interop, pytest.mark.slow]

_CHROMIUM = next(stack for stack in STACKS if stack.name == "chromium")
_TRIALS = "--force-fieldtrials=WebRTC-IceHandshakeDtls/Enabled/WebRTC-Sctp-Snap/Enabled/"
EMBEDDED = WebRTCConfig(dtls_in_stun=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[ForeignProcess]:
    stack = attrs.evolve(_CHROMIUM, command=(*_CHROMIUM.command, _TRIALS))
    if stack.missing():
        pytest.skip(stack.missing())
    process = ForeignProcess(stack)
    try:
        yield process
    finally:
        process.stop()


@pytest.mark.parametrize("side", ["offerer", "answerer"])
async def test_handshakes_travel_in_checks_both_ways(chromium: ForeignProcess, side: Side) -> None:
    async with introduced(chromium, side, EMBEDDED) as (peer, remote):
        if side == "offerer":
            answer = await remote.call("answer", await peer.create_offer(), [])
            assert EMBEDDING_OPTION in _options(answer)
            await peer.set_answer(answer)
        else:
            offer = await remote.call("offer", [{"label": "unused"}])
            assert EMBEDDING_OPTION in _options(offer)
            await remote.call("accept", await peer.create_answer(offer))
        await peer.wait_connected()
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        await channel.send("x")
        assert await channel.receive() == "x"
        embedding = peer.connection._early._embedding  # type: ignore[union-attr]
        assert embedding.n_received
        stats = peer.stats().dtls
        assert stats is not None
        assert stats.version == "DTLSv1.3"


@pytest.mark.python_only  # puts parts of its own into modules
@pytest.mark.parametrize("side", ["offerer", "answerer"])
async def test_nothing_but_checks_carries_the_handshake(
    chromium: ForeignProcess, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On loopback there is a path before there is much to say; so what both say keeps to the checks here."""
    path_found = EarlyHandshake.path_found

    def later(self: EarlyHandshake, now: float) -> None:
        if self._stack.phase in ("connected", "closed"):
            path_found(self, now)

    begin = EarlyHandshake.begin

    def begin_and_look(self: EarlyHandshake, now: float) -> None:
        begin(self, now)
        self.path_found(now)

    deliver = Link.deliver
    monkeypatch.setattr(Link, "deliver", lambda link, datagrams: None if link.is_held else deliver(link, datagrams))
    monkeypatch.setattr(EarlyHandshake, "path_found", later)
    monkeypatch.setattr(EarlyHandshake, "begin", begin_and_look)
    async with introduced(chromium, side, EMBEDDED) as (peer, remote):
        if side == "offerer":
            await peer.set_answer(await remote.call("answer", await peer.create_offer(), []))
        else:
            offer = await remote.call("offer", [{"label": "unused"}])
            await remote.call("accept", await peer.create_answer(offer))
        await peer.wait_connected()
        embedding = peer.connection._early._embedding  # type: ignore[union-attr]
        assert embedding.n_carried
        assert embedding.n_received


@pytest.mark.parametrize("side", ["offerer", "answerer"])
async def test_a_browser_with_it_and_we_without(chromium: ForeignProcess, side: Side) -> None:
    async with introduced(chromium, side, WebRTCConfig()) as (peer, remote):
        if side == "offerer":
            await peer.set_answer(await remote.call("answer", await peer.create_offer(), []))
        else:
            offer = await remote.call("offer", [{"label": "unused"}])
            await remote.call("accept", await peer.create_answer(offer))
        await peer.wait_connected()
        channel = peer.create_channel(DataChannelConfig(label="echo"))
        await channel.send("x")
        assert await channel.receive() == "x"


def _options(sdp: str) -> list[str]:
    return [word for line in sdp.splitlines() if line.startswith("a=ice-options:") for word in line[14:].split()]
