"""What this process wrote of conversations last, so that the next message of one need not ask the database.

A guess, and never more: another worker may have gone on with a conversation, a channel may have changed. Whatever
is answered from here is written only where it is still so, and is loaded otherwise.
"""

from collections import OrderedDict
from dataclasses import dataclass

from broker.ids import made_for_one
from broker.models.records import UserMessage
from broker.partitions import conversation_key
from broker.registry.conversations import Loaded, NewTurn
from broker.registry.records import Channel, Conversation

#: What all conversations may take together, in bytes, with what each takes beside its session.
MOST_BYTES = 4 * 2**20
BYTES_EACH = 700
#: Messages of each conversation of which it is known that they are answered.
ANSWERED = 4
#: Channels remembered, as they were when they were last loaded; the one that was used longest ago goes first.
MOST_CHANNELS = 10_000


@dataclass(frozen=True, slots=True)
class _Known:
    session: bytes
    message_counter: int
    turns: int
    answered: tuple[str, ...]

    @property
    def size(self) -> int:
        return BYTES_EACH + len(self.session)


class Remembered:
    """Conversations as they were written last, the ones that were longest without a message given up first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._channels: OrderedDict[str, Channel] = OrderedDict()

    def of(self, message: UserMessage) -> Loaded | None:
        """Return what is known of a message that comes for the first time; None where it has to be loaded.

        That is so too where the message may have a turn already, for then the bot must not be asked.
        """
        key = conversation_key(message.channel_id, message.user.id)
        known, channel = self._known.get(key), self._channels.get(message.channel_id)
        if known is None or channel is None:
            return None
        if message.id in known.answered or not made_for_one(message.id):
            return None
        self._known.move_to_end(key)
        self._channels.move_to_end(channel.id)
        conversation = Conversation(
            key, message.channel_id, message.user.id, known.session, known.message_counter, known.turns
        )
        return Loaded(channel, conversation, None)

    def loaded(self, channel: Channel) -> None:
        """Remember a channel as it was loaded."""
        self._channels[channel.id] = channel
        self._channels.move_to_end(channel.id)
        if len(self._channels) > MOST_CHANNELS:
            self._channels.popitem(last=False)

    def written(self, new: NewTurn) -> None:
        """Remember a conversation as it was written."""
        after = new.conversation
        before = self._forget(after.key)
        answered = (new.turn.message_id, *(before.answered if before is not None else ()))[:ANSWERED]
        known = _Known(after.session, after.message_counter, after.turns, answered)
        self._known[after.key] = known
        self._bytes += known.size
        while self._bytes > self._most_bytes:
            self._forget(next(iter(self._known)))

    def refused(self, new: NewTurn) -> None:
        """Forget a conversation whose turn was refused: what was known of it is not so."""
        self._forget(new.conversation.key)

    def _forget(self, key: str) -> _Known | None:
        known = self._known.pop(key, None)
        if known is not None:
            self._bytes -= known.size
        return known
