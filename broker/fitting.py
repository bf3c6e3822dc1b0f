"""Fitting: a message's headers cut to what the broker can carry. Pure."""

from collections.abc import Mapping

from broker.port import HeaderValue

#: What a field takes beside its name and a text's bytes: the name's length, a type, the text's length; and the
#: most that a number or a truth takes.
_AROUND_TEXT, _AROUND_OTHER = 6, 10


def fit_headers(headers: Mapping[str, HeaderValue], room: int) -> dict[str, HeaderValue]:
    """Return headers that take at most `room` bytes: the smallest whole, and of a text without room its beginning."""
    left = room
    fitting: dict[str, HeaderValue] = {}
    for size, name in sorted((_size(name, value), name) for name, value in headers.items()):
        value = headers[name]
        if size > left:
            spare = left - _size(name, "")
            if not isinstance(value, str) or spare <= 0:
                continue
            value = value.encode("utf-8", "replace")[:spare].decode("utf-8", "ignore")
        fitting[name] = value
        left -= _size(name, value)
    return fitting


def headers_size(headers: Mapping[str, HeaderValue]) -> int:
    """Return the bytes that headers take at most."""
    return sum(_size(name, value) for name, value in headers.items())


def _size(name: str, value: HeaderValue) -> int:
    around = len(name.encode("utf-8", "replace"))
    if isinstance(value, str):
        return around + _AROUND_TEXT + len(value.encode("utf-8", "replace"))
    return around + _AROUND_OTHER
