"""What a channel and a webhook may say of retries, of their time to live, and of their rate."""

import pytest


async def test_a_webhooks_policy_is_kept_shown_changed_and_reset(api):
    channel = await api.channel()
    plain = await api.webhook(channel["id"])
    assert [plain[name] for name in ("retrySchedule", "timeToLiveSeconds", "rateLimit", "failingSince")] == [
        None
    ] * 4
    policy = {"retrySchedule": [0.5, 60, 3600], "timeToLiveSeconds": 600, "rateLimit": 0.5}
    webhook = await api.webhook(channel["id"], **policy)
    assert {name: webhook[name] for name in policy} == policy
    path = f"/v1/webhooks/{webhook['id']}"
    changed = await (await api.call("PATCH", path, {"rateLimit": 20})).json()
    assert {name: changed[name] for name in policy} == {**policy, "rateLimit": 20}
    reset = await (await api.call("PATCH", path, dict.fromkeys(policy))).json()
    assert [reset[name] for name in policy] == [None] * 3
    shown = await (await api.call("GET", path)).json()
    assert [shown[name] for name in policy] == [None] * 3


async def test_a_channels_policy_is_kept_shown_changed_and_reset(api):
    policy = {"retrySchedule": [], "timeToLiveSeconds": 86_400}
    channel = await api.channel(**policy)
    assert {name: channel[name] for name in policy} == policy
    path = f"/v1/channels/{channel['id']}"
    renamed = await (await api.call("PATCH", path, {"name": "Other"})).json()
    assert {name: renamed[name] for name in policy} == policy
    reset = await (await api.call("PATCH", path, dict.fromkeys(policy))).json()
    assert [reset[name] for name in policy] == [None] * 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retrySchedule", [0]),
        ("retrySchedule", [-1]),
        ("retrySchedule", ["1"]),
        ("retrySchedule", [1] * 21),
        ("retrySchedule", [86_400] * 8),
        ("retrySchedule", [90_000]),
        ("retrySchedule", 5),
        ("timeToLiveSeconds", 0.5),
        ("timeToLiveSeconds", 2_592_001),
        ("timeToLiveSeconds", "60"),
        ("rateLimit", 0),
        ("rateLimit", 5e-324),
        ("rateLimit", 0.0009),
        ("rateLimit", -1),
        ("rateLimit", 10_001),
        ("rateLimit", True),
        ("failingSince", "2026-01-01T00:00:00Z"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(api, field, value):
    channel = await api.channel()
    webhook = await api.webhook(channel["id"])
    for method, path, body in (
        ("POST", f"/v1/channels/{channel['id']}/webhooks", {"url": "https://example.com", field: value}),
        ("PATCH", f"/v1/webhooks/{webhook['id']}", {field: value}),
    ):
        answer = await api.call(method, path, body)
        assert answer.status == 422, (method, value)
        assert any(field in fault["loc"] for fault in (await answer.json())["errors"])
