"""The benchmarks: `python -m bench` runs all, `--quick` the main ones in two minutes, or name some.

Prints a table, writes bench/results, and brings the table and the plots in docs/performance.md up to date. A run in
which a message was lost, reordered or unsigned fails. A sender, a receiver and the servers share the machine with
what is measured, and so do the floors that it is compared with.
"""

import argparse
import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table

from bench.accepting import measure_accepting, measure_json_handler
from bench.deliveries import measure_deliveries, measure_post_only, measure_reader
from bench.disk import bytes_on_disk, written
from bench.end_to_end import embedded, measure_rate, on_servers
from bench.fitting import fit
from bench.growing import cost, measure_growth
from bench.one_message import measure_one
from bench.peers.catalogue import PEERS
from bench.peers.measured import measure_peer
from bench.results import TITLES, Row, keep, kept, write_docs
from bench.rows import cpu_of, memory_row, middle
from bench.scaling import IN_FLIGHT, measure_drain, measure_workers
from bench.servers import Servers, servers
from bench.shapes import shapes
from bench.starting import measure_start
from bench.steps import sum_of
from bench.turns import measure_hop, measure_turns
from bench.whole_way import beside_pipeline

POST_ONLY = "only POSTs"
READER = "Postbote's reading, POSTs, no more"
WORKER = "Postbote, one delivery worker"
#: Assumption: a core of a cloud's machine with 4 GB of memory, for an hour.
PRICE = 0.05
#: The peers take longer than the floor.
PEER_ROUNDS = 2
#: What a worker is compared with at least: as many times as fast as this peer.
PEER_TARGETS = {"faststream": 2.0, "taskiq": 3.0, "dramatiq": 3.0, "celery": 5.0}


async def deliveries(on: Servers, quick: bool) -> list[Row]:
    """Rows 1 and 2."""
    rounds, messages = (1, 25_000) if quick else (3, 40_000)
    floors, ours, readers = [], [], []
    peers: dict[str, list[float]] = {peer.name: [] for peer in ([] if quick else PEERS)}
    for number in range(rounds):
        # The floor before and after: the machine is another from one minute to the next.
        before = await post_only(on)
        ours.append(await measure_deliveries(on, messages=messages, users=500))
        floors.append((before + await post_only(on)) / 2)
        readers.append(await measure_reader(on, messages))
        for peer in PEERS if peers and number < PEER_ROUNDS else []:
            peers[peer.name].append((await measure_peer(on, peer, 12_000)).rate)
    floor, our, reader = statistics.median(floors), middle(ours), middle(readers)
    ratio = statistics.median(one.rate / its for one, its in zip(ours, floors, strict=True))
    rates = {
        POST_ONLY: floor,
        READER: reader.rate,
        WORKER: our.rate,
        **{name: statistics.median(all_) for name, all_ in peers.items()},
    }
    shown = f"{our.rate:,.0f}/s, and {floor:,.0f}/s; {cpu_of(our)}"
    data = {"cpu_us": dict(our.cpu_us), "rates": rates, "rate": our.rate}
    rows = [
        Row(1, "delivery worker ÷ a loop that only POSTs", ratio, "", 0.5, detail=shown, data=data),
        Row(1, "its way of reading queues, a POST, no more ÷ that loop", reader.rate / floor,
            detail=f"{reader.rate:,.0f}/s; CPU µs: {reader.cpu_us['client']:.0f}"),
    ]  # fmt: skip
    for name, found in peers.items():
        theirs = statistics.median(found)
        title = f"delivery worker ÷ {name}"
        rows.append(Row(2, title, our.rate / theirs, "", PEER_TARGETS.get(name), detail=f"{theirs:,.0f}/s"))
    rows.append(memory_row("delivery worker", ours[-1].memory_mb, 150))
    return rows


async def post_only(on: Servers) -> float:
    """Return how many a second a loop POSTs that does nothing else."""
    with on.nginx() as receiver:
        return (await measure_post_only(receiver, 3.0)).rate


