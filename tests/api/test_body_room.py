"""Bodies for which there is no room are refused before they are read, at every door; small ones pass."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.api.bodies import ADMINISTRATION, BODY_ROOM
from broker.api.messages import UNPROVEN

MESSAGE = {"message": {"textMessage": {"text": "hello"}}, "user": {"id": "ada"}}
SIZE = 200_000


async def pieces() -> AsyncIterator[bytes]:
    """A body whose length nobody tells before."""
    yield b'{"x":"'
    yield b"x" * 20_000
    yield b'"}'


@pytest.mark.parametrize("of", ["the channel", "the older form", "administration"])
async def test_a_large_body_whose_owner_has_no_room_left_is_told_to_come_again_and_small_ones_pass(api, of):
    channel, other = await api.channel(), await api.channel()
    room = api.http.app[BODY_ROOM]
    owner = {"the channel": channel["id"], "the older form": UNPROVEN, "administration": ADMINISTRATION}[of]
    path = {
        "the channel": f"/v1/channels/webhook/{channel['id']}/messages",
        "the older form": f"/api/webhookMessage/{channel['id']}",
        "administration": "/v1/channels",
    }[of]
    headers = {"Content-Type": "application/json"}
    if of != "the older form":
        token = channel["accessToken"] if of == "the channel" else "admin-secret"
        headers["Authorization"] = f"Bearer {token}"
    free = room.left
    holds = []
    while (hold := room.admit(owner, SIZE)) is not None:
        holds.append(hold)
    refused = await api.http.post(path, data=pieces(), headers=headers)
    assert refused.status == 503, await refused.text()
    assert refused.headers["Retry-After"] == "1"
    assert (await api.post(other, MESSAGE)).status == 200
    assert (await api.post(channel, MESSAGE)).status == 200
    for each in holds:
        room.leave(each)
    taken = await api.http.post(path, data=pieces(), headers=headers)
    assert taken.status != 503
    assert room.left == free, "what was answered takes no room"


async def test_the_room_of_a_body_whose_sender_hangs_up_is_given_back(api):
    channel = await api.channel()
    room = api.http.app[BODY_ROOM]
    free = room.left
    _, writer = await asyncio.open_connection(api.http.host, api.http.port)
    writer.write(
        f"POST /v1/channels/webhook/{channel['id']}/messages HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {channel['accessToken']}\r\nContent-Length: {SIZE}\r\n\r\n{{".encode()
    )
    async with asyncio.timeout(5.0):
        while room.left == free:  # noqa: ASYNC110 - the server says nothing of it
            await asyncio.sleep(0.01)
        writer.close()
        while room.left != free:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
