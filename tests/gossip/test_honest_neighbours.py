"""Nobody honest is parted from for what it costs: loss, machines that stand still, floods of bulk, large rooms and small."""

from __future__ import annotations

import random

import pytest

from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.events import TwoFaced
from tests.gossip.cluster import Cluster

PARTIAL = GossipConfig(full_mesh_max=4, full_mesh_hysteresis=1)


def room(seed: int) -> Cluster:
    """Half a minute of a bad day."""
    rng = random.Random(seed)
    config = rng.choice([GossipConfig(), GossipConfig(max_players=8), PARTIAL])
    cluster = Cluster(seed, config, loss=0.1)
    first = cluster.add(0).peer_id
    for index in range(1, rng.randrange(3, 12)):
        cluster.add(index, knows=[first])
    cluster.run(8.0)
    for _ in range(3):
        talker, slow = rng.sample(cluster.ids(), 2)
        every, payload = 1 / rng.choice([20, 100, 300]), bytes(rng.choice([20, 1000, 8000]))
        until = cluster.now + 2.0

        def talk(talker=talker, every=every, payload=payload, until=until) -> None:  # type: ignore[no-untyped-def]
            cluster.say(talker, payload)
            if cluster.now + every < until:
                cluster.at(cluster.now + every, talk)

        cluster.at(cluster.now, talk)
        cluster.stall(slow, rng.uniform(1.0, 6.0))
        cluster.run(1.0)
    return cluster


def judge(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        assert not node._core.shunned
        assert node.stats.frames_over_budget == 0
        assert node.stats.items_refused == 0
    assert not cluster.events(TwoFaced)


@pytest.mark.parametrize("seed", range(4))
def test_an_honest_neighbour_is_within_its_budget(seed: int) -> None:
    judge(room(seed))


@pytest.mark.slow
def test_so_it_is_in_a_thousand_rooms() -> None:
    for seed in range(1000):
        judge(room(seed))
