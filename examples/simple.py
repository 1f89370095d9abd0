"""Two players, one typed channel. In two terminals:

    python examples/simple.py offerer
    python examples/simple.py answerer

Whoever starts first also runs the signaling server; `--signaling ws://host:port` uses one that is already there.
"""

import argparse
from contextlib import AsyncExitStack

import trio

from psyne_mesh import create_channel
from psyne_mesh.room import FloatVector
from psyne_mesh.signaling import open_server

ROUNDS = 5


async def main(role: str, signaling: str | None) -> None:
    other = "answerer" if role == "offerer" else "offerer"
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            if signaling is None:
                signaling = "ws://127.0.0.1:8080"
                try:
                    await stack.enter_async_context(open_server("127.0.0.1", 8080))
                    print(f"{role}: running the signaling server, waiting for the {other}")
                except OSError:
                    print(f"{role}: using the signaling server that is there")
            channel = await stack.enter_async_context(
                create_channel(f"webrtc://{other}", FloatVector, signaling=signaling, player_name=role)
            )
            print(f"{role}: connected to {channel.peer.name} over {channel.peer.path}")
            for number in range(ROUNDS):
                if role == "offerer":
                    sent = FloatVector(tuple(number + i / 10 for i in range(10)))
                    await channel.send(sent)
                    echoed = await channel.receive(FloatVector)
                    print(
                        f"offerer: {echoed.values[0]:.1f}... came back {'unchanged' if echoed == sent else 'CHANGED'}"
                    )
                else:
                    await channel.send(await channel.receive(FloatVector))
            print(f"{role}: done")
            if role == "answerer":  # the offerer leaves first, so that the last echo arrives
                await channel.wait_left()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=["offerer", "answerer"])
    parser.add_argument("--signaling", help="URL of a running server")
    arguments = parser.parse_args()
    trio.run(main, arguments.role, arguments.signaling)
