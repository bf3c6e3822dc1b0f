"""Why a queue message was rejected, in words for whoever reads the dead letters."""

from pydantic import ValidationError


def why_invalid(error: ValidationError, *, most: int = 5) -> str:
    """Name the first faults of a body, each with where it is; never repeats the body's own content."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'body'}: {fault['msg']}" for fault in faults[:most]
    ]
    if len(faults) > most:
        lines.append(f"and {len(faults) - most} more")
    return "; ".join(lines)
