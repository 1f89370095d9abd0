"""The matrix as tables: Markdown for `docs/networks.md`, JSON lines for machines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.lab.healing import REPLAYED_MS, Healing
from tests.lab.matrix import MAIN_KINDS, Cell, Summary, summary
from tests.lab.namespaces import REPOSITORY

PAGE = REPOSITORY / "docs/networks.md"
BEGIN = "<!-- written by `python3 run.py lab matrix --write-docs`; do not edit by hand -->"
ROOM_BEGIN = "<!-- written by `python3 run.py lab matrix --payload room --write-docs`; do not edit by hand -->"
BREAKS_BEGIN = "<!-- written by `python3 run.py lab breaks --write-docs`; do not edit by hand -->"
END = "<!-- end of what the lab wrote -->"
CARRIED = {"signaling-signaling": "signaling", "peer-peer": "peer"}
SHORT = {
    "address-restricted": "address-r.",
    "port-restricted": "port-r.",
    "double-cone": "2 NATs cone",
    "double-symmetric": "2 NATs sym.",
    "udp-blocked": "UDP blocked",
}


def json_line(cell: Cell) -> str:
    return json.dumps({**attrs.asdict(cell), "direct": cell.direct, "as_expected": cell.as_expected})


def outcome(cell: Cell) -> str:
    """Path and time, "-" for a pair that did not connect."""
    if not cell.connected:
        return "-"
    time_ms = cell.known_to_open_ms if cell.known_to_open_ms is not None else cell.start_to_open_ms
    return f"{CARRIED.get(str(cell.path), cell.path)} {time_ms:.0f}"


def table_text(cell: Cell | None) -> str:
    """The same, in bold where it is worse than it could be."""
    if cell is None:
        return ""
    text = outcome(cell) if cell.connected or cell.expected == "none" else "FAILED"
    return text if cell.as_expected else f"**{text}**"


def markdown(cells: Sequence[Cell]) -> str:
    """Headline figures, the square tables with and without TURN, and the special cases."""
    parts = []
    for turn in (True, False):
        chosen = [cell for cell in cells if cell.turn == turn]
        if chosen:
            words = "With a TURN server" if turn else "With STUN only"
            parts += [f"### {words}", headline(summary(chosen)), square(chosen), special(chosen)]
    return "\n\n".join(part for part in parts if part)


def room_table(cells: Sequence[Cell]) -> str:
    """What two players of a room without TURN get: a path of their own, or the signaling server between them."""
    chosen = [cell for cell in cells if not cell.turn]
    figures = summary(chosen)
    carried = sorted(cell.start_to_open_ms or 0.0 for cell in chosen if cell.connected and not cell.direct)
    words = f"{figures.connected} of {figures.connectable} pairs connected"
    if carried:
        middle = statistics.median(carried)
        words += f", {len(carried)} of them through the signaling server: within {middle:.0f} ms in the middle and "
        words += f"{carried[-1]:.0f} ms at most"
    return "\n\n".join(part for part in (f"{words}.", square(chosen), special(chosen)) if part)


def headline(figures: Summary) -> str:
    times = (
        f"median {figures.median_ms:.0f} ms, slowest of a hundred {figures.p99_ms:.0f} ms" if figures.median_ms else ""
    )
    return (
        f"{figures.connected} of {figures.connectable} pairs that have a way connected, {figures.direct} of "
        f"{figures.can_be_direct} that can be direct are direct; {times}."
    )


def square(cells: Sequence[Cell]) -> str:
    by_name = {cell.case: cell for cell in cells}
    if not any(f"{a} / {b}" in by_name for a in MAIN_KINDS for b in MAIN_KINDS):
        return ""
    lines = ["| A \\ B | " + " | ".join(SHORT.get(kind, kind) for kind in MAIN_KINDS) + " |"]
    lines.append("|---" * (len(MAIN_KINDS) + 1) + "|")
    for a in MAIN_KINDS:
        row = [table_text(by_name.get(f"{a} / {b}")) for b in MAIN_KINDS]
        lines.append(f"| {SHORT.get(a, a)} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def special(cells: Sequence[Cell]) -> str:
    names = {f"{a} / {b}" for a in MAIN_KINDS for b in MAIN_KINDS}
    rows = [f"| {cell.case} | {table_text(cell)} |" for cell in cells if cell.case not in names]
    return "\n".join(["| special case (A / B) | |", "|---|---|", *rows]) if rows else ""


def read_healings(file: Path) -> list[Healing]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [Healing(**row | {"events": tuple(row["events"])}) for row in map(json.loads, lines)]


def add_healing(file: Path, found: Healing) -> None:
    with file.open("a", encoding="utf-8") as to:
        to.write(json.dumps(attrs.asdict(found)) + "\n")


def breaks_table(found: Sequence[Healing]) -> str:
    """One line a break, however often it was played; in bold what did not come back whole, of the worst time."""
    lines = [
        "| what breaks | s without traffic: median | worst | reliable messages lost, doubled | oldest unreliable, ms "
        "| path before | after |",
        "|---|---|---|---|---|---|---|",
    ]
    by_name: dict[str, list[Healing]] = {}
    for one in found:
        by_name.setdefault(one.name, []).append(one)
    for name, times in by_name.items():
        worst = max(times, key=lambda one: (not one.healed, one.outage_s))
        seconds = f"{worst.outage_s:.1f}" if worst.healed else "not healed"
        whole = f"{max(one.missing for one in times)}, {max(one.doubled for one in times)}"
        cells = [seconds, whole] if all(one.intact for one in times) else [f"**{seconds}**", f"**{whole}**"]
        oldest = max(one.replayed_ms for one in times)
        late = f"{oldest:.0f}" if oldest <= REPLAYED_MS else f"**{oldest:.0f}**"
        middle = f"{statistics.median(one.outage_s for one in times):.1f}"
        lines.append(f"| {' | '.join([name, middle, *cells, late, worst.path_before, worst.path_after])} |")
    middle_s, worst_s = statistics.median(one.outage_s for one in found), max(one.outage_s for one in found)
    return "\n".join([*lines, "", f"Median {middle_s:.1f} s, worst {worst_s:.1f} s."])


def write_page(text: str, page: Path = PAGE, *, begin: str = BEGIN) -> None:
    """Replaces the marked block of the page."""
    whole = page.read_text(encoding="utf-8")
    before, marker, rest = whole.partition(begin)
    _, end, after = rest.partition(END)
    if not (marker and end):
        raise ValueError(f"{page} does not hold the two markers of the lab's block")
    page.write_text(f"{before}{marker}\n\n{text}\n\n{END}{after}", encoding="utf-8")
