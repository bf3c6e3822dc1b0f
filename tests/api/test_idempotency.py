"""A repeated POST with the same Idempotency-Key is one message, answered alike, for a day."""

import asyncio
from datetime import timedelta

import pytest

from broker.models.records import now
from broker.registry import idempotency


def said(text):
    return {"message": {"textMessage": {"text": text}}, "user": {"id": "ada"}}


async def test_a_repeat_is_answered_alike_and_names_the_same_message(api):
    channel = await api.channel()
    first = await api.post(channel, said("hello"), Idempotency_Key="k-1")
    again = await api.post(channel, said("hello"), Idempotency_Key="k-1")
    assert (first.status, again.status) == (200, 200)
    assert await first.json() == await again.json()
    other = await api.post(channel, said("hello"), Idempotency_Key="k-2")
    assert (await other.json())["id"] != (await first.json())["id"]


async def test_the_same_body_is_known_whatever_its_spaces_and_the_order_of_its_members(api):
    channel = await api.channel()
    first = await api.post(channel, said("hello"), Idempotency_Key="k-1")
    text = '{ "user": {"id":"ada"}, "message": {"textMessage": {"text": "hello"}} }'
    again = await api.http.post(
        f"/v1/channels/webhook/{channel['id']}/messages",
        data=text,
        headers={
            "Authorization": f"Bearer {channel['accessToken']}",
            "Idempotency-Key": "k-1",
            "Content-Type": "application/json",
        },
    )
    assert await first.json() == await again.json()


async def test_another_body_under_the_same_key_is_a_mistake_and_is_told(api):
    channel = await api.channel()
    await api.post(channel, said("hello"), Idempotency_Key="k-1")
    other = await api.post(channel, said("good bye"), Idempotency_Key="k-1")
    assert other.status == 422
    problem = await other.json()
    assert "Idempotency-Key" in problem["detail"]
    elsewhere = await api.channel()
    assert (await api.post(elsewhere, said("good bye"), Idempotency_Key="k-1")).status == 200


@pytest.mark.parametrize("again", ["k-1", "k-2", ""])
@pytest.mark.parametrize("name", ["Idempotency-Key", "Authorization", "Content-Encoding"])
async def test_a_header_that_decides_and_comes_twice_is_refused(api, name, again):
    channel = await api.channel()
    headers = {
        "Authorization": f"Bearer {channel['accessToken']}",
        "Content-Type": "application/json",
        "Content-Encoding": "identity",
        "Idempotency-Key": "k-1",
    }
    twice = [*headers.items(), (name, again or headers.get(name, "k-1"))]
    if not name.startswith("Idem"):
        twice.remove(("Idempotency-Key", "k-1"))
    body = b'{"message":{"textMessage":{"text":"hello"}},"user":{"id":"ada"}}'
    # Once before the channel is known at the door, once after.
    for _ in range(2):
        answer = await api.http.post(
            f"/v1/channels/webhook/{channel['id']}/messages",
            data=body,
            headers=twice,
        )
        problem = await answer.json()
        assert (answer.status, answer.content_type) == (400, "application/problem+json"), problem
    # Nothing was taken in: the key is free for another body.
    assert (await api.post(channel, said("another"), Idempotency_Key="k-1")).status == 200


async def test_an_admin_token_that_comes_twice_is_refused(api):
    twice = [("Authorization", "Bearer admin-secret")] * 2
    assert (await api.http.get("/v1/channels", headers=twice)).status == 400


async def test_many_at_once_are_one_message(api):
    channel = await api.channel()
    answers = await asyncio.gather(
        *(api.post(channel, said("hello"), Idempotency_Key="k-1") for _ in range(20))
    )
    assert {answer.status for answer in answers} == {200}
    assert len({(await answer.json())["id"] for answer in answers}) == 1


async def test_after_a_day_the_key_is_free_again(api, monkeypatch):
    channel = await api.channel()
    first = await api.post(channel, said("hello"), Idempotency_Key="k-1")
    monkeypatch.setattr(idempotency, "now", lambda: now() + timedelta(hours=25))
    later = await api.post(channel, said("something else"), Idempotency_Key="k-1")
    assert later.status == 200
    assert (await later.json())["id"] != (await first.json())["id"]
