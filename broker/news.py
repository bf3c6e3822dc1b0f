"""News: tells the workers and the other API processes at once that a channel or its webhooks changed.

A courtesy: without it they see the change a few seconds later, and what a bot says after the change reaches the
right webhooks anyhow. So it is never waited for, and what cannot be told is dropped.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress

from pydantic_core import from_json

from broker.errors import BrokerUnavailable, SubscriptionLost
from broker.port import Broker

#: The event of such an announcement: `{"event": "changed", "channel": "<channel id>"}`.
CHANGED = "changed"
#: Channels that may wait to be told of; of more, the oldest are dropped.
MOST_UNTOLD = 1000
#: Seconds that telling what is left may take at the end.
CLOSE_TIMEOUT_S = 1.0
#: Who lost its hold on the news listens anew after so many seconds.
AGAIN_S = 0.5
#: Who heard nothing for so many seconds listens anew: its queue may be gone without a word. Workers tell each second.
DEAF_AFTER_S = 30.0


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


async def hear_of_changes(broker: Broker, on_channel: Callable[[str], None]) -> None:
    """Pass the id of each channel that is announced as changed on, until cancelled."""
    while True:
        with suppress(SubscriptionLost, BrokerUnavailable, TimeoutError):
            async with broker.listen() as announcements:
                while True:
                    async with asyncio.timeout(DEAF_AFTER_S):
                        body = await announcements.receive()
                    if (channel_id := changed_channel(body)) is not None:
                        on_channel(channel_id)
        await asyncio.sleep(AGAIN_S)


def changed_channel(body: bytes) -> str | None:
    """Return the channel that an announcement tells of; None where it tells of something else, or is none."""
    try:
        note = from_json(body)
    except ValueError:
        return None
    if not isinstance(note, dict) or note.get("event") != CHANGED:
        return None
    channel_id = note.get("channel")
    return channel_id if isinstance(channel_id, str) else None
