"""Tokens that are made at the first start and kept in files that only their owner can read."""

import os
from pathlib import Path

from broker.errors import SettingsError
from broker.ids import new_token
from broker.private_files import private_folder
from broker.settings import Settings, check_admin_token

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name
DEMO_TOKEN_FILE = "demo-token"  # noqa: S105


def admin_token(settings: Settings) -> str:
    """Return the administrator's token: the one set, or the one kept in the data directory, made where missing."""
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value()
    path = settings.data_dir / ADMIN_TOKEN_FILE
    try:
        return check_admin_token(kept_token(path, "pba_"))
    except ValueError as error:
        raise SettingsError(f"The token in {path} cannot be used: it {error}.") from None


def kept_token(path: Path, prefix: str = "") -> str:
    """Read a token from its file, or make one and write it there with mode 600.

    Two processes that start at once agree on one: the file is made whole under another name and then linked.
    """
    private_folder(path.parent)
    try:
        if not path.exists():
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(new_token(prefix) + "\n")
            fresh.chmod(0o600)
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        elif path.stat().st_uid == os.geteuid():
            path.chmod(0o600)
        token = path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"The token file {path} cannot be used: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(
            f"The token file {path} holds no text; delete it to have a new token made"
        ) from None
    if not token:
        raise SettingsError(f"The token file {path} is empty; delete it to have a new token made")
    return token
