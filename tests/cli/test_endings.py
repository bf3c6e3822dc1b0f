"""How commands end that cannot do their work, or whose reader is gone: in one line, without a secret."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from processes import Process, until
from servers.process import free_port

from broker.registry.database import Database
from broker.registry.webhooks import Webhooks

SECRET = "S3cret-word"


class Here:
    """Runs `postbote …` in a folder, as a deployment of one process."""

    def __init__(self, folder: Path, **settings: str) -> None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("POSTBOTE_")}
        place = {"POSTBOTE_DATA_DIR": str(folder / "data"), "POSTBOTE_PORT": str(free_port())}
        self.environment = {**clean, **place, "NO_COLOR": "1", "COLUMNS": "140", **settings}

    async def start(self, *words: str, stdout: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
        """Start a command."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "consumers.cli.main",
            *words,
            env=self.environment,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
        )

    async def fails(self, *words: str, stdout: int = asyncio.subprocess.PIPE) -> str:
        """Run a command that fails, and return the one line that it says."""
        child = await self.start(*words, stdout=stdout)
        _, err = await asyncio.wait_for(child.communicate(), 30)
        said = err.decode()
        assert child.returncode == 1, said
        assert "Traceback" not in said
        assert SECRET not in said
        (line,) = said.splitlines()
        return line


@pytest.fixture
async def odd(tmp_path: Path) -> AsyncIterator[Here]:
    """Provide a deployment with a demo at an IPv6 address, in a folder with signs, on a terminal of ASCII."""
    here = Here(
        tmp_path,
        POSTBOTE_HOST="::1",
        POSTBOTE_DATA_DIR=str(tmp_path / "what? #1 100%"),
        POSTBOTE_DEMO="1",
        PYTHONIOENCODING="ascii",
    )
    process = Process("run", here.environment, tmp_path / "run.log")
    await process.start()
    yield here
    await process.kill()


async def test_signs_in_a_folder_an_address_in_brackets_and_a_terminal_without_a_check_mark(
    odd: Here, tmp_path: Path
) -> None:
    child = await odd.start("send", "hello", "--wait", "10")
    out, err = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 0, err
    assert b"Hello" in out
    await until(lambda: "signed" in (tmp_path / "run.log").read_text(), 10, "the demo receiver's check mark")
    assert "\\u2713 signed" in (tmp_path / "run.log").read_text()
    child = await odd.start("webhooks", "deliveries", "demo", "--json")
    out, _ = await asyncio.wait_for(child.communicate(), 30)
    assert {delivery["attemptCount"] for delivery in json.loads(out)} == {1}
    assert (tmp_path / "what? #1 100%" / "registry.db").exists()
    assert not (tmp_path / "what").exists()


async def test_a_listener_whose_reader_is_gone_takes_its_webhook_along(odd: Here) -> None:
    reader, writer = os.pipe()
    listening = await odd.start("listen", "--json", stdout=writer)
    os.close(writer)
    assert listening.stderr is not None
    await asyncio.wait_for(listening.stderr.readline(), 20)
    os.close(reader)
    sending = await odd.start("send", "hello")
    await asyncio.wait_for(sending.communicate(), 30)
    assert await asyncio.wait_for(listening.wait(), 20) == 0
    assert b"Traceback" not in await listening.stderr.read()
    assert len(await webhooks(odd)) == 1


async def test_the_webhook_of_a_listener_that_was_killed_expires(odd: Here) -> None:
    listening = await odd.start("listen")
    assert listening.stderr is not None
    await asyncio.wait_for(listening.stderr.readline(), 20)
    listening.send_signal(signal.SIGKILL)
    await listening.wait()
    (left,) = [hook for hook in await webhooks(odd) if hook["expiresAt"] is not None]
    # Two minutes are too long for a test: they are over now.
    database = Database(f"sqlite:///{odd.environment['POSTBOTE_DATA_DIR']}/registry.db")
    await Webhooks(database).renew(str(left["id"]), datetime.now(UTC))
    await database.close()
    async with asyncio.timeout(30):
        while left["id"] in {hook["id"] for hook in await webhooks(odd)}:
            pass
    assert len(await webhooks(odd)) == 1


async def webhooks(here: Here) -> list[dict[str, object]]:
    child = await here.start("webhooks", "list", "demo", "--json")
    out, _ = await asyncio.wait_for(child.communicate(), 30)
    found: list[dict[str, object]] = json.loads(out)
    return found


