"""Dramatiq on RabbitMQ: an actor that POSTs its argument by requests, run by dramatiq's own command."""

import os
import sys
import threading
from typing import Any

import dramatiq
import requests
from dramatiq.brokers.rabbitmq import RabbitmqBroker

FILLING = sys.argv[1:2] == ["fill"]
AMQP_URL = sys.argv[2] if FILLING else os.environ["BENCH_AMQP_URL"]
WEBHOOK_URL = os.environ.get("BENCH_WEBHOOK_URL", "")
TEXT = "Your parcel left the depot this morning and will be with you between two and four. " * 2 + "Bye!"

# Dramatiq declares durable classic queues and knows no others. It acknowledges a message after the actor ran.
# A worker publishes a failed message again before it acknowledges it, and must know that it arrived;
# `fill` does without, for dramatiq waits for one confirm at a time.
broker = RabbitmqBroker(url=AMQP_URL, confirm_delivery=not FILLING)
dramatiq.set_broker(broker)
local = threading.local()


def session() -> requests.Session:
    """Return the thread's own session, which keeps its connection; a session is not made for many threads."""
    if not hasattr(local, "session"):
        local.session = requests.Session()
        # Else it looks for proxies and a .netrc at every request, which aiohttp does not.
        local.session.trust_env = False
    found: requests.Session = local.session
    return found


# A failed message is sent again by dramatiq's own middleware, later and later, and for ever.
@dramatiq.actor(queue_name="bench.dramatiq", max_retries=None, min_backoff=1000, max_backoff=60_000)
def deliver(message: dict[str, Any]) -> None:
    """POST one message."""
    session().post(WEBHOOK_URL, json=message, timeout=10).raise_for_status()


def body(number: int) -> dict[str, Any]:
    """Make one message, of about 300 bytes as JSON."""
    return {
        "senderId": f"user-{number % 200}",
        "messageCounter": number // 200 + 1,
        "message": {"textMessage": {"text": f"{number:08d} {TEXT}"}},
    }


def fill(count: int) -> None:
    """Put messages onto the queue."""
    for number in range(count):
        deliver.send(body(number))
    # RabbitMQ answers the close only after it has taken all that was sent before.
    broker.close()


if __name__ == "__main__":
    fill(int(sys.argv[4]))
