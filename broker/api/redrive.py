"""Redrive: what was given up is tried once more, one or all of it."""

from dataclasses import replace
from typing import Annotated

from pydantic import BeforeValidator, Field

from broker.api.answers import Ok
from broker.api.endpoint import AdminEndpoint, answer
from broker.api.forms import Form
from broker.api.history import DeliveryId, LetterId, Stage
from broker.api.history_schemas import (
    DeadLetter,
    DeliveryWithAttempts,
    RedrivenDeadLetters,
    RedrivenDeliveries,
)
from broker.api.parts import Parts
from broker.api.problems import Problem, fault, not_found
from broker.api.webhooks import WebhookId
from broker.errors import Unpublishable
from broker.fitting import fit_headers
from broker.models.inbound import ChannelId
from broker.models.records import Moment, now
from broker.port import Broker, Envelope
from broker.registry import records
from broker.registry.pages import cursor_of, read_cursor
from broker.registry.redrive import Place, Refusal
from broker.return_address import return_address
from broker.topology import Topology

#: What one request redrives: it should end long before its client loses patience.
MOST_DELIVERIES, MOST_LETTERS = 10_000, 500
#: How long one request may take, in seconds.
LONGEST_S = 60.0

_WHY_NOT: dict[Refusal, str] = {
    "pending": "This delivery waits already; it is made as soon as those before it in its lane are.",
    "delivered": "This delivery was made; only a dead or an expired one can be redriven.",
    "webhook deleted": "The webhook of this delivery was deleted, so there is nowhere to deliver it to.",
}


def _written_as_a_date(value: object) -> object:
    # Pydantic takes seconds since 1970 too, also as text.
    if not isinstance(value, str) or "-" not in value[:5]:
        raise ValueError("write a moment as RFC 3339 has it, such as 2026-01-01T00:00:00Z")
    return value


Since = Annotated[
    Moment,
    BeforeValidator(_written_as_a_date),
    Field(description="From this moment on: RFC 3339, with its offset."),
]
NextCursor = Annotated[
    str, Field(min_length=1, max_length=8192, description="The nextCursor of the answer before.")
]


class WebhookRedrive(Form):
    """Which of a webhook's dead and expired deliveries are to be redriven; all, where nothing is said."""

    since: Since | None = None
    cursor: NextCursor | None = None


class DeadLettersRedrive(Form):
    """Which dead letters are to be redriven; all that never were, where nothing is said."""

    stage: Stage | None = None
    channel_id: ChannelId | None = None
    since: Since | None = None
    cursor: NextCursor | None = None


class DeliveryRedriveView(AdminEndpoint):
    """Redrives of a delivery."""

    async def post(self, delivery_id: DeliveryId, /) -> Ok[DeliveryWithAttempts]:
        """Let a dead or expired delivery wait again; it is due now.

        It keeps its id and its attempts. Its schedule and its time to live begin anew.

        Tags: deliveries
        Security: admin
        """
        outcome = await self.parts.redrive.delivery(delivery_id)
        if outcome == "unknown":
            raise not_found("delivery")
        if isinstance(outcome, str):
            raise Problem(409, _WHY_NOT[outcome])
        # With its attempts; and whatever happened to it in the meantime, that is what it is now.
        found = await self.parts.deliveries.get(delivery_id)
        return answer(DeliveryWithAttempts.of(found or outcome))


class WebhookRedriveView(AdminEndpoint):
    """Redrives of a webhook."""

    async def post(self, webhook_id: WebhookId, /, body: WebhookRedrive) -> Ok[RedrivenDeliveries]:
        """Let a webhook's dead and expired deliveries wait again, each lane's in order.

        At most 10,000 at a time; where nextCursor is not null there are more, and `cursor` gets them. Those of
        a disabled webhook wait until it is enabled.

        Tags: webhooks
        Security: admin
        """
        await self.begin_long_work(LONGEST_S)
        redriven = await self.parts.redrive.webhook(
            webhook_id, since=body.since, after=_place(body.cursor), limit=MOST_DELIVERIES
        )
        if redriven is None:
            raise not_found("webhook")
        cursor = None if redriven.last is None else cursor_of(*redriven.last)
        return answer(RedrivenDeliveries(redriven=redriven.count, next_cursor=cursor))


