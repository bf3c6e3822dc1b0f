"""Care: a message that its worker does not survive must not take the others with it, nor come back for ever.

Nobody can say which of the messages in hand ended a process. So where messages came back often, they are taken
one at a time until it is over: then only the one in hand comes back once more, and after a while it is given up
with a reason. The broker's own delivery limit (20 by default from RabbitMQ 4.0 on) counts the innocent too, and
is there for what this misses.
"""

from collections.abc import Sequence

from broker.port import Envelope
from broker.topology import INBOUND, MESSAGES

#: What came back so often is taken one at a time.
CAREFUL_AFTER = 4
#: What came back so often is given up; below the broker's own limit, which knows no reason.
GIVE_UP_AFTER = 12


def wants_care(envelopes: Sequence[Envelope]) -> bool:
    """Tell whether one of them came back so often that it may be what ends its worker."""
    return any(envelope.returned >= CAREFUL_AFTER for envelope in envelopes)


def hopeless(envelope: Envelope) -> str | None:
    """Say why a message that was taken with care is given up; None where it is tried once more."""
    if envelope.returned < GIVE_UP_AFTER:
        return None
    return (
        f"it was taken {envelope.returned} times, in the end alone, and never finished: "
        "the process that works on it probably dies of it"
    )


def stage_of(queue: str) -> str | None:
    """Name the stage that works on a queue, for its dead letters; None for the queue of dead letters itself."""
    if queue == MESSAGES:
        return "intake"
    if queue.startswith(f"{INBOUND}."):
        return "bot"
    return "delivery" if queue.startswith("postbote.outbound.") else None
