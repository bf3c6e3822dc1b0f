"""Dead letters: what cannot be processed goes to one queue with its reason, and from there into the registry.

The broker sends there too, what it gives up by its own delivery limit. So a worker that meets rubbish needs no
database to get rid of it, and everything that was given up ends in one table.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID, uuid4, uuid5

from broker.ids import NAMESPACE
from broker.models.records import now
from broker.port import Broker, Envelope, HeaderValue, Subscription
from broker.registry.records import DeadLetter
from broker.topology import DEAD
from consumers.outage import outlast

#: Headers that say who gave a message up, and why.
STAGE, REASON, DETAIL, CHANNEL, KEY = (
    "postbote-dead-stage",
    "postbote-dead-reason",
    "postbote-dead-detail",
    "postbote-dead-channel",
    "postbote-dead-key",
)
#: A reason is read by people; a header frame is bounded by the broker.
LONGEST_DETAIL = 2000


class DeadLetterStore(Protocol):
    """Where dead letters are kept."""

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them; one that is there already stays as it is."""
        ...


async def bury(
    broker: Broker,
    original: Envelope,
    *,
    stage: str,
    reason: str,
    detail: str = "",
    channel_id: str | None = None,
) -> None:
    """Put a message on the queue of dead letters; when this returns, the message may be acknowledged."""
    headers: dict[str, HeaderValue] = {
        STAGE: stage,
        REASON: reason,
        DETAIL: detail[:LONGEST_DETAIL],
        KEY: original.routing_key,
    }
    if channel_id is not None:
        headers[CHANNEL] = channel_id
    letter = Envelope(str(uuid4()), original.body, f"dead.{stage}", {**original.headers, **headers})
    await outlast(lambda: broker.publish(DEAD, letter), f"{stage}.burying")


class DeadLetterSession:
    """Writes what comes on the queue of dead letters into the registry, in batches."""

    def __init__(self, subscription: Subscription, store: DeadLetterStore) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscription = subscription
        self._store = store

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Write a batch and acknowledge it."""
        letters = [dead_letter(envelope) for envelope in envelopes]
        await outlast(lambda: self._store.add(letters), "dead_letters.collecting")
        for envelope in envelopes:
            self._subscription.ack(envelope)

    async def stop(self, grace_s: float) -> None:
        """Nothing is in flight between two batches."""


def dead_letter(envelope: Envelope) -> DeadLetter:
    """Read a dead letter off its envelope, whether we or the broker wrote its headers."""
    headers = dict(envelope.headers)
    by_us = STAGE in headers
    reason = headers.get(REASON) if by_us else headers.get("x-first-death-reason", "unknown")
    queue = headers.get("x-first-death-queue", "")
    detail = headers.get(DETAIL, "") if by_us else f"the broker gave it up in the queue {queue or 'unknown'}"
    channel = headers.get(CHANNEL)
    return DeadLetter(
        id=_letter_id(envelope),
        stage=str(headers.get(STAGE, "broker")),
        reason=str(reason),
        detail=str(detail),
        channel_id=None if channel is None else str(channel),
        routing_key=str(headers.get(KEY, envelope.routing_key)),
        headers={name: value for name, value in headers.items() if not name.startswith("postbote-dead-")},
        body=envelope.body,
        created_at=now(),
    )


def _letter_id(envelope: Envelope) -> str:
    # The same id whenever the same letter is collected again, so that a crash here makes no second row. A
    # message that the broker gave up may have any id, or the empty one.
    try:
        return str(UUID(envelope.id))
    except ValueError:
        return str(uuid5(NAMESPACE, f"dead/{envelope.id}")) if envelope.id else str(uuid4())
