"""One process without servers: accepted is delivered, whatever happens to the process."""

import asyncio
import socket

import aiohttp
import pytest
from deployment import Deployment
from processes import ARRIVAL_S, Receiver, until


async def test_what_was_accepted_is_delivered_after_kill_9(embedded: Deployment, receiver: Receiver) -> None:
    (first,) = await embedded.start("run")
    channel, token = await embedded.api.channel()
    await embedded.api.webhook(channel, receiver, "/hook")
    receiver.answer = lambda path: 503
    for number in range(1, 101):
        assert await embedded.api.say(channel, token, f"user-{number % 5}", str(number)) == 200
    await first.kill()
    receiver.answer = lambda path: 200
    await embedded.start("run")
    await until(lambda: receiver.distinct("/hook") == 100, ARRIVAL_S, "100 deliveries after the restart")
    for user in range(5):
        assert receiver.first_arrivals("/hook", f"user-{user}") == list(range(1, 21))


async def test_kill_9_again_and_again_under_load_loses_nothing(
    embedded: Deployment, receiver: Receiver
) -> None:
    (process,) = await embedded.start("run")
    channel, token = await embedded.api.channel()
    await embedded.api.webhook(channel, receiver, "/hook")
    accepted: dict[str, list[str]] = {f"user-{number}": [] for number in range(10)}
    for life in range(3):

        async def talk(user: str, life: int = life) -> None:
            for number in range(1000):
                text = f"{life}.{number}"
                try:
                    if await embedded.api.say(channel, token, user, text) == 200:
                        accepted[user].append(text)
                except (OSError, aiohttp.ClientError):
                    return

        enough = receiver.beyond("/hook", receiver.distinct("/hook") + 50)
        talking = [asyncio.create_task(talk(user)) for user in accepted]
        await until(enough, ARRIVAL_S, "some deliveries")
        await process.kill()
        await asyncio.gather(*talking)
        (process,) = await embedded.start("run")
    wanted = sum(len(texts) for texts in accepted.values())
    await until(
        lambda: len(_arrived(receiver, accepted)) >= wanted, ARRIVAL_S, f"all {wanted} accepted messages"
    )
    for user, texts in accepted.items():
        # A message that was being posted at the kill may have been taken without our having heard so.
        arrived = list(dict.fromkeys(receiver.texts[user]))
        assert [text for text in arrived if text in set(texts)] == texts
        counters = receiver.first_arrivals("/hook", user)
        assert counters == list(range(1, len(counters) + 1))


def _arrived(receiver: Receiver, accepted: dict[str, list[str]]) -> set[tuple[str, str]]:
    return {
        (user, text) for user, texts in accepted.items() for text in set(texts) & set(receiver.texts[user])
    }


async def test_a_stop_drains_and_ends_in_time_also_with_an_endpoint_that_hangs(
    embedded: Deployment, receiver: Receiver
) -> None:
    (process,) = await embedded.start("run")
    channel, token = await embedded.api.channel()
    await embedded.api.webhook(channel, receiver, "/hook")
    with socket.socket() as hanging:
        # Listens and never accepts: the connection stands, and nothing ever comes back.
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}/"
        await embedded.api.admin("POST", f"/v1/channels/{channel}/webhooks", {"url": url})
        assert await embedded.api.say(channel, token, "user", "1") == 200
        await until(lambda: receiver.distinct("/hook") == 1, ARRIVAL_S, "the healthy webhook's delivery")
        assert await process.stop(within_s=10.0) == 0, process.output()
    (again,) = await embedded.start("run")
    assert await again.stop(within_s=10.0) == 0


async def test_the_demo_answers_the_pasted_curl(embedded: Deployment) -> None:
    embedded.environment["POSTBOTE_DEMO"] = "1"
    embedded.environment["NO_COLOR"] = "1"
    (process,) = await embedded.start("run")
    line = next(line for line in process.output().splitlines() if line.strip().startswith("curl"))
    pasted = await asyncio.create_subprocess_shell(line + " -sS", stdout=asyncio.subprocess.PIPE)
    answer, _ = await asyncio.wait_for(pasted.communicate(), 10)
    assert b'"message":"EVENT_RECEIVED"' in answer
    await until(lambda: "Hello! I am the demo bot" in process.output(), ARRIVAL_S, "the bot's answer")
    assert "✓ signed" in process.output()


async def test_a_failing_endpoint_gets_everything_in_order_once_it_recovers(
    embedded: Deployment, receiver: Receiver
) -> None:
    await embedded.start("run")
    channel, token = await embedded.api.channel()
    await embedded.api.webhook(channel, receiver, "/failing")
    await embedded.api.webhook(channel, receiver, "/healthy")
    receiver.answer = lambda path: 500 if path == "/failing" else 200
    for number in range(1, 31):
        assert await embedded.api.say(channel, token, f"user-{number % 3}", str(number)) == 200
    await until(lambda: receiver.distinct("/healthy") == 30, ARRIVAL_S, "the healthy webhook's deliveries")
    assert receiver.distinct("/failing") == 0
    receiver.answer = lambda path: 200
    await until(lambda: receiver.distinct("/failing") == 30, ARRIVAL_S, "the deliveries that waited")
    for user in range(3):
        assert receiver.first_arrivals("/failing", f"user-{user}") == list(range(1, 11))


async def test_one_data_directory_serves_one_process(embedded: Deployment) -> None:
    await embedded.start("run")
    with pytest.raises(AssertionError, match="POSTBOTE_DATA_DIR"):
        await embedded.start("run")


async def test_what_waits_in_the_backlog_goes_by_its_webhook_as_it_is_then(
    embedded: Deployment, receiver: Receiver
) -> None:
    await embedded.start("run")
    channel, token = await embedded.api.channel()
    webhook = await embedded.api.webhook(channel, receiver, "/old", retrySchedule=[3600])
    asked: list[str] = []

    def answer(path: str) -> int:
        asked.append(path)
        return 500 if path == "/old" else 200

    receiver.answer = answer
    for text in ("1", "2"):
        assert await embedded.api.say(channel, token, "ada", text) == 200
    async with asyncio.timeout(ARRIVAL_S):
        while True:
            found = await embedded.api.admin("GET", f"/v1/channels/{channel}/deliveries?status=pending")
            if len(found["items"]) == 2:  # type: ignore[arg-type]
                break
    receiver.secrets["/new"] = receiver.secrets["/old"]
    await embedded.api.admin("PATCH", f"/v1/webhooks/{webhook}", {"url": receiver.url + "/new"})
    await until(lambda: receiver.first_arrivals("/new", "ada") == [1, 2], ARRIVAL_S, "both at the new URL")
    assert asked.count("/old") == 1
