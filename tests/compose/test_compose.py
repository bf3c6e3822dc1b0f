"""The deployment as its users meet it: compose.yaml, real images, real servers, `--scale`, and what goes wrong."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError
from processes import Api, Receiver, until
from project import ARRIVAL_S, ROOT, USERS, Deployment, deployed, docker, required, say
from servers.postgres import engine_answers

pytestmark = [
    pytest.mark.compose,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not engine_answers(), reason="no Docker engine answers"),
]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Bring one of each up."""
    with deployed(tmp_path_factory.mktemp("compose")) as project:
        yield project


def test_what_is_missing_is_said() -> None:
    clean = {name: value for name, value in os.environ.items() if name not in required()}
    done = subprocess.run(
        ["docker", "compose", "--env-file", "/dev/null", "config", "-q"],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "copy .env.example to .env and fill it" in done.stderr


def test_limits_that_an_operator_sets_reach_every_process(tmp_path: Path) -> None:
    wanted = {
        "POSTBOTE_MAX_IN_FLIGHT": "1000",
        "POSTBOTE_MAX_IN_FLIGHT_PER_WEBHOOK": "100",
        "POSTBOTE_MAX_IN_FLIGHT_PER_ORIGIN": "500",
        "POSTBOTE_MAX_WEBHOOKS_PER_CHANNEL": "7",
        "POSTBOTE_RATE_LIMIT": "50",
        "POSTBOTE_TIME_TO_LIVE_S": "3600",
        "POSTBOTE_DISABLE_AFTER_S": "86400",
        "POSTBOTE_WEBHOOK_TIMEOUT_S": "5",
        "POSTBOTE_BOT_TIMEOUT_S": "10",
    }
    for limits in (wanted, dict.fromkeys(wanted, "")):
        variables = dict.fromkeys(required(), "0123456789abcdef") | {
            name: v for name, v in limits.items() if v
        }
        env_file = tmp_path / "env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        clean = {name: value for name, value in os.environ.items() if name not in wanted}
        done = subprocess.run(
            ["docker", "compose", "--env-file", str(env_file), "config", "--format", "json"],
            cwd=ROOT,
            env=clean,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        services = json.loads(done.stdout)["services"]
        for service in ("api", "bot", "deliver"):
            given = services[service]["environment"]
            # An empty one has the default, as if it were not there.
            assert {name: given[name] for name in wanted} == limits, service


def test_rabbitmq_takes_no_more_messages_before_its_memory_is_used_up(deployment: Deployment) -> None:
    container = deployment.containers("rabbitmq")[0]
    has = int(docker("inspect", "-f", "{{.HostConfig.Memory}}", container))
    status = json.loads(docker("exec", container, "rabbitmqctl", "-q", "status", "--formatter", "json"))
    # By itself it counts on the memory of the machine, and is killed in place of refusing messages.
    assert 0.5 * has < status["vm_memory_high_watermark_limit"] < 0.8 * has
    wal = docker(
        "exec", container, "rabbitmqctl", "-q", "eval", "application:get_env(ra, wal_max_size_bytes)."
    )
    # RabbitMQ's guide to quorum queues asks for three to four times as much memory, above what it has at rest.
    assert (
        int(wal.strip().removeprefix("{ok,").removesuffix("}")) * 4 < status["vm_memory_high_watermark_limit"]
    )


async def test_messages_arrive_while_it_is_scaled_a_worker_is_killed_and_rabbitmq_restarts(
    deployment: Deployment, api: Api, receiver: Receiver, pytestconfig: pytest.Config
) -> None:
    channel, token = await api.channel()
    await api.webhook(channel, receiver, "/hook")
    said = 0

    async def speak(rounds: int) -> None:
        nonlocal said
        for number in range(said, said + rounds):
            await asyncio.gather(*(say(api, channel, token, user, number) for user in USERS))
        said += rounds

    async def all_there(what: str) -> None:
        await until(lambda: receiver.distinct("/hook") == said * len(USERS), ARRIVAL_S, what)

    await speak(3)
    await all_there("the first have come")
    speaking = asyncio.create_task(speak(30))
    await asyncio.to_thread(
        deployment.run, "up", "-d", "--no-build", "--no-recreate", "--wait", "--scale", "bot=3", "--scale",
        "deliver=3", "api", "bot", "deliver",
    )  # fmt: skip
    await speaking
    await all_there("all have come while it was scaled")
    assert len(deployment.containers("bot")) == len(deployment.containers("deliver")) == 3

    speaking = asyncio.create_task(speak(30))
    for service in ("deliver", "bot"):
        await asyncio.to_thread(docker, "kill", deployment.containers(service)[0])
    await speaking
    await all_there("all have come though two workers were killed")
    await asyncio.to_thread(deployment.run, "up", "-d", "--no-build", "--no-recreate", "--scale", "bot=3",
                            "--scale", "deliver=3", "api", "bot", "deliver")  # fmt: skip

    speaking = asyncio.create_task(speak(20))
    await asyncio.to_thread(deployment.run, "restart", "rabbitmq")
    await speaking
    await all_there("all have come though RabbitMQ restarted")

    for user in USERS:
        assert receiver.first_arrivals("/hook", user) == list(range(1, said + 1)), user
    assert receiver.unsigned == 0
    # What was in flight at the workers that were killed, and no more.
    assert receiver.repeats("/hook") <= 2 * 200 * 8
    pytestconfig.get_terminal_writer().line(
        f"\n{said * len(USERS)} messages: lost 0, out of order 0, repeated {receiver.repeats('/hook')}"
    )


async def test_an_outside_publisher_may_publish_to_the_one_exchange_and_do_nothing_else(
    deployment: Deployment, api: Api, receiver: Receiver
) -> None:
    channel, _ = await api.channel()
    await api.webhook(channel, receiver, "/outside")
    password = deployment.variables["RABBITMQ_PUBLISHER_PASSWORD"]
    url = f"amqp://publisher:{password}@{deployment.variables['RABBITMQ_PUBLISH']}/"
    message = aio_pika.Message(
        b'{"channelId": "%s", "user": {"id": "x"}, "message": {"textMessage": {"text": "hello"}}}'
        % channel.encode(),
        message_id="one",
    )
    connection = await aio_pika.connect(url, timeout=10)
    async with connection:
        async with connection.channel() as open_channel:
            exchange = await open_channel.get_exchange("postbote.messages", ensure=False)
            await exchange.publish(message, "")
        await until(lambda: receiver.distinct("/outside") == 1, ARRIVAL_S, "its message is answered")

        async def ignored(_: object) -> None:
            """Nothing ever comes."""

        async def attempt(what: str) -> None:
            async with connection.channel() as channel:
                match what:
                    case "declare":
                        await channel.declare_queue("postbote.mine", durable=True)
                    case "consume":
                        queue = await channel.get_queue("postbote.messages", ensure=False)
                        await queue.consume(ignored)
                    case "default exchange":
                        await channel.default_exchange.publish(message, "postbote.inbound.p00")
                    case exchange:
                        found = await channel.get_exchange(exchange, ensure=False)
                        await found.publish(message, "response.x.text.p00")

        for what in (
            "declare",
            "consume",
            "default exchange",
            "postbote.responses",
            "postbote.inbound",
            "postbote.dead",
            "postbote.control",
        ):
            with pytest.raises((AMQPError, ConnectionError)):
                await attempt(what)


def test_the_image_runs_as_nobody_in_particular_without_a_compiler(deployment: Deployment) -> None:
    container = deployment.containers("deliver")[0]
    assert docker("exec", container, "id", "-u").strip() == "10001"
    for forbidden in ("command -v gcc", "command -v cc", "touch /opt/postbote/x", "touch /x"):
        tried = subprocess.run(["docker", "exec", container, "sh", "-c", forbidden], capture_output=True)
        assert tried.returncode != 0, forbidden
    assert docker("exec", container, "postbote", "health") == ""
