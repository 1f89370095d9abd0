"""The verbs of a timeline: everything that a scenario can do to the room.

A step is a table: `at` (seconds after the room has settled), `do` (the verb), whom it concerns (`who`, `count` or
`share`, and `as` to name them for later steps), and the verb's own fields.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from psyne_mesh.simulations.cuts import SIGNALING, Cut, split
from psyne_mesh.simulations.net import Host

if TYPE_CHECKING:
    from psyne_mesh.simulations.run import Run

Step = Mapping[str, Any]
VERBS: dict[str, Callable[[Run, Step], None]] = {}


def verb(act: Callable[[Run, Step], None]) -> Callable[[Run, Step], None]:
    VERBS[act.__name__.rstrip("_")] = act
    return act


# ---------------------------------------------------------------------------------------------------------- machines


@verb
def crash(run: Run, step: Step) -> None:
    """Silent death. Field `instant` (true/false) switches for this crash whether the neighbours are told at once."""
    run.world.net.instant_notice = bool(step.get("instant", False))
    for host in run.pick(step):
        run.world.crash(host)


@verb
def crash_around(run: Run, step: Step) -> None:
    """The picked hosts and all their neighbours die silently, at one moment."""
    run.world.net.instant_notice = False
    for host in run.pick(step):
        for victim in [host, *(lane.dst for lane in host.lanes.values())]:
            run.world.crash(victim)


@verb
def leave(run: Run, step: Step) -> None:
    for host in run.pick(step):
        run.world.leave(host)


@verb
def start(run: Run, step: Step) -> None:
    """Switch on whoever of `who` is off."""
    for host in run.pick(step, up=False):
        run.world.start(host)


@verb
def restart(run: Run, step: Step) -> None:
    """Crash and start again `after_s` later; the restarts are spread over `over_s`."""
    hosts = run.pick(step)
    for number, host in enumerate(hosts):
        at = run.world.now + run.value(step.get("over_s", 0)) * number / max(1, len(hosts))
        run.world.at(at, run.world.crash, host)
        run.world.at(at + run.value(step.get("after_s", 0.5)), run.world.start, host)


@verb
def join(run: Run, step: Step) -> None:
    """New machines, over `over_s`. With `by_hand` they know one member by invitation, who is linked without signaling. With
    `dies_after_s` each crashes so soon after its start."""
    number = run.count_of(step, len(run.world.hosts))
    hosts = [run.add_host() for _ in range(number)]
    run.label(step, hosts)
    for position, host in enumerate(hosts):
        at = run.world.now + run.value(step.get("over_s", 0)) * position / max(1, number)
        run.world.at(at, _join_one, run, host, bool(step.get("by_hand", False)))
        if "dies_after_s" in step:
            run.world.at(at + run.value(step["dies_after_s"]), run.world.crash, host)


def _join_one(run: Run, host: Host, by_hand: bool) -> None:
    run.world.start(host)
    if by_hand:
        members = [other for other in run.world.hosts if other.up and other.lanes]
        if members:
            run.world.dialer.connect_directly(host, run.rng.choice(members))


@verb
def churn(run: Run, step: Step) -> None:
    """For `for_s`, the share `per_s` of the room goes each second and as many newcomers come.

    `crash_part` of those that go do so silently, the others say goodbye.
    """
    until = run.world.now + run.value(step["for_s"])
    _churn_on(run, float(step["per_s"]), float(step.get("crash_part", 0.5)), until, len(run.up()))


def _churn_on(run: Run, per_s: float, crash_part: float, until: float, size: int) -> None:
    world = run.world
    if world.now >= until:
        return
    world.after(run.rng.expovariate(per_s * size), _churn_on, run, per_s, crash_part, until, size)
    victims = [host for host in run.up() if host.index not in run.spared]
    if victims:
        victim = run.rng.choice(victims)
        (world.crash if run.rng.random() < crash_part else world.leave)(victim)
    world.start(run.add_host())


@verb
def pause(run: Run, step: Step) -> None:
    """The process stands still for `for_s`."""
    for host in run.pick(step):
        _pause(run, host, run.value(step["for_s"]))


def _pause(run: Run, host: Host, seconds: float) -> None:
    if host.up and not host.paused:
        run.accounting.note_pause(host.index, run.world.now, run.world.now + seconds)
        run.world.pause(host, seconds)


@verb
def stall(run: Run, step: Step) -> None:
    """For `for_s`: stand still for `pause_s`, go for `run_s`, again and again (the Lifeguard paper's anomaly).

    `pause_s` and `run_s` may be lists: each seed takes another pair.
    """
    until = run.world.now + run.value(step["for_s"])
    pause_s, run_s = run.by_seed(step["pause_s"], 5), run.by_seed(step["run_s"], 15)
    for host in run.pick(step):
        # They do not all stand still at the same moment.
        first = run.rng.random() * (pause_s + run_s)
        run.world.after(first, _stall, run, host, pause_s, run_s, until)


def _stall(run: Run, host: Host, pause_s: float, run_s: float, until: float) -> None:
    if run.world.now + pause_s < until:
        _pause(run, host, pause_s)
        run.world.after(pause_s + run_s, _stall, run, host, pause_s, run_s, until)


@verb
def slow(run: Run, step: Step) -> None:
    """Each frame costs `ms` of processor time from now on (0: none)."""
    for host in run.pick(step):
        run.world.slow(host, float(step["ms"]) / 1000)


@verb
def clock(run: Run, step: Step) -> None:
    """The steady clock shows `offset_s` more and runs `drift_ppm` fast; the calendar is off by `wall_s`.

    With `spread` each host draws its own within +- these figures. Only before the host starts (`before_boot`).
    """
    for host in run.pick(step, up=False):
        # A generator of its own: an arm without this step must draw the same for everything else.
        draw = random.Random(f"clock/{run.seed}/{host.index}").uniform(-1, 1) if step.get("spread") else 1.0
        rate = 1 + draw * float(step.get("drift_ppm", 0)) / 1e6
        run.world.set_clock(host, draw * float(step.get("offset_s", 0)), rate)
        host.wall_offset = draw * float(step.get("wall_s", 0))


# ------------------------------------------------------------------------------------------------------------ network


@verb
def split_(run: Run, step: Step) -> None:
    """Cut the room into `parts` (shares). `signaling`: "all" reach it, "none", or the number of the one side that does."""
    hosts = run.pick({"who": "up", **{key: step[key] for key in ("who",) if key in step}})
    if step.get("shuffle", True):
        hosts = run.rng.sample(hosts, len(hosts))
    groups, start_at = [], 0.0
    for share in step["parts"]:
        end_at = start_at + float(share) * len(hosts)
        groups.append([host.index for host in hosts[round(start_at) : round(end_at)]])
        start_at = end_at
    for side, group in enumerate(groups):
        run.labels[f"{step.get('as', 'split')}.{side}"] = [run.world.hosts[index] for index in group]
    _cut(run, step, split(groups, signaling=_signaling_side(step, len(groups))))


@verb
def join_sides(run: Run, step: Step) -> None:
    """Newcomers while the room is cut: `parts[i]` of them start on side i of the cut named `as`."""
    for side, number in enumerate(step["parts"]):
        for _ in range(int(number)):
            host = run.add_host()
            for cut in run.named_cuts[str(step["as"])]:
                cut.sides[host.index] = side
            run.world.links.refresh([host])
            run.world.start(host)


def _signaling_side(step: Step, sides: int) -> int | None:
    reach = step.get("signaling", "all")
    if reach == "all":
        return None
    return sides if reach == "none" else int(reach)


@verb
def isolate(run: Run, step: Step) -> None:
    """Cut the picked hosts off from everybody else, signaling included; and from each other, unless `together`."""
    picked = run.pick(step)
    sides = {host.index: 0 for host in run.world.hosts} | {SIGNALING: 0}
    for number, host in enumerate(picked, 1):
        sides[host.index] = 1 if step.get("together") else number
    _cut(run, step, Cut(sides))


@verb
def one_way(run: Run, step: Step) -> None:
    """Frames from `who` to everybody else, signaling included, are lost (`direction = "out"`), or those that come to it
    (`"in"`)."""
    _cut(run, step, _deaf(run, run.pick(step), str(step.get("direction", "in"))))


def _deaf(run: Run, picked: list[Host], direction: str) -> Cut:
    sides = {host.index: 1 for host in run.world.hosts} | {SIGNALING: 1}
    sides.update({host.index: 0 for host in picked})
    return Cut(sides, (0, 1) if direction == "out" else (1, 0))


@verb
def one_way_pair(run: Run, step: Step) -> None:
    """Of two picked hosts the second does not hear the first."""
    first, second = run.pick(step)[:2]
    _cut(run, step, Cut({first.index: 0, second.index: 1}, (0, 1)))


@verb
def flip_flop(run: Run, step: Step) -> None:
    """For `for_s`: deaf (`direction`) for `on_s`, well for `off_s`, again and again."""
    until = run.world.now + run.value(step["for_s"])
    cut = _deaf(run, run.pick(step), str(step.get("direction", "in")))
    _flip(run, cut, run.value(step["on_s"]), run.value(step["off_s"]), until)


@verb
def flap(run: Run, step: Step) -> None:
    """For `for_s`: the picked hosts are off the net for `on_s` and back for `off_s`."""
    until = run.world.now + run.value(step["for_s"])
    sides = {host.index: 0 for host in run.world.hosts} | {SIGNALING: 0}
    sides.update({host.index: number for number, host in enumerate(run.pick(step), 1)})
    _flip(run, Cut(sides), run.value(step["on_s"]), run.value(step["off_s"]), until)


def _flip(run: Run, cut: Cut, on_s: float, off_s: float, until: float) -> None:
    if run.world.now + on_s <= until:
        run.world.links.cut(cut)
        run.world.after(on_s, run.world.links.mend, cut)
        run.world.after(on_s + off_s, _flip, run, cut, on_s, off_s, until)


@verb
def wander(run: Run, step: Step) -> None:
    """For `for_s` a cut moves through the room: every `every_s` it heals, and another `share` is cut off from the rest and from
    signaling."""
    hosts = [host.index for host in run.pick({"who": "up"})]
    size = max(1, round(float(step["share"]) * len(hosts)))
    every_s, until = run.value(step["every_s"]), run.world.now + run.value(step["for_s"])
    _wander(run, hosts, size, 0, every_s, until, None)


def _wander(run: Run, hosts: list[int], size: int, turn: int, every_s: float, until: float, before: Cut | None) -> None:
    links = run.world.links
    if before is not None:
        links.mend(before)
        run.mended_at = run.world.now
    if run.world.now + every_s <= until:
        start = turn * size % len(hosts)
        away = [hosts[(start + number) % len(hosts)] for number in range(size)]
        cut = split([away, [index for index in hosts if index not in away]], signaling=1)
        links.cut(cut)
        run.world.after(every_s, _wander, run, hosts, size, turn + 1, every_s, until, cut)


def _cut(run: Run, step: Step, cut: Cut) -> None:
    run.named_cuts.setdefault(str(step.get("as", "cut")), []).append(cut)
    run.world.links.cut(cut)


@verb
def mend(run: Run, step: Step) -> None:
    """Heal the cut named `what`, or all of them."""
    names = [str(step["what"])] if "what" in step else list(run.named_cuts)
    for name in names:
        for cut in run.named_cuts.pop(name, []):
            run.world.links.mend(cut)
    run.mended_at = run.world.now


@verb
def net(run: Run, step: Step) -> None:
    """Change what holds for every link: any field of `NetModel`."""
    fields = attrs.fields_dict(type(run.world.net))
    for key, value in step.items():
        if key in fields:
            setattr(run.world.net, key, tuple(value) if isinstance(value, list) else value)
        elif key not in ("at", "do"):
            raise ValueError(f"net has no field {key!r}")
    run.world.links.refresh(run.world.hosts)


@verb
def loss(run: Run, step: Step) -> None:
    """The picked hosts lose the share `in` of what comes and `out` of what goes."""
    hosts = run.pick(step)
    for host in hosts:
        host.loss_in, host.loss_out = float(step.get("in", 0)), float(step.get("out", 0))
    run.world.links.refresh(hosts)


@verb
def bandwidth(run: Run, step: Step) -> None:
    """The picked hosts receive at most `down` and send at most `up` bytes a second (0: no limit)."""
    hosts = run.pick(step)
    for host in hosts:
        host.downlink, host.uplink = float(step.get("down", 0)), float(step.get("up", 0))
    run.world.links.refresh(hosts)


@verb
def nat(run: Run, step: Step) -> None:
    """The picked hosts sit behind a NAT of `kind`: open, cone, port-restricted or symmetric."""
    for host in run.pick(step, up=None):
        host.nat = str(step["kind"])


@verb
def incompatible(run: Run, step: Step) -> None:
    """No link ever comes up between any two of the picked hosts."""
    picked = sorted(host.index for host in run.pick(step, up=None))
    for position, low in enumerate(picked):
        for high in picked[position + 1 :]:
            run.world.dialer.incompatible[low, high] = None


@verb
def signaling(run: Run, step: Step) -> None:
    """The rendezvous server dies (`up = false`) or comes back."""
    run.world.links.set_signaling(bool(step["up"]))


# -------------------------------------------------------------------------------------------------------- application


@verb
def broadcast(run: Run, step: Step) -> None:
    """The picked hosts send `messages` each (default 1) of `size` bytes, one every `every_s`."""
    for host in run.pick(step):
        for number in range(int(run.value(step.get("messages", 1)))):
            run.world.after(number * run.value(step.get("every_s", 1)), _say, run, host, int(step.get("size", 100)))


@verb
def talk(run: Run, step: Step) -> None:
    """For `for_s`, every `every_s` one random member sends `size` bytes."""
    number = int(run.value(step["for_s"]) / float(step["every_s"]))
    for turn in range(number):
        run.world.after(turn * float(step["every_s"]), _say_somebody, run, int(step.get("size", 100)))


def _say(run: Run, host: Host, size: int) -> None:
    if host.up:
        run.world.broadcast(host, run.accounting.new_broadcast(host.index, size))


def _say_somebody(run: Run, size: int) -> None:
    linked = [host for host in run.up() if host.lanes and not host.paused]
    if linked:
        _say(run, run.rng.choice(linked), size)


@verb
def repeat(run: Run, step: Step) -> None:
    """The picked hosts send the very same bytes `messages` times, one every `every_s`."""
    for host in run.pick(step):
        run.unmarked_sent[host.peer] = int(step["messages"])
        for number in range(int(step["messages"])):
            run.world.after(number * float(step["every_s"]), run.world.broadcast, host, b"the same every time")


@verb
def mark(run: Run, step: Step) -> None:
    """Name the picked hosts (`as`) and do nothing to them."""
    run.pick(step)


@verb
def note(run: Run, step: Step) -> None:
    """Remember the time, the counters and the number of broadcasts under `as`, for the measures."""
    run.note(str(step["as"]))
