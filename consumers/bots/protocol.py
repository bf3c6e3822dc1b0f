"""What a bot is: it takes a message and a session, and gives responses and a session back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from broker.models.records import UserMessage

#: What a bot remembers of one conversation: a JSON object.
Session = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a bot says, as message objects of the wire contract in order, and the session after it."""

    responses: Sequence[dict[str, Any]]
    session: Session


class Bot(Protocol):
    """A bot. It may raise or take long: it is asked again, and what it did not say was not said.

    The session is the bot's own copy, which it may change; only the one in its reply counts.
    """

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Answer one message of one conversation; no response at all is an answer too.

        A message that only writes to the session (`message.message` is None) comes to no bot.
        """
        ...
