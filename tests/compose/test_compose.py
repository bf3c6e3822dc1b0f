"""The deployment as its users meet it: compose.yaml, real images, real servers, `--scale`, and what goes wrong."""

import asyncio
import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import pytest
from aio_pika.exceptions import AMQPError
from aiohttp import web
from processes import Api, Receiver, free_port, until
from servers.postgres import engine_answers
from testcontainers.compose import DockerCompose

ROOT = Path(__file__).parents[2]
USERS = [f"user-{number:02}" for number in range(40)]
#: How long the whole deployment may take to be ready, and all messages to arrive after a fault, in seconds.
UP_S, ARRIVAL_S = 240.0, 120.0

pytestmark = [
    pytest.mark.compose,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not engine_answers(), reason="no Docker engine answers"),
]


def required() -> list[str]:
    """Name the variables that .env.example leaves empty."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return [line.removesuffix("=") for line in lines if line.endswith("=") and not line.startswith("#")]


class Deployment:
    """One project of compose."""

    def __init__(self, env_file: Path, variables: dict[str, str]) -> None:
        env_file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        self.variables = variables
        self.compose = DockerCompose(context=ROOT, env_file=str(env_file), build=False, wait=False)

    def run(self, *arguments: str, within_s: float = UP_S) -> str:
        """Run `docker compose` on the project; raises with what it said where it fails."""
        done = subprocess.run(
            [*self.compose.compose_command_property, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=within_s,
        )
        if done.returncode:
            raise RuntimeError(f"docker compose {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """List the ids of a service's containers that run."""
        return self.run("ps", "-q", "--status", "running", service).split()

    def gateway(self) -> str:
        """Return the address by which the containers reach this machine."""
        network = f"{self.variables['COMPOSE_PROJECT_NAME']}_default"
        return docker("network", "inspect", network, "-f", "{{(index .IPAM.Config 0).Gateway}}").strip()


def docker(*arguments: str) -> str:
    """Run `docker`."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Bring a deployment up, and take it down with its volumes."""
    variables = {name: secrets.token_hex(24) for name in required()} | {
        "COMPOSE_PROJECT_NAME": f"postbote-test-{secrets.token_hex(4)}",
        "POSTBOTE_IMAGE": "postbote:compose-test",
        "POSTBOTE_PUBLISH": f"127.0.0.1:{free_port()}",
        "RABBITMQ_PUBLISH": f"127.0.0.1:{free_port()}",
        "RABBITMQ_MANAGEMENT_PUBLISH": f"127.0.0.1:{free_port()}",
        "POSTBOTE_WEBHOOK_ALLOW_NETWORKS": "172.16.0.0/12,192.168.0.0/16,10.0.0.0/8",
        "POSTBOTE_PARTITIONS": "8",
    }
    build = ["build", "-q", "-t", variables["POSTBOTE_IMAGE"], "--network", "host", str(ROOT)]
    subprocess.run(["docker", *build], check=True, timeout=UP_S, stdout=subprocess.DEVNULL)
    project = Deployment(tmp_path_factory.mktemp("compose") / "env", variables)
    try:
        project.run("up", "-d", "--no-build", "--wait", "api", "bot", "deliver")
        yield project
    finally:
        project.run("down", "-v", "--timeout", "20")


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[Api]:
    """Talk to the API as it is published on this machine."""
    token = deployment.variables["POSTBOTE_ADMIN_TOKEN"]

    class Administrator(Api):
        async def admin(self, method: str, path: str, body: object = None) -> dict[str, Any]:
            headers = {"Authorization": f"Bearer {token}"}
            async with self.session.request(method, self.base + path, json=body, headers=headers) as answer:
                assert answer.status < 300, await answer.text()
                found: dict[str, Any] = await answer.json()
                return found

    async with aiohttp.ClientSession() as session:
        yield Administrator(session, f"http://{deployment.variables['POSTBOTE_PUBLISH']}")


@pytest.fixture
async def receiver(deployment: Deployment) -> AsyncIterator[Receiver]:
    """Receive on the address by which the containers reach this machine."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host = deployment.gateway()
    await web.TCPSite(runner, host, 0).start()
    receiver.url = f"http://{host}:{runner.addresses[0][1]}"
    yield receiver
    await runner.cleanup()


async def say(api: Api, channel: str, token: str, user: str, number: int) -> None:
    """Post a message until it is accepted, under one key."""
    body = {"message": {"textMessage": {"text": f"{number}"}}, "user": {"id": user}}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"{user}-{number}"}
    url = f"{api.base}/v1/channels/webhook/{channel}/messages"
    give_up = time.monotonic() + ARRIVAL_S
    while time.monotonic() < give_up:
        try:
            async with api.session.post(
                url, json=body, headers=headers, timeout=aiohttp.ClientTimeout(5)
            ) as answer:
                if answer.status == 200:
                    return
                assert answer.status in (429, 503), await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(0.2)
    raise AssertionError(f"message {number} of {user} was not accepted")


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
