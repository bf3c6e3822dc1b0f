"""A program ends when its work does, whatever a library makes of being cancelled."""

import asyncio
import gc
import time
from collections.abc import Callable

import pytest

from broker.ending import CANCELLATIONS, EACH_S, run
from consumers.loop import Loop


async def _catches(cancellations: int) -> None:
    """Wait for what never comes, and again after each cancellation, as a client library does that is closing."""
    for _ in range(cancellations):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


@pytest.mark.parametrize("loop_factory", [None, Loop], ids=["asyncio", "ours"])
@pytest.mark.parametrize("cancellations", [0, 1, 3])
def test_a_task_of_a_library_that_catches_its_cancellation_does_not_hold_up_the_end(
    cancellations: int, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    left: list[asyncio.Task[None]] = []

    async def work() -> str:
        left.append(asyncio.create_task(_catches(cancellations)))
        await asyncio.sleep(0)
        return "done"

    began = time.monotonic()
    assert run(work(), loop_factory) == "done"
    assert left[0].done()
    assert time.monotonic() - began < CANCELLATIONS * EACH_S


def test_the_error_of_the_work_comes_out_and_what_it_left_has_ended() -> None:
    left: list[asyncio.Task[None]] = []

    async def work() -> None:
        left.append(asyncio.create_task(_catches(2)))
        await asyncio.sleep(0)
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        run(work())
    assert left[0].done()


def test_nothing_is_reported_of_a_task_that_fails_as_it_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("the server closed the connection") from None

    async def work() -> None:
        asyncio.create_task(fails())  # noqa: RUF006 - left on purpose
        await asyncio.sleep(0)

    run(work())
    gc.collect()
    assert not caplog.records
