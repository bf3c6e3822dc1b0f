"""Rows 14 to 20: shapes of load in which one conversation, endpoint or bot could be everybody's trouble."""

import statistics
from collections.abc import Mapping

from bench.end_to_end import Way, hold, on_servers
from bench.endpoints import PLACES, measure_curve, measure_return
from bench.neighbours import ALTERED, Busy, Quiet, Waits, alone, measure_beside, silent
from bench.peers.whole_way import pipeline
from bench.results import Row
from bench.rows import cpu_of
from bench.servers import Servers
from bench.turns import measure_turns

#: How much longer the quiet ones may wait, as p99.
WITH_TO_WITHOUT = 1.5
#: What endpoints take to answer, in seconds; the second half of a second and the first of the next are a pair.
CURVE_S = (0.1, 0.3, 0.97, 1.03, 2.0, 5.0)
QUICK_CURVE_S = (0.1, 0.97, 1.03)
#: 66 KB of JSON in 3,000 objects.
SESSION: Mapping[str, object] = {"visits": [{"n": number, "at": "shop"} for number in range(3_000)]}
#: Who says something every two seconds says so many messages.
RARE_S, RARE, QUICK_RARE = 2.0, 20, 8


async def shapes(on: Servers, quick: bool) -> list[Row]:
    """Rows 14 to 20."""
    return [
        *await _endpoints_of_others(on, quick),
        *await _bots_of_others(on, quick),
        await _curve(on, quick),
        await _busy_conversations(on, quick),
        await _large_sessions(on, quick),
        await _many_return(on, quick),
        *await _at_rest(on, quick),
    ]


async def _endpoints_of_others(on: Servers, quick: bool) -> list[Row]:
    slow = Busy(rate=300, seconds=1, answer_s=0.2, lead_s=None)
    one = Quiet(rate=20, users=1, seconds=6 if quick else 20)
    talking = Busy(rate=60, seconds=15 if quick else 40, answer_s=0.1, same_channel=True, lead_s=5)
    many = Quiet(rate=50, users=100, seconds=8 if quick else 30)
    rows = []
    for where, embedded in (("", False), (", embedded", True)):
        with_it = await measure_beside(on, slow, one, embedded=embedded)
        without = await measure_beside(on, alone(slow), one, embedded=embedded)
        what = f"p99 beside another's 300 messages to an endpoint of 0.2 s, same partition{where} ÷ of 0 s"
        rows.append(_waits(14, what, with_it, without))
    with_it, without = (
        await measure_beside(on, talking, many),
        await measure_beside(on, silent(talking), many),
    )
    what = "p99 beside a conversation of 60 messages a second, endpoint of 0.1 s ÷ without it"
    return [*rows, _waits(14, what, with_it, without)]


async def _bots_of_others(on: Servers, quick: bool) -> list[Row]:
    seconds = 25 if quick else 50
    many = Quiet(rate=50, users=100, seconds=seconds - 20)
    hanging = Busy(rate=150, seconds=seconds, users=200, bot="hang", lead_s=20)
    with_it, without = await measure_beside(on, hanging, many), await measure_beside(on, alone(hanging), many)
    hot = Busy(rate=60, seconds=15 if quick else 40, bot="slow", same_channel=True, lead_s=5)
    few = Quiet(rate=50, users=100, seconds=8 if quick else 30)
    with_hot, without_hot = await measure_beside(on, hot, few), await measure_beside(on, silent(hot), few)
    return [
        _waits(15, "p99 beside 150 messages a second to a bot that hangs ÷ one that answers", with_it, without),
        _waits(15, "p99 beside a conversation of 60 messages a second, bot of 0.1 s ÷ without it",
               with_hot, without_hot),
    ]  # fmt: skip


