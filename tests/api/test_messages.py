"""The two doors by which messages come in."""

import gzip
import json
from typing import Any

import pytest

from broker.errors import BrokerUnavailable
from broker.models.session import session_after
from broker.settings import Settings

HELLO: dict[str, Any] = {"message": {"textMessage": {"text": "hello"}}, "user": {"id": "u1"}}


async def test_a_message_is_on_its_queue_before_it_is_answered(api):
    channel = await api.channel()
    answer = await api.post(channel, HELLO)
    assert answer.status == 200
    body = await answer.json()
    assert body["message"] == "EVENT_RECEIVED"
    envelope, message = await api.queued(channel["id"], "u1")
    assert envelope.id == message.id == body["id"]
    assert message.channel_id == channel["id"]
    assert message.user.id == "u1"
    assert message.message.text_message is not None
    assert message.message.text_message.text == "hello"
    assert message.source == "http"
    assert message.traceparent is not None


async def test_unknown_fields_and_session_data_travel_unchanged(api):
    channel = await api.channel()
    body = {
        "message": {"textMessage": {"text": "hi", "x": [1, None]}, "extra": True},
        "user": {"id": "u/1", "vip": "ja"},
        "sessionData": {"address.city": "Gent", "gone": None},
    }
    assert (await api.post(channel, body)).status == 200
    envelope, _ = await api.queued(channel["id"], "u/1")
    record = json.loads(envelope.body)
    assert record["message"] == body["message"]
    assert record["user"] == body["user"]
    assert record["sessionData"] == body["sessionData"]


async def test_session_data_that_no_session_can_keep_is_refused_at_the_door(api):
    channel = await api.channel()
    path = ".".join("abcdefghijklmno")
    body = json.dumps({**HELLO, "sessionData": {f"{n}.{path}": n for n in range(6_000)}})
    assert len(body) < 256 * 1024
    answer = await api.post(channel, json.loads(body))
    assert answer.status == 422
    (fault,) = (await answer.json())["errors"]
    assert fault["loc"] == ["sessionData"]
    assert "at most 262,144 are kept" in fault["msg"]


async def test_the_trace_of_the_sender_goes_on(api):
    channel = await api.channel()
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await api.post(channel, HELLO, traceparent=given)
    _, message = await api.queued(channel["id"], "u1")
    assert message.traceparent == given


async def test_an_idempotency_key_makes_a_repeat_the_same_message(api):
    channel, other = await api.channel(), await api.channel()
    ids = [
        (await (await api.post(where, HELLO, Idempotency_Key=key)).json())["id"]
        for where, key in (
            (channel, "order-1"),
            (channel, "order-1"),
            (channel, "order-2"),
            (other, "order-1"),
        )
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "käse"])
async def test_an_idempotency_key_that_is_none_is_refused(api, key):
    channel = await api.channel()
    answer = await api.post(channel, HELLO, Idempotency_Key=key)
    assert answer.status == 400
    assert (await answer.json())["errors"][0]["in"] == "headers"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer wrong",
        "Bearer",
        "Basic {token}",
        "{token}",
        "Bearer {token}x",
        "Bearer \udcff",
        "Bearer admin-secret",
    ],
)
async def test_only_the_channels_own_token_opens_it(api, authorization):
    channel = await api.channel()
    headers = (
        {} if authorization is None else {"Authorization": authorization.format(token=channel["accessToken"])}
    )
    answer = await api.http.post(
        f"/v1/channels/webhook/{channel['id']}/messages", data=b"not even JSON", headers=headers
    )
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.content_type == "application/problem+json"


async def test_the_token_of_another_channel_does_not_open_it(api):
    channel, other = await api.channel(), await api.channel()
    assert (await api.post({**channel, "accessToken": other["accessToken"]}, HELLO)).status == 401


@pytest.mark.parametrize("channel_id", ["nobody", "%00", "a%2Fb", "%FF", "x" * 65, "ch_%C3%A9"])
async def test_an_unknown_channel_is_not_found(api, channel_id):
    for path in (f"/v1/channels/webhook/{channel_id}/messages", f"/api/webhookMessage/{channel_id}"):
        answer = await api.http.post(path, json=HELLO, headers={"Authorization": "Bearer x"})
        assert answer.status == 404
        assert (await answer.json())["status"] == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b"[" * 5000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf",
    ],
)
async def test_what_is_no_json_is_400(api, body):
    channel = await api.channel()
    answer = await api.http.post(
        f"/v1/channels/webhook/{channel['id']}/messages",
        data=body,
        headers={"Authorization": f"Bearer {channel['accessToken']}", "Content-Type": "application/json"},
    )
    assert answer.status == 400
    assert "not JSON" in (await answer.json())["detail"]


