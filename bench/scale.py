"""The tables and plots of docs/scale.md, from `bench/costs.json` by model and simulation side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bench import costs, model, planning, simulate
from bench.costs import Kept
from bench.model import Deployment, Load
from bench.results import DOCS, lay_out, number_of, put_between

PAGE = DOCS / "scale.md"
HOURS_A_MONTH = 730
#: Messages an hour that the steps of growing are shown for.
STEPS = (1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8)
#: What a full queue of one partition, or one process, is told of with: a receiver of 100 ms.
RECEIVER_S = 0.1
SLOW_S = 2.0

Table = tuple[Sequence[str], list[list[str]]]


def write(price: float) -> None:
    """Write all tables and plots anew; `price` is of a core for an hour, in any currency."""
    from bench.plots import draw_scale

    kept = costs.read()
    grown = {name: simulate.grow(kept, hourly) for name, hourly in simulate.LOADS.items()}
    compared = list(simulate.compare(kept))
    tables: dict[str, Table] = {
        "costs": cpu(kept),
        "units": units(kept),
        "sizes": sizes(kept),
        "loads": loads(kept, grown, price),
        "steps": steps(kept),
        "kinds": kinds(kept),
        "check": check(compared),
    }
    text = PAGE.read_text()
    for name, (titles, lines) in tables.items():
        text = put_between(text, name, lay_out(titles, lines))
    PAGE.write_text(text)
    draw_scale(kept)


def cpu(kept: Kept) -> Table:
    """CPU of a message by process."""
    together, alone = kept.together_us, kept.alone
    stages = ("api", "bot", "deliver")
    full = {name: alone[name].cpu_us[name] for name in stages}
    for server in ("rabbitmq", "postgres"):
        full[server] = sum(alone[name].cpu_us[server] for name in stages)
    share = kept.costs.bot_turn_us / (kept.costs.bot_turn_us + kept.costs.bot_response_us)
    each = kept.costs.deliver_response_us / (kept.costs.deliver_response_us + kept.costs.deliver_attempt_us)
    turn = kept.costs.postgres_turn_us / (kept.costs.postgres_turn_us + kept.costs.postgres_delivery_us)
    grows = {
        "api": "messages",
        "bot": f"messages ({share:.0%}), responses",
        "deliver": f"responses ({each:.0%}), deliveries",
        "rabbitmq": "messages and responses alike",
        "postgres": f"messages ({turn:.0%}), deliveries",
    }
    names = {"api": "API", "bot": "bot worker", "deliver": "delivery worker", "rabbitmq": "RabbitMQ, one node",
             "postgres": "PostgreSQL"}  # fmt: skip
    lines = [[names[name], number_of(together[name]), number_of(full[name]), grows[name]] for name in grows]
    sums = [sum(amounts[name] for name in grows) for amounts in (together, full)]
    lines.append(["all of it", *map(number_of, sums), ""])
    lines.append(["sender and receiver, not counted further",
                  number_of(together["sender"] + together["receiver"]), "", ""])  # fmt: skip
    return (
        ("CPU µs a message", f"all on {kept.bench.machine_cores} cores, at {kept.held_per_s:,.0f}/s",
         "each alone, at full speed", "grows with"),
        lines,
    )  # fmt: skip


def units(kept: Kept) -> Table:
    """What one of each carries, by the model."""
    found, load = kept.costs, Load(3600.0, receiver_s=RECEIVER_S)
    hold_s, slow_s = found.post_s + RECEIVER_S, found.post_s + SLOW_S
    bot_us, deliver_us = (
        found.bot_turn_us + found.bot_response_us,
        found.deliver_response_us + found.deliver_attempt_us,
    )
    postgres_us = found.postgres_turn_us + found.postgres_delivery_us
    both_us = 2 * found.rabbitmq_us

    def alone(name: str) -> str:
        return number_of(kept.alone[name].rate)

    rates = [
        ("API process", 1e6 / found.api_us, alone("api"), "its one core"),
        ("bot worker", 1e6 / bot_us, alone("bot"), "its one core"),
        ("delivery worker", 1e6 / deliver_us, alone("deliver"), "its one core"),
        ("partition of a stage", found.partition_rate, number_of(found.partition_rate),
         "one queue, one consumer; measured, a lower bound"),
        ("core of RabbitMQ, 1 node", 1e6 / both_us, "", "both queues of a message"),
        (f"core of RabbitMQ, {model.REPLICAS} nodes", 1e6 / (both_us * model.replication(found, model.REPLICAS)), "",
         f"each follower {found.follower_factor:.0%} of the leader's work (assumption)"),
        ("core of PostgreSQL", 1e6 / postgres_us, "", "a turn and a delivery"),
        ("conversation, in", 1 / model.turn_seconds(found, load), "", "one turn after the other, on a busy worker"),
        ("conversation, out", 1 / (hold_s + deliver_us / 1e6), "",
         f"one POST after the other, {RECEIVER_S * 1000:.0f} ms each"),
        ("webhook, each delivery worker", model.PLACES_EACH / hold_s, "",
         f"{model.PLACES_EACH} at a time, {RECEIVER_S * 1000:.0f} ms each"),
        ("the same, endpoint beyond a second", model.PLACES_SLOW / slow_s, "",
         f"{model.PLACES_SLOW} at a time, {SLOW_S:g} s each"),
    ]  # fmt: skip
    lines = [
        [what, number_of(most), number_of(most * simulate.TARGET), measured, why]
        for what, most, measured, why in rates
    ]
    return (
        ("messages a second of one", "full", f"planned with, {simulate.TARGET:.0%}", "measured, alone", "bound by"),
        lines,
    )  # fmt: skip


def sizes(kept: Kept) -> Table:
    """Memory, disk and connections of one of each."""
    found = kept.costs
    each = model.PREFETCH * (found.lane_bytes + found.message_bytes) / 1e6
    rows = [
        ("a process at rest", f"{found.process_mb:.0f} MB", kept.sources["process_mb"]),
        ("a partition held, prefetch full, each message in a lane of its own", f"{each:.2f} MB", "computed"),
        ("the delivery log, while the database is away, a worker",
         f"{model.ROWS_KEPT * found.row_bytes / 1e6:.0f} MB", f"{model.ROWS_KEPT:,} rows"),
        ("a RabbitMQ node", f"{found.rabbitmq_mb:,.0f} MB", kept.sources["rabbitmq_mb"]),
        ("PostgreSQL", f"{found.postgres_mb:,.0f} MB, and {found.connection_mb:.0f} MB a connection",
         f"{kept.sources['postgres_mb']}; {planning.CONNECTIONS} connections a process"),
        ("a turn on disk", f"{found.turn_disk_bytes:,.0f} bytes", kept.sources["turn_disk_bytes"]),
        ("a delivery on disk", f"{found.delivery_disk_bytes:,.0f} bytes", kept.sources["delivery_disk_bytes"]),
        ("write-ahead log of a message", f"{found.wal_bytes:,.0f} bytes", kept.sources["wal_bytes"]),
    ]  # fmt: skip
    return ("size", "here", "from"), [list(row) for row in rows]


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
        changed = "; ".join(planning.changes(before, after)) or "nothing"
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
        "receivers that take 2 s": replace(plain, receiver_s=SLOW_S),
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


def check(compared: Sequence[simulate.Compared]) -> Table:
    """Model and simulation beside what was measured."""

    def show(value: float | None, measured: float) -> str:
        return "" if value is None else f"{number_of(value)} ({value / measured - 1:+.0%})"

    lines = [
        [
            f"{row.what}, {row.unit}",
            number_of(row.measured),
            show(row.model, row.measured),
            show(row.simulated, row.measured),
            row.fitted or "nothing",
        ]
        for row in compared
    ]
    return ("", "measured", "model", "simulation", "fitted in it"), lines
