"""The measures: each turns the ground truth of one run into figures.

A scenario names the measures it wants. Facts from before `t0` (while the room gathers) count only where it says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from psyne_mesh.simulations.accounting import Fact
from psyne_mesh.simulations.series import percentile

if TYPE_CHECKING:
    from psyne_mesh.simulations.accounting import Sent
    from psyne_mesh.simulations.run import Run

# A verdict may come so long after its cause went away: the longest suspicion plus a detection and a margin.
VERDICT_LAG_S = 12.0
_EPISODE_S = 1.0
_UNTRUE = ("timeout", "left")  # reasons of PeerLeft that say something about the subject, not about our own tables

MEASURES: dict[str, Callable[[Run], None]] = {}


def measure(take: Callable[[Run], None]) -> Callable[[Run], None]:
    MEASURES[take.__name__] = take
    return take


# -------------------------------------------------------------------------------------------------------------- graph


@measure
def links(run: Run) -> None:
    """Of a full mesh: how many pairs lack a link at the end."""
    up = run.up()
    pairs = sum(other.peer in host.lanes for i, host in enumerate(up) for other in up[i + 1 :])
    run.findings.figures["links"] = float(pairs)
    run.findings.figures["links_missing"] = len(up) * (len(up) - 1) / 2 - pairs
    run.findings.add_samples(
        "meshed_s", [_since(run, lambda s: s.components == 1 and s.min_degree == s.up - 1 and s.up >= run.nodes)]
    )
    run.findings.figures["links_per_node_max"] = float(max((len(host.lanes) for host in up), default=0))


@measure
def graph(run: Run) -> None:
    """The true graph: one piece? Nobody alone? `whole_percent` is the share of the samples in which it was one piece."""
    figures, series = run.findings.figures, run.series
    last = series[-1]
    figures["components"], figures["isolated"] = float(last.components), float(last.isolated)
    figures["min_degree"] = float(last.min_degree)
    figures["whole_percent"] = 100 * sum(s.components <= 1 for s in series) / len(series)
    run.findings.add_samples("whole_s", [_since(run, lambda s: s.components == 1 and s.isolated == 0)])
    wanted = min(4, last.up - 1)
    run.findings.add_samples(
        "formed_s", [_since(run, lambda s: s.components == 1 and s.min_degree >= wanted and s.up >= run.nodes)]
    )


@measure
def views(run: Run) -> None:
    """`views_equal_s`: from when on every view was the truth, counted from the last thing that the timeline did."""
    run.findings.add_samples("views_equal_s", [_since(run, lambda s: s.equal_views)])
    run.findings.figures["view_sizes"] = float(len(run.series[-1].view_sizes))
    steps = {size for s in run.series for size in s.view_sizes}
    run.findings.figures["view_sizes_between"] = float(max(0, len(steps) - 2))


def _since(run: Run, holds: Callable[[object], bool] | Callable[..., bool]) -> float:
    """Seconds from the last disturbance (or `t0`) to the sample from which on `holds` stays true. Infinite: never."""
    origin = run.mended_at if run.mended_at == run.mended_at else run.t0 + run.scenario.params.get("settled_from_s", 0)
    since = math.inf
    for sample in reversed(run.series):
        if not holds(sample):
            break
        since = sample.at
    return max(0.0, since - origin)


@measure
def merge(run: Run) -> None:
    """After the last `mend`: when the graph was one piece again, and what each pair went through because of the cut.

    Where everybody is meant to know everybody, the views must be whole again, too.
    """
    views_count = run.scenario.compare_views and run.nodes <= run.factory.config.full_knowledge_max
    after = [s for s in run.series if s.at >= run.mended_at]
    merged = next((s.at for s in after if s.components == 1 and (s.equal_views or not views_count)), math.inf)
    run.findings.add_samples("merged_s", [merged - run.mended_at])
    run.findings.figures["components"] = float(run.series[-1].components)
    downs = Counter((f.observer, f.subject) for f in _facts(run, "left") if f.reason in _UNTRUE)
    run.findings.figures["downs_per_pair_max"] = float(max(downs.values(), default=0))


# ---------------------------------------------------------------------------------------------------------- detection


@measure
def detection(run: Run) -> None:
    """How long after each crash each survivor that knew the victim said so."""
    accounting = run.accounting
    times, unnoticed = [], 0
    about: dict[int, dict[int, list[Fact]]] = {}  # subject -> observer -> what it said, in order
    for fact in accounting.facts:
        about.setdefault(fact.subject, {}).setdefault(fact.observer, []).append(fact)
    deaths = [
        (host, life.down_at)
        for host, lives in accounting.lives.items()
        for life in lives
        if life.how == "crash" and life.down_at >= run.t0
    ]
    for victim, died_at in deaths:
        for observer, facts in about.get(victim, {}).items():
            if not accounting.was_up(observer, died_at, min(run.end, died_at + 60)):
                continue
            before = [fact for fact in facts if fact.at <= died_at]
            if not before or before[-1].kind == "left":
                continue
            after = next((fact.at for fact in facts if fact.at > died_at and fact.kind == "left"), None)
            if after is not None:
                times.append(after - died_at)
            elif run.end - died_at >= VERDICT_LAG_S:
                unnoticed += 1
    run.findings.add_samples("detection_s", times)
    run.findings.add("unnoticed", float(unnoticed))


@measure
def false_alarms(run: Run) -> None:
    """Verdicts and suspicions about nodes that were up and could be reached, directly or over others."""
    findings = run.findings
    faulty = {host.index for host in run.labels.get("faulty", ())}
    downs = [f for f in _facts(run, "left") if f.reason in _UNTRUE and _was_false(run, f)]
    healthy = [f for f in downs if f.subject not in faulty]
    findings.add("false_downs", float(len(healthy)))
    findings.add("false_downs_at_healthy", float(sum(f.observer not in faulty for f in healthy)))
    findings.add("false_downs_of_faulty", float(len(downs) - len(healthy)))
    suspicions = [f for f in _facts(run, "suspected") if f.subject not in faulty and _was_false(run, f)]
    hours = (run.end - run.t0) / 3600
    members = max(1, run.nodes)
    findings.add("false_suspicion_events", float(len(suspicions)))
    findings.add("false_suspicions", float(_episodes(suspicions)))
    findings.figures["false_downs_per_member_hour"] = len(healthy) / members / hours
    findings.figures["false_suspicions_per_member_min"] = findings.figures["false_suspicions"] / members / hours / 60
    findings.figures["false_suspicion_events_per_member_min"] = len(suspicions) / members / hours / 60
    findings.add_samples("refuted_s", _refutations(run, suspicions))
    for fact in healthy[:5]:
        findings.notes.append(
            f"false down at {fact.at - run.t0:.2f}: {fact.observer} of {fact.subject} ({fact.reason})"
        )


def _episodes(suspicions: list[Fact]) -> int:
    """One accusation travels through the room and is an event everywhere; within `_EPISODE_S` it is one suspicion."""
    last: dict[int, float] = {}
    episodes = 0
    for fact in suspicions:
        episodes += fact.at - last.get(fact.subject, -math.inf) > _EPISODE_S
        last[fact.subject] = fact.at
    return episodes


def _was_false(run: Run, fact: Fact) -> bool:
    accounting, since = run.accounting, fact.at - VERDICT_LAG_S
    joined = accounting.life_at(fact.subject, fact.at)
    since = max(since, joined.up_at if joined is not None and joined.up_at <= fact.at else since)
    if not accounting.was_up(fact.subject, since, fact.at) or accounting.life_at(fact.subject, since) is not joined:
        return False
    if len(accounting.lives[fact.subject]) > 1 and joined is not None and joined.up_at > fact.at - VERDICT_LAG_S:
        return False  # said of its earlier life, which did end
    if any(host == fact.subject and from_ < fact.at and to > since for host, from_, to in accounting.pauses):
        return fact.subject in {host.index for host in run.labels.get("faulty", ())}
    return accounting.connected(fact.observer, fact.subject, since, fact.at)


def _refutations(run: Run, suspicions: list[Fact]) -> list[float]:
    """How long each false suspicion stood. One that ended in a verdict or stands at the end is infinite."""
    ends: dict[tuple[int, int], list[Fact]] = {}
    for fact in run.accounting.facts:
        if fact.kind in ("resumed", "left"):
            ends.setdefault((fact.observer, fact.subject), []).append(fact)
    stood = []
    for fact in suspicions:
        end = next((e for e in ends.get((fact.observer, fact.subject), ()) if e.at >= fact.at), None)
        if end is not None:
            stood.append(end.at - fact.at if end.kind == "resumed" else math.inf)
        elif run.end - fact.at > VERDICT_LAG_S:
            stood.append(math.inf)
    return stood


@measure
def faulty_removed(run: Run) -> None:
    """When the last healthy view lost the last faulty node for good, and how often faulty nodes came and went."""
    faulty = {host.index for host in run.labels.get("faulty", ())}
    healthy = [host for host in run.up() if host.index not in faulty]
    peers = [host.peer for host in run.labels.get("faulty", ())]
    still = sum(peer in run.accounting.views[host.index] for host in healthy for peer in peers)
    started = run.t0 + run.scenario.params.get("fault_s", 0)
    gone = [f for f in _facts(run, "left") if f.subject in faulty and f.observer not in faulty and f.at >= started]
    last = max((f.at for f in gone), default=math.inf)
    run.findings.add_samples("faulty_gone_s", [math.inf if still else last - started])
    turns = Counter(
        (f.observer, f.subject)
        for f in run.accounting.facts
        if f.at >= started and f.subject in faulty and f.observer not in faulty and f.kind in ("left", "discovered")
    )
    periods = (run.end - started) / 300
    run.findings.figures["transitions_per_5_min"] = max(turns.values(), default=0) / max(1.0, periods)
    late = [s for s in run.series if s.at >= started + run.scenario.params.get("late_s", 60)]
    run.findings.figures["view_sizes_late"] = float(len({size for s in late for size in s.view_sizes}))


def _facts(run: Run, kind: str) -> list[Fact]:
    return [fact for fact in run.accounting.facts if fact.kind == kind and fact.at >= run.t0]


# ---------------------------------------------------------------------------------------------------------- broadcast


@measure
def broadcast(run: Run) -> None:
    """Delivery, redundancy, hops and latency of what was sent since the note `measure` (or ever)."""
    findings, accounting = run.findings, run.accounting
    window = run.scenario.params.get("window_s", 10.0)
    sent = [s for s in measured(run) if s.at + window <= run.end]
    hosts = list(accounting.lives)
    bystanders = {host.index for name in ("slow", "flapping") for host in run.labels.get(name, ())}
    due = arrived = 0
    reasons: Counter[str] = Counter()
    latencies: list[float] = []
    for message in sent:
        misses = accounting.misses(message, window, hosts)
        explained = {miss.host for miss in misses if miss.why != "unexplained"}
        expected = [host for host in accounting.expected(message, window, hosts) if host not in explained]
        due += len(expected)
        arrived += sum(message.delivered.get(host, math.inf) <= message.at + window for host in expected)
        if message.origin not in bystanders:  # what they say comes late because of them, and what they hear, too
            latencies += [at - message.at for host, at in message.delivered.items() if host not in bystanders]
        for miss in misses:
            reasons[miss.why] += 1
            if miss.why == "unexplained" and len(findings.notes) < 20:
                findings.notes.append(f"unexplained: {miss.host} lacks {miss.number} of {message.origin}")
    findings.add("due", float(due))
    findings.add("arrived", float(arrived))
    findings.figures["delivered_percent"] = 100 * arrived / due if due else math.nan
    findings.figures["unexplained"] = float(reasons.pop("unexplained", 0))
    for why, count in sorted(reasons.items()):
        findings.figures[f"missed_{why.replace(' ', '_')}"] = float(count)
    findings.add_samples("latency_s", latencies)
    _redundancy(run, sent)


def measured(run: Run) -> list[Sent]:
    note = run.notes.get("measure", run.notes["start"])
    return run.accounting.sent[note.broadcasts :]


def _redundancy(run: Run, sent: list[Sent]) -> None:
    """RMR and LDH as Plumtree defines them: copies per receiver minus 1; the largest hop count of each message, averaged."""
    copies, receivers = sum(s.copies for s in sent), sum(len(s.delivered) for s in sent)
    last_hops = [max(s.hops.values()) for s in sent if s.delivered]
    run.findings.add("copies", float(copies))
    run.findings.add("receivers", float(receivers))
    run.findings.figures["copies_per_delivery"] = copies / receivers if receivers else math.nan
    run.findings.figures["rmr"] = copies / receivers - 1 if receivers else math.nan
    run.findings.figures["ldh"] = sum(last_hops) / len(last_hops) if last_hops else math.nan
    run.findings.figures["ldh_max"] = float(max(last_hops, default=0))


@measure
def newcomers(run: Run) -> None:
    """Those labelled `newcomers`: how many have a working link and are in everybody's view at the end."""
    fresh = run.labels.get("newcomers", [])
    reached = 0
    for host in fresh:
        known = all(host.peer in run.accounting.views[other.index] for other in run.up() if other is not host)
        reached += bool(host.up and host.lanes and (known or not run.scenario.compare_views))
    run.findings.figures["newcomers_in_percent"] = 100 * reached / len(fresh) if fresh else math.nan


