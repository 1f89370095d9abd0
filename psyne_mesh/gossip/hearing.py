"""Who of the two ends of a link is deaf: each probe tells how many probes its sender has sent and got on this link.

Silence alone cannot tell a dead peer from a deaf node: a node that loses what comes in finds everybody else silent, and
everybody else hears it well. The counters of both sides tell the two directions of a link apart, without clocks. Only the
deaf node itself acts on them, so nobody can be talked out of a room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

_MASK = 0xFFFF
_JUMP_MAX = 4096  # a counter that jumps by more belongs to another life of the link
_WINDOW = 24  # probes; then the older half of what we know weighs half
_SAMPLE_MIN = 4  # fewer probes say nothing
_LOST_IN = 0.6  # deaf: at least so much of what was sent to us is lost ...
_LOST_OUT = 0.35  # ... and at most so much of what we send. Loss both ways is the network's affair, not ours alone.
_RECOVERY = 0.25  # a second of good hearing makes up for so much of a deaf one
_LINKS_MIN = 3  # with fewer links there is no telling who is deaf


class Hearing:
    """One link. `sent` and `got` are what our probes tell; `deaf_s` is for how long we have been deaf on it."""

    __slots__ = (
        "_at", "_in_due", "_in_got", "_out_due", "_out_got", "_sent_then", "_their_got", "_their_sent",
        "deaf_s", "got", "sent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sent = self.got = 0
        self.deaf_s = 0.0
        self._at = -math.inf  # of the newest probe of the peer
        self._their_sent = self._their_got = self._sent_then = 0
        self._in_due = self._in_got = self._out_due = self._out_got = 0.0

    def probe_received(self, sent: int, got: int, now: float) -> None:
        """The counters of a probe of the peer. One that was overtaken by a newer one says nothing new."""
        self.got = (self.got + 1) & _MASK
        since, due = self._at, (sent - self._their_sent) & _MASK
        if since > -math.inf and (due == 0 or due > _MASK - _JUMP_MAX):
            self._in_got += 1
            return
        out_due, out_got = (self.sent - self._sent_then) & _MASK, (got - self._their_got) & _MASK
        self._at, self._their_sent, self._their_got, self._sent_then = now, sent, got, self.sent
        if since == -math.inf or max(due, out_got) > _JUMP_MAX:
            return
        if self._in_due > _WINDOW:
            self._in_due, self._in_got, self._out_due, self._out_got = (
                count / 2 for count in (self._in_due, self._in_got, self._out_due, self._out_got)
            )
        self._in_due += due
        self._in_got += 1
        self._out_due += out_due
        self._out_got += out_got
        if self._is_deaf():
            self.deaf_s += now - since
        elif self.deaf_s:
            self.deaf_s = max(0.0, self.deaf_s - _RECOVERY * (now - since))

    def _is_deaf(self) -> bool:
        if self._in_due < _SAMPLE_MIN or self._out_due < _SAMPLE_MIN:
            return False
        return self._in_got <= (1 - _LOST_IN) * self._in_due and self._out_got >= (1 - _LOST_OUT) * self._out_due


def deaf_for(links: Iterable[Hearing]) -> float:
    """For how long most links have found us deaf, in seconds: the median, and the lower one of two."""
    times = sorted(link.deaf_s for link in links)
    return times[(len(times) - 1) // 2] if len(times) >= _LINKS_MIN else 0.0
