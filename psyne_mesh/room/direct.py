"""One player to one player: `create_channel` and `create_gaming_channel`, over a room of two or inside a game room."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import trio

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import ClosedError, InvalidConfig, PeerGone, ProtocolError, WouldBlock
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.room.channel import Channel, SendReport
from psyne_mesh.room.codec import codec_for
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.events import PeerLeft
from psyne_mesh.room.mesh import DEFAULT_SIGNALING, join_game_room
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.transport import SignalingTransport
from psyne_mesh.uri import GameUri, PeerUri, RoomUri, parse_uri

M = TypeVar("M", bound=Message)
# One mode for everything, or one for each type (types left out are reliable).
Modes = DeliveryMode | str | Mapping[type[Message], DeliveryMode | str]


class PeerChannel:
    """Typed messages to and from one player. `send(message)`, `receive(Type)`; made by `create_channel`."""

    def __init__(self, room: Room, peer: Peer, types: tuple[type[Message], ...], mode: Modes) -> None:
        self.room = room
        self.peer = peer
        # Each type has its own channel, so that `receive(CombatAction)` never waits behind positions.
        self._channels: dict[type[Message] | None, Channel[Any]] = {}
        self._modes = mode if isinstance(mode, Mapping) else {}
        self._mode = "reliable" if isinstance(mode, Mapping) else mode
        self._left = trio.Event()
        for kind in (*types, *self._modes):
            self._channel(kind)
        room.on(PeerLeft, self._on_left)

    async def send(self, message: Any) -> SendReport:
        """Raises `PeerGone` when the player has left, and the errors of `Channel.send`."""
        kind = type(message) if isinstance(message, Message) else None
        return await self._channel(kind).send(message, to=self.peer)

    async def receive(self, kind: type[M] | None = None) -> Any:
        """The next message of that type from this player; without a type the next `bytes` or `str`.

        Cancelling loses nothing. Raises `PeerGone` once the player has left and everything it sent was read.
        """
        channel = self._channel(kind)
        await trio.lowlevel.checkpoint()
        while True:
            try:
                peer, message = channel.receive_nowait()
            except WouldBlock:
                if self._left.is_set():
                    raise PeerGone(f"{self.peer.name} has left") from None
                await self._news(channel)
                continue
            if peer == self.peer:
                return message

    async def wait_left(self) -> None:
        """Until the player has left."""
        await self._left.wait()

    async def _news(self, channel: Channel[Any]) -> None:
        """Until there is something to read, or the player has left. Nothing is taken in here: leaving the nursery may be
        cancelled."""
        async with trio.open_nursery() as nursery:

            async def until_left() -> None:
                await self._left.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_left)
            await channel.wait()
            nursery.cancel_scope.cancel()

    def _channel(self, kind: type[Message] | None) -> Channel[Any]:
        channel = self._channels.get(kind)
        if channel is None:
            if kind is None:
                channel = self.room.channel("direct", mode=self._mode)
            else:
                channel = self.room.channel(f"direct/{kind.__name__}", kind, mode=self._modes.get(kind, self._mode))
            self._channels[kind] = channel
        return channel

    def _on_left(self, event: PeerLeft) -> None:
        if event.peer == self.peer:
            self._left.set()


@asynccontextmanager
async def create_channel(
    uri: str,
    *types: type[Message],
    signaling: str | SignalingTransport = DEFAULT_SIGNALING,
    player_name: str | None = None,
    identity: Identity | None = None,
    mode: Modes = "reliable",
    config: WebRTCConfig | None = None,
) -> AsyncIterator[PeerChannel]:
    """A channel to one player, named by a URI; entering waits until it is open.

    `webrtc://NAME`: the player of that display name or peer id; both sides name each other, and `player_name` is ours.
    `webrtc://server[:port]/room`: whoever else enters that room, which holds two.
    `webrtc-game://NAME?room=R&region=E`: a player inside a game room.

    types: message types to be ready for from the start (others are made ready when first used).
    mode: how messages travel; a mapping gives each type its own, such as {PlayerPosition: "unreliable"}.
    There is no timeout argument: put it into `trio.fail_after`. Raises `InvalidUri` and the errors of `join_game_room`.
    """
    for kind, given in mode.items() if isinstance(mode, Mapping) else [(Message, mode)]:
        if not (isinstance(kind, type) and issubclass(kind, Message)):
            raise InvalidConfig(f"mode = {mode!r}: must be a delivery mode, or map message types to modes")
        DeliveryMode.parse(given)
    codec_for(types)
    target = parse_uri(uri)
    wanted: str | None = None  # whoever comes
    region: str | None = None
    match target:
        case PeerUri(peer=peer):
            if not player_name and identity is None:
                raise InvalidConfig("webrtc://NAME needs player_name= or identity=, so that the other can name us")
            me = player_name or (identity.peer_id if identity is not None else "")
            wanted, room_name, size = peer, _pair(me, peer), 2
        case RoomUri(room=room_name):
            signaling, size = target.signaling_url, 2
        case GameUri(peer=peer, room=room_name, region=region):
            wanted, size = peer, 16
    async with join_game_room(
        room_name, max_players=size, region=region, signaling=signaling, player_name=player_name, identity=identity,
        config=config,
    ) as room:  # fmt: skip
        yield PeerChannel(room, await _find(room, wanted), types, mode)


def create_gaming_channel(
    peer: str,
    room: str,
    signaling: str | SignalingTransport = DEFAULT_SIGNALING,
    *types: type[Message],
    region: str | None = None,
    player_name: str | None = None,
    identity: Identity | None = None,
    mode: Modes = "reliable",
    config: WebRTCConfig | None = None,
) -> Any:
    """`async with create_gaming_channel("player2", "combat-1", "ws://host:8080") as channel:` a player in a game room."""
    query = {"room": room} | ({"region": region} if region else {})
    uri = f"webrtc-game://{quote(peer, safe='')}?{urlencode(query)}"
    return create_channel(
        uri, *types, signaling=signaling, player_name=player_name, identity=identity, mode=mode, config=config
    )


def _pair(me: str, other: str) -> str:
    """The room where exactly these two meet, whoever comes first."""
    return "pair:" + " ".join(sorted((me, other)))


async def _find(room: Room, wanted: str | None) -> Peer:
    async for event in room.events():
        peer = getattr(event, "peer", None)
        if isinstance(peer, Peer) and peer.connected and (wanted is None or wanted == _called(peer, wanted)):
            return peer
    raise ClosedError(f"room {room.name!r} was left before {wanted or 'anybody'} came")


def _called(peer: Peer, wanted: str) -> str:
    """What must be `wanted`: anybody may take a peer id for a display name, but nobody has another's id."""
    try:
        PeerId.parse_untrusted(wanted)
    except ProtocolError:
        return peer.name
    return peer.id
