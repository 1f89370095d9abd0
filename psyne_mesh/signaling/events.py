"""What a signaling transport tells the mesh: who is in a room, and what happened since. Frozen values, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from psyne_mesh.errors import ProtocolError, RemoteError, RoomError, SignalingError
from psyne_mesh.frozen import Frozen
from psyne_mesh.identity import PeerId
from psyne_mesh.names import normal
from psyne_mesh.signaling.manifest import CODE_PATTERN, Manifest, Policy

SkillRange = tuple[float, float]
_INSTANCE = re.compile(rf"#{CODE_PATTERN}\Z")


def room_key(name: str, *, app_id: str = "", region: str = "", instance: str = "") -> str:
    """The one text that names a room everywhere: `app_id/region/name`, in its normal form. Only `name` may hold a slash.
    Further instances of a lobby have their code behind it: `app_id/region/name#K7QM3FHT`."""
    return normal(f"{app_id}/{region}/{name}") + (f"#{instance}" if instance else "")


def lobby_of(key: str) -> str:
    """What the instances of a lobby share: application and name. Any text will do."""
    app_id, _, rest = key.partition("/")
    return f"{app_id}/{_INSTANCE.sub('', rest.partition('/')[2])}"


def is_lobby_name(name: str) -> bool:
    """Whether a room may be called so: not what ends like an instance of another."""
    return _INSTANCE.search(name) is None


def split_room_key_untrusted(key: str) -> tuple[str, str, str]:
    """`(app_id, region, name)` of a key, or `ProtocolError`."""
    parts = key.split("/", 2)
    if len(parts) != 3 or not parts[2]:
        raise ProtocolError(f"{key[:80]!r} is not a room key: app_id/region/name")
    return parts[0], parts[1], parts[2]


class PeerInfo(Frozen):
    """One member of a room. `record` is the opaque text it joined with; `index` grows with each arrival in the room,
    so that of two members the older one has the smaller index."""

    peer_id: PeerId
    record: str
    index: int


@attrs.frozen
class RoomInfo:
    """One line of a room list. `state` is "waiting" below two players and "active" from two on. `instance`: "" for the
    first of its lobby and region, else its code."""

    room: str
    name: str
    app_id: str
    region: str
    players: int
    max_players: int
    skill_range: SkillRange | None
    state: str
    metadata: Mapping[str, object]
    instance: str = ""
    manifest: Manifest = attrs.field(factory=Manifest)

    @property
    def code(self) -> str:
        """By which `join_room` finds it; "" if it has none."""
        return self.manifest.code

    @property
    def policy(self) -> Policy:
        return self.manifest.policy


class RoomListing(Frozen):
    """The rooms that matched. `truncated`: there were more than the limit."""

    rooms: tuple[RoomInfo, ...]
    truncated: bool


class Joined(Frozen):
    """We are in the room. `info` holds the room's properties as its creator set them, which may differ from what we
    asked for; `peers` are the others, oldest first, without us; `index` is our own place in the order of arrival.
    Of a room with more than 256 players `peers` is a sample, and later events concern a sample: gossip knows the rest."""

    info: RoomInfo
    peers: tuple[PeerInfo, ...]
    created: bool
    index: int

    @property
    def room(self) -> str:
        """The key by which events, `leave` and `send_signal` name this room."""
        return self.info.room


# -------------------------------------------------------------------------------------------------------------- events


class PeerJoined(Frozen):
    """A peer entered a room that we joined. `rejoined`: it was there before and came back within the seat's hold time
    (a crash and restart, or its signaling connection was renewed); a `PeerLeft` came before."""

    room: str
    peer: PeerInfo
    rejoined: bool = False


class PeerLeft(Frozen):
    """A peer's place in the room list is gone. After `PeerJoined` or a list that named it, exactly once.

    reason: "left" said goodbye; "lost" its connection broke; "timeout" it fell silent; "superseded" the same identity
    connected anew; "dropped" the server closed it for slowness or abuse. All but "left" say nothing about the peer
    itself: a standing link to it may be in perfect health. `record`: the goodbye that the peer left, in base64, or
    nothing; the server passes it on unread.
    """

    room: str
    peer_id: PeerId
    reason: str
    record: str = ""


class SignalReceived(Frozen):
    """A sealed envelope for us. `sender` is what the server claims; only `envelope.open_untrusted` proves it."""

    sender: PeerId
    room: str
    envelope: str


class SignalRefused(Frozen):
    """The server did not pass on a `send_signal` of ours: the peer is not there (`PeerGone`), or we sent too much."""

    to: PeerId | None
    room: str | None
    error: RemoteError


class Lost(Frozen):
    """The connection to the signaling server is gone, not rooms and links. `retrying`: a `Restored` follows when the
    server is back; else another process has taken this identity, and the client has given up for good."""

    cause: SignalingError
    retrying: bool = True


class Restored(Frozen):
    """Connected again, after a `Lost`. `rooms` are the full present lists: compare them with what you knew.
    `refused` are rooms that would not have us back, with the reason; we are no longer in those."""

    rooms: tuple[Joined, ...]
    refused: tuple[tuple[str, RoomError | SignalingError], ...] = ()


SignalingEvent = PeerJoined | PeerLeft | SignalReceived | SignalRefused | Lost | Restored
