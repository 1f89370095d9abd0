"""How late everything is between us and another player: for an overlay, and for who wonders why a shot missed."""

from __future__ import annotations

from psyne_mesh.errors import InvalidConfig
from psyne_mesh.frozen import Frozen
from psyne_mesh.game.interpolation import Playback
from psyne_mesh.game.schema import Shared
from psyne_mesh.identity import PeerId


class LatencyReport(Frozen):
    """Of one player, in milliseconds; None where it is not known (yet).

    rtt_ms: the round trip of packets. clock_ahead_ms: by how much its clock of the room is ahead of ours, known to within
    clock_error_ms. lateness_ms: how much later than the quickest its state comes, all but three in a hundred messages.
    smoothing_ms: by how much that is shown later, so that it moves smoothly. seen_ago_ms: how old what we see of its objects
    is in all, by the room's clock.
    """

    rtt_ms: float | None = None
    clock_ahead_ms: float | None = None
    clock_error_ms: float | None = None
    lateness_ms: float | None = None
    smoothing_ms: float | None = None
    seen_ago_ms: float | None = None


def latency_report(
    rtt_ms: float | None,
    clock: tuple[float, float] | None,
    playback: Playback | None,
    correction: float | None,
    now: float,
) -> LatencyReport:
    """clock: (ahead, known to within) in seconds; correction: what the player adds to its clock for the room's time, of which
    it is `now`."""
    seen = None
    if playback is not None and correction is not None and playback.shown > float("-inf"):
        seen = 1000 * (now - playback.shown - correction)
    return LatencyReport(
        rtt_ms,
        None if clock is None else 1000 * clock[0],
        None if clock is None else 1000 * clock[1],
        None if playback is None else 1000 * playback.clock.lateness_s,
        None if playback is None else 1000 * playback.delay_s,
        seen,
    )


def owner_of(shared: Shared) -> PeerId | None:
    """None of an object that nobody shares. `InvalidConfig` for what is no object."""
    if not isinstance(shared, Shared):
        raise InvalidConfig(f"shown_time({shared!r}): must be a shared object, as `all` gives them")
    return None if shared.owner is None else shared.owner.id


def shown_time(playback: Playback | None, correction: float | None, now: float) -> float:
    """The room's time at which what is shown was so; `now` while that is not known."""
    if playback is None or correction is None or playback.shown == float("-inf"):
        return now
    return min(now, playback.shown + correction)
