"""How a bot's message looks in a terminal: as a person would want to see it.

What a bot or a user wrote is shown, never obeyed: control characters are taken out, and nothing in it is markup.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.box import ROUNDED
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from broker.models.message_objects import kind_of
from consumers.receiver import Checks

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MEDIA = {"image": "▣", "video": "▶", "audio": "♪", "file": "⎙"}
_ACTIONS = {"postback": "↩", "web_url": "↗", "phone_number": "☎", "element_share": "⇪"}
CARD_WIDTH = 34


def render(body: Mapping[str, Any], checks: Checks, at: datetime | None = None) -> RenderableType:
    """Draw a delivery: who it is for, what was checked, and the message; never fails, whatever the body holds."""
    message = body.get("message")
    head = _head(body, checks, at or datetime.now().astimezone())
    if not isinstance(message, Mapping):
        return Group(head, Padding(_odd(message), (0, 0, 0, 2)))
    return Group(head, Padding(Group(*draw(message)), (0, 0, 0, 2)))


def draw(message: Mapping[str, Any]) -> list[RenderableType]:
    """Draw a message object."""
    kind = kind_of(message)
    if kind == "event":
        return [
            Text("· event ", style="dim") + _value({k: v for k, v in message.items() if k != "type"}, "dim")
        ]
    if kind in ("text", "quick_replies"):
        return [_plain(message.get("text")), *_quick_replies(message.get("quick_replies"))]
    attachment = message.get("attachment")
    payload = attachment.get("payload") if isinstance(attachment, Mapping) else None
    if not isinstance(payload, Mapping) or not isinstance(attachment, Mapping):
        return [_odd(message)]
    replies = _quick_replies(message.get("quick_replies"))
    match kind:
        case "media":
            icon = _MEDIA.get(str(attachment.get("type")), "?")
            return [
                Text(f"{icon} ", style="bold")
                + _plain(attachment.get("type"))
                + "  "
                + _link(payload.get("url")),
                *replies,
            ]
        case "buttons":
            return [_panel([_plain(payload.get("text")), *_buttons(payload.get("buttons"))]), *replies]
        case "generic":
            cards = [_card(element) for element in _mappings(payload.get("elements"))]
            return [Columns(cards, padding=(0, 1)), *replies]
        case "list":
            rows = [_row(element) for element in _mappings(payload.get("elements"))]
            return [_panel([*rows, *_buttons(payload.get("buttons"))]), *replies]
        case _:
            return [_odd(message)]


def plain(value: object) -> str:
    """Write any value as text that is safe to print."""
    return (
        _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value if isinstance(value, str) else str(value))
        .encode("utf-8", "replace")
        .decode()
    )


def _head(body: Mapping[str, Any], checks: Checks, at: datetime) -> Text:
    head = Text(at.strftime("%H:%M:%S "), style="dim")
    head.append(plain(body.get("senderId", "?")), style="bold cyan")
    head.append(f" #{plain(body.get('messageCounter', '?'))} ", style="bold")
    if checks.signature is not None:
        head.append(f"✗ {checks.signature} ", style="bold red")
    else:
        head.append("✓ signed ", style="green")
    if checks.token is not None:
        head.append(f"✗ {checks.token} ", style="bold red")
    if checks.order == "repeat":
        head.append("repeat ", style="yellow")
    elif checks.order == "gap":
        head.append("some before it are missing ", style="bold yellow")
    return head


def _plain(value: object) -> Text:
    return Text("" if value is None else plain(value))


def _value(value: object, style: str = "") -> Text:
    if isinstance(value, Mapping):
        return Text("  ".join(f"{plain(key)}: {plain(inner)}" for key, inner in value.items()), style=style)
    return Text(plain(value), style=style)


def _odd(message: object) -> Text:
    return Text("? ", style="bold yellow") + _value(message)


def _link(url: object) -> Text:
    if not isinstance(url, str):
        return Text("(no URL)", style="dim")
    return Text(plain(url), style="underline blue", overflow="fold")


def _mappings(values: object) -> Iterable[Mapping[str, Any]]:
    if not isinstance(values, list):
        return []
    return [value for value in values if isinstance(value, Mapping)]


def _quick_replies(replies: object) -> list[RenderableType]:
    chips = Text()
    for reply in _mappings(replies):
        chips.append(f" {plain(reply.get('title') or reply.get('content_type', '?'))} ", style="reverse cyan")
        chips.append("  ")
    return [chips] if chips else []


def _buttons(buttons: object) -> list[Text]:
    drawn = []
    for button in _mappings(buttons):
        kind = str(button.get("type"))
        line = Text(f"[ {plain(button.get('title', ''))} ]", style="bold cyan")
        target = button.get("url") if kind == "web_url" else button.get("payload")
        line.append(
            f" {_ACTIONS.get(kind, '?')} {plain(target)}" if target is not None else "", style="not bold dim"
        )
        drawn.append(line)
    return drawn


def _card(element: Mapping[str, Any]) -> Panel:
    return _panel(_described(element), width=CARD_WIDTH)


def _row(element: Mapping[str, Any]) -> Padding:
    return Padding(Group(*_described(element)), (0, 0, 1, 0))


def _described(element: Mapping[str, Any]) -> list[Text]:
    lines = [Text(plain(element.get("title", "")), style="bold")]
    if element.get("subtitle") is not None:
        lines.append(Text(plain(element["subtitle"]), style="dim"))
    if element.get("image_url") is not None:
        lines.append(Text("▣ ", overflow="fold") + _link(element["image_url"]))
    action = element.get("default_action")
    target = action.get("url") if isinstance(action, Mapping) else element.get("item_url")
    if target is not None:
        lines.append(Text("↗ ", overflow="fold") + _link(target))
    return lines + _buttons(element.get("buttons"))


def _panel(lines: Sequence[RenderableType], width: int | None = None) -> Panel:
    return Panel(Group(*lines), box=ROUNDED, expand=False, width=width, border_style="dim")