async def turns(on: Servers, quick: bool) -> list[Row]:
    """Row 3."""
    messages = 10_000 if quick else 25_000
    floors, ours = [], []
    for _ in range(1 if quick else 3):
        floors.append(await measure_hop(on, messages))
        ours.append(await measure_turns(on, messages=messages, users=500))
    our, floor = middle(ours), middle(floors)
    shown = f"{our.rate:,.0f}/s, and {floor.rate:,.0f}/s; {cpu_of(our)}"
    title = "bot worker ÷ bare consume, publish, acknowledge"
    return [
        Row(3, title, our.rate / floor.rate, "", 0.5, detail=shown,
            data={"cpu_us": dict(our.cpu_us), "rate": our.rate}),
        memory_row("bot worker", ours[-1].memory_mb, 120),
    ]  # fmt: skip


async def accepting(on: Servers, quick: bool) -> list[Row]:
    """Row 4."""
    seconds = 4 if quick else 8
    floors, ours = [], []
    for _ in range(1 if quick else 3):
        floors.append(await measure_json_handler(seconds))
        ours.append(await measure_accepting(on, seconds))
    our, floor = middle(ours), middle(floors)
    shown = f"{our.rate:,.0f}/s, and {floor.rate:,.0f}/s; {cpu_of(our)}"
    return [
        Row(4, "API ÷ a handler that reads the JSON", our.rate / floor.rate, "", 0.45, detail=shown,
            data={"cpu_us": dict(our.cpu_us), "rate": our.rate}),
        memory_row("API", ours[-1].memory_mb, 90),
    ]  # fmt: skip


async def latency(on: Servers, quick: bool) -> list[Row]:
    """Row 5."""
    number = 100 if quick else 300
    found = await measure_one(on, number)
    return [
        Row(5, "one message, API to webhook, p50 ÷ its steps, taken in turn", found.whole / sum_of(found.in_turn),
            "", 1.5, True, f"{found.whole * 1000:.1f} ms, and {_steps(found.in_turn)}", {"steps": found.in_turn}),
        Row(5, "the same ÷ its steps, each taken alone again and again", found.whole / sum_of(found.alone),
            detail=_steps(found.alone)),
    ]  # fmt: skip


def _steps(steps: Mapping[str, float]) -> str:
    parts = ", ".join(f"{name} {value * 1000:.2f}" for name, value in steps.items())
    return f"{sum_of(steps) * 1000:.1f} ms ({parts})"


async def rate(on: Servers, quick: bool) -> list[Row]:
    """Row 6."""
    async with on_servers(on) as running:
        before = await written(running.database)
        held = await measure_rate(running, 10.0 if quick else 60.0)
        after = await written(running.database)
        sizes = {**await bytes_on_disk(running.database), **after.since(before)}
    detail = f"p50 {held.p50_ms:.0f} ms, p99 {held.p99_ms:.0f} ms; {cpu_of(held)}"
    return [Row(6, "messages a second held, all processes and servers", held.rate, "/s", 1000, detail=detail,
                data={"cpu_us": dict(held.cpu_us), "p50_ms": held.p50_ms, "p99_ms": held.p99_ms,
                      **sizes})]  # fmt: skip


async def rate_embedded(on: Servers, quick: bool) -> list[Row]:
    """Row 7."""
    async with embedded(on) as running:
        held = await measure_rate(running, 10.0 if quick else 60.0)
    detail = f"p50 {held.p50_ms:.0f} ms, p99 {held.p99_ms:.0f} ms; {cpu_of(held)}"
    return [Row(7, "messages a second held, embedded, one process", held.rate, "/s", 1000, detail=detail,
                data={"cpu_us": dict(held.cpu_us)})]  # fmt: skip


async def growth(on: Servers, quick: bool, *, full: bool = False) -> list[Row]:
    """Row 8, and memory with many lanes seen."""
    rows = []
    for what, found in (await measure_growth(on, 20_000, full=full)).items():
        sizes = sorted(found)
        least = cost(found[sizes[0]])
        worst = max(sizes[1:], key=lambda size: cost(found[size]))
        shown = ", ".join(f"{size:,}: {cost(found[size]):.0f} µs" for size in sizes)
        title = f"cost of a message, {sizes[0]:,} → {sizes[-1]:,} {what}"
        rates_of = {str(size): found[size].rate for size in sizes}
        data = {"rates_of": rates_of, "cost_of": {str(size): cost(found[size]) for size in sizes}}
        rows.append(Row(8, title, cost(found[worst]) / least, "times", 1.2, True, shown, data))
        if what == "conversations":
            title = f"delivery worker, {sizes[-1]:,} lanes seen"
            rows.append(memory_row(title, found[sizes[-1]].memory_mb, 150))
    return rows


