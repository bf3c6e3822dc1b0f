"""The echo bot: says what it was told."""

from broker.models.builders import text
from broker.models.records import UserMessage
from consumers.bots.protocol import Reply, Session


class EchoBot:
    """Answers each message with its own content, and remembers nothing."""

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Say the text, the click's title, or the coordinates again."""
        said = message.message
        if said is None:
            return Reply([], session)
        if said.text_message is not None:
            answer = said.text_message.text
        elif said.postback_message is not None:
            answer = said.postback_message.title or said.postback_message.payload or "(a click)"
        elif said.location_message is not None:
            place = said.location_message.coordinates
            answer = f"{place.lat}, {place.long}"
        else:
            answer = "Hello! I say what you say."
        return Reply([text(answer)], session)
