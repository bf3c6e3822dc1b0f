"""The bytes of JSON: what stands before it where a program wrote it in another encoding, or with a mark."""

import codecs

#: RFC 8259, section 8.1: JSON is UTF-8, and a reader may leave a byte order mark out. UTF-32 before UTF-16, whose
#: mark is the beginning of the other's.
_OTHERS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def without_mark(body: bytes) -> bytes:
    """Leave out the byte order mark of UTF-8 where a body begins with it."""
    return body[3:] if body.startswith(codecs.BOM_UTF8) else body


def why_not_json(body: bytes) -> str | None:
    """Say what a body is that is no JSON, where its first bytes tell."""
    for mark, name in _OTHERS:
        if body.startswith(mark):
            return f"it begins with the byte order mark of {name}, and JSON is UTF-8"
    if body.startswith(b"\x1f\x8b"):
        return "it begins as gzip does, and its content encoding does not say so"
    return None
