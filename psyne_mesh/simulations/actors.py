"""How a host gets its node: the gossip core itself, or one of the baselines, under the name that scenarios use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from psyne_mesh.gossip.codec import peer_of_key
from psyne_mesh.gossip.config import GossipConfig
from psyne_mesh.gossip.freshness import Calendar
from psyne_mesh.gossip.node import Node
from psyne_mesh.identity import Identity, PeerId, verify_untrusted
from psyne_mesh.simulations.baselines.flooding import FloodNode
from psyne_mesh.simulations.baselines.gossipsub import GossipSubNode
from psyne_mesh.simulations.baselines.plumtree import PlumtreeNode
from psyne_mesh.simulations.baselines.swim import LifeguardNode, SwimNode
from psyne_mesh.simulations.net import Host

if TYPE_CHECKING:
    from psyne_mesh.simulations.actor import Actor
    from psyne_mesh.simulations.world import World

ROOM = b"simulation"
_EPOCH_0_MS = 1_800_000_000_000  # the wall clock at virtual time 0


@attrs.frozen
class StubSigner:
    """A key pair for large runs: ids, sizes and domains are those of ed25519, the signature proves nothing."""

    public_key: bytes
    peer_id: PeerId

    @classmethod
    def of(cls, seed: bytes) -> StubSigner:
        public_key = hashlib.blake2b(seed, digest_size=32).digest()
        return cls(public_key, peer_of_key(public_key))

    def sign(self, domain: bytes, payload: bytes, /) -> bytes:
        return hashlib.blake2b(payload, key=self.public_key, person=domain[:16]).digest()


def stub_verify(public_key: bytes, domain: bytes, payload: bytes, signature: bytes) -> PeerId:
    """Believes every signature: scale runs measure protocols, not ed25519. Attacks run with real keys."""
    return peer_of_key(public_key)


def seed_of(run_seed: int, index: int) -> bytes:
    return hashlib.blake2b(f"key/{run_seed}/{index}".encode(), digest_size=32).digest()


class NodeFactory:
    """Makes the signers of a run, and a node for each start of a host."""

    def __init__(
        self,
        kind: str,
        seed: int,
        config: dict[str, Any],
        *,
        real_signatures: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if kind != "node" and kind not in BASELINES:
            raise ValueError(f"unknown actor {kind!r}: node, {', '.join(BASELINES)}")
        self.kind = kind
        self.config = GossipConfig(**config)
        self._options = dict(options or {})  # of a baseline
        self._seed = seed
        self._real_signatures = real_signatures
        self._signers: list[Identity | StubSigner] = []
        self.overrides: dict[int, Callable[[World, Host], Actor]] = {}  # hosts that run something else: attackers

    def new_peer(self) -> PeerId:
        """The id of the next host."""
        seed = seed_of(self._seed, len(self._signers))
        signer = Identity.from_seed(seed) if self._real_signatures else StubSigner.of(seed)
        self._signers.append(signer)
        return signer.peer_id

    def signer(self, index: int) -> Identity | StubSigner:
        return self._signers[index]

    def __call__(self, world: World, host: Host) -> Actor:
        special = self.overrides.get(host.index)
        if special is not None:
            return special(world, host)
        if self.kind != "node":
            assert host.rng is not None
            baseline: Actor = BASELINES[self.kind](host.peer, host.rng, **self._options)
            return baseline
        return self.make_node(world, host)

    def make_node(self, world: World, host: Host, **options: Any) -> Node:
        assert host.rng is not None
        wall_ms, now = _EPOCH_0_MS + int((world.now + host.wall_offset) * 1000), host.local(world.now)
        return Node(
            self.config,
            self.signer(host.index),
            ROOM,
            rng=host.rng,
            verify=verify_untrusted if self._real_signatures else stub_verify,
            epoch=wall_ms,
            calendar=Calendar(wall_ms / 1000 - now),
            now=now,
            **options,
        )


BASELINES: dict[str, Callable[..., Any]] = {
    "swim": SwimNode,
    "lifeguard": LifeguardNode,
    "flooding": FloodNode,
    "gossipsub": GossipSubNode,
    "plumtree": PlumtreeNode,
}
