"""What can be said about a room and about the mesh under it: one list each, which both front doors take."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, Unpack, cast

import attrs
import msgspec

from psyne_mesh.config import WebRTCConfig
from psyne_mesh.errors import InvalidConfig
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.identity import Identity
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.mesh.request import Anew, Anywhere, ByCode, RoomEntry
from psyne_mesh.names import is_plain
from psyne_mesh.signaling.events import is_lobby_name
from psyne_mesh.signaling.joining import JoinRequest
from psyne_mesh.signaling.locks import Invite, check_password, is_invite
from psyne_mesh.signaling.manifest import SPECTATORS_MAX, Manifest, Policy, code_of
from psyne_mesh.signaling.messages import MAX_MATCH_PLAYERS
from psyne_mesh.webrtc.ice import SocketFactory

SkillRange = tuple[float, float]
# In larger ones players depend on others for each other's words; whoever wants that watched finds no measure of it here.
WATCHED_PLAYERS_MAX = 16


@attrs.frozen
class Party:
    """Friends who enter together: all of them name the same party, and nobody enters before `size` of them are here.

    name: any text that others do not guess, such as one that the first of them sent to the rest.
    """

    name: str
    size: int

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= 128 or not is_plain(self.name):
            raise InvalidConfig(
                "a party's name is 1 to 128 characters, without controls and marks that turn text round"
            )
        if not isinstance(self.size, int) or not 2 <= self.size <= MAX_MATCH_PLAYERS:
            raise InvalidConfig(f"Party(size={self.size!r}): must lie in [2, {MAX_MATCH_PLAYERS}]")


class PlayerOptions(TypedDict, total=False):
    """Of ourselves in a room.

    player_name: what others see; the peer id's beginning without one. metadata: up to about 400 bytes of text about us.
    app_id, app_version: only players of the same game and version meet.
    """

    player_name: str | None
    metadata: Mapping[str, str] | None
    app_id: str
    app_version: str
    gossip: GossipConfig | None


class LobbyOptions(PlayerOptions, total=False):
    """Of a room that may be new. region, skill_range: (low, high), where it is and for whom; room_metadata: about it, its
    creator's holds. spectators: so many may watch, 0 if nothing is said; rooms of up to 16 players can be watched."""

    region: str | None
    skill_range: SkillRange | None
    room_metadata: Mapping[str, str] | None
    spectators: int


class MatchOptions(LobbyOptions, total=False):
    """Of one room among several. party: friends who enter with us. region_rtt_ms: our measured round trips to other regions;
    near ones will do when our own has no place."""

    party: Party | None
    region_rtt_ms: Mapping[str, float] | None


class RoomOptions(MatchOptions, total=False):
    """Of `join_game_room`. max_players: the size of the room, 2 to 1024, 16 if nothing is said; its creator's value holds.
    create: None joins or creates; True insists on a new room, False on one that exists."""

    max_players: int
    create: bool | None


class CreateOptions(LobbyOptions, total=False):
    """Of `create_room`. policy: "open", "code" (in no list), "password", "invite". visible: False keeps an open room or one
    with a password out of lists."""

    max_players: int
    policy: Policy | None
    password: str | None
    visible: bool | None


class CodeOptions(PlayerOptions, total=False):
    """Of `join_room`."""

    password: str | None


class MeshOptions(TypedDict, total=False):
    """Of the mesh under the rooms: see `open_mesh`."""

    identity: Identity | None
    config: WebRTCConfig | None
    rng: random.Random | None
    sockets: SocketFactory | None
    wall_ms: Callable[[], int] | None


class JoinOptions(RoomOptions, MeshOptions, total=False):
    """Of `join_game_room`, with a mesh of its own."""


class CreateJoinOptions(CreateOptions, MeshOptions, total=False):
    """Of `create_room`, with a mesh of its own."""


class CodeJoinOptions(CodeOptions, MeshOptions, total=False):
    """Of `join_room`, with a mesh of its own."""