class DeadLetterRedriveView(AdminEndpoint):
    """Redrives of a dead letter."""

    async def post(self, letter_id: LetterId, /) -> Ok[DeadLetter]:
        """Publish a dead letter again where it came from; `redrivenAt` in the answer is this moment.

        What dies once more is a dead letter once more. A message that the bot could not answer is put to the
        bot anew; one that was answered since is not answered twice.

        Tags: dead letters
        Security: admin
        """
        letter = await self.parts.dead_letters.get(letter_id)
        if letter is None:
            raise not_found("dead letter")
        why_not = await send_back(self.parts, letter)
        if why_not is not None:
            raise Problem(409, f"This dead letter cannot be redriven: {why_not}.")
        return answer(DeadLetter.of(await self.parts.dead_letters.get(letter_id) or letter))


class DeadLettersRedriveView(AdminEndpoint):
    """Redrives of dead letters."""

    async def post(self, body: DeadLettersRedrive) -> Ok[RedrivenDeadLetters]:
        """Publish dead letters again where they came from, oldest first: those that never were.

        At most 500 at a time; where nextCursor is not null there are more, and `cursor` gets them. Those that
        cannot go back are counted as refused; redriving one by itself says why.

        Tags: dead letters
        Security: admin
        """
        letters = self.parts.dead_letters
        await self.begin_long_work(LONGEST_S)
        try:
            page = await letters.to_redrive(
                body.cursor, MOST_LETTERS, stage=body.stage, channel_id=body.channel_id, since=body.since
            )
        except ValueError as error:
            raise _bad_cursor(body.cursor, error) from None
        redriven = refused = 0
        for letter_id in page.items:
            # One at a time, since a body may be large, and since their order is kept so.
            letter = await letters.get(letter_id)
            if letter is not None and await send_back(self.parts, letter) is None:
                redriven += 1
            else:
                refused += 1
        return answer(RedrivenDeadLetters(redriven=redriven, refused=refused, next_cursor=page.next_cursor))


async def send_back(parts: Parts, letter: records.DeadLetter) -> str | None:
    """Publish a dead letter where it came from, and note so; returns why it cannot go back, or None.

    Raises BrokerUnavailable or RegistryUnavailable: then it may have been published, and is not noted.
    """
    address = return_address(letter, Topology(parts.settings.partitions))
    if isinstance(address, str):
        return address
    if address.message_id is not None:
        # Or the message would find its turn, and the bot would not be asked.
        await parts.redrive.forget_failed_turn(address.message_id)
    at = now()
    try:
        await _publish(parts.broker, address.exchange, address.envelope)
    except Unpublishable as refusal:
        return f"the broker cannot carry it: {refusal}"
    await parts.dead_letters.redriven(letter.id, at)
    return None


async def _publish(broker: Broker, exchange: str, envelope: Envelope) -> None:
    """Publish with as much of the headers as the broker can carry; a message is judged by its body."""
    try:
        await broker.publish(exchange, envelope)
    except Unpublishable as refusal:
        if refusal.headers_room is None:
            raise
        fitting = fit_headers(envelope.headers, refusal.headers_room)
        await broker.publish(exchange, replace(envelope, headers=fitting))


def _place(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    try:
        key, counter, delivery_id = read_cursor(cursor, str, int, str)
    except ValueError as error:
        raise _bad_cursor(cursor, error) from None
    return key, counter, delivery_id


def _bad_cursor(cursor: str | None, error: ValueError) -> Exception:
    if cursor is None:
        return error
    return Problem(
        422,
        "The body is not as it has to be; `errors` says where.",
        errors=[fault("body", ("cursor",), str(error), "cursor")],
    )
