"""Where a dead letter goes back to: to the queue that it came from, under its own id."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ids import new_message_id, response_id
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import BotResponse, UserMessage
from broker.partitions import conversation_key, partition_of, partition_word
from broker.registry.records import DeadLetter
from broker.return_address import ReturnAddress, return_address
from broker.topology import INBOUND, MESSAGES, OUTBOUND, UNROUTED, Topology, inbound_queue, outbound_queue

TOPOLOGY = Topology(4)
MESSAGE = UserMessage(
    id=new_message_id(),
    channel_id="ch_a",
    user=User(id="ключ/1"),
    message=InboundMessage(text_message=TextMessage(text="hello")),
)
RESPONSE = BotResponse(
    id=response_id(MESSAGE.id, 1),
    channel_id="ch_a",
    user_id="ключ/1",
    in_reply_to=MESSAGE.id,
    index=1,
    count=1,
    message_counter=1,
    kind="quick_replies",
    message={"text": "hello"},
)
WORD = partition_word(partition_of(conversation_key("ch_a", "ключ/1"), 4))


def letter(stage: str, body: bytes = b"rubbish", key: str = "", headers: Any = None) -> DeadLetter:
    identity = "00000000-0000-0000-0000-000000000001"
    return DeadLetter(identity, stage, "reason", "", None, key, headers or {}, body, datetime.now(UTC))


def sent(one: DeadLetter) -> ReturnAddress:
    address = return_address(one, TOPOLOGY)
    assert isinstance(address, ReturnAddress), address
    return address


def from_queue(queue: str) -> dict[str, str]:
    return {"x-first-death-queue": queue, "x-first-death-reason": "delivery_limit"}


@pytest.mark.parametrize(
    "one",
    [
        letter("bot", MESSAGE.model_dump_json().encode(), "message.ch_a.p99"),
        letter("broker", MESSAGE.model_dump_json().encode(), "x", from_queue("postbote.inbound.p99")),
    ],
)
def test_a_message_goes_to_the_partition_that_its_conversation_has_now(one: DeadLetter) -> None:
    address = sent(one)
    assert (address.exchange, address.message_id, address.envelope.id) == (INBOUND, MESSAGE.id, MESSAGE.id)
    assert TOPOLOGY.route(INBOUND, address.envelope.routing_key) == (inbound_queue(WORD),)
    assert address.envelope.body == one.body


@pytest.mark.parametrize(
    "one",
    [
        letter("delivery", RESPONSE.model_dump_json().encode(), "response.ch_a.text.p99"),
        letter("broker", RESPONSE.model_dump_json().encode(), "x", from_queue("postbote.outbound.p99")),
    ],
)
def test_a_response_goes_to_those_who_deliver_it_and_the_bot_is_not_asked(one: DeadLetter) -> None:
    address = sent(one)
    assert (address.exchange, address.message_id, address.envelope.id) == (OUTBOUND, None, RESPONSE.id)
    assert address.envelope.routing_key == f"response.ch_a.quick_replies.{WORD}"
    assert TOPOLOGY.route(OUTBOUND, address.envelope.routing_key) == (outbound_queue(WORD),)


@pytest.mark.parametrize("key", ["", "anything.at.all", "\ufffd" * 200])
@pytest.mark.parametrize("headers", [{}, from_queue("postbote.messages")])
def test_what_came_in_by_amqp_goes_through_the_intake_again_as_one_message_however_often(
    key: str, headers: dict[str, str]
) -> None:
    one = letter("broker" if headers else "intake", b"\xff{", key, headers)
    address = sent(one)
    assert (address.exchange, address.envelope.id, address.envelope.body) == (MESSAGES, one.id, b"\xff{")
    assert len(address.envelope.routing_key.encode()) <= 255


def test_what_the_broker_counted_is_left_behind_and_what_the_sender_wrote_is_kept() -> None:
    headers = {"x-delivery-count": 20, "x-death": [{}], "traceparent": "00-1-1-01", "n": 1, "nothing": None}
    address = sent(letter("intake", headers=headers))
    assert address.envelope.headers == {"traceparent": "00-1-1-01", "n": 1}
    assert not address.envelope.redelivered


def test_rubbish_goes_back_where_its_routing_key_still_leads_to_a_partition() -> None:
    assert sent(letter("bot", key="message.ch_a.p03")).envelope.routing_key == "message.ch_a.p03"
    for stage in ("bot", "delivery"):
        for key in ("message.ch_a.p04", "", "a" * 300 + ".p03"):
            why_not = return_address(letter(stage, key=key), TOPOLOGY)
            assert isinstance(why_not, str)
            assert "routing key" in why_not


@pytest.mark.parametrize("queue", ["", "postbote.dead", "postbote.unrouted", "somebody.elses"])
def test_what_came_from_nowhere_cannot_go_back(queue: str) -> None:
    assert "which queue" in str(return_address(letter("broker", headers=from_queue(queue)), TOPOLOGY))
    assert "'elsewhere'" in str(return_address(letter("elsewhere"), TOPOLOGY))


@given(
    stage=st.sampled_from(["intake", "bot", "delivery", "broker", "?"]),
    body=st.binary() | st.sampled_from([MESSAGE, RESPONSE]).map(lambda one: one.model_dump_json().encode()),
    key=st.text(st.characters(codec="utf-8"), max_size=300) | st.just("message.a.p03"),
    queue=st.sampled_from(["postbote.messages", "postbote.inbound.p01", "postbote.outbound.p01", ""]),
)
def test_whatever_goes_back_arrives_in_a_queue(stage: str, body: bytes, key: str, queue: str) -> None:
    address = return_address(letter(stage, body, key, from_queue(queue)), TOPOLOGY)
    if isinstance(address, ReturnAddress):
        queues = TOPOLOGY.route(address.exchange, address.envelope.routing_key)
        assert len(queues) == 1
        assert queues[0] != UNROUTED


def test_a_letter_that_the_broker_gave_up_goes_back_to_the_queue_that_the_broker_names() -> None:
    forged = {"x-last-death-queue": "postbote.messages", "x-first-death-queue": "postbote.outbound.p00"}
    assert sent(letter("broker", b"{}", "k", forged)).exchange == MESSAGES
    assert isinstance(
        return_address(letter("broker", b"{}", "k", {**forged, "x-last-death-queue": ""}), TOPOLOGY), str
    )


@pytest.mark.parametrize(
    ("given", "wanted"), [("theirs", "theirs"), ("", None), ("x" * 256, None), (7, None)]
)
def test_a_letter_of_the_intake_goes_back_under_its_sender_s_own_id(given: Any, wanted: str | None) -> None:
    one = letter("intake", b"{}", "k", {"amqp-message-id": given})
    assert sent(one).envelope.id == (wanted or one.id)
