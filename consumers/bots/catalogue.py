"""Which bots there are, by the `type` in a channel's settings."""

from collections.abc import Mapping
from typing import Any

from broker.errors import PostboteError
from consumers.bots.demo import DemoBot
from consumers.bots.echo import EchoBot
from consumers.bots.protocol import Bot

#: Bots keep no state of their own between messages, so one of each serves all channels.
BOTS: Mapping[str, Bot] = {"echo": EchoBot(), "demo": DemoBot()}
BOT_TYPES = frozenset(BOTS)


class UnknownBot(PostboteError):
    """There is no bot of that type."""


def make_bot(config: Mapping[str, Any]) -> Bot:
    """Return the bot that a channel's settings ask for; raises UnknownBot, naming those there are."""
    bot = BOTS.get(str(config.get("type")))
    if bot is None:
        raise UnknownBot(
            f"there is no bot of type {config.get('type')!r}; there are {', '.join(sorted(BOTS))}"
        )
    return bot