class MatchJoinOptions(MatchOptions, MeshOptions, total=False):
    """Of `quick_match`, with a mesh of its own."""


def lobby_entry(
    name: str, default_name: str | None = None, *, create: bool | None = None, party: Party | None = None,
    region_rtt_ms: Mapping[str, float] | None = None, max_players: int = 16, **options: Unpack[LobbyOptions],
) -> RoomEntry:  # fmt: skip
    """Of `join_game_room`. What is wrong raises `InvalidConfig`, before anything is opened; so with the others here."""
    entry = entry_of(name, default_name, max_players=max_players, **options)
    if create is True:
        if party is not None:
            raise InvalidConfig("a party enters together, and one of it alone can make a room: create=None")
        return attrs.evolve(entry, request=attrs.evolve(entry.request, create="only"))
    which = _anywhere(0, party, region_rtt_ms)
    request = attrs.evolve(entry.request, create="or" if create is None else "never")
    if party is not None and party.size > request.max_players:
        raise InvalidConfig(f"a party of {party.size} does not fit into a room of max_players = {request.max_players}")
    return attrs.evolve(entry, request=request, which=which)


def match_entry(
    name: str, players: int, default_name: str | None = None, *, party: Party | None = None,
    region_rtt_ms: Mapping[str, float] | None = None, **options: Unpack[LobbyOptions],
) -> RoomEntry:  # fmt: skip
    """Of `quick_match`."""
    if not isinstance(players, int) or not 2 <= players <= MAX_MATCH_PLAYERS:
        raise InvalidConfig(f"players = {players!r}: must lie in [2, {MAX_MATCH_PLAYERS}]")
    which = _anywhere(players, party, region_rtt_ms)
    if party is not None and party.size > players:
        raise InvalidConfig(f"a party of {party.size} does not fit into a match of {players} players")
    return attrs.evolve(entry_of(name, default_name, max_players=players, **options), which=which)


def new_entry(
    name: str, default_name: str | None = None, *, policy: Policy | None = None, password: str | None = None,
    visible: bool | None = None, max_players: int = 16, **options: Unpack[LobbyOptions],
) -> RoomEntry:  # fmt: skip
    """Of `create_room`."""
    if policy not in (None, "open", "code", "password", "invite"):
        raise InvalidConfig(f"policy = {policy!r}: must be open, code, password or invite")
    if (policy == "password" and password is None) or (policy not in (None, "password") and password is not None):
        raise InvalidConfig('policy="password" and password= belong together; a password alone says both')
    policy = policy or ("open" if password is None else "password")
    if visible and policy in ("code", "invite"):
        raise InvalidConfig(f"policy={policy!r} keeps a room out of lists; visible=True contradicts it")
    shown = policy not in ("code", "invite") if visible is None else visible
    check_password(password)
    entry = entry_of(name, default_name, max_players=max_players, **options)
    manifest = msgspec.structs.replace(entry.request.manifest, policy=policy, visible=shown)
    request = attrs.evolve(entry.request, create="only", manifest=manifest)
    return attrs.evolve(entry, request=request, which=Anew(password, policy == "invite"))


def code_entry(
    code: str, default_name: str | None = None, *, password: str | None = None, **options: Unpack[PlayerOptions]
) -> RoomEntry:
    """Of `join_room`: a code or an invitation."""
    check_password(password)
    if not isinstance(code, str):
        raise InvalidConfig(f"code = {code!r}: must be the code of a room, such as K7QM-3FHT, or an invitation")
    which = Invite.parse_untrusted(code) if is_invite(code) else ByCode(code_of(code), password)
    return attrs.evolve(entry_of("room", default_name, **options), which=which)  # its true name is found by the code


