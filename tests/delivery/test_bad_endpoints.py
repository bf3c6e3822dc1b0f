"""What one endpoint answers, or makes of its connections, costs its own webhook's attempts and nobody else's."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from aiohttp import web
from delivery_worker_parts import QUICK, Worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.registry.deliveries import write
from broker.registry.records import Channel, Webhook
from consumers.attempt import Poster, ping
from consumers.delivering import Deliverer
from consumers.http.connection import Answer, BrokenAnswer
from consumers.http.opening import Origin
from consumers.http.pool import Pool
from consumers.retry import Policy

NOW = datetime.now(UTC)
LOOPBACK = (ip_network("127.0.0.0/8"),)
OVERFLOWS = b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
Answering = Callable[[int, int], bytes | None]


class Endpoint:
    """Answers each request with bytes; `answer` gets the numbers of the connection and of the request on it."""

    def __init__(self, answer: Answering, closes: bool) -> None:
        self.answer = answer
        self.closes = closes
        self.got: list[str] = []
        self._connections = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, until an answer is None."""
        self._connections += 1
        connection, requests = self._connections, 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
                await reader.readexactly(int(fields["Content-Length"]))
                requests += 1
                answer = self.answer(connection, requests)
                if answer is None:
                    return
                self.got.append(fields["webhook-id"])
                writer.write(answer)
                if self.closes:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(answer: Answering, *, closes: bool = False) -> AsyncIterator[tuple[Endpoint, str]]:
    endpoint = Endpoint(answer, closes)
    server = await asyncio.start_server(endpoint.connected, "127.0.0.1", 0)
    try:
        yield endpoint, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()


def well(connection: int, request: int) -> bytes | None:
    return b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture
async def poster() -> AsyncIterator[Poster]:
    """Provide what makes attempts over real connections."""
    poster = Poster(timeout_s=5.0, allowed=LOOPBACK)
    yield poster
    await poster.close()


def posting(worker: Worker, poster: object) -> Worker:
    """Return the worker with deliveries that go over real connections."""
    deliverer = Deliverer(
        worker.shared.directory,
        poster,  # type: ignore[arg-type]
        worker.gates,
        worker.shared.deliverer._disabling,
        worker.standing,
        Policy(replace(QUICK, tail=QUICK.tail[:2]), 3600.0),
    )
    return replace(worker, shared=replace(worker.shared, deliverer=deliverer))


async def dead(worker: Worker, count: int) -> list[tuple[str, int]]:
    """Wait for so many dead deliveries, and return the webhook and the number of attempts of each."""
    found = [await worker.deliveries.get(each) for each in await worker.logged("dead", count)]
    return [(one.webhook_id, len(one.attempts)) for one in found if one is not None]


def busy_until(date: bytes) -> Answering:
    return lambda connection, request: (
        b"HTTP/1.1 500 Oh\r\nRetry-After: " + date + b"\r\nContent-Length: 0\r\n\r\n"
    )


async def test_an_answer_that_cannot_be_read_is_a_failed_attempt_and_no_other_webhook_gets_anything_twice(
    worker: Worker, poster: Poster
) -> None:
    async with listening(busy_until(OVERFLOWS)) as (_, bad_url), listening(well) as (good, good_url):
        bad = await worker.webhooks.create(worker.channel.id, url=bad_url, retry_schedule=[0.1, 0.1])
        assert await worker.webhooks.create(worker.channel.id, url=good_url)
        assert bad is not None
        worker = posting(worker, poster)
        session = worker.session()
        await session.take(worker.says("ada", 2))
        assert await dead(worker, 2) == [(bad.id, 3), (bad.id, 3)], (
            "by its own schedule, all attempts recorded"
        )
        await worker.queue.until(2)
        assert not session.failed.done(), "the partition's session goes on"
        assert len(good.got) == 2
        assert max(Counter(good.got).values()) == 1
        await session.stop(1)


