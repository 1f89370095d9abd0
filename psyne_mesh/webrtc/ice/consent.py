"""Is the selected path still alive, and may we still send on it (RFC 7675)? Pure: time and dice come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    import random

INTERVAL_S: Final = 5.0  # RFC 7675 section 5.1: spread over 0.8 to 1.2 of it
INTERVAL_MIN_S: Final = 0.8 * INTERVAL_S
INTERVAL_MAX_S: Final = 1.2 * INTERVAL_S
EXPIRY_S: Final = 30.0  # RFC 7675 section 5.1
ANSWER_MIN_S: Final = 0.5  # aioice's fixed deadline, which kills links with a longer round trip; ours grows with it
ANSWER_ROUND_TRIPS: Final = 3.0
SUSPICION_S: Final = 1.0  # between checks while answers are missing
EXPIRED_S: Final = 2.0  # between checks after consent expired: they ask for a new one, and are no data
MISSED_MAX: Final = 3  # checks without answer, and nothing else heard, before the path counts as disconnected
SMOOTHING: Final = 0.125  # RFC 6298 section 2

Verdict: TypeAlias = Literal["check", "disconnected", "expired"]


class Consent:
    """The timers of one selected path.

    1. Create it when the path is selected; the first check is due at once, the second half a second later: on the
       controlling side they also confirm the nomination.
    2. Sleep until `next_timeout()`, then do what `handle_timeout(now)` says; "check" means send one and call
       `check_sent(now)`.
    3. `check_answered(now, rtt_s)` for its answer; `note_alive(now)` for anything else that the peer authenticated: a
       check of its own, or data that decrypted. A peer whose answers alone are lost is not dead.
    4. `suspect(now)` when something else hints at silence; `distrust(now)` when it is sure. Only an answer to a check
       ends distrust: what comes from the peer says nothing of our own direction.
    """

    __slots__ = (
        "_alive_at",
        "_answer_due",
        "_check_due",
        "_checks",
        "_distrusted",
        "_missed",
        "_rng",
        "answered",
        "disconnected",
        "expired",
        "srtt_s",
    )

    def __init__(self, now: float, rng: random.Random, srtt_s: float | None = None) -> None:
        self._rng = rng
        self._alive_at = now
        self._check_due = now
        self._answer_due: float | None = None
        self._missed = 0
        self._checks = 0
        self._distrusted = False
        self.answered = 0
        self.srtt_s = srtt_s
        self.disconnected = False
        self.expired = False

    @property
    def checks_sent(self) -> int:
        return self._checks

    @property
    def answer_deadline_s(self) -> float:
        """How long an answer may take before the check counts as missed."""
        return max(ANSWER_MIN_S, ANSWER_ROUND_TRIPS * (self.srtt_s or 0.0))

    def next_timeout(self) -> float:
        due = self._check_due if self._answer_due is None else min(self._check_due, self._answer_due)
        return due if self.expired else min(due, self._alive_at + EXPIRY_S)

    def handle_timeout(self, now: float) -> list[Verdict]:
        verdicts: list[Verdict] = []
        if self._answer_due is not None and now >= self._answer_due:
            self._answer_due = None
            self._missed += 1
            self._check_due = min(self._check_due, now + max(0.0, SUSPICION_S - ANSWER_MIN_S))
            if self._missed >= MISSED_MAX and not self.disconnected:
                self.disconnected = True
                verdicts.append("disconnected")
        if now >= self._alive_at + EXPIRY_S and not self.expired:
            self.expired = True
            verdicts.append("expired")
        if now >= self._check_due:
            verdicts.append("check")
        return verdicts

    def distrust(self, now: float) -> bool:
        """A heartbeat above has missed the peer for long: disconnected until a check is answered, and one is due at once.
        False when that is known already."""
        if self.expired:
            return False
        self._distrusted = True
        if self.disconnected:
            return False
        self.disconnected = True
        self._missed = max(self._missed, 1)
        self._check_due = now
        return True

    def check_sent(self, now: float, appointment: float = 0.0) -> float:
        """When the next one is due. appointment: when others of this port are to be checked; where it is as good as a
        throw of our own we join, since to wake is what costs. It was random for them, so it is for us."""
        self._checks += 1
        self._answer_due = now + self.answer_deadline_s
        # Without consent we go on asking for it: the peer may be back after an hour.
        if self.expired:
            due = now + EXPIRED_S
        elif self._missed or self._checks == 2:
            due = now + SUSPICION_S
        elif self._checks == 1:
            due = now + ANSWER_MIN_S
        elif now + INTERVAL_MIN_S <= appointment <= now + INTERVAL_MAX_S:
            due = appointment
        else:
            due = now + INTERVAL_S * self._rng.uniform(0.8, 1.2)
        self._check_due = max(due, self._answer_due)
        return self._check_due

    def check_answered(self, now: float, rtt_s: float) -> bool:
        """True when this ends a disconnection. An answer after its deadline counts too: slow is not dead. After consent
        expired, an answer to a check of ours is a new consent."""
        self.expired = self._distrusted = False
        self.answered += 1
        self._answer_due = None
        self.srtt_s = rtt_s if self.srtt_s is None else (1 - SMOOTHING) * self.srtt_s + SMOOTHING * rtt_s
        return self.note_alive(now)

    def suspect(self, now: float) -> None:
        """The layer above misses what it expects of the peer: check now, and believe in silence sooner."""
        if self._answer_due is None and not self._missed:
            self._missed = 1
            self._check_due = now

    def note_alive(self, now: float) -> bool:
        """True when this ends a disconnection."""
        if self.expired:
            return False
        self._alive_at = now
        if self._distrusted:
            return False
        self._missed = 0
        revived, self.disconnected = self.disconnected, False
        return revived
