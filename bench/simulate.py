"""Holds simulation, model and measurement against each other, and says what a load needs.

`python -m bench.simulate` prints tables; `--json` writes `bench/results/simulation.json` too. Costs come from
`bench/costs.json`, what was measured from `bench/results/`, where it is there.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import model
from bench.model import Costs, Deployment, Load
from bench.pipeline import MESSAGES, Run
from bench.scaling import IN_FLIGHT

HERE = Path(__file__).parent
#: Of each run at most: for a second of a high rate; all runs together stay under 20 seconds.
MOST_MESSAGES = 15_000
#: Messages an hour that the project asks about.
LOADS = {"10 thousand": 1e4, "1 million": 1e6, "100 million": 1e8}


def delivering_only(costs: Costs) -> Costs:
    """Return the costs where responses wait in the outbound queues: what comes before them costs nothing."""
    return replace(
        costs, api_us=0.0, sender_us=0.0, bot_turn_us=0.0, bot_response_us=0.0, postgres_turn_us=0.0,
        query_s=0.0, confirm_s=0.0, rabbitmq_us=costs.rabbitmq_us / 4,
    )  # fmt: skip


def read(name: str) -> dict[str, Any]:
    """Read a file of results; empty where there is none."""
    path = HERE / "results" / name
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def read_costs() -> tuple[bool, Deployment, Costs]:
    """Read whether the costs were measured, the deployment that was, and the costs."""
    written = json.loads((HERE / "costs.json").read_text())
    values = {name: entry["value"] for name, entry in written["costs"].items()}
    return written["measured"], Deployment(**written["bench"]), Costs(**values)


def compare(costs: Costs, bench: Deployment) -> Iterator[dict[str, Any]]:
    """Yield rows of what, simulation, model and measurement; None is unknown."""
    measured = read("measured.json")
    rate, drain, workers = (measured.get(name, {}) for name in ("rate", "deliveries", "workers"))
    load = Load(3600.0, receiver_s=0.0)
    full = model.capacity(costs, bench, load)
    yield row("end to end: messages a second at most", None, full, rate.get("max_rate_per_s"))
    load = replace(load, messages_per_hour=3600 * rate.get("rate_per_s", 0.6 * full))
    found = Run(costs, bench, load, conversations=int(rate.get("conversations", 0))).outcome()
    mean_ms = model.latency_s(costs, bench, load) * 1000
    yield row("at a rate of, messages a second", found.rate_per_s, load.rate, rate.get("rate_per_s"))
    yield row("p50, ms (model: mean)", found.p50_ms, mean_ms, rate.get("p50_ms"))
    yield row("p99, ms", found.p99_ms, None, rate.get("p99_ms"))
    for name, part in model.utilisation(costs, bench, load).items():
        if name in found.busy:
            yield row(f"  {name} busy, %", found.busy[name] * 100, part * 100, None)
    alone, quick = delivering_only(costs), Load(3600.0, receiver_s=0.0)
    number = int(drain.get("conversations", 0))
    run = Run(alone, bench, quick, messages=MOST_MESSAGES, conversations=number, drain=True)
    modelled = model.capacity(alone, bench, quick)
    yield row("deliveries a second, queues full", run.outcome().rate_per_s, modelled, drain.get("rate_per_s"))
    slow = Load(3600.0, receiver_s=0.05)
    for number in (1, 2, 4):
        more = replace(bench, deliver=number)
        run = Run(alone, more, slow, messages=1600 * number, conversations=800, drain=True, places=IN_FLIGHT)
        what = f"the same, {number} workers of {IN_FLIGHT} places, endpoint of 50 ms"
        yield row(what, run.outcome().rate_per_s, number * IN_FLIGHT / 0.05, workers.get(str(number)))


def row(what: str, simulated: float | None, modelled: float | None, measured: float | None) -> dict[str, Any]:
    """Make one row of the comparison."""
    return {"what": what, "simulation": simulated, "model": modelled, "measured": measured}


def grow(costs: Costs, target: float, zipf: float) -> Iterator[dict[str, Any]]:
    """Yield for each load what is full first as shipped, what it needs, and how that does in the simulation."""
    shipped = Deployment()
    for name, hourly in LOADS.items():
        load = Load(hourly)
        after = model.needed(costs, load, target)
        busy = model.utilisation(costs, after, load)
        takes = model.estimate(costs, after, load)
        # Clusters share nothing: one with its part of the load stands for all.
        part = replace(
            load, messages_per_hour=hourly / after.clusters, channels=load.channels // after.clusters
        )
        messages = min(MOST_MESSAGES, max(MESSAGES, int(part.rate)))
        found = Run(costs, replace(after, clusters=1), part, messages=messages, zipf=zipf).outcome()
        first = sorted(busy, key=lambda resource: -busy[resource])[:3]
        as_shipped = model.utilisation(costs, shipped, load)
        yield {
            "messages an hour": name,
            "messages a second": f"{load.rate:,.1f}",
            "as shipped: full first": model.first_to_saturate(costs, shipped, load),
            "  busy then, and carries": f"{max(as_shipped.values()):.0%}; "
            f"{model.capacity(costs, shipped, load):,.0f}/s",
            "to change": "\n".join(model.changes(shipped, after)) or "nothing",
            "  busiest then": "\n".join(f"{resource} {busy[resource]:.0%}" for resource in first),
            "cores, all clusters": f"{takes.cores:,}",
            "memory at most": f"{takes.memory_gb:,.0f} GB",
            "PostgreSQL grows a day": f"{takes.postgres_gb_a_day:,.1f} GB",
            "simulated, each cluster": f"{found.rate_per_s:,.1f}/s",
            "  p50, p99": f"{found.p50_ms:,.1f} ms, {found.p99_ms:,.1f} ms",
            "  busy": "\n".join(f"{resource} {part:.0%}" for resource, part in found.busy.items()),
        }


def show(value: float | None) -> str:
    """Write a number, or a dash where there is none."""
    return "–" if value is None else "full" if math.isinf(value) else f"{value:,.1f}"


def main() -> None:
    """Simulate, compute, print, and write down where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__)
    parser.add_argument("--json", action="store_true", help="write bench/results/simulation.json too")
    parser.add_argument("--target", type=float, default=0.6, help="how busy anything may be, 0 to 1")
    parser.add_argument("--zipf", type=float, default=0.0, help="how unevenly conversations talk; 0: evenly")
    asked = parser.parse_args()
    measured, bench, costs = read_costs()
    compared, grown = list(compare(costs, bench)), list(grow(costs, asked.target, asked.zipf))
    console = Console()
    if not measured:
        console.print("The costs are placeholders: nothing below tells of a real machine.", style="bold")
    table = Table("", "simulation", "model", "measured", title=f"One machine, {bench.machine_cores} cores")
    for each in compared:
        table.add_row(each["what"], *(show(each[name]) for name in ("simulation", "model", "measured")))
    console.print(table)
    table = Table("", title=f"What to change, nothing busier than {asked.target:.0%}")
    for each in grown:
        table.add_column(each["messages an hour"] + " messages an hour")
    for name in list(grown[0])[1:]:
        table.add_row(name, *(each[name] for each in grown))
    console.print(table)
    if asked.json:
        (HERE / "results").mkdir(exist_ok=True)
        found = {"costs measured": measured, "costs": asdict(costs), "compared": compared, "loads": grown}
        (HERE / "results" / "simulation.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
