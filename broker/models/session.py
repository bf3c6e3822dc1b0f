"""What a message writes to the session before the bot sees it. Pure: every session is a new one."""

from collections.abc import Iterable, Mapping
from typing import Any

from broker.models.records import UserMessage


def apply_session_data(session: Mapping[str, Any], data: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Write variables to a session; a key with dots (`address.city`) is a path into nested objects.

    Whatever stands in the way of a path and is no object gives way to one.
    """
    changed = dict(session)
    for key, value in data:
        *path, last = key.split(".")
        place = changed
        for part in path:
            inner = place.get(part)
            place[part] = dict(inner) if isinstance(inner, dict) else {}
            place = place[part]
        place[last] = value
    return changed


def session_after(message: UserMessage, session: Mapping[str, Any]) -> dict[str, Any]:
    """Return the session as the bot shall see it: with the message's sessionData, then with what a click sets."""
    click = message.message.postback_message
    clicked = [(variable.key, variable.value) for variable in click.session_data_to_set] if click else []
    return apply_session_data(session, [*message.session_data.items(), *clicked])
