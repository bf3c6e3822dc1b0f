"""One attempt against endpoints of every kind, good and bad, over real connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook as Oracle

from broker.models.records import BotResponse
from broker.registry.records import Channel, Webhook
from consumers.attempt import Outcome, Poster, retry_after_s

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SECRET, OLD_SECRET = "whsec_" + "A" * 43 + "=", "whsec_" + "B" * 43 + "="
NOW = datetime.now(UTC)
CHANNEL = Channel("ch_1", "test", {"type": "echo"}, "channel-token", 1, NOW)
HOOK = Webhook(
    id="wh_1",
    channel_id="ch_1",
    url="",
    verify_token=None,
    events=("response.#",),
    headers={"X-Tenant": "acme"},
    secret=SECRET,
    previous_secret=None,
    previous_secret_until=None,
    enabled=True,
    disabled_reason=None,
    timeout_s=None,
    created_at=NOW,
)
RESPONSE = BotResponse(
    id="6a1f6d2e-0000-5000-8000-000000000001",
    channel_id="ch_1",
    user_id="cust-7f3a",
    in_reply_to="6a1f6d2e-0000-5000-8000-000000000002",
    index=2,
    count=3,
    message_counter=7,
    kind="text",
    message={"text": "Grüße 👋", "unknown": [1, {"kept": True}]},
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def endpoint(answer: Answer) -> AsyncIterator[str]:
    app = web.Application(client_max_size=10**7)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_endpoint(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    heads: list[bytes] | None = None,
) -> AsyncIterator[str]:
    """An endpoint below HTTP, for what no HTTP server would do; `heads` gets those of the requests."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            await talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def post(
    url: str, *, allowed: tuple[object, ...] = LOOPBACK, timeout_s: float = 5.0, **changes: object
) -> Outcome:
    poster = Poster(timeout_s=timeout_s, allowed=allowed)  # type: ignore[arg-type]
    try:
        return await poster.post(CHANNEL, replace(HOOK, url=url, **changes), RESPONSE, "delivery-1", 4)  # type: ignore[arg-type]
    finally:
        await poster.close()


def ok(status: int = 200, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="fine", headers=headers)

    return answer


async def test_a_delivery_is_what_the_contract_says_and_the_library_of_standard_webhooks_accepts_it() -> None:
    got: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        got.append(({k.lower(): v for k, v in request.headers.items()}, await request.read()))
        return web.Response(status=204)

    async with endpoint(answer) as url:
        outcome = await post(url)
    assert outcome.attempt.status_code == 204
    assert outcome.attempt.error is None
    ((headers, body),) = got
    assert Oracle(SECRET).verify(body, headers) == {
        "recipient": {"id": "cust-7f3a"},
        "senderId": "cust-7f3a",
        "messageCounter": 7,
        "verifyToken": "channel-token",
        "message": {"text": "Grüße 👋", "unknown": [1, {"kept": True}]},
    }
    assert headers["webhook-id"] == "delivery-1"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("Postbote/")
    assert headers["postbote-in-reply-to"] == RESPONSE.in_reply_to
    assert headers["postbote-turn"] == "2/3"
    assert headers["x-tenant"] == "acme"
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert headers["traceparent"] != RESPONSE.traceparent


async def test_the_old_secret_signs_too_until_its_time_is_over() -> None:
    got: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        got.append(({k.lower(): v for k, v in request.headers.items()}, await request.read()))
        return web.Response()

    async with endpoint(answer) as url:
        await post(url, previous_secret=OLD_SECRET, previous_secret_until=NOW + timedelta(hours=1))
        await post(url, previous_secret=OLD_SECRET, previous_secret_until=NOW - timedelta(seconds=1))
        await post(url, older_secrets=[[OLD_SECRET, (NOW + timedelta(hours=1)).isoformat()]])
        await post(url, older_secrets=[[OLD_SECRET, (NOW - timedelta(seconds=1)).isoformat()]])
    (headers, body), (later, later_body), (older, older_body), (gone, _) = got
    Oracle(OLD_SECRET).verify(older_body, older)
    assert len(gone["webhook-signature"].split()) == 1
    for secret in (SECRET, OLD_SECRET):
        Oracle(secret).verify(body, headers)
    Oracle(SECRET).verify(later_body, later)
    assert len(later["webhook-signature"].split()) == 1


