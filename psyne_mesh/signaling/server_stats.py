"""What a server counts, and shows at /stats."""

from __future__ import annotations

from collections import Counter

import attrs
import trio

from psyne_mesh.signaling.cluster import ClusterSwitchboard
from psyne_mesh.signaling.cluster_member import ClusterMember
from psyne_mesh.signaling.switchboard import Switchboard


@attrs.frozen
class ServerStats:
    """Counters since the start, except `clients`, `rooms` and `members`, which are now."""

    uptime_s: float
    clients: int
    rooms: int
    members: int
    connections: int
    hellos: int
    rooms_created: int
    joins: int
    joins_refused: int
    leaves: int
    messages_received: int
    signals_relayed: int
    signals_not_relayed: int
    signals_dropped: int  # the receiver reads more slowly than its roommates send
    news_dropped: int  # the same, of who came and went
    turned_away: int  # connections over a limit, told to come back
    slammed: int  # the same, cut off, and handshakes that gave way to others
    garbage: int
    internal_errors: int
    cluster_dropped: int  # messages to other servers that were dropped here: the backplane is down or too slow
    cluster_lost: int  # messages of other servers that did not arrive
    servers: int  # of the cluster that this one hears, with itself; rooms and members are those that it keeps
    # Why clients went: left, lost, timeout, superseded, slow, misbehaved; or came in vain: full, version, not_proved.
    ends: dict[str, int]


class Tally:
    """counts: by the names of `ServerStats`, as far as the server counts them itself. ends: of connections, by cause."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.started_at = 0.0

    def stats(
        self, clients: int, desk: Switchboard, cluster: ClusterSwitchboard | None, member: ClusterMember | None
    ) -> ServerStats:
        registry = desk.stats
        return ServerStats(
            uptime_s=round(trio.current_time() - self.started_at, 3),
            clients=clients,
            rooms=registry.rooms,
            members=registry.members,
            connections=self.counts["connections"],
            hellos=self.counts["hellos"],
            rooms_created=registry.rooms_created,
            joins=registry.joins,
            joins_refused=registry.joins_refused,
            leaves=registry.leaves,
            messages_received=self.counts["messages"],
            signals_relayed=desk.relayed,
            signals_not_relayed=desk.not_relayed,
            signals_dropped=self.counts["signals_dropped"],
            news_dropped=self.counts["news_dropped"],
            turned_away=self.counts["turned_away"],
            slammed=self.counts["slammed"],
            garbage=self.counts["garbage"],
            internal_errors=self.counts["internal_errors"],
            cluster_dropped=member.dropped if member else 0,
            cluster_lost=cluster.lost if cluster else 0,
            servers=len(cluster.servers) if cluster else 1,
            ends=dict(self.ends),
        )
