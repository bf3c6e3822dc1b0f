"""What a delivery worker keeps in memory for each thing, in bytes, as tracemalloc counts them."""

import asyncio
import gc
import tracemalloc
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from bench.responses import TEXT, make_responses
from broker.ids import delivery_id
from broker.models.records import BotResponse, now
from broker.partitions import conversation_key
from broker.port import Envelope
from broker.registry.records import Attempt, Channel
from consumers.bot_worker import response_envelope
from consumers.lanes import Lane, Lanes
from consumers.shares import Shares
from consumers.waiting import Receipt, Waiting

NUMBER = 5_000


async def measure_sizes() -> dict[str, float]:
    """Measure a message in hand, a lane at work with one delivery, and a row that waits for the log."""
    channel = Channel("ch_" + "0" * 20, "bench", {"type": "echo"}, "token", 1, now())
    asked = [
        response_envelope(response.model_dump(mode="json"), 16)
        for response in make_responses(channel, NUMBER, 1)
    ]
    webhook_id = f"wh_{uuid4().hex[:20]}"
    shares = Shares(NUMBER)
    tracemalloc.start()
    try:
        start = _held()
        in_hand = [_read(envelope, shares) for envelope in asked]
        with_messages = _held()
        deliveries = [
            Waiting(delivery_id(response.id, webhook_id), webhook_id, response, receipt)
            for response, receipt in in_hand
        ]
        lanes = await _at_work(deliveries)
        with_lanes = _held()
        await lanes.stop(0)
        rows = [_delivered(waiting) for waiting in deliveries]
        # A row outlives the message that it tells of, and keeps its ids.
        del in_hand, deliveries, lanes
        await asyncio.sleep(0)
        with_rows = _held()
        assert len(rows) == NUMBER
    finally:
        tracemalloc.stop()
    return {
        "message_bytes": (with_messages - start) / NUMBER,
        "lane_bytes": (with_lanes - with_messages) / NUMBER,
        "row_bytes": (with_rows - start) / NUMBER,
    }


def _held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _read(envelope: Envelope, shares: Shares) -> tuple[BotResponse, Receipt]:
    # Each with a body of its own, as off the connection.
    body = bytes(bytearray(envelope.body))
    taken = Envelope(envelope.id, body, envelope.routing_key, envelope.headers, 1)
    return BotResponse.model_validate_json(body), Receipt(None, taken, 1, shares)  # type: ignore[arg-type]


def _delivered(waiting: Waiting) -> Any:
    waiting.attempts = [Attempt(1, now(), 12, 200, None, "", "")]
    assert TEXT in str(waiting.response.message)
    return waiting.delivery("delivered")


async def _at_work(deliveries: Sequence[Waiting]) -> Lanes[tuple[str, str], Waiting]:
    # As deep as an attempt that waits for its place.
    async def place(lane: Lane[Any, Any]) -> None:
        with lane.waiting():
            await asyncio.get_running_loop().create_future()

    async def attempt(lane: Lane[Any, Any]) -> None:
        lane.items[0].job()
        await place(lane)

    async def work(lane: Lane[Any, Any]) -> None:
        await attempt(lane)

    lanes: Lanes[tuple[str, str], Waiting] = Lanes(work, lambda *_: None)
    for waiting in deliveries:
        response = waiting.response
        lanes.put((waiting.webhook_id, conversation_key(response.channel_id, response.user_id)), waiting)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return lanes
