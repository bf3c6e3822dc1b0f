"""What bad receivers do. Each is a behaviour for a Receiver, or makes one."""

import asyncio
import random
from collections.abc import Mapping

from receivers import Behaviour, Delivery, Exchange

MEGABYTE = 1024 * 1024


def failing(status: int, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Answer everything with one status."""

    def behave(delivery: Delivery, exchange: Exchange) -> None:
        exchange.answer(status, b"no", headers)

    return behave


def failing_at_random(seed: int, share: float = 0.5) -> Behaviour:
    """Answer 500 to a share of all requests, drawn by a seed."""
    drawn = random.Random(seed)

    def behave(delivery: Delivery, exchange: Exchange) -> None:
        exchange.answer(500 if drawn.random() < share else 200)

    return behave


def poisoned_by(text: str, status: int = 400) -> Behaviour:
    """Accept everything but messages with this text in them, which never get better."""

    def behave(delivery: Delivery, exchange: Exchange) -> None:
        exchange.answer(status if text in delivery.text else 200)

    return behave


def busy(every: int, retry_after_s: int) -> Behaviour:
    """Answer each n-th request 429, with the wait that it asks for."""
    seen = 0

    def behave(delivery: Delivery, exchange: Exchange) -> None:
        nonlocal seen
        seen += 1
        if seen % every == 0:
            exchange.answer(429, b"", {"Retry-After": str(retry_after_s)})
        else:
            exchange.answer(200)

    return behave


def delayed(seconds: float) -> Behaviour:
    """Accept after a while."""

    async def behave(delivery: Delivery, exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        exchange.answer(200)

    return behave


async def hangs(delivery: Delivery, exchange: Exchange) -> None:
    """Never answer."""
    exchange.note(accepted=False)
    while not exchange.gone:  # noqa: ASYNC110 - the other side hanging up sends no event here
        await asyncio.sleep(0.2)


async def trickles_the_status(delivery: Delivery, exchange: Exchange) -> None:
    """Send the status line and headers one byte a second."""
    exchange.note(accepted=False)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":
        if exchange.gone:
            return
        exchange.write(bytes([byte]))
        await asyncio.sleep(1.0)


async def trickles_the_body(delivery: Delivery, exchange: Exchange) -> None:
    """Send a status line at once, and after it a body of one byte a second without end."""
    exchange.note(accepted=True)
    exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not exchange.gone:
        exchange.write(b".")
        await asyncio.sleep(1.0)


def closes(delivery: Delivery, exchange: Exchange) -> None:
    """Read it and close the connection without an answer."""
    exchange.note(accepted=False)
    exchange.close()


def resets(delivery: Delivery, exchange: Exchange) -> None:
    """Read it and reset the connection."""
    exchange.note(accepted=False)
    exchange.reset()


def floods(delivery: Delivery, exchange: Exchange) -> None:
    """Accept it with an answer of 10 MB."""
    exchange.answer(200, b"x" * (10 * MEGABYTE))


def breaks_its_chunks(delivery: Delivery, exchange: Exchange) -> None:
    """Accept it and, in one piece with that, begin a chunked body whose second chunk is no chunk."""
    exchange.note(accepted=True)
    exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n")
    exchange.close()


def breaks_its_head(delivery: Delivery, exchange: Exchange) -> None:
    """Accept it with headers that contradict each other, one of them without a colon."""
    exchange.note(accepted=True)
    exchange.write(
        b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\nno colon\r\nContent-Length : 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nok"
    )


async def breaks_its_chunks_later(delivery: Delivery, exchange: Exchange) -> None:
    """Accept it with a chunked body whose second chunk, which comes after a while, is no chunk."""
    exchange.note(accepted=True)
    exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await asyncio.sleep(0.1)
    exchange.write(b"nonsense\r\n")
    exchange.close()


def cuts_its_chunks(delivery: Delivery, exchange: Exchange) -> None:
    """Accept it with a chunked body that ends in the middle."""
    exchange.note(accepted=True)
    exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello")
    exchange.close()


def answers_rubbish(delivery: Delivery, exchange: Exchange) -> None:
    """Answer what is not HTTP."""
    exchange.note(accepted=False)
    exchange.write(b"\x00\xffthis is not HTTP\r\n\r\n")
    exchange.close()


def redirects(location: str, status: int = 302) -> Behaviour:
    """Send it elsewhere."""
    return failing(status, {"Location": location})
