"""Redriving from the command line, against a running Postbote."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from processes import ADMIN, ARRIVAL_S, Api, Process, Receiver, open_receiver
from servers.process import free_port

from broker.registry.database import Database
from broker.registry.dead_letters import DeadLetters
from broker.registry.migration import migrate
from broker.registry.records import DeadLetter

HOSTILE = "red \x1b[31m \x9b31m \u202egnp.exe"


class Office:
    """A running Postbote, with its commands and its API."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        port = free_port()
        clean = {key: value for key, value in os.environ.items() if not key.startswith("POSTBOTE_")}
        self.environment = {
            **clean,
            "POSTBOTE_DATA_DIR": str(folder),
            "POSTBOTE_PORT": str(port),
            "POSTBOTE_ADMIN_TOKEN": ADMIN,
            "NO_COLOR": "1",
        }
        self.database = f"sqlite:///{folder / 'registry.db'}"
        self.api = Api(session, f"http://127.0.0.1:{port}")
        self.process = Process("run", {**self.environment, "POSTBOTE_DEMO": "1"}, folder / "run.log")

    async def start_command(self, *words: str) -> asyncio.subprocess.Process:
        """Start `postbote …`."""
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
        """Run `postbote …` to its end, and return what it printed: never anything that a terminal obeys."""
        child = await self.start_command(*words)
        out, err = await asyncio.wait_for(child.communicate(), 30)
        printed = (out + err).decode()
        assert child.returncode == code, printed
        assert "Traceback" not in printed
        assert not set("\x1b\x9b\u202e") & set(printed)
        return printed

    async def responses(self, count: int) -> list[str]:
        """Wait until the bot has said so much to ada, and return it."""
        async with asyncio.timeout(ARRIVAL_S):
            while True:
                found: Any = await self.api.admin("GET", "/v1/channels/demo/conversations/ada/responses")
                if len(found["items"]) >= count:
                    return [item["inReplyTo"] for item in found["items"]]
                await asyncio.sleep(0.05)

    async def status(self, channel: str, *wanted: str) -> None:
        """Wait until the channel's deliveries, newest first, are as they are wanted."""
        async with asyncio.timeout(ARRIVAL_S):
            while True:
                found: Any = await self.api.admin("GET", f"/v1/channels/{channel}/deliveries")
                if [item["status"] for item in found["items"]] == list(wanted):
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with aiohttp.ClientSession() as session:
        yield (opened := Office(tmp_path, session))
        await opened.process.kill()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as opened:
        yield opened


async def test_a_dead_delivery_is_found_looked_at_and_redriven(office: Office, receiver: Receiver) -> None:
    await office.process.start()
    channel, token = await office.api.channel()
    webhook = await office.api.webhook(channel, receiver, "/hook")
    assert "No deliveries yet" in await office.run("deliveries", "list", channel)
    receiver.answer = lambda path: 400
    for user in (HOSTILE, "bob"):
        assert await office.api.say(channel, token, user, HOSTILE) == 200
    await office.status(channel, "dead", "dead")
    assert "No such deliveries" in await office.run("deliveries", "list", channel, "--status", "expired")
    listed = await office.run("deliveries", "list", channel, "--status", "dead", "--webhook", webhook)
    (bob, ada) = json.loads(await office.run("deliveries", "list", channel, "--json"))
    assert bob["id"] in listed
    assert ada["userId"] == HOSTILE
    shown = await office.run("deliveries", "show", ada["id"])
    assert "the endpoint refused it with 400" in shown
    attempts = [line.split() for line in shown.splitlines() if line[:1].isdigit()]
    assert [(words[0], words[3]) for words in attempts] == [("1", "400"), ("2", "400"), ("3", "400")]
    whole = json.loads(await office.run("deliveries", "show", ada["id"], "--json"))
    assert whole["response"]["message"] == {"text": HOSTILE}

    receiver.answer = lambda path: 200
    redriven = json.loads(await office.run("deliveries", "redrive", ada["id"], "--json"))
    assert (redriven["status"], redriven["attemptsBefore"]) == ("pending", 3)
    await office.status(channel, "dead", "delivered")
    refused = await office.run("deliveries", "redrive", ada["id"], code=1)
    assert "only a dead or an expired one can be redriven" in refused
    assert "Redriven: 0." in await office.run("webhooks", "redrive", webhook, "--since", "0s")
    done = json.loads(await office.run("webhooks", "redrive", webhook, "--since", "1h", "--json"))
    assert done == {"redriven": 1}
    await office.status(channel, "delivered", "delivered")
    assert "delivered" in await office.run("deliveries", "show", bob["id"])
    assert "There is no such delivery" in await office.run("deliveries", "show", "nothing", code=1)
    assert "There is no such webhook" in await office.run("webhooks", "redrive", "nothing", code=1)
    assert "neither a time ago" in await office.run("webhooks", "redrive", webhook, "--since", "soon", code=2)
    assert "has no offset" in await office.run(
        "webhooks", "redrive", webhook, "--since", "2026-01-01T00:00:00", code=2
    )


