"""One subscriber's hold on a queue: an AMQP channel of its own, and the acknowledgements on it."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import structlog
from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from broker.errors import BrokerUnavailable, SubscriptionLost
from broker.port import Envelope
from broker.rabbitmq.acks import Acks
from broker.rabbitmq.calls import within
from broker.rabbitmq.frames import acknowledgements
from broker.rabbitmq.link import CLOSE_TIMEOUT_S, TROUBLE, describe
from broker.rabbitmq.sieve import Deliveries
from broker.rabbitmq.spool import Spool, Spooled
from broker.rabbitmq.transport import Line
from broker.room import Room, weight

log = structlog.get_logger()

#: Seconds between two looks at whether the broker still counts us among the queue's consumers.
WATCH_S = 5.0
#: The part of the prefetch that, once settled, does not wait for more.
ENOUGH_PART = 5
#: Bodies below this size, in bytes, stay in memory: the prefetch bounds what they take.
SPOOLED_FROM = 8 * 1024


class RabbitSubscription:
    """Takes from one queue on one AMQP channel, until that is closed by either side."""

    def __init__(
        self, channel: AbstractChannel, line: Line, queue: str, prefetch: int, room: Room, spool: Spool
    ) -> None:
        self._channel = channel
        self._line = line
        self._deliveries = Deliveries(self._arrive)
        self._queue = queue
        self._enough = max(1, prefetch // ENOUGH_PART)
        #: What waits to be received, and its weight. Bounded by the prefetch: the broker sends no more than that
        #: unacknowledged.
        self._arrived: deque[tuple[Envelope, int]] = deque()
        #: The weight of what of it is in memory.
        self._arrived_weight = 0
        self._room = room
        self._spool = spool
        #: By delivery tag, the bodies of what waits that have no room in memory.
        self._spooled: dict[int, Spooled] = {}
        self._acks = Acks(prefetch)
        self._writing_soon = False
        self._writing_now = False
        self._lost: str | None = None
        #: True once our closing of the AMQP channel may be on its way to the broker.
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._watchdog = asyncio.create_task(self._watch(), name=f"watch-{queue}")
        channel.closing.add_done_callback(self._on_closed)
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)

    @classmethod
    async def open(
        cls,
        connection: AbstractConnection,
        line: Line,
        queue: str,
        prefetch: int,
        room: Room,
        spool: Spool,
    ) -> "RabbitSubscription":
        """Begin to consume. Raises what the client library raises where the broker refuses."""
        channel = await connection.channel(publisher_confirms=False)
        subscription = cls(channel, line, queue, prefetch, room, spool)
        try:
            line.sieve.pass_to(channel.number, subscription._deliveries)
            await channel.basic_qos(prefetch_count=prefetch)
            await channel.basic_consume(queue, subscription._on_stray)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def receive(self) -> Sequence[Envelope]:
        """Wait for messages and take all that there is room for. Raises SubscriptionLost."""
        while True:
            if self._lost is not None:
                raise SubscriptionLost(f"The subscription to {self._queue} ended: {self._lost}")
            if self._arrived and (taken := self._fitting() or await self._unspooled()):
                return taken
            if self._lost is None:
                self._wake.clear()
                await self._wake.wait()

    def _fitting(self) -> list[Envelope]:
        """Take those in memory that there is room for."""
        taken: list[Envelope] = []
        arrived, spooled, admit = self._arrived, self._spooled, self._room.admit
        left = self._arrived_weight
        for envelope, weighs in arrived:
            if envelope.tag in spooled or not admit(envelope.tag, weighs):
                break
            left -= weighs
            taken.append(envelope)
        self._arrived_weight = left
        if len(taken) == len(arrived):
            arrived.clear()
        else:
            for _ in taken:
                arrived.popleft()
        return taken

    async def _unspooled(self) -> list[Envelope]:
        """Take the next one, where its body is on disk and there is room for it."""
        envelope, weighs = self._arrived[0]
        spooled = self._spooled.get(envelope.tag)
        if spooled is None or not self._room.fits(weighs):
            return []
        try:
            body = await self._spool.take(spooled)
        except BrokerUnavailable as error:
            self._lose(str(error))
        if self._lost is not None:
            return []
        self._arrived.popleft()
        del self._spooled[envelope.tag]
        self._room.admit(envelope.tag, weighs)
        return [replace(envelope, body=body)]

    def ack(self, envelope: Envelope) -> None:
        """Acknowledge one message, soon; dropped where the hold is lost, for then it comes again anyway."""
        if self._lost is None and self._acks.settle(envelope.tag, self._loop.time()):
            self._room.leave(envelope.tag)
            if self._arrived:
                self._wake.set()
            if self._acks.fresh < self._enough:
                self._write_soon()
            elif not self._writing_now:
                self._writing_now = True
                # What else is settled in this turn of the event loop goes with it.
                self._loop.call_soon(self._write)

    async def flush(self) -> None:
        """Write the acknowledgements so far to the connection, also those that would wait for older ones."""
        self._line.write(self._frames(everything=True))

    def _write(self) -> None:
        self._writing_now = False
        self._line.write(self._frames())

    def _write_soon(self) -> None:
        if not self._writing_soon:
            self._writing_soon = True
            self._line.write_soon(self._frames_now_due)

    def _frames_now_due(self) -> bytes:
        self._writing_soon = False
        return self._frames()

    def _frames(self, *, everything: bool = False) -> bytes:
        # On an AMQP channel that is closed, a frame would cost the whole connection.
        if self._lost is not None or self._closing or self._deliveries.ended or self._channel.is_closed:
            return b""
        tags = self._acks.take(self._loop.time(), everything=everything)
        if len(self._acks):
            self._write_soon()
        return acknowledgements(self._channel.number, tags)

    async def close(self) -> None:
        """Flush, then close the AMQP channel: what is unacknowledged goes back in order.

        Not basic.cancel, after which the next subscriber would be served later messages first.
        """
        self._watchdog.cancel()
        await asyncio.wait({self._watchdog})
        try:
            with suppress(*TROUBLE):
                await within(CLOSE_TIMEOUT_S, self._say_goodbye())
        finally:
            self._lose("it was closed by this process")

    async def _say_goodbye(self) -> None:
        await self.flush()
        self._closing = True
        await self._channel.close()
        self._line.sieve.leave(self._channel.number, self._deliveries)

    async def _watch(self) -> None:
        # A broker may drop a consumer without a word, at a change of the queue's leader for example: the AMQP
        # channel stands, and nothing comes any more.
        gone = 0
        while self._lost is None and gone < 2:
            await asyncio.sleep(WATCH_S)
            try:
                # Without a bound: of a node that is busy, or gone, the heartbeats tell.
                seen = await within(None, self._channel.queue_declare(self._queue, passive=True))
            except TROUBLE as error:
                self._lose(describe(error))
                return
            gone = 0 if seen.consumer_count else gone + 1
        if gone:
            log.warning("broker.consumer_gone", queue=self._queue)
            self._lose("the broker does not know this consumer any more")

    def _arrive(self, envelope: Envelope) -> None:
        if self._lost is None:
            self._acks.arrive(envelope.tag)
            weighs = weight(envelope.body)
            in_memory = self._arrived_weight + weighs
            if len(envelope.body) < SPOOLED_FROM or (in_memory <= self._room.left and not self._spooled):
                self._arrived_weight = in_memory
            else:
                self._spooled[envelope.tag] = self._spool.put(envelope.body)
                envelope.body = b""
            self._arrived.append((envelope, weighs))
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
        for spooled in self._spooled.values():
            self._spool.drop(spooled)
        self._spooled.clear()
        self._arrived.clear()
        self._room.clear()
        self._acks.clear()
        self._wake.set()
