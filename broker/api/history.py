"""What happened: turns, responses to pull, deliveries and dead letters."""

from typing import Annotated

from pydantic import AfterValidator, Field

from broker.api.answers import Ok
from broker.api.auth import require_channel_or_admin
from broker.api.endpoint import AdminEndpoint, Endpoint, answer
from broker.api.history_schemas import (
    DeadLetter,
    DeadLetterList,
    Delivery,
    DeliveryList,
    DeliveryWithAttempts,
    Response,
    Responses,
    Turn,
    TurnList,
)
from broker.api.pages import DEFAULT_LIMIT, Cursor, Limit, answer_page
from broker.api.parts import DOORS
from broker.api.problems import not_found
from broker.api.webhooks import WebhookId
from broker.models.inbound import ChannelId
from broker.partitions import conversation_key
from broker.registry.records import DeliveryStatus


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("U+0000 is not allowed here")
    return value


#: As the message had it, percent-encoded in the path, slashes too.
UserId = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_no_nul)]
DeliveryId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,36}$")]
LetterId = DeliveryId
Stage = Annotated[
    str, Field(pattern=r"^[a-z_]{1,32}$", description="Who gave it up: intake, bot, delivery or broker.")
]
After = Annotated[int, Field(ge=0, lt=2**63, description="The messageCounter after which to go on.")]


class TurnsView(AdminEndpoint):
    """The turns of a conversation."""

    async def get(
        self,
        channel_id: ChannelId,
        user_id: UserId,
        /,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor | None = None,
    ) -> Ok[TurnList]:
        """List the turns of a conversation, newest first: each message with what the bot said to it.

        Tags: history
        Security: admin
        """
        if await self.parts.channels.get(channel_id) is None:
            raise not_found("channel")
        reading = self.parts.history.turns(conversation_key(channel_id, user_id), cursor, limit)
        return await answer_page(TurnList, cursor, reading, Turn.of)


class ResponsesView(Endpoint):
    """The responses of a conversation."""

    async def admit(self) -> None:
        """Ask for the channel's access token, or the admin token."""
        request = self.request
        await require_channel_or_admin(
            request, request.app[DOORS], request.match_info["channel_id"], self.parts.admin_token
        )

    async def get(
        self, channel_id: ChannelId, user_id: UserId, /, after: After = 0, limit: Limit = DEFAULT_LIMIT
    ) -> Ok[Responses]:
        """Pull what the bot said to a user, in order, from a messageCounter on.

        For a client that has no public address, or that missed some.

        Tags: history
        Security: channel, admin
        """
        found = await self.parts.history.responses_after(conversation_key(channel_id, user_id), after, limit)
        items = [Response.of(response) for response in found]
        return answer(Responses(items=items, next_after=items[-1].message_counter if items else after))


class DeliveriesView(AdminEndpoint):
    """The deliveries of a channel."""

    async def get(
        self,
        channel_id: ChannelId,
        /,
        status: DeliveryStatus | None = None,
        webhook_id: Annotated[WebhookId | None, Field(alias="webhookId")] = None,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor | None = None,
    ) -> Ok[DeliveryList]:
        """List a channel's deliveries, newest first, perhaps only of one status or one webhook.

        Tags: deliveries
        Security: admin
        """
        if await self.parts.channels.get(channel_id) is None:
            raise not_found("channel")
        reading = self.parts.deliveries.page(channel_id, cursor, limit, status=status, webhook_id=webhook_id)
        return await answer_page(DeliveryList, cursor, reading, Delivery.of)


class DeliveryView(AdminEndpoint):
    """One delivery."""

    async def get(self, delivery_id: DeliveryId, /) -> Ok[DeliveryWithAttempts]:
        """Show a delivery with its attempts.

        Tags: deliveries
        Security: admin
        """
        delivery = await self.parts.deliveries.get(delivery_id)
        if delivery is None:
            raise not_found("delivery")
        return answer(DeliveryWithAttempts.of(delivery))


class DeadLettersView(AdminEndpoint):
    """The dead letters."""

    async def get(
        self,
        stage: Stage | None = None,
        channel_id: Annotated[ChannelId | None, Field(alias="channelId")] = None,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor | None = None,
    ) -> Ok[DeadLetterList]:
        """List what could not be processed, newest first, with the reasons; perhaps of one stage or channel.

        Tags: dead letters
        Security: admin
        """
        reading = self.parts.dead_letters.page(cursor, limit, stage=stage, channel_id=channel_id)
        return await answer_page(DeadLetterList, cursor, reading, DeadLetter.of)


class DeadLetterView(AdminEndpoint):
    """One dead letter."""

    async def get(self, letter_id: LetterId, /) -> Ok[DeadLetter]:
        """Show a dead letter.

        Tags: dead letters
        Security: admin
        """
        letter = await self.parts.dead_letters.get(letter_id)
        if letter is None:
            raise not_found("dead letter")
        return answer(DeadLetter.of(letter))
