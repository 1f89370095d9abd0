"""One player to one player: `create_channel` and `create_gaming_channel`, over a room of two or inside a game room."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

import attrs
import trio

from psyne_mesh.blocks import AsyncBlock
from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import ClosedError, InvalidConfig, InvalidUri, PeerGone, ProtocolError, WouldBlock
from psyne_mesh.gossip.records import NAME_MAX_BYTES
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.in_trio import check_in_trio
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.names import is_plain, normal
from psyne_mesh.room.channel import Channel, SendReport
from psyne_mesh.room.codec import codec_for
from psyne_mesh.room.delivery import DeliveryMode
from psyne_mesh.room.mesh import DEFAULT_SIGNALING, open_exact_room
from psyne_mesh.room.messages import Message
from psyne_mesh.room.options import entry_of
from psyne_mesh.room.peer import Peer
from psyne_mesh.room.room import Room
from psyne_mesh.signaling.registry import PAIR_PREFIX
from psyne_mesh.signaling.transport import SignalingTransport
from psyne_mesh.uri import GameUri, PeerUri, RoomUri, parse_uri

M = TypeVar("M", bound=Message)
# One mode for everything, or one for each type (types left out are reliable).
Modes = DeliveryMode | str | Mapping[type[Message], DeliveryMode | str]

_GAME_ROOM_PLAYERS = 16  # as `join_game_room` has it; the creator's number holds
_PAIR_PLAYERS = 8  # seats of a room for two: who guesses its name must not keep the right one out


@uninterrupted
class PeerChannel:
    """Typed messages to and from one player. `send(message)`, `receive(Type)`; made by `create_channel`.

    is_proved: the other is the one whose peer id was asked for. False: it was asked for by a display name, or was whoever
    came; then `peer.id` says who it is, and nothing says that it is the one you meant.
    """

    def __init__(
        self, room: Room, peer: Peer, types: tuple[type[Message], ...], mode: Modes, *, is_proved: bool = False
    ) -> None:
        self.room = room
        self.peer = peer
        self.is_proved = is_proved
        # Each type has its own channel, so that `receive(CombatAction)` never waits behind positions.
        self._channels: dict[type[Message] | None, Channel[Any]] = {}
        self._modes = mode if isinstance(mode, Mapping) else {}
        self._mode = "reliable" if isinstance(mode, Mapping) else mode
        for kind in (*types, *self._modes):
            self._channel(kind)

    async def send(self, message: Any) -> SendReport:
        """Raises `PeerGone` when the player has left, and the errors of `Channel.send`."""
        kind = type(message) if isinstance(message, Message) else None
        return await self._channel(kind).send(message, to=self.peer)

    async def receive(self, kind: type[M] | None = None) -> Any:
        """The next message of that type from this player; without a type the next `bytes` or `str`.

        Cancelling loses nothing. Raises `PeerGone` once the player has left and everything it sent was read, `ClosedError`
        once our own room has ended.
        """
        channel = self._channel(kind)
        await trio.lowlevel.checkpoint()
        while True:
            try:
                peer, message = channel.receive_nowait()
            except WouldBlock:
                if self.room.peers.get(self.peer.id) is not self.peer:  # who comes back is another `Peer`
                    raise PeerGone(f"{self.peer.name} has left") from None
                await self._news(channel)
                continue
            if peer == self.peer:
                return message

    async def wait_left(self) -> None:
        """Until the player has left. Raises `ClosedError` when our own room ends first."""
        await self.room.wait_left(self.peer)

    async def _news(self, channel: Channel[Any]) -> None:
        """Until there is something to read, or the player has left. Nothing is taken in here: leaving the nursery may be
        cancelled."""
        async with trio.open_nursery() as nursery:

            async def until_left() -> None:
                with suppress(ClosedError):  # then the channel has ended, too
                    await self.room.wait_left(self.peer)
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


def create_channel(
    uri: str,
    *types: type[Message],
    signaling: str | Sequence[str] | SignalingTransport = DEFAULT_SIGNALING,
    player_name: str | None = None,
    identity: Identity | None = None,
    peer_id: str | None = None,
    mode: Modes = "reliable",
    config: WebRTCConfig | None = None,
) -> AbstractAsyncContextManager[PeerChannel]:
    """A channel to one player, named by a URI; entering waits until it is open.

    `webrtc://NAME`: the player of that display name; the other names us by our `player_name`.
    `webrtc://PEER-ID`: the player of that id, whatever its display name; the other names us by the id of our `identity`.
    `webrtc://server[:port]/room`: whoever else enters that room, which holds two.
    `webrtc-game://NAME?room=R&region=E`: a player inside a game room, by display name or peer id.

    A display name proves nothing: whoever enters as bob is bob. `peer_id` demands the proof: the player of that id only,
    and others of its name are passed over (`PeerChannel.is_proved`). `webrtc://PEER-ID` demands it by itself.

    types: message types to be ready for from the start (others are made ready when first used).
    mode: how messages travel; a mapping gives each type its own, such as {PlayerPosition: "unreliable"}.
    There is no timeout argument: put it into `trio.fail_after`. Raises `InvalidUri`, also for a name that no other player
    can have, and the errors of `join_game_room`.
    """
    return AsyncBlock(
        "create_channel", _open(parse_uri(uri), types, signaling, player_name, identity, peer_id, mode, config)
    )


def create_gaming_channel(
    peer: str,
    room: str,
    signaling: str | Sequence[str] | SignalingTransport = DEFAULT_SIGNALING,
    *types: type[Message],
    region: str | None = None,
    player_name: str | None = None,
    identity: Identity | None = None,
    peer_id: str | None = None,
    mode: Modes = "reliable",
    config: WebRTCConfig | None = None,
) -> AbstractAsyncContextManager[PeerChannel]:
    """`async with create_gaming_channel("player2", "combat-1", "ws://host:8080") as channel:` a player in a game room, by
    display name or peer id. `peer_id` and errors: see `create_channel`."""
    for name, given in (("peer", peer), ("room", room)):
        if not isinstance(given, str) or not given:
            raise InvalidUri(f"{name} = {given!r}: must be the name of a {name}")
    target = GameUri(peer, room, region)
    return AsyncBlock(
        "create_gaming_channel", _open(target, types, signaling, player_name, identity, peer_id, mode, config)
    )


@asynccontextmanager
@uninterrupted
async def _open(
    target: PeerUri | RoomUri | GameUri,
    types: tuple[type[Message], ...],
    signaling: str | Sequence[str] | SignalingTransport,
    player_name: str | None,
    identity: Identity | None,
    peer_id: str | None,
    mode: Modes,
    config: WebRTCConfig | None,
) -> AsyncIterator[PeerChannel]:
    check_in_trio()
    for kind, given in mode.items() if isinstance(mode, Mapping) else [(Message, mode)]:
        if not (isinstance(kind, type) and issubclass(kind, Message)):
            raise InvalidConfig(f"mode = {mode!r}: must be a delivery mode, or map message types to modes")
        DeliveryMode.parse(given)
    codec_for(types)
    place = _meeting_place(target, player_name, identity)
    proof = _proof(place.wanted, peer_id)
    if isinstance(target, RoomUri):
        signaling = target.signaling_url
    entry = entry_of(place.room, max_players=place.players, region=place.region, player_name=player_name)
    async with open_exact_room(entry, signaling, {"identity": identity, "config": config}) as room:
        peer = await _find(room, place.wanted, proof)
        yield PeerChannel(room, peer, types, mode, is_proved=proof is not None)


@attrs.frozen
class _MeetingPlace:
    """The room where we look for `wanted`, or for whoever comes."""

    room: str
    players: int
    wanted: str | None
    region: str | None = None


def _meeting_place(
    target: PeerUri | RoomUri | GameUri, player_name: str | None, identity: Identity | None
) -> _MeetingPlace:
    for name, given, kind in (("player_name", player_name, str), ("identity", identity, Identity)):
        if given is not None and not isinstance(given, kind):
            raise InvalidConfig(f"{name} = {given!r}: must be {kind.__name__}")
    match target:
        case RoomUri(room=room):
            return _MeetingPlace(room, 2, None)
        case GameUri(peer=peer, room=room, region=region):
            return _MeetingPlace(room, _GAME_ROOM_PLAYERS, _wanted(peer, identity), region)
    wanted = _wanted(target.peer, identity)
    return _MeetingPlace(_pair(_named_alike(wanted, player_name, identity), wanted), _PAIR_PLAYERS, wanted)


def _wanted(peer: str, identity: Identity | None) -> str:
    """Whom the caller asks for, in the form in which names are compared. Our own display name is no mistake: another may
    have it, too."""
    wanted = normal(peer)
    if not is_plain(peer) or not 1 <= len(peer.encode()) <= NAME_MAX_BYTES:
        raise InvalidUri(
            f"no player can be named {peer!r}: a name has 1 to {NAME_MAX_BYTES} bytes of UTF-8, without controls and marks "
            "that turn text round"
        )
    if identity is not None and wanted == identity.peer_id:
        raise InvalidUri(f"{peer!r} is our own peer id: nobody else can have it")
    return wanted


def _named_alike(wanted: str, player_name: str | None, identity: Identity | None) -> str:
    """How the other names us. Neither can know, so both go by what they use themselves: peer ids, or display names."""
    if _is_peer_id(wanted):
        if identity is None:
            raise InvalidConfig("webrtc://PEER-ID needs identity=, so that the other can name us by our peer id")
        return identity.peer_id
    name = normal(player_name or "")
    if not name or not is_plain(name) or _is_peer_id(name):
        raise InvalidConfig("webrtc://NAME needs player_name= (no peer id), so that the other can name us by it")
    return name


def _pair(me: str, other: str) -> str:
    """The room where exactly these two meet, whoever comes first. A server and who sees its lists learn no names from it."""
    names = sorted(name.encode() for name in (me, other))
    sized = b"".join(len(name).to_bytes(2, "big") + name for name in names)
    return PAIR_PREFIX + hashlib.sha256(b"psyne-pair" + sized).hexdigest()


def _proof(wanted: str | None, peer_id: str | None) -> PeerId | None:
    """The id that the other must prove to have, if the caller demands one."""
    if peer_id is None:
        return PeerId(wanted) if wanted is not None and _is_peer_id(wanted) else None
    if not isinstance(peer_id, str) or not _is_peer_id(peer_id):
        raise InvalidConfig(f"peer_id = {peer_id!r}: must be a peer id, 32 hexadecimal digits")
    if wanted is not None and _is_peer_id(wanted) and wanted != peer_id:
        raise InvalidConfig(f"peer_id = {peer_id}: the URI names another, {wanted}")
    return PeerId(peer_id)


async def _find(room: Room, wanted: str | None, proof: PeerId | None = None) -> Peer:
    async for event in room.events():
        peer = getattr(event, "peer", None)
        if (
            isinstance(peer, Peer)
            and peer.connected
            and (wanted is None or wanted == _called(peer, wanted))
            and (proof is None or peer.id == proof)
        ):
            return peer
    raise ClosedError(f"room {room.name!r} was left before {wanted or 'anybody'} came")


def _called(peer: Peer, wanted: str) -> str:
    """What must be `wanted`: anybody may take a peer id for a display name, but nobody has another's id."""
    return peer.id if _is_peer_id(wanted) else normal(peer.name)


def _is_peer_id(name: str) -> bool:
    try:
        PeerId.parse_untrusted(name)
    except ProtocolError:
        return False
    return True
