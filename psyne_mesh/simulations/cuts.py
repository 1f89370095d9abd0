"""Partitions: who cannot hear whom. Several cuts may lie over one another."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

SIGNALING = -1  # the rendezvous server takes part in cuts under this index


@attrs.frozen(eq=False)
class Cut:
    """Hosts on different sides do not hear each other; hosts on no side are untouched by this cut.

    With `one_way = (a, b)` only what side `a` sends to side `b` is lost.
    """

    sides: dict[int, int]
    one_way: tuple[int, int] | None = None

    def blocks(self, src: int, dst: int) -> bool:
        """Whether frames from host `src` to host `dst` are lost."""
        return self.parts(self.sides.get(src), self.sides.get(dst))

    def parts(self, a: int | None, b: int | None) -> bool:
        """Whether frames from side `a` to side `b` are lost."""
        if a is None or b is None or a == b:
            return False
        return self.one_way is None or self.one_way == (a, b)


def split(groups: Sequence[Sequence[int]], *, signaling: int | None = None, one_way: bool = False) -> Cut:
    """A cut between groups of hosts. `signaling` names the one group that still reaches the rendezvous (None: all do).

    With `one_way` the frames from group 0 to group 1 are lost and nothing else.
    """
    sides = {index: side for side, group in enumerate(groups) for index in group}
    if signaling is not None:
        sides[SIGNALING] = signaling
    return Cut(sides, (0, 1) if one_way else None)


def regions(cuts: Sequence[Cut], *, bridged: bool = False) -> dict[tuple[int | None, ...], int]:
    """Which hosts can reach each other both ways, directly or over others: the region number of each `place`.

    Hosts with the same side in every cut are alike, so places are numbered, not hosts. A host that no cut knows counts as
    one that could carry messages between the sides it can reach; so does the rendezvous, if it bridges cuts.
    """
    places = dict.fromkeys(place(index, cuts) for cut in cuts for index in cut.sides if index != SIGNALING)
    if bridged:
        places[place(SIGNALING, cuts)] = None
    waiting = list(places)
    numbers: dict[tuple[int | None, ...], int] = {}
    while waiting:
        region = [waiting.pop(0)]
        for one in region:
            near = [other for other in waiting if _joined(one, other, cuts)]
            region += near
            waiting = [other for other in waiting if other not in near]
        numbers.update(dict.fromkeys(region, len(set(numbers.values()))))
    return numbers


def place(index: int, cuts: Sequence[Cut]) -> tuple[int | None, ...]:
    """The side of a host in each of the cuts."""
    return tuple(cut.sides.get(index) for cut in cuts)


def _joined(a: tuple[int | None, ...], b: tuple[int | None, ...], cuts: Sequence[Cut]) -> bool:
    return not any(cut.parts(x, y) or cut.parts(y, x) for cut, x, y in zip(cuts, a, b, strict=True))
