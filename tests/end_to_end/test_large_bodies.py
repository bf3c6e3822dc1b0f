"""Many large bodies at once with one channel's token: the API's memory stays bounded, and others are served."""

import asyncio
import sys
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from deployment import Deployment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CLIENTS = 200
#: compose.yaml gives each process 512 MB.
MOST_MEMORY = 300 * 10**6
BODY = (
    '{"message":{"textMessage":{"text":"n"}},"user":{"id":"n"},"x":[' + ",".join(['{"a":[]}'] * 28_000) + "]}"
).encode()


async def post_large(base: str, channel: str, token: str) -> int | None:
    """Post one in several pieces, and return the status; None where the connection ended before an answer."""
    where = urlsplit(base)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    head = (
        f"POST /v1/channels/webhook/{channel}/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    try:
        with suppress(OSError):
            writer.write(head.encode() + BODY)
            await writer.drain()
        line = await asyncio.wait_for(reader.readline(), 30.0)
        return int(line.split()[1]) if line else None
    except OSError:
        return None
    finally:
        writer.close()


async def test_large_bodies_of_one_channel_take_bounded_memory_and_keep_no_other_channel_out(
    embedded: Deployment,
) -> None:
    (process,) = await embedded.start("run")
    greedy, greedy_token = await embedded.api.channel()
    other, other_token = await embedded.api.channel()
    crowd = asyncio.gather(*(post_large(embedded.api.base, greedy, greedy_token) for _ in range(CLIENTS)))
    served = []
    while not crowd.done():
        served.append(await embedded.api.say(other, other_token, "ada", "meanwhile"))
    statuses = set(await crowd)
    assert served
    assert set(served) == {200}
    assert 200 in statuses
    assert statuses <= {200, 503, None}
    assert process.most_memory() < MOST_MEMORY
