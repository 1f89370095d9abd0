"""A bad path as a process: forwards the signaling of one pair and stands between its datagrams, with delay, loss, an MTU.

The runner starts it like a peer (`stacks/protocol.py`). Whoever dials its signaling port reaches the answerer behind it; the
candidates in what passes are replaced by the relay's own, so the peers know no other way.

    route  {port, delay_ms, loss, mtu, seed}: the answerer's signaling port, and what the path does in each direction. -> null
    stats  {}: -> {carried, lost, too_large}
"""

from __future__ import annotations

import random
import re
import socket
from collections import Counter, deque
from typing import Any

import trio

from benchmarks.stacks.trio_peer import Lines, TrioPeer

CANDIDATE = re.compile(r"candidate:(\S+) 1 (?i:udp) (\d+) (\d+\.\d+\.\d+\.\d+) (\d+) typ host\b.*")
BUFFER_BYTES = 4 * 2**20
QUEUE_MAX = 20_000  # datagrams on the way; the newest is dropped

Address = tuple[str, int]


class Face:
    """What one peer sees of the other one: a socket on its own address, and where its datagrams came from last."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        self.socket.bind(("0.0.0.0", 0))
        self.port: int = self.socket.getsockname()[1]
        self.peer: Address | None = None


class Relay(TrioPeer):
    def __init__(self) -> None:
        super().__init__()
        self._path: dict[str, Any] = {}
        self._counts: Counter[str] = Counter()

    def versions(self) -> dict[str, str]:
        return {}

    def connecting(self, **_: Any) -> Any:
        raise NotImplementedError("a relay only forwards")

    async def do_route(self, **path: Any) -> None:
        self._path = path

    async def do_stats(self) -> dict[str, int]:
        return {name: self._counts[name] for name in ("carried", "lost", "too_large")}

    async def answer_calls(self, stream: trio.SocketStream) -> None:
        """One dialled connection: its signaling, and its datagrams for as long as this process lives."""
        offerer, answerer = Face(), Face()
        for number, (source, target) in enumerate(((offerer, answerer), (answerer, offerer))):
            rng = random.Random(f"{self._path['seed']}/{number}")
            self.nursery.start_soon(self._carry, source, target, rng)
        behind = await trio.open_tcp_stream("127.0.0.1", self._path["port"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, Lines(stream), Lines(behind), offerer, answerer)
            nursery.start_soon(self._forward, Lines(behind), Lines(stream), answerer, offerer)

    async def _forward(self, source: Lines, target: Lines, from_face: Face, to_face: Face) -> None:
        """What the peer at `from_face` says of its address becomes the address that the other one sees: `to_face`."""
        try:
            while True:
                message = await source.receive()
                for key in ("offer", "answer"):
                    if key in message:
                        message[key] = _replaced(message[key], from_face, to_face)
                if "candidate" in message:
                    changed = _replaced(message["candidate"]["candidate"], from_face, to_face)
                    if not changed:
                        continue
                    message["candidate"]["candidate"] = changed
                await target.send(message)
        except (trio.EndOfChannel, trio.BrokenResourceError):
            return

    async def _carry(self, source: Face, target: Face, rng: random.Random) -> None:
        """All that the peer at `source` sends goes out at `target`, unless it is lost."""
        delay_s, loss, mtu = self._path["delay_ms"] / 1e3, self._path["loss"], self._path["mtu"]
        on_the_way: deque[tuple[float, bytes]] = deque()
        waiting = trio.Event()

        async def deliver() -> None:
            nonlocal waiting
            while True:
                while not on_the_way:
                    waiting = trio.Event()
                    await waiting.wait()
                await trio.sleep_until(on_the_way[0][0])
                now = trio.current_time()
                while on_the_way and on_the_way[0][0] <= now:
                    _, data = on_the_way.popleft()
                    if target.peer is not None:
                        try:
                            target.socket.sendto(data, target.peer)
                            self._counts["carried"] += 1
                        except OSError:
                            self._counts["lost"] += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            while True:
                await trio.lowlevel.wait_readable(source.socket)
                due = trio.current_time() + delay_s
                while True:
                    try:
                        data, source.peer = source.socket.recvfrom(65_536)
                    except BlockingIOError:
                        break
                    if len(data) > mtu:
                        self._counts["too_large"] += 1
                    elif rng.random() < loss or len(on_the_way) >= QUEUE_MAX:
                        self._counts["lost"] += 1
                    else:
                        on_the_way.append((due, data))
                waiting.set()


def _replaced(text: str, from_face: Face, to_face: Face) -> str:
    """The first IPv4 host candidate with the port of `to_face` in it, the others gone; where its own socket is, is noted."""
    kept: list[str] = []
    replaced = False
    for line in text.splitlines():
        if "candidate:" not in line:
            kept.append(line)
            continue
        found = CANDIDATE.search(line)
        if found is not None and not replaced and not found[3].startswith("127."):
            replaced = True
            from_face.peer = from_face.peer or (found[3], int(found[4]))
            prefix = line[: found.start()]
            kept.append(f"{prefix}candidate:{found[1]} 1 udp {found[2]} {found[3]} {to_face.port} typ host")
    return "\r\n".join(kept) + ("\r\n" if text.endswith("\n") else "")


if __name__ == "__main__":
    trio.run(Relay().main)
