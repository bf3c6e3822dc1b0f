"""A full disk is told by /readyz, and over as soon as there is room."""

import asyncio
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from deployment import Deployment
from processes import READY_S


@pytest.fixture
def small_disk(embedded: Deployment) -> tuple[str, ...]:
    """Provide what starts a process whose data lie on a small disk of its own."""
    folder = Path(embedded.environment["POSTBOTE_DATA_DIR"])
    folder.mkdir()
    under = ("unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=32m none {folder} && exec "$@"', "sh")
    try:
        subprocess.run((*under, "true"), check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a file system of its own")
    return under


def fill(path: Path) -> None:
    """Write a file until there is no room for more."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(64 * 1024))


async def checks_of(deployment: Deployment) -> dict[str, str]:
    """Ask what each check says; the status agrees."""
    async with deployment.api.session.get(f"{deployment.api.base}/readyz") as answer:
        found: dict[str, str] = (await answer.json())["checks"]
        assert answer.status == (200 if set(found.values()) == {"ok"} else 503)
        return found


async def until_said(deployment: Deployment, words: str) -> None:
    """Wait until each check begins with these words."""
    async with asyncio.timeout(READY_S):
        while not all(said.startswith(words) for said in (await checks_of(deployment)).values()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_full_disk_is_told_by_readyz_until_there_is_room(
    embedded: Deployment, small_disk: tuple[str, ...]
) -> None:
    (process,) = await embedded.start("run", under=small_disk)
    assert set((await checks_of(embedded)).values()) == {"ok"}
    filling = Path(f"/proc/{process.pid}/root{embedded.environment['POSTBOTE_DATA_DIR']}/filling")
    await asyncio.to_thread(fill, filling)
    await until_said(embedded, "the disk is full")
    await asyncio.to_thread(filling.unlink)
    await until_said(embedded, "ok")
    channel, token = await embedded.api.channel()
    assert await embedded.api.say(channel, token, "ada", "hello") == 200
