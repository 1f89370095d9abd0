"""One run of one scenario with one seed: builds the world, plays the timeline, takes the measures."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from psyne_mesh.identity import PeerId
from psyne_mesh.simulations import faults, figures, hooks
from psyne_mesh.simulations.accounting import Accounting
from psyne_mesh.simulations.actors import NodeFactory
from psyne_mesh.simulations.findings import Findings
from psyne_mesh.simulations.latency import make_latency
from psyne_mesh.simulations.net import Host, NetModel
from psyne_mesh.simulations.scenario import Scenario
from psyne_mesh.simulations.series import Sample, components_of, sample
from psyne_mesh.simulations.world import World

_ROOM_SEATS = 16  # the default of `join_game_room`
_SEATS_UP_TO = 256  # GossipConfig.full_knowledge_max: a larger room is a lobby, where nobody knows all claims


@attrs.frozen
class Note:
    """The counters of all hosts at one moment: the start or the end of a measured stretch."""

    at: float
    broadcasts: int
    load: dict[int, tuple[int, int, int, int]]  # host -> msgs out, bytes out, msgs in, bytes in


@attrs.frozen
class Result:
    """What one run found. `figures` are judged; `samples` and `sums` let the runner pool several seeds."""

    scenario: str
    nodes: int
    seed: int
    trace_hash: str
    order_hash: str
    events: int
    seconds: float
    findings: Findings


class Run:
    """Drive it so: `Run(scenario, nodes, seed)`, `play()`, then `result()`. Everything in between is open to hooks."""

    def __init__(self, scenario: Scenario, nodes: int, seed: int, arm: Mapping[str, Any] | None = None) -> None:
        arm = arm or {}
        self.scenario = scenario
        self.nodes = nodes
        self.seed = seed
        self.arm = str(arm.get("name", ""))
        self.rng = random.Random(f"scenario/{scenario.name}/{seed}")
        self.factory = NodeFactory(
            str(arm.get("actor", "node")),
            seed,
            {"max_players": seats_for(nodes), **scenario.config, **arm.get("config", {})},
            real_signatures=scenario.real_signatures,
            options=arm.get("options"),
        )
        net: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in scenario.net.items()
        }
        if self.factory.kind != "node":
            net["bridged"] = False  # a baseline's connection has one path
        latency = dict(scenario.latency)
        self.accounting = Accounting()
        config = self.factory.config
        self.world = World(
            seed, NetModel(**net), make_latency(latency.pop("model"), seed, **latency), self.factory, self.accounting,
            partial_from=config.full_mesh_max - config.full_mesh_hysteresis + 1,
        )  # fmt: skip
        self.accounting.world = self.world
        self.labels: dict[str, list[Host]] = {}
        self.named_cuts: dict[str, list[Any]] = {}
        self.spared: dict[int, None] = {}  # hosts that churn does not touch
        self.notes: dict[str, Note] = {}
        self.series: list[Sample] = []
        self.mended_at = float("nan")
        self.unmarked_sent: dict[PeerId, int] = {}  # how many identical payloads each origin has sent
        self.watch: Any = None  # of a hook that looks on while the run is played
        self.weights: list[tuple[float, float]] = []  # (time, bytes of the median node)
        self.t0 = 0.0
        self.end = 0.0
        self.findings = Findings()
        self.seconds = 0.0
        self.before_play: Callable[[], None] = lambda: None  # called once the room has settled
        self.skip = tuple(arm.get("skip", ()))  # verbs that this arm leaves out

    # ------------------------------------------------------------------------------------------------------- playing

    def play(self) -> None:
        started = time.process_time()
        # Garbage has no cycles worth hunting for while millions of small tuples come and go.
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            self._boot()
            for step in self.scenario.timeline:
                if (
                    not step.get("before_boot")
                    and step["do"] not in self.skip
                    and step.get("arm", self.arm) == self.arm
                ):
                    self.world.at(self.t0 + self.value(step["at"]), self._do, step)
            self.end = self.t0 + self.scenario.duration_s
            self.before_play()
            self._sample(self.scenario.sample_s)
            self.note("start")
            self.world.run(self.end)
            self.note("end")
        finally:
            if was_enabled:
                gc.enable()
        self.seconds = time.process_time() - started
        for name in self.scenario.measures:
            figures.MEASURES[name](self)
        if self.scenario.hook in hooks.AFTER:
            hooks.AFTER[self.scenario.hook](self)
        self.findings.figures["violations"] = float(len(self.accounting.violations))
        self.findings.notes += self.accounting.violations[:10]

    def _boot(self) -> None:
        boot = self.scenario.boot
        if self.scenario.hook in hooks.BEFORE:
            hooks.BEFORE[self.scenario.hook](self)
        hosts = [self.add_host() for _ in range(self.nodes)]
        for step in self.scenario.timeline:
            if step.get("before_boot") and step["do"] not in self.skip:
                self._do(step)
        over_s = self.value(boot.get("over_s", 0.02 * self.nodes))
        if boot["kind"] == "seed":
            self.world.rendezvous.only = hosts[0]
        self.world.rendezvous.list_max = int(boot.get("list_max", self.world.rendezvous.list_max))
        for number, host in enumerate(hosts):
            self.world.at(over_s * number / len(hosts), self.world.start, host)
        if boot["kind"] == "settled":
            self.t0 = over_s + self.value(boot.get("settle_s", 15))
            self.world.run(self.t0)
        elif boot["kind"] not in ("seed", "storm"):
            raise ValueError(f"boot kind {boot['kind']!r}: settled, storm or seed")

    def _do(self, step: faults.Step) -> None:
        faults.VERBS[step["do"]](self, step)

    def _sample(self, every_s: float) -> None:
        self.series.append(sample(self.world, self.accounting, compare_views=self.scenario.compare_views))
        if self.world.links.cuts:
            up, meets = self.up(), self.world.rendezvous.meets
            self.accounting.note_ways(components_of(up), [host.index for host in up if meets(host)])
        if self.world.now + every_s <= self.end:
            self.world.after(every_s, self._sample, every_s)

    def result(self) -> Result:
        world = self.world
        return Result(
            scenario=self.scenario.name,
            nodes=self.nodes,
            seed=self.seed,
            trace_hash=world.trace.digest(),
            order_hash=world.trace.order_digest(),
            events=world.events,
            seconds=self.seconds,
            findings=self.findings,
        )

    # --------------------------------------------------------------------------------------------- for verbs and hooks

    def value(self, given: Any) -> float:
        return self.scenario.value(given)

    def add_host(self) -> Host:
        return self.world.add_host(self.factory.new_peer())

    def up(self) -> list[Host]:
        return [host for host in self.world.hosts if host.up]

    def pick(self, step: faults.Step, *, up: bool | None = True) -> list[Host]:
        """Whom a step concerns. `who`: a label, "all" or indices; `count` or `share` choose at random among them."""
        who = step.get("who", "all")
        hosts = self.world.hosts
        if isinstance(who, Sequence) and not isinstance(who, str):
            pool = [hosts[int(index)] for index in who if int(index) < len(hosts)]
        elif who in ("all", "up"):
            pool = [host for host in hosts if host.index not in self.spared]
        else:
            pool = self.labels[who]
        if up is not None:
            pool = [host for host in pool if host.up == up]
        if "count" in step or "share" in step:
            pool = self.rng.sample(pool, min(len(pool), self.count_of(step, len(pool))))
        self.label(step, pool)
        return pool

    def count_of(self, step: faults.Step, size: int) -> int:
        """`count` (a list: by seed) or `share` of `size`, at least one."""
        if "count" in step:
            return int(self.by_seed(step["count"], 1))
        return max(1, round(float(step["share"]) * size))

    def by_seed(self, given: Any, every: int) -> float:
        """A value, or of a list the one that is this seed's turn; the turn changes after `every` seeds."""
        if isinstance(given, Sequence) and not isinstance(given, str):
            return float(given[self.seed // every % len(given)])
        return self.value(given)

    def label(self, step: faults.Step, hosts: list[Host]) -> None:
        name = step.get("as")
        if name is not None:
            self.labels.setdefault(str(name), []).extend(
                host for host in hosts if host not in self.labels.get(name, [])
            )
            if step.get("spare", True):
                self.spared.update((host.index, None) for host in hosts)

    def note(self, name: str) -> None:
        self.notes[name] = Note(
            self.world.now,
            len(self.accounting.sent),
            {h.index: (h.msgs_out, h.bytes_out, h.msgs_in, h.bytes_in) for h in self.world.hosts if h.up},
        )


def seats_for(nodes: int) -> int:
    """Rooms have seats; here so many that newcomers find one. Beyond what one member knows of there are none to be had."""
    return max(_ROOM_SEATS, nodes + nodes // 4) if nodes <= _SEATS_UP_TO else 0


def run_once(scenario: Scenario, nodes: int | None, seed: int) -> Result:
    """The scenario with every arm, and the ratios between them. The arm without a name is the one that is judged."""
    size = scenario.nodes if nodes is None else nodes
    main = Run(scenario, size, seed)
    main.play()
    for arm in scenario.arms:
        other = Run(scenario, size, seed, arm)
        other.play()
        main.findings.add_arm(other.arm, other.findings)
        if scenario.hook in hooks.COMPARE:
            hooks.COMPARE[scenario.hook](main, other)
    main.findings.finish(scenario.ratios)
    return main.result()
