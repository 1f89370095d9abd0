"""What differs with the size of a room: one frozen `Policy` for each mode, handed to the machines in one call."""

from __future__ import annotations

from enum import Enum

from psyne_mesh.frozen import Frozen


class Mode(Enum):
    FULL = "full"  # a link to everybody
    PARTIAL = "partial"  # everybody known, few links
    LOBBY = "lobby"  # few known, few links


class Policy(Frozen):
    """`links_all`: everybody wants a link to everybody. `knows_all`: who has no record is no member; views are compared, and
    others watch whom we watch. `by_tree`: news and broadcasts take the broadcast tree. `together`: verdicts of one cut wait
    for each other. `pace` stretches the times of probing: in a large room neighbours are fewer, but rooms and costs larger.
    """

    mode: Mode
    links_all: bool
    knows_all: bool
    by_tree: bool
    together: bool
    pace: float


FULL = Policy(Mode.FULL, True, True, False, False, 1.0)
PARTIAL = Policy(Mode.PARTIAL, False, True, True, True, 2.0)
LOBBY = Policy(Mode.LOBBY, False, False, True, False, 2.0)
POLICIES = {policy.mode: policy for policy in (FULL, PARTIAL, LOBBY)}
