"""Members in TypeScript among those of Python in the simulator's world: same virtual time, same links, same seeds.

One process of Node.js holds all of them. The core is asked one thing at a time and answers with what it wants, as ours does.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from psyne_mesh.gossip import events
from psyne_mesh.gossip.events import CloseLink, Dial, SendFrame
from psyne_mesh.gossip.records import Record, RoomKey, record_untrusted
from psyne_mesh.identity import PeerId
from psyne_mesh.simulations.actors import _EPOCH_0_MS, ROOM, seed_of
from psyne_mesh.simulations.net import Host
from psyne_mesh.simulations.run import Run
from psyne_mesh.simulations.world import World
from tests.js.node import run_node

_SIZE: Final = struct.Struct(">I")
# Of the settings of a node a page has the number of seats; the others are as Python has them by default.
SETTINGS = {"max_players"}


def build(place: Path) -> Path:
    out = place / "simulated.mjs"
    run_node(
        "node", "node_modules/esbuild/bin/esbuild", "test/simulated.ts", "--bundle", "--format=esm", "--platform=node",
        "--log-level=error", f"--outfile={out}",
    )  # fmt: skip
    return out


class Process:
    """Ask one thing at a time; `close` ends it."""

    def __init__(self, built: Path) -> None:
        self._process = subprocess.Popen(["node", str(built)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._numbers = 0

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def ask(self, *request: object) -> dict[str, Any]:
        there, back = self._process.stdin, self._process.stdout
        assert there is not None
        assert back is not None
        data = msgspec.msgpack.encode(request, enc_hook=str.__str__)
        there.write(_SIZE.pack(len(data)) + data)
        there.flush()
        answer: dict[str, Any] = msgspec.msgpack.decode(_exactly(back, _SIZE.unpack(_exactly(back, _SIZE.size))[0]))
        return answer

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(10)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise RuntimeError("the process of TypeScript members ended; what it said stands above")
    return data


class TypeScriptNode:
    """One life of one member: an `Actor` of the simulator."""

    def __init__(self, process: Process, world: World, host: Host, run: Run) -> None:
        wall_ms, now = _EPOCH_0_MS + int((world.now + host.wall_offset) * 1000), host.local(world.now)
        assert host.rng is not None
        signer = run.factory.signer(host.index)
        self._process = process
        self._number = process.next_number()
        self._records: dict[bytes, Record] = {}
        self.knows_all = True
        self._take(
            "make",
            {
                "seed": seed_of(run.seed, host.index), "publicKey": signer.public_key, "room": RoomKey.of(ROOM).raw,
                "chance": host.rng.getrandbits(30), "epoch": wall_ms, "offsetS": wall_ms / 1000 - now,
                "maxPlayers": run.factory.config.max_players, "now": now, "isReal": run.scenario.real_signatures,
            },
        )  # fmt: skip

    def _take(self, verb: str, *given: object) -> None:
        answer = self._process.ask(self._number, verb, *given)
        self._outputs = getattr(self, "_outputs", []) + [self._output(*each) for each in answer["outputs"]]
        self._events = getattr(self, "_events", []) + [self._event(each) for each in answer["events"]]
        self._next: float | None = answer["next"]
        self._own: bytes = answer["own"]
        self._members = {PeerId(peer) for peer in answer["members"]}
        self._is_lookout: bool = answer["lookout"]

    def _output(self, kind: int, peer: str, what: Any, reliable: bool = True) -> Any:
        if kind == 0:
            return SendFrame(PeerId(peer), what, reliable)
        return Dial(PeerId(peer), self._record(what)) if kind == 1 else CloseLink(PeerId(peer), what)

    def _record(self, encoded: bytes) -> Record:
        return record_untrusted(encoded)

    def _event(self, said: dict[str, Any]) -> Any:
        return EVENTS[said["type"]](said)

    # ------------------------------------------------------------------------------------------------------- inputs

    def start(self, now: float) -> None:
        self._take("start", now)

    def learn(self, records: Sequence[Record | bytes], now: float) -> None:
        self._take("learn", [each.encoded if isinstance(each, Record) else each for each in records], now)

    def link_up(self, peer: PeerId, now: float, rtt: float | None = None) -> None:
        self._take("linkUp", peer, now, rtt)

    def link_down(self, peer: PeerId, reason: str, now: float) -> None:
        self._take("linkDown", peer, now)

    def dial_failed(self, peer: PeerId, cause: str, now: float) -> None:
        self._take("dialFailed", peer, now)

    def receive(self, peer: PeerId, frame: bytes, now: float) -> None:
        self._take("receive", peer, frame, now)

    def broadcast(self, payload: bytes, now: float) -> None:
        self._take("broadcast", payload, now)

    def send_signal(self, to: PeerId, blob: bytes, now: float) -> None:
        self._take("sendSignal", to, blob, now)

    def leave(self, now: float) -> None:
        self._take("leave", now)

    def note_loop_lag(self, seconds: float, now: float) -> None:
        self._take("noteLoopLag", seconds, now)

    def handle_timeout(self, now: float) -> None:
        self._take("handleTimeout", now)

    # --------------------------------------------------------------------------------------------- outputs and views

    def next_timeout(self) -> float | None:
        return self._next

    def take_outputs(self) -> list[Any]:
        taken, self._outputs = self._outputs, []
        return taken

    def take_events(self) -> list[Any]:
        taken, self._events = self._events, []
        return taken

    @property
    def own_record(self) -> Record:
        return self._record(self._own)

    @property
    def members(self) -> tuple[PeerId, ...]:
        return tuple(sorted(self._members))

    def record(self, peer: PeerId) -> PeerId | None:
        """Whether it is a member; the simulator asks for no more."""
        return peer if peer in self._members else None

    def is_lookout(self) -> bool:
        return self._is_lookout


def _peers(said: Iterable[str | None]) -> tuple[Any, ...]:
    return tuple(peer and PeerId(peer) for peer in said)


EVENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "discovered": lambda said: events.PeerDiscovered(record_untrusted(said["record"])),
    "renamed": lambda said: events.PeerRenamed(record_untrusted(said["record"])),
    "letGo": lambda said: events.LetGo(record_untrusted(said["record"])),
    "suspected": lambda said: events.PeerSuspected(PeerId(said["peer"])),
    "resumed": lambda said: events.PeerResumed(PeerId(said["peer"])),
    "left": lambda said: events.PeerLeft(PeerId(said["peer"]), said["reason"]),
    "twoFaced": lambda said: events.TwoFaced(PeerId(said["peer"]), None),  # type: ignore[arg-type]
    "evicted": lambda said: events.Evicted(said["reason"]),
    "seats": lambda said: events.SeatsChanged(_peers(said["seats"]), said["own"]),
    "broadcast": lambda said: events.BroadcastReceived(PeerId(said["origin"]), said["payload"], 0, said["ageS"]),
    "skipped": lambda said: events.BroadcastsSkipped(PeerId(said["origin"]), said["count"]),
    "signal": lambda said: events.SignalReceived(PeerId(said["origin"]), said["blob"], PeerId(said["carrier"])),
    "cut": lambda said: events.PartitionSuspected(_peers(said["lost"]), _peers(said["remaining"]), said["majority"]),
    "healed": lambda said: events.PartitionHealed(_peers(said["returned"]), ()),
}


def seat(run: Run, process: Process) -> None:
    """Before `play`: every second host of the run, and every second one that comes later, is a member in TypeScript."""
    assert set(run.scenario.config) <= SETTINGS, "a page does not have these settings"
    taken = run.factory.overrides
    for index in range(0, 1000, 2):
        taken.setdefault(index, lambda world, host: TypeScriptNode(process, world, host, run))
