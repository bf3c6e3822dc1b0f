"""Row 13: the whole way beside one that a user would write instead (`bench/peers/pipeline_peer.py`)."""

from bench.end_to_end import Held, measure_rate, on_servers
from bench.peers.whole_way import measure_pipeline
from bench.results import Row
from bench.rows import cpu_of
from bench.servers import Servers

#: What costs both the same, and is no part of either.
OUTSIDE = frozenset({"sender", "receiver"})


async def beside_pipeline(on: Servers, quick: bool) -> list[Row]:
    """Row 13."""
    seconds = 10.0 if quick else 60.0
    theirs = await measure_pipeline(on, seconds)
    async with on_servers(on) as running:
        ours = await measure_rate(running, seconds)
    our_cpu, their_cpu = cpu_inside(ours), cpu_inside(theirs)
    data = {"ours": {"rate": ours.rate, "cpu_us": dict(ours.cpu_us)},
            "theirs": {"rate": theirs.rate, "cpu_us": dict(theirs.cpu_us)}}  # fmt: skip
    return [
        Row(13, "messages a second held ÷ a pipeline of aiohttp and FastStream", ours.rate / theirs.rate, "", 2.5,
            detail=f"{ours.rate:,.0f}/s, and {theirs.rate:,.0f}/s, each at p99 < 250 ms", data=data),
        Row(13, "CPU of a message, all processes and servers ÷ that pipeline's", our_cpu / their_cpu, "", 0.4, True,
            f"{our_cpu:,.0f} µs ({cpu_of(ours)}), and {their_cpu:,.0f} µs ({cpu_of(theirs)})"),
    ]  # fmt: skip


def cpu_inside(held: Held) -> float:
    """Return the CPU of a message in microseconds, without sender and receiver."""
    return sum(value for name, value in held.cpu_us.items() if name not in OUTSIDE)
