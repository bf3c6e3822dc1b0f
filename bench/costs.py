"""What was measured, as model and simulation read it: `bench/costs.json`, which `bench.fitting` writes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.model import Costs, Deployment

FILE = Path(__file__).with_name("costs.json")


@dataclass(frozen=True, slots=True)
class Alone:
    """One process at full speed with its servers: messages a second, and CPU in microseconds of each by name."""

    rate: float
    cpu_us: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Kept:
    """The costs, where each comes from, and the measurements that model and simulation are held against."""

    costs: Costs
    sources: Mapping[str, str]
    #: What was measured: one of each process, all on one machine.
    bench: Deployment
    #: By name: api (row 4), bot (row 3), deliver (row 1), drain (row 12).
    alone: Mapping[str, Alone]
    #: CPU in microseconds a message, by name, all processes together (row 6).
    together_us: Mapping[str, float]
    #: Row 6: messages a second held, latencies there, and how many users they came from.
    held_per_s: float
    p50_ms: float
    p99_ms: float
    users: int
    #: Transactions of PostgreSQL for each message there.
    commits: float
    #: Row 7: the same in one process, without servers.
    embedded_per_s: float
    #: Row 5: one message at a time, in milliseconds.
    one_ms: float
    #: Row 10: deliveries a second by number of workers; places of each, and what the endpoint takes, in seconds.
    workers: Mapping[int, float]
    places: int
    answer_s: float

    def costs_alone(self, process: str) -> Costs:
        """Return the costs of one process at full speed, while the others rest."""
        cpu = self.alone[process].cpu_us
        costs = replace(self.costs, sender_us=0.0)
        if process == "bot":
            part = cpu["bot"] / (costs.bot_turn_us + costs.bot_response_us)
            # It takes each message from one queue, and puts a response onto another.
            rabbitmq = cpu["rabbitmq"] / costs.rabbitmq_us
            return replace(
                costs,
                bot_turn_us=costs.bot_turn_us * part,
                bot_response_us=costs.bot_response_us * part,
                rabbitmq_publish_us=costs.rabbitmq_publish_us * rabbitmq,
                rabbitmq_take_us=costs.rabbitmq_take_us * rabbitmq,
                postgres_turn_us=cpu["postgres"],
            )
        part = cpu["deliver"] / (costs.deliver_response_us + costs.deliver_attempt_us)
        return replace(
            costs,
            deliver_response_us=costs.deliver_response_us * part,
            deliver_attempt_us=costs.deliver_attempt_us * part,
            rabbitmq_take_us=cpu["rabbitmq"],
            postgres_delivery_us=cpu["postgres"],
            receiver_us=cpu["nginx"],
        )


def read(file: Path = FILE) -> Kept:
    """Read what was kept."""
    written: dict[str, Any] = json.loads(file.read_text())
    entries = written.pop("costs")
    alone = {name: Alone(**entry) for name, entry in written.pop("alone").items()}
    workers = {int(number): rate for number, rate in written.pop("workers").items()}
    return Kept(
        costs=Costs(**{name: entry["value"] for name, entry in entries.items()}),
        sources={name: entry["source"] for name, entry in entries.items()},
        bench=Deployment(**written.pop("bench")),
        alone=alone,
        workers=workers,
        **written,
    )
