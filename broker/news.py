"""News: tells the workers at once that a channel or its webhooks changed.

A courtesy: without it they see the change a few seconds later, and what a bot says after the change reaches the
right webhooks anyhow. So it is never waited for, and what cannot be told is dropped.
"""

import asyncio
import json

from broker.errors import BrokerUnavailable
from broker.port import Broker

#: The event of such an announcement: `{"event": "changed", "channel": "<channel id>"}`.
CHANGED = "changed"
#: Channels that may wait to be told of; of more, the oldest are dropped.
MOST_UNTOLD = 1000
#: Seconds that telling what is left may take at the end.
CLOSE_TIMEOUT_S = 1.0


class ChannelNews:
    """Announces changes in the background; one object for a process, closed at its end."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._untold: dict[str, None] = {}
        self._telling: asyncio.Task[None] | None = None

    def changed(self, channel_id: str) -> None:
        """Tell of a change that is written: never blocks, never fails."""
        self._untold[channel_id] = None
        if len(self._untold) > MOST_UNTOLD:
            del self._untold[next(iter(self._untold))]
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell(), name="channel-news")

    async def close(self) -> None:
        """Tell what is left, within a second, and end."""
        if self._telling is not None:
            await asyncio.wait({self._telling}, timeout=CLOSE_TIMEOUT_S)
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)

    async def _tell(self) -> None:
        while self._untold:
            channel_id = next(iter(self._untold))
            del self._untold[channel_id]
            try:
                await self._broker.announce(json.dumps({"event": CHANGED, "channel": channel_id}).encode())
            except BrokerUnavailable:
                # Each further one would wait as long in vain.
                self._untold.clear()
