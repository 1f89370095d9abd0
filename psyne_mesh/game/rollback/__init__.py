"""Rollback: one simulation on every machine of a room. `Game` is the whole state, `RollbackSession` the protocol
without it.
"""

from psyne_mesh.game.rollback.desync import CHECK_EVERY_TICKS
from psyne_mesh.game.rollback.effects import Effect
from psyne_mesh.game.rollback.events import (
    Advance,
    Contradiction,
    DelayChanged,
    Desync,
    JoinRefused,
    Load,
    PlayerInput,
    Request,
    Resumed,
    Save,
    SeatJoined,
    SeatLeft,
    SessionEvent,
    SnapshotDisputed,
    Stalled,
)
from psyne_mesh.game.rollback.game import Budget, Game, GameFailed, Random, Simulation, difference_of
from psyne_mesh.game.rollback.inputs import Axis, Input, InputLayout
from psyne_mesh.game.rollback.lint import Finding, lint
from psyne_mesh.game.rollback.session import RollbackSession, SessionStats
from psyne_mesh.game.rollback.spectator import Feed, Spectator

__all__ = [
    "CHECK_EVERY_TICKS", "Advance", "Axis", "Budget", "Contradiction", "DelayChanged", "Desync", "Effect", "Feed", "Finding",
    "Game", "GameFailed", "Input", "InputLayout", "JoinRefused", "Load", "PlayerInput", "Random", "Request", "Resumed",
    "RollbackSession", "Save", "SeatJoined", "SeatLeft", "SessionEvent", "SessionStats", "Simulation",
    "SnapshotDisputed", "Spectator", "Stalled", "difference_of", "lint",
]  # fmt: skip
