"""How a bot's message looks in a terminal: as a person would want to see it.

What a bot or a user wrote is shown, never obeyed: control characters are taken out, and nothing in it is markup.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from broker.models.message_objects import kind_of
from consumers.cli.safe_text import line, plain
from consumers.receiver import Checks, Order

_MEDIA = {"image": "▣", "video": "▶", "audio": "♪", "file": "⎙"}
_ACTIONS = {"postback": "↩", "web_url": "↗", "phone_number": "☎", "element_share": "⇪"}
#: What a button or a quick reply says that has no title of its own.
_UNTITLED = {
    "element_share": "Share",
    "location": "Share location",
    "user_email": "Share e-mail",
    "user_phone_number": "Share phone number",
}
_ORDERS: Mapping[Order, str] = {
    "repeat": "repeat",
    "gap": "some before it are missing",
    "late": "out of order",
}
CARD_WIDTH = 34


def render(body: Mapping[str, Any], checks: Checks, at: datetime | None = None) -> RenderableType:
    """Draw a delivery: who it is for, what was checked, and the message; never fails, whatever the body holds."""
    message = body.get("message")
    head = _head(body, checks, at or datetime.now().astimezone())
    drawn = draw(message) if isinstance(message, Mapping) else [_odd(message)]
    return Group(head, Padding(Group(*drawn), (0, 0, 0, 2)))


def draw(message: Mapping[str, Any]) -> list[RenderableType]:
    """Draw a message object; what has no known shape is written as it is."""
    kind = kind_of(message)
    if kind == "event":
        told = {key: value for key, value in message.items() if key != "type"}
        return [Text(f"· event  {_pairs(told)}", style="dim", no_wrap=True, overflow="ellipsis")]
    if kind in ("text", "quick_replies"):
        return [Text(plain(message["text"])), *_quick_replies(message.get("quick_replies"))]
    attachment = message.get("attachment")
    payload = attachment.get("payload") if isinstance(attachment, Mapping) else None
    if not isinstance(payload, Mapping) or not isinstance(attachment, Mapping):
        return [_odd(message)]
    return [*_attached(kind, attachment, payload), *_quick_replies(message.get("quick_replies"))]


def _attached(kind: str, attachment: Mapping[str, Any], payload: Mapping[str, Any]) -> list[RenderableType]:
    elements = list(_mappings(payload.get("elements")))
    match kind:
        case "media":
            media = str(attachment.get("type"))
            return [_Pointer(Text(f"{_MEDIA.get(media, '?')} {line(media)}"), "", payload.get("url"))]
        case "buttons":
            return [_panel([Text(plain(payload.get("text") or "")), *_buttons(payload.get("buttons"))])]
        case "generic":
            return [Columns([_panel(_described(each), CARD_WIDTH) for each in elements], padding=(0, 1))]
        case "list":
            rows = [
                Padding(Group(*_described(each)), (1 if n else 0, 0, 0, 0)) for n, each in enumerate(elements)
            ]
            below = _buttons(payload.get("buttons"))
            return [_panel([*rows, *([Text()] if below else []), *below])]
        case _:
            return [_odd(attachment)]


@dataclass(frozen=True, slots=True)
class _Pointer:
    """A label and where it leads: on one line where that fits, else with the target below, folded."""

    label: Text
    icon: str
    target: object

    def _whole(self) -> Text:
        icon = f"{self.icon} " if self.icon else ""
        gap = " " if self.label and self.target is not None else ""
        target = "" if self.target is None else f"{icon}{line(self.target)}"
        return self.label + Text(gap) + Text(target, style="dim", overflow="fold")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = self._whole()
        if self.target is None or cell_len(whole.plain) <= options.max_width:
            yield whole
            return
        if self.label:
            yield self.label
        grid = Table.grid(padding=(0, 1, 0, 0))
        if self.icon:
            grid.add_column(no_wrap=True, style="dim")
        grid.add_column(overflow="fold", style="dim")
        grid.add_row(*([self.icon] if self.icon else []), Text(line(self.target)))
        yield Padding(grid, (0, 0, 0, 2 if self.label else 0))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        whole = cell_len(self._whole().plain)
        return Measurement(min(12, whole), whole).with_maximum(options.max_width)


def _head(body: Mapping[str, Any], checks: Checks, at: datetime) -> Text:
    head = Text(at.strftime("%H:%M:%S "), style="dim")
    head.append(line(body.get("senderId", "?")), style="not dim bold cyan")
    head.append(f" #{line(body.get('messageCounter', '?'))} ", style="not dim bold")
    if checks.signature is not None:
        head.append(f"✗ {checks.signature} ", style="not dim bold red")
    else:
        head.append("✓ signed ", style="not dim green")
    if checks.token is not None:
        head.append(f"✗ {checks.token} ", style="not dim bold red")
    if checks.order in _ORDERS:
        head.append(f"! {_ORDERS[checks.order]} ", style="not dim bold yellow")
    return head


def _pairs(value: Mapping[Any, Any]) -> str:
    return "  ".join(f"{line(key)}: {line(inner)}" for key, inner in value.items())


def _odd(message: object) -> Text:
    told = _pairs(message) if isinstance(message, Mapping) else plain(message)
    return Text.assemble(("? ", "bold yellow"), told)


def _mappings(values: object) -> Iterable[Mapping[str, Any]]:
    if not isinstance(values, list):
        return []
    return [value for value in values if isinstance(value, Mapping)]


def _title(thing: Mapping[str, Any], kind: object) -> Text:
    title = thing.get("title") or _UNTITLED.get(str(kind)) or kind or "?"
    return Text(f"[ {line(title)} ]", style="bold cyan")


def _quick_replies(replies: object) -> list[RenderableType]:
    chips = [_title(reply, reply.get("content_type")) for reply in _mappings(replies)]
    return [Columns(chips, padding=(0, 1))] if chips else []


def _buttons(buttons: object) -> list[RenderableType]:
    drawn: list[RenderableType] = []
    for button in _mappings(buttons):
        kind = str(button.get("type"))
        target = button.get("url") if kind == "web_url" else button.get("payload")
        drawn.append(_Pointer(_title(button, button.get("type")), _ACTIONS.get(kind, "?"), target))
    return drawn


def _described(element: Mapping[str, Any]) -> list[RenderableType]:
    action = element.get("default_action")
    target = action.get("url") if isinstance(action, Mapping) else element.get("item_url")
    lines: list[RenderableType] = [Text(plain(element.get("title") or ""), style="bold")]
    if element.get("subtitle") is not None:
        lines.append(Text(plain(element["subtitle"]), style="dim"))
    if element.get("image_url") is not None:
        lines.append(_Pointer(Text(), _MEDIA["image"], element["image_url"]))
    if target is not None:
        lines.append(_Pointer(Text(), _ACTIONS["web_url"], target))
    return [*lines, *_buttons(element.get("buttons"))]


def _panel(lines: Sequence[RenderableType], width: int | None = None) -> Panel:
    return Panel(Group(*lines), box=ROUNDED, expand=False, width=width, border_style="dim")
