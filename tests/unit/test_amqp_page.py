"""What docs/amqp.md says of `postbote.responses` is what is published there."""

import json
import re
from pathlib import Path

from broker.models.records import BotResponse, UserMessage
from broker.registry.records import Conversation
from broker.topology import MESSAGES, RESPONSES, UNROUTED, Topology, copy_key
from consumers.bot_worker import response_envelope
from consumers.bots.protocol import Reply
from consumers.turns import new_turn

PAGE = (Path(__file__).parents[2] / "docs/amqp.md").read_text()
EXAMPLE = json.loads(
    next(block for block in re.findall(r"```json\n(.+?)```", PAGE, re.S) if "messageCounter" in block)
)


def published() -> dict[str, object]:
    """Make a response as a bot worker publishes it."""
    message = UserMessage.model_validate(
        {
            "id": EXAMPLE["inReplyTo"],
            "channelId": EXAMPLE["channelId"],
            "user": {"id": EXAMPLE["userId"]},
            "message": {"textMessage": {"text": "when?"}},
            "traceparent": EXAMPLE["traceparent"],
        }
    )
    conversation = Conversation(
        "key", EXAMPLE["channelId"], EXAMPLE["userId"], b"{}", EXAMPLE["messageCounter"] - 2, 0
    )
    said = [{"text": "Hello."}, EXAMPLE["message"], {"text": "Anything else?"}]
    turn = new_turn(message, conversation, Reply(said, {}), EXAMPLE["channelRevision"]).turn
    response: dict[str, object] = turn.responses[1]
    return response


def test_the_example_is_what_a_bot_worker_publishes() -> None:
    response = published()
    differing = {"id", "createdAt"}
    assert list(EXAMPLE) == list(response)
    assert {name: value for name, value in EXAMPLE.items() if name not in differing} == {
        name: value for name, value in response.items() if name not in differing
    }
    BotResponse.model_validate(EXAMPLE)


def test_every_field_has_its_line() -> None:
    described = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.+?) \|", PAGE, re.M))))
    assert set(EXAMPLE) <= described


def test_the_routing_key_has_the_form_that_is_named() -> None:
    key = copy_key(response_envelope(published(), 16).routing_key)
    assert re.fullmatch(rf"response\.{EXAMPLE['channelId']}\.text\.c\d\d", key)


def test_the_exchanges_are_declared_as_is_said() -> None:
    for exchange in Topology(4).exchanges:
        if exchange.name in (MESSAGES, RESPONSES):
            assert (exchange.kind, exchange.alternate) == ("topic", UNROUTED)
    assert f"`alternate-exchange`: `{UNROUTED}`" in PAGE
