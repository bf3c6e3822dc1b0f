"""The command line against a running Postbote, as a person uses it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from processes import Process, until
from servers.process import free_port


class Shell:
    """Runs `postbote …` with the settings of one deployment."""

    def __init__(self, folder: Path, port: int) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("POSTBOTE_")}
        settings = {"POSTBOTE_DATA_DIR": str(folder / "data"), "POSTBOTE_PORT": str(port)}
        self.environment = {**clean, **settings, "NO_COLOR": "1", "COLUMNS": "140", "TERMINAL_WIDTH": "140"}

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        """Start a command."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "consumers.cli.main",
            *words,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str, code: int = 0) -> str:
        """Run a command to its end, and return all it printed."""
        child = await self.start(*words)
        out, err = await asyncio.wait_for(child.communicate(), 30)
        printed = (out + err).decode()
        assert child.returncode == code, printed
        assert "Traceback" not in printed
        return printed


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    opened = Shell(tmp_path, free_port())
    process = Process("run", {**opened.environment, "POSTBOTE_DEMO": "1"}, tmp_path / "run.log")
    await process.start()
    yield opened
    await process.kill()


async def test_channels_and_webhooks_from_creation_to_deletion(shell: Shell) -> None:
    channel = json.loads(await shell.run("channels", "create", "Support", "--bot", "echo", "--json"))
    assert channel["accessToken"]
    assert channel["id"] in await shell.run("channels", "list")
    assert "Help desk" in await shell.run("channels", "update", channel["id"], "--name", "Help desk")
    url = "https://example.com/hook"
    created = await shell.run(
        "webhooks", "create", channel["id"], url, "--header", "X-Tenant: acme", "--json"
    )
    webhook = json.loads(created)
    assert webhook["secret"].startswith("whsec_")
    assert url in await shell.run("webhooks", "list", channel["id"])
    assert json.loads(await shell.run("webhooks", "show", webhook["id"], "--json"))["headers"] == {
        "X-Tenant": "acme"
    }
    policy = ("--retry", "1", "--retry", "60", "--time-to-live", "600", "--rate-limit", "2.5")
    changed = json.loads(await shell.run("webhooks", "update", webhook["id"], *policy, "--json"))
    assert (changed["retrySchedule"], changed["timeToLiveSeconds"], changed["rateLimit"]) == (
        [1, 60],
        600,
        2.5,
    )
    assert "no" in await shell.run("webhooks", "update", webhook["id"], "--disable")
    rotated = json.loads(await shell.run("webhooks", "rotate-secret", webhook["id"], "--json"))
    assert rotated["secret"] != webhook["secret"]
    await shell.run("webhooks", "delete", webhook["id"])
    assert "No webhooks yet" in await shell.run("webhooks", "list", channel["id"])
    await shell.run("channels", "delete", channel["id"], "--yes")
    assert channel["id"] not in await shell.run("channels", "list")


async def test_send_waits_for_the_answers_and_shows_them(shell: Shell) -> None:
    printed = await shell.run("send", "my name is Ada", "--wait", "10")
    assert "Nice to meet you, Ada." in printed
    assert "Coffee" in printed
    assert "coffee, coming up" in await shell.run(
        "send", "Coffee", "--payload", "drink:coffee", "--wait", "10"
    )
    assert "51.0500, 3.7200" in await shell.run("send", "--location", "51.05,3.72", "--wait", "10")
    assert "delivered" in await shell.run("webhooks", "deliveries", "demo")


async def test_listen_registers_itself_shows_what_comes_and_goes_away(shell: Shell) -> None:
    listening = await shell.start("listen", "--json", "--count", "2")
    assert listening.stderr is not None
    await asyncio.wait_for(listening.stderr.readline(), 20)
    await shell.run("send", "hello", "--user", "ada")
    out, _ = await asyncio.wait_for(listening.communicate(), 20)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["body"]["messageCounter"] for line in lines] == [1, 2]
    assert [line["headers"]["postbote-turn"] for line in lines] == ["1/2", "2/2"]
    assert all(line["checks"] == {"signature": "ok", "token": "ok", "order": "next"} for line in lines)
    hooks = json.loads(await shell.run("webhooks", "list", "demo", "--json"))
    assert len(hooks) == 1, "only the demo's own is left"


async def test_listen_deletes_its_webhook_when_it_is_told_to_end(shell: Shell) -> None:
    listening = await shell.start("listen")
    assert listening.stderr is not None
    await asyncio.wait_for(listening.stderr.readline(), 20)
    listening.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(listening.wait(), 5) == 0
    assert len(json.loads(await shell.run("webhooks", "list", "demo", "--json"))) == 1


async def test_a_webhook_that_answers_is_tested_with_success_and_one_that_does_not_without(
    shell: Shell,
) -> None:
    (hook,) = json.loads(await shell.run("webhooks", "list", "demo", "--json"))
    assert "200" in await shell.run("webhooks", "test", hook["id"])
    await shell.run("webhooks", "update", hook["id"], "--url", "http://127.0.0.1:1/")
    assert "connection" in await shell.run("webhooks", "test", hook["id"], code=1)


async def test_failures_say_what_to_do(tmp_path: Path) -> None:
    shell = Shell(tmp_path, free_port())
    assert "POSTBOTE_ADMIN_TOKEN" in await shell.run("channels", "list", code=1)
    shell.environment["POSTBOTE_ADMIN_TOKEN"] = "x" * 16
    assert "postbote run" in await shell.run("channels", "list", code=1)
    assert "POSTBOTE_AMQP_URL" in await shell.run("api", code=1)
    shell.environment["POSTBOTE_PORT"] = "many"
    assert "POSTBOTE_PORT" in await shell.run("run", code=1)


async def test_a_port_in_use_is_told_without_a_traceback(shell: Shell, tmp_path: Path) -> None:
    shell.environment["POSTBOTE_DATA_DIR"] = str(tmp_path / "other")
    assert "POSTBOTE_PORT" in await shell.run("run", code=1)


async def test_help_names_every_command(tmp_path: Path) -> None:
    printed = await Shell(tmp_path, 1).run("--help")
    commands = (
        "run",
        "api",
        "bot",
        "deliver",
        "migrate",
        "send",
        "listen",
        "channels",
        "webhooks",
        "dead-letters",
    )
    for command in commands:
        assert command in printed
        assert "Usage" in await Shell(tmp_path, 1).run(command, "--help")


async def test_the_first_start_keeps_its_tokens_to_their_owner(shell: Shell) -> None:
    data = Path(shell.environment["POSTBOTE_DATA_DIR"])
    for name in ("admin-token", "demo-token"):
        mode = (data / name).stat().st_mode & 0o777
        assert mode == 0o600, name
    await until(lambda: (data / "queues.db").exists(), 1, "the queues' file")
