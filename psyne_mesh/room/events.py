"""What a room tells its players, as frozen facts in the past tense.

Discovered, connected and left are three facts: gossip has heard of the player; its data channels are open; it is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psyne_mesh.errors import ConnectFailed, RemoteError
from psyne_mesh.frozen import Frozen
from psyne_mesh.game.commitments import MovesRevealed, Rolled, RoundFailed
from psyne_mesh.game.schema import Shared
from psyne_mesh.identity import PeerId
from psyne_mesh.room.messages import Message

if TYPE_CHECKING:
    from psyne_mesh.room.peer import Peer, Player


class PeerDiscovered(Frozen):
    """Gossip or signaling named a player who was not known before. A link is being made."""

    peer: Peer


class PeerConnected(Frozen):
    """Channels to the player are open. Comes after its `PeerDiscovered`, and again after a reconnect."""

    peer: Peer


class HostChanged(Frozen):
    """`host` is the player whose decisions count from now on, `room.player` if it is us; None: nobody we know of, as on the
    side of a cut that has no majority. `term` never falls. Comes only in rooms in which somebody asks for the host.
    """

    term: int
    host: Peer | Player | None


class PeerUnreachable(Frozen):
    """No link could be made; `error` says in which phase it stopped. The player is still in the room; tries go on."""

    peer: Peer
    error: ConnectFailed | RemoteError


class PeerSuspected(Frozen):
    """The player has been silent for longer than its link explains. Followed by `PeerResumed` or `PeerLeft`."""

    peer: Peer


class PeerResumed(Frozen):
    """A suspected player was heard again. Nothing that is reliable was lost, but for what a `SendReport` called OVERFLOW."""

    peer: Peer


class PeerAway(Frozen):
    """The player is here and not at play: it said why (`room.pause`), or `reason` is "stands still": its program does not let
    our loop turn, as while a level loads. What is sent reliably waits for it. `PeerBack` or `PeerLeft` follows."""

    peer: Peer
    reason: str


class PeerBack(Frozen):
    """A player that was away is at play again."""

    peer: Peer


class PeerLeft(Frozen):
    """The player is gone. Comes exactly once for each stay.

    reason: "left" (said goodbye), "timeout" (silent too long), "capacity" (lost its seat), "superseded" (the same key
    joined anew), "kicked" or "two-faced" (see `TwoFaced`).
    """

    peer: Peer
    reason: str


class Evicted(Frozen):
    """We lost our own place in the room.

    reason: "superseded" (the same key entered the room elsewhere) or "kicked": the last event, for the room has ended as
    if it were left: channels and iterators end, and calls raise `ClosedError`. Or "capacity": more players than seats came
    together, as after a partition, and ours went to another; play goes on without it until one is free.
    """

    reason: str


class PartitionSuspected(Frozen):
    """Several players fell silent together: the network broke rather than they. It comes once enough of them are lost (three
    by default, `GossipConfig.partition_min_lost`), so among or after their `PeerLeft`. `majority`: whether we are the larger
    part; neither half is."""

    lost: tuple[PeerId, ...]
    remaining: tuple[PeerId, ...]
    majority: bool


class PartitionHealed(Frozen):
    """Players that a partition had taken are back."""

    returned: tuple[PeerId, ...]


class SignalingDown(Frozen):
    """The signaling server is out of reach, or no longer serves this room, as `reason` says. Play goes on over the links
    that stand, and tries to come back go on."""

    reason: str


class SignalingUp(Frozen):
    """The signaling server is back, and we are in its list of the room."""


class ServerRefused(Frozen):
    """A TURN server of the configuration answered, and refused us: a wrong or expired credential, or it is full; `reason`
    says what to do. Players with another way to us connect as ever. Comes once for each server and cause."""

    server: str
    reason: str


class TamperingDetected(Frozen):
    """A signaling message did not carry the signature of the peer that it names. It was dropped. `server` names who
    carried it: the signaling server, or by its id the member that handed it over in place of one (the change may have been
    made before it). Of each carrier the first comes at once, then one in ten seconds; `reason` counts those left out."""

    server: str
    peer: PeerId
    reason: str


class SharedAppeared(Frozen, eq=False):
    """An object that another player shares is here: `shared.owner` says whose."""

    shared: Shared


class SharedGone(Frozen, eq=False):
    """An object of another player is gone: its owner took it back or left, or crashed and did not come back within 45 s. It
    keeps its last values."""

    shared: Shared


class SharedKept(Frozen, eq=False):
    """We are back after a crash: an object that we shared before it, as the others saw it last. They see it as absent. Give it
    to `share` to go on with it; what is not shared within five seconds of our first shared object is gone for them."""

    shared: Shared


class SharedRefused(Frozen):
    """Objects of that class and player cannot be shown here, as its game declares them otherwise; `reason` names the field.
    Once for each player and class. The other side is told the same of ours."""

    peer: Peer
    kind: str
    reason: str


class MessageRefused(Frozen):
    """What came from the player on that channel is no message of it, as when its game has another version of the class;
    `reason` says where it differs. Once for each player and channel; `channel.stats.refused` counts all of them."""

    peer: Peer
    channel: str
    reason: str


class RuleBroken(Frozen):
    """The player sent a message that `rule` of its type forbids, as `reason` says; it was not delivered. `before` is its last
    message of that type that was. Of each player, channel and rule the first comes at once, then one a second at most, and
    `count` has how many there were since the one before. `room.evidence(path)` writes what proves it."""

    peer: Peer
    channel: str
    rule: str
    reason: str
    message: Any
    before: Any
    count: int = 1


class Equivocated(Frozen):
    """The player told two stories: it signed two different records of one span of `stream` (a channel or a simulation), as
    anybody can check (`room.evidence(path)`, `psyne-mesh verify`). Once for each player."""

    player: PeerId
    stream: str
    span: int


class TwoFaced(Frozen):
    """The player told members different things of itself (its name, its seat, whom it sees where) under one version,
    and signed both, as anybody can check. Everybody bars its key, for ten minutes; its `PeerLeft` comes first."""

    player: PeerId


class NotSigned(Frozen):
    """The player does not sign what it says in `stream`, or signs something else: it may tell others another story. It proves
    nothing to others. Once for each player and stream."""

    peer: Peer
    stream: str
    reason: str


class MessagesLost(Frozen):
    """So many reliable messages of the player never came, or found no room here (`channel.stats.dropped`): what comes next on
    that channel follows a gap. channel: its name; None: of what others carried, on whichever channel.

    It comes after a link has ended with messages under way, after a silence that was longer than the room waits for, and
    when nobody here reads. Within one link nothing reliable is ever lost. The player's own side sees `MessagesUndelivered`.
    """

    peer: Peer
    channel: str | None
    count: int


class MessagesUndelivered(Frozen):
    """So many of our reliable messages do not reach the player, beyond those that a `SendReport` has named. It is the number
    that the player's side found (channel None: of what others carried, on whichever channel); or, ten seconds after a link
    has ended and when the player has left, how many had not been acknowledged: then some of them may have come."""

    peer: Peer
    channel: str | None
    count: int


class StateChanged(Frozen):
    """A key of a player's state (`owner`, `room.player` for our own) or of the room's (None) holds another value; None: it was
    taken away. Who begins to listen is told of what each holds."""

    owner: Peer | Player | None
    key: str
    value: Any


class VoteCast(Frozen):
    """A player votes to bar another one (`room.vote_kick`); `votes` of `needed` are there now. Once they are, the other is
    gone (`PeerLeft` with "kicked") and stays barred."""

    subject: PeerId
    voter: PeerId
    votes: int
    needed: int
    reason: str


class TimerFired(Frozen):
    """A timer of the room (`room.after`) was due. Everybody who is here is told once, whoever was host meanwhile."""

    message: Message


class PeerChanged(Frozen):
    """The player has another name or other metadata (`room.update_player`): `peer` shows them."""

    peer: Peer


RoomEvent = (
    PeerDiscovered | PeerConnected | PeerUnreachable | PeerSuspected | PeerResumed | PeerAway | PeerBack | PeerLeft
    | Evicted
    | PartitionSuspected | PartitionHealed | SignalingDown | SignalingUp | ServerRefused | TamperingDetected
    | SharedAppeared | SharedGone | SharedKept | SharedRefused | MessageRefused | MessagesLost | MessagesUndelivered
    | HostChanged | RuleBroken | Equivocated | TwoFaced | NotSigned | Rolled | MovesRevealed | RoundFailed
    | StateChanged | TimerFired | PeerChanged | VoteCast
)  # fmt: skip
