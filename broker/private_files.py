"""Folders and files that only their owner can read, whatever the umask, also where they were made without that."""

import os
from pathlib import Path

from broker.errors import SettingsError

#: What SQLite keeps beside a database, and the lock of the queues' file.
_BESIDE = ("", "-wal", "-shm", "-journal", ".lock")
#: How a database begins that is not empty (https://www.sqlite.org/fileformat.html).
_MAGIC = b"SQLite format 3\x00"
#: What a data folder holds: one that holds anything else is somebody else's too, and stays as it is.
_OURS = ("registry.db", "queues.db", "admin-token", "demo-token", ".admin-token", ".demo-token", "lost+found")


def private_folder(path: Path) -> None:
    """Make a folder with mode 700 where it is missing, and take from others what they may do in one of ours.

    Raises SettingsError where it is no folder, or none that this process may write to.
    """
    try:
        if not path.exists():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        elif not path.is_dir():
            raise SettingsError(f"{path} is a file: name a folder for the data, with POSTBOTE_DATA_DIR.")
        elif _only_ours(path):
            path.chmod(path.stat().st_mode & 0o700)
    except OSError as error:
        raise _refused(path, error) from None
    writable_folder(path, "POSTBOTE_DATA_DIR")


def writable_folder(path: Path, setting: str) -> None:
    """Return where a folder that a setting names is there and can be written to; raises SettingsError otherwise."""
    if not path.is_dir():
        raise SettingsError(f"{path} is no folder: make it, or name another with {setting}.")
    if not os.access(path, os.W_OK | os.X_OK):
        raise SettingsError(
            f"The folder {path} cannot be written: let this user write to it, or name another with {setting}."
        )


def private_database(path: Path) -> None:
    """Make a database's file with mode 600 where it is missing, and tighten it and what stands beside it.

    SQLite gives what it makes beside a database the database's own mode. Raises SettingsError where it cannot be
    opened.
    """
    try:
        if not path.parent.exists():
            private_folder(path.parent)
        if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        if path.is_file() and not _is_database(path):
            # Named by mistake: it is somebody else's, and refused when it is opened.
            return
        for file in (path.with_name(path.name + suffix) for suffix in _BESIDE):
            if file.is_file() and file.stat().st_uid == os.geteuid():
                file.chmod(0o600)
    except OSError as error:
        raise _refused(path, error) from None


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) in (b"", _MAGIC)


def _only_ours(path: Path) -> bool:
    state = path.stat()
    return state.st_uid == os.geteuid() and all(entry.name.startswith(_OURS) for entry in path.iterdir())


def _refused(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"{path} cannot be used for the data ({error.strerror}): name a folder that this user may write to, with "
        "POSTBOTE_DATA_DIR."
    )
