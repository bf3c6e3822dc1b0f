"""Standard output and error, whatever became of their reader: no write raises or waits, and what is lost is told."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest

from consumers import background_writer
from consumers.background_writer import BackgroundWriter


class Pipe:
    """A pipe with a writer on it, and what came out at its other end."""

    def __init__(self, *, encoding: str = "utf-8") -> None:
        self.out, end = os.pipe()
        self.stream = os.fdopen(end, "w", encoding=encoding)
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
        self.writer = BackgroundWriter(self.stream, notice)
        self.read = b""

    def read_until(self, wanted: bytes) -> None:
        """Read until a text has come; the test's own timeout ends what never does."""
        while wanted not in self.read:
            self.read += os.read(self.out, 65_536)

    def close(self) -> None:
        """Let go of both ends."""
        with suppress(OSError):
            os.close(self.out)
        self.writer.close(5)
        with suppress(OSError):
            self.stream.close()


def notice(lines: int, why: str) -> str:
    return f"[{lines} lost: {why}]\n"


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    opened.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what the writer's thread brings about, at most 10 s."""
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_lines_come_out_in_order(pipe: Pipe) -> None:
    for number in range(100):
        pipe.writer.write(f"line {number}\n")
    pipe.read_until(b"line 99\n")
    assert pipe.read.decode().splitlines() == [f"line {number}" for number in range(100)]


def test_a_reader_that_stands_still_holds_up_nobody_and_is_told_what_it_missed(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_writer, "MOST_WAITING", 20_000)
    begun = time.monotonic()
    for number in range(1000):
        pipe.writer.write(f"{number:099}\n")
    assert time.monotonic() - begun < 5
    lost = pipe.writer.lost
    assert 700 < lost < 1000
    pipe.read_until(b"lost: its reader does not keep up]\n")
    pipe.writer.write("the end\n")
    pipe.read_until(b"the end\n")
    told = [line for line in pipe.read.decode().splitlines() if line.startswith("[")]
    assert told == [f"[{lost} lost: its reader does not keep up]"]
    assert len(pipe.read.splitlines()) == 1000 - lost + 2
    assert pipe.writer.lost == 0


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.stream.fileno(), False)
    for number in range(1000):
        pipe.writer.write(f"{number:099}\n")
    pipe.read_until(f"{999:099}\n".encode())
    assert len(pipe.read.splitlines()) == 1000


def test_what_is_written_while_nobody_reads_is_counted_and_told_to_who_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_writer, "AGAIN_S", 0.02)
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stream: TextIO = path.open("w")
    writer = BackgroundWriter(stream, notice)
    os.close(reader)
    for number in range(3):
        writer.write(f"nobody reads {number}\n")
    wait_until(lambda: writer.lost == 3)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    wait_until(lambda: writer.lost == 0)
    assert os.read(reader, 1000) == b"[3 lost: Broken pipe]\n"
    writer.close(5)
    os.close(reader)
    stream.close()


def test_a_full_disk_raises_nothing() -> None:
    with Path("/dev/full").open("w") as full:
        writer = BackgroundWriter(full, notice)
        writer.write("a line\n")
        wait_until(lambda: writer.lost == 1)
        writer.close(5)


def test_text_that_the_terminal_lacks_is_written_with_escapes() -> None:
    pipe = Pipe(encoding="ascii")
    pipe.writer.write("✓ \ud800\n")
    pipe.read_until(b"\n")
    assert pipe.read == b"\\u2713 \\ud800\n"
    pipe.close()
