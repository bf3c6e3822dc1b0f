"""What a message writes to the session before the bot sees it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

if TYPE_CHECKING:
    from broker.models.records import UserMessage

Session = dict[str, Any]

#: As JSON, in bytes. A session is read, written and given to the bot with each message of its conversation.
LARGEST_SESSION = 256 * 1024


def apply_session_data(session: Session, data: Mapping[str, Any]) -> None:
    """Write variables to a session, in order; a key with dots (`address.city`) is a path into nested objects.

    What stands in the way of a path and is no object gives way to one. The session shares nothing with the data:
    whoever gets it may change it.
    """
    for key, value in data.items():
        _write(session, key, value)


def session_after(message: "UserMessage", session: bytes) -> Session:
    """Parse a session as the bot shall see it: with the message's sessionData and what a click sets.

    Each call makes one that shares nothing with anything else.
    """
    after: Session = from_json(session)
    apply_session_data(after, message.session_data)
    click = message.message.postback_message if message.message is not None else None
    for variable in click.session_data_to_set if click is not None else ():
        _write(after, variable.key, variable.value)
    return after


def require_session_fits(size: int, before: int = 0) -> None:
    """Return where a session of so many bytes can be kept, after one of `before` bytes; raises ValueError otherwise.

    One that was too large before may stay so, and shrink.
    """
    if size > LARGEST_SESSION and size > before:
        raise ValueError(
            f"the session would have {size:,} bytes of JSON; at most {LARGEST_SESSION:,} are kept"
        )


def _write(session: Session, key: str, value: Any) -> None:
    *path, last = key.split(".")
    place = session
    for part in path:
        inner = place.get(part)
        if not isinstance(inner, dict):
            inner = place[part] = {}
        place = inner
    place[last] = _copy(value)


def _copy(value: Any) -> Any:
    # A session is JSON, a few levels deep: copy.deepcopy would ask far more, and take ten times as long.
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copy(inner) for inner in value]
    return value
