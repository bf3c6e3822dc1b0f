"""The bot worker: takes a user's message, lets the bot answer, writes the turn, publishes its responses.

What happens if the process dies

* before the turn is written: the message comes again, and the bot answers it for the first time;
* after that: the message comes again, finds its turn, and the same responses are published under the same ids;
* after the publish, before the acknowledgement: the same, and the turn's mark says that nothing need be done.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import to_json

from broker.errors import Unpublishable
from broker.models.records import UserMessage
from broker.partitions import conversation_key, partition_of, partition_word
from broker.port import Envelope, Subscription
from broker.registry.records import Turn
from broker.topology import OUTBOUND, inbound_queue, response_key
from consumers.asking import Answering, Asked, ask
from consumers.care import CAREFUL_AFTER, settle_alone
from consumers.dead_letters import bury
from consumers.giving_way import GivingWay
from consumers.lanes import Lanes
from consumers.outage import outlast
from consumers.reading_back import WAKE, ReadingBack
from consumers.rejection import why_invalid
from consumers.shares import Shares
from consumers.taken import Taken, TakenLane
from consumers.waiting_lanes import WaitingLanes

log = structlog.get_logger()

#: A turn that was refused more often than this waits so long before each further try, in seconds.
OFTEN_REFUSED = 5
REFUSED_WAIT_S = 1.0


class BotSession:
    """Answers the messages of one partition, one lane for each conversation."""

    def __init__(self, subscription: Subscription, shared: Answering, partition: int) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscription = subscription
        self._broker = shared.broker
        self._turns = shared.turns
        self._shared = shared
        self._queue = inbound_queue(partition_word(partition))
        self._lanes: Lanes[str, Taken] = Lanes(self._answer, self._fail)
        shares, bytes_each = Shares(shared.prefetch), shared.bytes_each
        self._waiting = WaitingLanes(
            self._lanes,
            subscription,
            shared.parking,
            partition,
            shares,
            bytes_each,
            self._fail,
            self._bury_unreadable,
        )
        self._giving_way = GivingWay(
            self._lanes, self._waiting, shares, shared.times, shared.busyness, bytes_each
        )
        self._reading_back = self._waiting.unread = ReadingBack(
            shared.broker, shared.parking, partition, self._giving_way.room, self._waiting.open
        )
        self._reading_back.start(self._fail)
        #: Published and not yet marked so; each is acknowledged after its mark.
        self._marking: dict[str, asyncio.Future[None]] = {}
        self._stopped = False

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Put each message into its conversation's lane; what is no message becomes a dead letter."""
        if not self._reading_back.begun:
            await self._reading_back.begin()
        for envelope in envelopes:
            try:
                message = UserMessage.model_validate_json(envelope.body)
            except ValidationError as error:
                if envelope.body != WAKE:
                    await self._bury_unreadable(envelope, error)
                self._subscription.ack(envelope)
                continue
            key = conversation_key(message.channel_id, message.user.id)
            if key not in self._lanes:
                self._turns.company.begin()
            self._giving_way.put(key, envelope, message)

    async def stop(self, grace_s: float) -> None:
        """Let each lane finish the message that it is answering, and mark and acknowledge what was published."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        self._giving_way.stop()
        await self._reading_back.stop()
        await self._lanes.stop(grace_s)
        if self._marking and grace_s > 0:
            await asyncio.wait(self._marking.values(), timeout=max(deadline - loop.time(), 0))
        await self._waiting.stop(max(deadline - loop.time(), 0))
        self._stopped = True

    async def _answer(self, lane: TakenLane) -> None:
        waiting = self._waiting
        if waiting.some:
            await waiting.bring_in(lane)
            if not lane.items:
                return
        taken = lane.items[0]
        with self._turns.company.at_work:
            if taken.number and taken.envelope.returned >= CAREFUL_AFTER:
                await self._settle_alone(taken)
            else:
                await self._settle(taken)
        self._giving_way.leave(lane)
        if waiting.some:
            self._reading_back.freed()
            await waiting.bring_in(lane)

    async def _settle(self, taken: Taken) -> None:
        turn = await self._turn_of(taken)
        if turn is None:
            self._waiting.finished(taken)
        else:
            await self._publish(turn)
            taken.message = None
            self._finish(taken, turn)

    async def _settle_alone(self, taken: Taken) -> None:
        work = partial(self._settle, taken)
        if not await settle_alone(
            self._broker, self._shared.trials, self._queue, "bot", taken.envelope, work
        ):
            self._waiting.finished(taken)

    async def _turn_of(self, taken: Taken) -> Turn | None:
        """Return a message's turn, a new one where it has none yet; None where the message is a dead letter."""
        envelope, message = taken.envelope, taken.message
        assert message is not None
        loaded = None if envelope.redelivered else self._turns.known(message)
        asked: Asked | None = None
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
                asked, new = await ask(self._shared, envelope, message, loaded.channel, loaded.conversation)
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

    async def _publish(self, turn: Turn) -> None:
        if turn.published or turn.message_id in self._marking:
            return
        for response in turn.responses:
            # One after the other: were two on their way at once and the first refused, the second would overtake it.
            envelope = response_envelope(response, self._shared.partitions)
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

    def _finish(self, taken: Taken, turn: Turn) -> None:
        """Mark a turn as published and then acknowledge its message, while the lane goes on."""
        marking = None if turn.published else self._marking.get(turn.message_id)
        if marking is None and not turn.published:
            marking = self._marking[turn.message_id] = self._turns.mark_published(turn.message_id)
            marking.add_done_callback(lambda _: self._marking.pop(turn.message_id))
        if marking is None:
            self._waiting.finished(taken)
        else:
            marking.add_done_callback(partial(self._finished, taken))

    def _finished(self, taken: Taken, marking: "asyncio.Future[None]") -> None:
        error = None if marking.cancelled() else marking.exception()
        if self._stopped or marking.cancelled():
            return
        if error is None:
            self._waiting.finished(taken)
        else:
            self._fail(taken.envelope.id, error)

    async def _bury_unreadable(self, envelope: Envelope, error: ValidationError) -> None:
        await self._bury(envelope, "not a user message of a known version", why_invalid(error))

    async def _bury(self, envelope: Envelope, reason: str, detail: str) -> None:
        log.warning("message.dead", stage="bot", message=envelope.id, reason=reason)
        await bury(self._broker, envelope, stage="bot", reason=reason, detail=detail)

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
