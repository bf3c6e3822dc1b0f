"""Intake: what outside programs publish to the queue `postbote.messages` is validated and sent on its way.

Lanes by conversation keep its messages in order while those of others go side by side.
"""

import asyncio
from collections.abc import Sequence

from pydantic import ValidationError

from broker.errors import Unpublishable
from broker.ids import message_id, new_message_id
from broker.models.acceptance import accept_queued
from broker.models.inbound import QueuedMessageRequest
from broker.models.json_bytes import why_not_json
from broker.models.records import UserMessage
from broker.partitions import conversation_key, partition_of
from broker.port import Broker, Envelope, Subscription
from broker.topology import INBOUND, inbound_key
from broker.trace import traceparent_of
from consumers.dead_letters import bury
from consumers.lanes import Lane, Lanes
from consumers.outage import outlast
from consumers.outside import content_encoding, named_channel, read_body
from consumers.rejection import why_invalid


class IntakeSession:
    """Forwards each valid message to its partition, and each invalid one to the dead letters."""

    def __init__(self, subscription: Subscription, broker: Broker, partitions: int) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscription = subscription
        self._broker = broker
        self._partitions = partitions
        self._lanes: Lanes[str, tuple[Envelope, UserMessage]] = Lanes(self._forward, self._fail)

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Validate, and put what is valid into its conversation's lane."""
        for envelope in envelopes:
            message = read_message(envelope)
            if isinstance(message, UserMessage):
                self._lanes.put(conversation_key(message.channel_id, message.user.id), (envelope, message))
                continue
            await self._bury(envelope, "not a valid message", message, named_channel(envelope))

    async def stop(self, grace_s: float) -> None:
        """Let what is being forwarded arrive."""
        await self._lanes.stop(grace_s)

    async def _forward(self, lane: Lane[str, tuple[Envelope, UserMessage]]) -> None:
        envelope, message = lane.items[0]
        forwarded = Envelope(
            message.id,
            message.model_dump_json().encode(),
            inbound_key(message.channel_id, partition_of(lane.key, self._partitions)),
        )
        try:
            await outlast(lambda: self._broker.publish(INBOUND, forwarded), "intake.forwarding")
            self._subscription.ack(envelope)
        except Unpublishable as refusal:
            await self._bury(envelope, "too large for the broker", str(refusal), message.channel_id)
        lane.items.popleft()

    async def _bury(self, envelope: Envelope, reason: str, detail: str, channel_id: str | None) -> None:
        await bury(
            self._broker, envelope, stage="intake", reason=reason, detail=detail, channel_id=channel_id
        )
        self._subscription.ack(envelope)

    def _fail(self, key: str, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


def read_message(envelope: Envelope) -> UserMessage | str:
    """Read an outside program's message; a string says why it is not one.

    A message that brings its own id (the AMQP property message-id, or `id` in its JSON) is answered once however
    often it is published. One without gets an id here, and may be answered twice if intake dies at that moment.
    """
    body = b""
    try:
        body = read_body(envelope)
        request = QueuedMessageRequest.model_validate_json(body)
    except ValidationError as error:
        return _hint(envelope, body) + why_invalid(error)
    except ValueError as error:
        return str(error)
    given = request.id or envelope.id
    return accept_queued(
        request,
        message_id=message_id(request.channel_id, given) if given else new_message_id(),
        traceparent=traceparent_of(envelope.headers.get("traceparent")),
    )


def _hint(envelope: Envelope, body: bytes) -> str:
    encoding = content_encoding(envelope)
    told = why_not_json(body)
    if told is None and encoding and body[:1] not in b"{[":
        told = f"its content encoding {encoding[:40]!r} may be one that is not read: gzip is, and none"
    return f"{told}; " if told else ""
