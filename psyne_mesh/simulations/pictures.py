"""The pictures: each takes plain data and gives a matplotlib figure.

The colours are Okabe and Ito's, which all eyes can tell apart.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import networkx
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from psyne_mesh.simulations.series import Sample

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
_TITLE_MAX = 60  # characters in a line of a title: 6 inches less the axis, at 0.08 inches each
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "psyne-mesh",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def mesh_graph(
    panels: Sequence[tuple[str, Sequence[tuple[int, int]]]], nodes: Sequence[int], sides: Mapping[int, int]
) -> Any:
    """The links at several moments, side by side; a node's colour is its side of the cut. One layout for all panels."""
    figure = _figure(4.6 * len(panels), 4.8)
    graph = networkx.Graph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(panels[0][1])
    places = networkx.spring_layout(graph, seed=1, k=1.6 / max(1, len(nodes)) ** 0.5)
    # Apart by side, so that links across the cut can be seen to go and come back.
    places = {node: (x + 2.4 * sides.get(node, 0), y) for node, (x, y) in places.items()}
    colours = [COLOURS[sides.get(node, 0) % len(COLOURS)] for node in nodes]
    for number, (title, edges) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        across = [edge for edge in edges if sides.get(edge[0], 0) != sides.get(edge[1], 0)]
        within = [edge for edge in edges if sides.get(edge[0], 0) == sides.get(edge[1], 0)]
        networkx.draw_networkx_edges(graph, places, edgelist=within, ax=axes, alpha=0.25, width=0.7)
        networkx.draw_networkx_edges(
            graph, places, edgelist=across, ax=axes, alpha=0.8, width=0.9, edge_color="#D55E00"
        )
        networkx.draw_networkx_nodes(graph, places, nodelist=list(nodes), node_color=colours, node_size=36, ax=axes)
        axes.set_title(f"{title}: {len(edges)} links, {len(across)} across")
        axes.set_axis_off()
    return figure


def coverage_per_hop(curves: Mapping[str, Sequence[Sequence[int]]], receivers: int) -> Any:
    """For each protocol: the share of the room that has a message after so many hops. `curves` holds hops of deliveries."""
    figure = _figure(6, 3.8)
    axes = figure.add_subplot()
    for colour, (name, messages) in zip(COLOURS, curves.items(), strict=False):
        most = max((hop for hops in messages for hop in hops), default=1)
        shares = [
            100 * sum(hop <= limit for hops in messages for hop in hops) / max(1, receivers * len(messages))
            for limit in range(most + 1)
        ]
        axes.plot(range(most + 1), shares, marker="o", color=colour, label=name)
    axes.set(xlabel="hops", ylabel="% of the room", title="Coverage per hop", ylim=(0, 103))
    axes.legend()
    return figure


def ecdf(samples: Mapping[str, Sequence[float]], title: str, unit: str) -> Any:
    """The share of the observations that are at most x."""
    figure = _figure(6, 3.8)
    axes = figure.add_subplot()
    for colour, (name, values) in zip(COLOURS, samples.items(), strict=False):
        ordered = sorted(values)
        heights = [100 * (rank + 1) / len(ordered) for rank in range(len(ordered))]
        axes.step([0.0, *ordered], [0.0, *heights], where="post", color=colour, label=f"{name} ({len(ordered)})")
    axes.set(xlabel=unit, ylabel="% known by then", title=_title(title), ylim=(0, 103))
    axes.legend()
    return figure


def timeline(series: Sequence[Sample], cuts: Sequence[tuple[float, float]], t0: float) -> Any:
    """The largest connected part and the number of parts over time; the cuts are shaded."""
    figure = _figure(8, 3.6)
    axes = figure.add_subplot()
    times = [sample.at - t0 for sample in series]
    axes.plot(times, [100 * s.largest / max(1, s.up) for s in series], color=COLOURS[0], label="largest part")
    axes.set(xlabel="s", ylabel="% of the room", title="Partition and heal", ylim=(0, 103))
    parts = axes.twinx()
    parts.plot(times, [s.components for s in series], color=COLOURS[4], linestyle="--", label="parts")
    parts.set_ylabel("parts")
    parts.set_ylim(0, max(4, *(s.components + 1 for s in series)))
    for since, until in cuts:
        axes.axvspan(since - t0, until - t0, color="#999999", alpha=0.25)
    figure.legend(loc="lower right", bbox_to_anchor=(0.9, 0.15))
    return figure


def load_against_size(curves: Mapping[str, Sequence[tuple[int, float]]], title: str, unit: str) -> Any:
    """A figure per node against the size of the room, both axes logarithmic."""
    figure = _figure(6, 3.8)
    axes = figure.add_subplot()
    for colour, (name, points) in zip(COLOURS, curves.items(), strict=False):
        axes.plot([n for n, _ in points], [value for _, value in points], marker="o", color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel=unit, title=_title(title))
    # Plain numbers: the sizes themselves, and 1, 2, 5 of each power of ten.
    sizes = sorted({n for points in curves.values() for n, _ in points})
    axes.set_xticks(sizes, labels=[str(n) for n in sizes])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.2)
    axes.legend()
    return figure


def _title(text: str) -> str:
    """In as many lines as a picture of 6 inches needs."""
    return textwrap.fill(text, _TITLE_MAX)


def _figure(width: float, height: float) -> Any:
    matplotlib.rcParams.update(_SETTINGS)
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, folder: Path, name: str) -> str:
    """Writes NAME.png and NAME.svg and returns the SVG for the page. The same data give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=120, metadata={"Software": None})
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    (folder / f"{name}.svg").write_text(text.getvalue(), encoding="utf-8")
    return text.getvalue()[text.getvalue().index("<svg") :]
