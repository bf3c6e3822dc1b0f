"""Celery on RabbitMQ: a task that POSTs its argument by requests, run by celery's own prefork worker."""

import os
import sys
from typing import Any

import requests
from celery import Celery
from celery.signals import worker_process_init
from kombu import Connection, Producer

FILLING = sys.argv[1:2] == ["fill"]
AMQP_URL = sys.argv[2] if FILLING else os.environ["BENCH_AMQP_URL"]
WEBHOOK_URL = os.environ.get("BENCH_WEBHOOK_URL", "")
TEXT = "Your parcel left the depot this morning and will be with you between two and four. " * 2 + "Bye!"

app = Celery("bench", broker=AMQP_URL)
app.conf.update(
    task_default_queue="bench.celery",
    # A quorum queue survives the loss of a node; Celery supports it since 5.5, and then asks for a topic
    # exchange, so that a retry waits in RabbitMQ and not in the worker.
    task_default_queue_type="quorum",
    task_default_exchange_type="topic",
    # Acknowledged after the task, and given to another process if this one dies: no message is lost.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A retry is published before the failed message is acknowledged: the worker must know that it arrived.
    broker_transport_options={"confirm_publish": True},
    # Nobody asks for the results; to keep them would be one more message for each.
    task_ignore_result=True,
    # 200 for both processes, as with the other peers; the default of 4 each is for long tasks.
    worker_prefetch_multiplier=100,
    # Nobody watches or steers this worker.
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)
http = requests.Session()


@worker_process_init.connect
def open_session(**_: Any) -> None:
    """Open a session for the process, which keeps its connection; one from before the fork would be shared."""
    global http
    http = requests.Session()
    # Else it looks for proxies and a .netrc at every request, which aiohttp does not.
    http.trust_env = False


# With a name of its own the task is the same one for the worker and for `fill`, which is `__main__`.
@app.task(
    name="deliver",
    autoretry_for=(requests.RequestException,),
    max_retries=None,
    retry_backoff=True,
    retry_backoff_max=60,
)
def deliver(message: dict[str, Any]) -> None:
    """POST one message."""
    http.post(WEBHOOK_URL, json=message, timeout=10).raise_for_status()


def body(number: int) -> dict[str, Any]:
    """Make one message, of about 300 bytes as JSON."""
    return {
        "senderId": f"user-{number % 200}",
        "messageCounter": number // 200 + 1,
        "message": {"textMessage": {"text": f"{number:08d} {TEXT}"}},
    }


def fill(count: int) -> None:
    """Put tasks onto the queue, many confirms at a time."""
    confirmed = 0

    def note(tag: int, _multiple: bool) -> None:
        nonlocal confirmed
        confirmed = max(confirmed, tag)

    # A connection of its own: `confirm_publish` above waits for one confirm at a time.
    with Connection(AMQP_URL) as connection, connection.channel() as channel:
        channel.confirm_select()
        channel.events["basic_ack"].add(note)
        producer = Producer(channel)
        for number in range(count):
            deliver.apply_async((body(number),), producer=producer)
            if number % 500 == 499 or number == count - 1:
                while confirmed <= number:
                    connection.drain_events(timeout=30)


if __name__ == "__main__":
    fill(int(sys.argv[4]))
