"""Administration of channels."""

import pytest

HELLO = {"message": {"textMessage": {"text": "hello"}}, "user": {"id": "u1"}}


async def test_a_channel_is_created_with_its_token_shown_once(api):
    answer = await api.call("POST", "/v1/channels", {"name": "Shop", "bot": {"type": "echo", "prefix": "> "}})
    assert answer.status == 201
    created = await answer.json()
    policy = {"retrySchedule", "timeToLiveSeconds"}
    assert set(created) == {"id", "name", "bot", "verifyToken", "createdAt", "accessToken"} | policy
    assert created["bot"] == {"type": "echo", "prefix": "> "}
    assert len(created["verifyToken"]) > 20
    shown = await api.call("GET", answer.headers["Location"])
    assert await shown.json() == {key: value for key, value in created.items() if key != "accessToken"}
    everything = await (await api.call("GET", "/v1/channels")).text()
    everything += await (await api.call("PATCH", answer.headers["Location"], {"name": "X"})).text()
    assert created["accessToken"] not in everything


async def test_a_new_channel_takes_messages_at_once_also_after_someone_tried_too_early(api):
    channel = await api.channel()
    # A miss that is believed for a second would show here.
    assert (await api.post(channel, HELLO)).status == 200
    assert (await api.call("DELETE", f"/v1/channels/{channel['id']}")).status == 204
    assert (await api.post(channel, HELLO)).status == 404


async def test_a_new_verify_token_counts_at_once(api):
    channel = await api.channel(verifyToken="old")
    legacy = {"text": "x", "sender": {"id": "u"}, "verifyToken": "new"}
    assert (await api.http.post(f"/api/webhookMessage/{channel['id']}", json=legacy)).status == 401
    await api.call("PATCH", f"/v1/channels/{channel['id']}", {"verifyToken": "new"})
    assert (await api.http.post(f"/api/webhookMessage/{channel['id']}", json=legacy)).status == 200


async def test_a_patch_changes_what_it_names(api):
    channel = await api.channel(verifyToken="v")
    path = f"/v1/channels/{channel['id']}"
    patched = await (await api.call("PATCH", path, {"bot": {"type": "demo"}})).json()
    assert (patched["name"], patched["bot"], patched["verifyToken"]) == ("Shop", {"type": "demo"}, "v")
    unchanged = await (await api.call("PATCH", path, {})).json()
    assert unchanged == patched


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"name": "x"}, ["bot"]),
        ({"name": "", "bot": {"type": "echo"}}, ["name"]),
        ({"name": "a\x00", "bot": {"type": "echo"}}, ["name"]),
        ({"name": "x", "bot": {"type": "nope"}}, ["bot", "type"]),
        ({"name": "x", "bot": {}}, ["bot", "type"]),
        ({"name": "x", "bot": {"type": "echo"}, "verify_token": "v"}, ["verify_token"]),
        ({"name": "x", "bot": {"type": "echo"}, "verifyToken": ""}, ["verifyToken"]),
    ],
)
async def test_a_channel_that_cannot_be_says_why(api, body, where):
    answer = await api.call("POST", "/v1/channels", body)
    assert answer.status == 422
    assert where in [error["loc"] for error in (await answer.json())["errors"]]


async def test_an_unknown_bot_is_told_which_there_are(api):
    channel = await api.channel()
    for method, path in (("POST", "/v1/channels"), ("PATCH", f"/v1/channels/{channel['id']}")):
        answer = await api.call(method, path, {"name": "x", "bot": {"type": "nope"}})
        assert answer.status == 422
        assert "demo, echo" in await answer.text()


@pytest.mark.parametrize("field", ["name", "bot", "verifyToken"])
async def test_what_has_no_default_cannot_be_null(api, field):
    channel = await api.channel()
    answer = await api.call("PATCH", f"/v1/channels/{channel['id']}", {field: None})
    assert answer.status == 422


async def test_pages_show_every_channel_once_newest_first(api):
    made = [(await api.channel(name=f"c{n}"))["name"] for n in range(7)]
    seen, cursor = [], ""
    while cursor is not None:
        page = await (await api.call("GET", f"/v1/channels?limit=3{cursor and '&cursor=' + cursor}")).json()
        assert len(page["items"]) <= 3
        seen += [channel["name"] for channel in page["items"]]
        cursor = page["nextCursor"]
    assert seen == made[::-1]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=1&limit=2",
        "limit=",
        "cursor=x",
        "cursor=%00",
        "cursor=%FF",
        "cursor=WzFd",
        "cursor=WzExNTI5MjE1MDQ2MDY4NDY5NzUsImEiXQ",
        "cursor=" + "a" * 2000,
    ],
)
async def test_a_page_that_cannot_be_is_400(api, query):
    await api.channel()
    assert (await api.call("GET", f"/v1/channels?{query}")).status == 400


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer wrong", "Basic admin-secret", "Bearer ключ"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/channels"),
        ("POST", "/v1/channels"),
        ("DELETE", "/v1/channels/{id}"),
        ("POST", "/v1/channels/{id}/webhooks"),
        ("GET", "/v1/channels/{id}/deliveries"),
        ("GET", "/v1/channels/{id}/conversations/u/turns"),
        ("GET", "/v1/channels/{id}/conversations/u/responses"),
        ("GET", "/v1/webhooks/wh_x"),
        ("POST", "/v1/webhooks/wh_x/rotate-secret"),
        ("POST", "/v1/webhooks/wh_x/test"),
        ("GET", "/v1/deliveries/x"),
        ("GET", "/v1/dead-letters"),
    ],
)
async def test_administration_asks_for_the_admin_token_first(api, authorization, method, path):
    channel = await api.channel()
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await api.http.request(method, path.format(**channel), data=b"{", headers=headers)
    assert answer.status == 401
    assert "WWW-Authenticate" in answer.headers
    assert (await api.call("GET", f"/v1/channels/{channel['id']}")).status == 200


async def test_a_channels_token_does_not_open_administration(api):
    channel = await api.channel()
    headers = {"Authorization": f"Bearer {channel['accessToken']}"}
    assert (await api.call("GET", f"/v1/channels/{channel['id']}", headers=headers)).status == 401
