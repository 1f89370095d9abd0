"""Who of the two ends of a link is deaf: each probe tells how many probes its sender has sent and got on this link.

Silence alone cannot tell a dead peer from a deaf node: a node that loses what comes in finds everybody else silent, and
everybody else hears it well. The counters of both sides tell the two directions of a link apart, without clocks. Only the
deaf node itself acts on them, and only when most of its links agree: fewer liars cannot talk anybody out of a room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from psyne_mesh.identity import PeerId

_MASK = 0xFFFF
_JUMP_MAX = 4096  # a counter that jumps by more belongs to another life of the link
_WINDOW = 24  # probes; then the older half of what we know weighs half
_SAMPLE_MIN = 4  # fewer probes say nothing
_LOST_IN = 0.6  # deaf: at least so much of what was sent to us is lost ...
_LOST_OUT = 0.35  # ... and at most so much of what we send. Loss both ways is the network's affair, not ours alone.
_RECOVERY = 0.25  # a second of good hearing makes up for so much of a deaf one
_STRETCH_MIN = 6  # so many probes lost in a row, while as many of ours came through, are deafness whatever was before
_APART_S = 15.0  # a deaf node gives up its links before it hears again: so much of the time without one counts as deaf
_SETTLE_S = 1.0  # after we stood still, until the counters speak of now again: old probes come first
_KNOWN_S = 5.0  # a peer whom we have known for less has nothing to say of our past
LINKS_MIN = 3  # with fewer links there is no telling who is deaf
_GAP_S = 10.0  # a link whose peer was silent for longer knows nothing of that time
_KEPT_S = 120.0  # so long do counters outlive the link
_KEPT_MAX = 64  # peers whose counters outlive the link; whom we parted from first is forgotten first


class Hearing:
    """One peer, over all its links. `sent` and `got` are what our probes tell; `deaf_s` is for how long we have been deaf
    on it; `known_s`, for how long we have had its probes; `steady_s`, for how long without a gap."""

    __slots__ = (
        "_apart_at", "_at", "_in_due", "_in_got", "_out_due", "_out_got", "_sent_then", "_settled_at", "_their_got",
        "_their_sent", "deaf_s", "got", "known_s", "sent", "steady_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sent = self.got = 0
        self.deaf_s = self.known_s = self.steady_s = 0.0
        self._apart_at = math.inf
        self._at = -math.inf  # of the newest probe of the peer
        self._settled_at = -math.inf  # what comes before only says where the counters stand
        self._their_sent = self._their_got = self._sent_then = 0
        self._in_due = self._in_got = self._out_due = self._out_got = 0.0

    def parted(self, now: float) -> None:
        """The link is gone."""
        self._apart_at = now

    @property
    def is_known(self) -> bool:
        """Whether the peer can say something of our past."""
        return self.known_s >= _KNOWN_S

    def is_company(self, now: float) -> bool:
        """Whether the peer heard us, and we it, all the time until now: it knows that we live. Who was out of reach as long as
        we were is as much in doubt as we are."""
        return self.steady_s >= _KNOWN_S and now - self._at <= _GAP_S

    def told_since(self, time: float) -> bool:
        """Whether a probe of the peer came after that time."""
        return self._at > time

    def is_stale(self, now: float) -> bool:
        return now - self._apart_at > _KEPT_S

    def met(self, now: float) -> bool:
        """There is a link again. False if what we know is too old."""
        if self.is_stale(now):
            return False
        self._at += max(0.0, now - self._apart_at - _APART_S)
        self._apart_at = math.inf
        return True

    def stood_still(self, now: float) -> None:
        """Our own process did. What was lost meanwhile, a link for instance, says nothing of our hearing."""
        self._at = -math.inf
        self._settled_at = now + _SETTLE_S

    def probe_received(self, sent: int, got: int, now: float) -> None:
        """The counters of a probe of the peer. One that was overtaken by a newer one says nothing new."""
        self.got = (self.got + 1) & _MASK
        since, due = self._at, (sent - self._their_sent) & _MASK
        if since > -math.inf and (due == 0 or due > _MASK - _JUMP_MAX):
            self._in_got += 1
            return
        out_due, out_got = (self.sent - self._sent_then) & _MASK, (got - self._their_got) & _MASK
        self._at, self._their_sent, self._their_got, self._sent_then = now, sent, got, self.sent
        if since == -math.inf or now < self._settled_at or max(due, out_got) > _JUMP_MAX:
            return
        if self._in_due > _WINDOW:
            self._in_due, self._in_got, self._out_due, self._out_got = (
                count / 2 for count in (self._in_due, self._in_got, self._out_due, self._out_got)
            )
        self._in_due += due
        self._in_got += 1
        self._out_due += out_due
        self._out_got += out_got
        self.known_s += now - since
        self.steady_s = self.steady_s + now - since if now - since <= _GAP_S else 0.0
        stretch = min(due, out_due) >= _STRETCH_MIN and out_got >= (1 - _LOST_OUT) * out_due
        if stretch or self._is_deaf():
            self.deaf_s += now - since
        elif self.deaf_s:
            self.deaf_s = max(0.0, self.deaf_s - _RECOVERY * (now - since))

    def _is_deaf(self) -> bool:
        if self._in_due < _SAMPLE_MIN or self._out_due < _SAMPLE_MIN:
            return False
        return self._in_got <= (1 - _LOST_IN) * self._in_due and self._out_got >= (1 - _LOST_OUT) * self._out_due


class Hearings:
    """The counters of all links, and of some that are gone: a deaf node loses its links, and the counters tell why when
    they come up again. How to drive it: `link_up`, `link_down` follow the links; `clear` after a long rest."""

    def __init__(self) -> None:
        self._kept: dict[PeerId, Hearing] = {}

    def link_up(self, peer: PeerId, now: float) -> Hearing:
        hearing = self._kept.pop(peer, None)
        if hearing is None or not hearing.met(now):
            hearing = Hearing()
        return hearing

    def former(self, now: float) -> list[PeerId]:
        """The peers whose links went not long ago, if we knew them for long enough; the last ones come last."""
        return [peer for peer, hearing in self._kept.items() if hearing.is_known and not hearing.is_stale(now)]

    def stood_still(self, now: float) -> None:
        """See `Hearing`: of the peers without a link."""
        for hearing in self._kept.values():
            hearing.stood_still(now)

    def clear(self) -> None:
        self._kept.clear()

    def link_down(self, peer: PeerId, hearing: Hearing, now: float) -> None:
        hearing.parted(now)
        kept = self._kept
        kept.pop(peer, None)
        kept[peer] = hearing
        while len(kept) > _KEPT_MAX or next(iter(kept.values())).is_stale(now):
            del kept[next(iter(kept))]


def deaf_for(links: Iterable[Hearing]) -> float:
    """For how long most links have found us deaf, in seconds: the median, and the lower one of two. Those who have only
    met us are not asked."""
    times = sorted(link.deaf_s for link in links if link.is_known)
    return times[(len(times) - 1) // 2] if len(times) >= LINKS_MIN else 0.0