# --------------------------------------------------------------------------------------------------------------- load


@measure
def load(run: Run) -> None:
    """Bytes and messages a second of each node that was up from the note `measure` (or the start) to the end."""
    first, last = run.notes.get("measure", run.notes["start"]), run.notes["end"]
    seconds = last.at - first.at
    sent, received, messages = [], [], []
    for host, counters in last.load.items():
        if host in first.load:
            before = first.load[host]
            sent.append((counters[1] - before[1]) / 1000 / seconds)
            received.append((counters[3] - before[3]) / 1000 / seconds)
            messages.append((counters[0] - before[0]) / seconds)
    findings = run.findings
    findings.add_samples("sent_kb_s", sent)
    findings.add_samples("received_kb_s", received)
    both = sent + received
    findings.figures["load_kb_s_mean"] = max(_mean(sent), _mean(received))
    findings.figures["load_kb_s_p99"] = percentile(both, 0.99)
    findings.figures["msgs_per_s_mean"] = _mean(messages)
    findings.add("msgs", sum(messages) * seconds)
    findings.add("kbytes", sum(sent) * seconds)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


# -------------------------------------------------------------------------------------------------------------- seats


@measure
def seats(run: Run) -> None:
    """How many seats any view ever showed as taken, and when all views showed the same players."""
    accounting = run.accounting
    limit = run.factory.config.max_players
    held = [tuple(accounting.seats.get(host.index, ())) for host in run.up()]
    players = {tuple(sorted(peer for peer in view if peer is not None)) for view in held}
    agreed = len(players) == 1 and len(next(iter(players))) == min(limit, len(run.up()))
    figures = run.findings.figures
    figures["seats_shown_max"] = float(accounting.seats_most)
    figures["seat_views"] = float(len(players))
    origin = run.mended_at if run.mended_at == run.mended_at else run.t0
    # The heal, for the seats, is when the two sides have a link again; what lies before it is the business of `merge`.
    met = next((s.at for s in run.series if s.at >= origin and s.components == 1), math.inf)
    run.findings.add_samples("seats_agree_s", [max(0.0, accounting.seats_changed_at - met) if agreed else math.inf])
    run.findings.add_samples(
        "seats_agree_after_mend_s", [max(0.0, accounting.seats_changed_at - origin) if agreed else math.inf]
    )