async def scaling(on: Servers, quick: bool) -> list[Row]:
    """Row 10."""
    found = {workers: (await measure_workers(on, workers, 1_600 * workers)).rate for workers in (1, 2, 4)}
    shown = ", ".join(f"{workers}: {value:,.0f}/s" for workers, value in found.items())
    shown += f", each with {IN_FLIGHT} in flight"
    return [
        Row(
            10,
            "2 delivery workers ÷ 1, endpoint of 50 ms",
            found[2] / found[1],
            "times",
            1.9,
            detail=shown,
            data={"workers": found},
        ),
        Row(10, "4 delivery workers ÷ 1, endpoint of 50 ms", found[4] / found[1], "times", 3.7),
    ]


async def starting(on: Servers, quick: bool) -> list[Row]:
    """Row 11, and memory at rest."""
    found = await measure_start(3 if quick else 7)
    return [
        Row(11, "`postbote run` to the first message accepted", found["start"], "s", 1.5, at_most=True),
        Row(11, "importing all that it needs", found["import"], "s", 0.6, at_most=True),
        Row(11, "importing the libraries alone, the floor of that", found["libraries"], "s"),
        memory_row("embedded, at rest", found["memory_mb"], 120),
    ]


async def draining(on: Servers, quick: bool) -> list[Row]:
    """Row 12."""
    rows, lanes = (20_000, 200) if quick else (100_000, 1_000)
    live = await measure_deliveries(on, messages=40_000, users=500)
    drain = await measure_drain(on, rows, lanes)
    shown = f"{drain.rate:,.0f}/s, and {live.rate:,.0f}/s live; {cpu_of(drain)}"
    title = f"draining {rows:,} that waited in {lanes:,} lanes ÷ live"
    return [
        Row(12, title, drain.rate / live.rate, "", 0.7, detail=shown,
            data={"cpu_us": dict(drain.cpu_us), "rate": drain.rate})
    ]  # fmt: skip


Bench = Callable[[Servers, bool], Awaitable[list[Row]]]
BENCHES: dict[str, Bench] = {
    "deliveries": deliveries,
    "turns": turns,
    "accepting": accepting,
    "latency": latency,
    "rate": rate,
    "embedded": rate_embedded,
    "growth": growth,
    "scaling": scaling,
    "starting": starting,
    "draining": draining,
    "pipeline": beside_pipeline,
    "shapes": shapes,
}
QUICK = ("deliveries", "turns", "accepting", "latency", "starting", "draining")


async def run(names: Sequence[str], quick: bool, full: bool) -> None:
    """Run benchmarks one after the other, and show each as soon as it is done."""
    console = Console()
    with servers() as on:
        for name in names:
            console.print(f"[bold]{name}[/bold]: {BENCHES[name].__doc__}")
            bench = partial(growth, full=full) if name == "growth" else BENCHES[name]
            rows = await bench(on, quick)
            # A quick one does not take the place of a whole one.
            keep(f"quick-{name}" if quick else name, rows)
            console.print(table_of(rows))


def table_of(rows: Sequence[Row]) -> Table:
    """Make a table for the terminal."""
    table = Table(*TITLES)
    for row in rows:
        style = {True: "green", False: "red", None: None}[row.met]
        table.add_row(*(cell.replace("**", "") for cell in row.cells()), style=style)
    return table


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHES], help="which; all where none is named")
    parser.add_argument("--quick", action="store_true", help="the main ones, smaller: two minutes")
    parser.add_argument("--full", action="store_true", help="grow to millions of rows: half an hour")
    parser.add_argument("--fit", action="store_true", help="measure nothing, write the model's costs anew")
    parser.add_argument("--scale", action="store_true", help="measure nothing, write docs/scale.md anew")
    parser.add_argument("--price", type=float, default=PRICE, help="of a core for an hour, in docs/scale.md")
    parser.add_argument("--docs", action="store_true", help="measure nothing, write docs/performance.md anew")
    given = parser.parse_args()
    if given.fit or given.scale:
        if given.fit:
            fit(kept())
        if given.scale:
            from bench.scale import write

            write(given.price)
        return
    if not given.docs:
        names = given.names or (QUICK if given.quick else list(BENCHES))
        asyncio.run(run(names, given.quick, given.full))
    if not given.quick:
        from bench.plots import draw

        rows = kept()
        write_docs(rows)
        draw(rows)


if __name__ == "__main__":
    main()