async def test_a_byte_order_mark_is_left_out_where_it_is_that_of_json_and_named_where_it_is_another_s(api):
    channel = await api.channel()
    text = '{"message": {"textMessage": {"text": "hello"}}, "user": {"id": "u"}}'

    async def post(encoding, **more):
        return await api.http.post(
            f"/v1/channels/webhook/{channel['id']}/messages",
            data=text.encode(encoding),
            headers={
                "Authorization": f"Bearer {channel['accessToken']}",
                "Content-Type": "application/json",
                **more,
            },
        )

    assert (await post("utf-8-sig")).status == 200
    keyed = [await post(encoding, **{"Idempotency-Key": "k"}) for encoding in ("utf-8-sig", "utf-8")]
    assert [answer.status for answer in keyed] == [200, 200]
    assert (await keyed[0].json())["id"] == (await keyed[1].json())["id"]
    for encoding in ("utf-16", "utf-32"):
        answer = await post(encoding)
        assert answer.status == 400
        assert f"byte order mark of {encoding.upper()}" in (await answer.json())["detail"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ([], []),
        ({}, ["message"]),
        ({"message": {}, "user": {"id": "u"}}, ["message"]),
        ({"user": {"id": "u"}, "sessionData": {}}, ["message"]),
        ({"message": {"textMessage": {"text": 1}}, "user": {"id": "u"}}, ["message", "textMessage", "text"]),
        ({"message": {"textMessage": {"text": "x"}}, "user": {"id": ""}}, ["user", "id"]),
        ({"message": {"textMessage": {"text": "x"}}, "user": {"id": "a\x00b"}}, ["user", "id"]),
        ({"message": {"textMessage": {"text": "x"}}}, []),
    ],
)
async def test_a_body_that_is_no_message_says_where(api, body, where):
    channel = await api.channel()
    answer = await api.post(channel, body)
    assert answer.status == 422
    problem = await answer.json()
    assert problem["title"] == "Unprocessable Entity"
    assert where in [error["loc"] for error in problem["errors"]]
    assert {"in", "loc", "msg", "type"} == set(problem["errors"][0])


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json; charset=utf-8", 200),
        ("application/cloudevents+json", 200),
        ("text/plain", 415),
        ("x", 415),
    ],
)
async def test_only_json_is_taken(api, content_type, status):
    channel = await api.channel()
    answer = await api.http.post(
        f"/v1/channels/webhook/{channel['id']}/messages",
        data=json.dumps(HELLO).encode(),
        headers={"Authorization": f"Bearer {channel['accessToken']}", "Content-Type": content_type},
    )
    assert answer.status == status


async def test_a_missing_content_type_is_taken_for_json(api):
    channel = await api.channel()
    answer = await api.http.post(
        f"/v1/channels/webhook/{channel['id']}/messages",
        data=json.dumps(HELLO).encode(),
        headers={"Authorization": f"Bearer {channel['accessToken']}"},
        skip_auto_headers=["Content-Type"],
    )
    assert answer.status == 200


async def test_a_body_that_is_too_large_is_413(api):
    channel = await api.channel()
    answer = await api.post(channel, {**HELLO, "sessionData": {"x": "y" * 256 * 1024}})
    assert answer.status == 413
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP, gzip", "x-none"])
async def test_a_body_with_a_content_encoding_is_415_and_not_unpacked(api, encoding):
    channel = await api.channel(verifyToken="pssst")
    for path in (f"/v1/channels/webhook/{channel['id']}/messages", f"/api/webhookMessage/{channel['id']}"):
        answer = await api.http.post(
            path,
            data=gzip.compress(json.dumps(HELLO).encode()),
            headers={
                "Authorization": f"Bearer {channel['accessToken']}",
                "Content-Type": "application/json",
                "Content-Encoding": encoding,
            },
        )
        assert answer.status == 415
        assert answer.content_type == "application/problem+json"
        assert "Content-Encoding" in (await answer.json())["detail"]
        assert answer.headers["Accept-Encoding"] == "identity"
    assert (await api.post(channel, HELLO, Content_Encoding="identity")).status == 200


