"""What waits in a delivery worker's memory: deliveries, and the receipts of the responses that they came from."""

import time
from dataclasses import dataclass, field
from datetime import timedelta

from broker.models.records import BotResponse, now
from broker.partitions import conversation_key
from broker.port import Envelope, Subscription
from broker.registry.records import Attempt, Delivery
from consumers.job import Job


class Receipt:
    """Counts a response's deliveries down, and acknowledges it when the last is settled."""

    __slots__ = ("_envelope", "_left", "_subscription")

    def __init__(self, subscription: Subscription, envelope: Envelope, deliveries: int) -> None:
        self._subscription = subscription
        self._envelope = envelope
        self._left = deliveries

    def settled(self) -> None:
        """Say that one of the deliveries is settled."""
        self._left -= 1
        if self._left == 0:
            self._subscription.ack(self._envelope)


@dataclass(slots=True)
class Waiting:
    """A delivery in memory, with the attempts that failed so far."""

    id: str
    webhook_id: str
    response: BotResponse
    receipt: Receipt
    #: As how many it counts among those that are held.
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