async def test_whatever_is_raised_below_an_attempt_its_delivery_is_given_up_by_the_schedule_and_the_partition_goes_on(
    worker: Worker, poster: Poster, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = Pool.exchange

    async def fail_for_some(pool: Pool, origin: Origin, request: bytes, timeout_s: float) -> Answer:
        if b" /bad " in request:
            raise LookupError("nobody has thought of this")
        return await exchange(pool, origin, request, timeout_s)

    monkeypatch.setattr(Pool, "exchange", fail_for_some)
    async with listening(well) as (good, url):
        bad_url = url.replace("/hook", "/bad")
        bad = await worker.webhooks.create(worker.channel.id, url=bad_url, retry_schedule=[0.1, 40.0])
        assert await worker.webhooks.create(worker.channel.id, url=url)
        assert bad is not None
        worker = posting(worker, poster)
        session = worker.session()
        await session.take(worker.says("ada"))
        await worker.queue.until(1)
        assert await worker.parked() == {(bad.id, f"{worker.channel.id}/ada")}
        gate = worker.gates.known(bad.id)
        assert gate is not None
        assert gate.failing
        await worker.webhooks.update(bad.id, {"retry_schedule": [0.1, 0.1], "url": bad_url})
        worker.shared.directory.forget(worker.channel.id)
        drainer = worker.drainer()
        assert await dead(worker, 1) == [(bad.id, 3)]
        assert not session.failed.done()
        assert len(good.got) == 1
        worker.stop.set()
        await drainer
        await session.stop(1)


async def test_whatever_is_raised_beside_an_attempt_counts_as_a_failed_one_and_the_partition_goes_on(
    worker: Worker, poster: Poster
) -> None:
    async with listening(well) as (good, url):
        # Refused at the API; a registry may hold it all the same.
        bad = await worker.webhooks.create(worker.channel.id, url=url, retry_schedule=[0.0])
        assert await worker.webhooks.create(worker.channel.id, url=url)
        assert bad is not None
        worker = posting(worker, poster)
        session = worker.session()
        await session.take(worker.says("ada"))
        await worker.queue.until(1)
        drainer = worker.drainer()
        ((webhook_id, attempts),) = await dead(worker, 1)
        assert (webhook_id, attempts) == (bad.id, 1 + len(QUICK.head) + 2)
        assert not session.failed.done()
        assert len(good.got) == 1
        worker.stop.set()
        await drainer
        await session.stop(1)


async def test_what_waits_in_the_backlog_and_cannot_be_read_is_given_up_and_its_lane_goes_on(
    worker: Worker,
) -> None:
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    worker.endpoint.failing[hook.id] = 500
    session = worker.session()
    await session.take(worker.says("ada", 2))
    await worker.queue.until(2)
    waiting = await worker.deliveries.page(worker.channel.id, None, 10, status="pending")
    first = min(waiting.items, key=lambda one: one.message_counter)
    async with worker.backlog._db.write() as connection:
        unknown = replace(first, response={"schemaVersion": 2})
        await write(worker.backlog._db, connection, [unknown])
    worker.endpoint.failing.clear()
    drainer = worker.drainer()
    await worker.endpoint.until(1)
    assert worker.order(hook.id, "ada") == [2]
    assert await worker.logged("dead", 1) == [first.id]
    worker.stop.set()
    await drainer
    await session.stop(1)


@pytest.mark.parametrize(
    "failure",
    [
        OverflowError("too large"),
        RuntimeError("the handler is closed"),
        LookupError(),
        MemoryError(),
        ExceptionGroup("many", [BrokenAnswer("no"), OSError("no")]),
        asyncio.CancelledError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_an_attempt_ends_as_an_outcome_whatever_is_raised_below_it(
    poster: Poster, monkeypatch: pytest.MonkeyPatch, failure: BaseException, worker: Worker
) -> None:
    async def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(Pool, "exchange", fail)
    hook = await worker.webhooks.create(worker.channel.id, url="https://example.com")
    assert hook is not None
    outcome = await poster.post(worker.channel, hook, ping(worker.channel), "id", 1)
    assert (outcome.attempt.status_code, outcome.attempt.error) == (None, "unexpected")
    assert type(failure).__name__ in outcome.attempt.detail


async def test_whoever_ends_the_task_of_an_attempt_ends_the_attempt(poster: Poster, worker: Worker) -> None:
    hanging = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hanging.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    hook = await worker.webhooks.create(worker.channel.id, url=url)
    assert hook is not None
    attempt = asyncio.create_task(poster.post(worker.channel, hook, ping(worker.channel), "id", 1))
    await hanging.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    server.close()


HEADER_VALUES = st.one_of(
    st.binary(max_size=60),
    st.text("0123456789 :,+-GMTJanMon", max_size=60).map(str.encode),
    st.builds(
        "{}, {} {} {} {}:{}:{} {}".format,
        st.sampled_from(["Mon", "x"]),
        st.integers(),
        st.sampled_from(["Jan", "Foo"]),
        st.integers(),
        st.integers(),
        st.integers(),
        st.integers(),
        st.one_of(st.just("GMT"), st.integers().map("{:+}".format)),
    ).map(str.encode),
)


async def test_an_attempt_ends_as_an_outcome_whatever_an_endpoint_answers(poster: Poster) -> None:
    answer = b""

    async with listening(lambda connection, request: answer, closes=True) as (_, url):
        loop = asyncio.get_running_loop()
        hook = Webhook(
            "wh", "ch", url, None, (), {}, "whsec_" + "A" * 43 + "=", None, None, True, None, 1.0, NOW
        )
        channel = Channel("ch", "test", {}, "token", 1, NOW)

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            start=st.one_of(st.binary(max_size=40), st.just(b"HTTP/1.1 503 Busy\r\n")),
            value=HEADER_VALUES,
            rest=st.binary(max_size=60),
        )
        def outcomes(start: bytes, value: bytes, rest: bytes) -> None:
            nonlocal answer
            answer = start + b"Retry-After: " + value + b"\r\nConnection: close\r\n\r\n" + rest
            posted = asyncio.run_coroutine_threadsafe(
                poster.post(channel, hook, ping(channel), "id", 1), loop
            )
            outcome = posted.result(10)
            assert outcome.attempt.error != "unexpected"
            assert (outcome.attempt.status_code is None) == (outcome.attempt.error is not None)
            assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s < 1e12

        await asyncio.to_thread(outcomes)


async def test_an_endpoint_that_closes_kept_connections_as_requests_go_out_gets_all_with_one_attempt_each(
    worker: Worker, poster: Poster
) -> None:
    async with listening(lambda connection, request: well(0, 0) if request == 1 else None) as (endpoint, url):
        hook = await worker.webhooks.create(worker.channel.id, url=url, retry_schedule=[])
        assert hook is not None
        worker = posting(worker, poster)
        session = worker.session()
        await session.take([one for user in ("ada", "bob") for one in worker.says(user, 20)])
        await worker.queue.until(40)
        delivered = await worker.logged("delivered", 40)
        records = [await worker.deliveries.get(each) for each in delivered]
        assert {record.attempt_count for record in records if record is not None} == {1}
        assert len(set(endpoint.got)) == len(endpoint.got) == 40
        await session.stop(1)


async def test_a_real_server_that_closes_idle_connections_costs_no_attempt(
    worker: Worker, poster: Poster
) -> None:
    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=0.02, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook = await worker.webhooks.create(
        worker.channel.id, url=f"http://127.0.0.1:{runner.addresses[0][1]}/", retry_schedule=[]
    )
    assert hook is not None
    for number in range(60):
        # About as long as it keeps an idle connection, now a little more and now a little less.
        await asyncio.sleep(0.019 + number % 10 * 0.0004)
        outcome = await poster.post(worker.channel, hook, ping(worker.channel), str(number), 1)
        assert outcome.attempt.status_code == 204
    await runner.cleanup()
