"""A worker's health: its file is fresh while the loop turns, and says which queues are not served."""

import asyncio
import os
import resource
from pathlib import Path

import pytest
import structlog.testing

from consumers import health
from consumers.health import LASTED_S, MOST_FAILURES, Health, beat, complaint


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_queue_whose_sessions_fail_again_and_again_is_told_until_they_last():
    clock = Clock()
    found = Health(clock)
    for number in range(MOST_FAILURES):
        assert found.complaint() == "", number
        found.failed("postbote.inbound.p03")
        clock.now += 1.0
    found.failed("postbote.inbound.p04")
    assert "postbote.inbound.p03 (5 times)" in found.complaint()
    assert "p04" not in found.complaint()
    clock.now += LASTED_S
    assert found.complaint() == ""
    found.failed("postbote.inbound.p03")
    assert found.complaint() == "", "what lasted is no failure again and again"


def test_failures_that_are_far_apart_are_no_complaint():
    clock = Clock()
    found = Health(clock)
    for _ in range(10 * MOST_FAILURES):
        found.failed("q")
        assert found.complaint() == ""
        clock.now += LASTED_S


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(health.VARIABLE, str(tmp_path / "alive"))
    monkeypatch.setattr(health, "BEAT_S", 0.01)
    return tmp_path / "alive"


async def until_said(part: str | None) -> None:
    """Wait until the command says something with these words; None for that all is well."""
    async with asyncio.timeout(10):
        while (said := complaint()) != part and (said is None or part is None or part not in said):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_command_says_what_the_process_found(file):
    clock = Clock()
    found = Health(clock)
    beating = asyncio.create_task(beat(found))
    await until_said(None)
    for _ in range(MOST_FAILURES):
        found.failed("postbote.responses")
    await until_said("postbote.responses (5 times)")
    clock.now += LASTED_S
    await until_said(None)
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    os.utime(file, (0, 0))
    assert "hangs, or has ended" in str(complaint())


async def test_a_beat_that_cannot_be_written_is_not_the_last_one(file):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    beating = asyncio.create_task(beat(Health()))
    await until_said(None)
    try:
        with structlog.testing.capture_logs() as logs:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            file.unlink()
            async with asyncio.timeout(10):
                while not logs and not beating.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until_said(None)
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
