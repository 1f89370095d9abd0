"""What `Broadcast` lacks: messages that neighbours announced, and what they promised when asked."""

from __future__ import annotations

from psyne_mesh.identity import PeerId


class Missing:
    """An id that neighbours have announced and nobody has sent. `hops` is the shortest way that was announced; `since`,
    when we learned of it; `fresh`: it was announced when it was new, so it cannot be from before our time; `guesses`:
    advertisers that only sent what comes after it."""

    __slots__ = ("advertisers", "deadline", "fresh", "guesses", "hops", "since")

    def __init__(self, now: float, deadline: float) -> None:
        self.advertisers: list[PeerId] = []
        self.hops: dict[PeerId, int] = {}
        self.guesses: dict[PeerId, None] = {}
        self.since = now
        self.deadline = deadline
        self.fresh = False


class Promise:
    """What a neighbour should send by `until`, as we asked for it. `fresh`: as `Missing` says."""

    __slots__ = ("fresh", "until")

    def __init__(self, until: float, fresh: bool) -> None:
        self.until = until
        self.fresh = fresh
