"""Administration of webhooks."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_network

import pytest

from broker.registry.records import Attempt, Channel, Webhook
from consumers.attempt import Poster
from consumers.composition.api import send_ping


async def test_a_webhook_is_registered_with_its_secret_shown_once(api):
    channel = await api.channel()
    answer = await api.call(
        "POST", f"/v1/channels/{channel['id']}/webhooks", {"url": "https://example.com/x"}
    )
    assert answer.status == 201
    created = await answer.json()
    assert created["secret"].startswith("whsec_")
    assert created["events"] == ["response.#"]
    assert (created["enabled"], created["verifyToken"], created["headers"]) == (True, None, {})
    path = answer.headers["Location"]
    shown = await (await api.call("GET", path)).json()
    assert shown == {key: value for key, value in created.items() if key != "secret"}
    listed = await api.call("GET", f"/v1/channels/{channel['id']}/webhooks")
    patched = await api.call("PATCH", path, {"enabled": False})
    assert created["secret"].removeprefix("whsec_") not in await listed.text() + await patched.text()


async def test_everything_that_is_given_is_kept(api):
    channel = await api.channel()
    given = {
        "url": "https://bücher.example:8443/a?b=c",
        "verifyToken": "v",
        "events": ["response.text", "*.media", "#.event.#"],
        "headers": {"X-Shop": "a b", "Authorization": "Basic Zm9v"},
        "timeoutSeconds": 2.5,
        "enabled": False,
    }
    created = await api.webhook(channel["id"], **given)
    assert {key: created[key] for key in given} == given


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com?sig=a%2Fb%2Bc%3D%3D&exp=%40x",
        "HTTPS://Example.com:443/a%2Fb/%7Euser",
        "https://example.com/t/../x//",
        "https://example.com/p?",
        "https://example.com/100%",
        "https://bücher.example/ü",
    ],
)
async def test_a_url_is_kept_byte_for_byte(api, url):
    channel = await api.channel()
    created = await api.webhook(channel["id"], url=url)
    assert created["url"] == url
    path = f"/v1/webhooks/{created['id']}"
    assert (await (await api.call("PATCH", path, {"url": url})).json())["url"] == url
    assert (await (await api.call("GET", path)).json())["url"] == url


async def test_a_test_ends_with_its_outcome_whatever_the_endpoint_answers(serve):
    answers = [
        b"HTTP/1.1 503 Busy\r\nRetry-After: Mon, 01 Jan 99999999999999999999 00:00:00 GMT\r\n\r\n",
        b"HTTP/1.1  200 OK\r\nno colon\r\n\r\n",
        b"\x00\xff",
    ]
    wanted = [(503, None), (200, None), (None, "broken_answer")]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    poster = Poster(timeout_s=5.0, allowed=(ip_network("127.0.0.0/8"),))
    api = await serve(ping=partial(send_ping, poster), allowed=(ip_network("127.0.0.0/8"),))
    channel = await api.channel()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    webhook = await api.webhook(channel["id"], url=url)
    for expected in wanted:
        tested = await api.call("POST", f"/v1/webhooks/{webhook['id']}/test")
        assert tested.status == 200
        outcome = await tested.json()
        assert (outcome["statusCode"], outcome["error"]) == expected
    server.close()
    await poster.close()


async def test_null_brings_the_default_back_and_absent_stays(api):
    channel = await api.channel()
    webhook = await api.webhook(
        channel["id"], verifyToken="v", events=["response.text"], headers={"X-A": "1"}, timeoutSeconds=3
    )
    path = f"/v1/webhooks/{webhook['id']}"
    one = await (await api.call("PATCH", path, {"headers": None, "verifyToken": None})).json()
    assert (one["headers"], one["verifyToken"], one["events"], one["timeoutSeconds"]) == (
        {},
        None,
        ["response.text"],
        3,
    )
    two = await (await api.call("PATCH", path, {"events": None, "timeoutSeconds": None})).json()
    assert (two["events"], two["timeoutSeconds"]) == (["response.#"], None)
    for field in ("url", "enabled"):
        assert (await api.call("PATCH", path, {field: None})).status == 422


async def test_enabling_clears_the_reason(api):
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    await api.parts.webhooks.update(webhook["id"], {"enabled": False, "disabled_reason": "410 Gone"})
    path = f"/v1/webhooks/{webhook['id']}"
    assert (await (await api.call("GET", path)).json())["disabledReason"] == "410 Gone"
    enabled = await (await api.call("PATCH", path, {"enabled": True})).json()
    assert (enabled["enabled"], enabled["disabledReason"]) == (True, None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "/x",
        "//example.com",
        "ftp://example.com",
        "javascript:alert(1)",
        "https://",
        "https:///x",
        "https://user@example.com",
        "https://@example.com",
        "https://u:p@example.com",
        "https://example.com/#f",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com:x",
        "https://exam ple.com",
        "https://example.com/\r\nX: y",
        "https://example.com/\x00",
        "https://a..b/",
        "https://[::1",
        "https://¸.example/",
        "https://example.com/\u2028",
        "https://example.com\\@x",
        "https://example.com/" + "a" * 2048,
        "https://127.0.0.1",
        "http://127.1",
        "http://0x7f000001/",
        "http://2130706433",
        "http://0",
        "http://localhost:8080",
        "http://x.localhost.",
        "http://10.0.0.1./",
        "http://169.254.169.254/latest",
        "http://[::1]:80/",
        "http://[::ffff:127.0.0.1]/",
        "http://[fe80::1%25eth0]/",
        "http://[64:ff9b::a00:1]/",
        17,
        None,
    ],
)
async def test_a_url_that_cannot_be_delivered_to_is_refused(api, url):
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    for method, path in (
        ("POST", f"/v1/channels/{channel['id']}/webhooks"),
        ("PATCH", f"/v1/webhooks/{webhook['id']}"),
    ):
        answer = await api.call(method, path, {"url": url})
        assert answer.status == 422, await answer.text()
        assert (await answer.json())["errors"][0]["loc"] == ["url"]


async def test_a_private_target_is_taken_where_its_network_is_allowed(serve):
    api = await serve(allowed=(ip_network("127.0.0.0/8"),))
    channel = await api.channel()
    await api.webhook(channel["id"], url="http://127.0.0.1:9000/x")
    await api.webhook(channel["id"], url="http://localhost:9000/x")
    refused = await api.call("POST", f"/v1/channels/{channel['id']}/webhooks", {"url": "http://10.0.0.1/"})
    assert refused.status == 422
    assert "POSTBOTE_WEBHOOK_ALLOW_NETWORKS" in await refused.text()


@pytest.mark.parametrize(
    "fields",
    [
        {"events": []},
        {"events": ["a"] * 21},
        {"events": [""]},
        {"events": ["response."]},
        {"events": ["response.#x"]},
        {"events": ["a b"]},
        {"events": ["response.text\n"]},
        {"events": ["response.text", "response.video"]},
        {"events": ["response"]},
        {"events": ["response.text.p00"]},
        {"events": ["response.*.*"]},
        {"events": ["Response.text"]},
        {"events": ["delivery.*.dead"]},
        {"events": "response.#"},
        {"headers": {"Host": "x"}},
        {"headers": {"webhook-ID": "x"}},
        {"headers": {"Postbote-Turn": "x"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"traceparent": "x"}},
        {"headers": {"X-A": "a\r\nb: c"}},
        {"headers": {"X-A": "a\x00"}},
        {"headers": {"X-A": "ключ"}},
        {"headers": {"X-A": " a"}},
        {"headers": {"X A": "a"}},
        {"headers": {"": "a"}},
        {"headers": {"X-A\n": "a"}},
        {"headers": {"X-A": "1", "x-a": "2"}},
        {"headers": {f"X-{n}": "a" for n in range(21)}},
        {"headers": {"X-A": 1}},
        {"headers": []},
        {"timeoutSeconds": 0},
        {"timeoutSeconds": 61},
        {"timeoutSeconds": "5"},
        {"timeoutSeconds": True},
        {"timeoutSeconds": 10**400},
        {"enabled": "yes"},
        {"enabled": 1},
        {"verifyToken": ""},
        {"verifyToken": "\x00"},
        {"secret": "whsec_x"},
        {"channelId": "other"},
    ],
)
async def test_fields_that_cannot_be_are_refused(api, fields):
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    path = f"/v1/channels/{channel['id']}/webhooks"
    assert (await api.call("POST", path, {"url": "https://example.com", **fields})).status == 422
    assert (await api.call("PATCH", f"/v1/webhooks/{webhook['id']}", fields)).status == 422
    assert (await (await api.call("GET", f"/v1/webhooks/{webhook['id']}")).json()) == {
        key: value for key, value in webhook.items() if key != "secret"
    }


async def test_a_deleted_webhook_is_gone(api):
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    path = f"/v1/webhooks/{webhook['id']}"
    assert (await api.call("DELETE", path)).status == 204
    for method, where, body in (
        ("GET", path, None),
        ("PATCH", path, {}),
        ("DELETE", path, None),
        ("POST", path + "/test", None),
        ("POST", path + "/rotate-secret", None),
    ):
        assert (await api.call(method, where, body)).status == 404
    assert (await (await api.call("GET", f"/v1/channels/{channel['id']}/webhooks")).json())["items"] == []


async def test_webhooks_of_an_unknown_channel_are_not_found(api):
    assert (await api.call("GET", "/v1/channels/nobody/webhooks")).status == 404
    answer = await api.call("POST", "/v1/channels/nobody/webhooks", {"url": "https://example.com"})
    assert answer.status == 404


async def test_a_rotated_secret_overlaps_for_a_day(api):
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    answer = await api.call("POST", f"/v1/webhooks/{webhook['id']}/rotate-secret")
    rotated = await answer.json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != webhook["secret"]
    until = datetime.fromisoformat(rotated["previousSecretUntil"])
    assert timedelta(hours=23, minutes=59) < until - datetime.now(UTC) <= timedelta(hours=24)
    kept = await api.parts.webhooks.get(webhook["id"])
    assert (kept.secret, kept.previous_secret) == (rotated["secret"], webhook["secret"])


async def test_each_of_several_rotated_secrets_overlaps_and_one_too_many_is_refused(api):
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    given = [webhook["secret"]]
    path = f"/v1/webhooks/{webhook['id']}/rotate-secret"
    while (answer := await api.call("POST", path)).status == 200:
        given.append((await answer.json())["secret"])
        assert len(given) < 20
    assert len(given) >= 3
    assert answer.status == 409
    assert "rotate it again after" in (await answer.json())["detail"]
    kept = await api.parts.webhooks.get(webhook["id"])
    assert set(kept.secrets(datetime.now(UTC))) == set(given)


@pytest.mark.parametrize(
    ("status", "error", "delivered"), [(204, None, True), (500, None, False), (None, "timeout", False)]
)
async def test_a_test_tells_what_came_of_it(serve, status, error, delivered):
    asked: list[tuple[str, str]] = []

    async def ping(channel: Channel, webhook: Webhook) -> Attempt:
        asked.append((channel.id, webhook.id))
        return Attempt(1, datetime.now(UTC), 12, status, error, "", "the answer")

    api = await serve(ping=ping)
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    answer = await api.call("POST", f"/v1/webhooks/{webhook['id']}/test")
    assert answer.status == 200
    assert await answer.json() == {
        "delivered": delivered,
        "statusCode": status,
        "error": error,
        "detail": "",
        "durationMs": 12,
        "answer": "the answer",
    }
    assert asked == [(channel["id"], webhook["id"])]


async def test_an_event_pattern_that_no_event_matches_is_told_which_events_there_are(api):
    channel = await api.channel()
    path = f"/v1/channels/{channel['id']}/webhooks"
    answer = await api.call("POST", path, {"url": "https://a.example", "events": ["response.carousel"]})
    (told,) = (await answer.json())["errors"]
    assert answer.status == 422
    assert "response.generic" in str(told)
    webhook = await api.webhook(channel["id"], events=["response.generic"])
    patched = await api.call("PATCH", f"/v1/webhooks/{webhook['id']}", {"events": ["#.carousel"]})
    assert patched.status == 422


async def test_a_channel_has_no_more_webhooks_than_it_may_have(serve, parts):
    settings = parts.settings.model_copy(update={"max_webhooks_per_channel": 3})
    api = await serve(settings=settings)
    channel, other = await api.channel(), await api.channel()
    made = [await api.webhook(channel["id"]) for _ in range(3)]
    revision = (await parts.channels.get(channel["id"])).revision
    body = {"url": "https://example.com/one-more"}
    answer = await api.call("POST", f"/v1/channels/{channel['id']}/webhooks", body)
    assert answer.status == 409
    problem = await answer.json()
    assert "at most 3 webhooks" in problem["detail"]
    assert "POSTBOTE_MAX_WEBHOOKS_PER_CHANNEL" in problem["detail"]
    assert (await parts.channels.get(channel["id"])).revision == revision, "nobody reads it anew for nothing"
    await api.webhook(other["id"])
    assert (await api.call("DELETE", f"/v1/webhooks/{made[0]['id']}")).status == 204
    await api.webhook(channel["id"])


async def test_a_channel_with_more_webhooks_than_it_may_have_keeps_those_it_has(serve, parts):
    api = await serve(settings=parts.settings.model_copy(update={"max_webhooks_per_channel": 1}))
    channel = await api.channel()
    made = [await parts.webhooks.create(channel["id"], url="https://example.com/") for _ in range(3)]
    assert (await api.call("PATCH", f"/v1/webhooks/{made[0].id}", {"enabled": False})).status == 200
    listed = await api.call("GET", f"/v1/channels/{channel['id']}/webhooks")
    assert len((await listed.json())["items"]) == 3
    refused = await api.call(
        "POST", f"/v1/channels/{channel['id']}/webhooks", {"url": "https://example.com/"}
    )
    assert refused.status == 409


async def test_a_webhook_that_is_to_expire_says_when_and_a_patch_puts_that_off_or_ends_it(api):
    channel = await api.channel()
    lasting = await api.webhook(channel["id"])
    assert lasting["expiresAt"] is None
    webhook = await api.webhook(channel["id"], expiresInSeconds=60)
    for seconds in (60, 7200):
        path = f"/v1/webhooks/{webhook['id']}"
        webhook = await (await api.call("PATCH", path, {"expiresInSeconds": seconds})).json()
        left = datetime.fromisoformat(webhook["expiresAt"]) - datetime.now(UTC)
        assert timedelta(seconds=seconds - 30) < left <= timedelta(seconds=seconds)
    webhook = await (await api.call("PATCH", path, {"expiresInSeconds": None, "rateLimit": 5})).json()
    assert (webhook["expiresAt"], webhook["rateLimit"]) == (None, 5)
    for wrong in (0, -1, "60", 1e9):
        assert (await api.call("PATCH", path, {"expiresInSeconds": wrong})).status == 422
    await api.call("DELETE", path)
    assert (await api.call("PATCH", path, {"expiresInSeconds": 60})).status == 404
