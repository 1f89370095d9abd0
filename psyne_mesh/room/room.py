"""A room: the players in it, what happens to them, and the channels between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, TypeVar, cast, overload

import trio

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore
from psyne_mesh.mesh.membership import CHANNEL_NAME_BYTES_MAX, Membership
from psyne_mesh.mesh.request import RoomEntry
from psyne_mesh.names import plain
from psyne_mesh.room.channel import INBOX_MAX, Channel, is_channel_name
from psyne_mesh.room.codec import codec_for
from psyne_mesh.room.delivery import RELIABLE_ORDERED, DeliveryMode
from psyne_mesh.room.gaming import GameRoom
from psyne_mesh.room.inside import Inside
from psyne_mesh.room.listening import Listening
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Me, Peer, Player
from psyne_mesh.room.topology import MeshMode, RoomTopology, TopologyLink
from psyne_mesh.signaling.events import RoomInfo
from psyne_mesh.signaling.joining import RoomQuery
from psyne_mesh.signaling.manifest import shown_code

M = TypeVar("M", bound=Message)
C = TypeVar("C", bound=Callable[..., Any])

CHANNELS_MAX = 256
INVITE_LIFETIME_S = 3600.0  # an evening's first hour: who comes later asks again; a guess
NORMAL_PRIORITY = 256  # RFC 8831 section 6.4


@uninterrupted
class Room(Listening, GameRoom):
    """Made by `join_game_room`. Everything about other players arrives as events; messages arrive in channels.

    Events reach any number of subscribers, in order, each fact once. A subscriber that comes late is first told of the
    players already there.
    """

    def __init__(self, entry: RoomEntry, core: MeshCore, rng: Random) -> None:
        self._inside = Inside(entry, core)
        self._hub = self._inside.hub
        self.me = Me(core.me)
        # Ourselves, as the owner of what we share.
        self.player = Player(core.me, plain(entry.player_name) or core.me.short)
        super().__init__(core, self._inside, rng, entry.gossip.seat_hold_s)

    @property
    def name(self) -> str:
        """As its creator wrote it."""
        return self._inside.name

    @property
    def region(self) -> str:
        """Of the room, as its creator said."""
        return self._inside.region

    @property
    def max_players(self) -> int:
        return self._inside.max_players

    @property
    def skill_range(self) -> tuple[float, float] | None:
        """Of the players for whom the room is meant; None: for all."""
        return self._inside.skill_range

    # -------------------------------------------------------------------------------------------------------- players

    @property
    def peers(self) -> Mapping[PeerId, Peer]:
        """The other players, by id, in the order in which they were discovered. Always up to date; once the room has ended,
        those who were here last."""
        return self._inside.peers

    @property
    def connected(self) -> list[Peer]:
        """The players to whom channels are open; nobody once the room has ended."""
        return [peer for peer in self._inside.players.values() if peer.connected]

    async def wait_connected(self, players: int | None = None) -> None:
        """Wait until so many other players can be reached; without a number, until all who are known can be. Reached is who
        is connected, or gets what we send through others (`peer.relayed`): in rooms above 16 that is most of them.

        There is no timeout argument: put it into `trio.fail_after`. Raises `ClosedError` when the room is left meanwhile, and
        `InvalidConfig` for more players than the room has seats for beside ours.
        """
        if players is not None and (not isinstance(players, int) or not 0 <= players < self.max_players):
            others = f"other players, of whom this room seats {self.max_players - 1}"
            raise InvalidConfig(f"wait_connected({players!r}): must be a number of {others}")
        await trio.lowlevel.checkpoint()
        while True:
            self._joined()
            reached = sum(peer.connected or peer.relayed for peer in self._inside.players.values())
            if reached >= (len(self._inside.players) if players is None else players):
                return
            await self._inside.changed.park()

    async def wait_left(self, peer: Peer) -> None:
        """Until the player has left; who comes back is another `Peer`. Raises `ClosedError` when our own room ends first."""
        if not isinstance(peer, Peer):
            raise InvalidConfig(f"wait_left({peer!r}): must be a Peer")
        await trio.lowlevel.checkpoint()
        while self._inside.players.get(peer.id) is peer:
            if self._inside.ended:
                raise self._inside.over()
            await self._inside.changed.park()

    def topology(self) -> RoomTopology:
        """What this player sees of the mesh: its own links with their round trips and paths, and who else is there."""
        seen = self._joined().topology()
        links = tuple(
            TopologyLink(view.peer, None if view.srtt is None else view.srtt * 1000, self._joined().path(view.peer))
            for view in seen.links
        )
        return RoomTopology(self.me, cast(MeshMode, seen.mode), (self.me, *self._inside.players), links)

    async def rooms(self) -> tuple[RoomInfo, ...]:
        """The rooms of the same `app_id` that our signaling server knows, up to a hundred; while it is out of reach those that
        the others here know. `SignalingLost` where nobody else is here, and `ClosedError` once the room was left."""
        self._joined()
        return (await self._core.list_rooms(RoomQuery(app_id=self.info.app_id))).rooms

    @property
    def info(self) -> RoomInfo:
        """The room as its creator signed it: policy, version, metadata. `players` are those who were here when we came."""
        assert self._inside.membership is not None
        return self._inside.membership.info

    @property
    def code(self) -> str:
        """By which friends enter this very instance: `join_room("K7QM-3FHT")`."""
        return shown_code(self.info.code)

    def invite(self, lifetime_s: float = INVITE_LIFETIME_S) -> str:
        """Of a room with `policy="invite"` that we made: a text for a friend, who enters with `join_room(text)` until it
        ends. `InvalidConfig` for other rooms."""
        return self._core.stays.invite(self._joined(), lifetime_s)

    # ------------------------------------------------------------------------------------------------------- channels

    @overload
    def channel(
        self, name: str, kind: type[M], /, *, mode: DeliveryMode | str | None = ..., priority: int | None = ...,
        inbox_max: int | None = ...,
    ) -> Channel[M]: ...  # fmt: skip
    @overload
    def channel(
        self, name: str, /, *kinds: type[Message], mode: DeliveryMode | str | None = ..., priority: int | None = ...,
        inbox_max: int | None = ...,
    ) -> Channel[Any]: ...  # fmt: skip
    def channel(
        self, name: str, /, *kinds: type[Message], mode: DeliveryMode | str | None = None, priority: int | None = None,
        inbox_max: int | None = None,
    ) -> Channel[Any]:  # fmt: skip
        """The broadcast channel of that name; the same object when asked again. What is asked for then must be what it is, and
        what is left out is as it is.

        kinds: the message types it carries; with none it carries `bytes` and `str`.
        mode: how our own messages travel (see `DeliveryMode`), "reliable" if left out; each sender chooses for itself.
        priority: the weight of our messages against other channels of the same link (RFC 8831 section 6.4; 256 is normal).
        inbox_max: messages that wait here to be read before the oldest is dropped (unreliable modes only).
        """
        membership, inside = self._joined(), self._inside
        if not is_channel_name(name):
            raise InvalidConfig(f"a channel name has 1 to {CHANNEL_NAME_BYTES_MAX} bytes of UTF-8, not {name!r}")
        wanted = None if mode is None else DeliveryMode.parse(mode)
        if (channel := inside.channels.get(name)) is not None:
            return channel.asked_again(kinds, wanted, priority, inbox_max)
        inbox_max = INBOX_MAX if inbox_max is None else inbox_max
        if len(inside.channels) >= CHANNELS_MAX:
            raise InvalidConfig(f"a room has at most {CHANNELS_MAX} channels")
        if not isinstance(inbox_max, int) or inbox_max < 1:
            raise InvalidConfig(f"inbox_max = {inbox_max!r}: must be a number of messages, at least 1")
        mode, priority = wanted or RELIABLE_ORDERED, NORMAL_PRIORITY if priority is None else priority
        codec = codec_for(kinds)
        channel = Channel(
            membership, inside.players, inside.silent, inside.losses, name, codec, mode, priority, inbox_max,
            self._hub.fail, self._hub.publish, inside.waiting, self._parts.fairness.referee(name, codec, mode),
            self._parts.audience.overhear if self._parts.audience.is_open else None,
        )  # fmt: skip
        inside.declared(channel)
        return channel

    async def leave(self) -> None:
        """Say goodbye, behind what was sent reliably so far; the others see it at once. Then channels and iterators end, and
        calls raise `ClosedError`. Leaving the block does the same. Cancelled before the goodbye, the room goes on."""
        self._joined()
        await self._core.stays.leave(self._joined())

    def __repr__(self) -> str:
        return f"<Room {self.name!r} {len(self.connected)} of {len(self._inside.players)} others connected>"

    def _joined(self) -> Membership:
        membership = self._inside.membership
        if membership is None or membership.closed:
            raise self._inside.over()
        return membership


@uninterrupted
def inside(room: Room) -> Inside:
    """What is behind the door, for other doors."""
    return room._inside
