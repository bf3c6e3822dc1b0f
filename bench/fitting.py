"""Fitting: turns what was measured into the costs that model and simulation compute with.

`python -m bench --fit` reads bench/results and writes bench/costs.json, each cost with where it comes from, and
bench/results/measured.json, which the simulation is held against.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.results import FOLDER, Row
from bench.sizes import measure_sizes

COSTS = Path(__file__).with_name("costs.json")
#: Assumption: a turn with one response costs the bot worker this part without the response.
TURN_PART = 0.6
#: Assumption: of a delivery's cost, what is spent on the response whatever the number of its webhooks.
RESPONSE_PART = 0.25


def fit(rows: Sequence[Row]) -> None:
    """Write costs and measurements; raises LookupError where a benchmark that they need was not run."""
    whole = _row(rows, 6)
    costs = {
        name: {"value": value, "source": source} for name, (value, source) in _costs(rows, whole).items()
    }
    for name, size in asyncio.run(measure_sizes()).items():
        costs[name] = {"value": round(size, -2), "source": "measured: tracemalloc, 5,000 of them"}
    written = json.loads(COSTS.read_text())
    written["measured"] = True
    written["costs"] = {**written["costs"], **costs}
    COSTS.write_text(_dumped(written))
    measured = {
        "rate": {
            "rate_per_s": whole.value,
            "max_rate_per_s": whole.value,
            "p50_ms": whole.data["p50_ms"],
            "p99_ms": whole.data["p99_ms"],
            "conversations": 500,
        },
        "deliveries": {"rate_per_s": _row(rows, 1).data["rate"], "conversations": 500},
        "workers": _row(rows, 10).data["workers"],
    }
    (FOLDER / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")


def _costs(rows: Sequence[Row], whole: Row) -> dict[str, tuple[float, str]]:
    cpu: Mapping[str, float] = whole.data["cpu_us"]
    steps: Mapping[str, float] = _row(rows, 5).data["steps"]
    partitions = next(row for row in rows if "partitions" in row.what)
    end = "measured: CPU a message, end to end at the highest rate held"
    return {
        "api_us": (round(cpu["api"]), end),
        "bot_turn_us": (
            round(cpu["bot"] * TURN_PART),
            f"{end}; assumption: {TURN_PART:.0%} of the bot worker's",
        ),
        "bot_response_us": (round(cpu["bot"] * (1 - TURN_PART)), f"{end}; the rest of the bot worker's"),
        "deliver_response_us": (
            round(cpu["deliver"] * RESPONSE_PART),
            f"{end}; assumption: {RESPONSE_PART:.0%} of the delivery worker's",
        ),
        "deliver_attempt_us": (round(cpu["deliver"] * (1 - RESPONSE_PART)), f"{end}; the rest of it"),
        "rabbitmq_us": (round(cpu["rabbitmq"] / 2), f"{end}; two queues on the way"),
        "postgres_turn_us": (
            round(_row(rows, 3).data["cpu_us"]["postgres"]),
            "measured: CPU a turn, the bot worker alone",
        ),
        "postgres_delivery_us": (
            round(_row(rows, 1).data["cpu_us"]["postgres"]),
            "measured: CPU a delivery, the delivery worker alone",
        ),
        "sender_us": (round(cpu["sender"]), end),
        "receiver_us": (round(cpu["receiver"]), end),
        "partition_rate": (
            round(partitions.data["rates_of"]["1"]),
            "measured: one delivery worker on one partition",
        ),
        "confirm_s": (round(steps["publish and consume"], 5), "measured: a publish and its consume, alone"),
        "query_s": (round(steps["query"], 5), "measured: one SELECT, alone"),
        "commit_s": (round(steps["commit"], 5), "measured: one INSERT, alone"),
        "post_s": (round(steps["POST"], 5), "measured: one POST, alone"),
        "process_mb": (
            round(max(row.value for row in rows if row.what in ("memory: API", "memory: bot worker"))),
            "measured: the larger of API and bot worker",
        ),
        "turn_disk_bytes": (round(whole.data["turn_bytes"]), "measured: tables and indexes, a turn"),
        "delivery_disk_bytes": (
            round(whole.data["delivery_bytes"]),
            "measured: table and indexes, a delivery",
        ),
    }


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
