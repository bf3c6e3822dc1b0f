"""A user's message in the hands of a bot worker, from its queue or from the registry, where it waited."""

from dataclasses import dataclass, field

from broker.models.records import UserMessage
from broker.port import Envelope
from broker.room import LIGHT, weight
from consumers.lanes import Lane


@dataclass(slots=True, eq=False)
class Taken:
    """A message in the hands of a session."""

    envelope: Envelope
    #: None once it is answered: it takes as much memory as the body does, and its mark is waited for.
    message: UserMessage | None
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
    #: The message's id, and the channel whose bot it is for.
    id: str = field(init=False)
    channel_id: str = field(init=False)

    def __post_init__(self) -> None:
        """Keep what is asked for when the message is answered."""
        assert self.message is not None
        self.id, self.channel_id = self.message.id, self.message.channel_id

    @property
    def waits(self) -> bool:
        """True where it is in the registry, or on its way there."""
        return self.parking or self.number > 0


TakenLane = Lane[str, Taken]


def places_of(body: bytes, bytes_each: int) -> int:
    """Tell how many places a message takes: one more for each `bytes_each` of its weight in memory."""
    return 1 if len(body) <= LIGHT else 1 + weight(body) // bytes_each
