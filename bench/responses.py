"""Bot responses made for a benchmark, put on their queues directly, and what must arrive of them."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.receiver import Arrival
from broker.ids import delivery_id, response_id
from broker.models.outbound import webhook_body
from broker.models.records import BotResponse
from broker.port import Broker
from broker.registry.records import Channel, Webhook
from broker.signature import sign
from broker.topology import OUTBOUND
from consumers.bot_worker import response_envelope

TEXT = "Your parcel is on its way: it left our depot this morning and will be with you before six. Anything else?"


def make_responses(channel: Channel, users: int, each: int, prefix: str = "user") -> list[BotResponse]:
    """Make `each` responses to each of so many users, a round of all users after the other."""
    return [
        BotResponse(
            id=response_id(f"{channel.id}/{prefix}-{user}/{counter}", 1),
            channel_id=channel.id,
            user_id=f"{prefix}-{user}",
            in_reply_to=response_id(f"{channel.id}/{prefix}-{user}/{counter}", 0),
            index=1,
            count=1,
            message_counter=counter,
            kind="text",
            message={"text": TEXT},
            channel_revision=channel.revision,
        )
        for counter in range(1, each + 1)
        for user in range(users)
    ]


async def publish(broker: Broker, responses: Sequence[BotResponse], partitions: int) -> None:
    """Put responses on their queues, in order within each conversation."""
    lanes: dict[int, list[BotResponse]] = defaultdict(list)
    for response in responses:
        lanes[hash((response.channel_id, response.user_id)) % 200].append(response)

    async def one(lane: list[BotResponse]) -> None:
        for response in lane:
            await broker.publish(OUTBOUND, response_envelope(response.model_dump(mode="json"), partitions))

    await asyncio.gather(*map(one, lanes.values()))


@dataclass(frozen=True)
class Expected:
    """What the webhooks of a channel must have got."""

    responses: Sequence[BotResponse]
    webhooks: Sequence[Webhook]
    channel: Channel

    def check(self, arrivals: Sequence[Arrival]) -> None:
        """Check that this arrived, and nothing else; raises SystemExit otherwise."""
        check([self], arrivals)


def check(expected: Sequence[Expected], arrivals: Sequence[Arrival]) -> None:
    """Raise SystemExit where a delivery was lost, repeated, out of order, or not signed as it must be."""
    wanted = {
        delivery_id(response.id, webhook.id): (response, webhook, each.channel)
        for each in expected
        for response in each.responses
        for webhook in each.webhooks
    }
    number = len(wanted)
    counters: dict[tuple[str, str], int] = defaultdict(int)
    for arrival in arrivals:
        known = wanted.pop(arrival.webhook_id, None)
        if known is None:
            raise SystemExit(f"a delivery came twice, or was never asked for: {arrival}")
        response, webhook, channel = known
        body = webhook_body(response, webhook.verify_token or channel.verify_token)
        signature = sign([webhook.secret], arrival.webhook_id, int(arrival.timestamp), body)
        if arrival.signature != signature or arrival.length != str(len(body)):
            raise SystemExit(f"a delivery was not signed as it must be: {arrival}")
        lane = (webhook.id, response.user_id)
        if response.message_counter != counters[lane] + 1:
            raise SystemExit(f"out of order at {lane}: {response.message_counter} after {counters[lane]}")
        counters[lane] = response.message_counter
    if wanted:
        raise SystemExit(f"{len(wanted)} of {number} deliveries never arrived")
