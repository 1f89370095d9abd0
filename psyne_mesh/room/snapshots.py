"""Late join: a snapshot of the game from members who signed its hash, as a file beside play."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from psyne_mesh.errors import (
    DeadlineExceeded,
    InvalidConfig,
    MessageTooLarge,
    PeerGone,
    ProtocolError,
    PsyneMeshError,
    RequestRefused,
    SnapshotDisputed,
)
from psyne_mesh.game.attestation import VERSION_MAX, VERSIONS_MAX, Choice, Claim, attested, choose, claim_untrusted
from psyne_mesh.game.transfers import digest_of
from psyne_mesh.identity import Identity, PeerId
from psyne_mesh.interrupts import uninterrupted
from psyne_mesh.mesh.membership import Membership
from psyne_mesh.room.asking import Asking
from psyne_mesh.room.files import Expected, FileTraffic
from psyne_mesh.room.messages import Message
from psyne_mesh.room.peer import Peer, Player

if TYPE_CHECKING:
    from psyne_mesh.room.room import Room

SNAPSHOT_BYTES_MAX = 16 * 2**20
"""Hashed where the network runs: 16 MiB take a twentieth of a second, once."""
ASK_S = 1.0
"""Members answer at once; who does not is asked again with the next round."""
ROUND_S = 0.5
IDLE_S = 2.0
"""Of who was to send a snapshot and sends nothing: longer than the pause after which a stalled file is asked for again. Then
the next signer is asked.
"""
LOOK_S = 0.5


class WhichSnapshots(Message, tag="psyne.which"):
    """Which snapshots do you hold?"""


class TheseSnapshots(Message, tag="psyne.these"):
    """A signed claim of each."""

    claims: list[bytes]


class SendSnapshot(Message, tag="psyne.send"):
    """Send me the one with this hash, as a file."""

    digest: bytes


class SnapshotComes(Message, tag="psyne.comes"):
    pass


@attrs.frozen
class Snapshot:
    """`data` is the game's state at `version`; `signers` are the players who signed its hash. others: who signed another one of
    that version; liars: who sent something else than it had signed."""

    version: int
    data: bytes = attrs.field(repr=False)
    signers: frozenset[PeerId]
    others: frozenset[PeerId] = frozenset()
    liars: frozenset[PeerId] = frozenset()


class _Held:
    def __init__(self, version: int, data: bytes) -> None:
        self.version = version
        self.data = data
        self.attested: bytes | None = None
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """Made when somebody asks: most snapshots are never sent."""
        if self._digest is None:
            self._digest = digest_of(self.data)
        return self._digest


@uninterrupted
class Snapshots:
    """1. `offer(version, data)` what we hold. 2. `fetch(signers_min, timeout)` what others hold."""

    def __init__(
        self, room: Room, identity: Identity, asking: Asking, files: FileTraffic, joined: Callable[[], Membership]
    ) -> None:
        self._room = room
        self._identity = identity
        self._asking = asking
        self._files = files
        self._joined = joined
        self._held: list[_Held] = []
        self._sending: dict[PeerId, bytes] = {}  # one at a time to each player
        asking.answer_ourselves(WhichSnapshots, self._which)
        asking.answer_ourselves(SendSnapshot, self._send)

    def offer(self, version: int, data: bytes) -> None:
        if not isinstance(version, int) or not 0 <= version < VERSION_MAX:
            raise InvalidConfig(f"version = {version!r}: must be a number that grows, such as the tick, from 0")
        if not isinstance(data, bytes):
            raise InvalidConfig(
                f"offer_snapshot(..., {type(data).__name__}): must be bytes, the same at all who hold it"
            )
        if len(data) > SNAPSHOT_BYTES_MAX:
            raise MessageTooLarge(len(data), SNAPSHOT_BYTES_MAX)
        kept = [held for held in self._held if held.version != version]
        self._held = [*kept, _Held(version, data)][-VERSIONS_MAX:]

    async def fetch(self, signers_min: int, timeout: float) -> Snapshot:
        if signers_min not in (1, 2, 3, 4) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise InvalidConfig(
                f"fetch_snapshot(signers={signers_min!r}, timeout={timeout!r}): 1 to 4, and seconds above 0"
            )
        liars, slow = set[PeerId](), set[PeerId]()
        why: PsyneMeshError = DeadlineExceeded("no snapshot was to be had in time")
        with trio.move_on_after(timeout):
            while True:
                try:
                    return await self._fetch_once(signers_min, liars, slow)
                except (PeerGone, RequestRefused, SnapshotDisputed, DeadlineExceeded) as error:
                    if not liars or (isinstance(error, SnapshotDisputed) and error.players & liars):
                        why = error  # who lied is said rather than that nobody is left
                await trio.sleep(ROUND_S)
        raise why

    async def _fetch_once(self, signers_min: int, liars: set[PeerId], slow: set[PeerId]) -> Snapshot:
        answers = await self._asking.request_each(
            [peer for peer in self._room.peers if peer not in liars], WhichSnapshots(), ASK_S
        )
        claims = {peer: self._claims(peer, answer) for peer, answer in answers.items()}
        # One member alone cannot be attested by two; where there are more, fewer signatures than asked for are none.
        choice = choose(claims, min(signers_min, max(1, len(self._room.peers))))
        if choice is None:
            if any(claims.values()):
                names = sorted(peer.short for peer, theirs in claims.items() if theirs)
                raise SnapshotDisputed(
                    f"{', '.join(names)} hold snapshots, and no {signers_min} of them the same one", frozenset(claims)
                )
            raise PeerGone("nobody here holds a snapshot")
        return await self._load(choice, liars, slow)

    async def _load(self, choice: Choice, liars: set[PeerId], slow: set[PeerId]) -> Snapshot:
        """`slow`: who sent nothing, or too little; they are asked last."""
        claim = choice.claim
        signers = sorted(choice.signers, key=lambda peer: (peer in slow, self._distance(peer)))
        for peer in signers:
            with self._files.expecting(peer, claim.digest, claim.size) as arrived:
                try:
                    await self._asking.request(peer, SendSnapshot(claim.digest), ASK_S)
                except PsyneMeshError:
                    continue
                is_over, data = await self._wait(arrived, claim.size, is_last=peer == signers[-1])
            if not is_over:
                slow.add(peer)
                continue
            if data is not None and len(data) == claim.size:
                return Snapshot(claim.version, data, choice.signers, choice.others, frozenset(liars))
            liars.add(peer)  # it signed a hash, and sent something else
        if not liars:
            raise DeadlineExceeded("who signed the snapshot did not send it in time")
        raise SnapshotDisputed("who signed the snapshot sent something else", frozenset(liars))

    async def _wait(self, arrived: Expected, size: int, *, is_last: bool) -> tuple[bool, bytes | None]:
        """False: nothing comes any more, or so slowly that it would not be here in time, and others may be asked."""
        began = changed = trio.current_time()
        came, deadline = 0, trio.current_effective_deadline()
        while True:
            with trio.move_on_after(LOOK_S):
                return True, await arrived.wait()
            now, before, came = trio.current_time(), came, arrived.came()
            if came != before:
                changed = now
            is_too_slow = now - began >= IDLE_S and (size - came) * (now - began) > came * (deadline - now)
            if not is_last and (now - changed >= IDLE_S or is_too_slow):
                return False, None

    def _distance(self, peer: PeerId) -> float:
        seen = self._room.peers.get(peer)
        rtt = None if seen is None else seen.rtt_ms
        return math.inf if rtt is None else rtt

    def _claims(self, peer: PeerId, answer: Message | PsyneMeshError) -> list[Claim]:
        if not isinstance(answer, TheseSnapshots):
            return []
        claims: list[Claim] = []
        for said in answer.claims[:VERSIONS_MAX]:
            try:
                signer, claim = claim_untrusted(said, self._joined().tag)
            except ProtocolError:
                continue
            if signer == peer and claim.size <= SNAPSHOT_BYTES_MAX:
                claims.append(claim)
        return claims

    # ---------------------------------------------------------------------------------------------------- for the others

    def _which(self, peer: Peer | Player, message: Message) -> Message:
        tag = self._joined().tag
        for held in self._held:
            if held.attested is None:
                held.attested = attested(self._identity, Claim(tag, held.version, len(held.data), held.digest))
        return TheseSnapshots([held.attested for held in self._held if held.attested is not None])

    def _send(self, peer: Peer | Player, message: Message) -> Message:
        assert isinstance(message, SendSnapshot)
        under_way = self._sending.get(peer.id)
        if under_way is not None:
            if under_way != message.digest:
                raise RequestRefused("another snapshot is on its way to you")
            return SnapshotComes()
        for held in self._held:
            if held.digest == message.digest:
                self._sending[peer.id] = held.digest
                self._files.begin(peer.id, "snapshot", held.data, held.digest, self._sent, None)
                return SnapshotComes()
        raise RequestRefused("that snapshot is gone: a newer one has come")

    def _sent(self, peer: PeerId, error: PsyneMeshError | None) -> None:
        self._sending.pop(peer, None)
