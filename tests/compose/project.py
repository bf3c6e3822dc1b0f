"""A project of docker compose under test: what `docker compose` is told, and messages that are posted to it."""

import asyncio
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
from processes import Api
from servers.process import free_port, output_of
from testcontainers.compose import DockerCompose

ROOT = Path(__file__).parents[2]
USERS = [f"user-{number:02}" for number in range(40)]
#: How long the whole deployment may take to be ready, and all messages to arrive after a fault, in seconds.
UP_S, ARRIVAL_S = 240.0, 120.0


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
        return output_of([*self.compose.compose_command_property, *arguments], ROOT, within_s)

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


@contextmanager
def deployed(folder: Path, *profiles: str) -> Iterator[Deployment]:
    """Build the image, bring a deployment up, and take it down with its volumes."""
    variables = {name: secrets.token_hex(24) for name in required()} | {
        "COMPOSE_PROJECT_NAME": f"postbote-test-{secrets.token_hex(4)}",
        "COMPOSE_PROFILES": ",".join(profiles),
        "POSTBOTE_IMAGE": "postbote:compose-test",
        "POSTBOTE_PUBLISH": f"127.0.0.1:{free_port()}",
        "RABBITMQ_PUBLISH": f"127.0.0.1:{free_port()}",
        "RABBITMQ_MANAGEMENT_PUBLISH": f"127.0.0.1:{free_port()}",
        "POSTBOTE_WEBHOOK_ALLOW_NETWORKS": "172.16.0.0/12,192.168.0.0/16,10.0.0.0/8",
        "POSTBOTE_PARTITIONS": "8",
    }
    build = ["build", "-q", "-t", variables["POSTBOTE_IMAGE"], "--network", "host", str(ROOT)]
    subprocess.run(["docker", *build], check=True, timeout=UP_S, stdout=subprocess.DEVNULL)
    project = Deployment(folder / "env", variables)
    try:
        project.run("up", "-d", "--no-build", "--wait", "api", "bot", "deliver")
        yield project
    finally:
        project.run("down", "-v", "--timeout", "20")


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
