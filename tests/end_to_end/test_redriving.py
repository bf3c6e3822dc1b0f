"""Redrive with a real process: what an endpoint refused arrives after all, in the order of its conversation."""

import asyncio

from deployment import Deployment
from processes import ARRIVAL_S, Receiver, until

USERS = ["ada", "bob", "cyd"]


async def test_what_an_endpoint_refused_arrives_in_order_after_its_redrive(
    embedded: Deployment, receiver: Receiver
) -> None:
    await embedded.start("run")
    channel, token = await embedded.api.channel()
    await embedded.api.webhook(channel, receiver, "/healthy")
    webhook = await embedded.api.webhook(channel, receiver, "/refusing")
    receiver.answer = lambda path: 400 if path == "/refusing" else 200
    for number in range(1, 4):
        for user in USERS:
            assert await embedded.api.say(channel, token, user, str(number)) == 200

    async def count(status: str) -> int:
        page = await embedded.api.admin(
            "GET", f"/v1/channels/{channel}/deliveries?status={status}&webhookId={webhook}&limit=200"
        )
        return len(page["items"])  # type: ignore[arg-type]

    await until(lambda: receiver.distinct("/healthy") == 9, ARRIVAL_S, "the healthy webhook's deliveries")
    async with asyncio.timeout(ARRIVAL_S):
        while await count("dead") < 9:  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.05)
    assert receiver.distinct("/refusing") == 0

    receiver.answer = lambda path: 200
    redriven = await embedded.api.admin("POST", f"/v1/webhooks/{webhook}/redrive", {})
    assert redriven == {"redriven": 9, "nextCursor": None}
    await until(lambda: receiver.distinct("/refusing") == 9, ARRIVAL_S, "what was refused")
    # The lane is live again, and goes on behind them.
    for user in USERS:
        assert await embedded.api.say(channel, token, user, "4") == 200
    await until(lambda: receiver.distinct("/refusing") == 12, ARRIVAL_S, "what was said since")
    for user in USERS:
        assert receiver.first_arrivals("/refusing", user) == [1, 2, 3, 4]
    assert receiver.repeats("/refusing") == 0
    assert receiver.repeats("/healthy") == 0
    assert receiver.unsigned == 0
