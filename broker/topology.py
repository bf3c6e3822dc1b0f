"""Every exchange, queue and binding of Postbote, declared in this one place as values.

The queue type, the single active consumer and the dead-letter exchange are arguments of a queue: without them
messages would change places or be lost. Delivery limit, lengths and timeouts are policies, so that an operator can
change them without new queues.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from broker.partitions import partition_word

#: Outside programs publish here, with any routing key; it feeds the queue of the same name.
MESSAGES = "postbote.messages"
#: Validated user messages on their way to a bot worker; key `message.<channel>.pNN`.
INBOUND = "postbote.inbound"
#: What bots said, on its way to a delivery worker; key `response.<channel>.<kind>.pNN`. For queues of ours only: a
#: confirm covers every queue that a message reaches, and one that refuses holds up the conversation.
OUTBOUND = "postbote.outbound"
#: What Postbote's own publishers use in place of the two above: the same queues, key `pNN`. RabbitMQ takes five times
#: as long to match a topic, and asks anew for each other key whether the user may publish it. No alternate exchange:
#: where a binding is missing, the publisher is told, and tries again.
INBOUND_DIRECT, OUTBOUND_DIRECT = f"{INBOUND}.direct", f"{OUTBOUND}.direct"
_DIRECT = {INBOUND: INBOUND_DIRECT, OUTBOUND: OUTBOUND_DIRECT}
#: Copies of what bots said, for others: anyone may bind a queue of their own. Key `response.<channel>.<kind>.cNN`; in
#: its last word a copy differs from its original, for earlier versions bound `postbote.outbound.pNN` here too.
RESPONSES = "postbote.responses"
#: Where a copy ends that no other queue wants, so that the alternate exchange is not asked: it has no queue.
UNREAD = "postbote.unread"
#: What cannot be processed, with the reason in its headers; fed by us and by the broker's delivery limit.
DEAD = "postbote.dead"
#: Workers tell each other here that they live; each listens on a queue of its own, `postbote.control.…`.
CONTROL = "postbote.control"
#: Alternate exchange of the others: catches what no queue wanted, so that a missing binding loses nothing.
UNROUTED = "postbote.unrouted"


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange; what none of its bindings match goes on to `alternate`, where one is named."""

    name: str
    kind: Literal["topic", "fanout", "direct"]
    alternate: str | None = None
    #: An exchange that gets all of this one's messages too.
    feeds: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue; with `ordered`, one consumer at a time is served (single active consumer).

    What expires in it, or comes back too often, the broker sends to the exchange `dead`, where one is named.
    """

    name: str
    ordered: bool = True
    dead: str | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of `exchange` whose routing key matches `pattern` go to `queue`; topics may have wildcards."""

    exchange: str
    queue: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Topology:
    """All that a deployment with `partitions` partitions needs on its broker (1 to 100 partitions)."""

    partitions: int

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The exchanges, each after the one that it names as its alternate."""
        return (
            Exchange(UNROUTED, "fanout"),
            Exchange(DEAD, "fanout"),
            Exchange(CONTROL, "fanout"),
            Exchange(MESSAGES, "topic", UNROUTED),
            Exchange(INBOUND, "topic", UNROUTED),
            Exchange(UNREAD, "fanout"),
            Exchange(RESPONSES, "topic", UNROUTED, feeds=UNREAD),
            Exchange(INBOUND_DIRECT, "direct"),
            Exchange(OUTBOUND_DIRECT, "direct"),
            # The last, so that it exists only when all others do.
            Exchange(OUTBOUND, "topic", UNROUTED),
        )

    @property
    def queues(self) -> tuple[Queue, ...]:
        """The queues; partitions in falling order, so that p00 exists only when all others do."""
        falling = [word for _, word in sorted(self._words(), reverse=True)]
        return (
            Queue(UNROUTED, ordered=False),
            Queue(DEAD),
            Queue(MESSAGES, dead=DEAD),
            *(Queue(inbound_queue(word), dead=DEAD) for word in falling),
            *(Queue(outbound_queue(word), dead=DEAD) for word in falling),
        )

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The bindings between the two."""
        return (
            Binding(UNROUTED, UNROUTED, "#"),
            Binding(DEAD, DEAD, "#"),
            Binding(MESSAGES, MESSAGES, "#"),
            *(Binding(INBOUND, inbound_queue(word), f"#.{word}") for _, word in self._words()),
            *(Binding(OUTBOUND, outbound_queue(word), f"#.{word}") for _, word in self._words()),
            *(Binding(INBOUND_DIRECT, inbound_queue(word), word) for _, word in self._words()),
            *(Binding(OUTBOUND_DIRECT, outbound_queue(word), word) for _, word in self._words()),
        )

    def route(self, exchange: str, key: str) -> tuple[str, ...]:
        """Name the queues that get what is published to an exchange under a key, each once.

        Where no binding matches, the alternate exchange is asked, as RabbitMQ does. None: no queue wants it.
        """
        found = next((known for known in self.exchanges if known.name == exchange), None)
        if found is None:
            return ()
        queues = tuple(
            binding.queue
            for binding in self.bindings
            if binding.exchange == exchange and _takes(found, binding, key)
        )
        if queues or found.feeds or found.alternate is None:
            return tuple(dict.fromkeys(queues))
        return self.route(found.alternate, key)

    def shortcut(self, exchange: str, key: str) -> tuple[str, str] | None:
        """Return the direct exchange and its key that lead to the same queue; None where there are none."""
        return _shortcut(self.partitions, exchange, key)

    def _words(self) -> Iterator[tuple[int, str]]:
        return ((partition, partition_word(partition)) for partition in range(self.partitions))