async def test_output_to_a_full_disk_is_told_in_a_line(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    said = await Here(tmp_path).fails("version", stdout=full)
    assert said.strip() == "Standard output cannot be written: No space left on device."
    os.close(full)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("POSTBOTE_AMQP_URL", f"amqp://u:p#{SECRET}@127.0.0.1:1/"),
        ("POSTBOTE_AMQP_URL", f"amqp://u:1/{SECRET}@127.0.0.1:1/"),
        ("POSTBOTE_DATABASE_URL", f"postgresql://u@127.0.0.1:1/d?sslmode=odd&password={SECRET}"),
    ],
)
async def test_a_url_of_a_server_never_tells_its_password(name: str, url: str, tmp_path: Path) -> None:
    child = await Here(tmp_path, **{name: url}).start("migrate")
    _, err = await asyncio.wait_for(child.communicate(), 30)
    said = err.decode()
    assert child.returncode == 1
    assert SECRET not in said
    assert "Traceback" not in said
    assert name in said or "database cannot be used" in said


async def test_what_the_migration_says_holds_no_password(tmp_path: Path, postgres_url: str) -> None:
    separator = "&" if "?" in postgres_url else "?"
    url = f"{postgres_url}{separator}password={SECRET}"
    child = await Here(tmp_path, POSTBOTE_DATABASE_URL=url, POSTBOTE_PORT="tcp://10.96.0.17:8080").start(
        "migrate"
    )
    _, err = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 0
    assert "database.migrated" in err.decode()
    assert "settings.port_of_kubernetes" in err.decode()
    assert SECRET not in err.decode()


async def test_a_data_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert "POSTBOTE_DATA_DIR" in await Here(tmp_path).fails("run")
    below = Here(tmp_path, POSTBOTE_DATA_DIR=str(tmp_path / "data" / "below"))
    assert "POSTBOTE_DATA_DIR" in await below.fails("run")


async def test_a_folder_for_bodies_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("missing", "file"):
        here = Here(tmp_path, POSTBOTE_SPOOL_DIR=str(tmp_path / folder))
        assert "POSTBOTE_SPOOL_DIR" in await here.fails("run")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "localhost:8080", "file:///etc/passwd"])
async def test_an_address_of_the_api_that_is_none_of_http_is_told(url: str, tmp_path: Path) -> None:
    here = Here(tmp_path, POSTBOTE_URL=url, POSTBOTE_ADMIN_TOKEN="x" * 16)
    assert "POSTBOTE_URL has to begin with http" in await here.fails("channels", "list")


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
async def test_a_number_that_is_none_is_told_as_such(number: str, tmp_path: Path) -> None:
    here = Here(tmp_path, POSTBOTE_ADMIN_TOKEN="x" * 16)
    assert "infinite" in await here.fails("channels", "create", "c", f"--time-to-live={number}")


@pytest.mark.parametrize("name", ["registry.db", "queues.db"])
async def test_a_file_that_is_no_database(name: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text("Dear diary, " * 1000)
    assert "not a database" in await Here(tmp_path).fails("run")


UNEXPECTED = f"""
from consumers.cli import main

@main.app.command()
def strange() -> None:
    raise ExceptionGroup("several", [ValueError("cannot read amqp://u:{SECRET}@h/ and password={SECRET}")])

main.main()
"""


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_an_error_that_nobody_expected_is_one_line_and_more_of_it_where_that_is_asked_for(
    level: str, tmp_path: Path
) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        UNEXPECTED,
        "strange",
        env={**Here(tmp_path).environment, "POSTBOTE_LOG_LEVEL": level},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(child.communicate(), 30)
    said = err.decode()
    assert child.returncode == 1
    assert SECRET not in said
    assert "ValueError: cannot read amqp://u:***@h/" in said
    assert ("Traceback" in said) == (level == "debug")
    assert len(said.splitlines()) == 1 or level == "debug"


LOGGING = f"""
import structlog
from broker.settings import read_settings
from consumers.logs import configure_logs

class Wordless:
    def __repr__(self) -> str:
        raise ValueError("no words")

def fail() -> None:
    password = "{SECRET}"
    raise OSError("cannot connect to postgresql://u:{SECRET}@h/d")

configure_logs(read_settings())
log = structlog.get_logger()
log.warning("wordless", field=Wordless())
try:
    fail()
except OSError:
    log.exception("failed")
log.info("still there")
"""


@pytest.mark.parametrize("form", ["console", "json"])
async def test_a_log_call_never_raises_and_tells_no_secret_of_an_error_or_its_frames(
    form: str, tmp_path: Path
) -> None:
    environment = {**Here(tmp_path).environment, "POSTBOTE_LOG_FORMAT": form}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOGGING, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(child.communicate(), 30)
    said = err.decode()
    assert child.returncode == 0, said
    assert "wordless" in said
    assert "cannot connect to postgresql://u:***@h/d" in said
    assert "still there" in said
    assert SECRET not in said
