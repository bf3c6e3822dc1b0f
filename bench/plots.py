"""Plots of what was measured and computed, as SVG for docs/performance.md and docs/scale.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bench import model, planning, simulate
from bench.costs import Kept
from bench.model import Load
from bench.results import DOCS, Row

FOLDER = DOCS / "plots"
#: Told apart also without colours; in the order of the way.
COLOURS = {"api": "#4269d0", "bot": "#efb118", "deliver": "#ff725c", "run": "#ff725c", "rabbitmq": "#6cc5b0",
           "postgres": "#3ca951", "nginx": "#9c9c9c", "receiver": "#9c9c9c", "sender": "#c9c9c9",
           "peer": "#9498a0", "client": "#9498a0"}  # fmt: skip


def draw(rows: Sequence[Row]) -> list[Path]:
    """Draw what there are rows for."""
    _begin()
    drawn = []
    rates = {name: value for row in rows for name, value in row.data.get("rates", {}).items()}
    if rates:
        drawn.append(_bars("rates", rates, "deliveries a second, one receiver"))
    costs = {row.what: row.data["cpu_us"] for row in rows if "cpu_us" in row.data}
    if costs:
        drawn.append(_stacks("costs", costs, "CPU for a message, µs"))
    return drawn


def draw_scale(kept: Kept) -> list[Path]:
    """Draw the latencies of one machine as its load grows, and the cores that loads need."""
    _begin()
    return [_latencies("scale-latency", kept), _cores("scale-cores", kept)]


def _begin() -> None:
    FOLDER.mkdir(exist_ok=True)
    # The same picture for the same numbers: no date, no random names.
    mpl.rcParams.update({"svg.hashsalt": "postbote", "font.size": 10, "axes.spines.top": False,
                         "axes.spines.right": False})  # fmt: skip


def _latencies(name: str, kept: Kept) -> Path:
    full = model.capacity(kept.costs, kept.bench, Load(3600.0, receiver_s=0.0))
    rates = [full * part for part in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)]
    outcomes = [simulate.hold(kept, rate) for rate in rates]
    figure, axes = plt.subplots(figsize=(7, 3.2))
    axes.plot(rates, [each.p99_ms for each in outcomes], color="#ff725c", label="p99, simulated")
    axes.plot(rates, [each.p50_ms for each in outcomes], color="#4269d0", label="p50, simulated")
    axes.plot([kept.held_per_s], [kept.p99_ms], "o", color="#ff725c", label="p99, measured")
    axes.plot([kept.held_per_s], [kept.p50_ms], "o", color="#4269d0", label="p50, measured")
    axes.axvline(full, color="#9c9c9c", linestyle=":", label="full, by the model")
    axes.set_yscale("log")
    axes.set_xlabel("messages a second")
    axes.set_title(f"API to webhook, all on {kept.bench.machine_cores} cores, ms", loc="left")
    axes.legend(frameon=False)
    return _save(figure, name)


def _cores(name: str, kept: Kept) -> Path:
    hourly = [10 ** (4 + step / 8) for step in range(33)]
    needed = {
        each: planning.needed(kept.costs, Load(each, peak=simulate.PEAK), simulate.TARGET) for each in hourly
    }
    lines = {
        "api": [after.clusters * after.api for after in needed.values()],
        "bot": [after.clusters * after.bot for after in needed.values()],
        "deliver": [after.clusters * after.deliver for after in needed.values()],
        "rabbitmq": [
            after.clusters * after.rabbitmq_nodes * after.rabbitmq_cores for after in needed.values()
        ],
        "postgres": [after.clusters * after.postgres_cores for after in needed.values()],
    }
    figure, axes = plt.subplots(figsize=(7, 3.2))
    axes.plot(hourly, [sum(each) for each in zip(*lines.values(), strict=True)], color="#000000", label="all")
    for kind, line in lines.items():
        axes.plot(hourly, line, color=COLOURS[kind], label=kind)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("messages an hour, on average")
    axes.set_title("cores provided", loc="left")
    axes.legend(frameon=False, ncols=2)
    return _save(figure, name)


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
