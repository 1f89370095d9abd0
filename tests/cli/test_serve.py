"""`psyne-mesh serve` with options that cannot be: one line that says what is wrong."""

from __future__ import annotations

import os
import re
import signal
import sys

import pytest
import trio
import trio.testing

from psyne_mesh.cli.serve import run_serve
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.identity import Identity
from psyne_mesh.signaling.client import connect_signaling
from psyne_mesh.signaling.events import Lost
from psyne_mesh.signaling.redis_backplane import RedisBackplane


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_a_host_that_cannot_be_is_named(host: str) -> None:
    with pytest.raises(InvalidConfig, match=r"cannot listen on .*cannot be the name of a host"):
        await run_serve(host, 0, None, None, None)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6379", "redis://", "redis:///0", "redis://h:abc", "redis://h:99999", "redis://h:0", "redis://[::1",
     "redis://a..b", "http://h", "redis://user:secret@h:abc", "redis://user:sec#ret@h",
     "user:secret@h:6379", "redis://user:sec://ret@h:abc"],
)  # fmt: skip
async def test_a_url_of_no_redis_is_refused_with_its_form(url: str) -> None:
    with pytest.raises(InvalidConfig, match="redis://") as caught:
        await run_serve("127.0.0.1", 0, None, None, url)
    assert "sec" not in str(caught.value)


async def test_a_public_name_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="must be host, host:port or"):
        await run_serve("127.0.0.1", 0, public_names=["wss://game.example"])


@pytest.mark.skipif(sys.platform == "win32", reason="nothing sends SIGTERM on Windows")
async def test_a_server_that_is_told_to_stop_says_goodbye(capsys: pytest.CaptureFixture[str]) -> None:
    """What systemd, Docker and Kubernetes do. The client hears of it at once, as a goodbye and not as a broken wire."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_serve, "127.0.0.1", 0)
        url = ""
        while not url:
            await trio.testing.wait_all_tasks_blocked()
            url = (re.findall(r"ws://[0-9.:]+", capsys.readouterr().out) or [""])[0]
        async with connect_signaling(url, Identity.generate()) as client:
            os.kill(os.getpid(), signal.SIGTERM)
            with trio.fail_after(5):
                lost = await client.next_event()
    assert isinstance(lost, Lost)
    assert "the server is shutting down (code 1001)" in str(lost.cause)


@pytest.mark.parametrize("url", ["redis://h", "rediss://user:pass@h:1/2", "redis://[::1]:5", "unix:///run/redis.sock"])
def test_a_url_of_a_redis_is_taken(url: str) -> None:
    RedisBackplane(url)
