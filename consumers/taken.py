"""A user's message in the hands of a bot worker, from its queue or from the registry, where it waited."""

from dataclasses import dataclass

from broker.models.records import UserMessage
from broker.port import Envelope
from broker.room import LIGHT, weight
from consumers.lanes import Lane


@dataclass(slots=True, eq=False)
class Taken:
    """A message in the hands of a session."""

    envelope: Envelope
    message: UserMessage
    #: How many places of the prefetch it takes.
    places: int = 1
    #: Its number in the registry; 0 where it is not written there.
    number: int = 0
    #: True while it is being written there.
    parking: bool = False
    #: True where its lane goes on with it in memory, though it is written.
    kept: bool = False
    #: True once nothing is left to be done with it.
    done: bool = False

    @property
    def waits(self) -> bool:
        """True where it is in the registry, or on its way there."""
        return self.parking or self.number > 0

    @property
    def channel_id(self) -> str:
        """The channel whose bot it is for."""
        return self.message.channel_id


TakenLane = Lane[str, Taken]


def places_of(body: bytes, bytes_each: int) -> int:
    """Tell how many places a message takes: one more for each `bytes_each` of its weight in memory."""
    return 1 if len(body) <= LIGHT else 1 + weight(body) // bytes_each