async def test_the_older_form_is_taken_with_its_verify_token(api):
    channel = await api.channel(verifyToken="pssst")
    body = {"text": "hello", "sender": {"id": "u1"}, "verifyToken": "pssst", "locale": "nl"}
    answer = await api.http.post(f"/api/webhookMessage/{channel['id']}", json=body)
    assert answer.status == 200
    assert answer.content_type == "text/plain"
    assert await answer.text() == "EVENT_RECEIVED"
    _, message = await api.queued(channel["id"], "u1")
    assert message.source == "legacy"
    assert message.user.preferred_language == "nl"


async def test_a_click_in_the_older_form_sets_what_its_button_says_by_either_name(api):
    channel = await api.channel(verifyToken="pssst")
    click = {
        "type": "button",
        "caption": "Go",
        "nextDialogstateId": 3050,
        "params": [],
        "parameters": [{"order": 0, "key": "location", "value": "Gent", "__typename": "Parameter"}],
    }
    body = {"text": json.dumps(click), "sender": {"id": "u1"}, "verifyToken": "pssst"}
    assert (await api.http.post(f"/api/webhookMessage/{channel['id']}", json=body)).status == 200
    _, message = await api.queued(channel["id"], "u1")
    assert session_after(message, b"{}") == {"location": "Gent"}


@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "k"}], ids=["at the counter", "in the view"])
async def test_a_request_that_only_writes_to_the_session_is_taken(api, headers):
    channel = await api.channel()
    body = {"user": {"id": "u1"}, "sessionData": {"address.city": "Gent"}}
    answer = await api.post(channel, body, **headers)
    assert (answer.status, (await answer.json())["message"]) == (200, "EVENT_RECEIVED")
    envelope, message = await api.queued(channel["id"], "u1")
    assert message.message is None
    assert "message" not in json.loads(envelope.body)
    assert session_after(message, b"{}") == {"address": {"city": "Gent"}}


@pytest.mark.parametrize("token", ["wrong", "", "pssst ", "ПССТ"])
async def test_the_older_form_with_another_verify_token_is_401(api, token):
    channel = await api.channel(verifyToken="pssst")
    body = {"text": "hello", "sender": {"id": "u1"}, "verifyToken": token}
    assert (await api.http.post(f"/api/webhookMessage/{channel['id']}", json=body)).status == 401


class BrokenBroker:
    """A broker that is away."""

    async def publish(self, exchange: str, envelope: object) -> None:
        raise BrokerUnavailable("connection refused at amqp://user:secret@10.0.0.1")


async def test_with_the_broker_away_the_sender_is_asked_to_come_again(serve):
    api = await serve(broker=BrokenBroker())
    channel = await api.channel()
    answer = await api.post(channel, HELLO)
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert "secret" not in await answer.text()


async def test_over_its_rate_a_channel_is_asked_to_wait_and_another_is_not(serve, parts):
    api = await serve(settings=Settings(data_dir=parts.settings.data_dir, partitions=2, rate_limit=1))
    channel, other = await api.channel(), await api.channel()
    answers = [await api.post(channel, HELLO) for _ in range(50)]
    assert {answer.status for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert refused.content_type == "application/problem+json"
    assert all(answer.headers["x-ratelimit-limit"] == "1" for answer in answers)
    assert (await api.post(other, HELLO)).status == 200


async def test_a_message_that_is_refused_shows_the_rate_too(serve, parts):
    api = await serve(settings=Settings(data_dir=parts.settings.data_dir, partitions=2, rate_limit=1_000))
    channel = await api.channel()
    answer = await api.post(channel, {})
    assert answer.status == 422
    assert int(answer.headers["x-ratelimit-remaining"]) < 1_000
    assert answer.headers["x-ratelimit-reset"].isdigit()


async def test_without_a_limit_there_are_no_headers_of_it(api):
    channel = await api.channel()
    assert "x-ratelimit-limit" not in (await api.post(channel, HELLO)).headers
