"""JSON values that every reader reads alike: what is taken in can be written and read again at each stage.

Parsers take more than JSON has (NaN, Infinity), and RFC 8259 leaves the range of numbers (section 6) and the
depth of nesting (section 9) to each of them. Here both have an end.
"""

import math
from typing import Annotated, Any, TypeVar

from pydantic import ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import from_json, to_json

V = TypeVar("V")

#: Integers have 64 bits at most: beyond that readers round, wrap around or fail.
LARGEST_INTEGER = 2**63 - 1
#: Levels of a user's message. What wraps it inside Postbote stays far below the parsers' own 200.
DEEPEST = 32
#: Levels of what a bot says: room for a session that it shows, which paths may have made deeper.
DEEPEST_SAID = 64
_NO_DIGIT_BUT_0 = bytes.maketrans(b"123456789", b"000000000")
#: As many digits as the largest integer has, or more.
_MANY_DIGITS = b"0" * len(str(LARGEST_INTEGER))
_ONE_BRACKET = bytes.maketrans(b"[]", b"{}")
_NO_BRACKET_NOR_QUOTE = bytes(set(range(256)) - set(b'[]{}"'))
#: Characters of the place that a fault names, since its keys are the sender's.
_LONGEST_PLACE = 120


def require_plain(value: V, deepest: int = DEEPEST) -> V:
    """Return a parsed JSON value as it is; raises ValueError, with the place, where some reader would fail.

    Refused: NaN and the infinities, integers beyond 64 bits, and more than `deepest` levels.
    """
    fault = _fault(value, deepest)
    if fault is not None:
        path, what = fault
        place = ".".join(reversed(path))
        if len(place) > _LONGEST_PLACE:
            place = place[:_LONGEST_PLACE] + "…"
        raise ValueError(f"{what}, at {place}" if place else what)
    return value


def json_object(value: Any) -> dict[str, Any]:
    """Return a copy of a program's mapping as JSON has it: tuples become lists, times become texts.

    Raises ValueError where JSON has nothing for it.
    """
    return measured_json_object(value)[0]


def measured_json_object(value: Any) -> tuple[dict[str, Any], int]:
    """Return a copy as `json_object` does, and how long it is as JSON, in bytes. Raises ValueError."""
    written = written_json_object(value)
    return from_json(written), len(written)


def written_json_object(value: Any, known: bytes | None = None) -> bytes:
    """Write a program's mapping as JSON, that `require_plain` lets pass; raises ValueError otherwise.

    What comes out as the bytes that are known to pass is not looked at again.
    """
    written = to_json(value)
    if written == known:
        return written
    if not written.startswith(b"{"):
        raise ValueError("it is no JSON object")
    if not _seen_to_be_plain(written, DEEPEST_SAID):
        require_plain(from_json(written), DEEPEST_SAID)
    return written


def _read(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    if info.mode == "json":
        return require_plain(handler(value), DEEPEST_SAID)
    return json_object(value)


#: A field with a JSON object of a program's making; what is read from JSON is only checked.
JsonObject = Annotated[dict[str, Any], WrapValidator(_read)]


def _seen_to_be_plain(written: bytes, deepest: int) -> bool:
    """Tell whether `require_plain` lets the value of a valid JSON text pass; False also where its bytes do not tell.

    Thousands of small values take a fraction of the time that looking at each of them does.
    """
    if b"NaN" in written or b"Infinity" in written or _MANY_DIGITS in written.translate(_NO_DIGIT_BUT_0):
        return False
    if written.count(b"{") + written.count(b"[") <= deepest:
        return True
    if b"\\" in written:
        written = written.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Quotes are left where a text between two of them holds a bracket, and then its bytes do not tell.
    brackets = written.translate(_ONE_BRACKET, _NO_BRACKET_NOR_QUOTE).replace(b'""', b"")
    for _ in range(deepest):
        # The innermost are taken out, a level at a time.
        if not brackets:
            break
        brackets = brackets.replace(b"{}", b"")
    return not brackets


def _fault(value: object, levels: int) -> tuple[list[str], str] | None:
    if isinstance(value, dict | list):
        if levels == 0:
            return [], "nested too deeply"
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            # Most values are texts, which the parser has made sure of.
            fault = None if type(inner) is str else _fault(inner, levels - 1)
            if fault is not None:
                fault[0].append(str(key))
                return fault
    elif isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            return [], "an integer beyond 64 bits"
    elif isinstance(value, float) and not math.isfinite(value):
        return [], "NaN and Infinity are not JSON"
    return None
