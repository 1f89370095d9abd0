"""`psyne-mesh serve` with options that cannot be: one line that says what is wrong."""

from __future__ import annotations

import pytest

from psyne_mesh.cli.serve import run_serve
from psyne_mesh.errors import InvalidConfig
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


@pytest.mark.parametrize("url", ["redis://h", "rediss://user:pass@h:1/2", "redis://[::1]:5", "unix:///run/redis.sock"])
def test_a_url_of_a_redis_is_taken(url: str) -> None:
    RedisBackplane(url)
