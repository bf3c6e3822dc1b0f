"""Administration of channels."""

from typing import Any

from aiohttp import web

from broker.api.answers import Created, NoContent, Ok
from broker.api.endpoint import AdminEndpoint, answer
from broker.api.forms import Bot, ChannelCreation, ChannelPatch, renamed
from broker.api.pages import DEFAULT_LIMIT, Cursor, Limit, answer_page
from broker.api.parts import DOORS, NEWS
from broker.api.problems import Problem, fault, not_found
from broker.api.schemas import Channel, ChannelList, CreatedChannel
from broker.models.inbound import ChannelId

#: A deletion clears away all conversations of the channel, in seconds.
LONGEST_DELETION_S = 300.0


class ChannelsView(AdminEndpoint):
    """All channels."""

    async def get(self, limit: Limit = DEFAULT_LIMIT, cursor: Cursor | None = None) -> Ok[ChannelList]:
        """List the channels, newest first.

        Tags: channels
        Security: admin
        """
        return await answer_page(ChannelList, cursor, self.parts.channels.page(cursor, limit), Channel.of)

    async def post(self, body: ChannelCreation) -> Created[CreatedChannel]:
        """Create a channel.

        The access token is shown in this answer only: it is what clients post messages with.

        Tags: channels
        Security: admin
        Status Codes:
            201: The channel, with its access token.
        """
        bot = checked_bot(body.bot, self.parts.bot_types)
        channel, token = await self.parts.channels.create(
            body.name,
            bot,
            body.verify_token,
            retry_schedule=body.retry_schedule,
            time_to_live_s=body.time_to_live_seconds,
        )
        self.request.app[DOORS].forget(channel.id)
        created = CreatedChannel(access_token=token, **Channel.of(channel).model_dump())
        return answer(created, status=201, headers={"Location": f"/v1/channels/{channel.id}"})


class ChannelView(AdminEndpoint):
    """One channel."""

    async def get(self, channel_id: ChannelId, /) -> Ok[Channel]:
        """Show a channel.

        Tags: channels
        Security: admin
        """
        channel = await self.parts.channels.get(channel_id)
        if channel is None:
            raise not_found("channel")
        return answer(Channel.of(channel))

    async def patch(self, channel_id: ChannelId, /, body: ChannelPatch) -> Ok[Channel]:
        """Change a channel; what is absent stays, null brings back the default where there is one.

        Tags: channels
        Security: admin
        """
        changes = renamed(body.model_dump(exclude_unset=True))
        if body.bot is not None:
            changes["bot"] = checked_bot(body.bot, self.parts.bot_types)
        channel = await self.parts.channels.update(channel_id, changes)
        self.request.app[DOORS].forget(channel_id)
        self.request.app[NEWS].changed(channel_id)
        if channel is None:
            raise not_found("channel")
        return answer(Channel.of(channel))

    async def delete(self, channel_id: ChannelId, /) -> NoContent:
        """Delete a channel with its webhooks and conversations.

        Tags: channels
        Security: admin
        Status Codes:
            204: It is deleted.
        """
        await self.begin_long_work(LONGEST_DELETION_S)
        deleted = await self.parts.channels.delete(channel_id)
        self.request.app[DOORS].forget(channel_id)
        self.request.app[NEWS].changed(channel_id)
        if not deleted:
            raise not_found("channel")
        return web.Response(status=204)


def checked_bot(bot: Bot, known: frozenset[str]) -> dict[str, Any]:
    """Return a bot's configuration as the registry keeps it; raises Problem 422 for an unknown type."""
    if bot.type not in known:
        what = f"there is no such bot; the types are {', '.join(sorted(known))}"
        raise Problem(
            422,
            "The body is not as it has to be; `errors` says where.",
            errors=[fault("body", ("bot", "type"), what, "unknown_bot")],
        )
    return bot.model_dump()
