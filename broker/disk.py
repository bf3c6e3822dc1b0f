"""The disk: whether there is room on it.

A file of SQLite that has some room left inside is written well on a full disk, until the first message for which it
has to grow.
"""

import shutil
from pathlib import Path

from broker.errors import NotReady

#: With less than this free a disk counts as full, in bytes: the log of a few large transactions.
LEAST_FREE = 4 * 1024 * 1024


def require_space(path: Path) -> None:
    """Return where the disk of a file has room; raises NotReady otherwise."""
    free = shutil.disk_usage(path.parent).free
    if free < LEAST_FREE:
        raise NotReady(f"the disk is full: {free // 1024:,} KiB are free")
