"""Two players fight: 60 positions a second that may get lost, combat actions that may not. In two terminals:

python examples/p2p_demo.py player1
python examples/p2p_demo.py player2
"""

import argparse
import random
import time
from contextlib import AsyncExitStack

import trio

from psyne_mesh import CombatAction, PlayerPosition, create_gaming_channel
from psyne_mesh.errors import PeerGone
from psyne_mesh.room import Action
from psyne_mesh.signaling import open_server

MODES = {PlayerPosition: "unreliable", CombatAction: "reliable"}


async def main(me: str, seconds: float, signaling: str | None) -> None:
    other = "player2" if me == "player1" else "player1"
    async with AsyncExitStack() as stack:
        if signaling is None:
            signaling = "ws://127.0.0.1:8080"
            try:
                await stack.enter_async_context(open_server("127.0.0.1", 8080))
            except OSError:
                print(f"{me}: using the signaling server that is there")
        print(f"{me}: waiting for {other} in room combat-1")
        channel = await stack.enter_async_context(
            create_gaming_channel(other, "combat-1", signaling, region="us-west", player_name=me, mode=MODES)
        )
        print(f"{me}: fighting {other} over {channel.peer.path}")
        score = {"positions": 0, "hits": 0, "health": 100.0}

        async def move() -> None:
            for sequence in range(1, int(seconds * 60) + 1):
                await channel.send(PlayerPosition(sequence, time.monotonic_ns(), x=random.uniform(-50, 50)))
                await trio.sleep(1 / 60)

        async def attack() -> None:
            for sequence in range(1, int(seconds) + 1):
                await channel.send(
                    CombatAction(sequence, time.monotonic_ns(), Action.ATTACK, damage=random.uniform(10, 30))
                )
                await trio.sleep(1)

        async def watch() -> None:
            while True:
                await channel.receive(PlayerPosition)
                score["positions"] += 1

        async def suffer() -> None:
            while True:
                hit = await channel.receive(CombatAction)
                score["hits"] += 1
                score["health"] = 100.0 if score["health"] <= hit.damage else score["health"] - hit.damage
                print(f"{me}: hit for {hit.damage:.0f}, health {score['health']:.0f}")

        try:
            with trio.move_on_after(seconds + 0.5):
                async with trio.open_nursery() as nursery:
                    for task in (move, attack, watch, suffer):
                        nursery.start_soon(task)
        except* PeerGone:
            print(f"{me}: {other} has left")
        rtt = f", RTT {channel.peer.rtt_ms:.2f} ms" if channel.peer.rtt_ms else ""
        print(f"{me}: saw {score['positions']} positions, took {score['hits']} hits{rtt}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("player", choices=["player1", "player2"])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--signaling", help="URL of a running server")
    arguments = parser.parse_args()
    trio.run(main, arguments.player, arguments.seconds, arguments.signaling)
