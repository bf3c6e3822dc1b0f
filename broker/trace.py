"""W3C Trace Context: a message keeps one trace from its door to the webhooks.

https://www.w3.org/TR/trace-context/
"""

import re

from broker.randomness import random_bytes

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
#: Longer than any version needs; what is longer is not looked at.
_LONGEST = 512


def traceparent_of(given: object) -> str:
    """Return the `traceparent` that a sender gave where it is valid, and a new one otherwise.

    A version later than 00 is read as 00, as the recommendation asks (section 4.3).
    """
    if not isinstance(given, str) or len(given) > _LONGEST:
        return new_traceparent()
    found = _TRACEPARENT.fullmatch(given.strip(" \t"))
    if found is None:
        return new_traceparent()
    version, trace, span, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not trace.strip("0") or not span.strip("0"):
        return new_traceparent()
    return f"00-{trace}-{span}-{flags}"


def new_traceparent() -> str:
    """Make a `traceparent` that begins a trace, marked as sampled, so that receivers record it."""
    return f"00-{_random_hex(16)}-{_random_hex(8)}-01"


def child(traceparent: str) -> str:
    """Return the `traceparent` of a step within a trace: the same trace and flags, a new span."""
    _, trace, _, flags = traceparent_of(traceparent).split("-")
    return f"00-{trace}-{_random_hex(8)}-{flags}"


def _random_hex(size: int) -> str:
    # All zeros is the one value that is invalid.
    return random_bytes(size).hex().replace("0" * 2 * size, "1".rjust(2 * size, "0"))
