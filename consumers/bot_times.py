"""Bot times: how long each channel's bot takes, so that it is known who waits for which bot.

One object for a process. What counts is the time with the bot, tries and pauses between them included, and none of
what this process does itself.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import count, islice

#: How much the last answer weighs in the average.
LAST_WEIGHS = 0.2
#: Channels remembered; of those whose bot is not at work, the one asked longest ago is forgotten first.
MOST_CHANNELS = 10_000
#: Of the channels beyond, so many are looked at for each one that is met.
LOOKED_AT = 2


class _Times:
    __slots__ = ("average_s", "known", "started")

    def __init__(self) -> None:
        self.average_s = 0.0
        self.known = False
        #: The messages that the bot is answering, oldest first, each with the moment when it was asked.
        self.started: dict[int, float] = {}


class BotTimes:
    """Knows for each channel how long its bot takes, by its last answers and by what it is answering."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = count(1)
        self._channels: OrderedDict[str, _Times] = OrderedDict()

    def began(self, channel_id: str) -> int:
        """Note that a bot is being asked; what is returned says so to `ended`."""
        times = self._channels.get(channel_id)
        if times is None:
            times = self._channels[channel_id] = _Times()
            self._forget_some()
        number = next(self._numbers)
        times.started[number] = self._clock()
        return number

    def ended(self, channel_id: str, number: int) -> None:
        """Note that the bot answered or failed."""
        times = self._channels[channel_id]
        lasted = self._clock() - times.started.pop(number)
        weighs = LAST_WEIGHS if times.known else 1.0
        times.known = True
        times.average_s += weighs * (lasted - times.average_s)

    def expected_s(self, channel_id: str) -> float:
        """Return how long an answer takes as far as is known, in seconds; of a bot that hangs, at least so long."""
        times = self._channels.get(channel_id)
        if times is None:
            return 0.0
        if times.started:
            at = self._clock()
            if at - next(iter(times.started.values())) > times.average_s:
                middle = next(islice(times.started.values(), len(times.started) // 2, None))
                return max(times.average_s, at - middle)
        return times.average_s

    def _forget_some(self) -> None:
        for _ in range(min(LOOKED_AT, len(self._channels) - MOST_CHANNELS)):
            channel_id, times = next(iter(self._channels.items()))
            if times.started:
                self._channels.move_to_end(channel_id)
            else:
                del self._channels[channel_id]
