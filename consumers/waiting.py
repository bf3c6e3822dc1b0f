"""What waits in a delivery worker's memory: deliveries, and the receipts of the responses that they came from."""

import time
from dataclasses import dataclass, field
from datetime import timedelta

from broker.models.records import BotResponse, now
from broker.partitions import conversation_key
from broker.port import Envelope, Subscription
from broker.registry.records import Attempt, Delivery
from consumers.job import Job
from consumers.shares import Shares


class Receipt:
    """Counts a response's deliveries down; when the last is settled, acknowledges it and gives its places back."""

    __slots__ = ("_count", "_envelope", "_left", "_shares", "_subscription")

    def __init__(
        self, subscription: Subscription, envelope: Envelope, deliveries: int, shares: Shares, count: int = 1
    ) -> None:
        self._subscription = subscription
        self._envelope = envelope
        self._left = deliveries
        self._shares = shares
        self._count = count
        shares.take(count)

    def settled(self) -> None:
        """Say that one of the deliveries is settled."""
        self._left -= 1
        if self._left == 0:
            self._shares.give_back(self._count)
            self._subscription.ack(self._envelope)


@dataclass(slots=True)
class Waiting:
    """A delivery in memory, with the attempts that failed so far."""

    id: str
    webhook_id: str
    response: BotResponse
    receipt: Receipt
    #: How many places of the prefetch it takes.
    count: int = 1
    since: float = field(default_factory=time.monotonic)
    attempts: list[Attempt] = field(default_factory=list)

    def job(self) -> Job:
        """Say what is to be tried now."""
        return Job(
            self.id,
            self.webhook_id,
            self.response,
            attempts=len(self.attempts),
            attempts_before=0,
            age_s=(now() - self.response.created_at).total_seconds(),
            in_memory_s=time.monotonic() - self.since,
        )

    def delivery(self, status: str, reason: str | None = None) -> Delivery:
        """Make the registry's record of it; a delivered one leaves its response to the turns."""
        last = self.attempts[-1] if self.attempts else None
        ended = last.started_at + timedelta(milliseconds=last.duration_ms) if last else now()
        return Delivery(
            id=self.id,
            webhook_id=self.webhook_id,
            channel_id=self.response.channel_id,
            conversation_key=conversation_key(self.response.channel_id, self.response.user_id),
            user_id=self.response.user_id,
            response_id=self.response.id,
            message_counter=self.response.message_counter,
            status=status,  # type: ignore[arg-type]
            reason=reason,
            attempt_count=len(self.attempts),
            created_at=self.response.created_at,
            finished_at=None if status == "pending" else ended,
            response=None if status == "delivered" else self.response.model_dump(mode="json"),
            attempts=tuple(self.attempts),
        )
