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
    written = to_json(value)
    copy = from_json(written)
    if not isinstance(copy, dict):
        raise ValueError("it is no JSON object")
    return require_plain(copy, DEEPEST_SAID), len(written)


def _read(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    if info.mode == "json":
        return require_plain(handler(value), DEEPEST_SAID)
    return json_object(value)


#: A field with a JSON object of a program's making; what is read from JSON is only checked.
JsonObject = Annotated[dict[str, Any], WrapValidator(_read)]


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
