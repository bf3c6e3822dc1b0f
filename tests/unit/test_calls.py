"""Calls of the client library: whatever it raises comes out as an error that is expected of a connection."""

import pytest

from broker.errors import TopologyMismatch
from broker.rabbitmq.calls import within


@pytest.mark.parametrize(
    "raised",
    [
        StopAsyncIteration(),
        Exception(),
        AssertionError(),
        AttributeError("reader"),
        ValueError(),
        KeyError(5),
    ],
    ids=lambda raised: type(raised).__name__,
)
async def test_whatever_the_library_fails_by_is_a_connection_that_was_closed(raised: Exception) -> None:
    async def call() -> None:
        raise raised

    with pytest.raises(ConnectionError, match="closed"):
        await within(1.0, call())


async def test_what_says_what_happened_is_raised_as_it_is() -> None:
    async def call() -> None:
        raise TopologyMismatch("other queues")

    with pytest.raises(TopologyMismatch, match="other queues"):
        await within(1.0, call())
