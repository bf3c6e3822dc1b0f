"""What holds secrets is its owner's alone, whatever the umask, and also where it was made without that."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.embedded.store import QueueFile
from broker.errors import PostboteError, SettingsError
from broker.private_files import private_folder
from broker.registry.migration import migrate
from broker.topology import Topology
from consumers.credentials import kept_token


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o077], ids="umask {0:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {entry.name: oct(entry.stat().st_mode & 0o777) for entry in folder.iterdir()}


async def test_a_new_data_folder_and_all_in_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    private_folder(data)
    await migrate(f"sqlite:///{data / 'registry.db'}")
    kept_token(data / "admin-token")
    queues = QueueFile(data / "queues.db", Topology(4))
    found = modes(data)
    queues.close()
    assert data.stat().st_mode & 0o777 == 0o700
    assert {
        "registry.db",
        "queues.db",
        "queues.db-wal",
        "queues.db-shm",
        "queues.db.lock",
        "admin-token",
    } <= set(found)
    assert set(found.values()) == {"0o600"}


async def test_what_was_made_for_all_to_read_is_tightened(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    registry = sqlite3.connect(data / "registry.db")
    registry.execute("PRAGMA journal_mode=WAL")
    registry.execute("CREATE TABLE secret (word)")
    (data / "admin-token").write_text("a-token-of-24-characters")
    for entry in data.iterdir():
        entry.chmod(0o644)
    private_folder(data)
    await migrate(f"sqlite:///{data / 'registry.db'}")
    kept_token(data / "admin-token")
    registry.close()
    assert data.stat().st_mode & 0o777 == 0o700
    assert set(modes(data).values()) == {"0o600"}


def test_a_folder_that_is_also_for_other_things_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "photographs").mkdir()
    private_folder(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_what_is_no_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "data", Path("/proc/data")):
        with pytest.raises(SettingsError, match="POSTBOTE_DATA_DIR"):
            private_folder(path)


async def test_a_file_that_is_no_database_of_ours_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "passwd"
    other.write_text("root:x:0:0:root:/root:/bin/sh\n")
    other.chmod(0o644)
    with pytest.raises(PostboteError):
        await migrate(f"sqlite:///{other}")
    with pytest.raises(PostboteError):
        QueueFile(other, Topology(1))
    assert other.stat().st_mode & 0o777 == 0o644
    assert other.read_text() == "root:x:0:0:root:/root:/bin/sh\n"
