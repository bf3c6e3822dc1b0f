"""Giving way: takes the messages of a partition in, and has lanes wait in the registry where its prefetch runs short.

Who gives way says consumers.shares, by how long the channel's bot takes. Lanes of a bot that hangs give way before
they are begun, or with the message that it is answering; those that wait behind a slow answer of their own give way
with all that waits.
"""

import asyncio
import time
from collections.abc import Sequence

import structlog

from broker.models.records import UserMessage
from broker.port import Envelope
from broker.room import LIGHT
from consumers.bot_times import BotTimes
from consumers.busyness import Busyness
from consumers.lanes import Lanes
from consumers.shares import PATIENCE_S, Shares
from consumers.taken import Taken, TakenLane, places_of
from consumers.waiting_lanes import WaitingLanes

log = structlog.get_logger()

#: While the prefetch is short, lanes are looked at again after so many seconds: no message comes where it is full.
LOOK_S = 0.25


class GivingWay:
    """Puts each message into its lane, or behind those of its lane that wait."""

    def __init__(
        self,
        lanes: Lanes[str, Taken],
        waiting: WaitingLanes,
        shares: Shares,
        times: BotTimes,
        busyness: Busyness,
        bytes_each: int,
    ) -> None:
        self._lanes = lanes
        self._waiting = waiting
        self._shares = shares
        self._times = times
        self._busyness = busyness
        self._bytes_each = bytes_each
        self._looking: asyncio.TimerHandle | None = None

    def put(self, key: str, envelope: Envelope, message: UserMessage) -> None:
        """Take a message in, behind all of its conversation."""
        taken, shares, waiting = Taken(envelope, message), self._shares, self._waiting
        if len(envelope.body) > LIGHT:
            taken.places = places_of(envelope.body, self._bytes_each)
        shares.take(taken.places)
        short = shares.short
        slow = short and self._is_slow(message.channel_id)
        if slow and key not in self._lanes and self._gives_way(message.channel_id, [taken]):
            log.debug("lane.parked", conversation=key, messages=1)
            waiting.park(key, taken)
        elif waiting.some and waiting.waits(key, message.channel_id, self.room):
            waiting.park(key, taken)
        elif (lane := self._lanes.put(key, taken)) is not None:
            shares.hold(message.channel_id, taken.places, new_lane=len(lane.items) == 1)
            if slow:
                self._look_at(lane)
        if short and self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def leave(self, lane: TakenLane) -> None:
        """Take the first message off its lane."""
        taken = lane.items.popleft()
        self._shares.let_go(taken.channel_id, taken.places, lane_ended=not lane.items)

    def room(self, channel_id: str) -> int:
        """Return how many more lanes of a channel may be taken up that wait."""
        return self._shares.room(channel_id, self._times.expected_s(channel_id))

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        self._looking = None
        if self._shares.short:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)
            slow = {channel_id for channel_id in self._shares.owners() if self._is_slow(channel_id)}
            if slow:
                for lane in list(self._lanes):
                    if lane.items and lane.items[0].channel_id in slow:
                        self._look_at(lane)

    def _is_slow(self, channel_id: str) -> bool:
        """Tell whether any lane of a channel could give way, whatever its length."""
        held = self._shares.held(channel_id) + 1
        return held * self._times.expected_s(channel_id) > PATIENCE_S

    def _look_at(self, lane: TakenLane) -> None:
        items = lane.items
        if not items[-1].waits and self._gives_way(items[0].channel_id, items):
            log.debug("lane.parked", conversation=lane.key, messages=len(items))
            self._waiting.give_way(lane)

    def _gives_way(self, channel_id: str, lane: Sequence[Taken]) -> bool:
        # What this process adds to it is no fault of the bot's.
        each_s = max(0.0, self._times.expected_s(channel_id) - self._busyness.adds_s)
        patience_s = self._shares.patience_s(time.monotonic(), self._busyness.part)
        if len(lane) * each_s <= patience_s:
            # Neither is the lane settled later than that, nor what comes to the channel.
            return False
        places = sum([taken.places for taken in lane])
        return self._shares.gives_way(channel_id, places, len(lane) * each_s, each_s, patience_s)
