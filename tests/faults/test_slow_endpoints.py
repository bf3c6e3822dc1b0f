"""An endpoint that works and takes its time, or a conversation with much to say, is nobody else's problem."""

import asyncio

import pytest
from behaviours import delayed
from latency import p99_of
from load import Load
from receivers import Receiver, good, opened
from stage import Stage

HEALTHY, SLOW, CHANNELS = 45, 5, 9
#: Deliveries a second to the healthy ones, of whom each gets a ninth of the messages.
RATE = 250.0
#: Responses to each message to the slow ones.
SAYS = 20
#: For how long, in seconds, until each user spoke twice at least; and before that.
PHASE_S, WARM_S = 25.0, 15.0
MOST_SLOWER = 1.5


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("takes_s", "users", "rate", "places"),
    # The conversations have twice as much to say, or more, as can be delivered one after the other; of one, more than
    # 1,000 responses wait. In one case it is the endpoints that get more than they can take.
    [(0.2, 4, 40.0, 64), (0.5, 4, 24.0, 64), (0.9, 4, 20.0, 64), (0.9, 200, 30.0, 16), (0.2, 1, 80.0, 64)],
    ids=["0.2 s", "0.5 s", "0.9 s", "0.9 s, more than they can", "one conversation"],
)
async def test_endpoints_that_take_their_time_slow_nobody_else_down(
    stage: Stage, untroubled: Stage, takes_s: float, users: int, rate: float, places: int
) -> None:
    slow = [Receiver(f"slow-{number}") for number in range(SLOW)]
    for receiver in slow:
        receiver.behaviour = delayed(takes_s)
    healthy = {
        id(on): [Receiver(f"healthy-{number}") for number in range(HEALTHY)] for on in (stage, untroubled)
    }
    async with opened(*slow, *(receiver for receivers in healthy.values() for receiver in receivers)):
        for on in (stage, untroubled):
            on.environment["POSTBOTE_MAX_IN_FLIGHT_PER_WEBHOOK"] = str(places)
            await on.start_all("api", "bot", "deliver")
            made = [await on.channel() for _ in range(CHANNELS)]
            for number, receiver in enumerate(healthy[id(on)]):
                await on.webhook(made[number % CHANNELS], receiver)
        of_the_healthy = {id(on): tuple(on.channels) for on in (stage, untroubled)}
        hot = stage.load(
            await stage.channel(*slow, bot="demo", text=f"count to {SAYS}", says=SAYS),
            users=users,
            rate=rate / SAYS,
            in_turn=True,
        )

        async def measure(on: Stage, phase_s: float) -> tuple[Load, float]:
            load = on.load(*of_the_healthy[id(on)], rate=RATE * CHANNELS / HEALTHY, in_turn=True)
            async with load.flowing():
                await asyncio.sleep(phase_s)
            own = [each for each in on.subscribers if each.channel in of_the_healthy[id(on)]]
            assert await on.all_there(load, own, 60.0)
            return load, await p99_of(on, load, healthy[id(on)])

        async with hot.flowing():
            await asyncio.gather(measure(stage, WARM_S), measure(untroubled, WARM_S))
            # Side by side at the same time: whatever else the machine does slows both.
            (load, with_them), (_, without) = await asyncio.gather(
                measure(stage, PHASE_S), measure(untroubled, PHASE_S)
            )
        arrived = min(receiver.distinct for receiver in slow)
        what = f"5 of 50 webhooks take {takes_s:g} s, {rate:g}/s for {users} users"
        await stage.judge(
            what,
            load,
            judged=lambda subscriber: subscriber.channel in load.channels,
            notes={
                "p99 with them, ms": with_them * 1000,
                "p99 without, ms": without * 1000,
                "ratio": with_them / without,
                "waiting for a slow one": hot.accepted() * SAYS - arrived,
            },
        )
        # What still waits comes at once, so that the test ends.
        for receiver in slow:
            receiver.behaviour = good
        await stage.judge(
            f"{what}: what they get", hot, judged=lambda subscriber: subscriber.channel in hot.channels
        )
        assert arrived > 5
        assert with_them <= MOST_SLOWER * without
