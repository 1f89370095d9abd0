"""Every private name of aioice and trio-asyncio that psyne_mesh relies on, so that an upgrade fails here and loudly."""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import inspect
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from aioice import Candidate, ice, stun, turn

import psyne_mesh.webrtc.ice as ours
from psyne_mesh.webrtc.ice.agent import Agent
from psyne_mesh.webrtc.ice.loop import _load_loop, open_loop
from psyne_mesh.webrtc.ice.stun_guard import DTLS_ACK, DTLS_DATA

CONNECTION_ATTRIBUTES = [
    "_check_list",
    "_closing",
    "_early_checks",
    "_early_checks_done",
    "_protocols",
    "_remote_candidates",
]
CONNECTION_METHODS = {
    "_add_remote_candidate": ["self", "remote_candidate", "network_host"],
    "_pair_remote_candidate": ["self", "remote_candidate"],
    "_valid_username": ["self", "username"],
    "add_remote_candidate": ["self", "remote_candidate"],
    "build_request": ["self", "pair", "nominate"],
    "check_complete": ["self", "pair"],
    "check_incoming": ["self", "message", "addr", "protocol"],
    "check_start": ["self", "pair"],
    "check_start_task": ["self", "pair"],
    "close": ["self"],
    "data_received": ["self", "data", "component"],
    "protocol_lost": ["self", "protocol"],
    "request_received": ["self", "message", "addr", "protocol"],
    "sort_check_list": ["self"],
    "switch_role": ["self", "ice_controlling"],
}
LOOP_METHODS = ["_main_loop", "_main_loop_exit", "_main_loop_init", "_main_loop_one", "_queue_handle"]
LOOP_ATTRIBUTES = ["_nursery", "_q_recv", "_timers"]
HANDLE_ATTRIBUTES = ["_callback", "_cancelled", "_context", "_started"]  # the last of theirs that run Trio's tasks


def test_the_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("aioice").startswith("0.13.")


async def test_a_connection_has_the_attributes_that_an_agent_uses() -> None:
    async with open_loop() as loop:

        async def look() -> None:
            connection = ice.Connection(ice_controlling=True, local_username="abcd", local_password="x" * 22)
            missing = [name for name in CONNECTION_ATTRIBUTES if not hasattr(connection, name)]
            assert not missing
            assert (connection.local_username, connection.local_password) == ("abcd", "x" * 22)
            assert connection.remote_username is None
            assert connection.remote_password is None
            assert list(connection._early_checks) == []
            protocol = ice.StunProtocol(connection)
            assert protocol.transactions == {}
            await connection.close()
            assert connection._closing

        await loop.run_aio_coroutine(look())


@pytest.mark.parametrize(("name", "arguments"), CONNECTION_METHODS.items())
def test_a_connection_has_the_methods_that_an_agent_overrides_or_calls(name: str, arguments: list[str]) -> None:
    assert list(inspect.signature(getattr(ice.Connection, name)).parameters) == arguments


def test_a_pair_and_a_candidate_look_as_expected() -> None:
    candidate = Candidate.from_sdp("1 1 udp 2130706431 192.0.2.1 5000 typ host")
    assert candidate._network_host == "192.0.2.1"
    protocol = type("P", (), {"local_candidate": candidate})()
    pair = ice.CandidatePair(protocol, candidate)
    assert (pair.task, pair.nominated, pair.remote_nominated) == (None, False, False)
    assert pair.state is ice.CandidatePair.State.FROZEN
    assert pair.remote_addr == ("192.0.2.1", 5000)
    assert [state.name for state in ice.CandidatePair.State] == [
        "FROZEN",
        "WAITING",
        "IN_PROGRESS",
        "SUCCEEDED",
        "FAILED",
    ]
    assert ice.candidate_pair_priority(candidate, candidate, True) > 0


def test_a_protocol_takes_our_transactions() -> None:
    assert list(inspect.signature(ice.StunProtocol.request).parameters) == [
        "self",
        "request",
        "addr",
        "integrity_key",
        "retransmissions",
    ]
    source = inspect.getsource(ice.StunProtocol.datagram_received)
    assert "self.transactions[message.transaction_id]" in source
    assert "transaction.response_received(message, addr)" in source
    assert {name for name, _ in inspect.getmembers(stun.Transaction) if not name.startswith("_")} == {
        "response_received",
        "run",
    }


def test_the_turn_client_can_be_used_without_its_transports() -> None:
    assert list(inspect.signature(turn.TurnClientMixin.__init__).parameters) == [
        "self",
        "server",
        "username",
        "password",
        "lifetime",
        "channel_refresh_time",
    ]
    for name in ("channel_bind", "connect", "datagram_received", "delete", "refresh", "request_with_retry"):
        assert callable(getattr(turn.TurnClientMixin, name))
    assert "self.refresh(time_to_expiry)" in inspect.getsource(turn.TurnClientMixin.connect)  # ours does nothing


