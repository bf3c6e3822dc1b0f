"""Waiting lanes: conversations of a partition whose messages wait outside of memory, each in its order.

A lane that gives way (consumers.giving_way) is written into the registry, all that it holds, also the message that
its bot is answering at that moment, and is then acknowledged. What the bot is answering goes on from memory; what
comes to the lane later is written behind the others, and read back page by page. So of each lane all that waits in
the registry comes before all that is only on the queue, whenever this process dies.

A lane has a tail while some of it may wait in the registry and not be in memory. It loses the tail once nothing more
is found there by a reading during which nothing was written.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from pydantic import ValidationError

from broker.models.records import UserMessage
from broker.port import Envelope, Subscription
from broker.registry.waiting_messages import WaitingMessage
from consumers.lanes import Lanes
from consumers.message_parking import MessageParking
from consumers.reading_back import ReadingBack
from consumers.shares import Shares
from consumers.taken import Taken, TakenLane, places_of

#: Messages of a lane that are written at once.
MOST_AT_ONCE = 100


@dataclass(slots=True)
class _Tail:
    """What is known of the part of a lane that waits in the registry and is not in memory."""

    #: False until it is known whether there is any; what comes meanwhile is put into the lane.
    known: bool
    #: The number of the last message of the lane that was in memory.
    last: int = 0
    #: How many messages were given to be written since there is this tail.
    parked: int = 0


class WaitingLanes:
    """Writes the messages of one partition's lanes into the registry, and brings them back into memory."""

    def __init__(
        self,
        lanes: Lanes[str, Taken],
        subscription: Subscription,
        parking: MessageParking,
        partition: int,
        shares: Shares,
        bytes_each: int,
        failed: Callable[[str, BaseException], None],
        bury: Callable[[Envelope, ValidationError], Awaitable[None]],
    ) -> None:
        self._lanes = lanes
        self._subscription = subscription
        self._parking = parking
        self._partition = partition
        self._shares = shares
        self._bytes_each = bytes_each
        self._bury = bury
        self._tails: dict[str, _Tail] = {}
        #: Messages on their way into the registry, by conversation, in order.
        self._parks: Lanes[str, Taken] = Lanes(self._write, failed)
        #: Set whenever something was written.
        self._written = asyncio.Event()
        #: Told of lanes that wait and of which nothing is in memory.
        self.unread: ReadingBack
        #: False where every lane is in memory and on the queue only, as it should be: nothing need be asked then.
        self.some = True

    def waits(self, key: str, channel_id: str, room: Callable[[str], int]) -> bool:
        """Tell whether what comes for a lane now has to be written behind others that wait.

        Where that is not known it is found out before the lane goes on, if there is room for the lane in memory.
        """
        tail = self._tails.get(key)
        if tail is not None:
            return tail.known
        if key in self._parks:
            return True
        if key not in self._lanes and channel_id in self.unread:
            if room(channel_id) <= 0:
                return True
            self._tails[key] = _Tail(known=False)
        return False

    def park(self, key: str, taken: Taken) -> None:
        """Have a message written behind those of its lane, soon, and acknowledged then."""
        self.some = taken.parking = True
        if not taken.kept:
            self._shares.give_back(taken.places)
            tail, lane = self._tails.get(key), self._lanes.get(key)
            if tail is None and lane is not None:
                last = max([each.number for each in lane.items], default=0)
                tail = self._tails[key] = _Tail(True, last)
            if tail is not None:
                tail.known = True
                tail.parked += 1
        self._parks.put(key, taken)

    def give_way(self, lane: TakenLane) -> None:
        """Have all of a lane written; all but what its bot is answering leaves the memory."""
        tail = self._tails.get(lane.key)
        # Nothing of a lane is begun before it is known what comes before that.
        self._drop(lane, 1 if tail is None or tail.known else 0)

    def open(self, key: str) -> bool:
        """Begin a lane that waits; False where it is in memory already."""
        if key in self._lanes:
            return False
        self.some = True
        self._tails[key] = _Tail(known=True)
        self._lanes.open(key)
        return True

    async def bring_in(self, lane: TakenLane) -> None:
        """Bring a lane's next messages into memory, where some wait that come before all that is there."""
        key, items = lane.key, lane.items
        while (tail := self._tails.get(key)) is not None and not (tail.known and items):
            with lane.waiting():
                read = await self._read(lane, tail)
            for taken in reversed(read):
                self._shares.hold(taken.channel_id, taken.places, new_lane=not items)
                items.appendleft(taken)
        self.some = bool(self._tails or self._parks or self.unread)

    def finished(self, taken: Taken) -> None:
        """Acknowledge a message with which nothing is left to be done, or delete it where it waited."""
        taken.done = True
        if taken.kept or not taken.waits:
            # What its bot is answering counts until then, also where it waits: a bot that hangs is asked no more.
            self._shares.give_back(taken.places)
        if taken.number:
            self._parking.done(taken.number)
        elif not taken.parking:
            self._subscription.ack(taken.envelope)

    async def stop(self, grace_s: float) -> None:
        """Let what is being written be written."""
        await self._parks.stop(grace_s)

    def _drop(self, lane: TakenLane, first: int) -> None:
        items = lane.items
        dropped: list[Taken] = []
        while len(items) > first and not items[-1].waits:
            dropped.append(items.pop())
            self._shares.let_go(dropped[-1].channel_id, dropped[-1].places, lane_ended=not items)
        for taken in items:
            if not taken.waits:
                taken.kept = True
                self.park(lane.key, taken)
        for taken in reversed(dropped):
            self.park(lane.key, taken)

    async def _read(self, lane: TakenLane, tail: _Tail) -> list[Taken]:
        """Read the next page of a lane, or wait until there may be one."""
        key = lane.key
        parks = self._parks.get(key)
        if parks is not None and any(taken.kept for taken in parks.items):
            # What comes after it is not known before it has its number.
            await self._next_write()
            return []
        parked = tail.parked
        page = await self._parking.read(key, tail.last)
        if page.messages:
            tail.last = page.messages[-1].number
        read = await self._take(page.messages)
        if parks is None and tail.parked == parked and not page.more:
            # All that waits of it is in memory; what came meanwhile is behind that.
            del self._tails[key]
            return read
        tail.known = True
        self._drop(lane, 0)
        if not read and key in self._parks:
            await self._next_write()
        return read

    async def _take(self, rows: Sequence[WaitingMessage]) -> list[Taken]:
        taken = []
        for row in rows:
            # It may have its turn: it is loaded, whatever this process remembers.
            envelope = Envelope(
                row.message_id, row.body, row.routing_key, row.headers, returned=max(1, row.returned)
            )
            try:
                message = UserMessage.model_validate_json(row.body)
            except ValidationError as error:
                await self._bury(envelope, error)
                self._parking.done(row.number)
            else:
                taken.append(Taken(envelope, message, places_of(row.body, self._bytes_each), row.number))
        return taken

    async def _write(self, lane: TakenLane) -> None:
        some = list(islice(lane.items, MOST_AT_ONCE))
        numbers = await self._parking.add([self._row_of(lane.key, taken) for taken in some])
        tail = self._tails.get(lane.key)
        for taken, number in zip(some, numbers, strict=True):
            lane.items.popleft()
            taken.number, taken.parking = number, False
            self._subscription.ack(taken.envelope)
            if taken.done:
                self._parking.done(number)
            if tail is None:
                if not taken.kept:
                    self.unread.written(taken.channel_id, number)
            elif taken.kept:
                tail.last = max(tail.last, number)
            else:
                # It may have been there before, written by a holder of the queue that was cut off.
                tail.last = min(tail.last, number - 1)
        self._written.set()

    def _row_of(self, key: str, taken: Taken) -> WaitingMessage:
        envelope = taken.envelope
        return WaitingMessage(
            partition=self._partition,
            channel_id=taken.channel_id,
            conversation_key=key,
            message_id=taken.id,
            body=envelope.body,
            routing_key=envelope.routing_key,
            headers=envelope.headers,
            returned=envelope.returned + taken.kept,
        )

    async def _next_write(self) -> None:
        self._written.clear()
        await self._written.wait()
