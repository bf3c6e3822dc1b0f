"""Plots of what was measured, as SVG for docs/performance.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench.results import DOCS, Row

FOLDER = DOCS / "plots"
#: Told apart also without colours; in the order of the way.
COLOURS = {"api": "#4269d0", "bot": "#efb118", "deliver": "#ff725c", "run": "#ff725c", "rabbitmq": "#6cc5b0",
           "postgres": "#3ca951", "nginx": "#9c9c9c", "receiver": "#9c9c9c", "sender": "#c9c9c9",
           "peer": "#9498a0", "client": "#9498a0"}  # fmt: skip


def draw(rows: Sequence[Row]) -> list[Path]:
    """Draw what there are rows for."""
    FOLDER.mkdir(exist_ok=True)
    # The same picture for the same numbers: no date, no random names.
    mpl.rcParams.update({"svg.hashsalt": "postbote", "font.size": 10, "axes.spines.top": False,
                         "axes.spines.right": False})  # fmt: skip
    drawn = []
    rates = {name: value for row in rows for name, value in row.data.get("rates", {}).items()}
    if rates:
        drawn.append(_bars("rates", rates, "deliveries a second, one receiver"))
    costs = {row.what: row.data["cpu_us"] for row in rows if "cpu_us" in row.data}
    if costs:
        drawn.append(_stacks("costs", costs, "CPU for a message, µs"))
    return drawn


def _bars(name: str, values: Mapping[str, float], title: str) -> Path:
    ordered = dict(sorted(values.items(), key=lambda item: item[1]))
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(ordered) + 0.9))
    colours = ["#ff725c" if key.startswith("Postbote") else "#9498a0" for key in ordered]
    bars = axes.barh(list(ordered), list(ordered.values()), color=colours)
    axes.bar_label(bars, [f"{value:,.0f}" for value in ordered.values()], padding=4)
    axes.set_title(title, loc="left")
    axes.margins(x=0.12)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    return _save(figure, name)


def _stacks(name: str, costs: Mapping[str, Mapping[str, float]], title: str) -> Path:
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(costs) + 1.4))
    parts = list(dict.fromkeys(part for cost in costs.values() for part in cost))
    left = [0.0] * len(costs)
    for part in parts:
        widths = [cost.get(part, 0.0) for cost in costs.values()]
        axes.barh(list(costs), widths, left=left, label=part, color=COLOURS.get(part))
        left = [sum(both) for both in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_title(title, loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.1), ncols=4, frameon=False)
    return _save(figure, name)


def _save(figure: Figure, name: str) -> Path:
    path = FOLDER / f"{name}.svg"
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return path
