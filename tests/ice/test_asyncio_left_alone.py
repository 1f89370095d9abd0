"""aioice runs on an asyncio loop of ours; what the program around us does with asyncio stays as it was."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import outcome
import pytest
import trio

from psyne_mesh import create_channel, join_game_room
from psyne_mesh.errors import OutsideTrio
from psyne_mesh.webrtc import open_endpoint
from tests.webrtc.dial import LOOPBACK, introduce


async def talk() -> str:
    """Two endpoints, and a word between them."""
    async with (
        open_endpoint(LOOPBACK) as one,
        open_endpoint(LOOPBACK) as two,
        one.open_peer(offerer=True) as offerer,
        two.open_peer(offerer=False) as answerer,
    ):
        channel = offerer.create_channel()
        await introduce(offerer, answerer)
        await channel.send("hello")
        received = await anext(answerer.incoming_channels)
        return str(await received.receive())


async def stock() -> type[asyncio.AbstractEventLoop]:
    """What asyncio is like inside a coroutine of its own."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(asyncio.sleep(0.001, "slept"))
    assert await asyncio.wait_for(task, 5) == "slept"
    assert asyncio.get_running_loop() is loop
    assert asyncio.current_task() in asyncio.all_tasks()
    return type(loop)


async def test_other_threads_keep_the_stock_loop_while_ours_runs() -> None:
    async with open_endpoint(LOOPBACK) as endpoint:
        loop = await trio.to_thread.run_sync(asyncio.run, stock())
        assert loop.__module__.startswith("asyncio.")
        assert endpoint.gateway.loop.is_running()
        assert asyncio._get_running_loop() is None  # in Trio's own tasks


def test_trio_may_be_the_guest_of_asyncio() -> None:
    """Rooms in a program whose event loop is asyncio's."""

    async def host() -> str:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def finished(result: outcome.Outcome[str]) -> None:
            done.set_result(result)

        trio.lowlevel.start_guest_run(
            talk,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=finished,
            strict_exception_groups=True,
        )
        ticks = 0
        while not done.done():
            await asyncio.sleep(0)
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is not None
            ticks += 1
        assert ticks > 5
        return str((await done).unwrap())

    assert asyncio.run(host()) == "hello"


def test_asyncio_works_in_the_same_thread_afterwards() -> None:
    for _ in range(2):
        assert trio.run(talk) == "hello"
        assert asyncio.run(stock()).__module__.startswith("asyncio.")
    threading.Thread(target=lambda: asyncio.run(stock())).run()


IMPORT = """
    import asyncio, sys
    def state():
        modules = asyncio, asyncio.events, asyncio.tasks, asyncio.base_events
        return [dict(vars(module)) for module in modules], sys.get_asyncgen_hooks()
    asyncio.run(asyncio.sleep(0))  # asyncio makes its policy with the first loop
    before = state()
    import psyne_mesh
    assert "aioice" not in sys.modules, "what most programs need only later"
    from tests.ice.test_asyncio_left_alone import talk
    assert state() == before, "importing changed asyncio"
    import trio
    assert trio.run(talk) == "hello"
    assert state() == before, "an endpoint changed asyncio"
    assert "trio_asyncio" not in sys.modules
"""
THEIRS_BEFORE = """
    import trio, trio_asyncio, asyncio
    from tests.ice.test_asyncio_left_alone import talk
    async def main():
        async with trio_asyncio.open_loop():
            assert await talk() == "hello"
            assert await trio_asyncio.aio_as_trio(asyncio.sleep)(0, "theirs") == "theirs"
    trio.run(main)
"""
THEIRS_MEANWHILE = """
    import trio, asyncio
    from psyne_mesh.webrtc import open_endpoint
    from tests.webrtc.dial import LOOPBACK, open_call
    from tests.ice.test_asyncio_left_alone import talk
    async def main():
        async with open_endpoint(LOOPBACK) as one, open_endpoint(LOOPBACK) as two:
            import trio_asyncio
            async with trio_asyncio.open_loop():
                assert await trio_asyncio.aio_as_trio(asyncio.sleep)(0, "theirs") == "theirs"
                async with open_call(one, two) as call:
                    await call.ours.send("hello")
                    assert await call.theirs.receive() == "hello"
        assert await talk() == "hello"
    trio.run(main)
"""


@pytest.mark.parametrize("script", [IMPORT, THEIRS_BEFORE, THEIRS_MEANWHILE], ids=["none", "before us", "meanwhile"])
def test_whether_or_when_the_program_imports_trio_asyncio(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def enter_a_room() -> None:
    async with join_game_room("lobby"):
        pass


async def enter_a_channel() -> None:
    async with create_channel("webrtc://ada"):
        pass


async def enter_an_endpoint() -> None:
    async with open_endpoint():
        pass


@pytest.mark.parametrize("enter", [enter_a_room, enter_a_channel, enter_an_endpoint])
def test_who_comes_from_asyncio_is_told_what_to_write(enter: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with pytest.raises(OutsideTrio) as told:
        asyncio.run(enter())
    assert "trio.run(main) in the place of asyncio.run(main)" in str(told.value)
    assert str(told.value).count("\n") == 1


def test_who_has_no_loop_at_all_is_told_too() -> None:
    alone = enter_a_room()
    with pytest.raises(OutsideTrio, match=r"trio\.run\(main\)"):
        alone.send(None)