def entry_of(
    name: str,
    default_name: str | None = None,
    *,
    max_players: int = 16,
    region: str | None = None,
    skill_range: SkillRange | None = None,
    app_id: str = "",
    app_version: str = "",
    player_name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    room_metadata: Mapping[str, str] | None = None,
    spectators: int = 0,
    gossip: GossipConfig | None = None,
) -> RoomEntry:
    """Of exactly the room of that name."""
    if not isinstance(name, str) or not 1 <= len(name) <= 128 or not is_plain(name):
        raise InvalidConfig("a room name is 1 to 128 characters, without controls and marks that turn text round")
    if not is_lobby_name(name):
        raise InvalidConfig(f"{name!r} ends like the code of an instance; enter that by join_room(code)")
    for label, text in (("region", region or ""), ("app_id", app_id), ("app_version", app_version)):
        if not isinstance(text, str) or len(text) > 64 or "/" in text or not is_plain(text):
            raise InvalidConfig(
                f"{label} is at most 64 characters, without slashes, controls and marks that turn text round"
            )
    if not isinstance(max_players, int) or not 2 <= max_players <= 1024:
        raise InvalidConfig(f"max_players = {max_players!r}: must lie in [2, 1024]")
    if skill_range is not None and not _is_band(skill_range):
        raise InvalidConfig(f"skill_range = {skill_range!r}: must be (low, high)")
    if room_metadata is not None and not isinstance(room_metadata, Mapping):
        raise InvalidConfig(f"room_metadata = {room_metadata!r}: must be a mapping of names to values")
    if not isinstance(spectators, int) or not 0 <= spectators <= SPECTATORS_MAX:
        raise InvalidConfig(f"spectators = {spectators!r}: must lie in [0, {SPECTATORS_MAX}]")
    if spectators and max_players > WATCHED_PLAYERS_MAX:
        raise InvalidConfig(
            f"spectators = {spectators!r}: a room of max_players = {max_players} cannot be watched, "
            f"one of up to {WATCHED_PLAYERS_MAX} can"
        )
    if gossip is not None and not isinstance(gossip, GossipConfig):
        raise InvalidConfig(f"gossip = {gossip!r}: must be a GossipConfig")
    shown = player_name or default_name or ""
    if not isinstance(shown, str) or not is_plain(shown):
        raise InvalidConfig(f"player_name = {shown!r}: must be text without controls and marks that turn it round")
    request = JoinRequest(
        name, app_id=app_id, region=region or "", max_players=max_players, skill_range=skill_range,
        metadata=dict(room_metadata or {}), manifest=Manifest(app_version=app_version, spectators=spectators),
    )  # fmt: skip
    profile = Profile.make(region, skill_range, metadata)
    return RoomEntry(request, shown, profile, gossip or GossipConfig(max_players=max_players))


def _anywhere(players: int, party: Party | None, rtt_ms: Mapping[str, float] | None) -> Anywhere:
    if party is not None and not isinstance(party, Party):
        raise InvalidConfig(f"party = {party!r}: must be a Party(name, size)")
    if rtt_ms is not None and not (
        isinstance(rtt_ms, Mapping)
        and all(
            isinstance(region, str) and isinstance(ms, int | float) and 0 <= ms < 1e6 for region, ms in rtt_ms.items()
        )
    ):
        raise InvalidConfig(f"region_rtt_ms = {rtt_ms!r}: must map regions to milliseconds")
    return Anywhere(
        players=players, party="" if party is None else party.name, party_size=1 if party is None else party.size,
        rtt_ms={region: float(ms) for region, ms in (rtt_ms or {}).items()},
    )  # fmt: skip


def split(options: Mapping[str, Any]) -> tuple[dict[str, Any], MeshOptions]:
    """Of the room, and of the mesh. A name that is no option goes to the room, whose entry refuses it."""
    mesh = {name: value for name, value in options.items() if name in MeshOptions.__annotations__}
    room = {name: value for name, value in options.items() if name not in mesh}
    return room, cast(MeshOptions, mesh)


def _is_band(value: object) -> bool:
    match value:
        case (int() | float() as low, int() | float() as high):
            return low <= high
    return False
