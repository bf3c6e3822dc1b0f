"""Becomes a `postbote` command that knows two bots more: for tests of what a slow bot does to others.

`hangs` hangs while the file named by TEST_BOT_HANGS is there; `waits` takes TEST_BOT_WAITS_S seconds.
"""

import asyncio
import os
import sys
from pathlib import Path

from broker.models.builders import text
from broker.models.records import UserMessage
from consumers.bots import catalogue
from consumers.bots.protocol import Reply, Session


class Hangs:
    """Says what was said, once it may."""

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Wait as long as the file is there."""
        while _may_not_go_on():  # noqa: ASYNC110 - a file sends no event
            await asyncio.sleep(0.1)
        return _echo(message, session)


class Waits:
    """Says what was said, after a while."""

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Wait."""
        await asyncio.sleep(float(os.environ["TEST_BOT_WAITS_S"]))
        return _echo(message, session)


def _may_not_go_on() -> bool:
    return Path(os.environ["TEST_BOT_HANGS"]).exists()


def _echo(message: UserMessage, session: Session) -> Reply:
    assert message.message is not None
    assert message.message.text_message is not None
    return Reply([text(message.message.text_message.text)], session)


if __name__ == "__main__":
    catalogue.BOTS = {**catalogue.BOTS, "hangs": Hangs(), "waits": Waits()}
    catalogue.BOT_TYPES = frozenset(catalogue.BOTS)
    from consumers.cli.main import main

    # After this program's name and the interpreter's: -m, a module, and what it is told.
    sys.argv = ["postbote", *sys.argv[4:]]
    main()
