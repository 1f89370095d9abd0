"""From what a player wishes to one room: signed, found, checked against its manifest, and unlocked."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

import attrs
import msgspec

from psyne_mesh.errors import (
    AppVersionMismatch,
    ManifestRefused,
    NotInvited,
    RoomError,
    RoomFull,
    RoomGone,
    RoomMismatch,
    RoomNotFound,
    SpectatorsFull,
    UnknownCode,
)
from psyne_mesh.identity import Identity
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.request import Anew, Anywhere, ByCode, Exactly, RoomEntry
from psyne_mesh.signaling.events import RoomInfo, lobby_of
from psyne_mesh.signaling.joining import JoinRequest, RoomQuery, SeekRequest
from psyne_mesh.signaling.locks import NONCE_BYTES, SECRET_BYTES, Invite, Keys, invite_keys, password_keys, unlock
from psyne_mesh.signaling.manifest import check_untrusted, new_code, shown_code, sign
from psyne_mesh.signaling.messages import MAX_AVOIDED
from psyne_mesh.signaling.requests import checked_join, request_into
from psyne_mesh.signaling.transport import SignalingTransport

_TRIES_MAX = 8  # instances that ended or lied while we came; a server that shows no others has no room for us


@uninterrupted
class Placement:
    """1. `place(entry, tried)`: the entry of exactly one room. 2. After it failed with a `RoomError`, `another(...)` says
    whether to place again; `tried` grows with each."""

    def __init__(self, identity: Identity, signaling: SignalingTransport, rng: random.Random) -> None:
        self._identity = identity
        self._signaling = signaling
        self._rng = rng

    def regions(self) -> Mapping[str, str]:
        """STUN servers by region, as far as the server told."""
        return self._signaling.regions

    async def place(self, entry: RoomEntry, tried: list[str]) -> RoomEntry:
        """Raises as `SignalingTransport.seek`, and `UnknownCode`, `WrongPassword`, `NotInvited`, `AppVersionMismatch`,
        `ManifestRefused`."""
        match entry.which:
            case Anew() as anew:
                return self._made(entry, anew)
            case ByCode(code=code, password=password):
                info = await self._found(code, entry)
                keys = unlock(password, info.manifest) if info.policy == "password" else Keys("", "", b"")
                if info.policy == "invite":
                    raise NotInvited(f"room {shown_code(code)} is for the invited: ask its creator for room.invite()")
                return _into(info, entry, keys)
            case Invite() as invite:
                info = await self._found(invite.code, entry)
                keys = attrs.evolve(invite_keys(invite.secret), door=invite.door)
                if info.policy != "invite" or keys.lock != info.manifest.lock:
                    raise NotInvited(f"the invitation is for another room than {shown_code(invite.code)} is now")
                return _into(info, entry, keys)
            case Anywhere() as wish:
                return await self._sought(entry, wish, tried)
            case Exactly():
                return attrs.evolve(entry, request=self._signed(entry.request, Keys("", "", b"")))

    async def found(self, entry: RoomEntry, tried: Collection[str]) -> tuple[RoomInfo, bytes]:
        """For who only watches: the room, and what members of a locked one prove to know. No seat is held. Of several rooms
        the one with most players, of our region if there is any. Raises as `place`, and `RoomNotFound`, `SpectatorsFull`
        where nobody may watch."""
        if isinstance(entry.which, ByCode | Invite):
            placed = await self.place(entry, [])
            info, secret = await self._found(placed.request.manifest.code, entry), placed.secret
            if not info.manifest.spectators:
                raise SpectatorsFull(f"nobody may watch room {info.name!r}: its creator allows no spectators")
            return info, secret
        request = entry.request
        listing = await self._signaling.list_rooms(RoomQuery(app_id=request.app_id, name=request.name))
        fitting = [
            info
            for info in listing.rooms
            if info.room not in tried and info.manifest.spectators and info.policy == "open"
            and info.manifest.app_version == request.manifest.app_version
        ]  # fmt: skip
        for info in sorted(fitting, key=lambda info: (info.region == request.region, info.players), reverse=True):
            try:
                _check_untrusted(info)
            except ManifestRefused:
                continue
            return info, b""
        raise RoomNotFound(f"no room of {request.name!r} may be watched now: rooms made with spectators=32 are")

    def another(self, entry: RoomEntry, room: str, error: RoomError, tried: list[str]) -> bool:
        """Whether some other room will do. Raises what else to say of `error`."""
        if isinstance(entry.which, ByCode | Invite) and isinstance(error, RoomNotFound):
            raise RoomGone(f"the last player of room {entry.request.name!r} left while we came") from error
        tried.append(room)
        may_go_on = isinstance(error, RoomFull | RoomNotFound | RoomMismatch | ManifestRefused)
        return isinstance(entry.which, Anywhere) and may_go_on and len(tried) < _TRIES_MAX

    # ------------------------------------------------------------------------------------------------------- helpers

    def _made(self, entry: RoomEntry, anew: Anew) -> RoomEntry:
        keys, policy = Keys("", "", b""), entry.request.manifest.policy
        if anew.password is not None:
            keys, policy = password_keys(anew.password, self._rng.randbytes(NONCE_BYTES)), "password"
        elif anew.invited_only:
            keys, policy = invite_keys(self._rng.randbytes(SECRET_BYTES)), "invite"
        manifest = msgspec.structs.replace(entry.request.manifest, policy=policy)
        request = self._signed(attrs.evolve(entry.request, manifest=manifest), keys)
        request = attrs.evolve(request, instance=request.manifest.code, create="only", door=keys.door)
        return attrs.evolve(entry, request=request, secret=keys.secret)

    async def _found(self, code: str, entry: RoomEntry) -> RoomInfo:
        app_id, ours = entry.request.app_id, entry.request.manifest.app_version
        listing = await self._signaling.list_rooms(RoomQuery(app_id=app_id, code=code))
        info = next((room for room in listing.rooms if room.code == code), None)
        if info is None:
            raise UnknownCode(f"no room has the code {shown_code(code)}: it ended, or the code was misread")
        _check_untrusted(info)
        if info.manifest.app_version != ours:
            theirs = info.manifest.app_version
            raise AppVersionMismatch(
                f"room {shown_code(code)} plays version {theirs!r} of the game, you have {ours!r}", ours, theirs
            )
        return info

    async def _sought(self, entry: RoomEntry, wish: Anywhere, tried: list[str]) -> RoomEntry:
        request, refused = self._signed(entry.request, Keys("", "", b"")), None
        while True:
            seek = SeekRequest(
                join=request, players=wish.players, party=wish.party, party_size=wish.party_size, rtt_ms=wish.rtt_ms,
                avoid=(*wish.avoid, *tried)[-MAX_AVOIDED:],
            )  # fmt: skip
            try:
                info = await self._signaling.seek(seek)
            except RoomNotFound as error:
                raise refused or error from None
            try:
                _check_untrusted(info)
                if lobby_of(info.room) != lobby_of(request.key) or info.policy != "open":
                    raise ManifestRefused(f"the server shows room {info.room!r} to who asked for {request.name!r}")
            except ManifestRefused as error:
                if not self.another(entry, info.room, error, tried):
                    raise
                refused = error
                request = self._signed(entry.request, Keys("", "", b""))
                continue
            return attrs.evolve(entry, request=request_into(info, request, "never" if info.players else "or"))

    def _signed(self, request: JoinRequest, keys: Keys) -> JoinRequest:
        """With a code of its own, in case it becomes a room of its own. Read back first: what is signed is what travels."""
        manifest = msgspec.structs.replace(request.manifest, code=new_code(self._rng), lock=keys.lock)
        request = checked_join(attrs.evolve(request, manifest=manifest))
        return attrs.evolve(request, manifest=sign(manifest, request, self._identity))


def check_entered(info: RoomInfo, placed: RoomEntry) -> None:
    """`ManifestRefused` when the server let us into something else than it had shown."""
    check_untrusted(info, info.players)
    if not isinstance(placed.which, Exactly) and info.manifest != placed.request.manifest:
        raise ManifestRefused(f"the server let us into another room than the {info.name!r} that it had shown")


def _check_untrusted(info: RoomInfo) -> None:
    if not info.manifest.signature:
        raise ManifestRefused(f"nobody signed room {info.name!r}")
    check_untrusted(info, info.players)


def _into(info: RoomInfo, entry: RoomEntry, keys: Keys) -> RoomEntry:
    request = attrs.evolve(request_into(info, entry.request, "never"), door=keys.door)
    return attrs.evolve(entry, request=request, secret=keys.secret)
