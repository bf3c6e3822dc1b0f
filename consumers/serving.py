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
from consumers.care import hopeless, stage_of, wants_care
from consumers.dead_letters import bury

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


class _CareWanted(Exception):
    """Messages came that may be what ends this process: they are to be taken one at a time."""


class _CareOver(Exception):
    """What had to be taken with care is done with."""


async def serve(
    broker: Broker, queue: str, prefetch: int, open_session: Callable[[Subscription], Session], stop: Stop
) -> None:
    """Serve one queue until told to stop."""
    hold = _Hold(broker, queue, prefetch, open_session, stop)
    while not stop.is_set():
        serving = asyncio.create_task(hold.serve_once())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if hold.held:
                await serving
        finally:
            serving.cancel()
            stopping.cancel()
            await asyncio.gather(serving, stopping, return_exceptions=True)


class _Hold:
    """One hold on one queue after the other."""

    def __init__(
        self,
        broker: Broker,
        queue: str,
        prefetch: int,
        open_session: Callable[[Subscription], Session],
        stop: Stop,
    ) -> None:
        self.held = False
        self._broker = broker
        self._queue = queue
        self._prefetch = prefetch
        self._open_session = open_session
        self._stop = stop
        #: True where messages are taken one at a time; see consumers.care.
        self._careful = False

    async def serve_once(self) -> None:
        """Hold the queue until the hold is lost, the session fails, or stopping begins."""
        stop, self.held = self._stop, False
        prefetch = 1 if self._careful else self._prefetch
        async with self._broker.subscribe(self._queue, prefetch) as subscription:
            self.held = True
            session = self._open_session(subscription)
            pump = asyncio.create_task(self._pump(subscription, session))
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({pump, stopping, session.failed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                pump.cancel()
                stopping.cancel()
                (ended, _) = await asyncio.gather(pump, stopping, return_exceptions=True)
                graceful = stop.is_set() or isinstance(ended, _CareWanted | _CareOver)
                lost = isinstance(ended, SubscriptionLost)
                await session.stop(stop.grace_s if graceful and not lost else 0)
            error = session.failed.exception() if session.failed.done() else ended
        if isinstance(error, _CareWanted | _CareOver):
            self._careful = isinstance(error, _CareWanted)
            log.warning("session.careful" if self._careful else "session.care_over", queue=self._queue)
        elif isinstance(error, Exception) and not isinstance(error, SubscriptionLost):
            log.error("session.failed", queue=self._queue, exc_info=error)
            await stop.sleep(PAUSE_AFTER_FAILURE_S)

    async def _pump(self, subscription: Subscription, session: Session) -> None:
        stage = stage_of(self._queue)
        while True:
            envelopes = await subscription.receive()
            if stage is not None and wants_care(envelopes) != self._careful:
                raise _CareOver if self._careful else _CareWanted
            if self._careful and stage is not None:
                envelopes = [one for one in envelopes if not await self._give_up(subscription, one, stage)]
            await session.take(envelopes)

    async def _give_up(self, subscription: Subscription, envelope: Envelope, stage: str) -> bool:
        why = hopeless(envelope)
        if why is None:
            return False
        log.error("message.dead", stage=stage, message=envelope.id, reason=why)
        await bury(self._broker, envelope, stage=stage, reason="it came back too often", detail=why)
        subscription.ack(envelope)
        return True
