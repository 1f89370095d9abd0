"""A program that does nothing but enter a room: `python -m benchmarks.newcomer URL ROOM` waits there for one greeting.

It prints one JSON object: {join_ns, at_ns, cpu_ns}, the length of the join, the moment at which the greeting was there
(CLOCK_MONOTONIC), and the CPU time of the whole process until then.
"""

import json
import sys
import time

import trio

from psyne_mesh import join_game_room


async def main(url: str, name: str) -> None:
    began = time.monotonic_ns()
    async with join_game_room(name, signaling=url) as room:
        await room.channel("greeting", mode="reliable").receive()
        at, cpu = time.monotonic_ns(), time.process_time_ns()
    print(json.dumps({"join_ns": at - began, "at_ns": at, "cpu_ns": cpu}))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