# Most messages go where another has gone before.
@lru_cache(maxsize=1024)
def _shortcut(partitions: int, exchange: str, key: str) -> tuple[str, str] | None:
    direct, (_, dot, word) = _DIRECT.get(exchange), key.rpartition(".")
    if direct is None or not dot or word not in {partition_word(each) for each in range(partitions)}:
        return None
    return direct, word


def _takes(exchange: Exchange, binding: Binding, key: str) -> bool:
    match exchange.kind:
        case "fanout":
            return True
        case "direct":
            return binding.pattern == key
        case "topic":
            return matches(binding.pattern, key)


def inbound_queue(word: str) -> str:
    """Name the queue that holds the user messages of a partition, given as its word (`p07`)."""
    return f"{INBOUND}.{word}"


def outbound_queue(word: str) -> str:
    """Name the queue that holds the bot responses of a partition, given as its word (`p07`)."""
    return f"{OUTBOUND}.{word}"


def inbound_key(channel_id: str, partition: int) -> str:
    """Write the routing key of a user message."""
    return f"message.{channel_id}.{partition_word(partition)}"


def response_key(channel_id: str, kind: str, partition: int) -> str:
    """Write the routing key of a bot response."""
    return f"response.{channel_id}.{kind}.{partition_word(partition)}"


def copy_key(key: str) -> str:
    """Write the routing key of a response's copy: the partition's word, the last, with another letter."""
    head, _, word = key.rpartition(".")
    return f"{head}.c{word[1:]}"


def copied_key(key: str) -> str:
    """Write the routing key of the response that a copy was made of."""
    head, _, word = key.rpartition(".")
    return f"{head}.p{word[1:]}"


def matches(pattern: str, key: str) -> bool:
    """Tell whether a routing key matches a topic pattern: `*` is one word, `#` any number, also none.

    As AMQP 0-9-1 has it (section 3.1.3.3, the topic exchange type).
    """
    return _matches(pattern.split("."), key.split("."))


def _matches(pattern: list[str], words: list[str]) -> bool:
    # One row of the classic matching table at a time: linear memory, no exponential blow-up on `#.#.#`.
    reachable = [True] + [False] * len(words)
    for part in pattern:
        if part == "#":
            seen = False
            for i, here in enumerate(reachable):
                seen = seen or here
                reachable[i] = seen
        else:
            reachable = [False] + [
                before and part in ("*", word) for before, word in zip(reachable, words, strict=False)
            ]
    return reachable[-1]
