"""Serving a queue: hold it, hand what comes to a session, and begin anew whenever the hold is lost.

A session is what a worker does with one hold on one queue. When the hold is lost, everything in hand comes
again to whoever holds the queue next, so the session is stopped and its work dropped with it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import structlog

from broker.errors import SubscriptionLost
from broker.port import Broker, Envelope, Subscription
from consumers.care import Care, Hand
from consumers.health import Health
from consumers.trials import Trials

log = structlog.get_logger()

T = TypeVar("T")

#: Pause after a session failed for a reason that is no outage, so that a bug does not spin.
PAUSE_AFTER_FAILURE_S = 1.0


class Session(Protocol):
    """What a worker does with one hold on one queue."""

    #: Ends with an error when the session cannot go on.
    failed: asyncio.Future[None]

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Take messages in, in order. May wait, which holds back the messages after them."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Finish what is in flight within the grace, drop the rest; acknowledges nothing after it returned."""
        ...


class Stop:
    """Says when to stop, and how long what is in flight may take then."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._event = asyncio.Event()

    def set(self) -> None:
        """Begin to stop."""
        self._event.set()

    def is_set(self) -> bool:
        """Tell whether stopping has begun."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until stopping begins."""
        await self._event.wait()

    async def sleep(self, seconds: float) -> bool:
        """Sleep, but no longer than until stopping begins; True where it has begun."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        return self._event.is_set()

    async def unless(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do work, but break it off when stopping begins: None then. Raises what the work raises."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            doing.cancel()
            stopping.cancel()
            await asyncio.gather(doing, stopping, return_exceptions=True)
        return None if doing.cancelled() else doing.result()

    async def sleep_until(self, event: asyncio.Event) -> None:
        """Sleep until an event, but no longer than until stopping begins."""
        waits = [asyncio.ensure_future(one.wait()) for one in (event, self._event)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def serve(
    broker: Broker,
    queue: str,
    prefetch: int,
    open_session: Callable[[Subscription], Session],
    stop: Stop,
    trials: Trials,
    health: Health,
) -> None:
    """Serve one queue until told to stop."""
    care = Care(broker, queue, trials)
    while not stop.is_set():
        held = asyncio.Event()
        serving = asyncio.create_task(
            _serve_once(broker, queue, prefetch, open_session, stop, held, care, health)
        )
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if held.is_set():
                await serving
        finally:
            serving.cancel()
            stopping.cancel()
            await asyncio.gather(serving, stopping, return_exceptions=True)


async def _serve_once(
    broker: Broker,
    queue: str,
    prefetch: int,
    open_session: Callable[[Subscription], Session],
    stop: Stop,
    held: asyncio.Event,
    care: Care,
    health: Health,
) -> None:
    async with broker.subscribe(queue, prefetch) as subscription:
        held.set()
        hand = Hand(subscription)
        session = open_session(hand)
        pump = asyncio.create_task(_pump(hand, session, care))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({pump, stopping, session.failed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pump.cancel()
            stopping.cancel()
            (ended, _) = await asyncio.gather(pump, stopping, return_exceptions=True)
            lost = isinstance(ended, SubscriptionLost)
            await session.stop(stop.grace_s if stop.is_set() and not lost else 0)
        error = session.failed.exception() if session.failed.done() else ended
    if isinstance(error, Exception) and not isinstance(error, SubscriptionLost):
        health.failed(queue)
        log.error("session.failed", queue=queue, exc_info=error)
        await stop.sleep(PAUSE_AFTER_FAILURE_S)


async def _pump(hand: Hand, session: Session, care: Care) -> None:
    while True:
        await care.hand_over(await hand.receive(), hand, session)
