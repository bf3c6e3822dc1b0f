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
from typing import Any, Protocol

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from broker.batching import Batcher
from broker.errors import PostboteError
from broker.models.records import UserMessage
from broker.partitions import conversation_key, partition_of
from broker.port import Broker, Envelope, Subscription
from broker.registry.conversations import Loaded, NewTurn
from broker.registry.records import Channel, Conversation, Turn
from broker.topology import RESPONSES, response_key
from consumers.bots.protocol import Bot
from consumers.dead_letters import bury
from consumers.lanes import Lane, Lanes
from consumers.outage import outlast
from consumers.rejection import why_invalid
from consumers.turns import BotFailed, answer, failed_turn, new_turn

log = structlog.get_logger()

#: How long messages wait for others to be loaded and written with them where there is much to do, in seconds.
BUSY_LINGER_S = 0.01
#: How long a mark waits for others to be written with it, in seconds: nobody waits for it but an acknowledgement.
MARK_LINGER_S = 0.02


class ConversationStore(Protocol):
    """Where conversations and their turns are kept."""

    async def load(self, messages: Sequence[UserMessage]) -> list[Loaded]:
        """Load what is known of each message: its channel, its conversation, and its turn where it has one."""
        ...

    async def commit(self, turns: Sequence[NewTurn]) -> list[bool]:
        """Write turns with their conversations; False where a conversation changed underneath."""
        ...

    async def mark_published(self, message_ids: Sequence[str]) -> None:
        """Remember that the responses of these turns are on the broker."""
        ...


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


class Turns:
    """The registry's side of the bot worker: loads and commits of all lanes of a process, batched."""

    def __init__(self, store: ConversationStore) -> None:
        self._loads: Batcher[UserMessage, Loaded] = Batcher(store.load, busy_linger_s=BUSY_LINGER_S)
        self._commits: Batcher[NewTurn, bool] = Batcher(store.commit, busy_linger_s=BUSY_LINGER_S)
        self._marks: Batcher[str, None] = Batcher(self._mark, linger_s=MARK_LINGER_S)
        self._store = store

    async def load(self, message: UserMessage) -> Loaded:
        """Load what is known of a message, waiting for the database as long as it takes."""
        return await outlast(lambda: self._loads.submit(message), "bot.loading")

    async def commit(self, turn: NewTurn) -> bool:
        """Write a turn and its conversation together; False where the conversation changed underneath."""
        return await outlast(lambda: self._commits.submit(turn), "bot.committing")

    def mark_published(self, message_id: str) -> "asyncio.Future[None]":
        """Remember soon that a turn's responses are on the broker; what is returned ends when that is written."""
        return self._marks.put(message_id)

    async def close(self) -> None:
        """Wait for the batches that are being written."""
        for batcher in (self._loads, self._commits, self._marks):
            await batcher.close()

    async def _mark(self, message_ids: Sequence[str]) -> list[None]:
        await outlast(lambda: self._store.mark_published(message_ids), "bot.marking")
        return [None] * len(message_ids)


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
            self._lanes.put(conversation_key(message.channel_id, message.user.id), (envelope, message))

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
        turn = await self._turn_of(envelope, message)
        if turn is not None:
            await self._publish(turn)
            self._finish(envelope, turn)
        lane.items.popleft()

    async def _turn_of(self, envelope: Envelope, message: UserMessage) -> Turn | None:
        """Return a message's turn, a new one where it has none yet; None where the message is a dead letter."""
        while True:
            loaded = await self._turns.load(message)
            if loaded.turn is not None:
                return loaded.turn
            if loaded.channel is None:
                await self._bury(envelope, "unknown channel", f"there is no channel {message.channel_id}")
                return None
            new = await self._ask(envelope, message, loaded.channel, loaded.conversation)
            if await self._turns.commit(new):
                return new.turn
            # Another worker, that was thought dead, wrote a turn of this conversation meanwhile.

    async def _ask(
        self, envelope: Envelope, message: UserMessage, channel: Channel, conversation: Conversation
    ) -> NewTurn:
        try:
            reply = await answer(self._bots.of(channel), message, conversation, self._bots.timeout_s)
            return new_turn(message, conversation, reply, channel.revision)
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
            return failed_turn(message, conversation)

    async def _publish(self, turn: Turn) -> None:
        if turn.published or turn.message_id in self._marking:
            return
        for response in turn.responses:
            # One after the other: were two on their way at once and the first refused, the second would overtake it.
            envelope = response_envelope(response, self._partitions)
            await outlast(partial(self._broker.publish, RESPONSES, envelope), "bot.publishing")

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
