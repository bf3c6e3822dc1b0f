"""The broker as the rest of Postbote sees it: a port with two adapters, broker.rabbitmq and broker.embedded.

What both promise, and one contract suite checks:

* a publish that returned is durable: it survives the death of this process and of the broker;
* a queue gives its messages in the order in which one publisher published them, to one subscriber at a time;
* what was taken and not acknowledged comes again, in order, before later messages.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

HeaderValue = str | int | bool

#: Headers that name the queue in which the broker itself gave a message up last, and its reason. No sender can
#: write them: an adapter leaves out what is not the broker's own.
DEATH_QUEUE, DEATH_REASON = "x-last-death-queue", "x-last-death-reason"


@dataclass(slots=True)
class Envelope:
    """What a queue carries: a body and what is written on the outside; nobody changes one.

    Not frozen: that would triple what it takes to make one, and each message takes several.
    """

    #: Up to 255 bytes. Empty where an outside program gave none; what is published without one may get one.
    id: str
    body: bytes
    routing_key: str = ""
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    #: The adapter's own handle on a taken message; 0 on one to be published.
    tag: int = 0
    #: How often it was taken before and not acknowledged, as far as is known: at least 1 where it ever was.
    returned: int = 0
    #: What an outside program said of the body beside the headers: any of content-type, content-encoding, app-id.
    #: Read where the adapter has it, and not published.
    properties: Mapping[str, str] | None = field(default=None, compare=False)
    #: The bytes of the whole body where only its beginning is here; 0 where all of it is.
    whole: int = 0

    @property
    def size(self) -> int:
        """The bytes of the body as it was published."""
        return self.whole or len(self.body)

    @property
    def redelivered(self) -> bool:
        """True where it was taken before: what it asks for may have been done already."""
        return self.returned > 0


class Subscription(Protocol):
    """One subscriber's hold on a queue, from subscribing until close, or until the connection is lost."""

    async def receive(self) -> Sequence[Envelope]:
        """Wait for messages and take all that are there, at least one, in order.

        Raises SubscriptionLost when the hold on the queue is gone: what was taken and not acknowledged
        comes again to whoever subscribes next, so work that is still in hand should be dropped.
        """
        ...

    def ack(self, envelope: Envelope) -> None:
        """Acknowledge one message, soon and together with others: never blocks, never fails.

        An acknowledgement that is lost with the connection means that the message comes again.
        """
        ...

    async def flush(self) -> None:
        """Wait until the acknowledgements so far are on their way to the broker (or the hold is lost)."""
        ...


class Announcements(Protocol):
    """What is announced by this process and the others while one listens."""

    async def receive(self) -> bytes:
        """Wait for the next announcement. Raises SubscriptionLost when the connection is lost."""
        ...


class Broker(Protocol):
    """Publishes to exchanges and subscribes to queues of broker.topology."""

    async def start(self, *, patient: bool = True) -> None:
        """Connect and make sure of the topology; waits for the broker as long as it takes.

        Raises TopologyMismatch where the broker holds another number of partitions, or other queues; and
        BrokerRefused where it refuses this client, unless `patient` waits for that to be mended too.
        """
        ...

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Publish under the envelope's routing key; durable when it returns.

        Raises BrokerUnavailable when that could not be confirmed in time; the message may still have
        arrived, so publishing it again may make it come twice. What was sent when an alarm of the broker
        began waits for its end: a caller that cannot has a timeout of its own.

        Raises Unpublishable where no publish can carry it, so that trying again would change nothing.
        """
        ...

    def copy(self, envelope: Envelope) -> None:
        """Give whoever has bound a queue to `postbote.responses` a copy of a response, soon: never blocks or fails.

        A copy may come twice, and is lost where such a queue refuses it, or this process dies.
        """
        ...

    def subscribe(self, queue: str, prefetch: int) -> AbstractAsyncContextManager[Subscription]:
        """Hold a queue, with at most `prefetch` messages taken and unacknowledged at a time.

        Entering waits for the connection. Leaving gives the queue up: acknowledgements are flushed,
        and what is unacknowledged goes back, in order, before the next subscriber is served.
        """
        ...

    async def announce(self, body: bytes) -> None:
        """Tell all who listen at this moment, this process too; kept nowhere.

        Raises BrokerUnavailable where that cannot be sent within about a second.
        """
        ...

    def listen(self) -> AbstractAsyncContextManager[Announcements]:
        """Listen to announcements; entering waits for the connection. Of very many, the oldest are dropped."""
        ...

    async def check(self) -> None:
        """Return where the broker can take messages now; raises BrokerUnavailable or NotReady otherwise."""
        ...

    async def close(self) -> None:
        """Close the connections. Subscriptions should have been left before."""
        ...