def _waits(number: int, what: str, with_it: Waits, without: Waits) -> Row:
    shown = (
        f"p50 {with_it.p50_ms:,.0f} ms, p99 {with_it.p99_ms:,.0f} ms; "
        f"without p50 {without.p50_ms:,.0f} ms, p99 {without.p99_ms:,.0f} ms"
    )
    return Row(number, what, with_it.p99_ms / without.p99_ms, "times", WITH_TO_WITHOUT, True, shown)


async def _curve(on: Servers, quick: bool) -> Row:
    found = {
        answer_s: await measure_curve(on, answer_s) for answer_s in (QUICK_CURVE_S if quick else CURVE_S)
    }
    shown = ", ".join(f"{each:g} s: {part:.2f}" for each, part in found.items())
    what = f"deliveries a second ÷ ({PLACES} places ÷ what the endpoint takes), the least of the curve"
    return Row(16, what, min(found.values()), "", 0.8, detail=shown,
               data={"curve": {str(each): part for each, part in found.items()}})  # fmt: skip


async def _busy_conversations(on: Servers, quick: bool) -> Row:
    messages, ours, theirs = 4_000 if quick else 12_000, [], []
    for _ in range(1 if quick else 3):
        ours.append((await measure_turns(on, messages=messages, users=20)).rate)
        at_once = await measure_turns(
            on, messages=messages, users=20, environment={"BENCH_NO_LINGER": "1"}, program=ALTERED
        )
        theirs.append(at_once.rate)
    our, their = statistics.median(ours), statistics.median(theirs)
    shown = f"{our:,.0f}/s, and {their:,.0f}/s"
    # Waiting must not cost them anything; a tenth is what two runs differ by.
    return Row(17, "turns a second of 20 busy conversations ÷ without waiting for company", our / their, "", 0.9,
               detail=shown)  # fmt: skip


async def _large_sessions(on: Servers, quick: bool) -> Row:
    found = await measure_turns(on, messages=600 if quick else 2_000, users=20, session=SESSION)
    what = "CPU of the bot worker for a message, session of 66 KB in 3,000 objects"
    shown = f"{found.rate:,.0f}/s; {cpu_of(found)}"
    return Row(18, what, found.cpu_us["bot"] / 1000, "ms", 1.5, True, shown)


async def _many_return(on: Servers, quick: bool) -> Row:
    webhooks, each = (40, 5) if quick else (100, 20)
    pause, whole = await measure_return(on, webhooks, each)
    what = f"longest pause after {webhooks} endpoints that were away came back together"
    return Row(19, what, pause, "s", detail=f"all of {webhooks * each:,} delivered after {whole:.1f} s")


async def _at_rest(on: Servers, quick: bool) -> list[Row]:
    # In turn, and twice: the machine is another from one minute to the next.
    seconds, number = (10.0, QUICK_RARE) if quick else (30.0, RARE)
    rare: dict[str, list[float]] = {"ours": [], "theirs": []}
    often: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(2):
        async with on_servers(on) as ours, pipeline(on) as theirs:
            for name, way in (("ours", ours), ("theirs", theirs)):
                await hold(way, 50.0, 3.0)
                often[name].append((await hold(way, 50.0, seconds)).p99_ms)
                rare[name].append(await _rare(way, number))
    our, their = statistics.mean(often["ours"]), statistics.mean(often["theirs"])
    our_rare, their_rare = statistics.mean(rare["ours"]), statistics.mean(rare["theirs"])
    return [
        Row(20, "p99 at 50 messages a second ÷ a pipeline of aiohttp and FastStream", our / their, "", 1.0, True,
            f"{our:.1f} ms, and {their:.1f} ms"),
        Row(20, "p50 of a message every 2 seconds ÷ that pipeline's", our_rare / their_rare,
            detail=f"{our_rare:.1f} ms, and {their_rare:.1f} ms"),
    ]  # fmt: skip


async def _rare(way: Way, number: int) -> float:
    return (await hold(way, 1 / RARE_S, RARE_S * number)).p50_ms
