"""The whole way as one would write it: an aiohttp door, a bot and a delivery by FastStream, and no database.

Three processes, each run with uvloop: `pipeline_peer.py door PORT`, and by FastStream's own command
`pipeline_peer:bot` and `pipeline_peer:delivery`. Queues are quorum queues, publications are persistent and
confirmed, and a message is acknowledged after its work: nothing is lost. There are no lanes, no retries beyond the
queue's, no history, and no channels: one token, one webhook.
"""

import base64
import hashlib
import hmac
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import aiohttp
import uvloop
from aiohttp import web
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage

AMQP_URL = os.environ["BENCH_AMQP_URL"]
WEBHOOK_URL = os.environ["BENCH_WEBHOOK_URL"]
TOKEN = os.environ["BENCH_TOKEN"]
SECRET = base64.b64decode(os.environ["BENCH_SECRET"])

INBOUND = RabbitQueue("bench.pipeline.in", queue_type=QueueType.QUORUM)
OUTBOUND = RabbitQueue("bench.pipeline.out", queue_type=QueueType.QUORUM)
#: As many as a worker of ours holds of one queue, and as many POSTs at once as it makes to one webhook.
PREFETCH, IN_FLIGHT = 200, 64


# ----------------------------------------------------------------------------------------------- the door
async def accept(request: web.Request) -> web.Response:
    """Take one message: compare the token, publish with a confirm, answer with the message's id."""
    if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Bearer {TOKEN}"):
        raise web.HTTPUnauthorized
    try:
        sent = await request.json()
        user, text = sent["user"]["id"], sent["message"]["textMessage"]["text"]
    except (ValueError, KeyError, TypeError):
        raise web.HTTPBadRequest from None
    message_id = str(uuid.uuid4())
    message = aio_pika.Message(
        json.dumps({"id": message_id, "user": user, "text": text}).encode(),
        content_type="application/json",
        message_id=message_id,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await request.app[EXCHANGE].publish(message, INBOUND.name)
    return web.json_response({"status": "EVENT_RECEIVED", "id": message_id})


EXCHANGE = web.AppKey("EXCHANGE", aio_pika.abc.AbstractExchange)


async def connect(app: web.Application) -> AsyncIterator[None]:
    """Keep a connection to RabbitMQ with one AMQP channel, on which publications are confirmed."""
    async with await aio_pika.connect_robust(AMQP_URL) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue(INBOUND.name, durable=True, arguments={"x-queue-type": "quorum"})
        app[EXCHANGE] = channel.default_exchange
        yield


def serve(port: int) -> None:
    """Run the door."""
    app = web.Application()
    app.cleanup_ctx.append(connect)
    app.router.add_post("/messages", accept)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


# ------------------------------------------------------------------------------------------------ the bot
# At the level DEBUG, which is not shown, it says that a message was received and processed.
bot_broker = RabbitBroker(AMQP_URL, default_channel=Channel(prefetch_count=PREFETCH), log_level=logging.DEBUG)


async def declare_outbound() -> None:
    """Declare what the bot publishes to, before it gets a message."""
    await bot_broker.connect()
    await bot_broker.declare_queue(OUTBOUND)


bot = FastStream(bot_broker, on_startup=[declare_outbound])


@bot_broker.subscriber(INBOUND, ack_policy=AckPolicy.NACK_ON_ERROR)
async def answer(message: RabbitMessage) -> None:
    """Say what was said, with a confirm."""
    said = json.loads(message.body)
    response = {"senderId": said["user"], "inReplyTo": said["id"], "message": {"text": said["text"]}}
    await bot_broker.publish(response, OUTBOUND, persist=True, message_id=said["id"])


# ------------------------------------------------------------------------------------------- the delivery
delivery_broker = RabbitBroker(
    AMQP_URL, default_channel=Channel(prefetch_count=PREFETCH), log_level=logging.DEBUG
)
http: aiohttp.ClientSession


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """Open one client for all messages."""
    global http
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    headers = {"Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=15)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as http:
        yield


delivery = FastStream(delivery_broker, lifespan=lifespan)


@delivery_broker.subscriber(OUTBOUND, ack_policy=AckPolicy.NACK_ON_ERROR)
async def deliver(message: RabbitMessage) -> None:
    """POST one response, signed as Standard Webhooks has it."""
    said: dict[str, Any] = json.loads(message.body)
    webhook_id, moment = said["inReplyTo"], str(int(time.time()))
    signed = f"{webhook_id}.{moment}.".encode() + message.body
    signature = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{signature}",
    }
    async with http.post(WEBHOOK_URL, data=message.body, headers=headers) as answered:
        await answered.read()
    answered.raise_for_status()


if __name__ == "__main__":
    serve(int(sys.argv[2]))
