"""One subscriber's hold on a queue: an AMQP channel of its own, and the acknowledgements on it."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence

import structlog
from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from broker.errors import SubscriptionLost
from broker.port import Envelope
from broker.rabbitmq.link import CLOSE_TIMEOUT_S, TROUBLE, describe
from broker.rabbitmq.sieve import Deliveries, Sieve

log = structlog.get_logger()

#: Seconds between two looks at whether the broker still counts us among the queue's consumers.
WATCH_S = 5.0
#: How long an acknowledgement waits for others to go with it, in seconds, and up to which part of the prefetch. Each
#: writing costs as much as half a delivery, here and at the broker.
LINGER_S = 0.04
LINGERING_PART = 10


class RabbitSubscription:
    """Takes from one queue on one AMQP channel, until that is closed by either side.

    Delivery tags count up from 1 on each AMQP channel, so the oldest open tag tells what may be acknowledged
    in one frame. Whatever is settled beyond it waits a moment for that one, and then goes singly, so that one
    slow message does not use up the prefetch of the others.
    """

    def __init__(self, channel: AbstractChannel, sieve: Sieve, queue: str, prefetch: int) -> None:
        self._channel = channel
        self._sieve = sieve
        self._deliveries = Deliveries(self._arrive)
        self._queue = queue
        self._most_lingering = prefetch // LINGERING_PART
        #: Bounded by the prefetch: the broker sends no more than that unacknowledged.
        self._arrived: deque[Envelope] = deque()
        self._open: OrderedDict[int, None] = OrderedDict()
        self._settled: list[int] = []
        #: Settled beyond the oldest open one at the last flush.
        self._late: set[int] = set()
        self._linger: asyncio.TimerHandle | None = None
        self._lost: str | None = None
        self._wake = asyncio.Event()
        self._due = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._flusher = asyncio.create_task(self._flush_when_due(), name=f"acks-{queue}")
        self._watchdog = asyncio.create_task(self._watch(), name=f"watch-{queue}")
        channel.closing.add_done_callback(self._on_closed)
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)

    @classmethod
    async def open(
        cls, connection: AbstractConnection, sieve: Sieve, queue: str, prefetch: int
    ) -> "RabbitSubscription":
        """Begin to consume. Raises what the client library raises where the broker refuses."""
        channel = await connection.channel(publisher_confirms=False)
        subscription = cls(channel, sieve, queue, prefetch)
        try:
            sieve.pass_to(channel.number, subscription._deliveries)
            await channel.basic_qos(prefetch_count=prefetch)
            await channel.basic_consume(queue, subscription._on_stray)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def receive(self) -> Sequence[Envelope]:
        """Wait for messages and take all that are there. Raises SubscriptionLost."""
        while True:
            if self._lost is not None:
                raise SubscriptionLost(f"The subscription to {self._queue} ended: {self._lost}")
            if self._arrived:
                taken = list(self._arrived)
                self._arrived.clear()
                return taken
            self._wake.clear()
            await self._wake.wait()

    def ack(self, envelope: Envelope) -> None:
        """Acknowledge one message, soon; dropped where the hold is lost, for then it comes again anyway."""
        if self._lost is None and envelope.tag in self._open:
            del self._open[envelope.tag]
            self._settled.append(envelope.tag)
            if len(self._settled) >= self._most_lingering:
                self._due.set()
            elif self._linger is None:
                self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._due.set)

    async def flush(self) -> None:
        """Wait until the acknowledgements so far are written to the connection."""
        self._late.update(self._settled)
        await self._flush()

    async def _flush(self) -> None:
        async with self._flushing:
            settled, self._settled = self._settled, []
            late, self._late = self._late, set()
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            if not settled or self._lost is not None:
                return
            oldest_open = next(iter(self._open), None)
            in_a_row = [tag for tag in settled if oldest_open is None or tag < oldest_open]
            beyond = [tag for tag in settled if oldest_open is not None and tag > oldest_open]
            frames = [(tag, False) for tag in beyond if tag in late]
            self._settled = [tag for tag in beyond if tag not in late]
            if self._settled:
                self._late.update(self._settled)
                self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._due.set)
            if not frames and not in_a_row:
                return
            if in_a_row:
                # The highest that is still outstanding: naming one already settled is an error to the broker.
                frames.append((max(in_a_row), True))
            try:
                for tag, multiple in frames[:-1]:
                    await self._channel.basic_ack(tag, multiple=multiple, wait=False)
                tag, multiple = frames[-1]
                await self._channel.basic_ack(tag, multiple=multiple)
            except TROUBLE as error:
                self._lose(describe(error))
            except asyncio.CancelledError:
                # The library's word for a connection that closed meanwhile, unless somebody stops us.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                self._lose("the connection was closed")

    async def close(self) -> None:
        """Flush, then close the AMQP channel: what is unacknowledged goes back in order.

        Not basic.cancel, after which the next subscriber would be served later messages first.
        """
        self._flusher.cancel()
        self._watchdog.cancel()
        await asyncio.wait({self._flusher, self._watchdog})
        farewell = asyncio.ensure_future(self._say_goodbye())
        farewell.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait({farewell}, timeout=CLOSE_TIMEOUT_S)
        finally:
            farewell.cancel()
            self._lose("it was closed by this process")

    async def _say_goodbye(self) -> None:
        await self.flush()
        await self._channel.close()
        self._sieve.leave(self._channel.number, self._deliveries)

    async def _flush_when_due(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            await self._flush()

    async def _watch(self) -> None:
        # A broker may drop a consumer without a word, at a change of the queue's leader for example: the AMQP
        # channel stands, and nothing comes any more.
        gone = 0
        while self._lost is None and gone < 2:
            await asyncio.sleep(WATCH_S)
            try:
                async with asyncio.timeout(WATCH_S):
                    seen = await self._channel.queue_declare(self._queue, passive=True)
            except TimeoutError:
                # A node that is busy, or gone: the heartbeats tell.
                continue
            except TROUBLE as error:
                self._lose(describe(error))
                return
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                self._lose("the connection was closed")
                return
            gone = 0 if seen.consumer_count else gone + 1
        if gone:
            log.warning("broker.consumer_gone", queue=self._queue)
            self._lose("the broker does not know this consumer any more")

    def _arrive(self, envelope: Envelope) -> None:
        if self._lost is None:
            self._open[envelope.tag] = None
            self._arrived.append(envelope)
            self._wake.set()

    async def _on_stray(self, _: DeliveredMessage) -> None:
        # The sieve takes every delivery. One that got past it is of a hold that is over, and comes again.
        self._lose("a delivery went astray")

    def _on_closed(self, closing: "asyncio.Future[object]") -> None:
        self._lose(describe(None if closing.cancelled() else closing.exception()))

    def _on_cancelled(self, _: spec.Basic.Cancel) -> None:
        self._lose("the broker cancelled it; the queue may have been deleted, or have lost its leader")

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        self._arrived.clear()
        self._open.clear()
        self._settled.clear()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._wake.set()
