"""Return addresses: where a dead letter came from, and what to publish there so that it is tried once more. Pure.

Whatever is derived from the body keeps the message's own id, so that a letter that is sent back twice is
answered and delivered as one.
"""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from broker.models.records import BotResponse, UserMessage
from broker.partitions import conversation_key, partition_of
from broker.port import DEATH_QUEUE, Envelope, HeaderValue
from broker.registry.records import DeadLetter
from broker.topology import (
    INBOUND,
    MESSAGES,
    OUTBOUND,
    UNROUTED,
    Topology,
    inbound_key,
    outbound_queue,
    response_key,
)

M = TypeVar("M", bound=BaseModel)

#: What AMQP 0-9-1 allows, in bytes.
LONGEST_KEY = 255
_OF_STAGE = {"intake": MESSAGES, "bot": INBOUND, "delivery": OUTBOUND}
#: Headers of a dead letter that keep what an outside program wrote beside its message: `amqp-message-id`, …
PROPERTY = "amqp-"
#: Where the broker gave a message up by itself, as it is kept of dead letters that are from before DEATH_QUEUE.
_FIRST_QUEUE = "x-first-death-queue"


@dataclass(frozen=True, slots=True)
class ReturnAddress:
    """Where a dead letter goes back to, and as what."""

    exchange: str
    envelope: Envelope
    #: The user's message that a bot is asked to answer once more; None where it is none.
    message_id: str | None = None


def return_address(letter: DeadLetter, topology: Topology) -> ReturnAddress | str:
    """Address a dead letter to where it came from; a string says why it cannot go back."""
    exchange = _exchange_of(letter)
    match exchange:
        case None:
            return f"nothing says which queue it came from: its stage is {letter.stage!r}"
        case _ if exchange == INBOUND:
            return _to_bot(letter, topology)
        case _ if exchange == OUTBOUND:
            return _to_delivery(letter, topology)
    return ReturnAddress(MESSAGES, _envelope(letter, _own_id(letter), letter.routing_key))


def _own_id(letter: DeadLetter) -> str:
    # Under the sender's own id it is answered once, also where the sender published it again meanwhile.
    given = letter.headers.get(f"{PROPERTY}message-id")
    return given if isinstance(given, str) and given and _fits(given) else letter.id


def _exchange_of(letter: DeadLetter) -> str | None:
    if letter.stage != "broker":
        return _OF_STAGE.get(letter.stage)
    queue = str(letter.headers.get(DEATH_QUEUE, letter.headers.get(_FIRST_QUEUE, "")))
    if queue == MESSAGES:
        return MESSAGES
    if queue.startswith(f"{INBOUND}."):
        return INBOUND
    return OUTBOUND if queue.startswith(outbound_queue("")) else None


def _to_bot(letter: DeadLetter, topology: Topology) -> ReturnAddress | str:
    message = _read(UserMessage, letter.body)
    if message is None:
        return _as_it_was(letter, INBOUND, topology)
    # The number of partitions may be another by now.
    partition = partition_of(conversation_key(message.channel_id, message.user.id), topology.partitions)
    key = inbound_key(message.channel_id, partition)
    return ReturnAddress(INBOUND, _envelope(letter, message.id, key), message.id)


def _to_delivery(letter: DeadLetter, topology: Topology) -> ReturnAddress | str:
    response = _read(BotResponse, letter.body)
    if response is None:
        return _as_it_was(letter, OUTBOUND, topology)
    partition = partition_of(conversation_key(response.channel_id, response.user_id), topology.partitions)
    key = response_key(response.channel_id, response.kind, partition)
    return ReturnAddress(OUTBOUND, _envelope(letter, response.id, key))


def _as_it_was(letter: DeadLetter, exchange: str, topology: Topology) -> ReturnAddress | str:
    queues = topology.route(exchange, letter.routing_key) if _fits(letter.routing_key) else ()
    if not queues or UNROUTED in queues:
        return f"no queue takes its routing key, {letter.routing_key!r}, and its body does not tell another"
    return ReturnAddress(exchange, _envelope(letter, letter.id, letter.routing_key))


def _envelope(letter: DeadLetter, message_id: str, key: str) -> Envelope:
    headers: dict[str, HeaderValue] = {
        # What the broker wrote counts the tries of the letter's former life.
        name: value
        for name, value in letter.headers.items()
        if isinstance(value, str | int) and not name.startswith("x-")
    }
    return Envelope(message_id, letter.body, key if _fits(key) else "", headers)


def _fits(key: str) -> bool:
    return len(key.encode("utf-8", "replace")) <= LONGEST_KEY


def _read(model: type[M], body: bytes) -> M | None:
    try:
        return model.model_validate_json(body)
    except ValidationError:
        return None
