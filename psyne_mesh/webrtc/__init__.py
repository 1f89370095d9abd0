"""WebRTC data channels for Trio programs, without rooms and meshes: `open_endpoint`, `PeerConnection`, `DataChannel`.

    import trio
    from psyne_mesh.webrtc import open_endpoint

    async def main() -> None:
        async with (
            open_endpoint() as here,
            open_endpoint() as there,  # in real life on another machine
            here.open_peer(offerer=True) as alice,
            there.open_peer(offerer=False) as bob,
        ):
            chat = alice.create_channel()
            offer = await alice.create_offer()  # text, for any messenger
            answer = await bob.create_answer(offer)
            await alice.set_answer(answer)
            await chat.send("hello, Bob")
            async for channel in bob.incoming_channels:
                print(await channel.receive())
                break
            print(alice.path, alice.rtt)

    trio.run(main)

The names are looked up when they are first used, so that the pure parts (`sctp`, `dtls`, `stack`) can be imported where
there are no sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psyne_mesh.lazy import exports

if TYPE_CHECKING:
    from psyne_mesh.webrtc.data_channel import DataChannel
    from psyne_mesh.webrtc.endpoint import Endpoint, open_endpoint
    from psyne_mesh.webrtc.ice.events import Path
    from psyne_mesh.webrtc.ice.udp import SocketFactory
    from psyne_mesh.webrtc.peer import PeerConnection
    from psyne_mesh.webrtc.stack import Stack, StackConfig, StackEvent
    from psyne_mesh.webrtc.stats import PeerStats

__all__ = [
    "DataChannel", "Endpoint", "Path", "PeerConnection", "PeerStats", "SocketFactory", "Stack", "StackConfig", "StackEvent",
    "open_endpoint",
]  # fmt: skip

__getattr__, __dir__ = exports(
    __name__,
    {
        "webrtc.data_channel": "DataChannel",
        "webrtc.endpoint": "Endpoint open_endpoint",
        "webrtc.ice.events": "Path",
        "webrtc.ice.udp": "SocketFactory",
        "webrtc.peer": "PeerConnection",
        "webrtc.stack": "Stack StackConfig StackEvent",
        "webrtc.stats": "PeerStats",
    },
)
