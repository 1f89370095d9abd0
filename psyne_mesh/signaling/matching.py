"""Who plays with whom: which instance of a lobby fits a player, and which of those who wait belong together. Pure.

Skill: a player names a range, and two fit while their ranges overlap. A range widens by its own width in `WIDEN_S`, on both
sides, and after `PATIENCE_S` it holds everybody: nobody waits for ever for an equal who does not come.
Region: the same text, or one that the player measured as near; after `ROAM_S` any that it did not measure as far.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs

from psyne_mesh.identity import PeerId
from psyne_mesh.signaling.events import SkillRange

SETTLE_S = 0.5  # so long a newcomer waits before a group is made: who comes with it may fit better than who is here
# Half as fast costs longer waits, twice as fast half a room's likeness (`python -m benchmarks.matchmaking quality`).
WIDEN_S = 20.0
PATIENCE_S = 20.0  # with ROAM_S and two looks well under half a minute, after which players give up (a guess)
ROAM_S = 8.0
NEAR_MS = 80.0  # a region of that round trip is as good as one's own for most games; a guess
FAR_MS_PER_S = 10.0  # so much farther with each second of waiting
_NEIGHBOURS = 16  # in order of skill, to either side, that are looked at for one player: what a look costs is bounded
_ANCHORS_MAX = 128  # players for whom a group is sought in one look, those who wait longest


@attrs.frozen(kw_only=True)
class Seeker:
    """Who waits for `players` to play with. `since` in seconds; `rtt_ms`: measured round trips to regions. Those who name
    the same `party` enter together, and not before `party_size` of them are here."""

    peer: PeerId
    since: float
    skill_range: SkillRange | None = None
    region: str = ""
    rtt_ms: Mapping[str, float] = attrs.Factory(dict)
    party: str = ""
    party_size: int = 1


def reaches(region: str, seeker_region: str, rtt_ms: Mapping[str, float], waited_s: float) -> bool:
    """Whether a player may play in `region` by now."""
    if region == seeker_region:
        return True
    measured = rtt_ms.get(region)
    if measured is not None:
        return measured <= NEAR_MS + FAR_MS_PER_S * waited_s
    return waited_s >= ROAM_S


def overlap(one: SkillRange | None, other: SkillRange | None) -> bool:
    """Closed intervals; None is everybody."""
    return one is None or other is None or (one[0] <= other[1] and other[0] <= one[1])


def widened(skill_range: SkillRange | None, waited_s: float) -> SkillRange | None:
    if skill_range is None or waited_s >= PATIENCE_S:
        return None
    low, high = skill_range
    more = max(high - low, 1.0) * waited_s / WIDEN_S
    return low - more, high + more


def centre(skill_range: SkillRange | None) -> float | None:
    return None if skill_range is None else (skill_range[0] + skill_range[1]) / 2


def skill_gap(one: SkillRange | None, other: SkillRange | None) -> float:
    """Between the middles; 0 where one says nothing."""
    a, b = centre(one), centre(other)
    return 0.0 if a is None or b is None else abs(a - b)


def best_groups(seekers: Iterable[Seeker], players: int, now: float) -> list[tuple[Seeker, ...]]:
    """Groups of exactly `players` who may start now, who waits longest first; nobody is in two. The first of each group is
    the one who waited longest."""
    free = _Units(_units(seekers))
    groups = []
    for anchor in free.by_age()[:_ANCHORS_MAX]:
        if anchor in free and now - anchor.since >= SETTLE_S:
            members = _gather(anchor, free.near(anchor), players, now)
            if members is not None:
                free.take(members)
                groups.append(tuple(seeker for unit in members for seeker in unit.seekers))
    return groups


def complete_parties(seekers: Iterable[Seeker]) -> list[tuple[Seeker, ...]]:
    """Those of whom all are here, for a room that has as many seats free."""
    parties: dict[tuple[str, int], list[Seeker]] = {}
    for seeker in seekers:
        if seeker.party:
            parties.setdefault((seeker.party, seeker.party_size), []).append(seeker)
    return [tuple(members[:size]) for (_, size), members in parties.items() if len(members) >= size]


# ------------------------------------------------------------------------------------------------------------- helpers


@attrs.frozen(eq=False)
class _Unit:
    """One player, or a party that is complete."""

    seekers: tuple[Seeker, ...]
    since: float
    skill_range: SkillRange | None
    skill: float

    @property
    def size(self) -> int:
        return len(self.seekers)


class _Units:
    """Those who are free, in order of skill and of age."""

    def __init__(self, units: Sequence[_Unit]) -> None:
        self._units = list(units)
        self._sorted: list[tuple[float, int]] = []
        self._at = {id(unit): number for number, unit in enumerate(units)}
        for number, unit in enumerate(units):
            insort(self._sorted, (unit.skill, number))

    def __contains__(self, unit: _Unit) -> bool:
        return id(unit) in self._at

    def by_age(self) -> list[_Unit]:
        return sorted(self._units, key=lambda unit: (unit.since, unit.seekers[0].peer))

    def near(self, anchor: _Unit) -> list[_Unit]:
        """The nearest in skill, nearest first."""
        here = bisect_left(self._sorted, (anchor.skill, self._at[id(anchor)]))
        around = self._sorted[max(0, here - _NEIGHBOURS) : here] + self._sorted[here + 1 : here + 1 + _NEIGHBOURS]
        units = [self._units[number] for _, number in around]
        return sorted(units, key=lambda unit: (abs(unit.skill - anchor.skill), unit.since, unit.seekers[0].peer))

    def take(self, units: Iterable[_Unit]) -> None:
        for unit in units:
            number = self._at.pop(id(unit))
            del self._sorted[bisect_left(self._sorted, (unit.skill, number))]


def _units(seekers: Iterable[Seeker]) -> list[_Unit]:
    """A party that is not complete waits, and so does none of it."""
    seekers = list(seekers)
    everybody = [(seeker,) for seeker in seekers if not seeker.party] + complete_parties(seekers)
    known = [middle for members in everybody if (middle := centre(_of_party(members))) is not None]
    typical = sum(known) / len(known) if known else 0.0  # where who says nothing stands
    units = []
    for members in everybody:
        skill_range = _of_party(members)
        middle = centre(skill_range)
        since = min(seeker.since for seeker in members)
        units.append(_Unit(members, since, skill_range, typical if middle is None else middle))
    return units


def _of_party(members: Sequence[Seeker]) -> SkillRange | None:
    """The middle of all, as wide as the widest."""
    ranges = [seeker.skill_range for seeker in members if seeker.skill_range is not None]
    if not ranges:
        return None
    middle = sum(low + high for low, high in ranges) / (2 * len(ranges))
    half = max((high - low) / 2 for low, high in ranges)
    return middle - half, middle + half


def _gather(anchor: _Unit, near: Sequence[_Unit], players: int, now: float) -> list[_Unit] | None:
    if anchor.size > players:
        return None
    chosen, size = [anchor], anchor.size
    overdue = now - anchor.since >= PATIENCE_S
    for unit in near:
        if size == players:
            break
        if size + unit.size <= players and (overdue or all(_fit(unit, other, now) for other in chosen)):
            chosen.append(unit)
            size += unit.size
    return chosen if size == players else None


def _fit(one: _Unit, other: _Unit, now: float) -> bool:
    ranges = (widened(unit.skill_range, now - unit.since) for unit in (one, other))
    return overlap(*ranges) and all(
        _share_a_region(mine, yours, now) for mine in one.seekers for yours in other.seekers
    )


def _share_a_region(one: Seeker, other: Seeker, now: float) -> bool:
    """One of the two plays where the other is at home; who waited longer gives way first."""
    return reaches(other.region, one.region, one.rtt_ms, now - one.since) or reaches(
        one.region, other.region, other.rtt_ms, now - other.since
    )


def region_of(group: Sequence[Seeker]) -> str:
    """Where a group plays: where most are at home; of several such, where the worst measured round trip is least."""
    homes = Counter(seeker.region for seeker in group)
    most = max(homes.values())

    def worst_ms(region: str) -> float:
        return max((seeker.rtt_ms.get(region, math.inf) for seeker in group if seeker.region != region), default=0.0)

    return min(
        (region for region, count in homes.items() if count == most), key=lambda region: (worst_ms(region), region)
    )
