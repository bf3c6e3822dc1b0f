"""What others wrote, made safe to print: shown, never obeyed by the terminal."""

import json
import re
import sys

#: Controls (C0 but tab and newline, DEL, C1), and marks that turn the direction of writing or end a line.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = re.compile(r"[\t\n]+")


def plain(value: object) -> str:
    """Write any value as text; control characters become U+FFFD, tabs and newlines stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value if isinstance(value, str) else str(value))


def line(value: object) -> str:
    """Write any value as one line, so that no name or title can look like a line of ours."""
    return _BREAKS.sub(" ", plain(value))


def json_text(value: object, indent: int | None = None) -> str:
    """Write JSON; what a terminal might obey or cannot show is escaped, so that it reads back unchanged."""
    shows_all = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, ensure_ascii=not shows_all, indent=indent)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
