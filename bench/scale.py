"""The tables and plots of docs/scale.md, from `bench/costs.json` by model and simulation side by side."""

from collections.abc import Sequence

from bench import costs, model, planning, simulate
from bench.costs import Kept
from bench.model import Load
from bench.needs import kinds, loads, steps
from bench.results import DOCS, Table, lay_out, number_of, put_between

PAGE = DOCS / "scale.md"
VERDICTS = {True: "yes", False: "**no**", None: ""}
#: What endpoints take, in seconds: one as planned with, and one that is slow.
RECEIVER_S, SLOW_S = 0.1, 2.0


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
        ("the same, slow endpoint", model.PLACES_EACH / slow_s, "",
         f"{model.PLACES_EACH} at a time, {SLOW_S:g} s each"),
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
        ("transactions of a message", f"{kept.commits:.2g}", "measured: all that PostgreSQL committed"),
        ("write-ahead log of a message", f"{found.wal_bytes:,.0f} bytes", kept.sources["wal_bytes"]),
    ]  # fmt: skip
    return ("size", "here", "from"), [list(row) for row in rows]


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
            "" if row.tolerance is None else f"±{row.tolerance:.0%}: {VERDICTS[row.within]}",
            row.fitted or "nothing",
        ]
        for row in compared
    ]
    return ("", "measured", "model", "simulation", "simulated within", "fitted in it"), lines
