"""What happened, as the API shows it: turns, responses to pull, deliveries, dead letters."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from broker.ids import delivery_id, new_message_id, response_id
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import BotResponse, UserMessage
from broker.partitions import conversation_key
from broker.registry.conversations import Conversations, NewTurn
from broker.registry.records import Attempt, Conversation, DeadLetter, Delivery, Turn

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def converse(api: Any, channel_id: str, user_id: str, turns: list[list[str]]) -> list[BotResponse]:
    """Write turns as a bot worker does, each with the texts that the bot said."""
    key, counter, said = conversation_key(channel_id, user_id), 0, []
    for number, texts in enumerate(turns, 1):
        message = UserMessage(
            id=new_message_id(),
            channel_id=channel_id,
            user=User(id=user_id),
            message=InboundMessage(text_message=TextMessage(text=f"question {number}")),
        )
        responses = [
            BotResponse(
                id=response_id(message.id, index),
                channel_id=channel_id,
                user_id=user_id,
                in_reply_to=message.id,
                index=index,
                count=len(texts),
                message_counter=counter + index,
                kind="text",
                message={"text": text, "own": None},
                created_at=T0,
            )
            for index, text in enumerate(texts, 1)
        ]
        counter += len(texts)
        said += responses
        turn = Turn(
            message_id=message.id,
            conversation_key=key,
            channel_id=channel_id,
            number=number,
            message=message.model_dump(mode="json", exclude_none=True),
            responses=[response.model_dump(mode="json") for response in responses],
            outcome="answered",
            published=False,
            created_at=T0 + timedelta(seconds=number),
        )
        conversation = Conversation(key, channel_id, user_id, b"{}", counter, number)
        assert await Conversations(api.parts.database).commit([NewTurn(turn, conversation)]) == [True]
    return said


USERS = [
    "u1",
    "a/b",
    "/",
    "a b?c#d",
    "%2F",
    "%252F",
    "ключ \N{PILE OF POO}",
    "..",
    "a\nb",
    "{x}",
    "+",
    "a%",
    "'\"\\",
]


@pytest.mark.parametrize("user_id", USERS)
async def test_responses_are_pulled_as_a_webhook_gets_them(api, user_id):
    channel = await api.channel()
    said = await converse(api, channel["id"], user_id, [["one", "two"], [], ["three"]])
    await converse(api, channel["id"], user_id + "x", [["for someone else"]])
    path = (
        f"/v1/channels/{channel['id']}/conversations/{quote(user_id, safe='').replace('.', '%2E')}/responses"
    )
    headers = {"Authorization": f"Bearer {channel['accessToken']}"}
    answer = await raw(api, path, headers)
    assert [item["message"]["text"] for item in answer["items"]] == ["one", "two", "three"]
    assert answer["items"][1] == {
        "recipient": {"id": user_id},
        "senderId": user_id,
        "messageCounter": 2,
        "message": {"text": "two", "own": None},
        "id": said[1].id,
        "inReplyTo": said[1].in_reply_to,
        "turn": {"index": 2, "count": 2},
        "createdAt": "2026-01-02T03:04:05Z",
    }
    assert answer["nextAfter"] == 3
    assert (await raw(api, path + "?after=3", headers)) == {"items": [], "nextAfter": 3}
    page = await raw(api, path + "?after=1&limit=1", headers)
    assert [item["messageCounter"] for item in page["items"]] == [2]
    assert page["nextAfter"] == 2


async def raw(api: Any, path: str, headers: dict[str, str]) -> Any:
    """Ask for a path exactly as it is written here."""
    from yarl import URL

    url = URL(str(api.http.make_url("/")).rstrip("/") + path, encoded=True)
    async with api.http.session.get(url, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def test_responses_open_with_the_channels_own_token_or_the_administrators(api):
    channel, other = await api.channel(), await api.channel()
    path = f"/v1/channels/{channel['id']}/conversations/u/responses"
    assert (await api.call("GET", path)).status == 200
    wrong = {"Authorization": f"Bearer {other['accessToken']}"}
    assert (await api.call("GET", path, headers=wrong)).status == 401
    assert (await api.call("GET", "/v1/channels/nobody/conversations/u/responses")).status == 404
    assert (
        await api.call("GET", "/v1/channels/nobody/conversations/u/responses", headers=wrong)
    ).status == 404


@pytest.mark.parametrize("query", ["after=-1", "after=x", f"after={2**63}", "limit=0", "after=1&after=2"])
async def test_a_place_in_the_log_that_cannot_be_is_400(api, query):
    channel = await api.channel()
    answer = await api.call("GET", f"/v1/channels/{channel['id']}/conversations/u/responses?{query}")
    assert answer.status == 400
    assert (await answer.json())["errors"][0]["in"] == "query"


async def test_turns_are_shown_newest_first_page_by_page(api):
    channel = await api.channel()
    await converse(api, channel["id"], "a/b", [["one"], [], ["two", "three"]])
    path = f"/v1/channels/{channel['id']}/conversations/a%2Fb/turns"
    page = await (await api.call("GET", path + "?limit=2")).json()
    assert [turn["number"] for turn in page["items"]] == [3, 2]
    assert [len(turn["responses"]) for turn in page["items"]] == [2, 0]
    newest = page["items"][0]
    assert newest["message"]["message"]["textMessage"]["text"] == "question 3"
    assert newest["responses"][0]["inReplyTo"] == newest["messageId"]
    assert (newest["outcome"], newest["published"]) == ("answered", False)
    rest = await (await api.call("GET", f"{path}?limit=2&cursor={page['nextCursor']}")).json()
    assert [turn["number"] for turn in rest["items"]] == [1]
    assert rest["nextCursor"] is None
    assert (await api.call("GET", path.replace(channel["id"], "nobody"))).status == 404


def delivery(channel_id: str, webhook_id: str, number: int, **fields: Any) -> Delivery:
    response = f"00000000-0000-0000-0000-{number:012d}"
    return Delivery(
        **{
            "id": delivery_id(response, webhook_id),
            "webhook_id": webhook_id,
            "channel_id": channel_id,
            "conversation_key": f"{channel_id}/u",
            "user_id": "u",
            "response_id": response,
            "message_counter": number,
            "status": "delivered",
            "reason": None,
            "attempt_count": 1,
            "created_at": T0 + timedelta(seconds=number),
            "finished_at": T0 + timedelta(seconds=number, milliseconds=30),
            "attempts": (Attempt(1, T0, 30, 200, None, "", ""),),
            **fields,
        }
    )


async def test_deliveries_are_listed_by_status_and_webhook_and_shown_with_their_attempts(api):
    channel = await api.channel()
    dead = delivery(
        channel["id"],
        "wh_b",
        3,
        status="dead",
        reason="exhausted",
        attempt_count=2,
        response={"message": {"text": "x"}},
        attempts=(Attempt(1, T0, 5, 500, None, "", "no\x1b"), Attempt(2, T0, 9, None, "timeout", "slow", "")),
    )
    await api.parts.deliveries.log(
        [delivery(channel["id"], "wh_a", 1), delivery(channel["id"], "wh_b", 2), dead]
    )
    path = f"/v1/channels/{channel['id']}/deliveries"

    async def counters(query: str) -> list[int]:
        page = await (await api.call("GET", path + query)).json()
        return [item["messageCounter"] for item in page["items"]]

    assert await counters("") == [3, 2, 1]
    assert await counters("?status=dead") == [3]
    assert await counters("?webhookId=wh_b") == [3, 2]
    assert await counters("?webhookId=wh_b&status=delivered") == [2]
    shown = await (await api.call("GET", f"/v1/deliveries/{dead.id}")).json()
    assert (shown["status"], shown["reason"], shown["response"]) == (
        "dead",
        "exhausted",
        {"message": {"text": "x"}},
    )
    assert [(a["number"], a["statusCode"], a["error"], a["durationMs"]) for a in shown["attempts"]] == [
        (1, 500, None, 5),
        (2, None, "timeout", 9),
    ]
    assert shown["attempts"][0]["answer"] == "no\x1b"


@pytest.mark.parametrize("query", ["status=lost", "webhookId=%00", "webhookId=", "webhookId=" + "x" * 65])
async def test_a_filter_that_cannot_be_is_400(api, query):
    channel = await api.channel()
    assert (await api.call("GET", f"/v1/channels/{channel['id']}/deliveries?{query}")).status == 400


async def test_what_is_not_there_is_not_found(api):
    for path in (
        "/v1/deliveries/00000000-0000-0000-0000-000000000000",
        "/v1/deliveries/%00",
        "/v1/channels/nobody/deliveries",
        "/v1/channels/nobody",
        "/v1/webhooks/nobody",
    ):
        assert (await api.call("GET", path)).status == 404


async def test_dead_letters_show_text_as_text_and_the_rest_as_base64(api):
    def letter(number: int, body: bytes) -> DeadLetter:
        identity = f"00000000-0000-0000-0000-{number:012d}"
        return DeadLetter(identity, "intake", "not a valid message", "why", None, "k", {"a": 1}, body, T0)

    await api.parts.dead_letters.add([letter(1, "grüß".encode()), letter(2, b"\xff\x00"), letter(3, b"")])
    page = await (await api.call("GET", "/v1/dead-letters")).json()
    assert [(item["body"], item["bodyEncoding"]) for item in page["items"]] == [
        ("", "utf-8"),
        ("/wA=", "base64"),
        ("grüß", "utf-8"),
    ]
    assert page["items"][0]["headers"] == {"a": 1}
    assert page["items"][0]["stage"] == "intake"
