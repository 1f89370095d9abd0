"""One ICE generation: the credentials of both sides, and the agent between them."""

from __future__ import annotations

import math
import secrets
from typing import Final

from psyne_mesh.webrtc.ice.agent import Agent
from psyne_mesh.webrtc.ice.candidates import Found
from psyne_mesh.webrtc.ice.events import IceParameters
from psyne_mesh.webrtc.ice.library import Candidate

PENDING_MAX: Final = 64  # remote candidates that came before the credentials; the newest is refused

_ICE_CHARS: Final = str.maketrans("-_", "+/")  # RFC 8839 section 5.4: ice-char


def make_parameters() -> IceParameters:
    """Fresh credentials: 48 bits of ufrag, so that no two agents of a port meet, and 144 bits of password."""
    ufrag, password = secrets.token_urlsafe(6), secrets.token_urlsafe(18)
    return IceParameters(ufrag.translate(_ICE_CHARS), password.translate(_ICE_CHARS))


class Generation:
    """A restart begins a new one.

    told: the candidates that the peer has heard of; introduced: all that were found before this generation are among
    them; complete: the peer was told that there will be no more.
    """

    __slots__ = ("agent", "complete", "deadline", "introduced", "local", "number", "pending", "remote", "told")

    def __init__(self, number: int) -> None:
        self.number = number
        self.local = make_parameters()
        self.remote: IceParameters | None = None
        self.agent: Agent | None = None
        self.pending: list[tuple[Candidate, str | None]] = []
        self.deadline = math.inf
        self.told: set[Found] = set()
        self.introduced = False
        self.complete = False

    def add_remote(self, candidate: Candidate, ufrag: str | None) -> bool:
        """False when too many are waiting already."""
        if len(self.pending) >= PENDING_MAX:
            return False
        self.pending.append((candidate, ufrag))
        return True

    def flush_remote(self) -> int:
        """Hand the waiting candidates to the agent; how many were not of this generation."""
        agent, remote = self.agent, self.remote
        if agent is None or remote is None:
            return 0
        pending, self.pending = self.pending, []
        fitting = [candidate for candidate, ufrag in pending if ufrag in (None, remote.ufrag)]
        for candidate in fitting:
            agent.add_remote(candidate)
        return len(pending) - len(fitting)
