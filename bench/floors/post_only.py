"""A loop that only POSTs: an aiohttp client on uvloop with 64 requests in flight, and nothing else.

`python -m bench.floors.post_only URL SECONDS`; prints the rate and the microseconds of CPU for a request as JSON.
"""

import asyncio
import json
import sys
import time

import aiohttp
import uvloop

IN_FLIGHT = 64
BODY = b'{"recipient":{"id":"u"},"senderId":"user-17","messageCounter":7,"verifyToken":"%s","message":{"text":"%s"}}'


async def main(url: str, seconds: float) -> None:
    """POST for so many seconds, the first of which do not count."""
    body = BODY % (b"v" * 43, b"x" * 110)
    count = 0
    end = time.perf_counter() + seconds + 1.0

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers={"Content-Type": "application/json"}
    ) as session:

        async def lane() -> None:
            nonlocal count
            while time.perf_counter() < end:
                async with session.post(url, data=body) as answer:
                    if answer.status != 200:
                        raise SystemExit(f"the receiver answered {answer.status}")
                    await answer.read()
                count += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(lane())
            await asyncio.sleep(1.0)
            before, wall, cpu = count, time.perf_counter(), time.process_time()
            await asyncio.sleep(seconds)
            done, wall, cpu = count - before, time.perf_counter() - wall, time.process_time() - cpu
    sys.stdout.write(json.dumps({"rate": done / wall, "cpu_us": cpu / done * 1e6}) + "\n")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2])))
