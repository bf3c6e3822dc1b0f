"""Care: a message that its worker does not survive must not take the others with it, nor come back for ever.

Nobody can say which of the messages in hand ended a process. So messages that came back often are begun one at
a time, and which one was begun is written down before (`consumers.trials`): whatever ends the process then, ends
it alone. What did so several times is given up, with a reason.

The prefetch stays as it is meanwhile. RabbitMQ puts what a consumer gives back behind what was given back before
and not taken again; so a consumer that takes less than the one before it would change the order.

The broker's own delivery limit (20 by default from RabbitMQ 4.0 on) counts every message in hand, and is there for
what this misses.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from hashlib import sha256
from typing import Any, Protocol

import structlog

from broker.port import Broker, Envelope, Subscription
from broker.topology import INBOUND, MESSAGES
from consumers.dead_letters import bury
from consumers.trials import TRIES, Trials

log = structlog.get_logger()

#: What came back so often is begun alone.
CAREFUL_AFTER = 4
#: What the process survived for so long is not what ends it; nor are the ones before it. In seconds.
SURVIVED_S = 3.0


class Session(Protocol):
    """What works on messages."""

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Take messages in, in order."""
        ...


class Hand:
    """A hold on a queue that knows what is in hand: taken in by the session and not acknowledged."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._open: set[int] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def receive(self) -> Sequence[Envelope]:
        """Wait for messages and take all that are there. Raises SubscriptionLost."""
        return await self._subscription.receive()

    def taken(self, envelopes: Sequence[Envelope]) -> None:
        """Note what the session is about to take in."""
        self._open.update(envelope.tag for envelope in envelopes)
        self._empty.clear()

    def ack(self, envelope: Envelope) -> None:
        """Acknowledge one message, soon."""
        self._subscription.ack(envelope)
        self._open.discard(envelope.tag)
        if not self._open:
            self._empty.set()

    async def flush(self) -> None:
        """Wait until the acknowledgements so far are on their way to the broker."""
        await self._subscription.flush()

    async def emptied(self) -> None:
        """Wait until nothing is in hand, but no longer than the process needs to show that it survives."""
        try:
            async with asyncio.timeout(SURVIVED_S):
                await self._empty.wait()
        except TimeoutError:
            return
        await self._subscription.flush()


class Care:
    """Hands messages to a session, those that came back often one at a time."""

    def __init__(self, broker: Broker, queue: str, trials: Trials) -> None:
        self._broker = broker
        self._queue = queue
        self._stage = stage_of(queue)
        self._trials = trials

    async def hand_over(self, envelopes: Sequence[Envelope], hand: Hand, session: Session) -> None:
        """Hand over messages in order."""
        free: list[Envelope] = []
        for envelope in envelopes:
            if self._stage is None or envelope.returned < CAREFUL_AFTER:
                free.append(envelope)
                continue
            await self._take(free, hand, session)
            free = []
            await hand.emptied()
            await self._alone(envelope, hand, session, self._stage)
        await self._take(free, hand, session)

    async def _take(self, envelopes: Sequence[Envelope], hand: Hand, session: Session) -> None:
        if envelopes:
            hand.taken(envelopes)
            await session.take(envelopes)

    async def _alone(self, envelope: Envelope, hand: Hand, session: Session, stage: str) -> None:
        async def begin() -> None:
            await self._take([envelope], hand, session)
            await hand.emptied()

        if not await begin_alone(self._broker, self._trials, self._queue, stage, envelope, begin):
            hand.ack(envelope)


async def begin_alone(
    broker: Broker,
    trials: Trials,
    queue: str,
    stage: str,
    envelope: Envelope,
    begin: Callable[[], Awaitable[None]],
) -> bool:
    """Begin a message while it is written down that it is begun, until `begin` returns.

    False, and it is a dead letter, where that was written down too often and never crossed out.
    """
    name = suspect(envelope)
    tries = await trials.tries(queue, name)
    log.warning("message.alone", queue=queue, message=envelope.id, tries=tries)
    if tries < TRIES:
        async with trials.trial(queue, name, apart=tries == TRIES - 1):
            await begin()
        return True
    detail = (
        f"it came back {envelope.returned} times; begun alone {tries} times, it was never finished: "
        "the process that works on it probably dies of it"
    )
    log.error("message.dead", stage=stage, message=envelope.id, reason=detail)
    await bury(broker, envelope, stage=stage, reason="it ends its worker", detail=detail)
    await trials.clear(queue, name)
    return False


async def settle_alone(
    broker: Broker,
    trials: Trials,
    queue: str,
    stage: str,
    envelope: Envelope,
    settle: Callable[[], Coroutine[Any, Any, None]],
) -> bool:
    """Settle a message, its first seconds as `begin_alone` does; False where it is a dead letter instead."""
    settling: list[asyncio.Task[None]] = []

    async def begin() -> None:
        settling.append(asyncio.create_task(settle()))
        await asyncio.wait(settling, timeout=SURVIVED_S)

    try:
        begun = await begin_alone(broker, trials, queue, stage, envelope, begin)
        for task in settling:
            await task
        return begun
    finally:
        for task in settling:
            task.cancel()
        await asyncio.gather(*settling, return_exceptions=True)


def suspect(envelope: Envelope) -> str:
    """Name a message, also one that has no id of its own."""
    return sha256(envelope.id.encode("utf-8", "replace") + b"\x00" + envelope.body).hexdigest()


def stage_of(queue: str) -> str | None:
    """Name the stage that works on a queue, for its dead letters; None for the queue of dead letters itself."""
    if queue == MESSAGES:
        return "intake"
    if queue.startswith(f"{INBOUND}."):
        return "bot"
    return "delivery" if queue.startswith("postbote.outbound.") else None
