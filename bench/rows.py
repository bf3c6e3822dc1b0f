"""What several benchmarks ask in order to make their rows."""

from collections.abc import Sequence

from bench.deliveries import Measured
from bench.results import Row


def middle(measured: Sequence[Measured]) -> Measured:
    """Return the run whose rate is the median, so that rate and CPU are of the same moment."""
    return sorted(measured, key=lambda one: one.rate)[len(measured) // 2]


def cpu_of(measured: object) -> str:
    """Write the CPU of each process, in microseconds a message."""
    cpu_us: dict[str, float] = getattr(measured, "cpu_us", {})
    return "CPU µs: " + ", ".join(f"{name} {value:.0f}" for name, value in cpu_us.items())


def memory_row(what: str, megabytes: float, most: float) -> Row:
    """Make one of the rows of memory."""
    return Row(9, f"memory: {what}", megabytes, "MB", most, at_most=True)
