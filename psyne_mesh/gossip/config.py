"""What may be tuned in the gossip layer: frozen, bounded; each default says where it comes from.

Nothing here need agree between peers, except `max_players` (it belongs to the room), and `record_lifetime_s` by a factor
of two: a record counts for no longer than two lifetimes of its reader's.
"""

from __future__ import annotations

from typing import Any

import attrs

from psyne_mesh.errors import InvalidConfig


def _within(low: float, high: float) -> Any:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidConfig(f"{type(instance).__name__}.{attribute.name} = {value!r}: must lie in [{low}, {high}]")

    return check


def _field(default: Any, low: float, high: float) -> Any:
    return attrs.field(default=default, validator=_within(low, high))


@attrs.frozen(kw_only=True)
class GossipConfig:
    """Settings of one `Node`. Times are seconds."""

    # Size of the room.
    full_mesh_max: int = _field(16, 2, 64)  # 120 links; Donnybrook found 16-32 the ceiling of serverless action games
    full_mesh_hysteresis: int = _field(4, 0, 32)  # back to a full mesh at full_mesh_max - 4: no flapping at the edge
    full_knowledge_max: int = _field(
        256, 16, 4096
    )  # 256 records of ~300 B are 77 KB, once; beyond that a lobby, without seats
    max_players: int = _field(0, 0, 1024)  # seats; a room sets its own; 0: none, as only nodes driven by hand have it
    seat_hold_s: float = _field(45.0, 0.0, 3600.0)  # a crashed player's seat waits for the same key

    # Failure detection: SWIM (DSN'02) with Lifeguard (DSN'18), tuned for games: a crash is known within 3 s.
    ping_interval_s: float = _field(0.5, 0.05, 60.0)
    suspect_after_s: float = _field(1.0, 0.1, 120.0)  # silence, or srtt + 4 rttvar if that is longer
    missed_pings: int = _field(3, 1, 20)
    indirect_probes: int = _field(3, 0, 8)  # SWIM's k
    suspicion_min_s: float = _field(1.0, 0.0, 120.0)
    suspicion_max_s: float = _field(6.0, 0.0, 600.0)
    confirmations: int = _field(2, 0, 8)  # Lifeguard's K
    local_health_max: int = _field(8, 1, 64)  # Lifeguard's S: patience grows up to 8 times
    deaf_after_s: float = _field(15.0, 1.0, 600.0)  # who hears so little for so long stands aside (see `hearing`)
    deaf_rest_s: float = _field(300.0, 1.0, 86_400.0)  # and comes back after that; each time it is twice as long

    # Dissemination.
    sync_interval_s: float = _field(5.0, 0.1, 600.0)
    record_lifetime_s: int = _field(300, 10, 86_400)  # the net under the net: a record not renewed is no member
    rumour_factor: int = _field(3, 1, 10)  # SWIM's lambda: piggybacked lambda * log2(n) times

    # Links.
    links_max: int = _field(24, 4, 256)  # peer connections of one process, all told
    dials_max: int = _field(16, 1, 64)  # in flight at once
    dial_backoff_min_s: float = _field(1.0, 0.05, 600.0)
    dial_backoff_max_s: float = _field(30.0, 0.05, 3600.0)
    dial_patience_s: float = _field(3.0, 0.0, 60.0)  # the elder waits for the newcomer's dial, against glare

    # Overlay: HyParView (DSN'07).
    latency_aware: bool = True  # False: neighbours are chosen at random, as in the paper
    active_view: int = _field(0, 0, 64)  # 0: ceil(log2 n), at least 6, at most 9
    active_walk_length: int = _field(6, 1, 16)  # ARWL of the paper
    passive_walk_length: int = _field(3, 0, 16)  # PRWL of the paper
    shuffle_interval_s: float = _field(15.0, 0.5, 600.0)  # 10-20 s after jitter

    # Broadcast: Plumtree (SRDS'07).
    broadcast_reliable: bool = True  # False: payloads on the unreliable channel where they fit, repaired by IHAVE
    broadcast_max_bytes: int = _field(16_384, 1, 65_536)
    ihave_delay_s: float = _field(0.01, 0.0, 1.0)  # batches announcements; 5-20 ms
    graft_timeout_min_s: float = _field(0.1, 0.01, 10.0)  # 80 ms and less cause spurious grafts on a WAN
    graft_timeout_max_s: float = _field(1.0, 0.01, 60.0)
    prune_interval_s: float = _field(1.0, 0.0, 60.0)  # at most one PRUNE to a neighbour in this time
    # Hops, as the paper for one sender; 4 more while many send, 1 for who alone sends.
    optimisation_threshold: int = _field(3, 1, 32)
    cache_s: float = _field(30.0, 1.0, 600.0)  # payloads kept for repair
    cache_bytes: int = _field(4 * 2**20, 65_536, 2**30)
    gap_timeout_s: float = _field(3.0, 0.1, 60.0)  # then FIFO steps over what nobody can give

    # Signals over the mesh.
    signal_ttl: int = _field(12, 1, 16)  # a record's way back is as long as a broadcast's last hop (10 in 200)
    signal_max_bytes: int = _field(16_384, 256, 65_536)

    # Healing.
    knock_interval_s: float = _field(5.0, 0.1, 600.0)
    knock_factor: float = _field(2.0, 0.0, 100.0)  # expected knocks of a component per interval, whatever its size
    partition_hold_s: float = _field(1.0, 0.0, 60.0)
    partition_min_lost: int = _field(3, 2, 64)

    def __attrs_post_init__(self) -> None:
        if self.suspicion_max_s < self.suspicion_min_s:
            raise InvalidConfig("suspicion_max_s must not be below suspicion_min_s")
        if self.dial_backoff_max_s < self.dial_backoff_min_s or self.graft_timeout_max_s < self.graft_timeout_min_s:
            raise InvalidConfig("a *_max_s must not be below its *_min_s")
        if self.full_mesh_max > self.links_max or self.full_mesh_hysteresis >= self.full_mesh_max:
            raise InvalidConfig("full_mesh_max must be at most links_max, and above full_mesh_hysteresis")
        if self.full_knowledge_max < self.max_players:  # who counts seats has to know everybody
            object.__setattr__(self, "full_knowledge_max", self.max_players)
        if self.full_knowledge_max < self.full_mesh_max:
            raise InvalidConfig("full_knowledge_max must be at least full_mesh_max")
