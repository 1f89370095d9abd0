"""Two WebRTC peers in one Trio program: offer, answer, a channel, a message each way.

python examples/peer_connection.py
"""

from __future__ import annotations

import trio

from psyne_mesh.webrtc import open_endpoint


async def main() -> None:
    async with (
        open_endpoint() as here,
        open_endpoint() as there,  # in real life on another machine
        here.open_peer(offerer=True, name="bob") as alice,
        there.open_peer(offerer=False, name="alice") as bob,
    ):
        chat = alice.create_channel()
        offer = await alice.create_offer()  # text: send it by any messenger
        answer = await bob.create_answer(offer)
        await alice.set_answer(answer)

        await chat.send("hello, Bob")
        async for channel in bob.incoming_channels:
            print("Bob got:", await channel.receive())
            await channel.send("hello, Alice")
            break
        print("Alice got:", await chat.receive())
        print("over:", alice.path)
        print("set up in:", {phase: f"{took_s * 1e3:.1f} ms" for phase, took_s in alice.stats().phase_s.items()})


if __name__ == "__main__":
    trio.run(main)
