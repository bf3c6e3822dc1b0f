"""Calls of the client library: each in a task of its own, awaited with a bound, and never cancelled.

aiormq catches a cancellation, raises an error of its own in its place and closes the AMQP channel; and it raises
CancelledError where a connection closes under a call. So a cancellation never reaches it, and none of its own
comes out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from aiormq.exceptions import AMQPError

from broker.errors import PostboteError

T = TypeVar("T")

#: Errors that say what happened.
_ITS_OWN = (AMQPError, OSError, TimeoutError, RuntimeError, PostboteError)

#: Calls that nobody waits for any more. Each ends with its connection at the latest.
_left: set["asyncio.Future[Any]"] = set()


async def within(
    seconds: float | None,
    call: Coroutine[Any, Any, T],
    put_away: Callable[[T], Awaitable[None]] | None = None,
) -> T:
    """Await a call of the library for at most `seconds` (None: without a bound) and return its result.

    A caller that is cancelled or out of time leaves the call to end by itself; `put_away` then takes its result.
    Raises TimeoutError, ConnectionError where the connection closed under the call or the library failed at it, and
    what the call raises of `_ITS_OWN`.
    """
    calling = asyncio.ensure_future(call)
    try:
        await asyncio.wait({calling}, timeout=seconds)
    except asyncio.CancelledError:
        _leave(calling, put_away)
        raise
    if not calling.done():
        _leave(calling, put_away)
        raise TimeoutError
    if calling.cancelled():
        raise ConnectionError("the connection was closed")
    error = calling.exception()
    if error is not None and not isinstance(error, _ITS_OWN):
        # The library says so in many ways of a connection that ended at an odd moment, or of bytes that are no AMQP.
        raise ConnectionError(f"the connection was closed ({type(error).__name__})") from error
    return calling.result()


def _leave(calling: "asyncio.Future[T]", put_away: Callable[[T], Awaitable[None]] | None) -> None:
    # At the end of a program whoever waits for it here may be ended first.
    calling.add_done_callback(_look_at)

    async def end() -> None:
        await asyncio.wait({calling})
        if not calling.cancelled() and calling.exception() is None and put_away is not None:
            await put_away(calling.result())

    ending = asyncio.ensure_future(end())
    _left.add(ending)
    ending.add_done_callback(_forget)


def _forget(ending: "asyncio.Future[None]") -> None:
    _left.discard(ending)
    _look_at(ending)


def _look_at(done: "asyncio.Future[Any]") -> None:
    # So that nobody reports it as forgotten.
    if not done.cancelled():
        done.exception()
