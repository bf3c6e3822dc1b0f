"""The tables of docs/scale.md that tell what loads need: three of them, the steps between, and kinds of traffic."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from bench import model, planning, simulate
from bench.costs import Kept
from bench.model import Deployment, Load
from bench.results import Table

HOURS_A_MONTH = 730
#: Messages an hour that the steps of growing are shown for.
STEPS = (1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8)


def loads(kept: Kept, grown: dict[str, simulate.Grown], price: float) -> Table:
    """What each load needs, and how that does in model and simulation."""
    shipped = Deployment()

    def ends(found: simulate.Grown) -> str:
        name = model.first_to_saturate(kept.costs, planning.LARGEST, found.load)
        most = model.capacity(kept.costs, planning.LARGEST, found.load) * simulate.TARGET
        return f"{name}, at {most:,.0f}/s"

    def yes(carries: bool) -> str:
        return "yes" if carries else "no"

    def full_first(found: simulate.Grown) -> str:
        name = model.first_to_saturate(kept.costs, shipped, found.load)
        return f"{name}, at {model.capacity(kept.costs, shipped, found.load):,.0f}/s"

    def busiest(busy: dict[str, float]) -> str:
        first = sorted(busy, key=lambda name: -busy[name])[:3]
        return ", ".join(f"{name} {busy[name]:.0%}" for name in first)

    def month(found: simulate.Grown) -> str:
        cost = found.takes.cores * price
        millions = found.load.messages_per_hour / 1e6
        return f"{cost * HOURS_A_MONTH:,.0f}; {cost / millions:,.2f} a million messages"

    def simulated(found: simulate.Grown) -> str:
        share = found.load.rate / found.after.clusters
        return f"{found.outcome.rate_per_s:,.0f}/s of {share:,.0f}/s"

    def average(found: simulate.Grown) -> str:
        busy = sum(cores(kept, found.after, found.load))
        return (
            f"{busy:,.2g}; {busy / found.load.peak:,.2g}"
            if busy < 100
            else f"{busy:,.0f}; {busy / found.load.peak:,.0f}"
        )

    rows: dict[str, Callable[[simulate.Grown], str]] = {
        "in the busiest minutes": lambda found: f"{found.load.rate:,.0f}/s",
        f"within what one embedded process held, {kept.embedded_per_s:,.0f}/s": lambda found: yes(
            found.load.rate <= kept.embedded_per_s
        ),
        f"within what all on {kept.bench.machine_cores} cores held, {kept.held_per_s:,.0f}/s": lambda found: (
            yes(found.load.rate <= kept.held_per_s)
        ),
        "as shipped, each process with its own core: full first": full_first,
        f"the largest cluster, {simulate.TARGET:.0%} busy: full first": ends,
        "clusters": lambda found: str(found.after.clusters),
        "of each: partitions": lambda found: str(found.after.partitions),
        "API, bot, delivery processes": lambda found: (
            f"{found.after.api}, {found.after.bot}, {found.after.deliver}"
        ),
        "RabbitMQ nodes × cores": lambda found: (
            f"{found.after.rabbitmq_nodes} × {found.after.rabbitmq_cores}"
        ),
        "PostgreSQL cores": lambda found: str(found.after.postgres_cores),
        "all clusters: cores": lambda found: f"{found.takes.cores:,}",
        "cores busy, in the busiest minutes; on average": average,
        "memory at most": lambda found: f"{found.takes.memory_gb:,.0f} GB",
        "PostgreSQL grows a day": lambda found: f"{found.takes.disk_gb_a_day:,.1f} GB",
        "its write-ahead log a day": lambda found: f"{found.takes.wal_gb_a_day:,.1f} GB",
        "network, all of it": lambda found: f"{found.takes.network_mbit:,.1f} Mbit/s",
        f"a month, at {price:g} a core and hour": month,
        "model: busiest": lambda found: busiest(found.busy),
        "simulation: busiest": lambda found: busiest(found.outcome.busy),
        "simulation: one cluster carries": simulated,
        "simulation: p50, p99": lambda found: (
            f"{found.outcome.p50_ms:,.0f} ms, {found.outcome.p99_ms:,.0f} ms"
        ),
    }
    titles = ["messages an hour, on average", *grown]
    return titles, [[what, *(say(found) for found in grown.values())] for what, say in rows.items()]


def cores(kept: Kept, deployment: Deployment, load: Load) -> tuple[float, ...]:
    """Return how many cores are busy in all clusters: API, bot, delivery, RabbitMQ, PostgreSQL."""
    asked = model.work(kept.costs, load)
    rabbitmq = asked.rabbitmq * model.replication(kept.costs, deployment.rabbitmq_nodes)
    return asked.api, asked.bot["bot"], asked.deliver["deliver"], rabbitmq, asked.postgres


def steps(kept: Kept) -> Table:
    """What is changed from load to load."""
    lines, before = [], Deployment()
    for hourly in STEPS:
        load = Load(hourly, peak=simulate.PEAK)
        after = planning.needed(kept.costs, load, simulate.TARGET)
        busy = model.utilisation(kept.costs, before, load)
        first = max(busy, key=lambda name: busy[name])
        changed = "; ".join(planning.changes(before, after)).replace(":;", ":") or "nothing"
        taken = f"{planning.estimate(kept.costs, after, load).cores:,}"
        lines.append([f"{hourly:,.0f}", f"{load.rate:,.0f}", f"{first} {busy[first]:.0%}", changed, taken])
        before = after
    return (
        ("messages an hour", "peak, a second", "busiest before the change", "the change", "cores"),
        lines,
    )


def kinds(kept: Kept) -> Table:
    """How the shape of a load moves what it needs, at a million messages an hour."""
    plain = Load(1e6, peak=simulate.PEAK)
    shapes: dict[str, Load] = {
        "one response, one webhook, 100 ms": plain,
        "three webhooks": replace(plain, webhooks=3.0),
        "three responses": replace(plain, responses=3.0),
        "three of both": replace(plain, responses=3.0, webhooks=3.0),
        "a fifth of the deliveries fails": replace(plain, failing=0.2),
        "a bot that takes 2 s": replace(plain, bot_s=2.0),
        "receivers that take 2 s": replace(plain, receiver_s=2.0),
        "all in 10 channels, receivers of 100 ms": replace(plain, channels=10),
    }
    return (
        ("a million messages an hour", "cores busy at the peak", "API, bot, delivery", "partitions",
         "RabbitMQ", "busiest then"),
        list(_shapes(kept, shapes)),
    )  # fmt: skip


def _shapes(kept: Kept, shapes: dict[str, Load]) -> Iterator[list[str]]:
    for what, load in shapes.items():
        try:
            after = planning.needed(kept.costs, load, simulate.TARGET)
        except planning.TooMuch as error:
            yield [what, "", "", "", "", str(error)]
            continue
        busy = model.utilisation(kept.costs, after, load)
        first = max(busy, key=lambda name: busy[name])
        processes = f"{after.api}, {after.bot}, {after.deliver}"
        nodes = f"{after.rabbitmq_nodes} × {after.rabbitmq_cores}"
        cpu_busy = f"{sum(cores(kept, after, load)):.2g}"
        yield [what, cpu_busy, processes, str(after.partitions), nodes, f"{first} {busy[first]:.0%}"]