def letter(number: int, stage: str, body: object, age: timedelta) -> DeadLetter:
    identity = f"00000000-0000-0000-0000-{number:012d}"
    text = json.dumps(body).encode()
    return DeadLetter(identity, stage, HOSTILE, HOSTILE, None, "a.b", {}, text, datetime.now(UTC) - age)


async def test_dead_letters_are_found_looked_at_and_redriven(office: Office) -> None:
    await migrate(office.database)
    database = Database(office.database)

    def said(text: str) -> dict[str, Any]:
        return {"channelId": "demo", "user": {"id": "ada"}, "message": {"textMessage": {"text": text}}}

    letters = [
        letter(1, "intake", said("one"), timedelta(days=2)),
        letter(2, "intake", said("two"), timedelta(days=1)),
        letter(3, "nowhere", {}, timedelta(hours=1)),
        letter(4, "intake", said("four"), timedelta(hours=1)),
    ]
    await DeadLetters(database).add(letters)
    await database.close()
    await office.process.start()

    listed = await office.run("dead-letters", "list", "--stage", "intake")
    assert [one.id in listed for one in letters] == [True, True, False, True]
    assert "No such dead letters" in await office.run("dead-letters", "list", "--channel", "nobody")
    assert json.loads(await office.run("dead-letters", "--limit", "1", "--json"))[0]["id"] == letters[3].id
    assert json.loads(await office.run("dead-letters", "show", letters[0].id, "--json"))["reason"] == HOSTILE
    assert "bodyEncoding" in await office.run("dead-letters", "show", letters[0].id)

    assert "redrivenAt" in await office.run("dead-letters", "redrive", letters[1].id)
    first = await office.responses(1)
    # Once more is the same message, which is answered once.
    await office.run("dead-letters", "redrive", letters[1].id)
    refused = await office.run("dead-letters", "redrive", letters[2].id, code=1)
    assert "cannot be redriven" in refused
    printed = await office.run("dead-letters", "redrive", "--all", "--stage", "intake", "--since", "3h")
    assert "Redriven: 1." in printed
    told = json.loads(await office.run("dead-letters", "redrive", "--all", "--json"))
    assert told == {"redriven": 1, "refused": 1}
    assert "says why" in await office.run("dead-letters", "redrive", "--all")
    answered = await office.responses(len(first) * 3)
    assert len(set(answered)) == 3
    for words in ([], [letters[0].id, "--all"], [letters[0].id, "--stage", "bot"]):
        assert "either the id" in await office.run("dead-letters", "redrive", *words, code=2)


async def test_what_a_bot_says_is_never_obeyed_by_the_terminal_that_listens(office: Office) -> None:
    await office.process.start()
    channel, token = await office.api.channel()
    listening = await office.start_command("listen", "--channel", channel, "--json", "--count", "1")
    assert listening.stderr is not None
    await asyncio.wait_for(listening.stderr.readline(), 20)
    assert await office.api.say(channel, token, "ada", HOSTILE) == 200
    out, _ = await asyncio.wait_for(listening.communicate(), 20)
    printed = out.decode()
    assert not set("\x1b\x9b\u202e") & set(printed)
    assert json.loads(printed)["body"]["message"] == {"text": HOSTILE}


async def test_a_port_in_use_is_told_to_whoever_wants_to_listen(office: Office, receiver: Receiver) -> None:
    await office.process.start()
    taken = receiver.url.rpartition(":")[2]
    assert "--port" in await office.run("listen", "--port", taken, code=1)
