"""A signaling server under pressure, in a process of its own: joins beside a flood, and the return of all its clients.

    python -m benchmarks.signaling flood --seconds 30 --mbit-s 10
    python -m benchmarks.signaling return --clients 5000

flood: one address makes rooms, opens silent connections and sends empty frames at the given rate; players of other addresses
enter a room all the while. Told are their p50 and p99, the same without the flood, and how many rooms the flooder has.
return: the server is killed and comes back on its port; told is when how many of its clients were in a room again, how many
connections were turned away meanwhile, and the processor's seconds of the server and of the clients, which share this machine.
Addresses of 127.0.0.0/8 stand for those of the network, so it needs Linux or Windows.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from psyne_mesh.errors import SignalingError
from psyne_mesh.identity import Identity
from psyne_mesh.signaling.client import SignalingClient, connect_signaling
from psyne_mesh.signaling.events import Lost, Restored
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.link import Dial

FLOODER = "127.0.9.9"
COMING_MAX = 32
SERVE = [sys.executable, "-m", "psyne_mesh.cli", "serve", "--port"]
EMPTY_FRAMES = (b"\x01\x80mask" + b"\x00\x80mask" * 200) * 2
app = typer.Typer(add_completion=False)


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[tuple[int, trio.Process]]:
    process = await trio.lowlevel.open_process([*SERVE, str(port)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        text = b""
        while b"stats:" not in text:
            text += await process.stdout.receive_some()
        yield int(text.split()[2].rpartition(b":")[2]), process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def dial_from(address: str, port: int) -> Dial:
    async def dial() -> trio.abc.Stream:
        one = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            await one.bind((address, 0))
            await one.connect(("127.0.0.1", port))
        except BaseException:
            one.close()
            raise
        return trio.SocketStream(one)

    return dial


async def enter(address: str, port: int) -> float:
    """Seconds from the dial to the answer of a join; infinite if that fails."""
    began = trio.current_time()
    try:
        url = f"ws://127.0.0.1:{port}"
        async with connect_signaling(url, Identity.generate(), dial=dial_from(address, port)) as client:
            await client.join(JoinRequest("honest", record="r" * 700))
            return trio.current_time() - began
    except SignalingError:
        return float("inf")


async def enter_for(seconds: float, port: int) -> list[float]:
    took, ends_at, number = [], trio.current_time() + seconds, 0
    while trio.current_time() < ends_at:
        number += 1
        took.append(await enter(f"127.0.{number % 200 + 10}.{number % 250 + 1}", port))
        await trio.sleep(0.05)
    return sorted(took)


class Flood:
    def __init__(self, port: int, bytes_per_s: float) -> None:
        self._port = port
        self._pause_s = 20 * len(EMPTY_FRAMES) / bytes_per_s  # of each of the twenty, between two writes
        self.sent = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(self._make_rooms)
                nursery.start_soon(self._send_frames)
            nursery.start_soon(self._stay_silent, nursery)

    async def _make_rooms(self) -> None:
        url = f"ws://127.0.0.1:{self._port}"
        while True:
            try:
                async with connect_signaling(url, Identity.generate(), dial=dial_from(FLOODER, self._port)) as client:
                    while True:
                        await client.join(JoinRequest(f"room {random.getrandbits(60)}", record="r" * 2_000))
                        self.sent += 2_200
            except SignalingError:
                await trio.sleep(0.1)

    async def _send_frames(self) -> None:
        head = (
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        while True:
            try:
                async with await dial_from(FLOODER, self._port)() as stream:
                    await stream.send_all(head.encode())
                    while True:
                        await stream.send_all(EMPTY_FRAMES)
                        self.sent += len(EMPTY_FRAMES)
                        await trio.sleep(self._pause_s)
            except (OSError, trio.BrokenResourceError):
                await trio.sleep(0.1)

    async def _stay_silent(self, nursery: trio.Nursery) -> None:
        async def hold() -> None:
            try:
                async with await dial_from(FLOODER, self._port)() as stream:
                    await stream.receive_some()
            except (OSError, trio.BrokenResourceError):
                return

        while True:
            nursery.start_soon(hold)
            await trio.sleep(0.01)


async def measure_flood(seconds: float, mbit_s: float) -> dict[str, float]:
    async with serving() as (port, _):
        calm = await enter_for(seconds / 2, port)
        command = [sys.executable, "-m", "benchmarks.signaling", "attack", str(port), str(mbit_s)]
        attacker = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        try:
            await trio.sleep(2)
            beside = await enter_for(seconds, port)
        finally:
            attacker.kill()
        rooms = (await stats(port))["rooms"]
    return {
        "calm_p50_s": round(calm[len(calm) // 2], 4),
        "calm_p99_s": round(calm[int(len(calm) * 0.99)], 4),
        "flooded_p50_s": round(beside[len(beside) // 2], 4),
        "flooded_p99_s": round(beside[int(len(beside) * 0.99)], 4),
        "joins": len(beside),
        "refused": sum(value == float("inf") for value in beside),
        "rooms_of_10000": rooms,
    }


async def stats(port: int) -> dict[str, Any]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")
        page = b""
        while data := await stream.receive_some():
            page += data
    return json.loads(page.partition(b"\r\n\r\n")[2])  # type: ignore[no-any-return]


def cpu_s(process: trio.Process) -> float:
    """Seconds of the processor that a living process took, where there is /proc; else -1."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_return(clients: int) -> dict[str, float]:
    back: list[float] = []
    began = 0.0
    here = 0
    coming = trio.CapacityLimiter(COMING_MAX)  # how they came in first is not measured: it may take as long as it likes

    async def stay(number: int, port: int) -> None:
        nonlocal here
        address = f"127.{1 + number // 50_000}.{number // 250 % 200 + 1}.{number % 250 + 1}"
        url, rng = f"ws://127.0.0.1:{port}", random.Random(number)
        async with AsyncExitStack() as stack:
            async with coming:
                client = await stack.enter_async_context(
                    connect_signaling(url, Identity.generate(), rng=rng, dial=dial_from(address, port))
                )
                await client.join(JoinRequest(f"room {number // 8}"))
            here += 1
            await wait_restored(client)
            back.append(trio.current_time() - began)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with serving() as (port, server):
            for number in range(clients):
                nursery.start_soon(stay, number, port)
            with trio.move_on_after(600):
                while here < clients:
                    await trio.sleep(0.1)
            server.kill()
        await trio.sleep(5)
        async with serving(port) as (_, server):
            began, ours_before = trio.current_time(), time.process_time()
            with trio.move_on_after(120):
                while len(back) < clients:
                    await trio.sleep(0.1)
            ours_s, server_s = time.process_time() - ours_before, cpu_s(server)
            turned_away = (await stats(port)).get("turned_away", 0)
            nursery.cancel_scope.cancel()
    back.sort()
    return {
        "clients": clients,
        "back": len(back),
        "half_s": round(back[len(back) // 2], 2) if back else -1.0,
        "all_s": round(back[-1], 2) if len(back) == clients else -1.0,
        "turned_away": turned_away,
        "server_cpu_s": round(server_s, 2),
        "clients_cpu_s": round(ours_s, 2),
    }


async def wait_restored(client: SignalingClient) -> None:
    lost = False
    async for event in client.events:
        lost = lost or isinstance(event, Lost)
        if lost and isinstance(event, Restored):
            return


@app.command()
def flood(seconds: Annotated[float, typer.Option()] = 30.0, mbit_s: Annotated[float, typer.Option()] = 10.0) -> None:
    print(json.dumps(trio.run(measure_flood, seconds, mbit_s)))


@app.command("return")
def come_back(clients: Annotated[int, typer.Option()] = 5_000) -> None:
    from psyne_mesh.signaling.listening import raise_descriptors

    raise_descriptors(2 * clients + 1_000)
    print(json.dumps(trio.run(measure_return, clients)))


@app.command(hidden=True)
def attack(port: int, mbit_s: float) -> None:
    trio.run(Flood(port, mbit_s * 1e6 / 8).run)


if __name__ == "__main__":
    app()
