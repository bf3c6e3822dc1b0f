"""The bot worker: takes a user's message, lets the bot answer, writes the turn, publishes its responses.

What happens if the process dies

* before the turn is written: the message comes again, and the bot answers it for the first time;
* after that: the message comes again, finds its turn, and the same responses are published under the same ids;
* after the publish, before the acknowledgement: the same, and the turn's mark says that nothing need be done.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from broker.errors import PostboteError, Unpublishable
from broker.models.records import UserMessage
from broker.partitions import conversation_key, partition_of
from broker.port import Broker, Envelope, Subscription
from broker.registry.conversations import NewTurn
from broker.registry.records import Channel, Conversation, JsonObject, Turn
from broker.topology import OUTBOUND, response_key
from consumers.bots.protocol import Bot, Reply
from consumers.dead_letters import bury
from consumers.lanes import Lane, Lanes
from consumers.outage import outlast
from consumers.rejection import why_invalid
from consumers.turn_writing import Turns
from consumers.turns import BotFailed, answer, failed_turn, new_turn, session_update, told

log = structlog.get_logger()

#: A turn that was refused more often than this waits so long before each further try, in seconds.
OFTEN_REFUSED = 5
REFUSED_WAIT_S = 1.0


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
class _Asked:
    """What a bot replied, and what it was asked with: while that is so, it need not be asked again."""

    bot: JsonObject
    conversation: Conversation
    #: Of the message, in bytes.
    size: int
    #: What it replied on its last try, or that it failed on every one.
    reply: Reply | BotFailed

    def holds(self, channel: Channel, conversation: Conversation) -> bool:
        return self.bot == channel.bot and self.conversation == conversation

    def turn(self, message: UserMessage, channel: Channel) -> NewTurn:
        if isinstance(self.reply, BotFailed):
            return failed_turn(message, self.conversation, self.size)
        return new_turn(message, self.conversation, self.reply, channel.revision, self.size)


class BotSession:
    """Answers the messages of one partition, one lane for each conversation."""

    def __init__(
        self, subscription: Subscription, broker: Broker, turns: Turns, bots: Bots, partitions: int
    ) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscription = subscription
        self._broker = broker
        self._turns = turns
        self._bots = bots
        self._partitions = partitions
        self._lanes: Lanes[str, tuple[Envelope, UserMessage]] = Lanes(self._answer, self._fail)
        #: Published and not yet marked so; each is acknowledged after its mark.
        self._marking: dict[str, asyncio.Future[None]] = {}
        self._stopped = False

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Put each message into its conversation's lane; what is no message becomes a dead letter."""
        for envelope in envelopes:
            try:
                message = UserMessage.model_validate_json(envelope.body)
            except ValidationError as error:
                await self._bury(envelope, "not a user message of a known version", why_invalid(error))
                continue
            key = conversation_key(message.channel_id, message.user.id)
            if key not in self._lanes:
                self._turns.company.begin()
            self._lanes.put(key, (envelope, message))

    async def stop(self, grace_s: float) -> None:
        """Let each lane finish the message that it is answering, and mark and acknowledge what was published."""
        deadline = asyncio.get_running_loop().time() + grace_s
        await self._lanes.stop(grace_s)
        if self._marking and grace_s > 0:
            left = max(deadline - asyncio.get_running_loop().time(), 0)
            await asyncio.wait(self._marking.values(), timeout=left)
        self._stopped = True

    async def _answer(self, lane: Lane[str, tuple[Envelope, UserMessage]]) -> None:
        envelope, message = lane.items[0]
        with self._turns.company.at_work:
            turn = await self._turn_of(envelope, message)
            if turn is not None:
                await self._publish(turn)
                self._finish(envelope, turn)
        lane.items.popleft()

    async def _turn_of(self, envelope: Envelope, message: UserMessage) -> Turn | None:
        """Return a message's turn, a new one where it has none yet; None where the message is a dead letter."""
        loaded = None if envelope.redelivered else self._turns.known(message)
        asked: _Asked | None = None
        refused = 0
        while True:
            if loaded is None:
                loaded = await self._turns.load(message)
            if loaded.turn is not None:
                return loaded.turn
            if loaded.channel is None:
                await self._bury(envelope, "unknown channel", f"there is no channel {message.channel_id}")
                return None
            if asked is not None and asked.holds(loaded.channel, loaded.conversation):
                new = asked.turn(message, loaded.channel)
            else:
                asked, new = await self._ask(envelope, message, loaded.channel, loaded.conversation)
            if await self._turns.commit(new):
                return new.turn
            # The channel was changed meanwhile, or another worker, one that was thought dead or one that is now,
            # wrote a turn of this conversation.
            loaded = None
            refused += 1
            if refused > OFTEN_REFUSED:
                # Nothing known does that; if something does, it must not spin.
                if refused == OFTEN_REFUSED + 1:
                    log.warning("bot.turn_refused", channel=message.channel_id, message=message.id)
                await asyncio.sleep(REFUSED_WAIT_S)

    async def _ask(
        self, envelope: Envelope, message: UserMessage, channel: Channel, conversation: Conversation
    ) -> "tuple[_Asked, NewTurn]":
        try:
            if message.message is None:
                reply = session_update(message, conversation)
            else:
                with self._turns.company.waiting:
                    reply = await answer(self._bots.of(channel), message, conversation, self._bots.timeout_s)
            asked = _Asked(channel.bot, conversation, len(envelope.body), reply)
            return asked, asked.turn(message, channel)
        except BotFailed as failure:
            log.warning("bot.failed", channel=message.channel_id, message=message.id, why=str(failure))
            await bury(
                self._broker,
                envelope,
                stage="bot",
                reason="the bot could not answer it",
                detail=str(failure),
                channel_id=message.channel_id,
            )
            asked = _Asked(channel.bot, conversation, len(envelope.body), failure)
            return asked, asked.turn(message, channel)

    async def _publish(self, turn: Turn) -> None:
        if turn.published or turn.message_id in self._marking:
            return
        for response in turn.responses:
            # One after the other: were two on their way at once and the first refused, the second would overtake it.
            envelope = response_envelope(response, self._partitions)
            try:
                await outlast(partial(self._broker.publish, OUTBOUND, envelope), "bot.publishing")
            except Unpublishable as refusal:
                await bury(
                    self._broker,
                    envelope,
                    stage="delivery",
                    reason="too large for the broker",
                    detail=str(refusal),
                    channel_id=turn.channel_id,
                )
            else:
                self._broker.copy(envelope)

    def _finish(self, envelope: Envelope, turn: Turn) -> None:
        """Mark a turn as published and then acknowledge its message, while the lane goes on."""
        marking = None if turn.published else self._marking.get(turn.message_id)
        if marking is None and not turn.published:
            marking = self._marking[turn.message_id] = self._turns.mark_published(turn.message_id)
            marking.add_done_callback(lambda _: self._marking.pop(turn.message_id))
        if marking is None:
            self._subscription.ack(envelope)
        else:
            marking.add_done_callback(partial(self._finished, envelope))

    def _finished(self, envelope: Envelope, marking: "asyncio.Future[None]") -> None:
        error = None if marking.cancelled() else marking.exception()
        if self._stopped or marking.cancelled():
            return
        if error is None:
            self._subscription.ack(envelope)
        else:
            self._fail(envelope.id, error)

    async def _bury(self, envelope: Envelope, reason: str, detail: str) -> None:
        log.warning("message.dead", stage="bot", message=envelope.id, reason=reason)
        await bury(self._broker, envelope, stage="bot", reason=reason, detail=detail)
        self._subscription.ack(envelope)

    def _fail(self, key: str, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


def response_envelope(response: Mapping[str, Any], partitions: int) -> Envelope:
    """Put a BotResponse, as it is written in its turn, into its envelope.

    The headers tell those who bind a queue of their own what answers what.
    """
    partition = partition_of(conversation_key(response["channelId"], response["userId"]), partitions)
    return Envelope(
        response["id"],
        to_json(response),
        response_key(response["channelId"], response["kind"], partition),
        {
            "postbote-in-reply-to": response["inReplyTo"],
            "postbote-turn": f"{response['index']}/{response['count']}",
        },
    )
