"""Every exception that psyne_mesh raises on purpose, in one tree.

Two kinds, as in h11: a `LocalError` says that the caller asked for something that cannot be, and nothing has changed;
a `RemoteError` says that something outside failed or misbehaved, and its docstring says what has changed.
Nothing here imports anything of ours: this is the floor of the house.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class PsyneMeshError(Exception):
    """The root of all our errors."""


# ---------------------------------------------------------------------------------------------------------------- local


class LocalError(PsyneMeshError):
    """The caller's request cannot be met as it stands. Nothing has changed; mend the call and try again."""


class InvalidConfig(LocalError, ValueError):
    """A configuration value is out of its bounds. The message names the field, the value and the bounds."""


class OutsideTrio(LocalError, RuntimeError):
    """What needs Trio was entered from asyncio, or from no event loop at all. The message says what to write instead."""


class InvalidUri(LocalError, ValueError):
    """Not one of the three URI forms. The message shows the forms that are understood."""


class MessageTooLarge(LocalError):
    """The message is larger than the receiver accepts. Nothing was sent; the channel stays usable.

    `size` and `limit` are bytes; `limit` is the smaller of the receiver's `max-message-size` and our own.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"message of {size} bytes is over the limit of {limit} bytes; split it or send it as a file")
        self.size = size
        self.limit = limit


class UnserialisableMessage(LocalError, TypeError):
    """The object is not a message type of this channel, or holds a value that the codec refuses. Nothing was sent."""


class WouldBlock(LocalError):
    """A `*_nowait` call found no room in a bounded queue. Nothing was sent or lost."""


class ClosedError(LocalError):
    """The room, channel or connection was closed on this side before the call. Nothing was sent."""


class NotHost(LocalError):
    """Only the host of a room may do this, and we are not the host now. The message says who is; `room.request` asks it."""


class OnlyWatching(LocalError):
    """A spectator sees the room and says nothing in it. Who wants to play joins without `spectate=True`."""


class CannotListen(LocalError, OSError):
    """Another program has the port, or the address is not this machine's. Nothing was opened."""


class DeadlineExceeded(LocalError, TimeoutError):
    """A call that waits was not through in the time that it was given. It was given up; everything else goes on."""


# --------------------------------------------------------------------------------------------------------------- remote


class RemoteError(PsyneMeshError):
    """Something outside failed, refused or misbehaved."""


class ProtocolError(RemoteError):
    """Bytes from outside broke a rule. The one exception that may leave a `*_untrusted` function.

    The unit that held the bytes (datagram, chunk, frame, message) was dropped whole; no state has changed.
    """


class SignalingError(RemoteError):
    """The signaling server refused or failed. Links that already stand are untouched."""


class SignalingUnreachable(SignalingError):
    """No signaling server answers at the URL. `url` and the cause are in the message."""


class SignalingBusy(SignalingUnreachable):
    """The signaling server has as much to do as it can, and asks us to come back. `retry_after_s`: not before so long."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class SignalingLost(SignalingError):
    """The connection to the signaling server broke. Play goes on; newcomers wait until it is back."""


class VersionMismatch(SignalingError):
    """The other side speaks another version of the protocol. `ours` and `theirs` say which."""

    def __init__(self, ours: str | int, theirs: object) -> None:
        super().__init__(f"we speak protocol version {ours}, the other side {theirs!r}; update the older of the two")
        self.ours = ours
        self.theirs = theirs


class RoomError(RemoteError):
    """The room cannot be joined as asked. We are not in it."""


class RoomFull(RoomError):
    """The room has `max_players` players already. `join_game_room` finds another instance of it, `create_room` makes one."""


class SpectatorsFull(RoomError):
    """As many watch the room as its creator allows (`create_room(spectators=...)`); none is as many, too."""


class RoomNotFound(RoomError):
    """No such room, and the call said `create=False`."""


class UnknownCode(RoomNotFound):
    """No room has this code: it ended, or the code was misread."""


class RoomGone(RoomNotFound):
    """The room ended while we were on our way into it."""


class RoomExists(RoomError):
    """The room is there already, and the call said `create=True`."""


class RoomMismatch(RoomError):
    """The room's properties (such as its skill range) do not admit this player."""


class RequestRefused(RemoteError):
    """The player answered that it does not do what was asked; the message says why. A function that answers (`room.respond`)
    raises it to refuse."""


class SnapshotDisputed(RemoteError):
    """Members hold snapshots of the game that differ, or one sent another than it had signed. `players`: who they are. Nothing
    was loaded."""

    def __init__(self, reason: str, players: frozenset[Any]) -> None:
        super().__init__(reason)
        self.players = players


class AppVersionMismatch(RoomMismatch):
    """The room plays another version of the game. `ours` and `theirs` say which, as far as the server told."""

    def __init__(self, message: str, ours: str = "", theirs: str = "") -> None:
        super().__init__(message)
        self.ours = ours
        self.theirs = theirs


class ManifestRefused(RoomError):
    """The room is not as its creator signed it: its limits, policy or lock were changed, by the server or on the way."""


class WrongPassword(RoomError):
    """The room has another password. It was found out on this machine; nobody else heard of it."""


class NotInvited(RoomError):
    """The room is for the invited, and this is no invitation of its creator."""


class InviteExpired(NotInvited):
    """The invitation has come to its end. Ask for a new one."""


class PeerGone(RemoteError):
    """The peer left, or its connection ended, before the call was through. Other peers are untouched."""


class Superseded(PeerGone):
    """A newer connection between the same two UDP ports has taken this one's place, as when the peer has come back from
    the port that it had. One connection for each pair of endpoints can stand at a time."""


class ConnectFailed(RemoteError):
    """A connection to one peer could not be made. Every other peer is untouched.

    phase: where it stopped: "signaling", "ice-gathering", "ice", "dtls", "sctp" or "channel".
    candidates: the candidate pairs that were tried, as text, for people.
    advice: what to do next, for people.
    """

    def __init__(
        self, phase: str, reason: str, *, peer: Any = None, candidates: Sequence[str] = (), advice: str = ""
    ) -> None:
        who = f" to {peer}" if peer is not None else ""
        text = f"could not connect{who}: stopped in phase {phase}: {reason}"
        if candidates:
            text += f"; tried {', '.join(candidates)}"
        super().__init__(text + (f". {advice}" if advice else ""))
        self.phase = phase
        self.reason = reason
        self.peer = peer
        self.candidates = tuple(candidates)
        self.advice = advice


class ClocksDiffer(ConnectFailed):
    """What one of the two signs is not of today by the other's clock, and no server tells both the time. The text says by how
    much they differ."""


class TamperedSignaling(RemoteError):
    """An offer, answer or candidate does not carry a valid signature of the peer that it names, or names another
    fingerprint than the one signed: someone between the peers changed it. The message was dropped."""


class FingerprintMismatch(RemoteError):
    """The certificate shown in DTLS is not the one of the signed offer or answer. The connection was ended before any
    data went up."""


class EventBacklog(LocalError):
    """A subscriber of room events fell thousands of events behind, so it can no longer be told the truth in full."""