async def test_the_webhooks_own_verify_token_wins_over_the_channels() -> None:
    tokens: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        tokens.append((await request.json())["verifyToken"])
        return web.Response()

    async with endpoint(answer) as url:
        await post(url, verify_token="own-token")
    assert tokens == ["own-token"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with endpoint(answer) as url:
        outcome = await post(url)
    assert outcome.attempt.status_code == status
    assert seen == ["/hook"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://localhost:1/", "http://[::1]:1/", "http://0.0.0.0:1/"]
)
async def test_addresses_inside_are_refused_where_the_connection_is_made(url: str) -> None:
    outcome = await post(url, allowed=())
    assert outcome.attempt.error == "refused_address"
    assert "POSTBOTE_WEBHOOK_ALLOW_NETWORKS" in outcome.attempt.detail


async def test_an_allowed_network_opens_itself_and_no_other() -> None:
    async with endpoint(ok()) as url:
        assert (await post(url, allowed=(ip_network("127.0.0.1/32"),))).attempt.status_code == 200
        assert (await post(url, allowed=(ip_network("10.0.0.0/8"),))).attempt.error == "refused_address"


async def test_an_endpoint_that_hangs_costs_its_timeout() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.get_running_loop().create_future()

    async with raw_endpoint(hang) as url:
        outcome = await post(url, timeout_s=0.2)
    assert outcome.attempt.error == "timeout"
    assert 150 <= outcome.attempt.duration_ms < 2000


async def test_nobody_listening_is_a_connection_error_and_an_unknown_name_a_dns_error() -> None:
    assert (await post("http://127.0.0.1:1/")).attempt.error == "connection"
    assert (await post("http://no-such-host.invalid/")).attempt.error == "dns"


@pytest.mark.parametrize(
    "bytes_",
    [b"", b"HTTP/1.1 ", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200\x00 OK\r\nbroken\r\n\r\n", b"\x00" * 100],
    ids=["closes", "half a status line", "another protocol", "broken header", "zeros"],
)
async def test_rubbish_instead_of_an_answer_is_a_failure_and_no_exception(bytes_: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes_)
        await writer.drain()

    async with raw_endpoint(talk) as url:
        outcome = await post(url, timeout_s=1)
    assert outcome.attempt.status_code is None
    assert outcome.attempt.error in ("broken_answer", "connection")


async def test_of_a_large_answer_only_the_beginning_is_read() -> None:
    async def large(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, body=b"x" * 10_000_000)

    async with endpoint(large) as url:
        outcome = await post(url)
    assert outcome.attempt.status_code == 500
    assert outcome.attempt.answer == "x" * 4096


async def test_a_2xx_counts_though_its_body_never_ends() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
        await asyncio.get_running_loop().create_future()

    async with raw_endpoint(trickle) as url:
        outcome = await post(url, timeout_s=1)
    assert outcome.attempt.status_code == 200
    assert outcome.attempt.error is None
    assert outcome.attempt.duration_ms < 900, "the duration is that of the status line"


async def test_a_broken_chunked_body_takes_nothing_back_of_its_status_line() -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n")
        await writer.drain()

    async with raw_endpoint(broken) as url:
        outcome = await post(url)
    assert (outcome.attempt.status_code, outcome.attempt.error) == (200, None)


@pytest.mark.parametrize(
    ("registered", "sent"),
    [
        ("?sig=a%2Fb%2Bc%3D%3D&exp=%40x", "/?sig=a%2Fb%2Bc%3D%3D&exp=%40x"),
        ("/a%2Fb/%7Euser", "/a%2Fb/%7Euser"),
        ("/t/../x/./y//z", "/t/../x/./y//z"),
        ("/p?", "/p?"),
        ("/100%", "/100%"),
        ("/%c3%bc?q=a+b%20c&&=", "/%c3%bc?q=a+b%20c&&="),
        ("/\"'<>^`{|}[]", "/\"'<>^`{|}[]"),
        ("/ü?é", "/%C3%BC?%C3%A9"),
        ("", "/"),
    ],
)
async def test_the_bytes_of_a_url_go_out_as_they_were_registered(registered: str, sent: str) -> None:
    lines: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    async with raw_endpoint(talk, heads=lines) as url:
        outcome = await post(url.rstrip("/") + registered)
    assert outcome.attempt.status_code == 204
    assert lines[0].split(b"\r\n")[0].decode() == f"POST {sent} HTTP/1.1"


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://127.0.0.1:1/a\r\nX-Injected: y"},
        {"url": "http://127.0.0.1:1/a b"},
        {"url": "http://127.0.0.1\r\nX:1/"},
        {"headers": {"X": "a\r\nX-Injected: y"}},
        {"headers": {"X\nY": "a"}},
        {"headers": {"X": "a\x00b"}},
    ],
)
async def test_what_would_add_a_header_is_never_sent_though_it_stands_in_the_registry(
    changes: dict[str, object],
) -> None:
    outcome = await post(**{"url": "http://127.0.0.1:1/", **changes})  # type: ignore[arg-type]
    assert outcome.attempt.error == "invalid_url"


async def test_an_answer_that_is_no_text_is_kept_as_text() -> None:
    async def binary(request: web.Request) -> web.StreamResponse:
        return web.Response(status=400, body=b"\x00\xff\xfe")

    async with endpoint(binary) as url:
        outcome = await post(url)
    assert "\x00" not in outcome.attempt.answer
    assert outcome.attempt.answer


async def test_a_plain_server_behind_https_is_a_tls_error() -> None:
    async with endpoint(ok()) as url:
        outcome = await post(url.replace("http://", "https://"))
    assert outcome.attempt.error == "tls"


async def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    async with endpoint(ok(429, **{"Retry-After": "7"})) as url:
        outcome = await post(url)
    assert outcome.answer.status_code == 429
    assert outcome.answer.retry_after_s == 7
    at = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    assert retry_after_s("Thu, 01 Jan 2026 12:01:00 GMT", at) == 60
    assert retry_after_s("Thu, 01 Jan 2026 11:00:00 GMT", at) == 0
    for rubbish in ("", "soon", "-5", "1e3", "٣", "9" * 400):
        wait = retry_after_s(rubbish, at)
        assert wait is None or wait >= 0


async def test_connections_are_reused() -> None:
    ports: set[object] = set()

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername"))
        return web.Response(text="ok")

    poster = Poster(timeout_s=5, allowed=LOOPBACK)
    async with endpoint(answer) as url:
        for number in range(1, 6):
            outcome = await poster.post(CHANNEL, replace(HOOK, url=url), RESPONSE, "delivery-1", number)
            assert outcome.attempt.number == number
        await poster.close()
    assert len(ports) == 1