def test_aioice_parses_what_its_attribute_table_names() -> None:
    """`stun_guard` knows the sizes of these attributes; a new one here needs a look at its parser."""
    required = {0x1, 0x3, 0x4, 0x5, 0x6, 0x8, 0x9, 0xC, 0xD, 0x12, 0x13, 0x14, 0x15, 0x16, 0x19, 0x20, 0x24, 0x25}
    optional = {0x8022, 0x8028, 0x8029, 0x802A, 0x802B, 0x802C}
    ours = {DTLS_DATA, DTLS_ACK}  # put in by `ice/embedded.py`: bytes, whatever is in them
    assert set(stun.ATTRIBUTES_BY_TYPE) - ours == required | optional
    assert sorted(stun.Method) == [1, 2, 3, 4, 6, 7, 8, 9]


async def test_our_names_do_not_hide_those_of_a_connection() -> None:
    async with open_loop() as loop:

        async def look() -> set[str]:
            theirs = ice.Connection(ice_controlling=True)
            return set(vars(theirs)) | set(dir(ice.Connection))

        theirs = await loop.run_aio_coroutine(look())
    tree = ast.parse(inspect.getsource(Agent))
    assigned = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    assert assigned & theirs == {"_early_checks_done", "remote_is_lite", "remote_username", "remote_password"}
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert defined & theirs - {"__init__"} <= set(CONNECTION_METHODS)


def test_the_loop_of_trio_asyncio_has_what_ours_builds_on() -> None:
    theirs = _load_loop()
    for name in LOOP_METHODS:
        assert callable(getattr(theirs, name))
    assert "asyncio.Handle(callback, args, self" in inspect.getsource(theirs.call_soon)
    assert "asyncio.TimerHandle(" in inspect.getsource(theirs.call_at)
    one = inspect.getsource(theirs._main_loop_one)
    for line in (
        "obj = await self._q_recv.receive()",
        "heapq.heappush(self._timers, obj)",
        "if isinstance(obj, AsyncHandle):",
        "obj._context.run(self._nursery.start_soon, obj._run, name=obj._callback)",
        "await obj._started.wait()",
        "elif not obj._cancelled:",
        'prev_library, sniffio_library.name = sniffio_library.name, "asyncio"',
        "obj._run()",
    ):
        assert line in one
    assert callable(asyncio._set_running_loop)
    assert asyncio.Handle._run


async def test_what_waits_has_its_turn_in_its_order() -> None:
    """However many callbacks wait, and whatever they set off; timers come in between."""
    async with open_loop() as loop:
        done: list[int] = []
        over = trio.Event()

        def step(number: int) -> None:
            done.append(number)
            if number < 500:
                loop.call_soon(step, number + 1)

        def ended() -> None:
            late.cancel()
            over.set()

        late = loop.call_later(30, done.append, -1)
        cancelled = loop.call_soon(done.append, -2)
        cancelled.cancel()
        loop.call_soon(step, 0)
        loop.call_later(0.01, ended)
        with trio.fail_after(5):
            await over.wait()
            while len(done) < 501:
                await trio.sleep(0.001)
        assert done == list(range(501))
        assert await loop.run_aio_coroutine(_asks_trio(loop)) == "of Trio"


async def _asks_trio(loop: Any) -> str:
    async def answer() -> str:
        await trio.lowlevel.checkpoint()
        return "of Trio"

    said: str = await loop.trio_as_future(answer)
    return said


async def test_the_loop_can_be_driven_from_trio() -> None:
    async with open_loop() as loop:
        called = trio.Event()
        loop.call_soon(called.set)
        with trio.fail_after(5):
            await called.wait()
        assert loop.time() == pytest.approx(trio.current_time(), abs=1.0)

        async def answer() -> int:
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task(loop) is not None
            await asyncio.wait_for(asyncio.sleep(0.001), 5)
            return 42

        assert await loop.run_aio_coroutine(answer()) == 42
        forgotten = loop.create_task(asyncio.sleep(1000))
    assert forgotten.cancelled()
    assert loop.is_closed()


async def test_the_loop_comes_out_of_a_cancellation_at_any_moment() -> None:
    for passes in range(8):
        with trio.fail_after(5), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def give_up(passes: int, scope: trio.CancelScope) -> None:
                    for _ in range(passes):
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    scope.cancel()

                nursery.start_soon(give_up, passes, scope)
                async with open_loop():
                    await trio.sleep_forever()
        assert scope.cancelled_caught


def test_no_other_private_name_of_aioice_is_used() -> None:
    """Private attributes of foreign objects in our source are the ones above, and nothing else."""
    known = {
        *CONNECTION_ATTRIBUTES,
        *CONNECTION_METHODS,
        *LOOP_METHODS,
        *LOOP_ATTRIBUTES,
        *HANDLE_ATTRIBUTES,
        "_network_host",
    }
    known |= {"_run", "_loop", "_set_running_loop", "_get_running_loop"}  # of asyncio, for loops that others write
    for path in sorted(Path(ours.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
            and isinstance(node.ctx, ast.Store)
        } | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        own |= {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.Tuple)
            for name in [e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
        }
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        }
        assert used - own - known == set(), path.name
