"""One neighbour in one object: all that a node keeps because of a link, with a part for each machine that needs one.

`Neighbours` is the one place that opens a neighbour and that ends it: what it had of the machines' state goes with it.
"""

from __future__ import annotations

import math
from typing import Final

from psyne_mesh.gossip.codec import NO_HASH
from psyne_mesh.gossip.costs import Cost
from psyne_mesh.gossip.hearing import Hearing, Hearings
from psyne_mesh.identity import PeerId
from psyne_mesh.limits import TokenBucket

_YOUNG_S = 5.0  # a link is asked in every interval at first: places on the latency map and numbers of links settle soon
SETTLING_S: Final = 5.0  # a link younger than that is not judged
_SIGNALS_BURST = 64  # signals that one neighbour may have passed on at once; more are dropped, the newest first
_SIGNALS_RATE = 32.0  # and so many a second after that
PROVEN: Final = -1  # instead of the number of broken promises: what we lacked came from it


class Probe:
    """What the detector knows. `alive_at` is the last sign of life, by the link itself or through a helper; `waiting_since`
    is when we first asked after that, or infinity."""

    __slots__ = (
        "accused_at",
        "alive_at",
        "asked_at",
        "fast_at",
        "heard_at",
        "impaired",
        "lost",
        "missed",
        "nacks_due",
        "pending",
        "ping_at",
        "probed_at",
        "rttvar",
        "sampled_at",
        "silent",
        "spread",
        "srtt",
        "srtt_wire",
        "waiting_since",
        "young_until",
    )

    def __init__(self, now: float) -> None:
        self.heard_at = self.alive_at = now
        self.waiting_since = math.inf
        self.ping_at = now  # when to look whether a ping is due
        self.spread = 1.0
        self.young_until = now + _YOUNG_S
        self.sampled_at = self.probed_at = -math.inf
        self.fast_at = self.asked_at = self.accused_at = -math.inf
        self.missed = 0  # pings in a row
        self.impaired = False  # so many that frames on the link do not come through now: better go through a helper
        self.silent = False  # and nobody else reaches the peer
        self.lost = False  # the link itself is gone; only helpers can say whether the peer lives
        self.nacks_due: list[PeerId] = []  # helpers that have not answered
        self.srtt = 0.0  # 0: unknown
        self.srtt_wire = 0  # the same in 0.1 ms, as probes tell it
        self.rttvar = 0.0
        self.pending: dict[int, float] = {}


class Place:
    """What the overlay knows: why there is this link, and what was seen at the last look at all of them."""

    __slots__ = ("audible", "degree", "keep_until", "outbound", "since", "srtt", "unbiased")

    def __init__(self, now: float, *, outbound: bool) -> None:
        self.since = now
        self.outbound = outbound  # we dialled
        self.unbiased = False  # drawn by lot: it stays, however far it is
        self.keep_until = now + SETTLING_S
        self.degree = 0  # links that the neighbour says it has; 0: not said yet
        self.srtt = 0.0
        self.audible = True  # frames on the link come through, as far as we know


class Branch:
    """What the broadcast tree knows. `srtt` is of round trips that we measured; what the other side says of it counts for
    nothing here."""

    __slots__ = ("awaited", "broken", "pruned_at", "repaid_at", "srtt")

    def __init__(self) -> None:
        self.srtt = 0.0  # 0: none yet
        self.pruned_at = -math.inf
        self.awaited = 0  # messages that we wait for because it was the first to announce them
        self.broken = 0  # announcements in a row that it did not make good when asked; or `PROVEN`
        self.repaid_at = -math.inf  # when the repairs that it got will all count no more


class Views:
    """What anti-entropy knows. `hash` is what its probes say of its view since `since`; no comparison before `next_at`."""

    __slots__ = ("digest_at", "hash", "next_at", "since")

    def __init__(self) -> None:
        self.hash = NO_HASH
        self.since = math.inf
        self.next_at = self.digest_at = -math.inf


class Neighbour:
    __slots__ = (
        "cost",
        "degree",
        "faults",
        "large",
        "lonely",
        "loss",
        "peer",
        "place",
        "probe",
        "signals",
        "tree",
        "views",
    )

    def __init__(self, peer: PeerId, now: float, loss: Hearing, *, outbound: bool) -> None:
        self.peer = peer
        self.probe = Probe(now)
        self.loss = loss  # outlives the link for a while, see `Hearings`
        self.place = Place(now, outbound=outbound)
        self.tree = Branch()
        self.views = Views()
        self.cost = Cost(now)
        self.signals = TokenBucket(
            burst=_SIGNALS_BURST, per_second=_SIGNALS_RATE, now=now
        )  # of others, to be passed on
        self.faults = 0  # broken frames that came over the link
        self.degree = 0  # links that the peer says it has; 0: not said yet
        self.large: bool | None = None  # whether the peer takes the room for a large one; None: not said yet
        self.lonely = False  # it was our only link when it came up


class Neighbours:
    """How to drive it:

    1. `open(peer, now, outbound=...)` when a link is up; a new link to the same peer replaces the old.
    2. `lose(peer)` when it broke and the peer may live: it is asked for through helpers. Else `close(peer)`.
    3. `close(peer)` ends it in any case. Nothing of it is left then, but for its counters of lost frames.
    """

    def __init__(self) -> None:
        self.links: dict[PeerId, Neighbour] = {}  # that are up, in the order in which they came up
        self.watched: dict[PeerId, Neighbour] = {}  # these, and whom only helpers may reach
        self.hearings = Hearings()
        self.awake_at = (
            -math.inf
        )  # when the detector last looked at any: who stood still since then lost nothing by deafness

    def open(self, peer: PeerId, now: float, *, outbound: bool) -> Neighbour:
        replaced = self.links.get(peer)
        self.close(peer)
        neighbour = Neighbour(peer, now, self.hearings.link_up(peer, now), outbound=outbound)
        if replaced is not None:  # the same peer: what it proved, owes and used up stands
            neighbour.tree, neighbour.signals = replaced.tree, replaced.signals
            neighbour.place.unbiased = outbound and replaced.place.unbiased
        self.links[peer] = self.watched[peer] = neighbour
        return neighbour

    def lose(self, peer: PeerId) -> Neighbour | None:
        return self.links.pop(peer, None)

    def close(self, peer: PeerId) -> Neighbour | None:
        """The link, if it was up."""
        neighbour = self.watched.pop(peer, None)
        if neighbour is not None:
            self.hearings.link_down(peer, neighbour.loss, max(self.awake_at, neighbour.probe.heard_at))
        return self.links.pop(peer, None)

    def clear(self) -> None:
        self.links.clear()
        self.watched.clear()

    @property
    def good(self) -> list[Neighbour]:
        """Those on whose links frames come through."""
        return [neighbour for neighbour in self.links.values() if not neighbour.probe.impaired]
