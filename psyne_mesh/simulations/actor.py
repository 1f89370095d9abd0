"""What the world asks of a simulated node, and the few words that both sides use.

`psyne_mesh.gossip.node.Node` fits this protocol as it is; the baselines are written to it, so that every comparison runs
in the same world with the same measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from psyne_mesh.identity import PeerId


@attrs.frozen
class BareRecord:
    """The record of a baseline node: it carries no signature, epoch or address."""

    peer: PeerId


ROOM = "simulation"  # the one room that every host's table of links serves


class ActorView:
    """What a host's table of links asks about the room. A baseline has no records: it knows whoever comes."""

    def __init__(self, actor: Any, partial_from: int) -> None:
        self._actor = actor
        self._partial_from = partial_from

    def knows(self, peer: PeerId) -> bool:
        return not hasattr(self._actor, "record") or self._actor.record(peer) is not None

    @property
    def knows_all(self) -> bool:
        return hasattr(self._actor, "record") and bool(self._actor.knows_all)

    @property
    def is_large(self) -> bool:
        return not hasattr(self._actor, "record") or len(self._actor.members) >= self._partial_from


class Actor(Protocol):
    """One node under simulation. All times are the node's own clock, in seconds.

    How the world drives it:

    1. `start(now)` once; then `learn(...)` with what the rendezvous knows.
    2. Any input method, as things happen.
    3. After each input `take_outputs()`, then `take_events()`, then `next_timeout()`; `handle_timeout(now)` at that time.
    """

    @property
    def own_record(self) -> Any:
        """What the rendezvous shows of this node."""
        ...

    def start(self, now: float) -> None: ...
    def learn(self, records: Sequence[Any], now: float) -> None: ...
    def link_up(self, peer: PeerId, now: float, rtt: float | None = None) -> None: ...
    def link_down(self, peer: PeerId, reason: str, now: float) -> None: ...
    def dial_failed(self, peer: PeerId, cause: str, now: float) -> None: ...
    def receive(self, peer: PeerId, frame: bytes, now: float) -> None: ...
    def broadcast(self, payload: bytes, now: float) -> Any: ...
    def send_signal(self, to: PeerId, blob: bytes, now: float) -> Any: ...
    def leave(self, now: float) -> None: ...
    def note_loop_lag(self, seconds: float, now: float) -> None: ...
    def next_timeout(self) -> float | None: ...
    def handle_timeout(self, now: float) -> None: ...
    def take_outputs(self) -> list[Any]: ...
    def take_events(self) -> list[Any]: ...
