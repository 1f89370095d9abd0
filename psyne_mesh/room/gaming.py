"""What a room offers to a game beside players and channels: shared objects, a clock, a host, one simulation for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.game.commitments import MOVE_S, Round
from psyne_mesh.game.rewind import rewound
from psyne_mesh.game.schema import Shared
from psyne_mesh.identity import PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.core import MeshCore
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.mesh.pause import check_reason
from psyne_mesh.mesh.profile import Profile
from psyne_mesh.names import is_plain, plain
from psyne_mesh.room.exchanging import Exchanging
from psyne_mesh.room.fairness import write_evidence
from psyne_mesh.room.governing import Governing
from psyne_mesh.room.inside import Inside
from psyne_mesh.room.latency import LatencyReport, latency_report, owner_of, shown_time
from psyne_mesh.room.parts import Parts
from psyne_mesh.room.peer import OURSELVES, Me, Peer, Player
from psyne_mesh.room.state_views import WrittenState

if TYPE_CHECKING:
    from psyne_mesh.room.playing import G, I, Play
    from psyne_mesh.room.room import Room

S = TypeVar("S", bound=Shared)


@uninterrupted
class GameRoom(Governing, Exchanging):
    """The part of a `Room` that speaks through channels of its own. Each part is idle until somebody asks for it."""

    me: Me

    def __init__(self, core: MeshCore, inside: Inside, rng: Random, hold_s: float) -> None:
        self._core = core
        self._rng = rng
        self._parts = inside.parts = Parts(cast("Room", self), core, inside, rng, hold_s)
        self.me.state = WrittenState(self._parts.states.own, self._parts.states.write)
        self._room_state = WrittenState(self._parts.states.hosted, self._parts.states.write_state)

    def _joined(self) -> Membership:
        """`ClosedError` once the room has ended."""
        raise NotImplementedError

    @property
    def peers(self) -> Mapping[PeerId, Peer]:
        """The other players."""
        raise NotImplementedError

    # --------------------------------------------------------------------------------------------------- shared objects

    def share(self, shared: S, *, owner: Peer | Player | None = OURSELVES) -> S:
        """Show an object of ours to everybody, those who come later included, until `unshare` or we leave. What is written into
        its fields goes out 30 times a second, the newest value of each; nobody else can write it. `owner=room.host`, which only
        the host can say: the next host owns it after us (`is_mine`) and goes on with it, and older terms are refused.

        Raises `InvalidConfig` for what is no object of a subclass of `Shared`, or has a field that cannot travel. A value that
        cannot ends the room's block with `UnserialisableMessage`.
        """
        self._joined()
        return self._parts.sharing.share(shared, owner)

    def unshare(self, shared: Shared) -> None:
        """Take an object of ours back; the others see `SharedGone`."""
        self._joined()
        self._parts.sharing.unshare(shared)

    def all(self, kind: type[S]) -> Iterable[S]:
        """All objects of that class that are shared in the room, ours first; their smooth fields as they are to be seen now."""
        self._joined()
        return self._parts.sharing.all(kind)

    def update_player(self, *, name: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        """Change our name or our metadata; what is left out stays. The others get `PeerChanged`.

        Raises `InvalidConfig` for what `join_game_room` would refuse.
        """
        membership = self._joined()
        if name is not None and (not isinstance(name, str) or not is_plain(name) or not name):
            raise InvalidConfig(f"name = {name!r}: must be text without controls and marks that turn it round")
        own = Profile.parse_untrusted(membership.node.own_record.metadata)
        profile = own if metadata is None else Profile.make(own.region, own.skill, metadata)
        membership.tell(lambda node, now: node.update(now, name=name, metadata=profile.encode()))
        if name is not None:
            self.player = msgspec.structs.replace(self.player, name=plain(name))

    def shown_time(self, shared: Shared) -> float:
        """When what we see of this object now was so at its owner, by the room's clock: the moment that a shot at it is to
        say. Of our own object, and before the owner's clock is known, it is now."""
        self._joined()
        now, owner = self.time(), owner_of(shared)
        playback = None if owner is None or owner == self.me else self._parts.sharing.playback(owner)
        return shown_time(playback, None if owner is None else self._parts.timekeeper.correction(owner), now)

    def rewind(self, at: float, kind: type[S] = Shared) -> list[S]:  # type: ignore[assignment]
        """Copies of the shared objects of that class as they were at `at` of the room's time, 250 ms back at most: with
        `at=shot.time`, taken from `shown_time(target)`, as the shooter saw them. Smooth fields have a past, the others are as
        they are now. `InvalidConfig` for what is no moment."""
        self._joined()
        correction = self._parts.timekeeper.correction
        return rewound(
            self._parts.sharing.pasts(kind),
            at,
            self.time(),
            lambda owner: correction(self.me if owner is None else owner),
        )

    def latency(self, peer: Peer) -> LatencyReport:
        """How late everything is between us and that player."""
        self._joined()
        if not isinstance(peer, Peer):
            raise InvalidConfig(f"latency({peer!r}): must be a Peer; room.peers has those who are here")
        keeper = self._parts.timekeeper
        playback, correction = self._parts.sharing.playback(peer.id), keeper.correction(peer.id)
        return latency_report(peer.rtt_ms, keeper.ahead(peer.id), playback, correction, self.time())

    @contextmanager
    def pause(self, reason: str = "paused") -> Iterator[None]:
        """`with room.pause("loading a level"):` the others see `PeerAway` with that reason, and `PeerBack` at the end of the
        block. We stay in the room meanwhile, though our loop stands still for minutes. Pauses do not nest.

        Raises `InvalidConfig` for a reason that is no short text, and for a second pause.
        """
        with self._joined().pausing(check_reason(reason), self._core.heartbeat):
            yield

    def play(
        self, kind: type[G], *, inputs: type[I], players: int = 2, hz: float = 60.0, delay: int | None = None
    ) -> Play[G, I]:
        """One simulation for all who call this, by rollback: call `advance(my_input)` of what it returns each frame.

        kind: a `rollback.Game`, whose fields are the whole state; inputs: a `rollback.Input`. `InvalidConfig` names what
        cannot be. players: the host starts once so many want to play; who comes later joins while it runs.
        delay: ticks that our inputs wait so that others need not guess them; None finds it (up to 3, then it is guessed).
        """
        from psyne_mesh.room.playing import Play  # many modules, and few games play by rollback

        self._joined()
        return Play(
            cast("Room", self),
            kind,
            inputs,
            players,
            hz,
            delay,
            lambda: self._rng.getrandbits(61),
            perf_counter,
            self._parts.fairness,
        )

    # ---------------------------------------------------------------------------------------------------------- fair play

    def evidence(self, path: str | Path) -> None:
        """Write what the others have signed in the last half minute, what they said, and who broke which rules, to a file that
        `psyne-mesh verify` reads; up to 2 MiB and a bit. `InvalidConfig` if it cannot be written."""
        self._joined()
        write_evidence(path, self._parts.fairness.encoded_evidence())

    def roll(self, sides: int = 6, *, players: Iterable[Peer | PeerId] | None = None) -> Round:
        """A die that nobody can load: all `players` (everybody to whom we are connected, if left out) commit to a secret and
        then reveal it; their libraries do so by themselves. `is_done` and `value` of what it returns have the outcome, 1 to
        `sides`, and every player hears `Rolled`; `RoundFailed` names who does not reveal.

        `InvalidConfig` for sides that no die has, and for players who are not here."""
        self._joined()
        return self._parts.fairness.roll(sides, players)

    def secret_move(
        self, round: str, move: Any, *, players: Iterable[Peer | PeerId] | None = None, timeout: float = MOVE_S
    ) -> Round:
        """Our move in a round in which all move at once: what it is stays hidden until every player of the round has made one,
        under the same label and with the same players; then all are revealed (`moves`, `MovesRevealed`). After `timeout`
        seconds without a move, or five without its reveal, `RoundFailed` names who is to blame.

        move: numbers, text, bytes, lists and dicts, up to 1 KiB. `InvalidConfig`, `UnserialisableMessage`."""
        self._joined()
        return self._parts.fairness.secret_move(round, move, players, timeout)

    def witness(self, tick: int, *, besides: Iterable[Peer | PeerId] = (), seed: int = 0) -> PeerId | None:
        """The member who is to check what is claimed at `tick`, by lot, and none of those concerned (`besides`): the same on
        all machines that see the same members. seed: of the game, such as a roll, so that nobody knows it beforehand."""
        members = [self.me, *self.peers]
        return self._parts.fairness.witness(tick, members, besides, seed)

    def _player(self, peer_id: PeerId | None) -> Peer | Player | None:
        return self.player if peer_id == self.me else self.peers.get(peer_id) if peer_id is not None else None
