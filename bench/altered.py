"""`postbote` with bots that take their time, and, where it is asked for, without waiting for company.

`python -m bench.altered COMMAND`. A channel's bot of type `slow` answers after its channel's `wait` seconds, one of
type `hang` never. With BENCH_NO_LINGER set, turns are written at once: what waiting for company is compared with.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from broker.models.records import UserMessage
from consumers import turn_writing
from consumers.bots import catalogue
from consumers.bots.echo import EchoBot
from consumers.bots.protocol import Reply, Session
from consumers.cli.main import main

#: What the slow bot takes, in seconds.
SLOW_BOT_S = 0.1


class SlowBot(EchoBot):
    """Echoes after a while."""

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Wait, then echo."""
        await asyncio.sleep(SLOW_BOT_S)
        return await super().reply(message, session)


class HangingBot(EchoBot):
    """Never answers."""

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Wait for what never comes."""
        await asyncio.Event().wait()
        return Reply([], session)


def alter() -> None:
    """Add the bots, and take the waiting out."""
    bots: Mapping[str, Any] = catalogue.BOTS
    assert isinstance(bots, dict)
    bots |= {"slow": SlowBot(), "hang": HangingBot()}
    if os.environ.get("BENCH_NO_LINGER"):
        assert turn_writing.BUSY_LINGER_S > 0, "what is compared is with and without it"
        turn_writing.BUSY_LINGER_S = 0.0


if __name__ == "__main__":
    alter()
    main()
