"""A queue whose sessions fail again and again makes the process unhealthy, whichever broker it is on."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from broker.port import Broker, Envelope, Subscription
from broker.topology import inbound_queue
from consumers import serving
from consumers.health import Health
from consumers.serving import Stop, serve
from consumers.trials import Trials

QUEUE = inbound_queue("p00")


class Notes:
    """No message is suspected."""

    async def begun(self, queue: str, message: str) -> int:
        return 0

    async def begin(self, queue: str, message: str) -> int:
        return 0

    async def end(self, queue: str, message: str) -> None:
        pass


class Failing:
    """A session that cannot go on, from its beginning."""

    def __init__(self, subscription: Subscription) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed.set_exception(RuntimeError("this session cannot go on"))

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Take nothing."""

    async def stop(self, grace_s: float) -> None:
        """Nothing is in flight."""


async def test_sessions_that_fail_again_and_again_are_a_complaint_of_their_queue(
    make_broker: Callable[..., Awaitable[Broker]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PAUSE_AFTER_FAILURE_S", 0.01)
    broker, health, stop = await make_broker(), Health(), Stop(0.0)
    assert health.complaint() == ""
    task = asyncio.create_task(serve(broker, QUEUE, 10, Failing, stop, Trials(Notes()), health))
    async with asyncio.timeout(30):
        while QUEUE not in health.complaint():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    stop.set()
    await task
