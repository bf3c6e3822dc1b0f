"""Asking a channel's bot, and remembering what it was asked with: while that is so, it need not be asked again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from broker.errors import PostboteError
from broker.models.records import UserMessage
from broker.port import Broker, Envelope
from broker.registry.conversations import NewTurn
from broker.registry.records import Channel, Conversation, JsonObject
from consumers.bot_times import BotTimes
from consumers.bots.protocol import Bot, Reply
from consumers.busyness import Busyness
from consumers.dead_letters import bury
from consumers.message_parking import MessageParking
from consumers.trials import Trials
from consumers.turn_writing import Turns
from consumers.turns import BotFailed, answer, failed_turn, new_turn, session_update, told

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Bots:
    """Makes the bot that a channel's settings ask for, and bounds how long it may think."""

    make: Callable[[Mapping[str, Any]], Bot]
    timeout_s: float

    def of(self, channel: Channel) -> Bot:
        """Make a channel's bot; raises BotFailed where its settings name none that this version has."""
        try:
            return self.make(channel.bot)
        except PostboteError as error:
            raise BotFailed(str(error)) from error
        except Exception as error:
            raise BotFailed(f"it cannot be made of the channel's settings: {told(error)}") from error


@dataclass(frozen=True, slots=True)
class Asked:
    """What a bot replied, and what it was asked with."""

    bot: JsonObject
    conversation: Conversation
    #: Of the message, in bytes.
    size: int
    #: What it replied on its last try, or that it failed on every one.
    reply: Reply | BotFailed

    def holds(self, channel: Channel, conversation: Conversation) -> bool:
        """Tell whether it would be asked with the same now."""
        return self.bot == channel.bot and self.conversation == conversation

    def turn(self, message: UserMessage, channel: Channel) -> NewTurn:
        """Make the turn that it amounts to; raises BotFailed where the reply is none."""
        if isinstance(self.reply, BotFailed):
            return failed_turn(message, self.conversation, self.size)
        return new_turn(message, self.conversation, self.reply, channel.revision, self.size)


@dataclass(frozen=True, slots=True)
class Answering:
    """What all partitions of a bot worker share."""

    broker: Broker
    turns: Turns
    bots: Bots
    parking: MessageParking
    times: BotTimes
    trials: Trials
    partitions: int
    prefetch: int
    #: A message that takes more than this in memory takes several places of the prefetch, one for each so many bytes.
    bytes_each: int
    busyness: Busyness


async def ask(
    shared: Answering, envelope: Envelope, message: UserMessage, channel: Channel, conversation: Conversation
) -> tuple[Asked, NewTurn]:
    """Ask a channel's bot, and return the turn that comes of it; a message that it cannot answer is a dead letter."""
    size = len(envelope.body)
    try:
        if message.message is None:
            reply = session_update(message, conversation)
        else:
            bot = shared.bots.of(channel)
            number = shared.times.began(channel.id)
            try:
                with shared.turns.company.waiting:
                    reply = await answer(bot, message, conversation, shared.bots.timeout_s)
            finally:
                shared.times.ended(channel.id, number)
        asked = Asked(channel.bot, conversation, size, reply)
        return asked, asked.turn(message, channel)
    except BotFailed as failure:
        log.warning("bot.failed", channel=message.channel_id, message=message.id, why=str(failure))
        await bury(
            shared.broker,
            envelope,
            stage="bot",
            reason="the bot could not answer it",
            detail=str(failure),
            channel_id=message.channel_id,
        )
        asked = Asked(channel.bot, conversation, size, failure)
        return asked, asked.turn(message, channel)
