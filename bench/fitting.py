"""Fitting: turns what was measured into the costs that model and simulation compute with.

`python -m bench --fit` reads bench/results and writes bench/costs.json: each cost with where it comes from, and the
measurements that model and simulation are held against.
"""

import asyncio
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench import costs as kept_costs
from bench.costs import Kept
from bench.model import Load
from bench.pipeline import Run
from bench.results import Row
from bench.scaling import ANSWER_S, IN_FLIGHT
from bench.sizes import measure_sizes
from bench.steps import sum_of

#: Assumption: a turn with one response costs the bot worker this part without the response.
TURN_PART = 0.6
#: Assumption: of a delivery's cost, what is spent on the response whatever the number of its webhooks.
RESPONSE_PART = 0.25
#: Users of row 6; messages of a simulated run of it; the parts of a machine that others may have taken.
USERS, MESSAGES = 500, 10_000
OTHERS = tuple(percent / 100 for percent in range(0, 31, 2))


def fit(rows: Sequence[Row]) -> None:
    """Write costs and measurements; raises LookupError where a benchmark that they need was not run."""
    written = json.loads(kept_costs.FILE.read_text())
    cores = os.cpu_count() or 1
    written["bench"].update(machine_cores=cores, rabbitmq_cores=cores, postgres_cores=cores)
    written |= _measurements(rows)
    for name, (value, source) in _costs(rows).items():
        written["costs"][name] = {"value": value, "source": source}
    for name, size in asyncio.run(measure_sizes()).items():
        written["costs"][name] = {"value": round(size, -2), "source": "measured: tracemalloc, 5,000 of them"}
    kept_costs.FILE.write_text(_dumped(written))
    others = _fitted_others(kept_costs.read())
    written["costs"]["others"] = {
        "value": others,
        "source": "fitted: the simulation's p50 and p99 at the highest rate held",
    }
    kept_costs.FILE.write_text(_dumped(written))


def _measurements(rows: Sequence[Row]) -> dict[str, Any]:
    whole, one = _row(rows, 6), _row(rows, 5)
    alone = {"api": _row(rows, 4), "bot": _row(rows, 3), "deliver": _row(rows, 1), "drain": _row(rows, 12)}
    return {
        "alone": {
            name: {"rate": round(row.data["rate"]), "cpu_us": _rounded(row.data["cpu_us"])}
            for name, row in alone.items()
        },
        "together_us": _rounded(whole.data["cpu_us"]),
        "held_per_s": round(whole.value),
        "p50_ms": round(whole.data["p50_ms"]),
        "p99_ms": round(whole.data["p99_ms"]),
        "users": USERS,
        "commits": round(whole.data["commits"], 2),
        "embedded_per_s": round(_row(rows, 7).value),
        "one_ms": round(one.value * sum_of(one.data["steps"]) * 1000, 1),
        "workers": {number: round(rate) for number, rate in _row(rows, 10).data["workers"].items()},
        "places": IN_FLIGHT,
        "answer_s": ANSWER_S,
    }


def _costs(rows: Sequence[Row]) -> dict[str, tuple[float, str]]:
    whole = _row(rows, 6)
    cpu: Mapping[str, float] = whole.data["cpu_us"]
    api, bot, deliver = (_row(rows, number).data["cpu_us"] for number in (4, 3, 1))
    steps: Mapping[str, float] = _row(rows, 5).data["steps"]
    partitions = next(row for row in rows if row.what.startswith("cost") and "partitions" in row.what)
    end = "measured: CPU a message, end to end at the highest rate held"
    publish, take = api["rabbitmq"], deliver["rabbitmq"]
    turn, delivery = bot["postgres"], deliver["postgres"]
    hop_s = steps["publish and consume"] - (publish + take) / 1e6
    memory = (row.value for row in rows if row.what in ("memory: API", "memory: bot worker"))

    def part(of: str, share: float, why: str) -> tuple[float, str]:
        return round(cpu[of] * share), f"{end}; {why}"

    return {
        "api_us": (round(cpu["api"]), end),
        "bot_turn_us": part("bot", TURN_PART, f"assumption: {TURN_PART:.0%} of the bot worker's"),
        "bot_response_us": part("bot", 1 - TURN_PART, "the rest of the bot worker's"),
        "deliver_response_us": part(
            "deliver", RESPONSE_PART, f"assumption: {RESPONSE_PART:.0%} of the delivery worker's"
        ),
        "deliver_attempt_us": part("deliver", 1 - RESPONSE_PART, "the rest of the delivery worker's"),
        "rabbitmq_publish_us": part(
            "rabbitmq", publish / (publish + take) / 2, "two queues; shared out as it is for the API alone"
        ),
        "rabbitmq_take_us": part(
            "rabbitmq", take / (publish + take) / 2, "and for the delivery worker alone"
        ),
        "postgres_turn_us": part(
            "postgres", turn / (turn + delivery), "shared out as it is for the bot worker alone"
        ),
        "postgres_delivery_us": part(
            "postgres", delivery / (turn + delivery), "and for the delivery worker alone"
        ),
        "sender_us": (round(cpu["sender"]), end),
        "receiver_us": (round(cpu["receiver"]), end),
        "partition_rate": (
            round(partitions.data["rates_of"]["1"]),
            "measured: one delivery worker on one partition, whose limit it may be",
        ),
        "confirm_s": (round(max(0.0, hop_s), 5), "measured: a publish and its consume, less RabbitMQ's CPU"),
        "commit_s": (round(steps["commit"], 5), "measured: one INSERT, in turn with the other steps"),
        "post_s": (round(steps["POST"], 5), "measured: one POST, in turn with the other steps"),
        "process_mb": (round(max(memory)), "measured: the larger of API and bot worker"),
        "turn_disk_bytes": (round(whole.data["turn_bytes"]), "measured: tables and indexes, a turn"),
        "delivery_disk_bytes": (
            round(whole.data["delivery_bytes"]),
            "measured: table and indexes, a delivery",
        ),
        "wal_bytes": (round(whole.data["wal_bytes"]), "measured: write-ahead log, a message end to end"),
    }


def _fitted_others(kept: Kept) -> float:
    load = Load(kept.held_per_s * 3600, receiver_s=0.0)

    def miss(others: float) -> float:
        found = Run(
            replace(kept.costs, others=others),
            kept.bench,
            load,
            messages=MESSAGES,
            conversations=kept.users,
        ).outcome()
        return abs(math.log(found.p50_ms / kept.p50_ms)) + abs(math.log(found.p99_ms / kept.p99_ms))

    return min(OTHERS, key=miss)


def _rounded(values: Mapping[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in values.items()}


def _row(rows: Sequence[Row], number: int) -> Row:
    for row in rows:
        if row.number == number and row.data:
            return row
    raise LookupError(f"row {number} was not measured; run: python -m bench")


def _dumped(written: dict[str, Any]) -> str:
    """Write one cost a line, as people read them."""
    lines = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(cost)}" for name, cost in written["costs"].items()
    )
    rest = json.dumps({name: value for name, value in written.items() if name != "costs"}, indent=2)
    return f'{rest[:-2]},\n  "costs": {{\n{lines}\n  }}\n}}\n'
